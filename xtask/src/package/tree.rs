//! A tree of files as an archive of always the same bytes: sorted, of one time, owned by root. Knows tar (USTAR), gzip
//! and `ar` of Debian.

use flate2::{Compression, GzBuilder};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
};

/// Files by their paths, which neither begin nor end with `/`.
#[derive(Default)]
pub struct Tree(BTreeMap<String, (Vec<u8>, u32)>);

impl Tree {
    /// Adds a file that everybody may read.
    pub fn file(&mut self, path: impl Into<String>, bytes: Vec<u8>) {
        self.0.insert(path.into(), (bytes, 0o644));
    }

    /// Adds a file that everybody may run.
    pub fn program(&mut self, path: impl Into<String>, bytes: Vec<u8>) {
        self.0.insert(path.into(), (bytes, 0o755));
    }

    /// The files: path, bytes and mode, sorted.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8], u32)> {
        self.0.iter().map(|(path, (bytes, mode))| (path.as_str(), bytes.as_slice(), *mode))
    }

    /// The tree as a tar archive, each folder before what is in it.
    pub fn tar(&self, time: u64) -> Result<Vec<u8>, String> {
        let mut archive = tar::Builder::new(Vec::new());
        let failed = |error: std::io::Error| format!("cannot archive: {error}");
        let mut folders = BTreeSet::new();
        for (path, bytes, mode) in self.files() {
            for (end, _) in path.match_indices('/') {
                let folder = &path[..=end];
                if folders.insert(folder.to_string()) {
                    let mut header = header(0, 0o755, time);
                    header.set_entry_type(tar::EntryType::Directory);
                    archive.append_data(&mut header, format!("./{folder}"), &[][..]).map_err(failed)?;
                }
            }
            let mut header = header(bytes.len(), mode, time);
            archive.append_data(&mut header, format!("./{path}"), bytes).map_err(failed)?;
        }
        archive.into_inner().map_err(failed)
    }
}

fn header(bytes: usize, mode: u32, time: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes as u64);
    header.set_mode(mode);
    header.set_mtime(time);
    header.set_uid(0);
    header.set_gid(0);
    _ = header.set_username("root");
    _ = header.set_groupname("root");
    header
}

/// Compressed, without a name and a time.
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut writer = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    let written = writer.write_all(bytes).and_then(|()| writer.finish());
    written.map_err(|error| format!("cannot compress: {error}"))
}

/// Files as an `ar` archive, as deb(5) describes it: in this order, without folders.
pub fn ar(files: &[(&str, &[u8])], time: u64) -> Vec<u8> {
    let mut archive = b"!<arch>\n".to_vec();
    for (name, bytes) in files {
        archive
            .extend(format!("{name:<16}{time:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 100_644, bytes.len()).into_bytes());
        archive.extend_from_slice(bytes);
        if bytes.len() % 2 == 1 {
            archive.push(b'\n');
        }
    }
    archive
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn archives_are_sorted_and_always_the_same() {
        let tree = |reverse: bool| {
            let mut files = ["usr/bin/narthex", "usr/share/a", "usr/bin/a"];
            if reverse {
                files.reverse();
            }
            let mut tree = Tree::default();
            files.iter().for_each(|path| tree.file(*path, path.as_bytes().to_vec()));
            tree.tar(1_700_000_000).unwrap()
        };
        assert_eq!(tree(false), tree(true));
        let bytes = tree(false);
        let mut archive = tar::Archive::new(bytes.as_slice());
        let paths: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                assert_eq!((entry.header().mtime().unwrap(), entry.header().uid().unwrap()), (1_700_000_000, 0));
                entry.path().unwrap().display().to_string()
            })
            .collect();
        assert_eq!(paths.len(), 6);
        assert!(paths[0].ends_with("usr/") && paths[2].ends_with("usr/bin/a"), "{paths:?}");
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(gzip(&bytes).unwrap().as_slice()).read_to_end(&mut plain).unwrap();
        assert_eq!(plain, bytes);
    }

    #[test]
    fn members_of_ar_begin_at_even_places() {
        let archive = ar(&[("debian-binary", b"2.0\n"), ("odd", b"123"), ("even", b"12")], 5);
        assert_eq!(archive.len(), 8 + 60 + 4 + 60 + 4 + 60 + 2);
        assert_eq!(&archive[8..68], b"debian-binary   5           0     0     100644  4         `\n");
        assert!(archive[136..].starts_with(b"even "));
    }
}
