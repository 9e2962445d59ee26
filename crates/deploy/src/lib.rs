//! How a model runs elsewhere: the files that systemd, Compose, Kubernetes, KServe, MPI's operator or Slurm take,
//! from what is known of the model and a few wishes. Pure: nothing is read, written or applied. Each line that is not
//! plain says why it is there.
//!
//! A target is one file in `target/`, a line in [`Target::ALL`] and a folder of goldens.

mod memory;
mod options;
mod target;
mod text;

pub use memory::Memory;
pub use options::{Bundle, DeployOptions, Place};
pub use target::Target;

use narthex_base::Result;

/// A file of a deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Its path, relative to the folder of the deployment.
    pub path: String,
    /// What is in it.
    pub text: String,
}

/// The files for a target, in the order in which they are best read.
///
/// # Errors
/// If a wish is missing that the target cannot do without, or one does not fit it: the message names the flag.
pub fn render(target: Target, bundle: &Bundle, options: &DeployOptions) -> Result<Vec<Rendered>> {
    options.check(bundle)?;
    target.render(bundle, options)
}
