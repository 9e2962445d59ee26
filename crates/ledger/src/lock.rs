//! The lock that one active run holds. It lives in the operating system, so a killed process
//! never leaves it behind.

use narthex_base::{Error, Result};
use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// The right to change a ledger, until dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
    held: Arc<AtomicBool>,
}

impl Lock {
    /// Takes the lock or says who has it.
    pub(crate) fn take(path: &Path, held: &Arc<AtomicBool>) -> Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|e| Error::io("cannot open the lock file", path, e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(busy(&mut file, path)),
            Err(TryLockError::Error(error)) => return Err(Error::io("cannot lock", path, error)),
        }
        // The process id is a courtesy to whoever finds the lock taken; the lock itself is what counts.
        let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
        held.store(true, Ordering::SeqCst);
        Ok(Self { file, held: held.clone() })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.file.rewind().and_then(|()| self.file.set_len(0));
        self.held.store(false, Ordering::SeqCst);
    }
}

fn busy(file: &mut File, path: &Path) -> Error {
    let mut text = String::new();
    let _ = file.take(32).read_to_string(&mut text);
    let error = Error::input("another narthex run is active in this project");
    match text.trim().parse::<u32>() {
        Ok(pid) => error
            .cause(format!("process {pid} holds {}", path.display()))
            .help(format!("wait until it has finished, or stop it with `kill -INT {pid}` (its work is saved)")),
        Err(_) => error
            .cause(format!("{} is locked", path.display()))
            .help("wait until it has finished, then run the same command again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = Arc::new(AtomicBool::new(false));
        let first = Lock::take(&path, &held).unwrap();
        assert!(held.load(Ordering::SeqCst));
        let error = Lock::take(&path, &held).unwrap_err();
        assert!(error.what().contains("another narthex run"), "{error}");
        assert!(error.causes()[0].contains(&format!("process {}", std::process::id())), "{error}");
        assert!(error.help_text().unwrap().contains("kill -INT"), "{error}");
        drop(first);
        assert!(!held.load(Ordering::SeqCst));
        Lock::take(&path, &held).unwrap();
    }

    #[test]
    fn a_dead_process_leaves_no_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        // What a killed run leaves: the file with its process id, and nobody holding it.
        std::fs::write(&path, "123456").unwrap();
        Lock::take(&path, &Arc::default()).unwrap();
    }
}
