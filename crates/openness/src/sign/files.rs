//! The files of a folder that is signed: which there are, which are left out, what their digests are; and
//! the signature file, read and written. Knows no keys and no bundles.
//!
//! Does not guard against others who change the folder meanwhile.

use super::bundle::shown;
use narthex_base::{Error, Result};
use sha2::{Digest, Sha256};
use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Component, Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

/// The largest signature that is read or written: room for some 300,000 files.
const MAX_SIGNATURE_BYTES: u64 = 64 << 20;

/// The most files and folders that a signed folder may hold, ignored ones included.
const MAX_ENTRIES: usize = 1_000_000;

/// How much of a file is read at once.
const BUFFER_BYTES: usize = 1 << 20;

/// The name of the only file where a signature is about one file, not a folder.
pub(super) const SINGLE_FILE: &str = ".";

/// What the official tool leaves out at the top of a folder.
const GIT_PATHS: [&str; 4] = [".git", ".gitattributes", ".github", ".gitignore"];

/// Paths below a folder that are no part of what is signed: each stands for itself and all below it.
#[derive(Default)]
pub(super) struct Ignored(Vec<String>);

impl Ignored {
    /// What is always left out: git's files, and the signature itself if it lies in the folder.
    pub fn usual(folder: &Path, signature: &Path) -> Result<Self> {
        let mut ignored = Self(GIT_PATHS.map(String::from).to_vec());
        let root = fs::canonicalize(folder).map_err(|error| Error::io("cannot read", folder, error))?;
        if let Ok(inside) = signature.strip_prefix(&root)
            && inside != Path::new("")
        {
            ignored.0.push(segments(inside).ok_or_else(|| not_utf8(signature))?);
        }
        Ok(ignored)
    }

    /// Leaves out what a user names: relative to the folder, or absolute.
    pub fn add(&mut self, folder: &Path, path: &Path) -> Result<()> {
        let refused = |why: &str| Error::input(format!("cannot leave out {}", path.display())).cause(why);
        let inside = if path.is_absolute() {
            let root = fs::canonicalize(folder).map_err(|error| Error::io("cannot read", folder, error))?;
            located(path)?.strip_prefix(root).map(Path::to_path_buf).map_err(|_| refused("it is outside the folder"))?
        } else {
            path.to_path_buf()
        };
        match segments(&inside) {
            Some(entry) if !entry.is_empty() => self.0.push(entry),
            Some(_) => return Err(refused("it is the whole folder")),
            None => return Err(refused("it is no plain UTF-8 path inside the folder")),
        }
        Ok(())
    }

    /// Leaves out what a signature names. Like the official verifier, passes over what cannot lie in the folder.
    pub fn add_signed(&mut self, entry: &str) {
        self.0.extend(segments(Path::new(entry)));
    }

    /// All of them once, in a fixed order.
    pub fn list(&self) -> Vec<String> {
        let mut list = self.0.clone();
        list.sort();
        list.dedup();
        list
    }

    /// Whether a file is left out.
    pub fn covers(&self, name: &str) -> bool {
        self.0.iter().any(|entry| {
            entry.is_empty()
                || name.strip_prefix(entry.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }
}

/// A relative path with `/`, without `.` and empty parts; nothing if it is absolute, climbs up, or is no UTF-8.
fn segments(path: &Path) -> Option<String> {
    let mut parts = vec![];
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

/// A file that is there.
pub(super) struct FoundFile {
    /// Its path below the folder with `/`.
    pub name: String,
    path: PathBuf,
}

impl FoundFile {
    /// Its SHA-256 and its size.
    pub fn hash(&self) -> Result<([u8; 32], u64)> {
        let failed = |error| Error::io("cannot read", &self.path, error);
        let mut file = File::open(&self.path).map_err(failed)?;
        let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; BUFFER_BYTES]);
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok((hash.finalize().into(), bytes)),
                Ok(count) => {
                    hash.update(&buffer[..count]);
                    bytes += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }
}

/// All files of a folder that are not left out, sorted as they are signed: part by part, not as whole strings.
/// Links and special files are refused even where they are left out, because the official tool does so.
pub(super) fn walk(folder: &Path, ignored: &Ignored) -> Result<Vec<FoundFile>> {
    // A final slash would lead through a link.
    let top: PathBuf = folder.components().collect();
    let (mut found, mut seen) = (vec![], 0);
    let mut open = vec![(top, String::new())];
    while let Some((path, name)) = open.pop() {
        seen += 1;
        if seen > MAX_ENTRIES {
            return Err(Error::input(format!("{} is too large to be signed", folder.display()))
                .cause(format!("it holds more than {MAX_ENTRIES} files and folders")));
        }
        if is_folder(&path)? {
            let failed = |error| Error::io("cannot read", &path, error);
            for entry in fs::read_dir(&path).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let below = name_below(&name, &entry.file_name(), ignored).ok_or_else(|| not_utf8(&entry.path()))?;
                open.push((entry.path(), below));
            }
            continue;
        }
        let name = if name.is_empty() { SINGLE_FILE.into() } else { name };
        if !ignored.covers(&name) {
            check_name(&name)
                .map_err(|why| Error::input(format!("cannot sign {}", shown(&path.to_string_lossy()))).cause(why))?;
            found.push(FoundFile { name, path });
        }
    }
    found.sort_by(|a, b| by_parts(&a.name, &b.name));
    Ok(found)
}

/// Whether a path is a folder; an error if it is neither that nor a plain file.
fn is_folder(path: &Path) -> Result<bool> {
    let kind = fs::symlink_metadata(path).map_err(|error| Error::io("cannot read", path, error))?.file_type();
    if kind.is_dir() || kind.is_file() {
        return Ok(kind.is_dir());
    }
    let what = format!("{} cannot be signed", shown(&path.to_string_lossy()));
    if kind.is_symlink() {
        return Err(Error::input(what)
            .cause("it is a symbolic link: what it leads to can change without notice")
            .help("put a copy in its place: `cp -rL FOLDER COPY` copies a folder and follows its links"));
    }
    Err(Error::input(what).cause("it is neither a file nor a folder").help(format!("rm {}", path.display())))
}

/// The path of an entry with `/`. What is left out may have any name.
fn name_below(folder: &str, name: &OsStr, ignored: &Ignored) -> Option<String> {
    let join = |name: &str| if folder.is_empty() { name.into() } else { format!("{folder}/{name}") };
    match name.to_str() {
        Some(name) => Some(join(name)),
        None if !folder.is_empty() && ignored.covers(folder) => Some(join(&name.to_string_lossy())),
        None => None,
    }
}

fn not_utf8(path: &Path) -> Error {
    Error::input(format!("{} cannot be signed", shown(&path.to_string_lossy())))
        .cause("its name is not UTF-8")
        .help("give it another name")
}

/// The order of files in a signature.
pub(super) fn by_parts(a: &str, b: &str) -> std::cmp::Ordering {
    a.split('/').cmp(b.split('/'))
}

/// Whether a file may have this name in a signature: it must mean one place inside the folder on every system.
pub(super) fn check_name(name: &str) -> Result<(), &'static str> {
    if name == SINGLE_FILE {
        return Ok(());
    }
    if name.starts_with('/') {
        return Err("the path is absolute");
    }
    if name.contains('\\') {
        return Err("there is a backslash in the name, which parts folders on some systems");
    }
    if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("the path has a part that is empty, `.` or `..`");
    }
    Ok(())
}

/// Where a file really is; it need not exist, but its folder must.
pub(super) fn located(path: &Path) -> Result<PathBuf> {
    if let Ok(place) = fs::canonicalize(path) {
        return Ok(place);
    }
    let Some(name) = path.file_name() else {
        return Err(Error::input(format!("{} is no file name", path.display())));
    };
    let parent = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    let parent = fs::canonicalize(parent).map_err(|error| Error::io("cannot read", parent, error))?;
    Ok(parent.join(name))
}

/// A signature's text.
pub(super) fn read_signature(path: &Path) -> Result<String> {
    let failed = |error| Error::io("cannot read", path, error);
    let mut bytes = vec![];
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_SIGNATURE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    check_size(path, bytes.len())?;
    String::from_utf8(bytes).map_err(|error| {
        Error::input("this is not a Sigstore bundle").at(path.display(), None).cause(error.utf8_error())
    })
}

/// Writes a signature such that the file holds all of the old one or all of the new one, whenever it is read.
pub(super) fn write_signature(path: &Path, text: &str) -> Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    check_size(path, text.len())?;
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let parent = path.parent().unwrap_or(Path::new("."));
    let half_made = parent.join(format!(".narthex-signature-{}-{count}.tmp", process::id()));
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&half_made)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&half_made, path)?;
        // The new name is safe only when the folder is on disk too.
        File::open(parent)?.sync_all()
    };
    write().map_err(|error| {
        // It may not exist; the first error is the one to tell.
        let _ = fs::remove_file(&half_made);
        Error::io("cannot write", path, error)
    })
}

fn check_size(path: &Path, bytes: usize) -> Result<()> {
    if bytes as u64 > MAX_SIGNATURE_BYTES {
        return Err(Error::input("the signature is too large")
            .at(path.display(), None)
            .cause(format!("it has more than {} MiB", MAX_SIGNATURE_BYTES >> 20)));
    }
    Ok(())
}
