//! What all engines have in common: a thread that takes messages, the handle on it, and the form in which requests go
//! in. Knows neither models nor what a message says.

use crate::{EngineStats, SubmitError, stats::Shared};
use narthex_base::{Error, Result};
use narthex_kernels::team::Team;
use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

/// Reads counters, also those of an engine that is gone.
pub type StatsReader = Arc<dyn Fn() -> EngineStats + Send + Sync>;

/// What takes requests of one kind and answers into sinks: an engine, or a script in its place.
pub trait Takes<Request, Sink>: Send + Sync + 'static {
    /// Takes a request; what it yields reaches `sink` from another thread.
    ///
    /// # Errors
    /// If the request cannot be run, too many wait or the engine stopped.
    fn submit(&self, request: Request, sink: Sink) -> Result<Ticket, SubmitError>;

    /// Reads the counters since the start, without keeping the engine.
    fn stats_reader(&self) -> StatsReader;

    /// Counters since the start.
    fn stats(&self) -> EngineStats {
        self.stats_reader()()
    }

    /// Tokens that a sequence may have.
    fn context(&self) -> usize;
}

/// A request in an engine. Dropping it says that nobody wants what has not come yet.
#[must_use = "dropping the ticket cancels the request"]
pub struct Ticket(Option<Box<dyn FnOnce() + Send + Sync>>);

impl Ticket {
    /// Does this when it is dropped.
    pub fn new(cancel: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(cancel)))
    }

    /// For a request that nothing can cancel.
    pub fn idle() -> Self {
        Self(None)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(cancel) = self.0.take() {
            cancel();
        }
    }
}

/// A handle on an engine's thread, which ends with its last handle.
pub(crate) struct Handle<Message> {
    messages: Sender<Message>,
    pub(crate) shared: Arc<Shared>,
}

impl<Message> Clone for Handle<Message> {
    fn clone(&self) -> Self {
        Self { messages: self.messages.clone(), shared: self.shared.clone() }
    }
}

impl<Message: Send + 'static> Handle<Message> {
    /// Starts a thread of this name that works as the leader of a team.
    ///
    /// # Errors
    /// If the system gives the process no more threads.
    pub(crate) fn start(
        name: &str,
        team: io::Result<Team>,
        shared: Arc<Shared>,
        work: impl FnOnce(&Receiver<Message>) + Send + 'static,
    ) -> Result<Self> {
        let no_more = |error: io::Error| {
            Error::input("the system gives this process no more threads")
                .cause(error)
                .help("ask for fewer with `--threads 1`, end other programs, or raise the limit: `ulimit -u` shows it")
        };
        let team = team.map_err(no_more)?;
        let (messages, incoming) = channel();
        let thread = thread::Builder::new().name(name.into());
        thread.spawn(move || team.enter(|| work(&incoming))).map_err(no_more)?;
        Ok(Self { messages, shared })
    }

    /// Sends a request, which waits until the thread says that it is taken.
    ///
    /// # Errors
    /// If the thread has ended.
    pub(crate) fn request(&self, message: Message) -> Result<(), SubmitError> {
        self.shared.queued();
        self.messages.send(message).map_err(|_| {
            self.shared.taken();
            SubmitError::Stopped
        })
    }

    /// A ticket that sends this message when it is dropped.
    pub(crate) fn ticket(&self, cancel: impl FnOnce() -> Message + Send + Sync + 'static) -> Ticket {
        let messages = self.messages.clone();
        // If the engine has ended, so has the request.
        Ticket::new(move || _ = messages.send(cancel()))
    }

    pub(crate) fn stats_reader(&self) -> StatsReader {
        let shared = self.shared.clone();
        Arc::new(move || shared.stats())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_cannot_be_started_is_an_error() {
        let none = Err(io::Error::from(io::ErrorKind::WouldBlock));
        let error = Handle::<()>::start("none", none, Arc::default(), |_| {}).err().unwrap();
        assert_eq!(error.what(), "the system gives this process no more threads");
        assert!(error.help_text().unwrap().contains("--threads 1"), "{error}");
    }

    #[test]
    fn a_ticket_cancels_once_and_what_is_sent_to_nobody_does_not_wait() {
        let (seen, told) = channel();
        drop(Ticket::new(move || seen.send(()).unwrap()));
        assert_eq!(told.iter().count(), 1);
        let handle = Handle::<()>::start("brief", Team::new(1, false), Arc::default(), |_| {}).unwrap();
        while handle.messages.send(()).is_ok() {
            thread::yield_now();
        }
        assert_eq!(handle.request(()), Err(SubmitError::Stopped));
        assert_eq!(handle.shared.stats().requests_waiting, 0);
    }
}
