//! One folder that nothing gets out of: every path is opened by the kernel relative to the folder, with no step upwards
//! and no symbolic link on the way, so that no check can be overtaken. Knows no tool and no text.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use narthex_base::Error;
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{self, AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};
use std::{
    fs::File,
    io::{Read, Write},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

/// Folders within each other.
pub const DEPTH_MAX: usize = 32;
/// Bytes of a path.
const PATH_BYTES_MAX: usize = 1024;
/// Names of a folder that are read.
pub const ENTRIES_MAX: usize = 10_000;
/// Times that a path is opened again where others rename things at the same time.
const AGAIN_MAX: usize = 16;
/// How a file is called while it is written.
const PART: &str = ".narthex-part-";

/// A folder that nothing gets out of.
pub struct Beneath {
    root: OwnedFd,
    hidden: bool,
    exclude: GlobSet,
}

/// A path below the folder: no empty names, no `.` and no `..`. Empty for the folder itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Below(Vec<String>);

/// What stands in a folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Whether it is a folder, a file, or something else that is never opened.
    pub kind: EntryKind,
    /// Bytes of a file.
    pub bytes: u64,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// A folder.
    Folder,
    /// A file.
    File,
    /// A symbolic link, a device, a pipe.
    Other,
}

impl Below {
    /// The names of the path.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// The path of something in this folder.
    pub fn join(&self, name: &str) -> Self {
        Self(self.0.iter().cloned().chain([name.to_string()]).collect())
    }

    /// The folder that it stands in, and its name; `None` for the folder itself.
    fn split(&self) -> Option<(Self, &str)> {
        let (name, folder) = self.0.split_last()?;
        Some((Self(folder.to_vec()), name))
    }
}

impl std::fmt::Display for Below {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_empty() { "." } else { "" })?;
        f.write_str(&self.0.join("/"))
    }
}

impl Beneath {
    /// Opens the folder. `hidden` says whether names that begin with a dot are there too, `exclude` what is not.
    ///
    /// # Errors
    /// If it is no folder that can be read, a glob is none, or the system cannot keep paths below it.
    pub fn open(folder: &Path, hidden: bool, exclude: &[String]) -> Result<Self, Error> {
        let mut globs = GlobSetBuilder::new();
        for text in exclude {
            let glob = GlobBuilder::new(text).literal_separator(true).build();
            globs.add(glob.map_err(|error| {
                Error::input(format!("`{text}` in `exclude` is not a glob"))
                    .cause(error.kind())
                    .help("globs look like `private/**`")
            })?);
        }
        let exclude =
            globs.build().map_err(|error| Error::input("`exclude` cannot be used").cause(error.to_string()))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = fs::open(folder, flags, Mode::empty())
            .map_err(|error| Error::io("cannot open the folder", folder, error.into()))?;
        let beneath = Self { root, hidden, exclude };
        beneath.at(".", flags).map_err(|error| {
            Error::input(format!("this system cannot keep paths below {}", folder.display()))
                .cause(std::io::Error::from(error))
                .help("Linux 5.6 or newer is needed, and a container that lets `openat2` through")
        })?;
        Ok(beneath)
    }

    /// A path that a model wrote.
    ///
    /// # Errors
    /// If it leads out of the folder or names what is hidden.
    pub fn path(&self, text: &str) -> Result<Below, String> {
        if text.len() > PATH_BYTES_MAX {
            return Err(format!("the path has more than {PATH_BYTES_MAX} bytes"));
        }
        if text.starts_with('/') {
            return Err(format!("`{text}` begins with `/`: write paths relative to the folder, such as `src/main.rs`"));
        }
        let names: Vec<&str> = text.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
        if let Some(name) = names.iter().find(|name| **name == ".." || name.contains('\0')) {
            return Err(format!(
                "`{}` in `{}` is refused: stay below the folder",
                name.escape_debug(),
                text.escape_debug()
            ));
        }
        if let Some(name) = names.iter().find(|name| !self.is_shown(name)) {
            return Err(format!("`{name}` is hidden: names that begin with a dot are not for this tool"));
        }
        if names.len() > DEPTH_MAX {
            return Err(format!("`{text}` has more than {DEPTH_MAX} folders"));
        }
        let path = Below(names.into_iter().map(Into::into).collect());
        match self.is_excluded(&path) {
            true => Err(format!("`{path}` is not for this tool")),
            false => Ok(path),
        }
    }

    /// Whether a path, or a folder above it, is left out.
    fn is_excluded(&self, path: &Below) -> bool {
        !self.exclude.is_empty() && (1..=path.0.len()).any(|names| self.exclude.is_match(path.0[..names].join("/")))
    }

    /// Whether a name is there for the tool. What is being written is not, whatever is set.
    fn is_shown(&self, name: &str) -> bool {
        !(name.starts_with(PART) || (name.starts_with('.') && !self.hidden))
    }

    fn at(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..AGAIN_MAX {
            match fs::openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                // The kernel saw something renamed on the way, and asks to look again.
                Err(Errno::AGAIN) => {}
                outcome => return outcome,
            }
        }
        Err(Errno::AGAIN)
    }

    fn folder(&self, path: &Below) -> Result<OwnedFd, String> {
        self.at(&path.to_string(), OFlags::RDONLY | OFlags::DIRECTORY).map_err(|error| explain(path, error))
    }

    /// What stands in a folder, by name; and whether there is more than [`ENTRIES_MAX`].
    ///
    /// # Errors
    /// If it is no folder.
    pub fn entries(&self, path: &Below) -> Result<(Vec<Entry>, bool), String> {
        let folder = self.folder(path)?;
        let mut entries = vec![];
        for (read, entry) in Dir::read_from(&folder).map_err(|error| explain(path, error))?.enumerate() {
            if read > ENTRIES_MAX {
                entries.sort();
                return Ok((entries, true));
            }
            let entry = entry.map_err(|error| explain(path, error))?;
            // A name that is no UTF-8 cannot be asked for.
            let Ok(name) = entry.file_name().to_str() else { continue };
            if matches!(name, "." | "..") || !self.is_shown(name) || self.is_excluded(&path.join(name)) {
                continue;
            }
            // Gone in the meantime.
            let Ok(stat) = fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let kind = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => EntryKind::Folder,
                FileType::RegularFile => EntryKind::File,
                _ => EntryKind::Other,
            };
            let bytes = if kind == EntryKind::File { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 };
            entries.push(Entry { name: name.into(), kind, bytes });
        }
        entries.sort();
        Ok((entries, false))
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// If it is no file, or has more bytes than `bytes_max`.
    pub fn read(&self, path: &Below, bytes_max: u64) -> Result<Vec<u8>, String> {
        // Without waiting, since what stands there may be a pipe.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = self.at(&path.to_string(), flags).map_err(|error| explain(path, error))?;
        let stat = fs::fstat(&file).map_err(|error| explain(path, error))?;
        let what = |what: &str| Err(format!("`{path}` is {what}"));
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory => return what("a folder: list it instead"),
            _ => return what("no file"),
        }
        let mut bytes = vec![];
        let read = File::from(file).take(bytes_max + 1).read_to_end(&mut bytes);
        read.map_err(|error| format!("`{path}` cannot be read: {error}"))?;
        if bytes.len() as u64 > bytes_max {
            return what(&format!("larger than {bytes_max} bytes, the most that this tool reads"));
        }
        Ok(bytes)
    }

    /// Writes a file as a whole: under another name, to the disk, then in place of what was there. Folders on the way
    /// are made.
    ///
    /// # Errors
    /// If something else than a file stands there, or it cannot be written.
    pub fn write(&self, path: &Below, bytes: &[u8]) -> Result<(), String> {
        let (above, name) = path.split().ok_or("the folder itself cannot be written: name a file in it")?;
        let folder = self.made(&above)?;
        let failed = |error: Errno| explain(path, error);
        let mode = match fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                Mode::from_raw_mode(stat.st_mode) & (Mode::RWXU | Mode::RWXG | Mode::RWXO)
            }
            Ok(_) => return Err(format!("`{path}` is there and is no file: take another name")),
            Err(Errno::NOENT) => Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH,
            Err(error) => return Err(failed(error)),
        };
        let (part, file) = begun(&folder).map_err(failed)?;
        let placed = place(&folder, &part, name, file, mode, bytes);
        placed.map_err(|error| {
            // What is left of it is in nobody's way, but takes room.
            let _ = fs::unlinkat(&folder, &part, AtFlags::empty());
            format!("`{path}` cannot be written: {error}")
        })
    }

    /// The folder, made where it is missing.
    fn made(&self, path: &Below) -> Result<OwnedFd, String> {
        let mut at = Below(vec![]);
        let mut folder = self.folder(&at)?;
        for name in path.names() {
            at = at.join(name);
            // Relative to a folder that is open: a link that somebody puts in its place leads nowhere.
            match fs::mkdirat(&folder, name.as_str(), Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH) {
                Ok(()) => fs::fsync(&folder).map_err(|error| explain(&at, error))?,
                Err(Errno::EXIST) => {}
                Err(error) => return Err(explain(&at, error)),
            }
            folder = self.folder(&at)?;
        }
        Ok(folder)
    }
}

fn place(folder: &impl AsFd, part: &str, name: &str, mut file: File, mode: Mode, bytes: &[u8]) -> std::io::Result<()> {
    let folder: BorrowedFd = folder.as_fd();
    file.write_all(bytes)?;
    fs::fchmod(&file, mode)?;
    file.sync_all()?;
    // Replaces a link that came there in the meantime instead of following it.
    fs::renameat(folder, part, folder, name)?;
    Ok(fs::fsync(folder)?)
}

/// A new file under a name that nobody else writes under.
fn begun(folder: &impl AsFd) -> Result<(String, File), Errno> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for _ in 0..AGAIN_MAX {
        let part = format!("{PART}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        match fs::openat(folder, &part, flags, Mode::RUSR | Mode::WUSR) {
            // Left by a process of this number that was killed.
            Err(Errno::EXIST) => {}
            outcome => return Ok((part, File::from(outcome?))),
        }
    }
    Err(Errno::EXIST)
}

fn explain(path: &Below, error: Errno) -> String {
    match error {
        Errno::NOENT => format!("`{path}` is not there: list the folder to see what is"),
        Errno::LOOP => format!("`{path}` is, or lies behind, a symbolic link, and this tool follows none"),
        Errno::XDEV => format!("`{path}` leads out of the folder"),
        Errno::NOTDIR => format!("`{path}` is not a folder, or lies behind something that is none"),
        Errno::ACCESS | Errno::PERM => format!("`{path}` may not be opened by this process"),
        Errno::ROFS => format!("`{path}` is on a disk that nobody may write to"),
        Errno::NXIO => format!("`{path}` is no file"),
        error => format!("`{path}` cannot be opened: {}", std::io::Error::from(error)),
    }
}
