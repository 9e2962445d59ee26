//! A blob to a registry: not at all where it is there already, taken over from another repository where the registry
//! does that, in one piece where it can be, in several where it must be, and from where an earlier try ended. Knows
//! no manifests.

use super::{Ask, Content, Registry, read_whole};
use crate::blob::Blob;
use narthex_base::{Error, Observer, Result};
use narthex_remote::Failure;
use std::{
    cell::Cell,
    fs,
    io::{self, Read},
    path::PathBuf,
};
use ureq::http::{HeaderMap, Method, header};

/// Bytes of a piece, where a registry does not take all at once.
const CHUNK_BYTES: u64 = 64 << 20;

/// What became of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The repository has it already.
    There,
    /// Taken over from another repository of the registry.
    Mounted,
    /// So many bytes went over the network.
    Bytes(u64),
}

/// An upload that was begun: where it goes on, and how much has arrived.
struct Upload {
    location: String,
    arrived: u64,
    /// The least that a piece must have, but for the last.
    chunk_min: u64,
}

impl Registry {
    /// Sends a blob. `mounts` are other repositories of this registry that may have it.
    ///
    /// # Errors
    /// If the registry refuses it, the connection is lost for good, or the user interrupts: what arrived stays there
    /// where the registry keeps it, and the next call goes on.
    pub(crate) fn send(&self, blob: &Blob, mounts: &[String], observer: Observer) -> Result<Sent> {
        let (mut tries, gone) = (self.tries(), Cell::new(0));
        let mut chunks = false;
        loop {
            observer.check()?;
            let before = gone.get();
            match self.try_send(blob, mounts, &gone, &mut chunks, observer) {
                Ok(Some(sent)) => {
                    self.forget(blob);
                    return Ok(match sent {
                        Sent::Bytes(_) => Sent::Bytes(gone.get()),
                        other => other,
                    });
                }
                Ok(None) => {}
                Err(failure) => {
                    observer.check()?;
                    if gone.get() > before {
                        tries.progress();
                    }
                    tries.again(failure, observer)?;
                }
            }
        }
    }

    /// One try. None: it is to be tried in another way.
    fn try_send(
        &self,
        blob: &Blob,
        mounts: &[String],
        gone: &Cell<u64>,
        chunks: &mut bool,
        observer: Observer,
    ) -> Result<Option<Sent>, Failure> {
        let there = self.once(&Ask::new(Method::HEAD, self.path(&format!("blobs/{}", blob.digest))), None)?;
        if there.status().is_success() {
            return Ok(Some(Sent::There));
        }
        let known = self.resumed(blob)?;
        let is_resumed = known.is_some();
        let mut upload = match known {
            Some(upload) => upload,
            None => match self.begin(blob, mounts)? {
                None => return Ok(Some(Sent::Mounted)),
                Some(upload) => upload,
            },
        };
        if !is_resumed && !*chunks {
            let whole = || Ok((counted(blob.open(0)?, blob.bytes, gone, observer), blob.bytes));
            let (status, headers, bytes) = self.put(&upload, blob, Some(&whole))?;
            return match status {
                200..300 => Ok(Some(Sent::Bytes(0))),
                // Too large for one piece, or none at all: by pieces, then.
                400 | 404 | 405 | 411 | 413 if !*chunks => {
                    *chunks = true;
                    self.forget(blob);
                    Ok(None)
                }
                _ => Err(Failure::Final(self.refused(status, &headers, &bytes, "does not take a blob"))),
            };
        }
        while upload.arrived < blob.bytes {
            observer.check().map_err(Failure::Final)?;
            let size = CHUNK_BYTES.max(upload.chunk_min).min(blob.bytes - upload.arrived);
            let (from, end) = (upload.arrived, upload.arrived + size);
            let piece = || Ok((counted(blob.open(from)?, size, gone, observer), size));
            let ask = Ask::new(Method::PATCH, upload.location.clone())
                .with(header::CONTENT_TYPE, "application/octet-stream")
                .with(header::CONTENT_RANGE, format!("{from}-{}", end - 1));
            let (status, headers, bytes) = read_whole(self.once(&ask, Some(&piece))?)?;
            match status {
                202 | 204 | 201 => {
                    let location = self.location(&headers, &upload.location);
                    upload = Upload { location, arrived: end, ..upload };
                    self.remember(blob, &upload.location);
                }
                // It has another place in mind than we have, or does not know the upload any more.
                404 | 416 => {
                    if status == 404 || !is_resumed {
                        self.forget(blob);
                    }
                    let error = Error::input(format!("{} does not go on with a blob where it ended", self.name()));
                    return Err(Failure::Passing(error, None));
                }
                _ => {
                    self.forget(blob);
                    // A registry that takes no pieces may take all at once, if it was not asked to yet.
                    if is_resumed && !*chunks {
                        return Ok(None);
                    }
                    return Err(Failure::Final(self.refused(status, &headers, &bytes, "does not take a blob")));
                }
            }
        }
        let (status, headers, bytes) = self.put(&upload, blob, None)?;
        match status {
            200..300 => Ok(Some(Sent::Bytes(0))),
            _ => {
                self.forget(blob);
                Err(Failure::Final(self.refused(status, &headers, &bytes, "does not take a blob")))
            }
        }
    }

    /// Opens an upload. None: the blob was taken over from another repository.
    fn begin(&self, blob: &Blob, mounts: &[String]) -> Result<Option<Upload>, Failure> {
        let mut questions: Vec<String> = mounts
            .iter()
            .filter(|from| **from != self.repository)
            .map(|from| {
                self.access.borrow_mut().also_pull(from);
                format!("?mount={}&from={from}", blob.digest)
            })
            .collect();
        questions.push(String::new());
        for (i, question) in questions.iter().enumerate() {
            let address = self.path(&format!("blobs/uploads/{question}"));
            let (status, headers, bytes) =
                read_whole(self.once(&Ask::new(Method::POST, address.clone()), Some(&nothing))?)?;
            match status {
                201 if !question.is_empty() => return Ok(None),
                200..300 => {
                    let location = self.location(&headers, &address);
                    let chunk_min = header_of(&headers, "oci-chunk-min-length").unwrap_or(0);
                    self.remember(blob, &location);
                    return Ok(Some(Upload { location, arrived: 0, chunk_min }));
                }
                // Who may not read the other repository may still write to this one.
                _ if i + 1 < questions.len() => {}
                _ => return Err(Failure::Final(self.refused(status, &headers, &bytes, "takes no blobs from us"))),
            }
        }
        Ok(None)
    }

    /// Closes an upload, with all of the blob or nothing more of it.
    fn put(
        &self,
        upload: &Upload,
        blob: &Blob,
        content: Option<Content>,
    ) -> Result<(u16, HeaderMap, Vec<u8>), Failure> {
        // The address is the registry's own, with what it put into it.
        let sign = if upload.location.contains('?') { '&' } else { '?' };
        let address = format!("{}{sign}digest={}", upload.location, blob.digest);
        let ask = Ask::new(Method::PUT, address).with(header::CONTENT_TYPE, "application/octet-stream");
        read_whole(self.once(&ask, Some(content.unwrap_or(&nothing)))?)
    }

    /// An upload that an earlier try began and the registry still knows.
    fn resumed(&self, blob: &Blob) -> Result<Option<Upload>, Failure> {
        let Ok(location) = fs::read_to_string(self.note(blob)) else { return Ok(None) };
        let location = location.trim().to_string();
        if location.is_empty() || !location.parse().is_ok_and(|uri| self.is_own(&uri)) {
            self.forget(blob);
            return Ok(None);
        }
        let (status, headers, _) = read_whole(self.once(&Ask::new(Method::GET, location.clone()), None)?)?;
        let arrived = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
        let last = arrived.and_then(|range| range.trim_start_matches("bytes=").split_once('-')?.1.parse::<u64>().ok());
        match (status, last) {
            // `0-0` is written of nothing and of one byte: nothing is the safe guess.
            (200..300, Some(last)) if last > 0 && last < blob.bytes => {
                let location = self.location(&headers, &location);
                let chunk_min = header_of(&headers, "oci-chunk-min-length").unwrap_or(0);
                self.remember(blob, &location);
                Ok(Some(Upload { location, arrived: last + 1, chunk_min }))
            }
            _ => {
                self.forget(blob);
                Ok(None)
            }
        }
    }

    /// Where an upload goes on: the answer's `Location`, whole or relative, its query kept as it is.
    fn location(&self, headers: &HeaderMap, before: &str) -> String {
        match headers.get(header::LOCATION).and_then(|value| value.to_str().ok()) {
            None => before.to_string(),
            Some(path) if path.starts_with('/') && !path.starts_with("//") => format!("{}{path}", self.base),
            Some(whole) if whole.contains("://") => whole.to_string(),
            Some(relative) => {
                let folder =
                    before.split('?').next().and_then(|path| path.rsplit_once('/')).map_or("", |(folder, _)| folder);
                format!("{folder}/{relative}")
            }
        }
    }

    /// The file that holds the address of a blob's upload.
    fn note(&self, blob: &Blob) -> PathBuf {
        let name = crate::reference::Sha256Digest::of_bytes(self.path(blob.digest.as_str()).as_bytes());
        self.settings.cache.join("uploads").join(name.digits())
    }

    /// Keeps where an upload goes on. If that cannot be written, the next command begins anew, which is no loss but
    /// time.
    fn remember(&self, blob: &Blob, location: &str) {
        let note = self.note(blob);
        if let Some(folder) = note.parent() {
            _ = fs::create_dir_all(folder);
        }
        _ = fs::write(note, location);
    }

    fn forget(&self, blob: &Blob) {
        _ = fs::remove_file(self.note(blob));
    }
}

/// What a request carries that says all in its address.
fn nothing<'a>() -> Result<(Box<dyn Read + 'a>, u64)> {
    Ok((Box::new(io::empty()), 0))
}

fn header_of(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// So many bytes of a reader, counted as they go; none any more once the user interrupts.
fn counted<'a>(
    from: Box<dyn Read + Send>,
    bytes: u64,
    gone: &'a Cell<u64>,
    observer: Observer<'a>,
) -> Box<dyn Read + 'a> {
    Box::new(Counted { from: from.take(bytes), gone, observer })
}

struct Counted<'a> {
    from: io::Take<Box<dyn Read + Send>>,
    gone: &'a Cell<u64>,
    observer: Observer<'a>,
}

impl Read for Counted<'_> {
    fn read(&mut self, block: &mut [u8]) -> io::Result<usize> {
        if self.observer.is_interrupted() {
            return Err(io::Error::other("interrupted"));
        }
        let count = self.from.read(block)?;
        self.gone.set(self.gone.get() + count as u64);
        Ok(count)
    }
}
