//! A server for tests that speaks the part of the Hub's API that is used, with faults on request. Large files are
//! redirected to a second host, as the Hub does it.

use sha2::Digest;
use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A file: path, bytes, and whether it is stored with LFS.
pub type FakeFile = (String, Vec<u8>, bool);

/// What goes wrong.
#[derive(Default)]
pub struct Faults {
    /// The storage host ends the connection after so many bytes, so many times.
    pub cut: Option<(usize, usize)>,
    /// So many answers are 429, with this `Retry-After`.
    pub limited: Option<(usize, String)>,
    /// The file at this path has another byte than its digest says.
    pub changed: Option<String>,
    /// Files may be listed but not fetched.
    pub gated: bool,
    /// This host redirects to itself.
    pub circle: bool,
    /// Ranges are ignored.
    pub whole: bool,
    /// The storage host says of its size what is not true, or sends more than it said.
    pub longer: bool,
    /// No digests, neither in the list nor in headers.
    pub nameless: bool,
    /// The answer of the API instead of the true one.
    pub listing: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Request {
    /// `hub` or `storage`.
    pub host: &'static str,
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
}

struct State {
    id: String,
    files: Vec<FakeFile>,
    faults: Mutex<Faults>,
    requests: Mutex<Vec<Request>>,
    storage: String,
}

pub struct FakeHub {
    pub url: String,
    state: Arc<State>,
}

impl FakeHub {
    /// Serves one repository, `models/org/name` or `datasets/org/name`, until the process ends.
    pub fn start(id: &str, files: Vec<FakeFile>, faults: Faults) -> Self {
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (hub, storage) = (bind(), bind());
        let url = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State {
            id: id.into(),
            files,
            faults: Mutex::new(faults),
            requests: Mutex::default(),
            storage: url(&storage),
        });
        let made = Self { url: url(&hub), state: state.clone() };
        for (host, listener) in [("hub", hub), ("storage", storage)] {
            let state = state.clone();
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let state = state.clone();
                    thread::spawn(move || state.answer(host, stream));
                }
            });
        }
        made
    }

    /// What was asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().unwrap().clone()
    }

    /// Other faults from now on.
    pub fn now(&self, faults: Faults) {
        *self.state.faults.lock().unwrap() = faults;
    }
}

struct Answer {
    status: String,
    headers: Vec<String>,
    body: Vec<u8>,
    /// How many bytes of the body are sent; the rest is promised alone.
    sent: usize,
}

impl State {
    fn answer(&self, host: &'static str, stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        let _ = reader.read_line(&mut line);
        let mut words = line.split(' ');
        let (method, path) =
            (words.next().unwrap_or_default().to_string(), words.next().unwrap_or_default().to_string());
        let mut request = Request { host, path, range: None, authorization: None };
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header).unwrap_or(0) == 0 || header.trim().is_empty() {
                break;
            }
            let (name, value) = header.split_once(':').unwrap_or_default();
            let value = Some(value.trim().to_string());
            match name.to_lowercase().as_str() {
                "range" => request.range = value,
                "authorization" => request.authorization = value,
                _ => {}
            }
        }
        self.requests.lock().unwrap().push(request.clone());
        let mut answer = if host == "hub" { self.hub(&request) } else { self.storage(&request) };
        if method == "HEAD" {
            answer.sent = 0;
        }
        let length = answer.body.len();
        let mut stream = stream;
        let head = format!("HTTP/1.1 {}\r\nContent-Length: {length}\r\nConnection: close\r\n", answer.status);
        let headers: String = answer.headers.iter().map(|header| format!("{header}\r\n")).collect();
        let _ = stream.write_all(format!("{head}{headers}\r\n").as_bytes());
        let _ = stream.write_all(&answer.body[..answer.sent.min(length)]);
    }

    fn hub(&self, request: &Request) -> Answer {
        let mut faults = self.faults.lock().unwrap();
        if let Some((left, after)) = &mut faults.limited
            && *left > 0
        {
            *left -= 1;
            return plain("429 Too Many Requests", vec![format!("Retry-After: {after}")], "slow down");
        }
        if faults.circle {
            return plain("302 Found", vec![format!("Location: {}", request.path)], "");
        }
        let repository = format!("/api/{}", self.id);
        let path = request.path.split('?').next().unwrap_or_default();
        if let Some(revision) = path.strip_prefix(&format!("{repository}/revision/")) {
            if !["main", "v1", COMMIT].contains(&revision) {
                return missing("RevisionNotFound", "Invalid rev id");
            }
            let text = faults.listing.clone().unwrap_or_else(|| self.listing(faults.nameless));
            return plain("200 OK", vec![], &text);
        }
        if path == format!("{repository}/refs") {
            return plain("200 OK", vec![], r#"{"branches":[{"name":"main"}],"tags":[{"name":"v1"}]}"#);
        }
        if ["/api/models", "/api/datasets"].contains(&path) {
            let name = self.id.split_once('/').unwrap().1;
            return plain("200 OK", vec![], &format!(r#"[{{"id":"{name}"}},{{"id":"../evil"}}]"#));
        }
        let page = self.id.strip_prefix("models/").unwrap_or(&self.id);
        let Some(name) = path.strip_prefix(&format!("/{page}/resolve/{COMMIT}/")) else {
            return Answer {
                status: "401 Unauthorized".into(),
                ..missing("RepoNotFound", "Invalid username or password.")
            };
        };
        if faults.gated && request.authorization.is_none() {
            let error = missing("GatedRepo", "Access to this model is restricted.");
            return Answer { status: "401 Unauthorized".into(), ..error };
        }
        let Some((_, bytes, large)) = self.files.iter().find(|(path, ..)| path == name) else {
            return missing("EntryNotFound", "Entry not found");
        };
        let mut headers = vec![format!("X-Repo-Commit: {COMMIT}")];
        if *large {
            headers.push(format!("Location: {}/{name}?signature=secret", self.storage));
            headers.push(format!("X-Linked-Size: {}", bytes.len()));
            if !faults.nameless {
                headers.push(format!("X-Linked-Etag: \"{}\"", sha256(bytes)));
            }
            return plain("302 Found", headers, "");
        }
        if !faults.nameless {
            headers.push(format!("ETag: \"{}\"", git(bytes)));
        }
        self.file(name, bytes, request, headers, &mut faults)
    }

    fn storage(&self, request: &Request) -> Answer {
        let name = request.path.trim_start_matches('/').split('?').next().unwrap_or_default();
        let Some((_, bytes, _)) = self.files.iter().find(|(path, ..)| path == name) else {
            return missing("EntryNotFound", "no such object");
        };
        let mut faults = self.faults.lock().unwrap();
        let mut answer = self.file(name, bytes, request, vec!["ETag: \"other\"".into()], &mut faults);
        if let Some((after, times)) = &mut faults.cut
            && *times > 0
        {
            *times -= 1;
            answer.sent = *after;
        }
        answer
    }

    fn file(
        &self,
        name: &str,
        bytes: &[u8],
        request: &Request,
        mut headers: Vec<String>,
        faults: &mut Faults,
    ) -> Answer {
        let mut body = bytes.to_vec();
        if faults.changed.as_deref() == Some(name) {
            body[0] ^= 1;
        }
        if faults.longer {
            body.push(0);
        }
        let range = request.range.as_ref().filter(|_| !faults.whole);
        let from: Option<usize> =
            range.and_then(|range| range.trim_start_matches("bytes=").trim_end_matches('-').parse().ok());
        let Some(from) = from else { return raw("200 OK", headers, body) };
        if from >= body.len() {
            return plain("416 Range Not Satisfiable", headers, "");
        }
        headers.push(format!("Content-Range: bytes {from}-{}/{}", body.len() - 1, body.len()));
        raw("206 Partial Content", headers, body[from..].to_vec())
    }

    fn listing(&self, nameless: bool) -> String {
        let files: Vec<String> = self
            .files
            .iter()
            .map(|(path, bytes, large)| {
                let size = bytes.len();
                let digest = match (nameless, large) {
                    (true, _) => String::new(),
                    (false, true) => {
                        format!(r#","lfs":{{"sha256":"{}","size":{size},"pointerSize":130}}"#, sha256(bytes))
                    }
                    (false, false) => format!(r#","blobId":"{}""#, git(bytes)),
                };
                format!(r#"{{"rfilename":"{path}","size":{size}{digest}}}"#)
            })
            .collect();
        let name = self.id.split_once('/').unwrap().1;
        format!(r#"{{"id":"{name}","sha":"{COMMIT}","gated":false,"siblings":[{}]}}"#, files.join(","))
    }
}

fn raw(status: &str, headers: Vec<String>, body: Vec<u8>) -> Answer {
    Answer { status: status.into(), headers, sent: body.len(), body }
}

fn plain(status: &str, headers: Vec<String>, body: &str) -> Answer {
    raw(status, headers, body.as_bytes().to_vec())
}

fn missing(code: &str, message: &str) -> Answer {
    plain("404 Not Found", vec![format!("X-Error-Code: {code}"), format!("X-Error-Message: {message}")], "")
}

pub fn sha256(bytes: &[u8]) -> String {
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn git(bytes: &[u8]) -> String {
    let mut hasher = sha1::Sha1::new();
    hasher.update(format!("blob {}\0", bytes.len()));
    hasher.update(bytes);
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
