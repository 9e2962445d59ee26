//! What verbs share that reach registries: flags, whose signature is asked for, and a model's folder fetched from one. Takes
//! nothing into a ledger.

use crate::style::bytes;
use clap::Args;
use narthex_base::{Error, Observer, Result};
use narthex_oci::{Listing, OciReference, Pulled, Puller, RegistrySettings, SIGNATURE};
use narthex_openness::{VerifyingKey, verify_statement};
use narthex_shelf::{Purpose, Shelf};
use std::path::{Path, PathBuf};

/// What a statement says that cosign signs: nothing but what it is about.
pub const SIGNED: &str = "https://sigstore.dev/cosign/sign/v1";

/// How registries are reached, and what is asked of what comes from them.
#[derive(Args, Clone, Debug, Default)]
pub struct RegistryFlags {
    /// Take from a registry only what the owner of this key has signed: the public key as PEM
    #[arg(long, value_name = "FILE", help_heading = "Registries")]
    pub public_key: Option<PathBuf>,
    /// Speak to a registry without encryption; to one on this machine, that is done where it speaks no TLS
    #[arg(long, help_heading = "Registries")]
    pub plain_http: bool,
}

impl RegistryFlags {
    pub fn settings(&self) -> Result<RegistrySettings> {
        Ok(RegistrySettings { plain_http: self.plain_http, ..RegistrySettings::from_environment()? })
    }
}

/// A model's folder, fetched and judged.
pub struct Fetched {
    pub listing: Listing,
    pub pulled: Pulled,
}

/// A model in a registry, a layout, or Ollama's.
pub struct FromRegistry<'a> {
    pub reference: &'a OciReference,
    pub flags: &'a RegistryFlags,
    pub shelf: &'a Shelf,
    pub purpose: Purpose,
}

impl FromRegistry<'_> {
    /// What the reference stands for now, if it is signed as asked. Nothing is fetched yet.
    pub fn list(&self, observer: Observer) -> Result<(Puller, Listing)> {
        let puller = Puller::new(self.reference, &self.flags.settings()?)?;
        puller.warnings().iter().for_each(|warning| observer.warn(warning));
        let listing = puller.list(observer)?;
        if let Some(path) = &self.flags.public_key {
            self.check_signature(&puller, &listing, path, observer)?;
        }
        Ok((puller, listing))
    }

    /// Fetches the files. Papers come first, and the policy is asked before weights follow.
    pub fn fetch(&self, puller: &Puller, listing: Listing, observer: Observer) -> Result<Fetched> {
        let name = self.reference.to_string();
        let judge = |folder: &Path| self.shelf.folder(folder, &name, self.purpose)?.permitted().map(drop);
        let pulled = puller.fetch(&listing, judge, observer)?;
        Ok(Fetched { listing, pulled })
    }

    fn check_signature(&self, puller: &Puller, listing: &Listing, path: &Path, observer: Observer) -> Result<()> {
        let text = std::fs::read_to_string(path).map_err(|error| Error::io("cannot read", path, error))?;
        let key = VerifyingKey::from_pem(&text, path)?;
        let place = PathBuf::from(format!("{}@{}", self.reference, listing.manifest));
        let bundles = puller.attached(listing, SIGNATURE, observer)?;
        let mut why = None;
        for bundle in &bundles {
            let bundle = String::from_utf8_lossy(bundle);
            match verify_statement(&bundle, &place, &key, SIGNED) {
                Ok(statement) if statement.subject_sha256 == listing.manifest.digits() => return Ok(()),
                Ok(_) => why = Some("the signature is about something else".to_string()),
                Err(error) => why = Some(error.what().to_string()),
            }
        }
        let error = Error::input(format!("{} is not signed with the key in {}", self.reference, path.display()));
        let error = match (bundles.len(), why) {
            (0, _) => error.cause("no signature refers to it"),
            (count, Some(why)) => error.cause(format!("{count} signatures refer to it, and none holds: {why}")),
            (_, None) => error,
        };
        Err(error.help("ask who pushed it for a signature (`narthex push --private-key FILE`); nothing was fetched"))
    }
}

/// What will be fetched, on stderr.
pub fn announce(reference: &OciReference, listing: &Listing) {
    noteln!("{reference}@{}", listing.top);
    noteln!("{} layers, {}", listing.blobs.len(), bytes(listing.bytes()));
    listing.notes.iter().for_each(|note| noteln!("{note}"));
}

/// The place in a fetched folder that is opened: the one GGUF file of a model of Ollama's, otherwise the folder.
pub fn opened(folder: &Path) -> PathBuf {
    let gguf = folder.join("model.gguf");
    if gguf.is_file() && !folder.join("config.json").is_file() { gguf } else { folder.to_path_buf() }
}

/// What a model from a registry is called, if nobody says otherwise.
pub fn name_of(reference: &OciReference) -> String {
    let whole = match reference {
        OciReference::Layout(layout) => return layout.tag.clone(),
        OciReference::Registry(remote) | OciReference::Ollama(remote) => &remote.repository,
    };
    whole.rsplit('/').next().unwrap_or(whole).to_string()
}
