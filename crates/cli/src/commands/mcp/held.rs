//! Models that are held ready for the next call, the ones that were asked last. Knows no tool.

use narthex_base::{Digest, Error, Result};
use narthex_infer::EncoderOptions;
use narthex_shelf::{
    KV_CACHE_MEMORY_SHARE, Purpose, Ready, ReadyEncoder, ReadyOptions, ReadyText, Shelf, WeightForm, kv_cache_bytes,
};
use std::sync::{Arc, Mutex, PoisonError};

/// Models held at once; the one that was asked longest ago makes room.
const HELD_MAX: usize = 2;

/// A model as it was opened: the version that its name stood for, and its engine.
type Opened = (Digest, Arc<Ready>);

/// The models that were asked last, the last one at the end.
#[derive(Default)]
pub struct Held(Mutex<Vec<Opened>>);

impl Held {
    /// The model that a reference stands for now, loaded if it is not here yet. One is loaded at a time.
    ///
    /// # Errors
    /// If there is no such model, the policy is against it, or its files are broken.
    pub fn get(&self, shelf: &Shelf, reference: &str, purpose: Purpose) -> Result<Arc<Ready>> {
        let unknown = || Error::input(format!("`{reference}` is not in the project's ledger"));
        let version = shelf.version(reference)?.ok_or_else(unknown)?;
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = held.iter().position(|(digest, _)| *digest == version);
        let opened = match found {
            Some(index) => held.remove(index),
            None => {
                // What is held makes room before another is loaded, unless a call still uses it.
                let more = (held.len() + 1).saturating_sub(HELD_MAX);
                held.drain(..more);
                (version, Arc::new(open(shelf, reference, purpose)?))
            }
        };
        held.push(opened.clone());
        Ok(opened.1)
    }
}

fn open(shelf: &Shelf, reference: &str, purpose: Purpose) -> Result<Ready> {
    let opened = shelf.model(reference, purpose)?.permitted()?;
    if opened.is_encoder() {
        let ready: ReadyEncoder = opened.encoder(None)?.start(&EncoderOptions::default())?;
        ready.notes.iter().for_each(|note| noteln!("warning: {note}"));
        return Ok(Ready::Encoder(Box::new(ready)));
    }
    let mut engine = ReadyOptions::default().engine;
    engine.kv_cache_bytes = kv_cache_bytes(KV_CACHE_MEMORY_SHARE / HELD_MAX as f64);
    let ready: ReadyText = opened.generator(WeightForm::Packed(None))?.start(engine)?;
    ready.notes.iter().for_each(|note| noteln!("warning: {note}"));
    Ok(Ready::Text(Box::new(ready)))
}
