//! Whether a model folder holds only what lies in it. Knows names and kinds of files, not what is in them.

use crate::bytes::shown;
use narthex_base::{Error, Result};
use std::{
    fs,
    path::{Component, Path, PathBuf},
};

/// Files and folders in a model folder.
const ENTRIES_MAX: usize = 100_000;
/// Folders in folders.
const DEPTH_MAX: usize = 16;

/// Refuses a folder with special files, or with symbolic links that lead out of it. A snapshot in a Hugging Face cache
/// is made of links to `../../blobs`: those may lead to the blobs of their own repository.
///
/// # Errors
/// The first entry by name that is refused, or that cannot be read.
pub fn check(folder: &Path) -> Result<()> {
    let root = folder.canonicalize().map_err(|error| Error::io("cannot read", folder, error))?;
    if !root.is_dir() {
        return Err(Error::input("this is not a folder").at(folder.display(), None));
    }
    let blobs = blobs_of(&root);
    let mut open = vec![(folder.to_path_buf(), 0)];
    let mut entries_seen = 0;
    while let Some((inner, depth)) = open.pop() {
        let fail = |error| Error::io("cannot read", &inner, error);
        let mut entries = fs::read_dir(&inner).map_err(fail)?.collect::<Result<Vec<_>, _>>().map_err(fail)?;
        entries_seen += entries.len();
        if entries_seen > ENTRIES_MAX || depth > DEPTH_MAX {
            return Err(Error::input("this is too large a tree for a model folder")
                .at(inner.display(), None)
                .cause(format!("more than {ENTRIES_MAX} entries, or more than {DEPTH_MAX} folders in folders")));
        }
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let refuse = |what: String| Error::input(what).at(path.display(), None);
            let kind = entry.file_type().map_err(|error| Error::io("cannot read", &path, error))?;
            if kind.is_symlink() {
                let target = path.canonicalize().map_err(|error| {
                    refuse("this link leads nowhere".into()).cause(error).help("remove it, or fetch the model again")
                })?;
                let name = shown(&entry.file_name().to_string_lossy());
                let inside = target.starts_with(&root) || blobs.as_ref().is_some_and(|blobs| target.starts_with(blobs));
                if !inside {
                    return Err(refuse(format!("the link `{name}` leads out of the folder"))
                        .cause(format!("to {}", target.display()))
                        .help("put the file itself in its place, if it is meant"));
                }
                // A link to a folder could lead in a circle; no model needs one.
                if !target.is_file() {
                    return Err(refuse(format!("the link `{name}` does not lead to a regular file")));
                }
            } else if kind.is_dir() {
                open.push((path, depth + 1));
            } else if !kind.is_file() {
                let name = shown(&entry.file_name().to_string_lossy());
                return Err(refuse(format!("`{name}` is a pipe, socket or device, not a file")));
            }
        }
    }
    Ok(())
}

/// A file name that something foreign gives, held against leaving the folder it is meant for.
///
/// # Errors
/// If it is empty, absolute, or has `..` or a separator of any platform in it.
pub fn check_name(name: &str) -> Result<()> {
    let plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    if name.is_empty() || !plain || name.contains(['\\', '\0', ':']) || name.contains("..") {
        return Err(Error::input(format!("the name `{}` leaves the folder", shown(name)))
            .help("the file is damaged, or made to do harm"));
    }
    Ok(())
}

/// The blobs of the repository that this folder is a snapshot of: `models--ORG--NAME/snapshots/REVISION`.
fn blobs_of(root: &Path) -> Option<PathBuf> {
    let snapshots = root.parent()?;
    let repository = snapshots.parent()?;
    let is_cache = snapshots.file_name()? == "snapshots"
        && ["models--", "datasets--"]
            .iter()
            .any(|start| repository.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start)));
    is_cache.then(|| repository.join("blobs"))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_leads_out_is_refused() {
        let outer = tempfile::tempdir().unwrap();
        let repository = outer.path().join("models--a--b");
        let (snapshot, blobs) = (repository.join("snapshots/1"), repository.join("blobs"));
        fs::create_dir_all(&snapshot).unwrap();
        fs::create_dir_all(&blobs).unwrap();
        fs::write(blobs.join("x"), "x").unwrap();
        fs::write(outer.path().join("secret"), "x").unwrap();
        fs::write(snapshot.join("plain"), "x").unwrap();
        symlink("../../blobs/x", snapshot.join("config.json")).unwrap();
        symlink("plain", snapshot.join("inside")).unwrap();
        check(&snapshot).unwrap();
        fs::create_dir(snapshot.join("deep")).unwrap();
        for (target, expected) in [
            ("../../../../secret", "`bad` leads out of the folder"),
            ("/dev/null", "`bad` leads out of the folder"),
            ("../../../blobs", "does not lead to a regular file"),
            ("../absent", "leads nowhere"),
            ("..", "does not lead to a regular file"),
        ] {
            let link = snapshot.join("deep/bad");
            symlink(target, &link).unwrap();
            let error = check(&snapshot).unwrap_err();
            assert!(error.to_string().contains(expected), "{target}: {error}");
            fs::remove_file(link).unwrap();
        }
        let socket = std::os::unix::net::UnixListener::bind(snapshot.join("deep/socket")).unwrap();
        assert!(check(&snapshot).unwrap_err().what().contains("`socket` is a pipe, socket or device"));
        drop(socket);
        // The same links in a folder that is no cache.
        let other = outer.path().join("other/snapshots/1");
        fs::create_dir_all(&other).unwrap();
        fs::create_dir_all(outer.path().join("other/blobs")).unwrap();
        fs::write(outer.path().join("other/blobs/x"), "x").unwrap();
        symlink("../../blobs/x", other.join("config.json")).unwrap();
        assert!(check(&other).unwrap_err().what().contains("leads out"));
    }

    #[test]
    fn names_stay_in_the_folder() {
        for good in ["a", "archive/data/0", "model-00001-of-00002.safetensors", ".format_version"] {
            check_name(good).unwrap();
        }
        for bad in ["", "/etc/passwd", "../a", "a/../../b", "..", "a\\..\\b", "C:\\a", "a/..", "./a"] {
            assert!(check_name(bad).unwrap_err().what().contains("leaves the folder"), "{bad}");
        }
    }
}
