//! A file while it is being sent: its bytes go to disk as they come, and nothing stays if not all come. Knows no
//! request.

use super::{
    disk,
    ids::new_file_id,
    records::{FileObject, FileStatus, ObjectKind, Purpose, now},
    store::{Store, StoreError},
};
use std::{fs::File, io::Write, sync::Arc};

/// A file that has not wholly come.
pub(crate) struct Upload {
    store: Arc<Store>,
    id: String,
    file: File,
    bytes: u64,
}

impl Upload {
    /// Begins a file.
    pub fn begin(store: Arc<Store>) -> Result<Self, StoreError> {
        let id = new_file_id();
        store.hold_file(&id)?;
        match File::create_new(store.part_path(&id)) {
            Ok(file) => Ok(Self { store, id, file, bytes: 0 }),
            Err(error) => {
                store.release(&id);
                Err(error.into())
            }
        }
    }

    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let (more, most) = (bytes.len() as u64, self.store.options().file_bytes_max);
        if self.bytes.saturating_add(more) > most {
            return Err(StoreError::FileTooLarge(most));
        }
        self.store.hold(&self.id, more)?;
        self.bytes += more;
        Ok(self.file.write_all(bytes)?)
    }

    /// All have come: the file gets its record.
    pub fn keep(self, filename: String, purpose: Purpose, expires_s: Option<u64>) -> Result<FileObject, StoreError> {
        self.file.sync_all()?;
        let data = self.store.data_path(&self.id);
        disk::rename(&self.store.part_path(&self.id), &data)?;
        let created_at = now();
        let file = FileObject {
            id: self.id.clone(),
            object: ObjectKind::File,
            bytes: self.bytes,
            created_at,
            expires_at: expires_s.map(|seconds| created_at.saturating_add(seconds)),
            filename,
            purpose,
            status: FileStatus::Processed,
        };
        let mut state = self.store.state();
        if let Err(error) = self.store.add_file(&mut state, file.clone()) {
            drop(state);
            let _ = disk::remove(&data);
            return Err(error.into());
        }
        // From here on its bytes count as those of a file.
        state.held.remove(&self.id);
        drop(state);
        Ok(file)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // Where it was kept, neither is there.
        let _ = disk::remove(&self.store.part_path(&self.id));
        self.store.release(&self.id);
    }
}
