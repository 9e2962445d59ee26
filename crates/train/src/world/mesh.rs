//! A communicator over links: to each other rank a queue of what is to be sent, and from it one of what has come. Who
//! fills and empties them (threads over sockets, or over MPI) is not its business; order, patience and who is to blame
//! are.

use super::communicator::{Communicator, Header, Message, Operation, Pending, Traffic, failed, gone, parted, place};
use narthex_base::{Error, Result};
use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How often a rank that has nothing to send says that it is there.
pub(super) const ALIVE_EVERY: Duration = Duration::from_secs(5);

/// How long nothing comes from a rank before it is taken for stopped: then it does not even say that it is there.
pub(super) const SILENCE: Duration = Duration::from_secs(20);

/// The sequence number of a message that belongs to no exchange.
pub(super) const ASIDE: u64 = u64::MAX;

/// The largest message, which no gradient exceeds: a larger number is none that a rank has sent.
pub(super) const MESSAGE_BYTES_MAX: u64 = 1 << 40;

/// What is sent.
pub(super) type Outgoing = (Header, Message);

/// What comes: a message, or why there are no more.
pub(super) type Incoming = std::result::Result<(Header, Message), Lost>;

/// Why nothing more comes from a rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// Its process has ended.
    Gone,
    /// Its process does not run.
    Silent,
    /// What came is no message.
    Garbled,
}

/// That a rank is there, and nothing else.
pub(super) fn alive() -> Outgoing {
    (Header { sequence: ASIDE, operation: Operation::Gather, bytes: 0 }, Message::default())
}

/// The queues to and from another rank.
pub(super) struct Link {
    pub(super) to: Sender<Outgoing>,
    pub(super) from: Receiver<Incoming>,
}

/// A rank and its links.
pub struct Mesh {
    rank: usize,
    /// To the other ranks; none in the place of this one.
    to: Vec<Option<Sender<Outgoing>>>,
    inbox: Mutex<Inbox>,
    sequence: AtomicU64,
    sent: AtomicU64,
    waited_nanoseconds: AtomicU64,
    /// How long another rank may work between two messages.
    patience: Duration,
    engine: String,
    /// What is still to be sent goes out before these end.
    threads: Vec<JoinHandle<()>>,
}

struct Inbox {
    from: Vec<Option<Receiver<Incoming>>>,
    /// Messages of exchanges that have begun, and whose turn to be received has not come.
    early: HashMap<(usize, u64), (Header, Message)>,
    /// Why nothing more comes from a rank.
    lost: Vec<Option<Lost>>,
}

impl Mesh {
    pub(super) fn new(
        rank: usize,
        links: Vec<Option<Link>>,
        patience: Duration,
        engine: impl Into<String>,
        threads: Vec<JoinHandle<()>>,
    ) -> Self {
        let lost = vec![None; links.len()];
        let (to, from) = links.into_iter().map(|link| link.map(|link| (link.to, link.from)).unzip()).unzip();
        Self {
            rank,
            to,
            inbox: Mutex::new(Inbox { from, early: HashMap::new(), lost }),
            sequence: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            waited_nanoseconds: AtomicU64::new(0),
            patience,
            engine: engine.into(),
            threads,
        }
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The message of a rank that belongs to an exchange.
    fn receive(&self, inbox: &mut Inbox, rank: usize, pending: &Pending) -> Result<Message> {
        let Pending { sequence, operation, .. } = *pending;
        let own = Header { sequence, operation, bytes: 0 };
        let deadline = Instant::now() + self.patience;
        let (header, message) = loop {
            if let Some(early) = inbox.early.remove(&(rank, sequence)) {
                break early;
            }
            let Some(from) = &inbox.from[rank] else { return Err(gone(rank, operation, sequence)) };
            let incoming = match inbox.lost[rank] {
                Some(lost) => Err(lost),
                None => match from.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                    Ok(incoming) => incoming,
                    Err(RecvTimeoutError::Disconnected) => Err(Lost::Gone),
                    Err(RecvTimeoutError::Timeout) => return Err(self.late(rank, own)),
                },
            };
            match incoming {
                Ok((header, message)) if header.operation == Operation::Abort => {
                    return Err(failed(rank, message.bytes()));
                }
                Ok((header, _)) if header.sequence == ASIDE => {}
                Ok((header, message)) => _ = inbox.early.insert((rank, header.sequence), (header, message)),
                Err(lost) => {
                    inbox.lost[rank] = Some(lost);
                    return Err(match lost {
                        Lost::Gone => gone(rank, operation, sequence),
                        Lost::Garbled => Error::internal(format!("rank {rank} sent no message")),
                        Lost::Silent => Error::input(format!(
                            "rank {rank} does not answer, in {}: its process has stopped, or its host cannot be reached",
                            place(operation, sequence)
                        )),
                    });
                }
            }
        };
        if header.operation == operation { Ok(message) } else { Err(parted(rank, header, own)) }
    }

    fn late(&self, rank: usize, own: Header) -> Error {
        let (seconds, at) = (self.patience.as_secs(), place(own.operation, own.sequence));
        Error::input(format!("rank {rank} has sent nothing for {seconds} s, in {at}"))
            .help("if its work takes that long, raise `--rank-timeout`")
    }
}

impl Communicator for Mesh {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.to.len()
    }

    fn engine(&self) -> String {
        self.engine.clone()
    }

    fn begin(&self, operation: Operation, messages: Vec<Message>) -> Result<Pending> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let mut pending = Pending { sequence, operation, own: Message::default() };
        for (rank, (to, message)) in self.to.iter().zip(messages).enumerate() {
            let Some(to) = to else {
                pending.own = message;
                continue;
            };
            let header = Header { sequence, operation, bytes: message.len() as u64 };
            self.sent.fetch_add(header.bytes, Ordering::Relaxed);
            if to.send((header, message)).is_err() {
                // What it said last is why, or it has just gone.
                let said = self.receive(&mut self.inbox(), rank, &pending).err();
                return Err(said.unwrap_or_else(|| gone(rank, operation, sequence)));
            }
        }
        Ok(pending)
    }

    fn finish(&self, pending: Pending) -> Result<Vec<Message>> {
        let (mut inbox, begun) = (self.inbox(), Instant::now());
        let received = (0..self.size()).map(|rank| match rank == self.rank {
            true => Ok(pending.own.clone()),
            false => self.receive(&mut inbox, rank, &pending),
        });
        let received = received.collect();
        self.waited_nanoseconds.fetch_add(begun.elapsed().as_nanos() as u64, Ordering::Relaxed);
        received
    }

    fn abort(&self, why: &str) {
        let header = Header { sequence: ASIDE, operation: Operation::Abort, bytes: why.len() as u64 };
        let message = Message::new(why.as_bytes().to_vec());
        // Those who have gone need not know.
        self.to.iter().flatten().for_each(|to| _ = to.send((header, message.clone())));
    }

    fn traffic(&self) -> Traffic {
        let waited_seconds = self.waited_nanoseconds.load(Ordering::Relaxed) as f64 / 1e9;
        Traffic { sent_bytes: self.sent.load(Ordering::Relaxed), waited_seconds }
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.to.clear();
        self.threads.drain(..).for_each(|thread| _ = thread.join());
    }
}
