//! From a package into a registry: blobs first, each once; then manifests; then what refers to them; the tag at the
//! very end, so that whoever finds it finds all of it.

use crate::{
    package::{Attachment, Package},
    reference::Remote,
    registry::{Registry, RegistrySettings, Sent, Wish},
};
use narthex_base::{Observer, Result};

/// What was pushed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Bytes that went over the network.
    pub network_bytes: u64,
    /// Bytes that were there already.
    pub there_bytes: u64,
    /// Bytes that the registry took over from another of its repositories.
    pub mounted_bytes: u64,
}

/// Pushes a package. `mounts` are other repositories of the registry that may have some of it.
///
/// # Errors
/// If the registry refuses something, the connection is lost for good, or the user interrupts: the same call goes on.
pub fn push(
    package: &Package,
    attachments: &[Attachment],
    remote: &Remote,
    mounts: &[String],
    settings: &RegistrySettings,
    observer: Observer,
) -> Result<Pushed> {
    let registry = Registry::new(remote, Wish::Push, settings)?;
    registry.warnings().into_iter().for_each(|warning| observer.warn(warning));
    let mut pushed = Pushed::default();
    let total = package.bytes();
    let mut done = 0;
    for blob in &package.blobs {
        match registry.send(blob, mounts, observer)? {
            Sent::There => pushed.there_bytes += blob.bytes,
            Sent::Mounted => pushed.mounted_bytes += blob.bytes,
            Sent::Bytes(bytes) => pushed.network_bytes += bytes,
        }
        done += blob.bytes;
        observer.progress(done.div_ceil(1000), total.div_ceil(1000), "kB", blob.digest.digits()[..12].to_string());
    }
    for document in package.documents() {
        registry.put_document(document, document.blob.digest.as_str(), observer)?;
    }
    for attachment in attachments {
        let (document, empty) = attachment.document(&package.model);
        for blob in [&attachment.content, &empty] {
            if let Sent::Bytes(bytes) = registry.send(blob, &[], observer)? {
                pushed.network_bytes += bytes;
            }
        }
        let is_listed = registry.put_document(&document, document.blob.digest.as_str(), observer)?;
        if !is_listed {
            registry.note_referrer(&document, &package.model.blob.digest, observer)?;
        }
    }
    if remote.digest.is_none() {
        registry.put_document(&package.top, remote.asked(), observer)?;
    }
    Ok(pushed)
}
