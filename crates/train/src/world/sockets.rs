//! Ranks that are processes of one machine, over Unix sockets in a folder that only their user may enter. Each pair of
//! ranks has one socket, whose writing side is a thread's: nobody waits to send while the others wait for him.

use super::communicator::{Communicator, Header, Operation, failed, gone, parted, place};
use narthex_base::{Error, Result};
use std::{
    io::{self, ErrorKind, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How often a rank that has nothing to send says that it is there.
const ALIVE_EVERY: Duration = Duration::from_secs(5);

/// Time for all ranks to have started.
const MEETING: Duration = Duration::from_secs(120);

/// Time between two tries to reach a rank that has not started yet.
const RETRY: Duration = Duration::from_millis(20);

/// The sequence number of a message that only says that its sender is there.
const ALIVE: u64 = u64::MAX;

/// The largest message, which no gradient exceeds: a larger number is none that a rank has sent.
const MESSAGE_BYTES_MAX: u64 = 1 << 40;

/// A rank that is a process.
pub struct Sockets {
    rank: usize,
    /// The other ranks; none in the place of this one.
    peers: Vec<Option<Peer>>,
    sequence: AtomicU64,
    sent: AtomicU64,
    /// How long another rank may work between two messages.
    patience: Duration,
}

struct Peer {
    reader: Mutex<UnixStream>,
    writer: Option<Sender<Outgoing>>,
    thread: Option<JoinHandle<()>>,
}

type Outgoing = (Header, Arc<Vec<u8>>);

impl Sockets {
    /// Meets the other ranks in a folder, which must be the same for all of them. A rank that lets the others wait for
    /// longer than `patience` is named, and so is one that has stopped.
    ///
    /// # Errors
    /// If they are not there in two minutes, or the folder cannot be used.
    pub fn meet(folder: &Path, rank: usize, size: usize, patience: Duration) -> Result<Self> {
        let at = |rank: usize| folder.join(format!("rank-{rank}"));
        let fail = |path: &Path, error| Error::io("cannot listen at", path, error);
        let own = at(rank);
        let listener = UnixListener::bind(&own).map_err(|error| fail(&own, error))?;
        listener.set_nonblocking(true).map_err(|error| fail(&own, error))?;
        let deadline = Instant::now() + MEETING;
        let mut streams: Vec<Option<UnixStream>> = (0..size).map(|_| None).collect();
        for (lower, place) in streams.iter_mut().enumerate().take(rank) {
            let mut stream = reach(&at(lower), lower, deadline)?;
            stream.write_all(&(rank as u64).to_le_bytes()).map_err(|_| gone(lower, Operation::Meet, 0))?;
            *place = Some(stream);
        }
        while let Some(missing) = (rank + 1..size).find(|higher| streams[*higher].is_none()) {
            match listener.accept() {
                Ok((mut stream, _)) => {
                    stream.set_nonblocking(false).map_err(|error| fail(&own, error))?;
                    let mut number = [0; 8];
                    stream.read_exact(&mut number).map_err(|error| fail(&own, error))?;
                    let number = u64::from_le_bytes(number) as usize;
                    if number <= rank || number >= size || streams[number].is_some() {
                        return Err(Error::internal(format!("a rank {number} came, which is not expected")));
                    }
                    streams[number] = Some(stream);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if Instant::now() > deadline {
                        return Err(late(missing));
                    }
                    std::thread::sleep(RETRY);
                }
                Err(error) => return Err(fail(&own, error)),
            }
        }
        let peers = streams.into_iter().map(|stream| stream.map(|stream| Peer::new(stream, &own)).transpose());
        let peers = peers.collect::<Result<_>>()?;
        Ok(Self { rank, peers, sequence: AtomicU64::new(0), sent: AtomicU64::new(0), patience })
    }

    /// The next message of a rank.
    fn receive(&self, rank: usize, peer: &Peer, own: Header) -> Result<Vec<u8>> {
        let mut reader = peer.reader.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let lost = |error: io::Error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Error::input(format!(
                "rank {rank} does not answer, in {}: its process has stopped",
                place(own.operation, own.sequence)
            )),
            _ => gone(rank, own.operation, own.sequence),
        };
        let begun = Instant::now();
        loop {
            let mut bytes = [0; Header::BYTES];
            reader.read_exact(&mut bytes).map_err(lost)?;
            let header = Header::of_bytes(bytes).filter(|header| header.bytes <= MESSAGE_BYTES_MAX);
            let header = header.ok_or_else(|| Error::internal(format!("rank {rank} sent no message")))?;
            if header.sequence == ALIVE && header.operation != Operation::Abort {
                if begun.elapsed() > self.patience {
                    return Err(Error::input(format!(
                        "rank {rank} has sent nothing for {} s, in {}",
                        self.patience.as_secs(),
                        place(own.operation, own.sequence)
                    ))
                    .help("if its work takes that long, raise `--rank-timeout`"));
                }
                continue;
            }
            let mut message = vec![0; header.bytes as usize];
            reader.read_exact(&mut message).map_err(lost)?;
            return match header.operation {
                Operation::Abort => Err(failed(rank, &message)),
                _ if (header.sequence, header.operation) != (own.sequence, own.operation) => {
                    Err(parted(rank, header, own))
                }
                _ => Ok(message),
            };
        }
    }
}

impl Peer {
    fn new(stream: UnixStream, own: &Path) -> Result<Self> {
        let fail = |error| Error::io("cannot use", own, error);
        // A process that has stopped does not even say that it is there.
        stream.set_read_timeout(Some(4 * ALIVE_EVERY)).map_err(fail)?;
        let (writing, (sender, outgoing)) = (stream.try_clone().map_err(fail)?, channel());
        let thread = std::thread::Builder::new().name("to-rank".into()).spawn(move || write_all(writing, &outgoing));
        let thread = thread.map_err(|error| Error::internal("cannot start a thread").cause(error))?;
        Ok(Self { reader: Mutex::new(stream), writer: Some(sender), thread: Some(thread) })
    }
}

/// Writes what comes, and now and then that there is nothing. Ends with its sender, or with who reads: that is noticed
/// when the next message of his is awaited.
fn write_all(mut stream: UnixStream, outgoing: &Receiver<Outgoing>) {
    let alive = Header { sequence: ALIVE, operation: Operation::Gather, bytes: 0 };
    loop {
        let written = match outgoing.recv_timeout(ALIVE_EVERY) {
            Ok((header, message)) => stream.write_all(&header.to_bytes()).and_then(|()| stream.write_all(&message)),
            Err(RecvTimeoutError::Timeout) => stream.write_all(&alive.to_bytes()),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if written.is_err() {
            return;
        }
    }
}

fn reach(path: &PathBuf, rank: usize, deadline: Instant) -> Result<UnixStream> {
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(_) if Instant::now() < deadline => std::thread::sleep(RETRY),
            Err(error) => return Err(late(rank).cause(error)),
        }
    }
}

fn late(rank: usize) -> Error {
    Error::input(format!("rank {rank} has not come in {} s", MEETING.as_secs())).help("its log says why")
}

impl Communicator for Sockets {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.peers.len()
    }

    fn exchange(&self, operation: Operation, messages: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let mut own = vec![];
        for (rank, (peer, message)) in self.peers.iter().zip(messages).enumerate() {
            let Some(writer) = peer.as_ref().and_then(|peer| peer.writer.as_ref()) else {
                own = message;
                continue;
            };
            let header = Header { sequence, operation, bytes: message.len() as u64 };
            self.sent.fetch_add((Header::BYTES + message.len()) as u64, Ordering::Relaxed);
            writer.send((header, Arc::new(message))).map_err(|_| self.heard(rank, operation, sequence))?;
        }
        let expected = Header { sequence, operation, bytes: 0 };
        let mut own = Some(own);
        let received = self.peers.iter().enumerate().map(|(rank, peer)| match peer {
            None => Ok(own.take().unwrap_or_default()),
            Some(peer) => self.receive(rank, peer, expected),
        });
        received.collect()
    }

    fn abort(&self, why: &str) {
        let header = Header { sequence: ALIVE, operation: Operation::Abort, bytes: why.len() as u64 };
        let message = Arc::new(why.as_bytes().to_vec());
        let writers = self.peers.iter().flatten().filter_map(|peer| peer.writer.as_ref());
        // Those who have gone need not know.
        writers.for_each(|writer| _ = writer.send((header, message.clone())));
    }

    fn bytes_sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Sockets {
    /// Why a rank cannot be written to: what it said last, or that it has gone.
    fn heard(&self, rank: usize, operation: Operation, sequence: u64) -> Error {
        let own = Header { sequence, operation, bytes: 0 };
        let said = self.peers[rank].as_ref().and_then(|peer| self.receive(rank, peer, own).err());
        said.unwrap_or_else(|| gone(rank, operation, sequence))
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        // What is still to be written goes out before the socket closes.
        for peer in self.peers.iter_mut().flatten() {
            peer.writer = None;
            peer.thread.take().map(JoinHandle::join);
        }
    }
}
