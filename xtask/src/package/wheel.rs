//! A wheel (PEP 427, PEP 639, PEP 600): the binary as a script, and a thin Python package over it.

use super::{Release, elf::Needs, hex, read, tree::Tree};
use crate::tidy::root;
use sha2::{Digest, Sha256};
use std::{fs, io::Cursor, io::Write, path::Path};
use zip::{CompressionMethod, DateTime, ZipWriter, write::SimpleFileOptions};

/// The Python package, below the repository's root.
const PACKAGE: &str = "packaging/python/narthex";

/// What pages of packages show.
const DESCRIPTION: &str = "packaging/python/README.md";

/// The oldest glibc that a tag of wheels names so.
const OLDEST_GLIBC: u32 = 17;

/// The libraries that a program may ask for under such a tag (PEP 600).
const LIBRARIES: [&str; 8] = [
    "libc.so.6",
    "libm.so.6",
    "libgcc_s.so.1",
    "libdl.so.2",
    "libpthread.so.0",
    "librt.so.1",
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
];

/// The wheel's name and bytes.
pub fn make(release: &Release) -> Result<(String, Vec<u8>), String> {
    let version = &release.version;
    let tag = tag(&release.needs)?;
    let information = format!("narthex-{version}.dist-info");
    let mut tree = Tree::default();
    package(&root().join(PACKAGE), "narthex", &mut tree)?;
    tree.program(format!("narthex-{version}.data/scripts/narthex"), release.binary.clone());
    let licenses = release.licenses.files();
    for (name, text) in &licenses {
        tree.file(format!("{information}/licenses/{name}"), text.clone());
    }
    let names: Vec<&str> = licenses.iter().map(|(name, _)| *name).collect();
    let description = String::from_utf8_lossy(&read(&root().join(DESCRIPTION))?).into_owned();
    tree.file(format!("{information}/METADATA"), metadata(version, &names, &description).into_bytes());
    let wheel = format!("Wheel-Version: 1.0\nGenerator: narthex-xtask {version}\nRoot-Is-Purelib: false\nTag: {tag}\n");
    tree.file(format!("{information}/WHEEL"), wheel.into_bytes());
    let record = record(&tree, &format!("{information}/RECORD"));
    tree.file(format!("{information}/RECORD"), record.into_bytes());
    Ok((format!("narthex-{version}-{tag}.whl"), zip(&tree, &information, release.time)?))
}

/// The tag that promises no more than the binary keeps.
fn tag(needs: &Needs) -> Result<String, String> {
    if let Some(other) = needs.libraries.iter().find(|name| !LIBRARIES.contains(&name.as_str())) {
        return Err(format!("the binary asks for {other}, which a wheel may not: link it statically"));
    }
    let minor = needs.glibc.unwrap_or(OLDEST_GLIBC).max(OLDEST_GLIBC);
    Ok(format!("py3-none-manylinux_2_{minor}_{}", needs.machine.name()))
}

fn metadata(version: &str, licenses: &[&str], description: &str) -> String {
    let files: String = licenses.iter().map(|name| format!("License-File: {name}\n")).collect();
    format!(
        "Metadata-Version: 2.4\nName: narthex\nVersion: {version}\n\
         Summary: From raw data to a licensed model that answers over the OpenAI API, in one binary\n\
         License-Expression: Apache-2.0 OR MIT\n{files}Requires-Python: >=3.9\n\
         Keywords: language-models,training,inference,lineage,licences\n\
         Classifier: Environment :: Console\nClassifier: Operating System :: POSIX :: Linux\n\
         Classifier: Programming Language :: Rust\nClassifier: Typing :: Typed\n\
         Description-Content-Type: text/markdown\n\n{description}"
    )
}

/// Adds the files of the Python package.
fn package(folder: &Path, inside: &str, tree: &mut Tree) -> Result<(), String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_file() && (name.ends_with(".py") || name == "py.typed") {
            tree.file(format!("{inside}/{name}"), read(&path)?);
        }
    }
    Ok(())
}

/// Every file with its digest and size; of the record itself neither is known.
fn record(tree: &Tree, own: &str) -> String {
    let line = |(path, bytes, _): (&str, &[u8], u32)| format!("{path},sha256={},{}\n", base64url(bytes), bytes.len());
    tree.files().map(line).collect::<String>() + own + ",,\n"
}

/// The SHA-256 digest in the alphabet of RFC 4648, section 5, without padding.
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digest = Sha256::digest(bytes);
    let mut text = String::new();
    for three in digest.chunks(3) {
        let bits = three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        let letters = (0..=three.len()).map(|index| ALPHABET[(bits >> (18 - 6 * index)) as usize & 63] as char);
        text.extend(letters);
    }
    debug_assert_eq!(text.len(), hex(&digest).len() * 2 / 3 + 1);
    text
}

/// The files as a zip archive; what installers read first stands last, as PEP 427 recommends.
fn zip(tree: &Tree, information: &str, time: u64) -> Result<Vec<u8>, String> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let mut files: Vec<(&str, &[u8], u32)> = tree.files().collect();
    files.sort_by_key(|(path, ..)| path.starts_with(information));
    for (path, bytes, mode) in files {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .compression_level(Some(9))
            .last_modified_time(moment(time)?)
            .unix_permissions(mode);
        let written = archive.start_file(path, options).and_then(|()| Ok(archive.write_all(bytes)?));
        written.map_err(|error| format!("cannot write {path}: {error}"))?;
    }
    archive.finish().map(Cursor::into_inner).map_err(|error| format!("cannot finish the wheel: {error}"))
}

/// Seconds since 1970 as zip archives have times: from 1980 on, in UTC.
fn moment(time: u64) -> Result<DateTime, String> {
    let (year, month, day) = date(time);
    let second = time % 86_400;
    if year < 1980 {
        return Ok(DateTime::default());
    }
    let part = |number: u64| u8::try_from(number).unwrap_or_default();
    DateTime::from_date_and_time(
        u16::try_from(year).unwrap_or(u16::MAX),
        part(month),
        part(day),
        part(second / 3600),
        part(second / 60 % 60),
        part(second % 60),
    )
    .map_err(|error| format!("{time} s since 1970 cannot be written into a wheel: {error}"))
}

/// The day of seconds since 1970: year, month, day. As Howard Hinnant's `civil_from_days`.
pub fn date(time: u64) -> (u64, u64, u64) {
    let days = time / 86_400 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year + era * 400 + u64::from(month <= 2), month, of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::elf::Machine;

    #[test]
    fn days() {
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(951_782_400), (2000, 2, 29));
        assert_eq!(date(1_796_128_300), (2026, 12, 1));
    }

    #[test]
    fn digests_as_records_have_them() {
        // The digest of nothing, as `pip hash` and every record of an empty `__init__.py` have it.
        assert_eq!(base64url(b""), "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU");
    }

    #[test]
    fn tags_promise_what_the_binary_keeps() {
        let needs = |glibc: Option<u32>, library: &str| Needs {
            machine: Machine::X86_64,
            glibc,
            libraries: vec![library.into()],
        };
        assert_eq!(tag(&needs(Some(34), "libc.so.6")).unwrap(), "py3-none-manylinux_2_34_x86_64");
        assert_eq!(tag(&needs(Some(4), "libm.so.6")).unwrap(), "py3-none-manylinux_2_17_x86_64");
        assert!(tag(&needs(Some(34), "libssl.so.3")).unwrap_err().contains("libssl.so.3"));
    }
}
