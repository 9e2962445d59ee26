//! Clients that go away, and a server that stops, while a model answers.

use crate::{Models, ServeOptions, Serving, serve, testing};
use narthex_http::{HttpOptions, bind};
use narthex_infer::{
    Output,
    scripted::{Scripted, say},
};
use std::{
    io::{Read, Write},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};
use tokio::sync::oneshot;

/// A server on a port of its own, with an answer that takes long to end.
fn endless(check: impl FnOnce(SocketAddr, &Scripted, oneshot::Sender<()>)) {
    let tokens = testing::byte_tokens(b"more ").repeat(800);
    let script = move |request: &narthex_infer::Request| -> Vec<Output> { say(request, &tokens) };
    let generator = Arc::new(Scripted::new(script).delay(Duration::from_millis(5)));
    let model = Arc::new(Serving::new(testing::model_of(generator.clone())));
    let http = HttpOptions { port: 0, ..HttpOptions::default() };
    let mut options = ServeOptions { http, ..ServeOptions::default() };
    options.http.limits.shutdown_s = 0;
    let bound = bind(&options.http).unwrap();
    let address = bound.address();
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::spawn(move || serve(bound, Models::of(model), &options, async { _ = stopped.await }));
    check(address, &generator, stop);
    thread.join().unwrap().unwrap();
}

fn ask(address: SocketAddr, stream: bool) -> std::net::TcpStream {
    let body = format!(r#"{{"model": "m", "prompt": "x", "max_tokens": 4000, "stream": {stream}}}"#);
    let mut connection = std::net::TcpStream::connect(address).unwrap();
    let head = format!("POST /v1/completions HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n");
    write!(connection, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    connection
}

fn aborted(generator: &Scripted) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(testing::aborted(generator))
}

#[test]
fn a_client_that_goes_away_cancels_its_stream() {
    endless(|address, generator, stop| {
        let mut connection = ask(address, true);
        let mut start = [0; 64];
        connection.read_exact(&mut start).unwrap();
        assert!(start.starts_with(b"HTTP/1.1 200 OK"));
        drop(connection);
        assert!(aborted(generator));
        stop.send(()).unwrap();
    });
}

#[test]
fn a_client_that_goes_away_cancels_its_whole_answer() {
    endless(|address, generator, stop| {
        let connection = ask(address, false);
        while generator.requests().is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(connection);
        assert!(aborted(generator));
        stop.send(()).unwrap();
    });
}

#[test]
fn stopping_ends_answers_under_way() {
    endless(|address, generator, stop| {
        let mut connection = ask(address, true);
        connection.read_exact(&mut [0; 64]).unwrap();
        stop.send(()).unwrap();
        let mut rest = Vec::new();
        _ = connection.read_to_end(&mut rest);
        assert!(!rest.ends_with(b"[DONE]\n\n\r\n0\r\n\r\n"));
        assert!(aborted(generator));
    });
}
