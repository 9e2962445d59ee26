//! A registry for tests, on loopback, with the habits that real ones have: who asks must say so, uploads have
//! addresses of their own, blobs come from elsewhere, connections break.

use crate::reference::Sha256Digest;
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

/// How it behaves.
#[derive(Clone, Default)]
pub struct Habits {
    /// Asks for a bearer token that only `me` with `secret` gets.
    pub bearer: bool,
    /// Refuses pieces.
    pub no_chunks: bool,
    /// Refuses a blob in one piece above so many bytes.
    pub whole_max: Option<usize>,
    /// Breaks the connection after so many bytes of a blob, once: sent or received.
    pub cut_once: Option<usize>,
    /// Sends a blob's bytes changed.
    pub corrupts: bool,
    /// Gives blobs from another host.
    pub redirects: bool,
    /// Does not list what refers to a manifest.
    pub no_referrers: bool,
    /// Answers so many requests with 503 first.
    pub flaky: usize,
}

#[derive(Default)]
pub struct State {
    pub habits: Habits,
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// (repository, tag or digest) -> (type, bytes).
    pub manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
    /// Which repository has which blob.
    pub has: Vec<(String, String)>,
    uploads: BTreeMap<usize, Vec<u8>>,
    /// Bytes of blobs that came in and went out.
    pub received: usize,
    pub sent: usize,
    /// Method and path of each request.
    pub log: Vec<String>,
}

pub struct Fake {
    pub host: String,
    state: Arc<Mutex<State>>,
}

struct Asked {
    method: String,
    path: String,
    query: String,
    headers: BTreeMap<String, String>,
}

impl Fake {
    pub fn start(habits: Habits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let state = Arc::new(Mutex::new(State { habits, ..State::default() }));
        let fake = Self { host, state: state.clone() };
        let host = fake.host.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, host) = (state.clone(), host.clone());
                thread::spawn(move || serve(stream, &state, &host));
            }
        });
        fake
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>, host: &str) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let Some(asked) = read_head(&mut reader) else { return };
    let length: usize = asked.headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    state.log.push(format!("{} {}", asked.method, asked.path));
    let is_upload = asked.path.contains("/blobs/uploads/");
    let cut = state.habits.cut_once.filter(|cut| is_upload && length > *cut);
    let mut body = vec![0; cut.unwrap_or(length)];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    if is_upload {
        state.received += body.len();
    }
    if cut.is_some() {
        state.habits.cut_once = None;
        if let Some(upload) = asked.path.rsplit('/').next().and_then(|id| id.parse().ok()) {
            state.uploads.entry(upload).or_default().extend(&body);
        }
        _ = stream.shutdown(Shutdown::Both);
        return;
    }
    let (status, headers, content) = answer(&mut state, &asked, body, host);
    let mut head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    let gives = asked.method == "GET" && asked.path.contains("/blobs/") && !is_upload && [200, 206].contains(&status);
    let cut = state.habits.cut_once.filter(|cut| gives && content.len() > *cut);
    _ = write!(stream, "{head}Content-Length: {}\r\n\r\n", content.len());
    if asked.method != "HEAD" {
        let shown = &content[..cut.unwrap_or(content.len())];
        if gives {
            state.sent += shown.len();
        }
        if cut.is_some() {
            state.habits.cut_once = None;
        }
        _ = stream.write_all(shown);
    }
    _ = stream.flush();
    _ = stream.shutdown(Shutdown::Both);
}

fn read_head(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_string(), words.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_string());
    }
    Some(Asked { method, path: path.into(), query: query.into(), headers })
}

type Answer = (u16, Vec<(&'static str, String)>, Vec<u8>);

fn answer(state: &mut State, asked: &Asked, body: Vec<u8>, host: &str) -> Answer {
    let plain = |status| (status, vec![], vec![]);
    if state.habits.flaky > 0 {
        state.habits.flaky -= 1;
        return (503, vec![("Retry-After", "0".into())], vec![]);
    }
    if asked.path == "/token" {
        let is_me = asked.headers.get("authorization").is_some_and(|value| value == "Basic bWU6c2VjcmV0");
        return if is_me { (200, vec![], br#"{"token":"t0ken"}"#.to_vec()) } else { plain(401) };
    }
    if state.habits.bearer && asked.headers.get("authorization").is_none_or(|value| value != "Bearer t0ken") {
        let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"fake\"");
        return (401, vec![("WWW-Authenticate", challenge)], vec![]);
    }
    if let Some(elsewhere) = asked.path.strip_prefix("/elsewhere/") {
        // Whoever gives blobs must not see who asked the registry.
        assert!(!asked.headers.contains_key("authorization") || !state.habits.bearer);
        return (200, vec![], state.blobs[elsewhere].clone());
    }
    let Some(rest) = asked.path.strip_prefix("/v2/") else { return plain(404) };
    if rest.is_empty() {
        return plain(200);
    }
    let find = |word: &str| rest.split_once(word).map(|(repository, rest)| (repository.to_string(), rest.to_string()));
    if let Some((repository, id)) = find("/blobs/uploads/") {
        return upload(state, asked, body, (&repository, &id));
    }
    if let Some((repository, digest)) = find("/blobs/") {
        if !state.has.contains(&(repository, digest.clone())) {
            return plain(404);
        }
        let mut bytes = state.blobs[&digest].clone();
        if state.habits.corrupts {
            bytes[0] ^= 1;
        }
        if state.habits.redirects && asked.method == "GET" {
            return (307, vec![("Location", format!("/elsewhere/{digest}"))], vec![]);
        }
        let from = asked
            .headers
            .get("range")
            .and_then(|range| range.strip_prefix("bytes=")?.trim_end_matches('-').parse().ok());
        return match from {
            Some(from) => {
                let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
                (206, vec![("Content-Range", range)], bytes.split_off(from))
            }
            None => (200, vec![], bytes),
        };
    }
    if let Some((repository, name)) = find("/manifests/") {
        if asked.method == "PUT" {
            let digest = Sha256Digest::of_bytes(&body).to_string();
            let kind = asked.headers["content-type"].clone();
            let subject = String::from_utf8_lossy(&body).contains("\"subject\"");
            for name in [name, digest.clone()] {
                state.manifests.insert((repository.clone(), name), (kind.clone(), body.clone()));
            }
            let listed = (subject && !state.habits.no_referrers).then_some(("OCI-Subject", digest));
            return (201, listed.into_iter().collect(), vec![]);
        }
        return match state.manifests.get(&(repository, name)) {
            Some((kind, bytes)) => (200, vec![("Content-Type", kind.clone())], bytes.clone()),
            None => plain(404),
        };
    }
    if let Some((repository, subject)) = find("/referrers/") {
        if state.habits.no_referrers {
            return plain(404);
        }
        let wanted = format!(
            "\"subject\":{{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"digest\":\"{subject}\""
        );
        let entries: Vec<String> = state
            .manifests
            .iter()
            .filter(|((of, name), (_, bytes))| {
                *of == repository && name.starts_with("sha256:") && String::from_utf8_lossy(bytes).contains(&wanted)
            })
            .map(|((_, digest), (kind, bytes))| {
                format!("{{\"mediaType\":\"{kind}\",\"digest\":\"{digest}\",\"size\":{}}}", bytes.len())
            })
            .collect();
        return (200, vec![], format!("{{\"schemaVersion\":2,\"manifests\":[{}]}}", entries.join(",")).into_bytes());
    }
    plain(404)
}

fn upload(state: &mut State, asked: &Asked, body: Vec<u8>, (repository, id): (&str, &str)) -> Answer {
    let plain = |status| (status, vec![], vec![]);
    let parameter = |name: &str| asked.query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")));
    if asked.method == "POST" {
        if let (Some(digest), Some(from)) = (parameter("mount"), parameter("from"))
            && state.has.contains(&(from.into(), digest.into()))
        {
            state.has.push((repository.into(), digest.into()));
            return plain(201);
        }
        let id = state.log.len();
        state.uploads.insert(id, vec![]);
        return (202, vec![("Location", format!("/v2/{repository}/blobs/uploads/{id}?state=a%3Db"))], vec![]);
    }
    let Some(id) = id.parse().ok().filter(|id| state.uploads.contains_key(id)) else { return plain(404) };
    assert_eq!(parameter("state"), Some("a%3Db"), "the query of an address is kept as it is");
    let location = ("Location", format!("{id}?state=a%3Db"));
    let range = |bytes: usize| ("Range", format!("0-{}", bytes.max(1) - 1));
    match asked.method.as_str() {
        "GET" => (204, vec![location, range(state.uploads[&id].len())], vec![]),
        "PATCH" if state.habits.no_chunks => plain(405),
        "PATCH" => {
            let there = state.uploads.get_mut(&id).unwrap();
            let from = asked.headers["content-range"].split_once('-').unwrap().0.parse::<usize>().unwrap();
            if from != there.len() {
                return plain(416);
            }
            there.extend(body);
            let bytes = there.len();
            (202, vec![location, range(bytes)], vec![])
        }
        "PUT" => {
            if state.habits.whole_max.is_some_and(|most| body.len() > most) {
                return plain(413);
            }
            let mut bytes = state.uploads.remove(&id).unwrap();
            bytes.extend(body);
            let digest = Sha256Digest::of_bytes(&bytes).to_string();
            if parameter("digest") != Some(&digest) {
                return plain(400);
            }
            state.has.push((repository.into(), digest.clone()));
            state.blobs.insert(digest, bytes);
            plain(201)
        }
        _ => plain(405),
    }
}
