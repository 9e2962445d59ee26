//! What a file may cost that somebody else made. Knows no formats.

use narthex_base::{Error, Result, config::LoadLimits};
use std::time::{Duration, Instant};

/// What is left of the limits while a file is loaded.
pub(crate) struct Budget<'a> {
    pub limits: &'a LoadLimits,
    expanded_bytes: u64,
    end: Instant,
}

impl<'a> Budget<'a> {
    pub(crate) fn new(limits: &'a LoadLimits) -> Self {
        let end = Instant::now() + Duration::from_millis(limits.time_ms_max);
        Self { limits, expanded_bytes: limits.expanded_bytes_max, end }
    }

    /// Bytes that may still come out.
    #[cfg(feature = "documents")]
    pub(crate) fn expanded_bytes(&self) -> u64 {
        self.expanded_bytes
    }

    /// These bytes came out.
    pub(crate) fn expand(&mut self, bytes: usize) -> Result<()> {
        let left = self.expanded_bytes.checked_sub(bytes as u64);
        self.expanded_bytes = left.ok_or_else(|| self.too_large())?;
        Ok(())
    }

    pub(crate) fn too_large(&self) -> Error {
        let max = self.limits.expanded_bytes_max;
        Error::input(format!("more comes out of the file than `limits.expanded_bytes_max = {max}` bytes allows"))
            .help("if you trust the file, raise `limits.expanded_bytes_max`; else leave it out with `exclude`")
    }

    /// Elements inside of each other.
    pub(crate) fn depth(&self, depth: usize) -> Result<()> {
        let max = self.limits.depth_max;
        if depth <= max as usize {
            return Ok(());
        }
        Err(Error::input(format!("elements stand deeper inside of each other than `limits.depth_max = {max}` allows"))
            .help("if you trust the file, raise `limits.depth_max`; else leave it out with `exclude`"))
    }

    /// Asked now and then.
    pub(crate) fn time(&self) -> Result<()> {
        if Instant::now() <= self.end {
            return Ok(());
        }
        let max = self.limits.time_ms_max;
        Err(Error::input(format!("the file takes longer than `limits.time_ms_max = {max}` allows"))
            .help("if you trust the file, raise `limits.time_ms_max`; else leave it out with `exclude`"))
    }
}
