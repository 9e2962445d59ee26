//! The seam between HTTP and tokens: what a server needs from an engine. Knows no text.

use narthex_base::{Error, Result};
use narthex_infer::{Adapter, Engine, EngineStats, Output, Request, SubmitError};
use std::{any::Any, path::Path, sync::Arc};

/// Receives what a sequence yields, in order; returns `false` when nobody wants the rest.
pub type Sink = Box<dyn FnMut(Output) -> bool + Send>;

/// A sequence in hand; dropping it says that nobody wants the rest.
pub type Ticket = Box<dyn Any + Send + Sync>;

/// Reads counters, also those of a generator that is gone.
pub type Counters = Arc<dyn Fn() -> EngineStats + Send + Sync>;

/// Something that continues sequences of tokens: the engine, or a script in tests.
pub trait Generator: Send + Sync + 'static {
    /// Takes a sequence; its tokens reach `sink` from another thread.
    ///
    /// # Errors
    /// If the sequence does not fit, its ids are unknown, the queue is full or the engine stopped.
    fn submit(&self, request: Request, sink: Sink) -> std::result::Result<Ticket, SubmitError>;

    /// Reads the counters since the start, without keeping the generator.
    fn counters(&self) -> Counters;

    /// Counters since the start.
    fn stats(&self) -> EngineStats {
        self.counters()()
    }

    /// Tokens that prompt and answer may have together.
    fn context(&self) -> usize;

    /// Reads an adapter for the model.
    ///
    /// # Errors
    /// If it cannot be read or does not fit.
    fn adapter(&self, folder: &Path) -> Result<Arc<Adapter>> {
        Err(Error::input("this model takes no adapters").at(folder.display(), None))
    }
}

impl Generator for Engine {
    fn submit(&self, request: Request, sink: Sink) -> std::result::Result<Ticket, SubmitError> {
        Ok(Box::new(Engine::submit(self, request, sink)?))
    }

    fn counters(&self) -> Counters {
        Arc::new(self.counters())
    }

    fn context(&self) -> usize {
        Engine::context(self)
    }

    fn adapter(&self, folder: &Path) -> Result<Arc<Adapter>> {
        Ok(Arc::new(Engine::adapter(self, folder)?))
    }
}
