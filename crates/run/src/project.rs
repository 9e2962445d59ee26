//! A project on disk: its file, its plan and its ledger.

use narthex_base::{Error, Plan, Result, plan::Layers};
use narthex_ledger::Ledger;
use std::path::{Path, PathBuf};

/// What shapes a plan beside the project file.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Assignments from `--set`.
    pub flags: Vec<String>,
    /// Assignments from the environment.
    pub environment: Vec<String>,
    /// The user's own defaults, read if the file exists.
    pub user_file: Option<PathBuf>,
    /// The source code of the running program, for bundles that take it along.
    pub source_code: Option<SourceCode>,
}

/// The source code of Narthex as one file.
#[derive(Clone, Copy, Debug)]
pub struct SourceCode {
    /// The file's name: `narthex-0.1.0.tar.gz`.
    pub name: &'static str,
    /// Its content.
    pub bytes: &'static [u8],
}

/// An open project.
pub struct Project {
    /// The folder of the project file; relative paths start here.
    pub root: PathBuf,
    /// The resolved configuration.
    pub plan: Plan,
    /// The artifacts.
    pub ledger: Ledger,
    /// The source code of the running program, for bundles that take it along.
    pub source_code: Option<SourceCode>,
}

/// The project file's name.
const FILE: &str = "narthex.toml";

/// The largest project file that is read.
const FILE_BYTES_MAX: u64 = 4 << 20;

impl Project {
    /// Opens the project in a folder, or that of a project file.
    ///
    /// # Errors
    /// If there is no project file, it is wrong, or the ledger cannot be opened.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self> {
        let plan = Self::plan(path, options)?;
        let root = folder_of(path);
        let ledger = Ledger::open(&root.join(".narthex"))?;
        Ok(Self { root, plan, ledger, source_code: options.source_code })
    }

    /// Reads the plan alone: nothing is created on disk.
    ///
    /// # Errors
    /// If there is no project file, or it is wrong.
    pub fn plan(path: &Path, options: &OpenOptions) -> Result<Plan> {
        let file = if path.is_file() { path.to_path_buf() } else { path.join(FILE) };
        if !file.is_file() {
            return Err(Error::input(format!("there is no {FILE} in {}", folder_of(path).display()))
                .help("name the project's folder: `narthex run DIR`; or make a new project: `narthex new NAME`"));
        }
        let user_file = match &options.user_file {
            Some(path) if path.is_file() => Some((path.display().to_string(), read(path)?)),
            _ => None,
        };
        Plan::resolve(&Layers {
            file_name: file.display().to_string(),
            file: read(&file)?,
            user_file,
            environment: options.environment.clone(),
            flags: options.flags.clone(),
        })
    }

    /// The ledger of the project around a folder, without its plan: for looking at artifacts.
    ///
    /// # Errors
    /// If there is no ledger there, or it cannot be opened.
    pub fn ledger(path: &Path) -> Result<Ledger> {
        let root = folder_of(path).join(".narthex");
        if !root.is_dir() {
            return Err(Error::input(format!("there is no ledger in {}", folder_of(path).display()))
                .help("name the project's folder with `--project DIR`, or run it first: `narthex run DIR`"));
        }
        Ledger::open(&root)
    }
}

fn folder_of(path: &Path) -> PathBuf {
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
