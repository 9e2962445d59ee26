//! Small JSON files that are there wholly or not at all, and the names in a folder. Knows no file's meaning.

use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

/// Ends the name of a file that is being written.
pub(crate) const TEMPORARY: &str = "tmp";

/// Writes JSON under a temporary name beside `path`, then renames it: after a crash either the old or the new is there.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(value).map_err(io::Error::other)?;
    let temporary = path.with_added_extension(TEMPORARY);
    let mut file = File::create(&temporary)?;
    file.write_all(&text)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, path)?;
    sync_folder(path);
    Ok(())
}

/// Moves a file and lets the folder's new state reach the disk.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_folder(to);
    Ok(())
}

/// Not every system can do this; where it cannot, the system itself decides when.
fn sync_folder(path: &Path) {
    if let Some(folder) = path.parent().and_then(|folder| File::open(folder).ok()) {
        let _ = folder.sync_all();
    }
}

/// Reads JSON; the error names the file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let text = fs::read(path).map_err(|error| at(path, &error))?;
    serde_json::from_slice(&text).map_err(|error| at(path, &io::Error::new(io::ErrorKind::InvalidData, error)))
}

/// The error with the path that it is about.
pub(crate) fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Removes a file; one that is not there is fine.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path, &error)),
        _ => Ok(()),
    }
}

/// The plain files of a folder whose name is an id that `is_id` knows, a dot and more: the id and the rest. Others are
/// not ours.
pub(crate) fn names(folder: &Path, is_id: fn(&str) -> bool) -> io::Result<Vec<(String, String)>> {
    let mut names = vec![];
    for entry in fs::read_dir(folder).map_err(|error| at(folder, &error))? {
        let entry = entry.map_err(|error| at(folder, &error))?;
        let name = entry.file_name();
        let Some((id, rest)) = name.to_str().and_then(|name| name.split_once('.')) else { continue };
        if is_id(id) && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            names.push((id.into(), rest.into()));
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn json_is_there_wholly_and_names_are_ours() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("id.json");
        write_json(&path, &json!({"a": 1})).unwrap();
        write_json(&path, &json!({"a": 2})).unwrap();
        assert_eq!(read_json::<Value>(&path).unwrap(), json!({"a": 2}));
        fs::write(folder.path().join("id.json.tmp"), "half").unwrap();
        fs::write(folder.path().join("other.json"), "not ours").unwrap();
        fs::write(folder.path().join("id"), "no dot").unwrap();
        fs::create_dir(folder.path().join("id.folder")).unwrap();
        let mut found = names(folder.path(), |id| id == "id").unwrap();
        found.sort();
        let expected = [("id".to_string(), "json".to_string()), ("id".into(), "json.tmp".into())];
        assert_eq!(found, expected);
        remove(&path).unwrap();
        remove(&path).unwrap();
        let error = read_json::<Value>(&path).unwrap_err();
        assert!(error.kind() == io::ErrorKind::NotFound && error.to_string().contains("id.json"), "{error}");
        fs::write(&path, "{").unwrap();
        assert_eq!(read_json::<Value>(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
