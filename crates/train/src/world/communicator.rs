//! How ranks send each other bytes: one operation, an exchange of messages between all of them, of which the others are
//! made. Each message says which operation it belongs to, so that ranks that have parted are told so.

use narthex_base::{Error, Result};
use std::{
    fmt,
    ops::Range,
    sync::{Arc, OnceLock},
};

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
    /// Parameters for rank 0 alone.
    Collect = 7,
    /// A rank has nothing more to say.
    End = 8,
}

impl Operation {
    const ALL: [Self; 8] =
        [Self::Meet, Self::Gather, Self::Tell, Self::Reduce, Self::Share, Self::Abort, Self::Collect, Self::End];

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
            Self::Collect => "collect",
            Self::End => "end",
        })
    }
}

/// Bytes in the order of a machine's numbers: values go out as they lie in memory.
const _: () = assert!(cfg!(target_endian = "little"), "messages are little-endian");

/// What ranks send each other: bytes that need not lie together, so that nothing is copied to be sent.
#[derive(Clone, Default)]
pub struct Message(Arc<Segments>);

#[derive(Default)]
struct Segments {
    list: Vec<Segment>,
    joined: OnceLock<Vec<u8>>,
}

/// A range of bytes that others may hold too.
#[derive(Clone)]
pub struct Segment {
    bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
}

impl Segment {
    /// These bytes of all.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn new(bytes: Arc<dyn AsRef<[u8]> + Send + Sync>, range: Range<usize>) -> Self {
        assert!(range.end <= (*bytes).as_ref().len(), "a segment of bytes that are not there");
        Self { bytes, range }
    }

    fn bytes(&self) -> &[u8] {
        &(*self.bytes).as_ref()[self.range.clone()]
    }
}

impl Message {
    /// Bytes that lie together.
    pub fn new(bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        Self::of(vec![Segment::new(Arc::new(bytes), 0..len)])
    }

    /// Bytes that follow each other.
    pub fn of(list: Vec<Segment>) -> Self {
        Self(Arc::new(Segments { list, joined: OnceLock::new() }))
    }

    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.0.list.iter().map(|segment| segment.range.len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, where they lie.
    pub fn segments(&self) -> impl Iterator<Item = &[u8]> {
        self.0.list.iter().map(Segment::bytes)
    }

    /// The bytes together.
    pub fn bytes(&self) -> &[u8] {
        match &self.0.list[..] {
            [one] => one.bytes(),
            _ => self.0.joined.get_or_init(|| self.segments().collect::<Vec<_>>().concat()),
        }
    }
}

/// An exchange that has begun: what is to be sent is on its way.
#[must_use = "what others have sent is still to be received"]
pub struct Pending {
    pub(super) sequence: u64,
    pub(super) operation: Operation,
    /// This rank's message to itself.
    pub(super) own: Message,
}

impl Pending {
    /// What the exchange is for.
    pub fn operation(&self) -> Operation {
        self.operation
    }
}

/// What has gone over a communicator.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Traffic {
    /// Bytes sent to others, without the headers of messages.
    pub sent_bytes: u64,
    /// Seconds spent waiting for others.
    pub waited_seconds: f64,
}

/// One of several ranks, and how it sends them bytes. All ranks begin the same exchanges in the same order.
pub trait Communicator: Send + Sync {
    /// The number of this rank, from 0.
    fn rank(&self) -> usize;

    /// How many ranks there are.
    fn size(&self) -> usize;

    /// What moves the bytes, for people: `sockets`, `TCP`, `Open MPI 5.0`.
    fn engine(&self) -> String;

    /// Begins to send each rank its message.
    ///
    /// # Errors
    /// If a rank has gone, or has failed: it is named.
    fn begin(&self, operation: Operation, messages: Vec<Message>) -> Result<Pending>;

    /// The messages of all ranks of an exchange, in the order of ranks; a rank's message to itself comes back.
    ///
    /// # Errors
    /// If a rank has gone, is silent for too long, has failed, or makes another exchange: it is named.
    fn finish(&self, pending: Pending) -> Result<Vec<Message>>;

    /// Both at once.
    ///
    /// # Errors
    /// As [`Communicator::finish`].
    fn exchange(&self, operation: Operation, messages: Vec<Message>) -> Result<Vec<Message>> {
        self.finish(self.begin(operation, messages)?)
    }

    /// Tells the others that this rank has failed, and why, as far as they can be reached.
    fn abort(&self, why: &str);

    /// What has gone over it so far.
    fn traffic(&self) -> Traffic;
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
