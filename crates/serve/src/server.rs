//! Listening and stopping. Owns the async runtime, so that no caller needs one.

use crate::{ServeOptions, ServedModel, router::routes};
use axum::serve::{Listener, ListenerExt};
use narthex_base::{Error, Result};
use std::{
    future::Future,
    io,
    net::{SocketAddr, TcpListener},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
};

/// Seconds that the runtime's own threads get at the very end.
const RUNTIME_SHUTDOWN_S: u64 = 1;

/// Takes the address, so that a port in use is known before anything slow is loaded. Connections
/// wait in the system's backlog until [`serve`] takes them.
///
/// # Errors
/// If the address is unknown, or another program has the port, or it needs rights we lack.
pub fn bind(options: &ServeOptions) -> Result<TcpListener> {
    let (host, port) = (options.host.trim_start_matches('[').trim_end_matches(']'), options.port);
    TcpListener::bind((host, port)).map_err(|error| {
        let report = Error::input(format!("cannot listen on {host} port {port}")).cause(&error);
        match error.kind() {
            io::ErrorKind::AddrInUse => {
                Error::input(format!("port {port} on {host} is already in use")).cause(error).help(format!(
                    "choose another with `--port {}`, or see who holds it: `ss -ltnp 'sport = :{port}'`",
                    next_port(port)
                ))
            }
            io::ErrorKind::PermissionDenied => report.help("ports below 1024 need more rights: use `--port 8000`"),
            io::ErrorKind::AddrNotAvailable => report
                .help("this machine has no such address: use `--host 127.0.0.1`, or `--host 0.0.0.0` for all of them"),
            _ => report.help("`--host` takes an address or name of this machine, such as `127.0.0.1`"),
        }
    })
}

fn next_port(port: u16) -> u16 {
    port.checked_add(1).unwrap_or(8000)
}

/// Answers until `shutdown` is ready, then lets answers under way end within a limit. Blocks.
///
/// # Errors
/// If the runtime does not start or the listener fails.
pub fn serve(
    listener: TcpListener,
    model: Arc<ServedModel>,
    options: &ServeOptions,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let cannot = |error: io::Error| Error::input("cannot start the server").cause(error);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(cannot)?;
    let draining = Arc::new(AtomicBool::new(false));
    let routes = routes(model, options, draining.clone());
    let grace = Duration::from_secs(options.limits.shutdown_s);
    let connections = Arc::new(Semaphore::new(options.limits.connections_max));
    let outcome = runtime.block_on(async move {
        listener.set_nonblocking(true)?;
        let listener = Limited { listener: tokio::net::TcpListener::from_std(listener)?, connections };
        // Tokens are small and must not wait for more (Nagle's algorithm).
        let listener = listener.tap_io(|connection| _ = connection.stream.set_nodelay(true));
        let (stopping, stopped) = oneshot::channel();
        let server = axum::serve(listener, routes).with_graceful_shutdown(async move {
            shutdown.await;
            draining.store(true, Ordering::Relaxed);
            _ = stopping.send(());
        });
        let deadline = async move {
            _ = stopped.await;
            tokio::time::sleep(grace).await;
        };
        tokio::select! {
            outcome = server => outcome,
            () = deadline => Ok(()),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(RUNTIME_SHUTDOWN_S));
    outcome.map_err(|error| Error::input("the server failed").cause(error))
}

/// A listener that takes no more connections than the semaphore has permits.
struct Limited {
    listener: tokio::net::TcpListener,
    connections: Arc<Semaphore>,
}

/// A connection and its permit.
struct Connection {
    stream: TcpStream,
    _permit: OwnedSemaphorePermit,
}

impl Listener for Limited {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let permit = self.connections.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (stream, address) = Listener::accept(&mut self.listener).await;
        (Connection { stream, _permit: permit }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        scripted::{Scripted, say},
        testing,
    };
    use narthex_infer::Output;
    use std::io::{Read, Write};

    /// A server on a port of its own, with an answer that takes long to end.
    fn endless(check: impl FnOnce(SocketAddr, &Scripted, oneshot::Sender<()>)) {
        let tokens = testing::byte_tokens(b"more ").repeat(800);
        let script = move |request: &narthex_infer::Request| -> Vec<Output> { say(request, &tokens) };
        let generator = Arc::new(Scripted::new(script).delay(Duration::from_millis(5)));
        let model = Arc::new(testing::model_of(generator.clone()));
        let mut options = ServeOptions { port: 0, ..ServeOptions::default() };
        options.limits.shutdown_s = 0;
        let listener = bind(&options).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || serve(listener, model, &options, async { _ = stopped.await }));
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

    #[test]
    fn a_port_in_use_is_explained() {
        let first = bind(&ServeOptions { port: 0, ..ServeOptions::default() }).unwrap();
        let port = first.local_addr().unwrap().port();
        let error = bind(&ServeOptions { port, ..ServeOptions::default() }).unwrap_err();
        assert_eq!(error.what(), format!("port {port} on 127.0.0.1 is already in use"));
        assert!(error.help_text().unwrap().contains(&format!("`ss -ltnp 'sport = :{port}'`")), "{error}");
        let error = bind(&ServeOptions { host: "192.0.2.1".into(), port: 0, ..ServeOptions::default() }).unwrap_err();
        assert!(error.help_text().unwrap().contains("--host 127.0.0.1"), "{error}");
    }
}
