//! The ledger: a content-addressed store of artifacts and a catalog of them, under a project's
//! `.narthex/` folder. It knows manifests and files; it does not know what a step computes.
//!
//! The layout on disk:
//!
//! ```text
//! .narthex/
//!   artifacts/<64 hex digits>/   one artifact, immutable, named by the digest of its manifest
//!     manifest.json              what it is, from what, how, under which licences
//!     …                          its files, at the paths that the manifest names
//!     run/                       the record of the run that made it; not part of its identity
//!       run.json                 when, how long, and what was measured
//!   refs/<name>                  one line for each time the name was set: digest, Unix milliseconds
//!   steps/<64 hex digits>.json   a step's key, what the key was made of, and the artifact it gave
//!   work/<key>/                  a step at work: `files/` becomes its artifact, checkpoints stand beside it
//!   tmp/                         things half made; all of it may go when nothing runs
//!   lock                         held by the run that is active, with its process id
//!   catalog.db                   SQLite: an index of the folders above, rebuilt from them if lost
//!   catalog.lock                 held for a moment while the catalog is opened
//! ```
//!
//! The folders are the truth and the catalog follows. Every change is a rename of something
//! that was complete and on disk before, so a crash leaves the old state or the new one;
//! opening the ledger brings the catalog up to date with what it finds.
//!
//! The interface is synchronous and must not be called from async code.

mod artifact;
mod catalog;
mod collect;
mod commit;
mod disk;
mod lineage;
mod listing;
mod lock;
mod names;
mod open;
mod steps;
#[cfg(test)]
mod testing;
mod transfer;

pub use artifact::{Artifact, PROVENANCE_FILE, RunRecord};
pub use collect::{GcItem, GcKind, GcReport, UNFINISHED_KEPT};
pub use disk::hash as hash_file;
pub use listing::Listing;
pub use lock::Lock;
pub use names::{MIN_PREFIX_DIGITS, check as check_name};
pub use open::Ledger;
pub use steps::StepRecord;
pub use transfer::read_provenance;
