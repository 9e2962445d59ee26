//! Which URLs may be asked: schemes, hosts, ports, and addresses that stand in a URL themselves. Resolves no names and
//! connects to nothing.

use narthex_base::Error;
use reqwest::Url;
use std::net::IpAddr;

/// Hosts that a setting may name.
pub const HOSTS_MAX: usize = 256;
/// Characters of a URL.
pub const URL_CHARS_MAX: usize = 8192;
/// The ports that are asked where no setting says otherwise.
const PORTS: [u16; 2] = [80, 443];

/// Says what an address is instead of one that may be connected to; `None` if it may.
pub type Screen = fn(IpAddr) -> Option<&'static str>;

/// How a URL that may be asked is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To addresses that the [`Screen`] lets pass alone.
    Screened,
    /// To whatever address the host has: the operator named host and port.
    Exempt,
}

/// What may be asked.
#[derive(Clone, Debug)]
pub struct Rules {
    hosts: Vec<Pattern>,
    exempt: Vec<(String, Vec<u16>)>,
    screen: Screen,
}

/// `*`, `*.example.org` or `example.org`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Any,
    /// With its leading dot.
    Below(String),
    Host(String),
}

impl Rules {
    /// `hosts` are patterns of public hosts: `*`, `*.example.org` (all below it), `example.org`. `allow_hosts` are
    /// `HOST` or `HOST:PORT`, wherever they may be; without a port, 80 and 443.
    ///
    /// # Errors
    /// If one is not of this form, or there are more than [`HOSTS_MAX`].
    pub fn new(hosts: &[String], allow_hosts: &[String], screen: Screen) -> Result<Self, Error> {
        if hosts.len().max(allow_hosts.len()) > HOSTS_MAX {
            return Err(Error::input(format!("more than {HOSTS_MAX} hosts"))
                .help("take a pattern for many, such as `*.example.org`"));
        }
        let hosts = hosts.iter().map(|host| Pattern::parse(host)).collect::<Result<_, _>>()?;
        let exempt = allow_hosts.iter().map(|host| parse_exempt(host)).collect::<Result<_, _>>()?;
        Ok(Self { hosts, exempt, screen })
    }

    /// Whether a URL may be asked, and how.
    ///
    /// # Errors
    /// What is wrong with it and what to do, for the model.
    pub fn judge(&self, url: &Url) -> Result<Way, String> {
        if url.as_str().len() > URL_CHARS_MAX {
            return Err(format!("the URL has more than {URL_CHARS_MAX} characters"));
        }
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("`{}` URLs are not asked: use http or https", shorten(url.scheme())));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("the URL holds a user name or a password: leave it out".into());
        }
        let host = url.host_str().ok_or("the URL names no host")?;
        let port = url.port_or_known_default().ok_or("the URL names no port")?;
        if host.ends_with('.') {
            return Err(format!("write the host without its last dot: `{}`", shorten(host.trim_end_matches('.'))));
        }
        if self.exempt.iter().any(|(name, ports)| name == host && ports.contains(&port)) {
            return Ok(Way::Exempt);
        }
        let shown = shorten(host);
        if !PORTS.contains(&port) {
            return Err(format!(
                "port {port} of `{shown}` is not asked, only 80 and 443; the operator can allow it with `allow_hosts = \
                 [\"{shown}:{port}\"]`"
            ));
        }
        if let Some(what) = address_of(url).and_then(self.screen) {
            return Err(format!(
                "`{shown}` is an address {what}, which is not asked: ask a host of the public internet"
            ));
        }
        if !self.hosts.iter().any(|pattern| pattern.holds(host)) {
            return Err(format!("`{shown}` is none of the hosts that this tool may ask: {}", self.listed()));
        }
        Ok(Way::Screened)
    }

    /// The hosts that may be asked, for a description.
    pub fn listed(&self) -> String {
        const LISTED_MAX: usize = 20;
        let shown = |pattern: &Pattern| match pattern {
            Pattern::Any => "any public host".into(),
            Pattern::Below(host) => format!("*{host}"),
            Pattern::Host(host) => host.clone(),
        };
        let exempt =
            self.exempt.iter().flat_map(|(host, ports)| ports.iter().map(move |port| format!("{host}:{port}")));
        let all: Vec<String> = self.hosts.iter().map(shown).chain(exempt).collect();
        let more = if all.len() > LISTED_MAX { " and others" } else { "" };
        format!("{}{more}", all[..all.len().min(LISTED_MAX)].join(", "))
    }

    /// What an address is instead of one that may be connected to.
    pub fn screen(&self) -> Screen {
        self.screen
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, Error> {
        match text.strip_prefix('*') {
            Some("") => Ok(Self::Any),
            Some(rest) if rest.starts_with('.') => Ok(Self::Below(format!(".{}", parse_host(&rest[1..], text)?.0))),
            _ => match parse_host(text, text)? {
                (host, None) => Ok(Self::Host(host)),
                (_, Some(port)) => Err(wrong_host(text)
                    .cause(format!("hosts stand without a port, this one has {port}"))
                    .help(format!("to ask that port: `allow_hosts = [\"{text}\"]`"))),
            },
        }
    }

    fn holds(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Below(end) => host.ends_with(end.as_str()) && host.len() > end.len(),
            Self::Host(name) => name == host,
        }
    }
}

/// The address that stands in a URL. The URL's parser has read decimal, octal and hexadecimal forms already.
fn address_of(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn wrong_host(text: &str) -> Error {
    Error::input(format!("`{}` is not a host", shorten(text)))
        .help("write `example.org`, `*.example.org`, `*`, or in `allow_hosts` `localhost:8000`")
}

/// A host in the form that URLs give it, and its port if one is written.
fn parse_host(host: &str, whole: &str) -> Result<(String, Option<u16>), Error> {
    // A port that is a scheme's own is dropped by the parser: read with two schemes, one of them shows it.
    let urls: Vec<Url> =
        ["http", "https"].iter().filter_map(|scheme| format!("{scheme}://{host}/").parse().ok()).collect();
    let plain = |url: &&Url| {
        url.path() == "/" && url.query().is_none() && url.fragment().is_none() && url.username().is_empty()
    };
    let url = urls.first().filter(plain).ok_or_else(|| wrong_host(whole))?;
    let name = url.host_str().unwrap_or_default();
    if name.is_empty() || name.contains(['*', '%']) || name.ends_with('.') || host.ends_with('/') {
        return Err(wrong_host(whole));
    }
    Ok((name.into(), urls.iter().find_map(Url::port)))
}

fn parse_exempt(text: &str) -> Result<(String, Vec<u16>), Error> {
    let (host, port) = parse_host(text, text)?;
    Ok((host, port.map_or(PORTS.to_vec(), |port| vec![port])))
}

/// What was given, short enough for a message.
fn shorten(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 100;
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outside::address::refusal;

    fn rules(hosts: &[&str], allow_hosts: &[&str]) -> Result<Rules, Error> {
        let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        Rules::new(&owned(hosts), &owned(allow_hosts), refusal)
    }

    fn check(rules: &Rules, url: &str, expected: Result<Way, &str>) {
        let outcome = url.parse::<Url>().map_err(|error| error.to_string()).and_then(|url| rules.judge(&url));
        match (outcome, expected) {
            (Ok(way), Ok(expected)) => assert_eq!(way, expected, "{url}"),
            (Err(message), Err(part)) => assert!(message.contains(part), "{url}: {message}"),
            (outcome, expected) => panic!("{url}: {outcome:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn urls_are_judged() {
        let any = rules(&["*"], &[]).unwrap();
        for (url, expected) in [
            ("https://example.org/a?b#c", Ok(Way::Screened)),
            ("http://example.org:80/", Ok(Way::Screened)),
            ("http://1.1.1.1/", Ok(Way::Screened)),
            ("http://[2606:4700::1]/", Ok(Way::Screened)),
            // Names are screened when they are resolved.
            ("http://localhost/", Ok(Way::Screened)),
            ("http://127.0.0.1/", Err("of this machine")),
            ("http://2130706433/", Err("of this machine")),
            ("http://0x7f000001/", Err("of this machine")),
            ("http://0x7f.1/", Err("of this machine")),
            ("http://0177.0.0.1/", Err("of this machine")),
            ("http://017700000001/", Err("of this machine")),
            ("http://127.1/", Err("of this machine")),
            ("http://0/", Err("of this machine")),
            ("http://%31%32%37.0.0.1/", Err("of this machine")),
            ("http://１２７.0.0.1/", Err("of this machine")),
            ("http://127。0。0。1/", Err("of this machine")),
            ("http:\\\\127.0.0.1\\", Err("of this machine")),
            ("http://127.0.0.1./", Err("of this machine")),
            ("http://example.org./", Err("last dot")),
            ("http://localhost./", Err("last dot")),
            ("http://169.254.169.254/latest/", Err("link-local")),
            ("http://2852039166/", Err("link-local")),
            ("http://0xa9fea9fe/", Err("link-local")),
            ("http://100.64.0.1/", Err("provider")),
            ("http://192.0.0.1/", Err("reserved")),
            ("http://198.18.0.1/", Err("measurements")),
            ("http://240.0.0.1/", Err("reserved")),
            ("http://224.0.0.1/", Err("multicast")),
            ("http://10.0.0.1/", Err("private")),
            ("http://[::1]/", Err("of this machine")),
            ("http://[::]/", Err("of this machine")),
            ("http://[::ffff:127.0.0.1]/", Err("of this machine")),
            ("http://[::ffff:7f00:1]/", Err("of this machine")),
            ("http://[64:ff9b::7f00:1]/", Err("relay")),
            ("http://[64:ff9b::127.0.0.1]/", Err("relay")),
            ("http://[2002:7f00:1::]/", Err("relay")),
            ("http://[fd00::1]/", Err("private")),
            ("http://[fe80::1]/", Err("link-local")),
            ("http://[fe80::1%25eth0]/", Err("")),
            ("http://256.256.256.256/", Err("")),
            ("http://user@example.org/", Err("user name")),
            ("http://:pass@example.org/", Err("user name")),
            ("http://example.org@127.0.0.1/", Err("user name")),
            ("http://example.org:22/", Err("port 22")),
            ("http://example.org:8080/", Err("port 8080")),
            ("ftp://example.org/", Err("`ftp`")),
            ("file:///etc/passwd", Err("`file`")),
            ("gopher://127.0.0.1/", Err("`gopher`")),
            ("data:text/plain,a", Err("`data`")),
        ] {
            check(&any, url, expected);
        }
        check(&any, &format!("http://example.org/{}", "a".repeat(URL_CHARS_MAX)), Err("characters"));
    }

    #[test]
    fn hosts_are_listed() {
        let some = rules(
            &["docs.rs", "*.Example.org", "bücher.example"],
            &["localhost:8000", "10.0.0.5", "[::1]:81", "0x7f.1:80"],
        )
        .unwrap();
        for (url, expected) in [
            ("https://docs.rs/", Ok(Way::Screened)),
            ("https://DOCS.RS/", Ok(Way::Screened)),
            ("https://xn--bcher-kva.example/", Ok(Way::Screened)),
            ("https://a.b.example.org/", Ok(Way::Screened)),
            ("https://example.org/", Err("none of the hosts")),
            ("https://evilexample.org/", Err("none of the hosts")),
            ("https://docs.rs.evil.example/", Err("none of the hosts")),
            ("http://localhost:8000/", Ok(Way::Exempt)),
            ("http://LOCALHOST:8000/", Ok(Way::Exempt)),
            ("http://localhost:8001/", Err("port 8001")),
            ("http://localhost/", Err("none of the hosts")),
            ("http://10.0.0.5/", Ok(Way::Exempt)),
            ("https://10.0.0.5/", Ok(Way::Exempt)),
            ("http://10.0.0.5:8000/", Err("port 8000")),
            ("http://10.0.0.6/", Err("private")),
            ("http://[::1]:81/", Ok(Way::Exempt)),
            ("http://127.0.0.1:80/", Ok(Way::Exempt)),
            ("https://127.0.0.1/", Err("of this machine")),
            ("http://user@localhost:8000/", Err("user name")),
        ] {
            check(&some, url, expected);
        }
        for (hosts, allow_hosts) in [
            (vec!["exa mple"], vec![]),
            (vec!["https://example.org"], vec![]),
            (vec!["example.org/path"], vec![]),
            (vec!["a.*.org"], vec![]),
            (vec!["*example.org"], vec![]),
            (vec!["example.org:8000"], vec![]),
            (vec![""], vec![]),
            (vec![], vec!["*:80"]),
            (vec![], vec!["me@localhost"]),
            (vec![], vec!["localhost:99999"]),
            (vec!["*"; HOSTS_MAX + 1], vec![]),
        ] {
            let error = rules(&hosts, &allow_hosts).unwrap_err();
            assert!(error.help_text().is_some(), "{error}");
        }
    }
}
