//! Attacks on what reaches out, against listeners that count. In these tests 127.0.0.1 is the forbidden address, and
//! 127.0.0.2 stands for the public internet.

use super::{address::refusal, names::Names, *};
use crate::listener::{Listener, answer};
use futures::future::BoxFuture;
use std::{
    collections::HashMap,
    io::{self, Write},
    net::IpAddr,
    sync::Mutex,
};

const LIMITS: Limits = Limits { wall_ms: 10_000, body_bytes_max: 10_000, redirects_max: 3 };

/// Answers of a name server, one after the other; the last stays.
struct Scripted(Mutex<HashMap<&'static str, Vec<Vec<&'static str>>>>);

impl Names for Scripted {
    fn addresses(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let mut script = self.0.lock().unwrap();
        let found = script.get_mut(name.as_str()).map(|answers| match answers.len() {
            1 => answers[0].clone(),
            _ => answers.remove(0),
        });
        let found = found.ok_or_else(|| io::Error::other("no such name"));
        Box::pin(async move { Ok(found?.iter().map(|address| address.parse().unwrap()).collect()) })
    }
}

/// As the real one, but for 127.0.0.2.
fn screen(address: IpAddr) -> Option<&'static str> {
    if address.to_string() == "127.0.0.2" { None } else { refusal(address) }
}

fn outside(allow_hosts: &[String], script: &[(&'static str, &[&[&'static str]])]) -> Outside {
    let rules = Rules::new(&["*".into()], allow_hosts, screen).unwrap();
    let script = script.iter().map(|(name, answers)| (*name, answers.iter().map(|one| one.to_vec()).collect()));
    Outside::with_names(rules, LIMITS, Arc::new(Scripted(Mutex::new(script.collect())))).unwrap()
}

async fn get(outside: &Outside, url: &str) -> Result<Answered, OutsideFailure> {
    outside.send(Asking::get(url.parse().unwrap())).await
}

#[tokio::test]
async fn names_are_screened_before_a_packet() {
    let inner = Listener::saying("200 OK", "", "secret");
    let port = inner.address.port();
    let forms: [&[&'static str]; 16] = [
        &["127.0.0.1"],
        &["127.0.0.2", "127.0.0.1"],
        &["127.0.0.1", "127.0.0.2"],
        &["10.0.0.1"],
        &["169.254.169.254"],
        &["100.64.0.1"],
        &["192.0.0.1"],
        &["198.18.0.1"],
        &["240.0.0.1"],
        &["0.0.0.0"],
        &["::1"],
        &["fd00::1"],
        &["fe80::1"],
        &["::ffff:127.0.0.1"],
        &["64:ff9b::7f00:1"],
        &["2002:7f00:1::"],
    ];
    for form in forms {
        let outside = outside(&[], &[("evil.example", &[form])]);
        let failure = get(&outside, "http://evil.example/").await.unwrap_err();
        assert!(failure.message.contains("`evil.example` resolves to an address"), "{form:?}: {failure:?}");
        assert!(failure.unsent, "{form:?}");
    }
    // The exemption is for that host and port, whatever resolves there.
    let exempt = outside(&[format!("here.example:{port}")], &[("here.example", &[&["127.0.0.1"]])]);
    let other = get(&exempt, &format!("http://127.0.0.1:{port}/")).await.unwrap_err();
    assert!(other.unsent && inner.connects() == 0);
    assert_eq!(get(&exempt, &format!("http://here.example:{port}/")).await.unwrap().body, b"secret");
    assert_eq!(inner.connects(), 1);
}

#[tokio::test]
async fn a_name_that_changes_its_address_reaches_nothing() {
    // Both listen on one port: only the address tells them apart.
    let inner = Listener::saying("200 OK", "", "secret");
    let port = inner.address.port();
    let public = Listener::at(&format!("127.0.0.2:{port}"), |_, stream| {
        drop(stream.write_all(answer("200 OK", "", "public").as_bytes()));
    });
    let rules = Rules::new(&["*".into()], &[], screen).unwrap();
    let script = HashMap::from([("rebind.example", vec![vec!["127.0.0.2"], vec!["127.0.0.1"]])]);
    let client = Outside::with_names(rules, LIMITS, Arc::new(Scripted(Mutex::new(script)))).unwrap().screened;
    let ask = async || client.get(format!("http://rebind.example:{port}/")).send().await;
    assert_eq!(ask().await.unwrap().text().await.unwrap(), "public");
    assert!(ask().await.is_err());
    assert_eq!((public.connects(), inner.connects()), (1, 0));
}

#[tokio::test]
async fn every_hop_is_judged() {
    let inner = Listener::saying("200 OK", "", "secret");
    let port = inner.address.port();
    let targets = [
        (format!("http://127.0.0.1:{port}/"), "port"),
        ("http://169.254.169.254/latest/meta-data/".into(), "link-local"),
        ("http://0xa9fea9fe/".into(), "link-local"),
        ("http://[::ffff:169.254.169.254]/".into(), "link-local"),
        ("//127.0.0.1/".into(), "of this machine"),
        ("\\\\127.0.0.1\\".into(), "of this machine"),
        ("http://evil.example/".into(), "resolves to"),
        ("http://me@example.org/".into(), "user name"),
        ("file:///etc/passwd".into(), "`file`"),
        ("http://[".into(), "not a URL"),
    ];
    for (target, part) in targets {
        let from = Listener::saying("302 Found", &format!("location: {target}\r\n"), "");
        let outside = outside(&[from.host()], &[("evil.example", &[&["127.0.0.1"]])]);
        let failure = get(&outside, &from.url("/")).await.unwrap_err();
        assert!(failure.message.contains(part) && !failure.unsent, "{target}: {failure:?}");
        assert_eq!((from.connects(), inner.connects()), (1, 0), "{target}");
    }
    let round = Listener::saying("302 Found", "location: /again\r\n", "");
    let failure = get(&outside(&[round.host()], &[]), &round.url("/")).await.unwrap_err();
    assert!(failure.message.contains("more than 3 redirects"), "{failure:?}");
    assert_eq!(round.connects(), 4);
    // Without an address it is an answer.
    let bare = Listener::saying("302 Found", "", "nowhere");
    assert_eq!(get(&outside(&[bare.host()], &[]), &bare.url("/")).await.unwrap().status, 302);
}

#[tokio::test]
async fn headers_and_bodies_stay_with_their_origin() {
    let to = Listener::saying("200 OK", "", "there");
    for (status, method, is_other, expected) in [
        ("302 Found", "GET", false, Ok(("GET", true, false))),
        ("302 Found", "GET", true, Ok(("GET", false, false))),
        ("307 Temporary Redirect", "GET", true, Ok(("GET", false, false))),
        ("302 Found", "POST", false, Ok(("GET", true, false))),
        ("303 See Other", "PUT", true, Ok(("GET", false, false))),
        ("307 Temporary Redirect", "POST", false, Ok(("POST", true, true))),
        ("307 Temporary Redirect", "POST", true, Err("another host")),
        ("308 Permanent Redirect", "DELETE", true, Err("another host")),
        ("302 Found", "DELETE", true, Err("another host")),
    ] {
        let location = if is_other { to.url("/there") } else { "/there".into() };
        let redirect = answer(status, &format!("location: {location}\r\n"), "");
        let from = Listener::at("127.0.0.1:0", move |request, stream| {
            let there = request.split(' ').nth(1) == Some("/there");
            let whole = if there { answer("200 OK", "", "there") } else { redirect.clone() };
            drop(stream.write_all(whole.as_bytes()));
        });
        let outside = outside(&[from.host(), to.host()], &[]);
        let mut asking = Asking::get(from.url("/").parse().unwrap());
        asking.method = method.parse().unwrap();
        asking.headers.insert("authorization", secret_value("Bearer s3cret").unwrap());
        asking.headers.insert("x-own", HeaderValue::from_static("s3cret"));
        asking.body = (method != "GET").then(|| ("application/json".into(), b"{\"a\":1}".to_vec()));
        let outcome = outside.send(asking).await;
        let case = format!("{status} {method} {is_other}");
        match expected {
            Err(part) => assert!(outcome.unwrap_err().message.contains(part), "{case}"),
            Ok((method, keeps_headers, keeps_body)) => {
                assert_eq!(outcome.unwrap().body, b"there", "{case}");
                let last = if is_other { to.requests() } else { from.requests() }.pop().unwrap();
                assert!(last.starts_with(&format!("{method} /there ")), "{case}: {last}");
                assert_eq!(last.contains("s3cret"), keeps_headers, "{case}: {last}");
                assert_eq!(last.contains("{\"a\":1}"), keeps_body, "{case}: {last}");
            }
        }
    }
}

#[tokio::test]
async fn bodies_are_bounded() {
    // A hundred megabytes that are announced, a body without an end, and one that is as long as it may be.
    let long = Listener::at("127.0.0.1:0", |_, stream| {
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 104857600\r\n\r\n"));
        while stream.write_all(&[b'a'; 65536]).is_ok() {}
    });
    let endless = Listener::at("127.0.0.1:0", |_, stream| {
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"));
        while stream.write_all(b"5\r\naaaaa\r\n").is_ok() {}
    });
    let fits = Listener::saying("200 OK", "content-type: text/x\r\n", &"a".repeat(LIMITS.body_bytes_max));
    for (listener, is_cut) in [(long, true), (endless, true), (fits, false)] {
        let answered = get(&outside(&[listener.host()], &[]), &listener.url("/")).await.unwrap();
        assert_eq!((answered.body.len(), answered.is_cut), (LIMITS.body_bytes_max, is_cut));
    }
    // One that never comes: the wall clock ends it.
    let silent = Listener::at("127.0.0.1:0", |_, stream| {
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"));
        std::thread::park();
    });
    let rules = Rules::new(&[], &[silent.host()], screen).unwrap();
    let short = Outside::new(rules, Limits { wall_ms: 50, ..LIMITS }).unwrap();
    let failure = get(&short, &silent.url("/")).await.unwrap_err();
    assert!(failure.message.contains("within 50 ms") && !failure.unsent, "{failure:?}");
}

#[tokio::test]
async fn failures_name_no_secret() {
    let gone = { std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string() };
    let outside = outside(std::slice::from_ref(&gone), &[]);
    let mut asking = Asking::get(format!("http://{gone}/?key=s3cret").parse().unwrap());
    asking.headers.insert("authorization", secret_value("Bearer s3cret").unwrap());
    assert!(!format!("{asking:?}").contains("Bearer"));
    let failure = outside.send(asking).await.unwrap_err();
    assert!(failure.unsent && failure.message.contains("cannot be reached"), "{failure:?}");
    assert!(!failure.message.contains("s3cret"), "{failure:?}");
    assert!(!secret_value("a\nb").unwrap_err().to_string().contains("a\nb"));
    let client = outside.client(&"http://127.0.0.1/".parse().unwrap());
    assert!(client.unwrap_err().unsent);
}

/// Run in a process of its own by [`proxies_of_the_environment_are_ignored`].
#[tokio::test]
#[ignore = "asks only where the other test says what"]
async fn asks_with_a_proxy_in_the_environment() {
    let url = std::env::var("TEST_URL").unwrap();
    let host = url.trim_start_matches("http://").trim_end_matches('/').to_string();
    assert_eq!(get(&outside(&[host], &[]), &url).await.unwrap().body, b"direct");
}

#[test]
fn proxies_of_the_environment_are_ignored() {
    let (proxy, server) = (Listener::saying("200 OK", "", "proxied"), Listener::saying("200 OK", "", "direct"));
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "outside::tests::asks_with_a_proxy_in_the_environment", "--ignored"]);
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        child.env(name, proxy.url(""));
    }
    let output = child.env_remove("NO_PROXY").env_remove("no_proxy").env("TEST_URL", server.url("/")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!((proxy.connects(), server.connects()), (0, 1));
}
