//! Ranks that are processes, over sockets: of one machine in a folder that only their user may enter, or of several
//! over TCP. Each pair of ranks has one stream, with a thread that writes and one that reads: nobody waits to send
//! while the others wait for him, and what comes is taken in while the network is being worked on.

use super::{
    communicator::{Header, Message, Operation, gone},
    mesh::{ALIVE_EVERY, Incoming, Link, Lost, MESSAGE_BYTES_MAX, Mesh, Outgoing, SILENCE, alive},
};
use narthex_base::{Error, Result};
use serde::{Deserialize, Serialize};
use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Time between two tries to reach a rank that has not started yet.
const RETRY: Duration = Duration::from_millis(20);

/// What a rank that comes over TCP says first, so that a stranger is told from it.
const GREETING: &[u8; 8] = b"narthex1";

/// How long a stranger may take to say that.
const GREETING_TIME: Duration = Duration::from_secs(5);

/// The largest first message of a rank over TCP: what it is, or where all of them are.
const HELLO_BYTES_MAX: u32 = 1 << 20;

/// Where and among how many a rank is, and its patience.
#[derive(Clone, Copy, Debug)]
pub struct Seat {
    /// The number of this rank, from 0.
    pub rank: usize,
    /// How many ranks there are.
    pub size: usize,
    /// Time for all ranks to have started.
    pub meeting: Duration,
    /// How long another rank may let this one wait before it is named.
    pub patience: Duration,
}

/// Meets the other ranks of this machine in a folder, which must be the same for all of them.
///
/// # Errors
/// If they are not there in time, or the folder cannot be used.
pub fn sockets(folder: &Path, seat: Seat) -> Result<Mesh> {
    let Seat { rank, size, .. } = seat;
    let at = |rank: usize| folder.join(format!("rank-{rank}"));
    let fail = |path: &Path, error| Error::io("cannot listen at", path, error);
    let own = at(rank);
    let listener = UnixListener::bind(&own).map_err(|error| fail(&own, error))?;
    listener.set_nonblocking(true).map_err(|error| fail(&own, error))?;
    let deadline = Instant::now() + seat.meeting;
    let mut streams: Vec<Option<UnixStream>> = (0..size).map(|_| None).collect();
    for (lower, place) in streams.iter_mut().enumerate().take(rank) {
        let mut stream = reach(lower, seat, deadline, || UnixStream::connect(at(lower)))?;
        stream.write_all(&(rank as u64).to_le_bytes()).map_err(|_| gone(lower, Operation::Meet, 0))?;
        *place = Some(stream);
    }
    while let Some(missing) = (rank + 1..size).find(|higher| streams[*higher].is_none()) {
        let accept = || listener.accept().map(|(stream, _)| stream);
        let mut stream = accepted(missing, seat, deadline, accept).map_err(|error| error.at(own.display(), None))?;
        stream.set_nonblocking(false).map_err(|error| fail(&own, error))?;
        let mut number = [0; 8];
        stream.read_exact(&mut number).map_err(|error| fail(&own, error))?;
        take_seat(&mut streams, u64::from_le_bytes(number) as usize, rank, stream)?;
    }
    mesh(streams, seat, "sockets")
}

/// Meets the other ranks over TCP: rank 0 listens at `meeting_place`, and tells each where the others listen.
///
/// # Errors
/// If they are not there in time, or the address cannot be used.
pub fn tcp(meeting_place: &str, seat: Seat) -> Result<Mesh> {
    let Seat { rank, size, .. } = seat;
    let deadline = Instant::now() + seat.meeting;
    let mut streams: Vec<Option<TcpStream>> = (0..size).map(|_| None).collect();
    let fail = |what: &str, error: io::Error| Error::input(format!("{what} {meeting_place}")).cause(error);
    let listener = |address: (IpAddr, u16)| -> Result<TcpListener> {
        let listener = TcpListener::bind(address).map_err(|error| {
            fail("cannot listen for the other ranks at", error)
                .help("MASTER_ADDR is the address of the host of rank 0, and MASTER_PORT a port that is free there")
        })?;
        listener.set_nonblocking(true).map_err(|error| fail("cannot listen at", error))?;
        Ok(listener)
    };
    if rank == 0 {
        let address = resolve(meeting_place, deadline)?;
        let listener = listener((address.ip(), address.port()))?;
        let mut places: Vec<Option<SocketAddr>> = vec![None; size];
        while let Some(missing) = (1..size).find(|rank| streams[*rank].is_none()) {
            let Some((hello, stream)) = visitor(missing, seat, deadline, &listener)? else { continue };
            if hello.size != size {
                return Err(Error::input(format!("rank {} is one of {}, not of {size}", hello.rank, hello.size))
                    .help("start all ranks with the same WORLD_SIZE"));
            }
            let from = stream.peer_addr().map_err(|error| fail("cannot use", error))?;
            take_seat(&mut streams, hello.rank, 0, stream)?;
            places[hello.rank] = Some(SocketAddr::new(from.ip(), hello.port));
        }
        for stream in streams.iter_mut().flatten() {
            say(stream, &places).map_err(|error| fail("cannot answer who came to", error))?;
        }
        return mesh(streams, seat, "TCP");
    }
    let mut first = reach(0, seat, deadline, || {
        TcpStream::connect_timeout(&resolve(meeting_place, deadline).map_err(io::Error::other)?, GREETING_TIME)
    })?;
    // The others come to where rank 0 was reached from.
    let own = first.local_addr().map_err(|error| fail("cannot use", error))?.ip();
    let listener = listener((own, 0))?;
    let port = listener.local_addr().map_err(|error| fail("cannot use", error))?.port();
    let hello = |rank| Hello { rank, size, port };
    greet(&mut first, &hello(rank)).map_err(|_| gone(0, Operation::Meet, 0))?;
    first.set_read_timeout(Some(seat.meeting)).map_err(|error| fail("cannot use", error))?;
    let places: Vec<Option<SocketAddr>> = heard(&mut first).map_err(|error| {
        let late = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        if late { fail("not all ranks have come to", error) } else { gone(0, Operation::Meet, 0) }
    })?;
    streams[0] = Some(first);
    for (lower, seat_of_lower) in streams.iter_mut().enumerate().take(rank).skip(1) {
        let place = places.get(lower).copied().flatten();
        let place = place.ok_or_else(|| Error::internal(format!("rank 0 does not say where rank {lower} is")))?;
        let mut stream = reach(lower, seat, deadline, || TcpStream::connect_timeout(&place, GREETING_TIME))?;
        greet(&mut stream, &hello(rank)).map_err(|_| gone(lower, Operation::Meet, 0))?;
        *seat_of_lower = Some(stream);
    }
    while let Some(missing) = (rank + 1..size).find(|higher| streams[*higher].is_none()) {
        if let Some((hello, stream)) = visitor(missing, seat, deadline, &listener)? {
            take_seat(&mut streams, hello.rank, rank, stream)?;
        }
    }
    mesh(streams, seat, "TCP")
}

/// What a rank says of itself over TCP.
#[derive(Serialize, Deserialize)]
struct Hello {
    rank: usize,
    size: usize,
    /// Where it listens.
    port: u16,
}

fn resolve(place: &str, deadline: Instant) -> Result<SocketAddr> {
    loop {
        // The name of a host that has just started may not be known yet.
        let error = match place.to_socket_addrs().map(|mut found| found.next()) {
            Ok(Some(address)) => return Ok(address),
            Ok(None) => "it has no address".to_string(),
            Err(error) => error.to_string(),
        };
        if Instant::now() > deadline {
            return Err(Error::input(format!("cannot find {place}, where the ranks meet")).cause(error));
        }
        std::thread::sleep(10 * RETRY);
    }
}

/// A message of a length of its own.
fn say(stream: &mut TcpStream, what: &impl Serialize) -> io::Result<()> {
    let message = serde_json::to_vec(what).expect("our own types serialize");
    stream.write_all(&(message.len() as u32).to_le_bytes())?;
    stream.write_all(&message)
}

fn heard<T: for<'de> Deserialize<'de>>(stream: &mut TcpStream) -> io::Result<T> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > HELLO_BYTES_MAX {
        return Err(io::Error::other("it is no message of a rank"));
    }
    let mut message = vec![0; length as usize];
    stream.read_exact(&mut message)?;
    serde_json::from_slice(&message).map_err(io::Error::other)
}

fn greet(stream: &mut TcpStream, hello: &Hello) -> io::Result<()> {
    stream.write_all(GREETING)?;
    say(stream, hello)
}

/// A rank that comes; none if it was somebody else.
fn visitor(
    missing: usize,
    seat: Seat,
    deadline: Instant,
    listener: &TcpListener,
) -> Result<Option<(Hello, TcpStream)>> {
    let mut stream = accepted(missing, seat, deadline, || listener.accept().map(|(stream, _)| stream))?;
    let mut hello = || -> io::Result<Hello> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(GREETING_TIME))?;
        let mut greeting = [0; GREETING.len()];
        stream.read_exact(&mut greeting)?;
        if greeting != *GREETING {
            return Err(io::Error::other("a stranger"));
        }
        heard(&mut stream)
    };
    Ok(hello().ok().map(|hello| (hello, stream)))
}

/// Tries until it is there.
fn reach<S>(rank: usize, seat: Seat, deadline: Instant, connect: impl Fn() -> io::Result<S>) -> Result<S> {
    loop {
        match connect() {
            Ok(stream) => return Ok(stream),
            Err(_) if Instant::now() < deadline => std::thread::sleep(RETRY),
            Err(error) => return Err(late(rank, seat).cause(error)),
        }
    }
}

/// Waits until somebody comes; `missing` is who is waited for.
fn accepted<S>(missing: usize, seat: Seat, deadline: Instant, accept: impl Fn() -> io::Result<S>) -> Result<S> {
    loop {
        match accept() {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if Instant::now() > deadline {
                    return Err(late(missing, seat));
                }
                std::thread::sleep(RETRY);
            }
            Err(error) => return Err(Error::input("cannot let other ranks in").cause(error)),
        }
    }
}

fn late(rank: usize, seat: Seat) -> Error {
    Error::input(format!("rank {rank} has not come in {} s", seat.meeting.as_secs())).help("its log says why")
}

/// The place of a rank that has come.
fn take_seat<S>(streams: &mut [Option<S>], number: usize, own: usize, stream: S) -> Result<()> {
    match streams.get_mut(number) {
        Some(place) if number > own && place.is_none() => {
            *place = Some(stream);
            Ok(())
        }
        _ => Err(Error::input(format!("a rank {number} came, which is not expected"))
            .help("each rank has a number of its own, from 0, less than the number of ranks")),
    }
}

/// A connection of two ranks.
trait Stream: Read + Write + Send + Sized + 'static {
    /// Another handle of it; reading gives up after a silence.
    fn prepared(&self, silence: Duration) -> io::Result<Self>;

    /// Says that nothing more is written.
    fn end_writing(&self);
}

impl Stream for UnixStream {
    fn prepared(&self, silence: Duration) -> io::Result<Self> {
        self.set_read_timeout(Some(silence))?;
        self.try_clone()
    }
    fn end_writing(&self) {
        // Who has gone need not know.
        _ = self.shutdown(Shutdown::Write);
    }
}

impl Stream for TcpStream {
    fn prepared(&self, silence: Duration) -> io::Result<Self> {
        self.set_nodelay(true)?;
        self.set_read_timeout(Some(silence))?;
        self.try_clone()
    }
    fn end_writing(&self) {
        _ = self.shutdown(Shutdown::Write);
    }
}

fn mesh<S: Stream>(streams: Vec<Option<S>>, seat: Seat, engine: &str) -> Result<Mesh> {
    let mut writers = vec![];
    let links = streams.into_iter().map(|stream| stream.map(|stream| link(stream, &mut writers)).transpose());
    let links = links.collect::<Result<_>>()?;
    Ok(Mesh::new(seat.rank, links, seat.patience, engine, writers))
}

fn link<S: Stream>(stream: S, writers: &mut Vec<JoinHandle<()>>) -> Result<Link> {
    let fail = |error| Error::internal("cannot use a connection").cause(error);
    let writing = stream.prepared(SILENCE).map_err(fail)?;
    let ((to, outgoing), (incoming, from)) = (channel(), channel());
    let start = |name: &str, work: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new().name(name.into()).spawn(work).map_err(fail)
    };
    writers.push(start("to-rank", Box::new(move || write_all(writing, &outgoing)))?);
    // Ends with the stream.
    start("from-rank", Box::new(move || read_all(stream, &incoming)))?;
    Ok(Link { to, from })
}

/// Writes what comes, and now and then that there is nothing. Ends with its sender, or with who reads: that is noticed
/// when the next message of his is awaited.
fn write_all(mut stream: impl Stream, outgoing: &Receiver<Outgoing>) {
    loop {
        let (header, message) = match outgoing.recv_timeout(ALIVE_EVERY) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => alive(),
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let header = header.to_bytes();
        if std::iter::once(&header[..]).chain(message.segments()).any(|bytes| stream.write_all(bytes).is_err()) {
            break;
        }
    }
    stream.end_writing();
}

/// Reads until the stream ends, or nothing comes any more.
fn read_all(mut stream: impl Read, incoming: &Sender<Incoming>) {
    let lost = |error: io::Error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Lost::Silent,
        _ => Lost::Gone,
    };
    let mut read = || {
        let mut bytes = [0; Header::BYTES];
        stream.read_exact(&mut bytes).map_err(lost)?;
        let header = Header::of_bytes(bytes).filter(|header| header.bytes <= MESSAGE_BYTES_MAX);
        let header = header.ok_or(Lost::Garbled)?;
        let mut message = Vec::with_capacity(header.bytes as usize);
        stream.by_ref().take(header.bytes).read_to_end(&mut message).map_err(lost)?;
        if (message.len() as u64) < header.bytes {
            return Err(Lost::Gone);
        }
        Ok((header, Message::new(message)))
    };
    loop {
        let found = read();
        let ended = found.is_err();
        if incoming.send(found).is_err() || ended {
            return;
        }
    }
}
