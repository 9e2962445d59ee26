//! What goes to registries and comes from them: a model's folder as a ModelPack artifact, and as an image, in a
//! registry (OCI distribution 1.1) or in a layout on disk (OCI image specification 1.1); signatures and papers that
//! refer to it; models of Ollama's. One layer for each file, so that what two models share is stored once. Each layer
//! says which component it is and under which licence. Knows files and their papers; asks no policy.
//!
//! This speaks to registries with `ureq`, through `narthex-remote`, and not through the crate `oci-client`: that
//! brings reqwest and aws-lc, asks no helpers for credentials, does not go on with what broke off, and never writes
//! the tag by which older registries list what refers to a manifest.

mod blob;
mod credentials;
mod facts;
#[cfg(test)]
mod fake;
mod layout;
mod media;
mod package;
mod pulled;
mod puller;
mod pusher;
mod reference;
mod registry;
#[cfg(test)]
mod tests;
mod unpack;

pub use media::{CYCLONEDX, LINEAGE, SIGNATURE, SPDX};
pub use package::{Attachment, Package, PackageOptions};
pub use pulled::{Becomes, Descriptor, Listing};
pub use puller::{Pulled, Puller};
pub use pusher::{Pushed, push};
pub use reference::{Layout, OciReference, Remote, Sha256Digest};
pub use registry::RegistrySettings;
