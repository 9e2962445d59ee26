//! An OCI image layout (image specification 1.1): a folder that other tools copy to registries and back
//! (`skopeo copy oci:…`, `oras cp --from-oci-layout`). Knows files, no network.

use crate::{
    blob::Blob,
    media,
    package::{Attachment, Package},
    pulled::Descriptor,
    reference::{Layout, Sha256Digest},
};
use narthex_base::{Error, Result};
use serde_json::{Value, json};
use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
};

/// The largest index or manifest that is read.
const DOCUMENT_BYTES_MAX: u64 = 16 << 20;

impl Layout {
    /// Adds a package under the tag, and what refers to it. The index is replaced last and at once: until then
    /// nothing points to what was written.
    ///
    /// # Errors
    /// If a file cannot be read or written, or the folder is one of something else.
    pub fn push(&self, package: &Package, attachments: &[Attachment]) -> Result<()> {
        let mut index = self.open_or_make()?;
        for blob in &package.blobs {
            self.write(blob)?;
        }
        for document in package.documents() {
            self.write(&document.blob)?;
        }
        let manifests = index["manifests"].as_array_mut().ok_or_else(|| not_a_layout(&self.folder))?;
        manifests.retain(|known| known["annotations"][media::REF_NAME] != self.tag.as_str());
        let mut entry = package.top.descriptor();
        entry["annotations"] = json!({ media::REF_NAME: self.tag });
        manifests.push(entry);
        for attachment in attachments {
            let (document, empty) = attachment.document(&package.model);
            for blob in [&attachment.content, &empty, &document.blob] {
                self.write(blob)?;
            }
            if !manifests.iter().any(|known| known["digest"] == document.blob.digest.as_str()) {
                manifests.push(document.descriptor());
            }
        }
        replace(&self.folder.join("index.json"), index.to_string().as_bytes())
    }

    /// The document that the tag points to.
    ///
    /// # Errors
    /// If the folder is no layout, or has no such tag.
    pub(crate) fn top(&self) -> Result<(Vec<u8>, Sha256Digest)> {
        let index = self.index()?;
        let manifests = index["manifests"].as_array().map(Vec::as_slice).unwrap_or_default();
        let has_tag = |known: &&Value| known["annotations"][media::REF_NAME] == self.tag.as_str();
        let Some(found) = manifests.iter().find(has_tag) else {
            let tags = manifests.iter().filter_map(|known| known["annotations"][media::REF_NAME].as_str());
            let tags: Vec<String> = tags.map(|tag| format!("`{tag}`")).collect();
            return Err(Error::input(format!("{} has no tag `{}`", self.folder.display(), self.tag))
                .help(format!("it has {}", if tags.is_empty() { "none".into() } else { tags.join(", ") })));
        };
        let descriptor = Descriptor::read(found)?;
        Ok((self.document(&descriptor.digest)?, descriptor.digest))
    }

    /// An index or a manifest by its digest.
    ///
    /// # Errors
    /// If it is not there, or not what its name says.
    pub(crate) fn document(&self, digest: &Sha256Digest) -> Result<Vec<u8>> {
        let path = self.blob(digest);
        let bytes = read(&path)?;
        if Sha256Digest::of_bytes(&bytes) != *digest {
            return Err(Error::input("this blob is not what its name says").at(path.display(), None));
        }
        Ok(bytes)
    }

    /// Where a blob lies.
    pub(crate) fn blob(&self, digest: &Sha256Digest) -> PathBuf {
        self.folder.join("blobs/sha256").join(digest.digits())
    }

    /// Manifests whose subject is this one, as `(type of artifact, bytes)`.
    ///
    /// # Errors
    /// If the folder is no layout, or one of them cannot be read.
    pub(crate) fn referrers(&self, subject: &Sha256Digest) -> Result<Vec<Value>> {
        let index = self.index()?;
        let mut found = Vec::new();
        for known in index["manifests"].as_array().into_iter().flatten() {
            if known["mediaType"] != media::MANIFEST || known["annotations"][media::REF_NAME].is_string() {
                continue;
            }
            let bytes = self.document(&Descriptor::read(known)?.digest)?;
            let manifest: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            if manifest["subject"]["digest"] == subject.as_str() {
                found.push(manifest);
            }
        }
        Ok(found)
    }

    fn index(&self) -> Result<Value> {
        let index = self.folder.join("index.json");
        if !index.is_file() || !self.folder.join("oci-layout").is_file() {
            return Err(not_a_layout(&self.folder));
        }
        serde_json::from_slice(&read(&index)?).map_err(|error| not_a_layout(&self.folder).cause(error))
    }

    /// The index of a layout; a new one where there is no folder.
    fn open_or_make(&self) -> Result<Value> {
        let folder = &self.folder;
        if folder.join("index.json").is_file() && folder.join("oci-layout").is_file() {
            return self.index();
        }
        if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(not_a_layout(folder));
        }
        let blobs = folder.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(|error| Error::io("cannot write", &blobs, error))?;
        replace(&folder.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let index = json!({ "schemaVersion": 2, "mediaType": media::INDEX, "manifests": [] });
        replace(&folder.join("index.json"), index.to_string().as_bytes())?;
        Ok(index)
    }

    fn write(&self, blob: &Blob) -> Result<()> {
        let path = self.blob(&blob.digest);
        if fs::metadata(&path).is_ok_and(|meta| meta.len() == blob.bytes) && crate::blob::matches(&path, &blob.digest)?
        {
            return Ok(());
        }
        replace_with(&path, |file| blob.write(file, &path))
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let fail = |error| Error::io("cannot read", path, error);
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(fail)?;
    file.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
        return Err(Error::input("this is too long for a manifest").at(path.display(), None));
    }
    Ok(bytes)
}

fn not_a_layout(folder: &Path) -> Error {
    Error::input(format!("{} is no OCI image layout", folder.display()))
        .help("name a folder that does not exist yet, or one that holds an OCI image layout")
}

fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    replace_with(path, |file| file.write_all(bytes).map_err(|error| Error::io("cannot write", path, error)))
}

/// Writes a file beside and renames it, once it is on the disk.
fn replace_with(path: &Path, write: impl FnOnce(&mut tempfile::NamedTempFile) -> Result<()>) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let fail = |error| Error::io("cannot write", path, error);
    let mut made = tempfile::NamedTempFile::new_in(folder).map_err(fail)?;
    write(&mut made)?;
    made.as_file().sync_all().map_err(fail)?;
    made.persist(path).map(|_| ()).map_err(|error| fail(error.error))
}
