//! The files of an archive into a folder: plain files and folders, below it, and nothing else. Knows no manifests.

use crate::pulled::{Packing, inside};
use narthex_base::{Error, Result};
use std::{
    fs::{self, File},
    io::{BufReader, Read},
    path::Path,
};

/// Files that an archive may hold.
const FILES_MAX: usize = 100_000;
/// How much larger than itself an archive may become: weights hardly shrink, and papers by a factor of ten.
const GROWTH_MAX: u64 = 200;
/// What any archive may become.
const BYTES_FREE: u64 = 64 << 20;

/// Unpacks the files below a path of an archive.
///
/// # Errors
/// If it is damaged, holds links or devices, a path that leads elsewhere, or more than it can honestly hold.
pub(crate) fn unpack(archive: &Path, packing: Packing, below: &str, to: &Path) -> Result<Vec<String>> {
    let damaged =
        |error: std::io::Error| Error::input("an archive is damaged").at(archive.display(), None).cause(error);
    let file = File::open(archive).map_err(|error| Error::io("cannot read", archive, error))?;
    let packed = file.metadata().map_err(|error| Error::io("cannot read", archive, error))?.len();
    let mut left = BYTES_FREE + packed.saturating_mul(GROWTH_MAX);
    let reader: Box<dyn Read> = match packing {
        Packing::Tar => Box::new(BufReader::new(file)),
        Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::new(file))),
        Packing::Zstd => Box::new(zstd::stream::read::Decoder::new(file).map_err(damaged)?),
    };
    let mut made = Vec::new();
    for (count, entry) in tar::Archive::new(reader).entries().map_err(damaged)?.enumerate() {
        let mut entry = entry.map_err(damaged)?;
        let refused = |what: &str| Error::input(format!("an archive {what}")).at(archive.display(), None);
        if count >= FILES_MAX {
            return Err(refused(&format!("holds more than {FILES_MAX} files")));
        }
        let path = entry.path().map_err(damaged)?.to_string_lossy().into_owned();
        let path = path.trim_start_matches("./").trim_end_matches('/').to_string();
        let kind = entry.header().entry_type();
        let path = match path.strip_prefix(below).map(|rest| rest.trim_start_matches('/')) {
            _ if below.is_empty() => path.as_str(),
            Some(rest) if path.len() > below.len() && path.as_bytes()[below.len()] == b'/' => rest,
            // What else an image holds is no part of the model.
            _ => continue,
        };
        if kind.is_dir() || path.is_empty() {
            continue;
        }
        if !kind.is_file() {
            return Err(refused(&format!("holds a link or a device: `{}`", inside(path)?))
                .help("nothing of it is used; ask who pushed it"));
        }
        let path = inside(path)?;
        left = left.checked_sub(entry.size()).ok_or_else(|| refused("would become far larger than itself"))?;
        let at = to.join(&path);
        let fail = |error| Error::io("cannot write", &at, error);
        if let Some(folder) = at.parent() {
            fs::create_dir_all(folder).map_err(fail)?;
        }
        let mut out = File::create(&at).map_err(fail)?;
        std::io::copy(&mut entry, &mut out).map_err(damaged)?;
        out.sync_all().map_err(fail)?;
        made.push(path);
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(at: &Path, entries: &[(&str, tar::EntryType, &str)]) {
        let mut builder = tar::Builder::new(File::create(at).unwrap());
        for (path, kind, content) in entries {
            let mut header = tar::Header::new_ustar();
            // Past the builder's own checks, as a stranger may write it.
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            if kind.is_symlink() {
                header.set_link_name("/etc/passwd").unwrap();
            }
            header.set_cksum();
            builder.append(&header, content.as_bytes()).unwrap();
        }
        builder.finish().unwrap();
    }

    #[test]
    fn only_files_inside() {
        use tar::EntryType::{Directory, Regular, Symlink};
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("a.tar");
        let to = folder.path().join("to");
        archive(
            &at,
            &[
                ("models", Directory, ""),
                ("models/a/b", Regular, "x"),
                ("modelsx/c", Regular, "y"),
                ("etc/d", Symlink, ""),
            ],
        );
        assert_eq!(unpack(&at, Packing::Tar, "models", &to).unwrap(), ["a/b"]);
        assert_eq!(fs::read_to_string(to.join("a/b")).unwrap(), "x");
        for (path, kind) in [("../x", Regular), ("/x", Regular), ("a/../../x", Regular), ("link", Symlink)] {
            archive(&at, &[(path, kind, "")]);
            assert!(unpack(&at, Packing::Tar, "", &to).is_err(), "{path}");
        }
        assert!(!folder.path().join("x").exists());
        fs::write(&at, "no archive").unwrap();
        for packing in [Packing::Tar, Packing::Gzip, Packing::Zstd] {
            assert!(unpack(&at, packing, "", &to).is_err());
        }
    }
}
