//! `narthex new`: a small project that runs as it is.

use narthex_base::{Error, Result};
use std::path::Path;

const PROJECT: &str = include_str!("scaffold/narthex.toml");
const TEXT: &str = include_str!("scaffold/sample.txt");

/// Writes a commented project into a new folder.
///
/// # Errors
/// If the folder exists and is not empty, or cannot be written.
pub fn scaffold(folder: &Path) -> Result<()> {
    let fail = |error| Error::io("cannot write", folder, error);
    // `.` has the name of the folder that it is.
    let whole = if folder.file_name().is_none() { folder.canonicalize().ok() } else { None };
    let name = whole.as_deref().unwrap_or(folder).file_name();
    let name = name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let fits = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if !fits {
        return Err(Error::input(format!("`{name}` cannot be the name of a project"))
            .help("use letters, digits, `-`, `_` and `.`, beginning with a letter or digit"));
    }
    if folder.exists() && (!folder.is_dir() || std::fs::read_dir(folder).map_err(fail)?.next().is_some()) {
        return Err(Error::input(format!("{} exists already", folder.display()))
            .help("choose another name, or an empty folder"));
    }
    std::fs::create_dir_all(folder.join("data")).map_err(fail)?;
    std::fs::write(folder.join("narthex.toml"), PROJECT.replace("NAME", &name)).map_err(fail)?;
    std::fs::write(folder.join("data/sample.txt"), TEXT).map_err(fail)?;
    std::fs::write(folder.join(".gitignore"), ".narthex/\n").map_err(fail)
}
