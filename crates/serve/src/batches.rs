//! Files that clients send, and batches of requests in them: kept in a folder, answered in the background, gone on with
//! after a restart. Knows nothing of HTTP but that a request goes through a router.

mod answers;
mod ask;
mod disk;
mod ids;
mod lines;
mod options;
mod ordered;
mod records;
mod run;
mod runner;
mod store;
mod upload;
mod work;

#[cfg(test)]
mod tests;

pub(crate) use ordered::Paging;
pub(crate) use records::{BatchObject, FileObject, NewBatch, ObjectKind, Purpose};
pub(crate) use store::StoreError;
pub(crate) use upload::Upload;

pub use options::FilesOptions;
pub(crate) use runner::Runner;
pub(crate) use store::Store;
