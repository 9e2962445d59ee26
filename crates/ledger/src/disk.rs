//! Files and folders: walking, hashing, copying, and writes that survive a crash. Knows paths
//! and bytes, never manifests.

use narthex_base::{Digest, Error, FileEntry, Result};
use std::{
    fs::{self, File, Metadata, Permissions},
    io::{self, Read, Write},
    path::{Component, Path, PathBuf},
};
use tempfile::TempDir;

/// The most files that one artifact may hold.
pub(crate) const MAX_FILES: usize = 100_000;

/// The deepest nesting of folders in an artifact.
pub(crate) const MAX_DEPTH: usize = 64;

/// Files of at least this many bytes are hashed by all cores.
const LARGE_BYTES: u64 = 1 << 20;

/// Bytes that are hashed at once, while as many are read.
const HASHED_BYTES: usize = 16 << 20;

/// What to do with symbolic links on a walk.
#[derive(Clone, Copy)]
pub(crate) enum Links {
    /// They are an error.
    Refuse,
    /// A link to a file inside the folder is taken as that file; any other is an error.
    Inside,
}

/// The files below a folder, sorted by their path with `/`, and where their bytes are.
pub(crate) fn walk(root: &Path, links: Links) -> Result<Vec<(String, PathBuf)>> {
    let real_root = fs::canonicalize(root).map_err(|e| Error::io("cannot read the folder", root, e))?;
    let mut found = Vec::new();
    let mut open = vec![(root.to_path_buf(), String::new(), 0usize)];
    while let Some((folder, prefix, depth)) = open.pop() {
        if depth > MAX_DEPTH {
            return Err(Error::input(format!("{} is nested deeper than {MAX_DEPTH} folders", folder.display())));
        }
        for entry in fs::read_dir(&folder).map_err(|e| Error::io("cannot read the folder", &folder, e))? {
            let entry = entry.map_err(|e| Error::io("cannot read the folder", &folder, e))?;
            let path = entry.path();
            let name = entry.file_name();
            let name = name.to_str().ok_or_else(|| {
                Error::input(format!("the name of {} is not UTF-8", path.display())).help("rename the file")
            })?;
            let relative = format!("{prefix}{name}");
            let kind = entry.file_type().map_err(|e| Error::io("cannot read", &path, e))?;
            if kind.is_dir() {
                open.push((path, format!("{relative}/"), depth + 1));
            } else if kind.is_file() {
                found.push((relative, path));
            } else if kind.is_symlink() {
                found.push((relative, follow(&path, &real_root, links)?));
            } else {
                return Err(Error::input(format!("{} is neither a file nor a folder", path.display()))
                    .help(format!("move it out of {}", root.display())));
            }
            if found.len() > MAX_FILES {
                return Err(Error::input(format!("{} holds more than {MAX_FILES} files", root.display()))
                    .help("an artifact is a few large files: pack them first"));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The file that a link leads to, if that is allowed.
fn follow(link: &Path, real_root: &Path, links: Links) -> Result<PathBuf> {
    let target = fs::canonicalize(link).map_err(|e| Error::io("cannot follow the link", link, e))?;
    if matches!(links, Links::Inside) && target.starts_with(real_root) && target.is_file() {
        return Ok(target);
    }
    let folder = real_root.display();
    Err(Error::input(format!("{} is a symbolic link to {}", link.display(), target.display()))
        .cause("an artifact holds regular files only")
        .help(format!("copy the folder with its links followed, then take the copy: `cp -rL {folder} {folder}-copy`")))
}

/// Size and digest of a file. A file that changes meanwhile is an error.
pub fn hash(path: &Path) -> Result<(u64, Digest)> {
    let stat = || fs::metadata(path).map_err(|e| Error::io("cannot read", path, e));
    let before = stat()?;
    if !before.is_file() {
        return Err(Error::input(format!("{} is not a regular file", path.display())));
    }
    let mut hasher = blake3::Hasher::new();
    let hashed = File::open(path).and_then(|file| match before.len() >= LARGE_BYTES {
        true => hash_large(file, &mut hasher),
        false => hasher.update_reader(file).map(|_| ()),
    });
    hashed.map_err(|e| Error::io("cannot read", path, e))?;
    let after = stat()?;
    let unchanged = before.len() == after.len() && modified_ns(&before) == modified_ns(&after);
    if !unchanged || hasher.count() != after.len() {
        return Err(Error::input(format!("{} changed while it was read", path.display()))
            .help("wait until nothing writes to it any more, then run the same command again"));
    }
    Ok((after.len(), hasher.finalize().into()))
}

/// Hashes on all cores what is read meanwhile. The file is not mapped, so that it does not count as memory of ours.
fn hash_large(mut file: File, hasher: &mut blake3::Hasher) -> io::Result<()> {
    let (mut now, mut next) = (Vec::new(), Vec::with_capacity(HASHED_BYTES));
    loop {
        let read = || Read::by_ref(&mut file).take(HASHED_BYTES as u64).read_to_end(&mut next);
        let (read, _) = rayon::join(read, || hasher.update_rayon(&now));
        if read? == 0 {
            return Ok(());
        }
        std::mem::swap(&mut now, &mut next);
        next.clear();
    }
}

/// Whether the file is there with this size and content.
pub(crate) fn matches(path: &Path, expected: &FileEntry) -> bool {
    fs::symlink_metadata(path).is_ok_and(|stat| stat.is_file() && stat.len() == expected.bytes)
        && hash(path).is_ok_and(|(_, digest)| digest == expected.digest)
}

/// Hashes every file below a folder and makes sure that its bytes are on disk.
pub(crate) fn entries(root: &Path) -> Result<Vec<FileEntry>> {
    let mut entries = Vec::new();
    for (path, real) in walk(root, Links::Refuse)? {
        File::open(&real).and_then(|file| file.sync_all()).map_err(|e| Error::io("cannot write", &real, e))?;
        let (bytes, digest) = hash(&real)?;
        entries.push(FileEntry { path, bytes, digest });
    }
    Ok(entries)
}

/// Nanoseconds since 1970 of the last change; 0 where the system does not know.
pub(crate) fn modified_ns(stat: &Metadata) -> i64 {
    let since = stat.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    since.map_or(0, |since| since.as_nanos() as i64)
}

/// The inode; 0 where the system has none.
pub(crate) fn inode(stat: &Metadata) -> i64 {
    #[cfg(unix)]
    return std::os::unix::fs::MetadataExt::ino(stat) as i64;
    #[cfg(not(unix))]
    return (stat, 0).1;
}

/// Creates a folder and those above it.
pub(crate) fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|e| Error::io("cannot create the folder", path, e))
}

/// Writes a folder's entries to disk.
pub(crate) fn sync_folder(path: &Path) -> Result<()> {
    #[cfg(unix)]
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|e| Error::io("cannot write", path, e))?;
    Ok(())
}

/// Writes a new file and makes sure that it is on disk.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = File::create_new(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|e| Error::io("cannot write", path, e))
}

/// Puts a file in place in one go: it is written in `tmp` (on the same disk) and renamed.
pub(crate) fn replace(path: &Path, bytes: &[u8], tmp: &Path) -> Result<()> {
    let folder = temporary(tmp)?;
    let new = folder.path().join("new");
    write_new(&new, bytes)?;
    rename(&new, path)?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// A fresh folder in `tmp`, removed when dropped.
pub(crate) fn temporary(tmp: &Path) -> Result<TempDir> {
    create_folder(tmp)?;
    tempfile::Builder::new()
        .prefix("new-")
        .tempdir_in(tmp)
        .map_err(|e| Error::io("cannot create a temporary folder in", tmp, e))
}

/// Renames within a disk.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|e| Error::io(&format!("cannot move {} to", from.display()), to, e))
}

/// Moves a folder; where it lies on another disk, copies and then removes it.
pub(crate) fn move_folder(from: &Path, to: &Path) -> Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            copy_folder(from, to)?;
            remove(from)
        }
        other => other.map_err(|e| Error::io(&format!("cannot move {} to", from.display()), to, e)),
    }
}

/// Copies a file's bytes (not its permissions) to a new file and makes sure that they are on disk.
pub(crate) fn copy_file(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        create_folder(folder)?;
    }
    let mut source = File::open(from).map_err(|e| Error::io("cannot read", from, e))?;
    let mut write = || {
        let mut target = File::create_new(to)?;
        io::copy(&mut source, &mut target)?;
        target.sync_all()
    };
    write().map_err(|e| Error::io("cannot write", to, e))
}

/// A second name for a file's bytes where the disk has such, otherwise a copy. Only for what nobody writes to.
pub(crate) fn link_file(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        create_folder(folder)?;
    }
    fs::hard_link(from, to).or_else(|_| copy_file(from, to))
}

/// Copies a folder of regular files.
pub(crate) fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    create_folder(to)?;
    for (relative, real) in walk(from, Links::Refuse)? {
        copy_file(&real, &to.join(relative))?;
    }
    sync_folders(to)
}

/// A folder of the same regular files: the same bytes on disk where that is possible, copies where it is not.
pub(crate) fn link_folder(from: &Path, to: &Path) -> Result<()> {
    create_folder(to)?;
    for (relative, real) in walk(from, Links::Refuse)? {
        let target = to.join(relative);
        if let Some(folder) = target.parent() {
            create_folder(folder)?;
        }
        if fs::hard_link(&real, &target).is_err() {
            copy_file(&real, &target)?;
        }
    }
    sync_folders(to)
}

/// Writes the entries of a folder and of all below it to disk.
pub(crate) fn sync_folders(root: &Path) -> Result<()> {
    for entry in fs::read_dir(root).map_err(|e| Error::io("cannot read the folder", root, e))?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            sync_folders(&entry.path())?;
        }
    }
    sync_folder(root)
}

/// Allows or forbids writing to every file below a folder. The folders stay writable, so that
/// the whole can be removed.
pub(crate) fn set_read_only(root: &Path, read_only: bool) -> Result<()> {
    for (_, file) in walk(root, Links::Refuse)? {
        let stat = fs::metadata(&file).map_err(|e| Error::io("cannot read", &file, e))?;
        let permissions = permissions(&stat, read_only);
        fs::set_permissions(&file, permissions).map_err(|e| Error::io("cannot set the permissions of", &file, e))?;
    }
    Ok(())
}

fn permissions(stat: &Metadata, read_only: bool) -> Permissions {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = stat.permissions().mode();
        Permissions::from_mode(if read_only { mode & !0o222 } else { mode | 0o200 })
    }
    #[cfg(not(unix))]
    {
        let mut permissions = stat.permissions();
        permissions.set_readonly(read_only);
        permissions
    }
}

/// Removes a file or a folder with all it holds; fine if it is not there.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let Ok(stat) = fs::symlink_metadata(path) else { return Ok(()) };
    let removed = if stat.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("cannot remove", path, error)),
        _ => Ok(()),
    }
}

/// Size of all files below, and when any of it last changed (nanoseconds since 1970). What cannot
/// be read counts as nothing.
pub(crate) fn measure(path: &Path) -> (u64, i64) {
    let Ok(stat) = fs::symlink_metadata(path) else { return (0, 0) };
    let mut bytes = if stat.is_file() { stat.len() } else { 0 };
    let mut newest = modified_ns(&stat);
    if stat.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            let (below, changed) = measure(&entry.path());
            bytes += below;
            newest = newest.max(changed);
        }
    }
    (bytes, newest)
}

/// The names in a folder, sorted; none if the folder is not there.
pub(crate) fn names_in(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(Error::io("cannot read the folder", folder, error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| Error::io("cannot read the folder", folder, e))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// A file's bytes, refused beyond `limit_bytes`.
pub(crate) fn read_limited(path: &Path, limit_bytes: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit_bytes + 1).read_to_end(&mut bytes))
        .map_err(|e| Error::io("cannot read", path, e))?;
    if bytes.len() as u64 > limit_bytes {
        return Err(Error::input(format!("{} is larger than {limit_bytes} bytes", path.display())));
    }
    Ok(bytes)
}

/// Whether a path of a manifest stays inside the artifact's folder.
pub(crate) fn stays_inside(path: &str) -> bool {
    !path.is_empty()
        && !path.contains('\\')
        && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_are_known() {
        for (path, expected) in [
            ("a", true),
            ("a/b.txt", true),
            ("..", false),
            ("a/../../b", false),
            ("/etc/passwd", false),
            ("", false),
            ("a\\..\\b", false),
        ] {
            assert_eq!(stays_inside(path), expected, "{path}");
        }
    }

    #[test]
    fn small_and_large_files_hash_alike() {
        let folder = tempfile::tempdir().unwrap();
        for bytes in [0, 1, LARGE_BYTES as usize - 1, LARGE_BYTES as usize + 7, 2 * HASHED_BYTES, 2 * HASHED_BYTES + 3]
        {
            let content: Vec<u8> = (0..bytes).map(|i| (i % 251) as u8).collect();
            let path = folder.path().join("x");
            fs::write(&path, &content).unwrap();
            assert_eq!(hash(&path).unwrap(), (bytes as u64, Digest::of(&content)));
        }
    }

    #[test]
    fn walks_sorted_and_refuses_what_leaves() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("b/c")).unwrap();
        for name in ["b/c/x", "b.txt", "a"] {
            fs::write(root.join(name), name).unwrap();
        }
        let names = |links| walk(&root, links).map(|files| files.into_iter().map(|(name, _)| name).collect::<Vec<_>>());
        assert_eq!(names(Links::Refuse).unwrap(), ["a", "b.txt", "b/c/x"]);
        std::os::unix::fs::symlink("a", root.join("link")).unwrap();
        assert_eq!(names(Links::Inside).unwrap(), ["a", "b.txt", "b/c/x", "link"]);
        assert!(names(Links::Refuse).unwrap_err().help_text().unwrap().contains("cp -rL"));
        fs::write(folder.path().join("secret"), "s").unwrap();
        std::os::unix::fs::symlink("../secret", root.join("leaves")).unwrap();
        assert!(names(Links::Inside).unwrap_err().what().contains("leaves"));
    }

    #[test]
    fn a_replaced_file_is_whole_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let (tmp, path) = (folder.path().join("tmp"), folder.path().join("x"));
        for text in ["one", "two"] {
            replace(&path, text.as_bytes(), &tmp).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert!(names_in(&tmp).unwrap().is_empty());
    }
}
