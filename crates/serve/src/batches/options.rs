//! Where files lie, and how much of them there may be. Plain data.

use std::path::PathBuf;

/// Under which limits files and batches are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesOptions {
    /// Where they lie; made if it is not there. No two servers may share it at once.
    pub folder: PathBuf,
    /// Bytes of all files together.
    pub bytes_max: u64,
    /// Bytes of one file that somebody sends.
    pub file_bytes_max: u64,
    /// Files that are kept before no more are taken; a batch may always write its answers.
    pub files_max: usize,
    /// Batches that are answered at the same time; further ones wait.
    pub batches_running_max: usize,
    /// Requests of one batch that are under way at the same time. Few, so that other clients need not wait long.
    pub at_once: usize,
}

impl FilesOptions {
    /// The usual limits over a folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            bytes_max: 1 << 30,
            file_bytes_max: 100 << 20,
            files_max: 1000,
            batches_running_max: 1,
            at_once: 8,
        }
    }
}
