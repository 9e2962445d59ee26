//! Files fetched into a folder of our own. A file is written under another name until all of it is there and has the
//! digest that the Hub names; what broke off is resumed where it ended.
//!
//! Below the folder for downloads: `models--org--name/COMMIT/…` holds whole files, `models--org--name/parts/` what is
//! begun, and `models--org--name/lock` is held by the process at work.

use super::{
    Checksum, Hub, Listing, RepoFile, Selected,
    address::encode,
    cache,
    http::{Reply, Told},
    listing::explain,
};
use narthex_base::{Error, Observer, Result};
use narthex_remote::Failure;
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use ureq::http::header;

/// Bytes read at once.
const BLOCK_BYTES: usize = 256 << 10;
/// The largest file whose size nobody names.
const UNKNOWN_BYTES_MAX: u64 = 1 << 30;
/// Progress is told this often.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// The size from which progress counts MB.
const MEGABYTES_FROM: u64 = 10_000_000;

/// A folder that is being filled with the files of one commit.
pub struct Download<'h> {
    hub: &'h Hub,
    listing: &'h Listing,
    /// Where the files are.
    pub folder: PathBuf,
    parts: PathBuf,
    fetched: Fetched,
    total_bytes: u64,
    told: Instant,
    _lock: File,
}

/// What has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Bytes that came over the network.
    pub network_bytes: u64,
    /// Bytes that lay in a cache, or were there from before.
    pub local_bytes: u64,
    /// The digest that each file was checked against.
    pub checksums: BTreeMap<String, Checksum>,
}

impl Hub {
    /// Prepares a folder for the chosen files. What lies there from before and was not chosen is removed.
    ///
    /// # Errors
    /// If the folder cannot be made, or another process fetches the same repository.
    pub fn download<'h>(&'h self, listing: &'h Listing, chosen: &Selected) -> Result<Download<'h>> {
        let repository = self.settings.downloads.join(listing.spec.cache_folder());
        let folder = repository.join(&listing.commit);
        let parts = repository.join("parts");
        for folder in [&folder, &parts] {
            fs::create_dir_all(folder).map_err(|error| Error::io("cannot create the folder", folder, error))?;
        }
        let path = repository.join("lock");
        let lock = File::create(&path).map_err(|error| Error::io("cannot write", &path, error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::input(format!("another process fetches {}", listing.spec.origin()))
                    .help("wait until it is done, then run the same command again"));
            }
            Err(TryLockError::Error(error)) => return Err(Error::io("cannot lock", &path, error)),
        }
        remove_others(&folder, &folder, &chosen.all().map(|file| file.path.as_str()).collect())?;
        let (fetched, total_bytes) = (Fetched::default(), chosen.bytes());
        Ok(Download { hub: self, listing, folder, parts, fetched, total_bytes, told: Instant::now(), _lock: lock })
    }
}

impl Download<'_> {
    /// What has come so far.
    pub fn fetched(&self) -> &Fetched {
        &self.fetched
    }

    /// Fetches files, one after the other.
    ///
    /// # Errors
    /// If one may not be read, the connection is lost for good, a digest is wrong (then the file is gone), the disk is
    /// full, or the user interrupts: what is begun stays, and the next call goes on there.
    pub fn fetch(&mut self, files: &[RepoFile], observer: Observer) -> Result<()> {
        for file in files {
            observer.check()?;
            self.fetch_one(file, observer)?;
            self.tell(observer, file, 0, true);
        }
        Ok(())
    }

    /// Removes the folder: what was fetched is taken in elsewhere.
    ///
    /// # Errors
    /// If something in it cannot be removed.
    pub fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.folder).map_err(|error| Error::io("cannot remove", &self.folder, error))
    }

    fn fetch_one(&mut self, file: &RepoFile, observer: Observer) -> Result<()> {
        let at = self.folder.join(&file.path);
        let is_there =
            at.is_file() && file.checksum.as_ref().is_some_and(|checksum| checksum.matches(&at).unwrap_or(false));
        if is_there || self.take_cached(file, &at, observer)? {
            self.fetched.local_bytes += fs::metadata(&at).map_or(0, |stat| stat.len());
            self.note(file, file.checksum.clone());
            return Ok(());
        }
        if self.hub.settings.offline {
            return Err(Error::input(format!("`{}` in Hugging Face's cache is damaged", file.path))
                .at(file.cached.as_deref().unwrap_or(&at).display(), None)
                .help("run the same command without HF_HUB_OFFLINE"));
        }
        let part = self.parts.join(part_name(self.listing, file));
        let checksum = self.load(file, &part, observer)?;
        if !checksum.matches(&part)? {
            fs::remove_file(&part).map_err(|error| Error::io("cannot remove", &part, error))?;
            return Err(Error::input(format!("`{}` did not arrive as the Hub has it", file.path))
                .cause(format!("its digest is not {checksum}"))
                .help("it was removed: run the same command again"));
        }
        place(&part, &at)?;
        self.note(file, Some(checksum));
        Ok(())
    }

    fn note(&mut self, file: &RepoFile, checksum: Option<Checksum>) {
        if let Some(checksum) = checksum {
            self.fetched.checksums.insert(file.path.clone(), checksum);
        }
    }

    /// Copies a file from Hugging Face's cache, if it is there and whole.
    fn take_cached(&self, file: &RepoFile, at: &Path, observer: Observer) -> Result<bool> {
        let cached = file.cached.clone().or_else(|| cache::find(&self.hub.settings, self.listing, file));
        let Some(cached) = cached else { return Ok(false) };
        let copy = self.parts.join(format!("{}.copy", part_name(self.listing, file)));
        fs::copy(&cached, &copy).map_err(|error| Error::io("cannot copy", &cached, error))?;
        match &file.checksum {
            Some(checksum) if !checksum.matches(&copy)? => {
                fs::remove_file(&copy).map_err(|error| Error::io("cannot remove", &copy, error))?;
                observer.warn(format!("{} is damaged and not used", cached.display()));
                return Ok(false);
            }
            Some(_) => {}
            None => observer.warn(format!("`{}` is taken as the cache has it: no digest is known", file.path)),
        }
        place(&copy, at)?;
        Ok(true)
    }

    /// Brings a file's bytes into `part`, from where it ends. Gives the digest that they must have.
    fn load(&mut self, file: &RepoFile, part: &Path, observer: Observer) -> Result<Checksum> {
        let spec = &self.listing.spec;
        let path = format!("/{}/resolve/{}/{}", spec.page(), self.listing.commit, encode(&file.path, true));
        let mut tries = self.hub.client.tries();
        let (mut bytes, mut checksum) = (file.bytes, file.checksum.clone());
        loop {
            observer.check()?;
            let mut begun = fs::metadata(part).map_or(0, |stat| stat.len());
            if bytes.is_some_and(|bytes| begun > bytes) {
                remove_part(part)?;
                begun = 0;
            }
            if bytes == Some(begun)
                && let Some(checksum) = &checksum
            {
                self.touch(part)?;
                return Ok(checksum.clone());
            }
            let reply = match self.hub.client.get(&path, begun) {
                Ok(reply) => reply,
                Err(failure) => {
                    tries.again(failure, observer)?;
                    continue;
                }
            };
            self.agree(file, &reply.told, &mut bytes, &mut checksum)?;
            let from = match reply.status {
                200 => 0,
                206 if content_range(&reply).is_some_and(|(from, _)| from == begun) => begun,
                206 | 416 => {
                    remove_part(part)?;
                    let error = Error::input(format!("the Hub does not go on with `{}` where it ended", file.path));
                    tries.again(Failure::Passing(error, None), observer)?;
                    continue;
                }
                status => {
                    let headers = &reply.headers;
                    return Err(explain(&self.hub.client, spec, Some(&file.path), status, headers, observer));
                }
            };
            let size = size_of(&reply);
            if let (Some(bytes), Some(size)) = (bytes, size)
                && bytes != size
            {
                return Err(contradiction(file, format!("{bytes} bytes, then {size}")));
            }
            bytes = bytes.or(size);
            if checksum.is_none() {
                return Err(Error::input(format!("the Hub names no digest of `{}`", file.path))
                    .cause("what came could not be checked")
                    .help("check HF_ENDPOINT: a mirror must pass the headers ETag and X-Linked-Etag on"));
            }
            let before = self.fetched.network_bytes;
            let outcome = self.stream(file, reply, part, from, bytes, observer);
            if self.fetched.network_bytes > before {
                tries.progress();
            }
            match outcome {
                Ok(end) if bytes.is_none() => bytes = Some(end),
                Ok(end) if bytes == Some(end) => {}
                Ok(end) => {
                    let error = Error::input("the connection to the Hub was lost")
                        .cause(format!("{end} bytes of `{}` are here", file.path));
                    tries.again(Failure::Passing(error, None), observer)?;
                }
                Err(failure) => tries.again(failure, observer)?,
            }
        }
    }

    /// Holds what the Hub says with the file against what it said in the list.
    fn agree(
        &self,
        file: &RepoFile,
        told: &Told,
        bytes: &mut Option<u64>,
        checksum: &mut Option<Checksum>,
    ) -> Result<()> {
        if let Some(commit) = told.commit.as_ref().filter(|commit| **commit != self.listing.commit) {
            return Err(contradiction(file, format!("commit {}, then {commit}", self.listing.commit)));
        }
        if let (Some(known), Some(now)) = (*bytes, told.bytes)
            && known != now
        {
            return Err(contradiction(file, format!("{known} bytes, then {now}")));
        }
        *bytes = bytes.or(told.bytes);
        match (checksum.as_ref(), told.checksum.as_ref()) {
            (Some(Checksum::Sha256(a)), Some(Checksum::Sha256(b)))
            | (Some(Checksum::Git(a)), Some(Checksum::Git(b)))
                if a != b =>
            {
                Err(contradiction(file, format!("the digest {a}, then {b}")))
            }
            (None, Some(now)) => {
                *checksum = Some(now.clone());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Writes an answer behind what is there. Gives where the file ends then.
    fn stream(
        &mut self,
        file: &RepoFile,
        reply: Reply,
        part: &Path,
        from: u64,
        bytes: Option<u64>,
        observer: Observer,
    ) -> Result<u64, Failure> {
        let fail = |error| Failure::Final(Error::io("cannot write", part, error));
        let mut out = OpenOptions::new().create(true).append(true).open(part).map_err(fail)?;
        out.set_len(from).map_err(fail)?;
        let mut body = reply.body.into_reader();
        let mut block = vec![0; BLOCK_BYTES];
        let mut end = from;
        loop {
            let count = body.read(&mut block).map_err(|error| {
                Failure::Passing(Error::input("the connection to the Hub was lost").cause(error), None)
            })?;
            if count == 0 {
                return Ok(end);
            }
            end += count as u64;
            if end > bytes.unwrap_or(UNKNOWN_BYTES_MAX) {
                drop(out);
                remove_part(part).map_err(Failure::Final)?;
                return Err(Failure::Final(
                    Error::input(format!("more comes of `{}` than the Hub says it has", file.path))
                        .help("it was removed: check HF_ENDPOINT"),
                ));
            }
            out.write_all(&block[..count]).map_err(fail)?;
            self.fetched.network_bytes += count as u64;
            self.tell(observer, file, from, false);
            observer.check().map_err(Failure::Final)?;
        }
    }

    /// An empty file is whole without a request that would bring nothing.
    fn touch(&self, part: &Path) -> Result<()> {
        let opened = OpenOptions::new().create(true).append(true).open(part);
        opened.map(drop).map_err(|error| Error::io("cannot write", part, error))
    }

    fn tell(&mut self, observer: Observer, file: &RepoFile, resumed: u64, now: bool) {
        if !now && self.told.elapsed() < TELL_EVERY {
            return;
        }
        self.told = Instant::now();
        let done = self.fetched.network_bytes + self.fetched.local_bytes + resumed;
        let (unit, divisor) = if self.total_bytes >= MEGABYTES_FROM { ("MB", 1_000_000) } else { ("kB", 1_000) };
        let total = self.total_bytes.max(done);
        observer.progress(done.div_ceil(divisor), total.div_ceil(divisor), unit, file.path.clone());
    }
}

fn contradiction(file: &RepoFile, cause: String) -> Error {
    Error::input(format!("the Hub contradicts itself about `{}`", file.path))
        .cause(cause)
        .help("run the same command again: the repository may have changed meanwhile")
}

/// The name of what is begun: the digest where it is known, so that another commit goes on with the same file.
fn part_name(listing: &Listing, file: &RepoFile) -> String {
    match &file.checksum {
        Some(checksum) => checksum.digits().to_string(),
        None => {
            let digest = Sha256::digest(format!("{}/{}", listing.commit, file.path));
            digest.iter().map(|byte| format!("{byte:02x}")).collect()
        }
    }
}

/// Start and whole size of `Content-Range: bytes 5-9/10`.
fn content_range(reply: &Reply) -> Option<(u64, Option<u64>)> {
    let text = reply.headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (range, size) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, size.parse().ok()))
}

/// The size of the whole file, as the answer has it.
fn size_of(reply: &Reply) -> Option<u64> {
    if reply.status == 206 {
        return content_range(reply)?.1;
    }
    reply.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn remove_part(part: &Path) -> Result<()> {
    match fs::remove_file(part) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("cannot remove", part, error)),
        _ => Ok(()),
    }
}

/// A whole file gets its name, once it is on the disk.
fn place(part: &Path, at: &Path) -> Result<()> {
    let fail = |error| Error::io("cannot write", at, error);
    if let Some(folder) = at.parent() {
        fs::create_dir_all(folder).map_err(fail)?;
    }
    File::open(part).and_then(|file| file.sync_all()).map_err(fail)?;
    fs::rename(part, at).map_err(fail)
}

/// Removes what lies in the folder and is not wanted: files of an earlier choice, and links, which we never make.
fn remove_others(root: &Path, folder: &Path, wanted: &BTreeSet<&str>) -> Result<()> {
    let fail = |error| Error::io("cannot tidy", folder, error);
    for entry in fs::read_dir(folder).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(fail)?);
        if kind.is_dir() {
            remove_others(root, &path, wanted)?;
            continue;
        }
        let name = path.strip_prefix(root).map(|path| path.to_string_lossy().replace('\\', "/")).unwrap_or_default();
        if !kind.is_file() || !wanted.contains(name.as_str()) {
            fs::remove_file(&path).map_err(fail)?;
        }
    }
    Ok(())
}
