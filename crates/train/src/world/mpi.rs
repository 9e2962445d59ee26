//! Ranks that an MPI launcher has started. The library is loaded at run time: nothing of MPI is needed to build this
//! program, nor to start it, and one binary serves Open MPI, the MPICH family (Intel MPI, MVAPICH) and the standard ABI
//! of MPI 5. Only bytes are sent; sums are ours. One thread talks to the library, from its start to its end, and waits
//! without spinning.

use super::{
    communicator::{Header, Message, Operation},
    mesh::{ALIVE_EVERY, ASIDE, Incoming, Link, Lost, MESSAGE_BYTES_MAX, Mesh, Outgoing, SILENCE, alive},
    sockets::Seat,
};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use narthex_base::{Error, Result};
use std::{
    collections::VecDeque,
    ffi::{c_char, c_int, c_void},
    sync::mpsc::{Receiver, Sender, TryRecvError, channel},
    time::{Duration, Instant},
};

/// The families of libraries, which pass handles differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MpiFamily {
    /// Open MPI, whose handles are addresses of its own objects.
    OpenMpi,
    /// MPICH and what descends from it, whose handles are numbers.
    Mpich,
    /// The standard ABI of MPI 5.
    Standard,
}

impl MpiFamily {
    /// What its library may be called.
    fn libraries(self) -> &'static [&'static str] {
        match self {
            Self::OpenMpi => &["libmpi.so.40"],
            Self::Mpich => &["libmpi.so.12", "libmpich.so.12", "libmpi_abi.so.1"],
            Self::Standard => &["libmpi_abi.so.1"],
        }
    }

    fn of_path(path: &str, is_open_mpi: bool) -> Self {
        match () {
            () if is_open_mpi => Self::OpenMpi,
            () if path.contains("mpi_abi") => Self::Standard,
            () => Self::Mpich,
        }
    }
}

/// The bytes of a part of a message: counts are `int`.
const CHUNK_BYTES: usize = 1 << 30;

/// Tags of headers and of what follows them.
const TAG_HEADER: c_int = 1;
const TAG_BYTES: c_int = 2;

/// `MPI_THREAD_FUNNELED` in all families but the standard ABI, where it is 1024.
const FUNNELED: c_int = 1;
const FUNNELED_STANDARD: c_int = 1024;

/// Room for a status and for a request of any family.
type Status = [u64; 8];
type Request = usize;

/// Room for the name of a library (`MPI_MAX_LIBRARY_VERSION_STRING`).
const VERSION_BYTES: usize = 8192;

/// Pause while nothing comes: short beside any message's work, long beside a look.
const PAUSE: Duration = Duration::from_micros(50);

/// Looks that find nothing before the first pause.
const LOOKS: u32 = 200;

/// What others get to read why a rank fails, before the launcher is told to end all.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What is called of a library.
#[derive(Clone, Copy)]
struct Api {
    family: MpiFamily,
    init_thread: unsafe extern "C" fn(*mut c_int, *mut *mut c_char, c_int, *mut c_int) -> c_int,
    comm_rank: unsafe extern "C" fn(usize, *mut c_int) -> c_int,
    comm_size: unsafe extern "C" fn(usize, *mut c_int) -> c_int,
    isend: unsafe extern "C" fn(*const c_void, c_int, usize, c_int, c_int, usize, *mut Request) -> c_int,
    irecv: unsafe extern "C" fn(*mut c_void, c_int, usize, c_int, c_int, usize, *mut Request) -> c_int,
    test: unsafe extern "C" fn(*mut Request, *mut c_int, *mut Status) -> c_int,
    abort: unsafe extern "C" fn(usize, c_int) -> c_int,
    finalize: unsafe extern "C" fn() -> c_int,
    get_version: unsafe extern "C" fn(*mut c_char, *mut c_int) -> c_int,
    comm_world: usize,
    byte: usize,
}

impl Api {
    /// Loads a library: the one at `path`, or the first of a family that is found.
    fn load(family: MpiFamily, path: Option<&str>) -> Result<Self> {
        let names: Vec<&str> = path.map_or_else(|| family.libraries().to_vec(), |path| vec![path]);
        let mut causes = vec![];
        for name in &names {
            // SAFETY: initialisers of an MPI library have no precondition; it stays loaded to the end.
            match unsafe { Library::open(Some(*name), RTLD_NOW | RTLD_GLOBAL) } {
                Ok(library) => return Self::of(library, name),
                // The error itself only says that it failed.
                Err(error) => {
                    causes.push(std::error::Error::source(&error).map_or(error.to_string(), |cause| cause.to_string()))
                }
            }
        }
        let error = Error::input(format!("no MPI library is found: {}", names.join(", "))).help(
            "install the MPI whose launcher is used, or name its library in NARTHEX_MPI_LIBRARY; \
                   `--engine tcp` needs none",
        );
        Err(causes.into_iter().fold(error, |error, cause| error.cause(cause)))
    }

    fn of(library: Library, name: &str) -> Result<Self> {
        macro_rules! symbol {
            ($name:literal) => {
                // SAFETY: the type is that of the function's declaration in the MPI standard, with handles as words.
                *unsafe { library.get($name) }
                    .map_err(|error| Error::input(format!("{name} is no MPI")).cause(error))?
            };
        }
        // SAFETY: only the symbols' addresses are taken.
        let address = |symbol: &[u8]| unsafe { library.get::<usize>(symbol) }.ok().map(|found| *found);
        let open_mpi = address(b"ompi_mpi_comm_world").zip(address(b"ompi_mpi_byte"));
        let family = MpiFamily::of_path(name, open_mpi.is_some());
        let (comm_world, byte) = match (family, open_mpi) {
            (_, Some(handles)) => handles,
            (MpiFamily::Standard, None) => (0x101, 0x247),
            (_, None) => (0x4400_0000, 0x4c00_010d),
        };
        let api = Self {
            family,
            init_thread: symbol!(b"MPI_Init_thread"),
            comm_rank: symbol!(b"MPI_Comm_rank"),
            comm_size: symbol!(b"MPI_Comm_size"),
            isend: symbol!(b"MPI_Isend"),
            irecv: symbol!(b"MPI_Irecv"),
            test: symbol!(b"MPI_Test"),
            abort: symbol!(b"MPI_Abort"),
            finalize: symbol!(b"MPI_Finalize"),
            get_version: symbol!(b"MPI_Get_library_version"),
            comm_world,
            byte,
        };
        // It is used until the process ends.
        std::mem::forget(library);
        Ok(api)
    }

    /// `Open MPI v5.0.11`, `MPICH Version: 5.0.2`
    fn version(&self) -> String {
        let (mut bytes, mut length) = ([0u8; VERSION_BYTES], 0);
        // SAFETY: there is room for the longest name of any library.
        unsafe { (self.get_version)(bytes.as_mut_ptr().cast(), &mut length) };
        let text = String::from_utf8_lossy(&bytes[..(length.max(0) as usize).min(VERSION_BYTES)]).into_owned();
        let words = text.split(['\n', ',']).next().unwrap_or_default().trim_end_matches('\0');
        words.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn start(&self) -> (usize, usize) {
        let wanted = if self.family == MpiFamily::Standard { FUNNELED_STANDARD } else { FUNNELED };
        let (mut provided, mut rank, mut size) = (0, 0, 0);
        // SAFETY: called once in this process, by the thread that makes all other calls.
        unsafe {
            (self.init_thread)(std::ptr::null_mut(), std::ptr::null_mut(), wanted, &mut provided);
            (self.comm_rank)(self.comm_world, &mut rank);
            (self.comm_size)(self.comm_world, &mut size);
        }
        (rank.max(0) as usize, size.max(0) as usize)
    }
}

/// What a launcher has told this process, and how long it waits for others.
pub fn mpi(family: MpiFamily, library: Option<&str>, seat: Seat) -> Result<Mesh> {
    let api = Api::load(family, library)?;
    let (mut links, mut ends) = (vec![], vec![]);
    for rank in 0..seat.size {
        let ((to, outgoing), (incoming, from)) = (channel(), channel());
        links.push((rank != seat.rank).then_some(Link { to, from }));
        ends.push((rank != seat.rank).then(|| Peer::new(rank, outgoing, incoming)));
    }
    let (started, start) = channel();
    let work = move || {
        let found = api.start();
        if started.send((found, api.version())).is_err() || found != (seat.rank, seat.size) {
            // SAFETY: nothing was begun.
            unsafe { (api.finalize)() };
            return;
        }
        Talk { api, peers: ends.into_iter().flatten().collect() }.run();
    };
    let fail = |error: &dyn std::fmt::Display| Error::internal("cannot start MPI").cause(error);
    let thread = std::thread::Builder::new().name("mpi".into()).spawn(work).map_err(|error| fail(&error))?;
    let ((rank, size), version) = start.recv().map_err(|error| fail(&error))?;
    if (rank, size) != (seat.rank, seat.size) {
        _ = thread.join();
        return Err(Error::input(format!(
            "the launcher says that this is rank {} of {}, and {version} that it is rank {rank} of {size}",
            seat.rank, seat.size
        ))
        .help("start with the launcher that belongs to the library, or name its library in NARTHEX_MPI_LIBRARY"));
    }
    Ok(Mesh::new(seat.rank, links, seat.patience, version, vec![thread]))
}

/// The thread's work: all that is said to and heard from the others.
struct Talk {
    api: Api,
    peers: Vec<Peer>,
}

/// Something that has begun and that the library holds the address of.
struct Running {
    request: Request,
    bytes: Bytes,
}

enum Bytes {
    Header(Box<[u8; Header::BYTES]>),
    /// The part of a message from here on.
    Part(Message, usize),
    /// The same of one that comes.
    Coming(Header, Vec<u8>, usize),
}

struct Peer {
    rank: c_int,
    outgoing: Receiver<Outgoing>,
    incoming: Sender<Incoming>,
    sending: VecDeque<Running>,
    receiving: Option<Running>,
    last_sent: Instant,
    last_heard: Instant,
    /// Whether this side, and the other, have nothing more to say.
    ended: bool,
    heard_end: bool,
    /// Whether this rank fails.
    aborts: bool,
}

impl Peer {
    fn new(rank: usize, outgoing: Receiver<Outgoing>, incoming: Sender<Incoming>) -> Self {
        let (sending, now) = (VecDeque::new(), Instant::now());
        Self {
            rank: rank as c_int,
            outgoing,
            incoming,
            sending,
            receiving: None,
            last_sent: now,
            last_heard: now,
            ended: false,
            heard_end: false,
            aborts: false,
        }
    }

    fn is_done(&self) -> bool {
        self.ended && self.heard_end && self.sending.is_empty()
    }
}

impl Talk {
    fn run(mut self) {
        let mut idle = 0;
        let mut leaving: Option<Instant> = None;
        loop {
            let mut moved = false;
            for peer in &mut self.peers {
                moved |= self.api.send_more(peer) | self.api.receive_more(peer);
            }
            if self.peers.iter().all(Peer::is_done) {
                // SAFETY: every request has been completed.
                unsafe { (self.api.finalize)() };
                return;
            }
            // A rank that fails does not wait for the others to end; nor does one whose peers have stopped.
            let failed = self.peers.iter().any(|peer| peer.aborts || peer.ended && peer.is_silent());
            if failed && leaving.get_or_insert_with(Instant::now).elapsed() > LAST_WORDS {
                // SAFETY: ends this process and the others.
                unsafe { (self.api.abort)(self.api.comm_world, 1) };
                return;
            }
            idle = if moved { 0 } else { idle + 1 };
            if idle > LOOKS {
                std::thread::sleep(PAUSE);
            }
        }
    }
}

impl Peer {
    fn is_silent(&self) -> bool {
        !self.heard_end && self.last_heard.elapsed() > SILENCE
    }
}

impl Api {
    /// Begins what is to be sent, and forgets what has been. Whether anything moved.
    fn send_more(&self, peer: &mut Peer) -> bool {
        let mut moved = false;
        while !peer.ended {
            let (header, message) = match peer.outgoing.try_recv() {
                Ok(outgoing) => outgoing,
                Err(TryRecvError::Empty) if peer.last_sent.elapsed() > ALIVE_EVERY => alive(),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    peer.ended = true;
                    (Header { sequence: ASIDE, operation: Operation::End, bytes: 0 }, Message::default())
                }
            };
            (moved, peer.last_sent) = (true, Instant::now());
            peer.aborts |= header.operation == Operation::Abort;
            self.send(peer, Bytes::Header(Box::new(header.to_bytes())), TAG_HEADER);
            for start in (0..message.len()).step_by(CHUNK_BYTES) {
                self.send(peer, Bytes::Part(message.clone(), start), TAG_BYTES);
            }
        }
        while let Some(first) = peer.sending.front_mut()
            && self.is_complete(&mut first.request)
        {
            peer.sending.pop_front();
            moved = true;
        }
        moved
    }

    fn send(&self, peer: &mut Peer, bytes: Bytes, tag: c_int) {
        let slice = match &bytes {
            Bytes::Header(header) => &header[..],
            Bytes::Part(message, start) => &message.bytes()[*start..message.len().min(start + CHUNK_BYTES)],
            Bytes::Coming(..) => unreachable!("what comes is not sent"),
        };
        let mut request = 0;
        // SAFETY: the bytes are on the heap and stay there, unchanged, until the request is complete.
        unsafe {
            let (data, count) = (slice.as_ptr().cast(), slice.len() as c_int);
            (self.isend)(data, count, self.byte, peer.rank, tag, self.comm_world, &mut request);
        }
        peer.sending.push_back(Running { request, bytes });
    }

    /// Takes in what has come, and begins what comes next. Whether anything moved.
    fn receive_more(&self, peer: &mut Peer) -> bool {
        if peer.heard_end {
            return false;
        }
        let Some(mut running) = peer.receiving.take() else {
            peer.receiving = Some(self.receive(peer.rank, Bytes::Header(Box::new([0; Header::BYTES])), TAG_HEADER));
            return true;
        };
        if !self.is_complete(&mut running.request) {
            if peer.is_silent() {
                // Who is not waiting any more need not know.
                _ = peer.incoming.send(Err(Lost::Silent));
                peer.last_heard = Instant::now();
            }
            peer.receiving = Some(running);
            return false;
        }
        peer.last_heard = Instant::now();
        let (header, message, received) = match running.bytes {
            Bytes::Header(bytes) => match Header::of_bytes(*bytes).filter(|header| header.bytes <= MESSAGE_BYTES_MAX) {
                Some(header) if header.operation == Operation::End => {
                    peer.heard_end = true;
                    _ = peer.incoming.send(Err(Lost::Gone));
                    return true;
                }
                Some(header) => (header, vec![0; header.bytes as usize], 0),
                None => {
                    _ = peer.incoming.send(Err(Lost::Garbled));
                    return true;
                }
            },
            Bytes::Coming(header, message, start) => (header, message, start + CHUNK_BYTES),
            Bytes::Part(..) => unreachable!("what is sent does not come"),
        };
        if received < message.len() {
            peer.receiving = Some(self.receive(peer.rank, Bytes::Coming(header, message, received), TAG_BYTES));
        } else {
            _ = peer.incoming.send(Ok((header, Message::new(message))));
        }
        true
    }

    fn receive(&self, rank: c_int, mut bytes: Bytes, tag: c_int) -> Running {
        let slice = match &mut bytes {
            Bytes::Header(header) => &mut header[..],
            Bytes::Coming(_, message, start) => {
                let end = message.len().min(*start + CHUNK_BYTES);
                &mut message[*start..end]
            }
            Bytes::Part(..) => unreachable!("what is sent does not come"),
        };
        let mut request = 0;
        // SAFETY: the bytes are on the heap and stay there, untouched, until the request is complete.
        unsafe {
            let (data, count) = (slice.as_mut_ptr().cast(), slice.len() as c_int);
            (self.irecv)(data, count, self.byte, rank, tag, self.comm_world, &mut request);
        }
        Running { request, bytes }
    }

    fn is_complete(&self, request: &mut Request) -> bool {
        let (mut flag, mut status) = (0, [0; 8]);
        // SAFETY: the request is one that has begun, and there is room for a status of any family.
        unsafe { (self.test)(request, &mut flag, &mut status) };
        flag != 0
    }
}
