//! A project whose steps are run: its plan, its ledger, and what a bundle may take along.

use narthex_base::{Plan, Result};
use narthex_knowledge::Apart;
use narthex_ledger::Ledger;
use narthex_shelf::{PlanOptions, read_plan, root_of};
use narthex_train::{Alone, World};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// How a project is opened to be run.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// What shapes its plan beside the project file.
    pub plan: PlanOptions,
    /// The source code of the running program, for bundles that take it along.
    pub source_code: Option<SourceCode>,
    /// Reads what strangers wrote in binary, in a process of its own; in this one without.
    pub loader: Option<Apart>,
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
    /// Reads what strangers wrote in binary, in a process of its own; in this one without.
    pub(crate) loader: Option<Apart>,
    /// The processes that run it together.
    pub(crate) world: Arc<dyn World + Send>,
}

impl Project {
    /// A project of these parts, run by one process.
    pub(crate) fn of(root: PathBuf, plan: Plan, ledger: Ledger, source_code: Option<SourceCode>) -> Self {
        Self { root, plan, ledger, source_code, loader: None, world: Arc::new(Alone) }
    }

    /// The number of this process among those that run the project together, from 0.
    pub fn rank(&self) -> usize {
        self.world.rank()
    }

    /// Opens the project in a folder, or that of a project file.
    ///
    /// # Errors
    /// If there is no project file, it is wrong, or the ledger cannot be opened.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self> {
        let plan = read_plan(path, &options.plan)?;
        let root = root_of(path);
        let ledger = Ledger::open(&root.join(".narthex"))?;
        Ok(Self { loader: options.loader.clone(), ..Self::of(root, plan, ledger, options.source_code) })
    }
}
