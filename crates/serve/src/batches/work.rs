//! Batches in a store: made, cancelled, begun, ended. Knows no request and answers none.

use super::{
    disk,
    ids::{is_batch_id, new_batch_id, new_file_id},
    ordered::Paging,
    records::{
        BatchError, BatchErrors, BatchObject, BatchRecord, BatchStatus, BatchUsage, FileObject, FileStatus, NewBatch,
        ObjectKind, Purpose, RequestCounts, now,
    },
    store::{ERRORS, OUTPUT, State, Store, StoreError},
};
use std::{collections::HashSet, fs::File, io, path::PathBuf};
use tokio::sync::watch;

/// Batches that are remembered; of more, those that ended first are forgotten. Their files stay.
const BATCHES_MAX: usize = 10_000;

/// Seconds that a batch has.
const WINDOW_S: u64 = 24 * 60 * 60;

/// How a batch is called of which only that is known.
const RECORD: &str = "json";

impl Store {
    /// Makes a batch, and wakes who works on them.
    pub(crate) fn create_batch(&self, new: NewBatch) -> Result<BatchObject, StoreError> {
        let mut state = self.state();
        self.sweep(&mut state);
        let input = &state.file(&new.input_file_id)?.file;
        if input.purpose != Purpose::Batch {
            return Err(StoreError::NotForBatches(input.purpose));
        }
        let created_at = now();
        let batch = BatchObject {
            id: new_batch_id(),
            object: ObjectKind::Batch,
            endpoint: new.endpoint.into(),
            model: None,
            errors: None,
            input_file_id: input.id.clone(),
            completion_window: "24h".into(),
            status: BatchStatus::Validating,
            output_file_id: None,
            error_file_id: None,
            created_at,
            in_progress_at: None,
            expires_at: created_at + WINDOW_S,
            finalizing_at: None,
            completed_at: None,
            failed_at: None,
            expired_at: None,
            cancelling_at: None,
            cancelled_at: None,
            request_counts: RequestCounts::default(),
            usage: None,
            metadata: new.metadata,
        };
        let record = BatchRecord {
            number: state.batches.next_number(),
            output_expires_s: new.output_expires_s,
            output_id: new_file_id(),
            error_id: new_file_id(),
            ending: None,
            batch: batch.clone(),
        };
        self.forget_old_batches(&mut state)?;
        disk::write_json(&self.batch_path(&batch.id, RECORD), &record)?;
        state.batches.insert(&batch.id, record.number, record);
        drop(state);
        self.changed.send_replace(());
        Ok(batch)
    }

    fn forget_old_batches(&self, state: &mut State) -> Result<(), StoreError> {
        while state.batches.len() >= BATCHES_MAX {
            let oldest = state.batches.iter().find(|record| record.batch.status.ended());
            let Some(id) = oldest.map(|record| record.batch.id.clone()) else {
                return Err(StoreError::TooManyBatches(BATCHES_MAX));
            };
            disk::remove(&self.batch_path(&id, RECORD))?;
            state.batches.remove(&id);
        }
        Ok(())
    }

    /// The batch of this name.
    pub(crate) fn batch(&self, id: &str) -> Result<BatchObject, StoreError> {
        Ok(self.batch_record(id)?.batch)
    }

    pub(super) fn batch_record(&self, id: &str) -> Result<BatchRecord, StoreError> {
        let known = is_batch_id(id).then(|| self.state().batches.get(id).cloned()).flatten();
        known.ok_or(StoreError::Unknown)
    }

    /// A page of the batches, and whether there are more.
    pub(crate) fn batches(&self, paging: &Paging) -> Result<(Vec<BatchObject>, bool), StoreError> {
        let state = self.state();
        let unknown = || StoreError::UnknownCursor(paging.after.clone().unwrap_or_default());
        let (page, more) = state.batches.page(paging, |_| true).ok_or_else(unknown)?;
        Ok((page.into_iter().map(|record| record.batch.clone()).collect(), more))
    }

    /// Asks for the end of a batch; requests under way are still answered.
    pub(crate) fn cancel_batch(&self, id: &str) -> Result<BatchObject, StoreError> {
        let batch = self.batch(id)?;
        let batch = self.update(&batch.id, |record| {
            let batch = &mut record.batch;
            match batch.status {
                status if status.ended() => Err(StoreError::Ended(status.name())),
                BatchStatus::Cancelling => Ok(batch.clone()),
                // All has been answered; only the files are missing.
                status if record.ending.is_some() => Err(StoreError::Ended(status.name())),
                _ => {
                    batch.status = BatchStatus::Cancelling;
                    batch.cancelling_at = Some(now());
                    Ok(batch.clone())
                }
            }
        })?;
        self.changed.send_replace(());
        Ok(batch)
    }

    /// Tells of batches that came or should stop.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The batches that should now be worked on, besides those that are. What only needs to end waits for nobody.
    pub(super) fn due(&self, running: &HashSet<String>) -> Vec<String> {
        let state = self.state();
        let mut free = self.options.batches_running_max.max(1).saturating_sub(running.len());
        let waiting = state.batches.iter().filter(|record| !record.batch.status.ended());
        let waiting = waiting.filter(|record| !running.contains(&record.batch.id));
        let due = waiting.filter(|record| {
            let ends = record.ending.is_some() || record.batch.status == BatchStatus::Cancelling;
            let begins = !ends && free > 0;
            free -= usize::from(begins);
            ends || begins
        });
        due.map(|record| record.batch.id.clone()).collect()
    }

    /// Where the requests of a batch lie, and its answers and errors so far.
    pub(super) fn paths(&self, batch: &BatchObject) -> [PathBuf; 3] {
        let own = |end| self.batch_path(&batch.id, end);
        [self.data_path(&batch.input_file_id), own(OUTPUT), own(ERRORS)]
    }

    /// Whether a batch should go on.
    pub(super) fn goes_on(&self, id: &str) -> bool {
        let state = self.state();
        state.batches.get(id).is_some_and(|record| record.batch.status == BatchStatus::InProgress)
    }

    /// The requests of a batch are what they should be. A batch that should stop stays so.
    pub(super) fn begin_batch(&self, id: &str, total: usize, model: Option<String>) -> Result<(), StoreError> {
        self.update(id, |record| {
            let batch = &mut record.batch;
            batch.request_counts.total = total;
            batch.model = model;
            if batch.status == BatchStatus::Validating {
                batch.status = BatchStatus::InProgress;
                batch.in_progress_at = Some(now());
                batch.usage = Some(BatchUsage::default());
            }
            Ok(())
        })
    }

    /// How far a batch is; kept in mind only, since the answers tell it again.
    pub(super) fn count(&self, id: &str, completed: usize, failed: usize, usage: BatchUsage) {
        if let Some(record) = self.state().batches.get_mut(id) {
            let total = record.batch.request_counts.total;
            record.batch.request_counts = RequestCounts { total, completed, failed };
            record.batch.usage = Some(usage);
        }
    }

    /// Ends a batch: its answers become files. Can be done again where it was interrupted.
    pub(super) fn end_batch(&self, id: &str, ending: BatchStatus, errors: Vec<BatchError>) -> Result<(), StoreError> {
        let record = self.update(id, |record| {
            let batch = &mut record.batch;
            if !errors.is_empty() {
                batch.errors = Some(BatchErrors { object: ObjectKind::List, data: errors });
            }
            record.ending = Some(ending);
            if matches!(ending, BatchStatus::Completed | BatchStatus::Expired) {
                batch.status = BatchStatus::Finalizing;
                batch.finalizing_at.get_or_insert(now());
            }
            Ok(record.clone())
        })?;
        let output = self.answers_to_file(&record, OUTPUT, &record.output_id, "output")?;
        let error = self.answers_to_file(&record, ERRORS, &record.error_id, "error")?;
        self.update(id, |record| {
            record.batch.output_file_id = output;
            record.batch.error_file_id = error;
            end(&mut record.batch, ending);
            Ok(())
        })?;
        self.changed.send_replace(());
        Ok(())
    }

    /// What a batch has written becomes a file of its own; the file's name, unless there is nothing.
    fn answers_to_file(
        &self,
        record: &BatchRecord,
        end: &str,
        file_id: &str,
        kind: &str,
    ) -> Result<Option<String>, StoreError> {
        let (batch, data) = (&record.batch, self.data_path(file_id));
        let written = self.batch_path(&batch.id, end);
        match File::options().append(true).open(&written) {
            Ok(file) if file.metadata()?.len() == 0 => disk::remove(&written)?,
            Ok(file) => {
                file.sync_all()?;
                drop(file);
                disk::rename(&written, &data)?;
            }
            // It never was, or an earlier try has moved it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(disk::at(&written, &error).into()),
        }
        let mut state = self.state();
        if state.files.get(file_id).is_some() {
            return Ok(Some(file_id.into()));
        }
        let bytes = match data.metadata() {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(disk::at(&data, &error).into()),
        };
        let created_at = now();
        let file = FileObject {
            id: file_id.into(),
            object: ObjectKind::File,
            bytes,
            created_at,
            expires_at: Some(created_at.saturating_add(record.output_expires_s)),
            filename: format!("{}_{kind}.jsonl", batch.id),
            purpose: Purpose::BatchOutput,
            status: FileStatus::Processed,
        };
        self.add_file(&mut state, file)?;
        if let Some(held) = state.held.get_mut(&batch.id) {
            *held = held.saturating_sub(bytes);
        }
        Ok(Some(file_id.into()))
    }

    /// Ends a batch that the disk does not let end: it is over in mind, and on disk if that can be.
    pub(super) fn give_up(&self, id: &str, error: &StoreError) {
        let errors = vec![BatchError::new("server_error", error.to_string())];
        let _ = self.update(id, |record| {
            record.batch.errors = Some(BatchErrors { object: ObjectKind::List, data: errors });
            end(&mut record.batch, BatchStatus::Failed);
            Ok(())
        });
        self.changed.send_replace(());
    }

    /// Changes a batch in mind and on disk.
    fn update<T>(
        &self,
        id: &str,
        change: impl FnOnce(&mut BatchRecord) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut state = self.state();
        let record = state.batches.get_mut(id).ok_or(StoreError::Unknown)?;
        let outcome = change(record)?;
        let ended = record.batch.status.ended();
        let written = disk::write_json(&self.batch_path(id, RECORD), record);
        if ended {
            state.held.remove(id);
        }
        written?;
        Ok(outcome)
    }

    /// Changes a batch as time would, for tests.
    #[cfg(test)]
    pub(crate) fn age_batch(&self, id: &str) {
        self.update(id, |record| {
            record.batch.expires_at = 1;
            Ok(())
        })
        .unwrap();
    }
}

fn end(batch: &mut BatchObject, ending: BatchStatus) {
    batch.status = ending;
    let time = match ending {
        BatchStatus::Completed => &mut batch.completed_at,
        BatchStatus::Expired => &mut batch.expired_at,
        BatchStatus::Cancelled => &mut batch.cancelled_at,
        _ => &mut batch.failed_at,
    };
    *time = Some(now());
}
