//! A blob from a registry into a file: from where an earlier try ended, and checked against its digest. Knows no
//! manifests.

use super::{Ask, Registry};
use crate::{blob, pulled::Descriptor};
use narthex_base::{Error, Observer, Result};
use narthex_remote::Failure;
use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    path::Path,
};
use ureq::{
    Body,
    http::{Method, Response, header},
};

/// Told of every piece: so many bytes came over the network.
pub(crate) type Came<'a> = &'a mut dyn FnMut(u64);

impl Registry {
    /// Fetches a blob into a file; what is there already stays.
    ///
    /// # Errors
    /// If the registry has none, or something else under its digest (then what came is gone), the connection is lost
    /// for good, the disk is full, or the user interrupts (then what came stays).
    pub(crate) fn fetch(&self, wanted: &Descriptor, part: &Path, observer: Observer, came: Came) -> Result<()> {
        let mut tries = self.tries();
        loop {
            observer.check()?;
            let mut begun = fs::metadata(part).map_or(0, |meta| meta.len());
            if begun > wanted.bytes {
                remove(part)?;
                begun = 0;
            }
            if begun == wanted.bytes {
                break;
            }
            let mut count = 0;
            let outcome = self.go_on(wanted, part, begun, observer, &mut |bytes| {
                count += bytes;
                came(bytes);
            });
            if count > 0 {
                tries.progress();
            }
            if let Err(failure) = outcome {
                tries.again(failure, observer)?;
            }
        }
        if wanted.bytes == 0 {
            File::create(part).map_err(|error| Error::io("cannot write", part, error))?;
        }
        if !blob::matches(part, &wanted.digest)? {
            remove(part)?;
            return Err(Error::input(format!("a blob of {} did not arrive as it was pushed", self.name()))
                .cause(format!("its digest is not {}", wanted.digest))
                .help("it was removed: run the same command again; if it stays so, the registry was tampered with"));
        }
        Ok(())
    }

    fn go_on(
        &self,
        wanted: &Descriptor,
        part: &Path,
        begun: u64,
        observer: Observer,
        came: Came,
    ) -> Result<(), Failure> {
        let mut ask = Ask::new(Method::GET, self.path(&format!("blobs/{}", wanted.digest)));
        if begun > 0 {
            ask = ask.with(header::RANGE, format!("bytes={begun}-"));
        }
        let answer = self.once(&ask, None)?;
        let from = match answer.status().as_u16() {
            200 => 0,
            206 if range_start(&answer) == Some(begun) => begun,
            206 | 416 => {
                remove(part).map_err(Failure::Final)?;
                let error = Error::input(format!("{} does not go on with a blob where it ended", self.name()));
                return Err(Failure::Passing(error, None));
            }
            status => {
                let (_, headers, bytes) = super::read_whole(answer)?;
                let error =
                    self.refused(status, &headers, &bytes, &format!("does not give the blob {}", wanted.digest));
                return Err(Failure::Final(error));
            }
        };
        self.stream(wanted, part, (from, answer.into_body()), observer, came)
    }

    fn stream(
        &self,
        wanted: &Descriptor,
        part: &Path,
        (from, body): (u64, Body),
        observer: Observer,
        came: Came,
    ) -> Result<(), Failure> {
        let fail = |error| Failure::Final(Error::io("cannot write", part, error));
        let mut out = OpenOptions::new().create(true).append(true).open(part).map_err(fail)?;
        out.set_len(from).map_err(fail)?;
        let (mut body, mut end) = (body.into_reader(), from);
        let mut block = vec![0; blob::BLOCK_BYTES];
        loop {
            let count = body.read(&mut block).map_err(|error| {
                Failure::Passing(Error::input("the connection to the registry was lost").cause(error), None)
            })?;
            if count == 0 {
                break;
            }
            end += count as u64;
            if end > wanted.bytes {
                drop(out);
                remove(part).map_err(Failure::Final)?;
                return Err(Failure::Final(Error::input(format!(
                    "{} sends more of a blob than its manifest says it has",
                    self.name()
                ))));
            }
            out.write_all(&block[..count]).map_err(fail)?;
            came(count as u64);
            observer.check().map_err(Failure::Final)?;
        }
        if end < wanted.bytes {
            let error = Error::input("the connection to the registry was lost")
                .cause(format!("{end} of {} bytes of {} are here", wanted.bytes, wanted.digest));
            return Err(Failure::Passing(error, None));
        }
        Ok(())
    }
}

/// The start of `Content-Range: bytes 5-9/10`.
fn range_start(answer: &Response<Body>) -> Option<u64> {
    let text = answer.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    text.trim().strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("cannot remove", path, error)),
        _ => Ok(()),
    }
}
