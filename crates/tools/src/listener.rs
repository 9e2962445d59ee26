//! A listener for tests that counts who connects. Speaks as much HTTP as they need.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Listens until the process ends.
pub struct Listener {
    pub address: SocketAddr,
    connects: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Listener {
    /// At an address such as `127.0.0.2:0`; `answer` gets the head and the body of each request.
    pub fn at(address: &str, answer: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let (connects, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(vec![])));
        let (counter, kept, answer) = (connects.clone(), requests.clone(), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                counter.fetch_add(1, Ordering::SeqCst);
                let (mut stream, kept, answer) = (stream.unwrap(), kept.clone(), answer.clone());
                thread::spawn(move || {
                    let request = read_request(&mut stream);
                    kept.lock().unwrap().push(request.clone());
                    answer(&request, &mut stream);
                });
            }
        });
        Self { address, connects, requests }
    }

    /// Always gives the same answer: the head's lines behind the status, and a body.
    pub fn saying(status: &str, head: &str, body: &str) -> Self {
        let whole = answer(status, head, body);
        Self::at("127.0.0.1:0", move |_, stream| drop(stream.write_all(whole.as_bytes())))
    }

    pub fn connects(&self) -> usize {
        self.connects.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// A whole answer. `head` is lines that end in `\r\n`, or nothing.
pub fn answer(status: &str, head: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{head}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn read_request(stream: &mut TcpStream) -> String {
    let (mut bytes, mut block) = (vec![], [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_ascii_lowercase().lines().find_map(|line| {
                line.strip_prefix("content-length:").map(|length| length.trim().parse::<usize>().unwrap())
            });
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        match stream.read(&mut block) {
            Ok(0) | Err(_) => return text,
            Ok(read) => bytes.extend_from_slice(&block[..read]),
        }
    }
}
