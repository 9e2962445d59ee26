//! What happens when replicas are not ready, die, break or come back.

use crate::fake::{Replica, read_until, router, router_with, until};
use serde_json::json;
use std::{io::Read, net::TcpListener, sync::atomic::Ordering::SeqCst};

#[test]
fn one_that_is_not_ready_gets_nothing_and_ends_what_it_has() {
    let (a, b) = (Replica::start("a"), Replica::start("b"));
    let running = router(&[&a, &b]);
    let mut stream = running.begin("/v1/completions", &json!({"prompt": "x", "act": "stream"}));
    read_until(&mut stream, "data: one");
    let (busy, other) = if a.count() == 1 { (&a, &b) } else { (&b, &a) };
    busy.state.unready.store(true, SeqCst);
    running.until_ready(1);
    for index in 0..8 {
        assert_eq!(running.prompt(&format!("{index}")).by(), other.state.name);
    }
    busy.state.go_on.notify_one();
    assert!(read_until(&mut stream, "0\r\n\r\n").contains("data: two"), "a stream under way is not cut");
    busy.state.unready.store(false, SeqCst);
    running.until_ready(2);
    until("it is used again", || {
        running.prompt("y").by() == busy.state.name || busy.count() > 1 || {
            running.post("/v1/embeddings", &json!({"input": "y"}));
            busy.count() > 1
        }
    });
}

#[test]
fn a_broken_stream_is_sent_to_nobody_else_and_the_client_learns_of_it() {
    let replicas: Vec<Replica> = ["a", "b", "c"].map(Replica::start).into();
    let running = router(&replicas.iter().collect::<Vec<_>>());
    let mut stream = running.begin("/v1/completions", &json!({"prompt": "x", "act": "break", "stream": true}));
    let mut all = String::new();
    // Cut off: the last chunk of length 0 never comes.
    _ = stream.read_to_string(&mut all);
    assert!(all.contains("data: one") && !all.contains("\r\n0\r\n\r\n"), "{all}");
    assert_eq!(replicas.iter().map(Replica::count).sum::<usize>(), 1);
    running.until_ready(3);
    let figures = running.get("/metrics").text;
    let broken =
        figures.lines().filter(|line| line.starts_with("narthex_route_failures_total") && line.ends_with(" 1"));
    assert_eq!(broken.count(), 1, "{figures}");
}

#[test]
fn one_that_ends_without_a_byte_is_left_for_another_once() {
    let replicas: Vec<Replica> = ["a", "b", "c"].map(Replica::start).into();
    let running = router(&replicas.iter().collect::<Vec<_>>());
    // A request that ends whoever takes it does not go to all.
    let reply = running.post("/v1/completions", &json!({"prompt": "x", "act": "die"}));
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (502, &json!("replica_failed")));
    assert_eq!(replicas.iter().map(Replica::count).sum::<usize>(), 2);
    running.until_ready(3);
}

/// Takes connections and ends them without a word, but for those that ask whether it is ready.
fn mute() -> (std::net::SocketAddr, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    use std::io::Write;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, count) =
        (listener.local_addr().unwrap(), std::sync::Arc::<std::sync::atomic::AtomicUsize>::default());
    let counted = count.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut buffer) = (stream.unwrap(), [0; 4096]);
            let length = stream.read(&mut buffer).unwrap_or(0);
            let is_ready = buffer[..length].starts_with(b"GET /ready");
            if is_ready {
                _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            } else if buffer.starts_with(b"POST") {
                counted.fetch_add(1, SeqCst);
            }
        }
    });
    (address, count)
}

#[test]
fn a_connection_that_ends_before_the_first_byte_is_tried_elsewhere() {
    let a = Replica::start("a");
    let (address, count) = mute();
    let running = router_with(&[&a], |options| options.replicas.push(format!("http://{address}")));
    running.until_ready(2);
    for index in 0..20 {
        assert_eq!(running.prompt(&format!("prompt {index}")).by(), "a");
        running.until_ready(2);
    }
    assert!(count.load(SeqCst) > 0, "it was tried");
    assert_eq!(a.count(), 20, "each came once");
    // What makes something is not made twice.
    let mut broken = 0;
    for _ in 0..6 {
        running.until_ready(2);
        let (before, sent) = (a.count(), count.load(SeqCst));
        let reply = running.post("/v1/batches", &json!({"completion_window": "24h"}));
        match reply.status {
            200 => assert_eq!((a.count(), count.load(SeqCst)), (before + 1, sent)),
            status => {
                broken += 1;
                assert_eq!((status, a.count(), count.load(SeqCst)), (502, before, sent + 1));
            }
        }
    }
    assert!(broken > 0, "it was tried");
}

#[test]
fn one_that_dies_is_out_at_once_and_one_that_comes_back_is_used() {
    let (a, mut b) = (Replica::start("a"), Replica::start("b"));
    let running = router(&[&a, &b]);
    b.die();
    for index in 0..12 {
        assert_eq!(running.prompt(&format!("prompt {index}")).by(), "a");
    }
    running.until_ready(1);
    let back = Replica::at("b", b.address);
    running.until_ready(2);
    let mut index = 0;
    until("it is used", || {
        index += 1;
        running.prompt(&format!("another {index}")).by() == "b"
    });
    assert!(index <= 3, "after {index} requests");
    assert_eq!(back.count(), 1);
}

#[test]
fn one_that_is_full_sends_on_and_all_full_is_said_so() {
    let (a, b) = (Replica::start("a"), Replica::start("b"));
    let running = router(&[&a, &b]);
    a.state.refuses.store(true, SeqCst);
    for index in 0..8 {
        assert_eq!(running.prompt(&format!("prompt {index}")).by(), "b");
    }
    b.state.refuses.store(true, SeqCst);
    let reply = running.prompt("x");
    assert_eq!((reply.status, reply.header("retry-after"), reply.text.as_str()), (503, "9", "full"));
    assert!(running.ready(), "both are ready still");
}

#[test]
fn nobody_is_there() {
    let (mut a, b) = (Replica::start("a"), Replica::start("b"));
    let running = router(&[&a, &b]);
    assert!(running.ready());
    a.die();
    b.state.unready.store(true, SeqCst);
    running.until_ready(0);
    for reply in [running.prompt("x"), running.get("/v1/models"), running.get("/ready")] {
        assert_eq!((reply.status, reply.header("retry-after")), (503, "1"));
    }
    assert_eq!(running.prompt("x").json()["error"]["code"], "no_replica");
    assert_eq!(running.get("/health").status, 200);
    b.state.unready.store(false, SeqCst);
    until("one is ready again", || running.ready());
    assert_eq!(running.prompt("x").by(), "b");
}

#[test]
fn a_client_that_leaves_ends_the_work() {
    let a = Replica::start("a");
    let running = router(&[&a]);
    for act in ["stream", "hold"] {
        let mut stream = running.begin("/v1/completions", &json!({"prompt": "x", "act": act}));
        match act {
            "stream" => _ = read_until(&mut stream, "data: one"),
            _ => until("it is sent", || a.state.open.load(SeqCst) == 1),
        }
        assert_eq!(a.state.open.load(SeqCst), 1, "{act}");
        drop(stream);
        until("the replica notices", || a.state.open.load(SeqCst) == 0);
    }
    until("no place is held", || {
        running.get("/metrics").text.contains("requests_in_flight{replica=\"http://127.0.0.1:") && {
            let figures = running.get("/metrics").text;
            figures.lines().any(|line| line.starts_with("narthex_route_requests_in_flight{") && line.ends_with(" 0"))
        }
    });
}

#[test]
fn servers_without_ready_are_asked_for_their_health() {
    use axum::{Router, http::StatusCode, routing::get};
    use std::sync::{Arc, atomic::AtomicBool};
    let (ill, listener) = (Arc::new(AtomicBool::new(false)), TcpListener::bind("127.0.0.1:0").unwrap());
    let (address, is_ill) = (listener.local_addr().unwrap(), ill.clone());
    let health = move || {
        let status = if is_ill.load(SeqCst) { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
        async move { status }
    };
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, Router::new().route("/health", get(health))).await.unwrap();
        });
    });
    let running = router_with(&[], |options| options.replicas.push(format!("http://{address}")));
    running.until_ready(1);
    ill.store(true, SeqCst);
    running.until_ready(0);
}

#[test]
fn the_file_of_replicas_is_read_again() {
    let (a, b) = (Replica::start("a"), Replica::start("b"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("replicas.txt");
    std::fs::write(&path, format!("{}\n", a.url())).unwrap();
    let running = router_with(&[], |options| options.replicas_file = Some(path.clone()));
    assert_eq!(running.prompt("x").by(), "a");
    std::fs::write(&path, format!("{}\n{}\n", a.url(), b.url())).unwrap();
    running.until_ready(2);
    std::fs::write(&path, "nonsense, of another length than before\n").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert_eq!(running.get("/ready").json()["replicas"], 2, "a broken file changes nothing");
    let mut stream = running.begin("/v1/completions", &json!({"prompt": "x", "act": "stream"}));
    read_until(&mut stream, "data: one");
    std::fs::write(&path, format!("{} # a is gone\n", b.url())).unwrap();
    until("a has gone", || running.get("/ready").json()["replicas"] == 1);
    assert_eq!(running.prompt("x").by(), "b");
    for replica in [&a, &b] {
        replica.state.go_on.notify_one();
    }
    read_until(&mut stream, "data: two");
}

#[test]
fn what_comes_back_is_not_asked_on_old_connections() {
    let (a, b) = (Replica::start("a"), Replica::start("old"));
    let running = router(&[&a, &b]);
    for index in 0..8 {
        running.prompt(&format!("prompt {index}")).by();
    }
    // It takes no connections any more, and those that there are stay open for ever.
    let address = b.deaf();
    running.until_ready(1);
    let new = Replica::at("new", address);
    running.until_ready(2);
    let served: Vec<String> = (0..12).map(|index| running.prompt(&format!("another {index}")).by()).collect();
    assert!(!served.contains(&"old".to_string()) && new.count() > 0, "{served:?}");
}
