//! Listening and stopping. Owns the async runtime, so that no caller needs one.

use crate::{
    observe::Observers,
    options::{HttpLimits, HttpOptions},
    routes::guarded,
};
use axum::{
    Router,
    extract::ConnectInfo,
    http::{HeaderValue, Request, header},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
};
use narthex_base::{Error, Result};
use std::{
    convert::Infallible,
    future::Future,
    io,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

/// Seconds that the runtime's own threads get at the very end.
const RUNTIME_SHUTDOWN_S: u64 = 1;

/// How long to wait when the system gives no more connections.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Everything that a server needs besides its routes.
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    observers: Observers,
    stopping: Stopping,
}

impl Bound {
    /// The address that was taken.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tells, from now on, whether the server is about to stop.
    pub fn stopping(&self) -> Stopping {
        self.stopping.clone()
    }
}

/// Whether a server is about to stop: it ends what it has begun and should get nothing new. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Stopping(Arc<AtomicBool>);

impl Stopping {
    /// Says so.
    pub fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it is.
    pub fn has_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Takes the address and opens the files that options name, so that what is wrong with them is known before anything
/// slow is loaded. Connections wait in the system's backlog until [`serve`] takes them.
///
/// # Errors
/// If the address is unknown, or another program has the port, or it needs rights we lack; if the certificate, the key
/// or the access log cannot be used, or the address for traces is none.
pub fn bind(options: &HttpOptions) -> Result<Bound> {
    let tls = options.tls.as_ref().map(|files| files.acceptor()).transpose()?;
    let (host, port) = (options.host.trim_start_matches('[').trim_end_matches(']'), options.port);
    let listener = TcpListener::bind((host, port)).map_err(|error| {
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
    })?;
    let address = listener.local_addr().map_err(|error| Error::internal("the listener has no address").cause(error))?;
    Ok(Bound { listener, address, tls, observers: Observers::open(options)?, stopping: Stopping::default() })
}

fn next_port(port: u16) -> u16 {
    port.checked_add(1).unwrap_or(8000)
}

/// Answers until `shutdown` is ready, behind the guard (`needs_key` as in [`guarded`]), then lets answers under way
/// end within a limit. Blocks. Who lets others know first begins with [`Stopping::begin`]: from then on, answers
/// close their connections, and new ones are still taken.
///
/// # Errors
/// If the runtime does not start.
pub fn serve(
    bound: Bound,
    routes: Router,
    options: &HttpOptions,
    needs_key: fn(&str) -> bool,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let cannot = |error: io::Error| Error::input("cannot start the server").cause(error);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(cannot)?;
    let Bound { listener, tls, observers, stopping, .. } = bound;
    let routes = guarded(routes, options, needs_key, observers);
    let server = Server { routes, limits: options.limits.clone(), tls, stopping: stopping.clone() };
    let outcome = runtime.block_on(async move {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let shutdown = async move {
            shutdown.await;
            stopping.begin();
        };
        server.run(listener, shutdown).await;
        Ok(())
    });
    runtime.shutdown_timeout(Duration::from_secs(RUNTIME_SHUTDOWN_S));
    outcome.map_err(cannot)
}

/// What every connection needs.
struct Server {
    routes: Router,
    limits: HttpLimits,
    tls: Option<TlsAcceptor>,
    stopping: Stopping,
}

impl Server {
    async fn run(self, listener: tokio::net::TcpListener, shutdown: impl Future<Output = ()>) {
        let connections = Arc::new(Semaphore::new(self.limits.connections_max));
        let (graceful, server) = (GracefulShutdown::new(), Arc::new(self));
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let next = async {
                let permit = connections.clone().acquire_owned().await.expect("the semaphore is never closed");
                (permit, listener.accept().await)
            };
            let (permit, accepted) = tokio::select! {
                next = next => next,
                () = &mut shutdown => break,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let (server, watcher) = (server.clone(), graceful.watcher());
                    tokio::spawn(async move {
                        server.connection(stream, peer, watcher).await;
                        drop(permit);
                    });
                }
                // The client has gone already, or the system is short of something.
                Err(_) => tokio::time::sleep(ACCEPT_AGAIN).await,
            }
        }
        drop(listener);
        let grace = Duration::from_secs(server.limits.shutdown_s);
        tokio::select! {
            () = graceful.shutdown() => {}
            () = tokio::time::sleep(grace) => {}
        }
    }

    /// A connection to its end. What goes wrong with it concerns its client only.
    async fn connection(&self, stream: TcpStream, peer: SocketAddr, watcher: Watcher) {
        // Tokens are small and must not wait for more (Nagle's algorithm).
        _ = stream.set_nodelay(true);
        match &self.tls {
            None => self.requests(stream, peer, watcher).await,
            Some(tls) => {
                let handshake = tokio::time::timeout(self.header_time(), tls.accept(stream));
                if let Ok(Ok(stream)) = handshake.await {
                    self.requests(stream, peer, watcher).await;
                }
            }
        }
    }

    async fn requests(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
        peer: SocketAddr,
        watcher: Watcher,
    ) {
        let service = service_fn(|mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            let answer = self.routes.clone().oneshot(request);
            async {
                let mut answer = answer.await?;
                // Whoever keeps a connection for later should make the next one to somebody else.
                if self.stopping.has_begun() {
                    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(answer)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_time())
            .max_headers(self.limits.headers_max)
            .max_buf_size(self.limits.header_bytes_max)
            .serve_connection(TokioIo::new(stream), service);
        _ = watcher.watch(connection).await;
    }

    fn header_time(&self) -> Duration {
        Duration::from_secs(self.limits.header_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use std::io::{Read, Write};
    use tokio::sync::oneshot;

    #[test]
    fn headers_have_limits() {
        let options = HttpOptions { port: 0, ..HttpOptions::default() };
        let bound = bind(&options).unwrap();
        let address = bound.address();
        let (stop, stopped) = oneshot::channel();
        let routes = Router::new().route("/health", get(async || "well"));
        let thread = std::thread::spawn(move || serve(bound, routes, &options, |_| false, async { _ = stopped.await }));
        let status = |more: &str| {
            let mut connection = std::net::TcpStream::connect(address).unwrap();
            // The server answers and closes as soon as it has seen too much: the rest may find nobody to take it.
            _ = write!(connection, "GET /health HTTP/1.1\r\nHost: {address}\r\n{more}Connection: close\r\n\r\n");
            let mut text = String::new();
            _ = connection.read_to_string(&mut text);
            text.lines().next().unwrap_or_default().to_string()
        };
        assert_eq!(status(""), "HTTP/1.1 200 OK");
        let many: String = (0..200).map(|i| format!("x-{i}: y\r\n")).collect();
        let long = format!("x: {}\r\n", "y".repeat(300_000));
        assert_eq!(status(&many), "HTTP/1.1 431 Request Header Fields Too Large");
        assert_eq!(status(&long), "HTTP/1.1 431 Request Header Fields Too Large");
        stop.send(()).unwrap();
        thread.join().unwrap().unwrap();
    }

    #[test]
    fn who_is_about_to_stop_still_answers_and_keeps_no_connection() {
        let options = HttpOptions { port: 0, ..HttpOptions::default() };
        let bound = bind(&options).unwrap();
        let (address, stopping) = (bound.address(), bound.stopping());
        let (stop, stopped) = oneshot::channel();
        let routes = Router::new().route("/health", get(async || "well"));
        let thread = std::thread::spawn(move || serve(bound, routes, &options, |_| false, async { _ = stopped.await }));
        let mut connection = std::net::TcpStream::connect(address).unwrap();
        let mut block = [0; 1024];
        let mut ask = |connection: &mut std::net::TcpStream| {
            write!(connection, "GET /health HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
            let count = connection.read(&mut block).unwrap();
            String::from_utf8_lossy(&block[..count]).to_ascii_lowercase()
        };
        assert!(!ask(&mut connection).contains("connection: close"));
        stopping.begin();
        let mut other = std::net::TcpStream::connect(address).unwrap();
        for connection in [&mut connection, &mut other] {
            let answer = ask(connection);
            assert!(answer.starts_with("http/1.1 200") && answer.contains("connection: close"), "{answer}");
            assert_eq!(connection.read(&mut [0]).unwrap(), 0);
        }
        stop.send(()).unwrap();
        thread.join().unwrap().unwrap();
        assert!(std::net::TcpStream::connect(address).is_err());
    }

    #[test]
    fn a_port_in_use_is_explained() {
        let first = bind(&HttpOptions { port: 0, ..HttpOptions::default() }).unwrap();
        let port = first.address().port();
        let error = bind(&HttpOptions { port, ..HttpOptions::default() }).err().unwrap();
        assert_eq!(error.what(), format!("port {port} on 127.0.0.1 is already in use"));
        assert!(error.help_text().unwrap().contains(&format!("`ss -ltnp 'sport = :{port}'`")), "{error}");
        let error = bind(&HttpOptions { host: "192.0.2.1".into(), port: 0, ..HttpOptions::default() }).err().unwrap();
        assert!(error.help_text().unwrap().contains("--host 127.0.0.1"), "{error}");
    }
}
