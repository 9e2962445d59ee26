//! The seam between adapters and what is known of them: where one lies, its terms, its ancestors, and whether it may be
//! served. This crate knows no policy and looks nothing up: the caller does.

use crate::Served;
use narthex_base::{Error, Result};
use narthex_openness::Shown;
use std::{path::Path, sync::Arc};

/// Finds adapters and says whether they may be served.
pub trait AdapterSources: Send + Sync {
    /// Opens the adapter at a place (a folder, or what the caller takes for a name) that is to be served under `name`.
    /// What comes back may be served.
    ///
    /// # Errors
    /// If it may not be, or there is none that can be read.
    fn open(&self, name: &str, place: &Path) -> Result<Arc<dyn ServedAdapter>, NotServed>;
}

/// An adapter that may be served.
pub trait ServedAdapter: Send + Sync {
    /// Where it lies, as it is shown.
    fn place(&self) -> &Path;

    /// The folder to read it from, in PEFT's format: there for as long as this is.
    fn folder(&self) -> &Path;

    /// Whether there still lies what was opened: nothing is known of anything else.
    fn is_current(&self) -> bool;

    /// As [`Served::provenance`].
    fn provenance(&self) -> &Shown;

    /// What the operator should know of it over this model; each a line.
    fn warnings(&self, base: &Served) -> Vec<String>;
}

/// Why an adapter is not served.
#[derive(Debug)]
pub enum NotServed {
    /// The policy does not let it.
    Refused(Error),
    /// It is not there, is broken or does not fit.
    Unfit(Error),
}

impl From<Error> for NotServed {
    fn from(error: Error) -> Self {
        Self::Unfit(error)
    }
}

impl From<NotServed> for Error {
    fn from(reason: NotServed) -> Self {
        match reason {
            NotServed::Refused(error) | NotServed::Unfit(error) => error,
        }
    }
}
