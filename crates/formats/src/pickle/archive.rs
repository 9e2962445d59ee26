//! The zip file around a checkpoint. Own code and not the `zip` crate: that crate keeps one of several entries with the
//! same name without a word, copies where a slice of the mapped file will do, and unpacks; here, duplicates and
//! overlaps must be seen, tensors stay where they lie, and nothing is ever compressed, so no bomb can be.
//! Follows PKWARE's APPNOTE 6.3.10, sections 4.3 and 4.5.3 (zip64). Knows no pickles.

use crate::{
    bytes::{Cursor, beyond, shown},
    folder::check_name,
};
use narthex_base::{Error, Result};
use std::{collections::BTreeMap, ops::Range};

/// Entries: one for each storage, and some small ones.
const ENTRIES_MAX: u64 = 1 << 18;
/// A zip file may end in a comment this long, so its end must be looked for this far.
const COMMENT_BYTES_MAX: usize = (1 << 16) - 1;

const END: [u8; 4] = *b"PK\x05\x06";
const END_BYTES: usize = 22;
const ZIP64_LOCATOR: [u8; 4] = *b"PK\x06\x07";
const ZIP64_LOCATOR_BYTES: usize = 20;
const ZIP64_END: [u8; 4] = *b"PK\x06\x06";
const CENTRAL: [u8; 4] = *b"PK\x01\x02";
const LOCAL: [u8; 4] = *b"PK\x03\x04";
const ZIP64_EXTRA: u16 = 1;
/// The bit of the flags that says that an entry is encrypted.
const ENCRYPTED: u16 = 1;

/// Where the bytes of each entry lie, by name.
pub(super) type Entries = BTreeMap<String, Range<usize>>;

/// Whether a file begins as a zip file does.
pub(super) fn is_zip(file: &[u8]) -> bool {
    file.starts_with(&LOCAL)
}

/// Lists a zip file.
pub(super) fn entries(file: &[u8]) -> Result<Entries> {
    let (count, directory, directory_end) = directory(file)?;
    let mut cursor = Cursor::new(&file[..directory_end], directory);
    let mut entries = Entries::new();
    // Header and content of each, to be held against the others.
    let mut places = Vec::new();
    for _ in 0..count {
        let (name, header, content) = entry(file, directory, &mut cursor)?;
        places.push((header..content.end, name.clone()));
        if entries.insert(name.clone(), content).is_some() {
            return Err(Error::input(format!("the zip file has two entries `{}`", shown(&name))));
        }
    }
    places.sort_by_key(|(place, _)| place.start);
    for pair in places.windows(2) {
        if pair[1].0.start < pair[0].0.end {
            return Err(Error::input(format!(
                "the entries `{}` and `{}` of the zip file overlap",
                shown(&pair[0].1),
                shown(&pair[1].1)
            )));
        }
    }
    Ok(entries)
}

/// The number of entries, and where the central directory lies.
fn directory(file: &[u8]) -> Result<(u64, usize, usize)> {
    let searched = file.len().saturating_sub(END_BYTES + COMMENT_BYTES_MAX);
    let end = file
        .len()
        .checked_sub(END_BYTES)
        .and_then(|last| (searched..=last).rev().find(|at| file[*at..].starts_with(&END)));
    let end = end.ok_or_else(|| {
        Error::input("the zip file has no end").help("the file is cut off or damaged: fetch or copy it again")
    })?;
    let what = "the end of the zip file";
    let mut cursor = Cursor::new(file, end + 4);
    let (disk, directory_disk) = (cursor.u16(what)?, cursor.u16(what)?);
    let (_, count) = (cursor.u16(what)?, cursor.u16(what)?);
    let (len, start) = (cursor.u32(what)?, cursor.u32(what)?);
    if disk != directory_disk || (disk != 0 && disk != u16::MAX) {
        return Err(Error::input("a zip file in several parts is not supported"));
    }
    let (mut count, mut len, mut start, mut before) = (u64::from(count), u64::from(len), u64::from(start), end);
    let locator = end.checked_sub(ZIP64_LOCATOR_BYTES).filter(|at| file[*at..].starts_with(&ZIP64_LOCATOR));
    if let Some(locator) = locator {
        let mut cursor = Cursor::new(file, locator + 8);
        let at = cursor.u64("the zip64 locator")?;
        let at = usize::try_from(at).ok().filter(|at| *at < locator && file[*at..].starts_with(&ZIP64_END));
        let at = at.ok_or_else(|| Error::input("the zip64 locator leads nowhere").cause(format!("byte {locator}")))?;
        // Signature, length, versions, disks, and the count on this disk.
        let mut cursor = Cursor::new(file, at + 4 + 8 + 4 + 8 + 8);
        let what = "the zip64 end record";
        (count, len, start, before) = (cursor.u64(what)?, cursor.u64(what)?, cursor.u64(what)?, at);
    }
    if count > ENTRIES_MAX {
        return Err(beyond("the number of entries in the zip file", count, ENTRIES_MAX, end));
    }
    match start.checked_add(len) {
        Some(directory_end) if directory_end <= before as u64 => Ok((count, start as usize, directory_end as usize)),
        _ => Err(Error::input("the zip file's directory lies beyond its end")
            .cause(format!("byte {end}: {len} bytes at {start} are announced, {before} are there"))),
    }
}

/// The next entry of the central directory: name, place of its own header, place of its content.
fn entry(file: &[u8], directory: usize, cursor: &mut Cursor) -> Result<(String, usize, Range<usize>)> {
    let what = "the directory of the zip file";
    let at = cursor.at();
    if cursor.array::<4>(what)? != CENTRAL {
        return Err(Error::input("the directory of the zip file is damaged").cause(format!("byte {at}")));
    }
    cursor.take(4, what)?;
    let (flags, method) = (cursor.u16(what)?, cursor.u16(what)?);
    cursor.take(8, what)?;
    let (packed_len, len) = (cursor.u32(what)?, cursor.u32(what)?);
    let (name_len, extra_len, comment_len) = (cursor.u16(what)?, cursor.u16(what)?, cursor.u16(what)?);
    cursor.take(8, what)?;
    let header = cursor.u32(what)?;
    let name = std::str::from_utf8(cursor.take(name_len.into(), what)?)
        .map_err(|error| Error::input("a name in the zip file is not UTF-8").cause(format!("byte {at}: {error}")))?
        .to_string();
    let extra = cursor.take(extra_len.into(), what)?;
    cursor.take(comment_len.into(), what)?;
    let refuse =
        |problem: String| Error::input(format!("the entry `{}` {problem}", shown(&name))).cause(format!("byte {at}"));
    check_name(name.trim_end_matches('/'))?;
    let (mut packed_len, mut len, mut header) = (u64::from(packed_len), u64::from(len), u64::from(header));
    zip64(extra, [&mut len, &mut packed_len, &mut header]).map_err(|error| error.cause(format!("byte {at}")))?;
    if method != 0 || packed_len != len {
        return Err(refuse("of the zip file is compressed, as torch.save never does".into())
            .help("it could be a zip bomb; unpack it yourself, and zip it again with `zip -0`"));
    }
    if flags & ENCRYPTED != 0 {
        return Err(refuse("of the zip file is encrypted".into()));
    }
    let lies = || refuse("of the zip file lies beyond its end".into());
    let header = usize::try_from(header).ok().filter(|header| *header < directory).ok_or_else(lies)?;
    let mut local = Cursor::new(&file[..directory], header);
    let what = "an entry of the zip file";
    if local.array::<4>(what)? != LOCAL {
        return Err(refuse("of the zip file is not where its directory says".into()));
    }
    local.take(22, what)?;
    let (local_name_len, local_extra_len) = (local.u16(what)?, local.u16(what)?);
    if local.take(local_name_len.into(), what)? != name.as_bytes() {
        return Err(refuse("of the zip file has another name in its own header".into()));
    }
    local.take(local_extra_len.into(), what)?;
    let start = local.at();
    if len > local.left() as u64 {
        return Err(lies().cause(format!("{len} bytes at {start} are announced, {} are there", local.left())));
    }
    Ok((name, header, start..start + len as usize))
}

/// Takes the 64-bit values in place of those that say that they stand elsewhere.
fn zip64(extra: &[u8], values: [&mut u64; 3]) -> Result<()> {
    let mut cursor = Cursor::new(extra, 0);
    let what = "an extra field of the zip file";
    while cursor.left() >= 4 {
        let (id, len) = (cursor.u16(what)?, cursor.u16(what)?);
        let mut field = Cursor::new(cursor.take(len.into(), what)?, 0);
        if id == ZIP64_EXTRA {
            for value in values {
                if *value == u64::from(u32::MAX) {
                    *value = field.u64(what)?;
                }
            }
            return Ok(());
        }
    }
    Ok(())
}
