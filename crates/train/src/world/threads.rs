//! Ranks that are threads of one process: for tests, and to see what several processes would do.

use super::communicator::{Communicator, Header, Operation, failed, gone, parted};
use narthex_base::Result;
use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
    mpsc::{Receiver, Sender, channel},
};

/// A message with what stands before it.
type Sent = (Header, Vec<u8>);

/// A rank that is a thread.
pub struct Threads {
    rank: usize,
    /// To each rank, and from each.
    to: Vec<Sender<Sent>>,
    from: Vec<Mutex<Receiver<Sent>>>,
    sequence: AtomicU64,
    sent: AtomicU64,
}

impl Threads {
    /// So many ranks, each for a thread of its own.
    pub fn new(size: usize) -> Vec<Self> {
        let mut ranks: Vec<Self> = (0..size)
            .map(|rank| Self { rank, to: vec![], from: vec![], sequence: AtomicU64::new(0), sent: AtomicU64::new(0) })
            .collect();
        for from in 0..size {
            for to in 0..size {
                let (sender, receiver) = channel();
                ranks[from].to.push(sender);
                ranks[to].from.push(Mutex::new(receiver));
            }
        }
        ranks
    }
}

impl Communicator for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.to.len()
    }

    fn exchange(&self, operation: Operation, messages: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let own = |bytes: &[u8]| Header { sequence, operation, bytes: bytes.len() as u64 };
        for (rank, message) in messages.into_iter().enumerate() {
            self.sent.fetch_add(if rank == self.rank { 0 } else { message.len() as u64 }, Ordering::Relaxed);
            self.to[rank].send((own(&message), message)).map_err(|_| gone(rank, operation, sequence))?;
        }
        let received = self.from.iter().enumerate().map(|(rank, from)| {
            let from = from.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let (header, message) = from.recv().map_err(|_| gone(rank, operation, sequence))?;
            match header.operation {
                Operation::Abort => Err(failed(rank, &message)),
                _ if (header.sequence, header.operation) != (sequence, operation) => {
                    Err(parted(rank, header, own(&message)))
                }
                _ => Ok(message),
            }
        });
        received.collect()
    }

    fn abort(&self, why: &str) {
        let header = Header { sequence: 0, operation: Operation::Abort, bytes: why.len() as u64 };
        // Those who have gone need not know.
        self.to.iter().for_each(|to| _ = to.send((header, why.into())));
    }

    fn bytes_sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}
