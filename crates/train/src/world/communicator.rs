//! How ranks send each other bytes: one operation, an exchange of messages between all of them, of which the others are
//! made. Each message says which operation it belongs to, so that ranks that have parted are told so.

use narthex_base::{Error, Result};
use std::fmt;

/// What an exchange is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Operation {
    /// Ranks find each other and compare what they run.
    Meet = 1,
    /// A number of every rank, at every rank.
    Gather = 2,
    /// What rank 0 says, at every rank.
    Tell = 3,
    /// Parts of gradients, each to the rank that adds it.
    Reduce = 4,
    /// What each rank has added, at every rank.
    Share = 5,
    /// A rank has failed: the message says why.
    Abort = 6,
}

impl Operation {
    const ALL: [Self; 6] = [Self::Meet, Self::Gather, Self::Tell, Self::Reduce, Self::Share, Self::Abort];

    fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| *operation as u8 == number)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Meet => "meet",
            Self::Gather => "gather",
            Self::Tell => "tell",
            Self::Reduce => "reduce",
            Self::Share => "share",
            Self::Abort => "abort",
        })
    }
}

/// One of several ranks, and how it sends them bytes. All ranks make the same exchanges in the same order.
pub trait Communicator: Send + Sync {
    /// The number of this rank, from 0.
    fn rank(&self) -> usize;

    /// How many ranks there are.
    fn size(&self) -> usize;

    /// Sends each rank its message, and gives those of all ranks, in their order; a rank's message to itself comes
    /// back.
    ///
    /// # Errors
    /// If a rank has gone, is silent for too long, has failed, or makes another exchange: it is named.
    fn exchange(&self, operation: Operation, messages: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>>;

    /// Tells the others that this rank has failed, and why, as far as they can be reached.
    fn abort(&self, why: &str);

    /// Bytes sent to others so far.
    fn bytes_sent(&self) -> u64;
}

/// What stands before each message: the number of the exchange, its operation, the bytes that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) sequence: u64,
    pub(super) operation: Operation,
    pub(super) bytes: u64,
}

impl Header {
    pub(super) const BYTES: usize = 17;

    pub(super) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[8] = self.operation as u8;
        bytes[9..].copy_from_slice(&self.bytes.to_le_bytes());
        bytes
    }

    pub(super) fn of_bytes(bytes: [u8; Self::BYTES]) -> Option<Self> {
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        Some(Self { sequence: number(0), operation: Operation::of_number(bytes[8])?, bytes: number(9) })
    }
}

/// Where a rank stands, for messages.
pub(super) fn place(operation: Operation, sequence: u64) -> String {
    format!("{operation} number {sequence}")
}

/// Ranks whose paths have parted.
pub(super) fn parted(rank: usize, theirs: Header, own: Header) -> Error {
    Error::internal(format!(
        "rank {rank} is at {}, and this rank at {}",
        place(theirs.operation, theirs.sequence),
        place(own.operation, own.sequence)
    ))
}

/// A rank that has ended without a word.
pub(super) fn gone(rank: usize, operation: Operation, sequence: u64) -> Error {
    Error::input(format!("rank {rank} has gone, in {}", place(operation, sequence)))
        .help("its log says why; run the same command again: training goes on from its checkpoint")
}

/// A rank that says that it has failed.
pub(super) fn failed(rank: usize, why: &[u8]) -> Error {
    Error::input(format!("rank {rank} has failed")).cause(String::from_utf8_lossy(why))
}
