//! From a registry or a layout into a folder: listed first, so that it can be said what will come and asked whether
//! it may be used; then fetched blob by blob, each checked.

use crate::{
    blob,
    pulled::{Becomes, Descriptor, Listing, choose, list},
    reference::{Layout, OciReference, Sha256Digest},
    registry::{Registry, RegistrySettings, Wish},
    unpack::unpack,
};
use narthex_base::{Error, Observer, Result};
use serde_json::Value;
use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

/// From how many bytes on progress is counted in megabytes.
const MEGABYTES_FROM: u64 = 10_000_000;

enum Source {
    Layout(Layout),
    Registry(Box<Registry>, String),
}

/// Something that is pulled.
pub struct Puller {
    source: Source,
    name: String,
    cache: PathBuf,
}

/// Where the files of a listing are.
pub struct Pulled {
    /// The folder.
    pub folder: PathBuf,
    /// Bytes that came over the network.
    pub network_bytes: u64,
    /// Held until the files were used: nobody else writes there.
    _lock: File,
}

impl Puller {
    /// Prepares the connection.
    ///
    /// # Errors
    /// If the host is none, or certificates or credentials cannot be read.
    pub fn new(reference: &OciReference, settings: &RegistrySettings) -> Result<Self> {
        let source = match reference {
            OciReference::Layout(layout) => Source::Layout(layout.clone()),
            OciReference::Registry(remote) | OciReference::Ollama(remote) => {
                let registry = Registry::new(remote, Wish::Pull, settings)?;
                Source::Registry(Box::new(registry), remote.asked().to_string())
            }
        };
        Ok(Self { source, name: reference.to_string(), cache: settings.cache.clone() })
    }

    /// What should be said before work begins.
    pub fn warnings(&self) -> Vec<String> {
        match &self.source {
            Source::Layout(_) => vec![],
            Source::Registry(registry, _) => registry.warnings(),
        }
    }

    /// What the reference stands for now.
    ///
    /// # Errors
    /// If there is nothing of that name, or it is no model that is known here.
    pub fn list(&self, observer: Observer) -> Result<Listing> {
        let (bytes, top) = match &self.source {
            Source::Layout(layout) => layout.top()?,
            Source::Registry(registry, asked) => {
                let (bytes, top, _) = registry.document(asked, observer)?.ok_or_else(|| self.absent())?;
                (bytes, top)
            }
        };
        let document = self.read(&bytes)?;
        if !document["manifests"].is_array() {
            return list(&document, top.clone(), top);
        }
        let chosen = choose(&document)?;
        let manifest = self.read(&self.document(&chosen, observer)?)?;
        list(&manifest, top, chosen)
    }

    /// What refers to the manifest of a listing and is of this type, such as signatures.
    ///
    /// # Errors
    /// If one of them cannot be fetched, or is not what its manifest says.
    pub fn attached(&self, listing: &Listing, kind: &str, observer: Observer) -> Result<Vec<Vec<u8>>> {
        let manifests = match &self.source {
            Source::Layout(layout) => layout.referrers(&listing.manifest)?,
            Source::Registry(registry, _) => registry.referrers(&listing.manifest, observer)?,
        };
        let mut found = Vec::new();
        for manifest in manifests.iter().filter(|manifest| manifest["artifactType"] == kind) {
            for layer in manifest["layers"].as_array().into_iter().flatten() {
                let wanted = Descriptor::read(layer)?;
                if wanted.bytes > 64 << 20 {
                    return Err(Error::input(format!("what is attached to {} is too long to be read", self.name)));
                }
                let made = self.parts()?.join(format!("attached-{}", wanted.digest.digits()));
                self.blob(&wanted, &made, observer, &mut |_| {})?;
                found.push(fs::read(&made).map_err(|error| Error::io("cannot read", &made, error))?);
                _ = fs::remove_file(&made);
            }
        }
        Ok(found)
    }

    /// The files of a listing in a folder of the cache. `judge` is asked once the small files are there, before the
    /// large ones come: what may not be used is not fetched.
    ///
    /// # Errors
    /// If something does not arrive as it was pushed (then it is gone), the connection is lost for good or the user
    /// interrupts (what came stays), or `judge` refuses.
    pub fn fetch(
        &self,
        listing: &Listing,
        judge: impl FnOnce(&Path) -> Result<()>,
        observer: Observer,
    ) -> Result<Pulled> {
        let home = self.cache.join("pulls").join(listing.manifest.digits());
        let folder = home.join("files");
        fs::create_dir_all(&folder).map_err(|error| Error::io("cannot create the folder", &folder, error))?;
        let lock = self.lock(&home)?;
        let done = home.join("done");
        let mut pulled = Pulled { folder: folder.clone(), network_bytes: 0, _lock: lock };
        if done.is_file() {
            judge(&folder)?;
            return Ok(pulled);
        }
        let total = listing.bytes();
        let (unit, divisor) = if total >= MEGABYTES_FROM { ("MB", 1_000_000) } else { ("kB", 1_000) };
        let mut there = 0_u64;
        let is_small = |becomes: &Becomes| match becomes {
            Becomes::File(path) => ![".safetensors", ".gguf", ".bin"].iter().any(|ending| path.ends_with(ending)),
            Becomes::Archive { .. } => false,
        };
        let (small, large): (Vec<_>, Vec<_>) = listing.blobs.iter().partition(|(_, becomes)| is_small(becomes));
        let mut judge = Some(judge);
        for (i, (blob, becomes)) in small.iter().chain(&large).copied().enumerate() {
            if i == small.len()
                && let Some(judge) = judge.take()
            {
                judge(&folder)?;
            }
            observer.check()?;
            let what = match becomes {
                Becomes::File(path) => path.clone(),
                Becomes::Archive { .. } => blob.digest.digits()[..12].to_string(),
            };
            let mut tell = |bytes: u64| {
                there += bytes;
                observer.progress(there.div_ceil(divisor), total.div_ceil(divisor), unit, what.clone());
            };
            pulled.network_bytes += self.one(blob, becomes, &folder, observer, &mut tell)?;
        }
        if let Some(judge) = judge.take() {
            judge(&folder)?;
        }
        fs::write(&done, listing.manifest.as_str()).map_err(|error| Error::io("cannot write", &done, error))?;
        Ok(pulled)
    }

    /// One blob into its place; gives the bytes that came over the network.
    fn one(
        &self,
        wanted: &Descriptor,
        becomes: &Becomes,
        folder: &Path,
        observer: Observer,
        tell: &mut dyn FnMut(u64),
    ) -> Result<u64> {
        if let Becomes::File(path) = becomes {
            let at = folder.join(path);
            if fs::metadata(&at).is_ok_and(|meta| meta.len() == wanted.bytes) && blob::matches(&at, &wanted.digest)? {
                tell(wanted.bytes);
                return Ok(0);
            }
        }
        let part = self.parts()?.join(wanted.digest.digits());
        let begun = fs::metadata(&part).map_or(0, |meta| meta.len()).min(wanted.bytes);
        tell(begun);
        let mut came = 0;
        self.blob(wanted, &part, observer, &mut |bytes| {
            came += bytes;
            tell(bytes);
        })?;
        match becomes {
            Becomes::File(path) => {
                let at = folder.join(path);
                let fail = |error| Error::io("cannot write", &at, error);
                if let Some(folder) = at.parent() {
                    fs::create_dir_all(folder).map_err(fail)?;
                }
                File::open(&part).and_then(|file| file.sync_all()).map_err(fail)?;
                fs::rename(&part, &at).map_err(fail)?;
            }
            Becomes::Archive { packing, below } => {
                unpack(&part, *packing, below, folder)?;
                fs::remove_file(&part).map_err(|error| Error::io("cannot remove", &part, error))?;
            }
        }
        Ok(came)
    }

    fn blob(&self, wanted: &Descriptor, part: &Path, observer: Observer, came: &mut dyn FnMut(u64)) -> Result<()> {
        match &self.source {
            Source::Registry(registry, _) => registry.fetch(wanted, part, observer, came),
            Source::Layout(layout) => {
                let from = layout.blob(&wanted.digest);
                fs::copy(&from, part).map_err(|error| Error::io("cannot copy", &from, error))?;
                if !blob::matches(part, &wanted.digest)? {
                    _ = fs::remove_file(part);
                    return Err(Error::input("this blob is not what its name says").at(from.display(), None));
                }
                Ok(())
            }
        }
    }

    fn document(&self, digest: &Sha256Digest, observer: Observer) -> Result<Vec<u8>> {
        match &self.source {
            Source::Layout(layout) => layout.document(digest),
            Source::Registry(registry, _) => {
                let found = registry.document(digest.as_str(), observer)?.ok_or_else(|| self.absent())?;
                Ok(found.0)
            }
        }
    }

    fn read(&self, bytes: &[u8]) -> Result<Value> {
        serde_json::from_slice(bytes)
            .map_err(|error| Error::input(format!("the manifest of {} is no JSON", self.name)).cause(error))
    }

    fn absent(&self) -> Error {
        Error::input(format!("there is no {}", self.name))
            .help("check repository and tag; registries also say so to those who may not see it")
    }

    /// The folder for parts of blobs.
    fn parts(&self) -> Result<PathBuf> {
        let parts = self.cache.join("parts");
        fs::create_dir_all(&parts).map_err(|error| Error::io("cannot create the folder", &parts, error))?;
        Ok(parts)
    }

    fn lock(&self, home: &Path) -> Result<File> {
        let path = home.join("lock");
        let lock = File::create(&path).map_err(|error| Error::io("cannot write", &path, error))?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(TryLockError::WouldBlock) => Err(Error::input(format!("another process pulls {}", self.name))
                .help("wait until it is done, then run the same command again")),
            Err(TryLockError::Error(error)) => Err(Error::io("cannot lock", &path, error)),
        }
    }
}
