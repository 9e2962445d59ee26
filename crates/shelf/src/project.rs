//! A project as its files have it: the plan that they resolve to, and the ledger beside them. Reads; runs nothing.

use narthex_base::{Error, Plan, Result, plan::Layers};
use narthex_ledger::Ledger;
use std::path::{Path, PathBuf};

/// What shapes a plan beside the project file.
#[derive(Clone, Debug, Default)]
pub struct PlanOptions {
    /// Assignments from `--set`.
    pub flags: Vec<String>,
    /// Assignments from the environment.
    pub environment: Vec<String>,
    /// The user's own defaults, read if the file exists.
    pub user_file: Option<PathBuf>,
}

/// The project file's name.
const FILE: &str = "narthex.toml";

/// The largest project file that is read.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Reads the plan of the project in a folder, or of a project file: nothing is created on disk.
///
/// # Errors
/// If there is no project file, or it is wrong.
pub fn read_plan(path: &Path, options: &PlanOptions) -> Result<Plan> {
    Plan::resolve(&layers(path, options)?)
}

/// The texts that such a plan is resolved from, for those who read tables of their own in them.
///
/// # Errors
/// If there is no project file, or it cannot be read.
pub fn layers(path: &Path, options: &PlanOptions) -> Result<Layers> {
    let file = if path.is_file() { path.to_path_buf() } else { path.join(FILE) };
    if !file.is_file() {
        return Err(Error::input(format!("there is no {FILE} in {}", root_of(path).display()))
            .help("name the project's folder: `narthex run DIR`; or make a new project: `narthex new NAME`"));
    }
    let user_file = match &options.user_file {
        Some(path) if path.is_file() => Some((path.display().to_string(), read(path)?)),
        _ => None,
    };
    Ok(Layers {
        file_name: file.display().to_string(),
        file: read(&file)?,
        user_file,
        environment: options.environment.clone(),
        flags: options.flags.clone(),
    })
}

/// Whether a folder has a project file, or is one.
pub fn has_plan(path: &Path) -> bool {
    path.is_file() || path.join(FILE).is_file()
}

/// The ledger of the project around a folder, which must be there: for looking at artifacts.
///
/// # Errors
/// If there is no ledger there, or it cannot be opened.
pub fn open_ledger(path: &Path) -> Result<Ledger> {
    let root = root_of(path).join(".narthex");
    if !root.is_dir() {
        return Err(Error::input(format!("there is no ledger in {}", root_of(path).display()))
            .help("name the project's folder with `--project DIR`, or run it first: `narthex run DIR`"));
    }
    Ledger::open(&root)
}

/// The folder of a project, or of its file: relative paths start there.
pub fn root_of(path: &Path) -> PathBuf {
    let folder = if path.is_file() { path.parent().unwrap_or(Path::new("")) } else { path };
    if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_path_buf() }
}

fn read(path: &Path) -> Result<String> {
    let fail = |error| Error::io("cannot read", path, error);
    let bytes = std::fs::metadata(path).map_err(fail)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(Error::input(format!("the project file has {bytes} bytes"))
            .at(path.display(), None)
            .help("is this the right file?"));
    }
    std::fs::read_to_string(path).map_err(fail)
}
