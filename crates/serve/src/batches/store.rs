//! The folder that files and batches lie in, and what of it is known without reading it: two folders, `files` with
//! `ID.data` beside `ID.json`, and `batches` with `ID.json` and, until a batch has ended, its answers so far. Knows no
//! request.
//!
//! A path is made of an id that is in the list, never of what a request says.

use super::{
    disk::{self, at},
    ids::{is_batch_id, is_file_id},
    options::FilesOptions,
    ordered::{Ordered, Paging},
    records::{BatchRecord, FileObject, FileRecord, Purpose, now},
};
use std::{
    collections::HashMap,
    fmt,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// The ends of names.
const RECORD: &str = "json";
const DATA: &str = "data";
pub(super) const OUTPUT: &str = "output.jsonl";
pub(super) const ERRORS: &str = "errors.jsonl";

/// Files and batches, on disk and in mind.
pub struct Store {
    pub(super) options: FilesOptions,
    pub(super) state: Mutex<State>,
    /// Tells that a batch came or should stop.
    pub(super) changed: watch::Sender<()>,
    /// As long as it is open, no other server uses the folder.
    _lock: File,
}

pub(super) struct State {
    pub files: Ordered<FileRecord>,
    pub batches: Ordered<BatchRecord>,
    /// Bytes that belong to no file yet, by the id of the file that is being sent or of the batch that writes answers.
    pub held: HashMap<String, u64>,
}

/// Why a store does not do something.
#[derive(Debug)]
pub(crate) enum StoreError {
    /// There is no such file or batch.
    Unknown,
    /// A page should come after something that nobody knows.
    UnknownCursor(String),
    /// A file has more bytes than this.
    FileTooLarge(u64),
    /// All files together would have more bytes than this.
    Full(u64),
    /// There are as many files as there may be.
    TooManyFiles(usize),
    /// There are as many batches as there may be, and all have work to do.
    TooManyBatches(usize),
    /// The batch of this id still reads the file.
    InUse(String),
    /// The file is not for batches, but for this.
    NotForBatches(Purpose),
    /// The batch has ended so.
    Ended(&'static str),
    /// The disk.
    Io(io::Error),
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => write!(f, "there is no such file or batch"),
            Self::UnknownCursor(id) => write!(f, "nothing here is called {id:?}"),
            Self::FileTooLarge(most) => write!(f, "the file is too large: this server takes at most {most} bytes"),
            Self::Full(most) => {
                write!(f, "this server keeps at most {most} bytes in all files together: delete some first")
            }
            Self::TooManyFiles(most) => write!(f, "this server keeps at most {most} files: delete some first"),
            Self::TooManyBatches(most) => write!(f, "{most} batches are waiting; try again later"),
            Self::InUse(batch) => {
                write!(f, "the batch `{batch}` still reads this file: wait for its end or cancel it")
            }
            Self::NotForBatches(purpose) => write!(
                f,
                "this file was sent with the purpose `{}`: send it again with the purpose `batch`",
                purpose.name()
            ),
            Self::Ended(status) => write!(f, "the batch is `{status}` and can no longer be cancelled"),
            Self::Io(error) => write!(f, "the server cannot use its folder of files: {error}"),
        }
    }
}

impl Store {
    /// Opens a folder, or makes it. What an interrupted upload left is removed.
    ///
    /// # Errors
    /// If the folder cannot be used, a record in it cannot be read, or another server has it open.
    pub fn open(options: FilesOptions) -> io::Result<Arc<Self>> {
        let folder = &options.folder;
        let (files, batches) = (files_folder(folder), batches_folder(folder));
        for each in [&files, &batches] {
            fs::create_dir_all(each).map_err(|error| at(each, &error))?;
        }
        let lock = lock(&folder.join("lock"))?;
        let batches = load_batches(&batches)?;
        let mut held = HashMap::new();
        for record in batches.iter().filter(|record| !record.batch.status.ended()) {
            let id = &record.batch.id;
            let sizes = [OUTPUT, ERRORS].map(|end| fs::metadata(batch_path(folder, id, end)).map_or(0, |m| m.len()));
            held.insert(id.clone(), sizes.iter().sum());
        }
        let files = load_files(&files, &batches)?;
        let state = Mutex::new(State { files, batches, held });
        Ok(Arc::new(Self { options, state, changed: watch::Sender::new(()), _lock: lock }))
    }

    /// Under which limits.
    pub fn options(&self) -> &FilesOptions {
        &self.options
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a file's bytes lie.
    pub(super) fn data_path(&self, id: &str) -> PathBuf {
        files_folder(&self.options.folder).join(format!("{id}.{DATA}"))
    }

    /// Where a file's bytes lie until all have come.
    pub(super) fn part_path(&self, id: &str) -> PathBuf {
        files_folder(&self.options.folder).join(format!("{id}.part"))
    }

    fn record_path(&self, id: &str) -> PathBuf {
        files_folder(&self.options.folder).join(format!("{id}.{RECORD}"))
    }

    /// Where something of a batch lies.
    pub(super) fn batch_path(&self, id: &str, end: &str) -> PathBuf {
        batch_path(&self.options.folder, id, end)
    }

    /// The file of this name.
    pub(crate) fn file(&self, id: &str) -> Result<FileObject, StoreError> {
        let mut state = self.state();
        self.sweep(&mut state);
        state.file(id).map(|record| record.file.clone())
    }

    /// The file of this name and its bytes.
    pub(crate) fn open_file(&self, id: &str) -> Result<(FileObject, File), StoreError> {
        let file = self.file(id)?;
        let path = self.data_path(&file.id);
        match File::open(&path) {
            Ok(data) => Ok((file, data)),
            // Somebody deleted it just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StoreError::Unknown),
            Err(error) => Err(at(&path, &error).into()),
        }
    }

    /// A page of the files, and whether there are more.
    pub(crate) fn files(&self, paging: &Paging, purpose: Option<&str>) -> Result<(Vec<FileObject>, bool), StoreError> {
        let mut state = self.state();
        self.sweep(&mut state);
        let now = now();
        let wanted = |record: &FileRecord| {
            !record.expired(now) && purpose.is_none_or(|purpose| record.file.purpose.name() == purpose)
        };
        let unknown = || StoreError::UnknownCursor(paging.after.clone().unwrap_or_default());
        let (page, more) = state.files.page(paging, wanted).ok_or_else(unknown)?;
        Ok((page.into_iter().map(|record| record.file.clone()).collect(), more))
    }

    /// Removes a file.
    pub(crate) fn delete_file(&self, id: &str) -> Result<(), StoreError> {
        let mut state = self.state();
        self.sweep(&mut state);
        let id = state.file(id)?.file.id.clone();
        match state.reader_of(&id) {
            Some(batch) => Err(StoreError::InUse(batch)),
            None => Ok(self.remove_file(&mut state, &id)?),
        }
    }

    /// First the record: data without one are removed when the folder is opened.
    fn remove_file(&self, state: &mut State, id: &str) -> io::Result<()> {
        disk::remove(&self.record_path(id))?;
        state.files.remove(id);
        disk::remove(&self.data_path(id))
    }

    /// Removes the files whose time is over, but for those that a batch reads.
    pub(super) fn sweep(&self, state: &mut State) {
        let now = now();
        let expired = state.files.iter().filter(|record| record.expired(now)).map(|record| record.file.id.clone());
        for id in expired.collect::<Vec<_>>() {
            if state.reader_of(&id).is_none() {
                // What cannot be removed now is met again; until then nobody sees it.
                let _ = self.remove_file(state, &id);
            }
        }
    }

    /// Takes a file whose bytes lie where they belong into the list.
    pub(super) fn add_file(&self, state: &mut State, file: FileObject) -> io::Result<()> {
        let record = FileRecord { number: state.files.next_number(), file };
        disk::write_json(&self.record_path(&record.file.id), &record)?;
        state.files.insert(&record.file.id.clone(), record.number, record);
        Ok(())
    }

    /// Begins to hold bytes for a file that is being sent.
    pub(super) fn hold_file(&self, id: &str) -> Result<(), StoreError> {
        let mut state = self.state();
        self.sweep(&mut state);
        let sent = state.held.keys().filter(|id| is_file_id(id)).count();
        if state.files.len() + sent >= self.options.files_max {
            return Err(StoreError::TooManyFiles(self.options.files_max));
        }
        state.held.insert(id.into(), 0);
        Ok(())
    }

    /// Holds further bytes for a file that is being sent or a batch.
    pub(super) fn hold(&self, id: &str, bytes: u64) -> Result<(), StoreError> {
        let mut state = self.state();
        let most = self.options.bytes_max;
        let fits = |state: &State| state.bytes().saturating_add(bytes) <= most;
        if !fits(&state) {
            self.sweep(&mut state);
        }
        if !fits(&state) {
            return Err(StoreError::Full(most));
        }
        *state.held.entry(id.into()).or_default() += bytes;
        Ok(())
    }

    /// Says how many bytes a batch really has.
    pub(super) fn hold_exactly(&self, id: &str, bytes: u64) {
        self.state().held.insert(id.into(), bytes);
    }

    /// Holds nothing more for an id.
    pub(super) fn release(&self, id: &str) {
        self.state().held.remove(id);
    }

    /// Bytes of all files together, for tests.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> u64 {
        self.state().bytes()
    }

    /// Lets a file's time be over, for tests.
    #[cfg(test)]
    pub(crate) fn age(&self, id: &str) {
        if let Some(record) = self.state().files.get_mut(id) {
            record.file.expires_at = Some(1);
        }
    }
}

impl State {
    pub(super) fn file(&self, id: &str) -> Result<&FileRecord, StoreError> {
        let known = is_file_id(id).then(|| self.files.get(id)).flatten();
        known.filter(|record| !record.expired(now())).ok_or(StoreError::Unknown)
    }

    /// The batch that has still to read a file.
    fn reader_of(&self, id: &str) -> Option<String> {
        let mut batches = self.batches.iter().map(|record| &record.batch);
        batches.find(|batch| batch.input_file_id == id && !batch.status.ended()).map(|batch| batch.id.clone())
    }

    fn bytes(&self) -> u64 {
        self.files.iter().map(|record| record.file.bytes).chain(self.held.values().copied()).sum()
    }
}

impl FileRecord {
    fn expired(&self, now: u64) -> bool {
        self.file.expires_at.is_some_and(|end| end <= now)
    }
}

fn files_folder(folder: &Path) -> PathBuf {
    folder.join("files")
}

fn batches_folder(folder: &Path) -> PathBuf {
    folder.join("batches")
}

fn batch_path(folder: &Path, id: &str, end: &str) -> PathBuf {
    batches_folder(folder).join(format!("{id}.{end}"))
}

/// Two servers in one folder would answer each batch twice.
fn lock(path: &Path) -> io::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(|error| at(path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            let message = format!("{}: another server uses this folder", path.display());
            Err(io::Error::new(io::ErrorKind::WouldBlock, message))
        }
        Err(fs::TryLockError::Error(error)) => Err(at(path, &error)),
    }
}

/// Reads the records of batches, and removes what ended ones and interrupted writing left.
fn load_batches(folder: &Path) -> io::Result<Ordered<BatchRecord>> {
    let names = disk::names(folder, is_batch_id)?;
    let mut batches = Ordered::new();
    for (id, _) in names.iter().filter(|(_, end)| end == RECORD) {
        let path = folder.join(format!("{id}.{RECORD}"));
        let record: BatchRecord = disk::read_json(&path)?;
        let own = &record.batch.id == id && is_file_id(&record.output_id) && is_file_id(&record.error_id);
        if !own || !is_file_id(&record.batch.input_file_id) {
            let message = format!("{}: this is not the record of this batch", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        batches.insert(id, record.number, record);
    }
    for (id, end) in &names {
        let working = batches.get(id).is_some_and(|record| !record.batch.status.ended());
        if end != RECORD && !(working && [OUTPUT, ERRORS].contains(&end.as_str())) {
            disk::remove(&folder.join(format!("{id}.{end}")))?;
        }
    }
    Ok(batches)
}

/// Reads the records of files, and removes what has no record or no data, but for the answers of a batch that was about
/// to end.
fn load_files(folder: &Path, batches: &Ordered<BatchRecord>) -> io::Result<Ordered<FileRecord>> {
    let names = disk::names(folder, is_file_id)?;
    let mut files = Ordered::new();
    for (id, _) in names.iter().filter(|(_, end)| end == RECORD) {
        let path = folder.join(format!("{id}.{RECORD}"));
        let record: FileRecord = disk::read_json(&path)?;
        if &record.file.id != id {
            let message = format!("{}: this is not the record of this file", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        if folder.join(format!("{id}.{DATA}")).is_file() {
            files.insert(id, record.number, record);
        } else {
            disk::remove(&path)?;
        }
    }
    let coming = |id: &String| {
        let mut working = batches.iter().filter(|record| !record.batch.status.ended());
        working.any(|record| &record.output_id == id || &record.error_id == id)
    };
    for (id, end) in &names {
        if end != RECORD && (end != DATA || (files.get(id).is_none() && !coming(id))) {
            disk::remove(&folder.join(format!("{id}.{end}")))?;
        }
    }
    Ok(files)
}
