//! Models and data sets of the Hugging Face Hub, fetched into a folder of our own: listed first, so that it can be said
//! what will come, then fetched file by file, resumed where it broke off, and checked against the digests that the Hub
//! names. Knows nothing of ledgers, licences or what a model computes.
//!
//! This speaks the Hub's HTTP API with `ureq` and not through the crate `hf-hub`: its version 1.0 brings reqwest, tokio
//! and the Xet client (280 crates in all); the blocking 0.5 writes its files in the layout of Hugging Face's own cache,
//! which we only read, and compares no digests.
//!
//! Source: Hugging Face Hub documentation, "Hub API Endpoints", and "Environment variables" and "Understand caching" of
//! `huggingface_hub`.

mod address;
mod cache;
mod checksum;
#[cfg(test)]
mod fake;
mod fetch;
mod http;
mod listing;
mod select;
mod settings;
#[cfg(test)]
mod tests;

pub use address::{RepoKind, RepoSpec};
pub use checksum::Checksum;
pub use fetch::{Download, Fetched};
pub use listing::{Listing, RepoFile};
pub use select::{Selected, select};
pub use settings::HubSettings;

use narthex_base::{Observer, Result};

/// A connection to the Hub, or, offline, to what the caches hold.
pub struct Hub {
    settings: HubSettings,
    client: http::Client,
}

impl Hub {
    /// Prepares the connection; nothing is sent yet.
    ///
    /// # Errors
    /// If the endpoint is no address, or the certificates that the settings name cannot be read.
    pub fn new(settings: HubSettings) -> Result<Self> {
        let client = http::Client::new(&settings)?;
        Ok(Self { settings, client })
    }

    /// What should be said before work begins: a token that will not be sent.
    pub fn warnings(&self) -> &[String] {
        self.client.warnings()
    }

    /// The address of the repository's page.
    pub fn page(&self, spec: &RepoSpec) -> String {
        format!("{}/{}", self.settings.endpoint, spec.page())
    }

    /// The files of a repository at a revision. Offline, those that the caches hold.
    ///
    /// # Errors
    /// If there is no such repository or revision, it may not be read, the answer is not what the Hub's API says, or a
    /// file has a name that leaves the folder.
    pub fn list(&self, spec: &RepoSpec, observer: Observer) -> Result<Listing> {
        if self.settings.offline {
            return cache::listing(&self.settings, spec);
        }
        listing::online(&self.client, spec, observer)
    }
}
