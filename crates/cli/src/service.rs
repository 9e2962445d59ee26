//! How a server stops, and what a service manager is told of it (sd_notify(3), the protocol behind systemd's `Type=notify`):
//! that requests are answered, and that the server is about to stop. Without a manager, nothing is said.

use narthex_http::Stopping;
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;
use std::{
    env,
    os::unix::net::{SocketAddr, UnixDatagram},
    time::Duration,
};

/// Requests are answered from now on.
pub fn ready() {
    notify("READY=1");
}

/// Ready on the first SIGINT or SIGTERM.
#[cfg(feature = "agents")]
pub async fn stop() {
    stop_drained(Stopping::default(), Duration::ZERO).await;
}

/// Ready on SIGINT, or so long after SIGTERM, when `stopping` has begun; a second signal ends the wait.
pub async fn stop_drained(stopping: Stopping, drain: Duration) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    let is_patient = tokio::select! {
        _ = interrupt.recv() => false,
        _ = terminate.recv() => true,
    };
    notify("STOPPING=1");
    stopping.begin();
    if is_patient && !drain.is_zero() {
        noteln!("stopping: requests are still taken for {} s; a second signal ends that", drain.as_secs());
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = tokio::time::sleep(drain) => {}
        }
    }
}

/// Sends a state to the socket that the manager named. A manager that does not listen is none of the server's business.
fn notify(state: &str) {
    if let Some(path) = env::var_os("NOTIFY_SOCKET")
        && let Some(path) = path.to_str()
    {
        _ = send(path, state);
    }
}

/// A path, or, after `@`, a name in the abstract namespace.
fn send(path: &str, state: &str) -> std::io::Result<usize> {
    let address = match path.strip_prefix('@') {
        #[cfg(target_os = "linux")]
        Some(name) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(path)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_manager_hears_it_by_path_and_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("narthex-test-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (socket, address) in [(by_path, path.display().to_string()), (by_name, format!("@{name}"))] {
            assert_eq!(send(&address, "READY=1").unwrap(), 7);
            let mut block = [0; 64];
            let count = socket.recv(&mut block).unwrap();
            assert_eq!(&block[..count], b"READY=1");
        }
        assert!(send("/nowhere/notify", "READY=1").is_err());
    }
}
