//! Screening of addresses that others name: nothing is sent to this machine or to networks behind it, unless whoever
//! runs the server has named the host. A name is looked up once, every address of it is judged, and only a judged
//! address is connected to, so that a name cannot change between the check and the connection. Knows no protocol.

use futures::future::BoxFuture;
use reqwest::{
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use url::{Host, Url};

/// The longest URL that is looked at.
pub const URL_BYTES_MAX: usize = 2048;

/// The most redirects that are followed, where any are.
const REDIRECTS_MAX: usize = 5;

/// The most addresses of one name that are judged; a name with more is refused.
const ADDRESSES_MAX: usize = 64;

/// How long looking up a name and connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why an address is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It is this machine.
    Loopback,
    /// It stands for no or for every address.
    Unspecified,
    /// It is of a private network.
    Private,
    /// It is of the link, where clouds keep their metadata.
    LinkLocal,
    /// It is shared by a carrier's customers (RFC 6598).
    Shared,
    /// It is set aside for protocols, tests or documentation, or for nothing yet.
    Reserved,
    /// It is a group of machines.
    Multicast,
    /// It hides an IPv4 address: mapped, compatible, translated or tunnelled.
    Embedded,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "it is this machine itself",
            Self::Unspecified => "it is the unspecified address",
            Self::Private => "it is of a private network",
            Self::LinkLocal => "it is of the local link",
            Self::Shared => "it is of a carrier's shared network",
            Self::Reserved => "it is reserved",
            Self::Multicast => "it is a multicast address",
            Self::Embedded => "it hides an IPv4 address",
        })
    }
}

/// Whether an address may be connected to: it is one of the public internet.
///
/// # Errors
/// If it is not: why.
pub fn screened(ip: IpAddr) -> Result<(), Reason> {
    match ip {
        IpAddr::V4(ip) => screened_v4(ip),
        IpAddr::V6(ip) => screened_v6(ip),
    }
}

/// By <https://www.iana.org/assignments/iana-ipv4-special-registry>.
fn screened_v4(ip: Ipv4Addr) -> Result<(), Reason> {
    let reason = match ip.octets() {
        [0, ..] => Reason::Unspecified,
        [127, ..] => Reason::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Reason::Private,
        [100, 64..=127, ..] => Reason::Shared,
        [169, 254, ..] => Reason::LinkLocal,
        [192, 0, 0 | 2, _] | [192, 88, 99, _] | [198, 18..=19, ..] | [198, 51, 100, _] | [203, 0, 113, _] => {
            Reason::Reserved
        }
        [224..=239, ..] => Reason::Multicast,
        [240..=255, ..] => Reason::Reserved,
        _ => return Ok(()),
    };
    Err(reason)
}

/// By <https://www.iana.org/assignments/iana-ipv6-special-registry>: only 2000::/3 is of the internet, and of that not
/// what tunnels, translates, tests and documents.
fn screened_v6(ip: Ipv6Addr) -> Result<(), Reason> {
    let reason = match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Reason::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => Reason::Loopback,
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, ..] => Reason::Embedded,
        [0x64, 0xff9b, ..] | [0x2002, ..] | [0x2001, 0, ..] => Reason::Embedded,
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Reason::Private,
        [0xfe80..=0xfebf, ..] => Reason::LinkLocal,
        [0xff00..=0xffff, ..] => Reason::Multicast,
        [0x2001, 1..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Reason::Reserved,
        [0x2000..=0x3fff, ..] => return Ok(()),
        _ => Reason::Reserved,
    };
    Err(reason)
}

/// Why a URL is refused. Says it for a person; names no address that the name has, which is ours to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is no URL that we would ever ask: why.
    Form(&'static str),
    /// The host is an address that is refused.
    Address(Reason),
    /// The host is a name of which an address is refused.
    Named(Reason),
    /// The name cannot be looked up.
    Unknown(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form(why) => f.write_str(why),
            Self::Address(reason) => write!(f, "the host is not one of the public internet: {reason}"),
            Self::Named(reason) => write!(f, "the host has an address that is not of the public internet: {reason}"),
            Self::Unknown(host) => write!(f, "the host {host} cannot be looked up"),
        }
    }
}

impl std::error::Error for Refusal {}

/// Looks a name up. The system's way, unless a test brings its own.
pub type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// What may be connected to: the public internet, and the hosts that were named. Cheap to clone.
#[derive(Clone)]
pub struct Screen {
    allowed: Arc<[Allowed]>,
    lookup: Lookup,
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Screen").field("allowed", &self.allowed).finish_non_exhaustive()
    }
}

/// A host that was named, with or without a port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Allowed {
    host: String,
    port: Option<u16>,
}

impl Default for Screen {
    fn default() -> Self {
        Self::new([])
    }
}

impl Screen {
    /// Allows, besides the public internet, these hosts: names or addresses, each with a port (`127.0.0.1:9000`,
    /// `[::1]:9000`) or for every port (`hooks.internal`).
    pub fn new<'a>(allowed: impl IntoIterator<Item = &'a str>) -> Self {
        let allowed = allowed.into_iter().map(Allowed::parse).collect();
        Self { allowed, lookup: Arc::new(|host| Box::pin(system_lookup(host))) }
    }

    /// The same with another way to look names up.
    pub fn with_lookup(mut self, lookup: Lookup) -> Self {
        self.lookup = lookup;
        self
    }

    /// Judges the form of a URL, and its host if that is an address. A name is judged by [`Self::check`], or when it is
    /// connected to.
    ///
    /// # Errors
    /// If it is not `http` or `https`, names a user, has no host, or a host that is refused or written in a form that
    /// only serves to hide what it is: numbers in other bases, fewer than four of them, a dot at the end.
    pub fn check_form(&self, text: &str) -> Result<Url, Refusal> {
        if text.len() > URL_BYTES_MAX {
            return Err(Refusal::Form("the URL is too long"));
        }
        if text.chars().any(|letter| letter.is_control() || letter.is_whitespace() || letter == '\\') {
            return Err(Refusal::Form("the URL holds spaces, control characters or backslashes"));
        }
        let url = Url::parse(text).map_err(|_| Refusal::Form("it is no URL"))?;
        self.judge(&url, Some(text))?;
        Ok(url)
    }

    /// Judges a URL with all addresses that its host has now.
    ///
    /// # Errors
    /// As [`Self::check_form`]; and if one address of the name is refused, or the name cannot be looked up.
    pub async fn check(&self, text: &str) -> Result<Url, Refusal> {
        let url = self.check_form(text)?;
        if let Some(Host::Domain(name)) = url.host() {
            self.addresses(name.to_string()).await?;
        }
        Ok(url)
    }

    /// A client that connects only to what is screened, follows no redirect, and uses no proxy. Whoever sends with it
    /// calls [`Self::check_form`] first: a client does not look up a host that is an address.
    pub fn client(&self) -> reqwest::ClientBuilder {
        reqwest::Client::builder()
            .tls_backend_preconfigured(tls())
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .dns_resolver(Arc::new(self.clone()))
    }

    /// For a client that follows redirects: each hop is screened as the first URL was.
    pub fn redirects(&self) -> redirect::Policy {
        let screen = self.clone();
        redirect::Policy::custom(move |attempt| {
            if attempt.previous().len() > REDIRECTS_MAX {
                return attempt.error(Refusal::Form("there are too many redirects"));
            }
            let first_is_tls = attempt.previous().first().is_some_and(|url| url.scheme() == "https");
            if first_is_tls && attempt.url().scheme() != "https" {
                return attempt.error(Refusal::Form("a redirect leads from https to http"));
            }
            match screen.judge(attempt.url(), None) {
                Ok(()) => attempt.follow(),
                Err(refusal) => attempt.error(refusal),
            }
        })
    }

    /// `written` is the text that the URL was read from, where there is one.
    fn judge(&self, url: &Url, written: Option<&str>) -> Result<(), Refusal> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Refusal::Form("only http and https URLs are asked"));
        }
        if written.is_some_and(|text| authority(text).is_none_or(str::is_empty)) {
            return Err(Refusal::Form("the URL has no host behind its scheme and two slashes"));
        }
        if !url.username().is_empty() || url.password().is_some() || written.is_some_and(names_a_user) {
            return Err(Refusal::Form("the URL names a user, which hides its host: leave that out"));
        }
        let Some(host) = url.host() else { return Err(Refusal::Form("the URL has no host")) };
        let shown = host.to_string();
        if written.is_some_and(|text| matches!(host, Host::Ipv4(_)) && written_host(text) != Some(shown.as_str())) {
            return Err(Refusal::Form("the host is an address in a disguise: write it as four decimal numbers"));
        }
        if shown.ends_with('.') {
            return Err(Refusal::Form("the host ends with a dot: leave that out"));
        }
        if self.names(&shown, url.port_or_known_default()) {
            return Ok(());
        }
        match host {
            Host::Ipv4(ip) => screened(ip.into()).map_err(Refusal::Address),
            Host::Ipv6(ip) => screened(ip.into()).map_err(Refusal::Address),
            // RFC 6761: these are this machine whatever a resolver says.
            Host::Domain(name) if name == "localhost" || name.ends_with(".localhost") => {
                Err(Refusal::Address(Reason::Loopback))
            }
            Host::Domain(_) => Ok(()),
        }
    }

    /// Whether a host was named for this port. Without a port, for any.
    fn names(&self, host: &str, port: Option<u16>) -> bool {
        self.allowed
            .iter()
            .any(|allowed| allowed.host == host && (allowed.port.is_none() || port.is_none() || allowed.port == port))
    }

    /// All addresses of a name, each of which is allowed.
    async fn addresses(&self, name: String) -> Result<Vec<IpAddr>, Refusal> {
        let found = (self.lookup)(name.clone()).await.map_err(|_| Refusal::Unknown(name.clone()))?;
        if found.is_empty() || found.len() > ADDRESSES_MAX {
            return Err(Refusal::Unknown(name));
        }
        if !self.names(&name, None) {
            // One bad address among good ones is an attack, not an oversight: none of them is used.
            found.iter().try_for_each(|ip| screened(*ip)).map_err(Refusal::Named)?;
        }
        Ok(found)
    }
}

impl Resolve for Screen {
    fn resolve(&self, name: Name) -> Resolving {
        let screen = self.clone();
        Box::pin(async move {
            let found = screen.addresses(name.as_str().to_ascii_lowercase()).await?;
            let addresses: Addrs = Box::new(found.into_iter().map(|ip| SocketAddr::new(ip, 0)));
            Ok(addresses)
        })
    }
}

impl Allowed {
    fn parse(text: &str) -> Self {
        let text = text.trim().to_ascii_lowercase();
        let (host, port) = match text.rsplit_once(':') {
            // A bare IPv6 address has colons of its own.
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => match port.parse() {
                Ok(port) => (host.to_string(), Some(port)),
                Err(_) => (text, None),
            },
            _ => (text, None),
        };
        let host = match host.parse::<Ipv6Addr>() {
            Ok(ip) => format!("[{ip}]"),
            Err(_) => host,
        };
        Self { host, port }
    }
}

async fn system_lookup(host: String) -> io::Result<Vec<IpAddr>> {
    Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
}

/// What stands between `//` and the path.
fn authority(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("//")?;
    Some(rest.split(['/', '?', '#']).next().unwrap_or(rest))
}

/// Even an empty user is refused: `http://@host` has no other use than to confuse readers.
fn names_a_user(text: &str) -> bool {
    authority(text).is_none_or(|authority| authority.contains('@'))
}

/// The host as it was written, without the port.
fn written_host(text: &str) -> Option<&str> {
    let authority = authority(text)?;
    Some(authority.rsplit_once(':').map_or(authority, |(host, _)| host))
}

/// TLS 1.2 and 1.3 by ring, with Mozilla's list of authorities: neither the system's list nor its provider is asked.
fn tls() -> rustls::ClientConfig {
    let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

#[cfg(test)]
mod tests;
