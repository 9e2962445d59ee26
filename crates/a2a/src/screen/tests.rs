//! Every form of an address that must not be reached, and a listener that counts who came nevertheless.

use super::*;
use std::{
    net::TcpListener,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Judges an address.
fn check(ip: &str, expected: Option<Reason>) {
    assert_eq!(screened(ip.parse().unwrap()).err(), expected, "{ip}");
}

#[test]
fn addresses_of_the_internet_and_all_others() {
    use Reason::*;
    for ip in ["8.8.8.8", "1.1.1.1", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "192.0.1.1"] {
        check(ip, None);
    }
    for ip in ["223.255.255.255", "198.17.0.1", "198.20.0.1", "2606:4700::1111", "2a00:1450::1", "2001:4860::8888"] {
        check(ip, None);
    }
    for (ip, reason) in [
        ("127.0.0.1", Loopback),
        ("127.255.255.254", Loopback),
        ("0.0.0.0", Unspecified),
        ("0.1.2.3", Unspecified),
        ("10.0.0.1", Private),
        ("172.16.0.1", Private),
        ("172.31.255.255", Private),
        ("192.168.1.1", Private),
        ("169.254.169.254", LinkLocal),
        ("100.64.0.1", Shared),
        ("100.127.255.255", Shared),
        ("192.0.0.8", Reserved),
        ("192.0.2.1", Reserved),
        ("192.88.99.1", Reserved),
        ("198.18.0.1", Reserved),
        ("198.19.255.255", Reserved),
        ("198.51.100.1", Reserved),
        ("203.0.113.1", Reserved),
        ("224.0.0.1", Multicast),
        ("239.255.255.255", Multicast),
        ("240.0.0.1", Reserved),
        ("255.255.255.255", Reserved),
        ("::", Unspecified),
        ("::1", Loopback),
        ("::7f00:1", Embedded),
        ("::ffff:127.0.0.1", Embedded),
        ("::ffff:8.8.8.8", Embedded),
        ("::ffff:0:127.0.0.1", Embedded),
        ("64:ff9b::7f00:1", Embedded),
        ("64:ff9b:1::1", Embedded),
        ("2002:7f00:1::", Embedded),
        ("2001::1", Embedded),
        ("2001:2::1", Reserved),
        ("2001:db8::1", Reserved),
        ("3fff::1", Reserved),
        ("100::1", Reserved),
        ("5f00::1", Reserved),
        ("fc00::1", Private),
        ("fd12:3456::1", Private),
        ("fec0::1", Private),
        ("fe80::1", LinkLocal),
        ("ff02::1", Multicast),
    ] {
        check(ip, Some(reason));
    }
}

/// Judges a URL by its form, with `127.0.0.1:9000`, `[::1]` and `hooks.internal` named.
fn check_form(url: &str, allowed: bool) {
    let screen = Screen::new(["127.0.0.1:9000", "::1", "Hooks.Internal"]);
    assert_eq!(screen.check_form(url).is_ok(), allowed, "{url}: {:?}", screen.check_form(url));
}

#[test]
fn urls_in_every_disguise() {
    for url in [
        "https://example.com/hook",
        "http://8.8.8.8:8080/",
        "https://[2606:4700::1111]/",
        "http://127.0.0.1:9000/hook?a=@b",
        "http://[::1]:7000/",
        "https://hooks.internal:8443/",
        "https://example.com/@user",
    ] {
        check_form(url, true);
    }
    for url in [
        "http://127.0.0.1/",
        "http://127.0.0.1:9001/",
        "http://localhost/",
        "http://LOCALHOST/",
        "http://a.localhost/",
        "http://localhost./",
        "http://127.0.0.1./",
        "http://127.1:9000/",
        "http://127.0.1/",
        "http://2130706433/",
        "http://2130706433:9000/",
        "http://0x7f000001/",
        "http://0x7f.0.0.1/",
        "http://0177.0.0.1/",
        "http://017700000001/",
        "http://0/",
        "http://134744072/",
        "http://%31%32%37.0.0.1/",
        "http://\u{ff11}\u{ff12}\u{ff17}.0.0.1/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::]/",
        "http://[64:ff9b::127.0.0.1]/",
        "http://[2002:7f00:1::]/",
        "http://[fe80::1]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://100.64.0.1/",
        "http://user@example.com/",
        "http://user:word@example.com/",
        "http://@example.com/",
        "http://:@example.com/",
        "http://example.com@127.0.0.1/",
        "http://127.0.0.1:9000@example.com/",
        "http://example.com./",
        "http:\\\\127.0.0.1:9000\\",
        "http://exa mple.com/",
        "http://example.com/\r\nHost: a",
        "http:///etc/passwd",
        "http:example.com",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:70/",
        "example.com",
        "",
    ] {
        check_form(url, false);
    }
    check_form(&format!("https://example.com/{}", "a".repeat(URL_BYTES_MAX)), false);
}

/// Looks up to the answers one after the other; the last one stays.
fn answers(answers: Vec<Vec<&'static str>>) -> Lookup {
    let left = Arc::new(Mutex::new(answers));
    Arc::new(move |_| {
        let mut left = left.lock().unwrap();
        let now = if left.len() > 1 { left.remove(0) } else { left[0].clone() };
        Box::pin(async move { Ok(now.iter().map(|ip| ip.parse().unwrap()).collect()) })
    })
}

#[tokio::test]
async fn every_address_of_a_name_is_judged() {
    for (found, refusal) in [
        (vec!["8.8.8.8"], None),
        (vec!["8.8.8.8", "2606:4700::1111"], None),
        (vec!["8.8.8.8", "127.0.0.1"], Some(Refusal::Named(Reason::Loopback))),
        (vec!["::ffff:10.0.0.1"], Some(Refusal::Named(Reason::Embedded))),
        (vec!["169.254.169.254"], Some(Refusal::Named(Reason::LinkLocal))),
        (vec![], Some(Refusal::Unknown("a.example".into()))),
        (vec!["8.8.8.8"; ADDRESSES_MAX + 1], Some(Refusal::Unknown("a.example".into()))),
    ] {
        let screen = Screen::default().with_lookup(answers(vec![found.clone()]));
        assert_eq!(screen.check("https://a.example/").await.err(), refusal, "{found:?}");
    }
    let named = Screen::new(["a.example"]).with_lookup(answers(vec![vec!["10.0.0.1"]]));
    assert!(named.check("https://a.example/").await.is_ok());
}

/// A listener that counts, and answers whoever comes with `answer`.
fn listener(answer: String) -> (u16, Arc<AtomicUsize>) {
    use std::io::{Read, Write};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            counted.fetch_add(1, Ordering::SeqCst);
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (port, count)
}

#[tokio::test]
async fn nothing_that_is_refused_is_connected_to() {
    let (port, count) = listener("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".into());
    // A name that changes after the check: what is connected to is judged again.
    for later in ["127.0.0.1", "::ffff:127.0.0.1", "0.0.0.0", "::1"] {
        let screen = Screen::default().with_lookup(answers(vec![vec!["8.8.8.8"], vec![later]]));
        let url = format!("http://a.example:{port}/");
        assert!(screen.check(&url).await.is_ok());
        let sent = screen.client().build().unwrap().get(&url).send().await;
        assert!(format!("{:?}", sent.unwrap_err()).contains("Named"), "{later}");
    }
    assert_eq!(count.load(Ordering::SeqCst), 0);
    // A redirect to each form of this machine.
    for host in ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "b.example", "u@127.0.0.1"] {
        let location = format!("HTTP/1.1 302 Found\r\nlocation: http://{host}:{port}/\r\ncontent-length: 0\r\n\r\n");
        let (first, asked) = listener(location);
        let allowed = format!("127.0.0.1:{first}");
        let screen = Screen::new([allowed.as_str()]).with_lookup(answers(vec![vec!["127.0.0.1"]]));
        let client = screen.client().redirect(screen.redirects()).build().unwrap();
        assert!(client.get(format!("http://127.0.0.1:{first}/")).send().await.is_err(), "{host}");
        let none = screen.client().build().unwrap().get(format!("http://127.0.0.1:{first}/")).send().await.unwrap();
        assert_eq!((none.status().as_u16(), asked.load(Ordering::SeqCst)), (302, 2), "{host}");
    }
    assert_eq!(count.load(Ordering::SeqCst), 0);
    let allowed = format!("a.example:{port}");
    let named = Screen::new([allowed.as_str()]).with_lookup(answers(vec![vec!["127.0.0.1"]]));
    assert!(named.client().build().unwrap().get(format!("http://a.example:{port}/")).send().await.is_ok());
    assert_eq!(count.load(Ordering::SeqCst), 1, "the listener counts");
}

#[test]
fn hosts_are_named_in_many_ways() {
    for (text, host, port) in [
        ("127.0.0.1", "127.0.0.1", None),
        ("127.0.0.1:80", "127.0.0.1", Some(80)),
        ("::1", "[::1]", None),
        ("[::1]:80", "[::1]", Some(80)),
        ("[::1]", "[::1]", None),
        (" Hooks.Internal:8443 ", "hooks.internal", Some(8443)),
    ] {
        assert_eq!(Allowed::parse(text), Allowed { host: host.into(), port }, "{text}");
    }
}
