//! Requests to the Hub: redirects followed by hand, so that the token goes to the Hub's own host alone; waits and
//! further tries where the Hub or the network asks for them. Knows headers and limits, nothing of repositories.

use super::{Checksum, HubSettings};
use narthex_base::{Error, Observer, Result};
use serde_json::Value;
use std::{
    fs,
    io::Read,
    thread,
    time::{Duration, Instant},
};
use ureq::{
    Agent, Body, http,
    http::{HeaderMap, Uri, header},
    tls::{PemItem, RootCerts, TlsConfig, parse_pem},
};

/// Redirects that one request may take.
pub(super) const REDIRECTS_MAX: usize = 8;
/// Tries in a row that bring nothing.
pub(super) const TRIES_MAX: u32 = 5;
/// The longest wait that the Hub may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// The largest answer of the API: some ten thousand files with their digests.
pub(super) const JSON_BYTES_MAX: u64 = 16 << 20;
/// The largest file of certificates.
const CERTIFICATES_BYTES_MAX: u64 = 16 << 20;
/// Until a connection stands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Between a request and the beginning of its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two pieces of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a wait looks whether it is to stop.
const POLL: Duration = Duration::from_millis(50);

pub(super) struct Client {
    agent: Agent,
    endpoint: Uri,
    base: String,
    token: Option<String>,
    backoff: Duration,
    warnings: Vec<String>,
}

/// An answer whose body is still to be read.
pub(super) struct Reply {
    pub status: u16,
    /// The headers of the last answer.
    pub headers: HeaderMap,
    pub body: Body,
    /// What the Hub itself said on the way to it.
    pub told: Told,
}

/// What the Hub says of a file, whoever sends its bytes.
#[derive(Default, Debug)]
pub(super) struct Told {
    pub commit: Option<String>,
    pub checksum: Option<Checksum>,
    pub bytes: Option<u64>,
}

/// Why a request brought nothing.
pub(super) enum Failure {
    /// Another try may help, after this time if the Hub names one.
    Passing(Error, Option<Duration>),
    /// Another try would not help.
    Final(Error),
}

impl Client {
    pub fn new(settings: &HubSettings) -> Result<Self> {
        let wrong = |cause: &str| {
            Error::input(format!("HF_ENDPOINT is no address: `{}`", settings.endpoint))
                .cause(cause)
                .help("write it as `https://huggingface.co`")
        };
        let endpoint: Uri =
            settings.endpoint.parse().map_err(|error: http::uri::InvalidUri| wrong(&error.to_string()))?;
        if !matches!(endpoint.scheme_str(), Some("http" | "https")) || endpoint.host().is_none() {
            return Err(wrong("it needs http:// or https:// and a host"));
        }
        if endpoint.query().is_some() || endpoint.authority().is_some_and(|authority| authority.as_str().contains('@'))
        {
            return Err(wrong("it may hold neither a query nor a password"));
        }
        let mut tls = TlsConfig::builder();
        if let Some(path) = &settings.certificates {
            tls = tls.root_certs(RootCerts::from(certificates(path)?.into_iter()));
        }
        // What is on this machine is not asked for through a proxy.
        let is_local = endpoint.host().is_some_and(is_loopback);
        let proxy = if is_local { None } else { ureq::Proxy::try_from_env() };
        let agent = Agent::config_builder()
            .proxy(proxy)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(ANSWER_TIMEOUT))
            .timeout_per_read(Some(READ_TIMEOUT))
            .user_agent(concat!("narthex/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls.build())
            .build()
            .into();
        let mut warnings = Vec::new();
        let is_safe = endpoint.scheme_str() == Some("https") || endpoint.host().is_some_and(is_loopback);
        if settings.token.is_some() && !is_safe {
            warnings.push(format!("the token is not sent: {} is not encrypted", settings.endpoint));
        }
        Ok(Self {
            agent,
            base: settings.endpoint.clone(),
            endpoint,
            token: settings.token.clone().filter(|_| is_safe),
            backoff: settings.backoff,
            warnings,
        })
    }

    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// The address of the Hub without a slash at the end.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// One try at a path of the Hub, from this byte on. Redirects are followed; any status but those that pass by
    /// themselves (429, 5xx) is an answer.
    pub fn get(&self, path: &str, from_byte: u64) -> Result<Reply, Failure> {
        let mut address = format!("{}{path}", self.base);
        let mut told = Told::default();
        for _ in 0..=REDIRECTS_MAX {
            let uri: Uri = address.parse().map_err(|error: http::uri::InvalidUri| {
                Failure::Final(Error::input("the Hub names an address that is none").cause(error))
            })?;
            let is_hub = self.is_hub(&uri);
            let mut request = self.agent.get(uri.clone());
            if from_byte > 0 {
                request = request.header(header::RANGE, format!("bytes={from_byte}-"));
            }
            if is_hub && let Some(token) = &self.token {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            let response = request.call().map_err(|error| unreachable_host(&uri, error))?;
            let (parts, body) = response.into_parts();
            let status = parts.status.as_u16();
            if is_hub {
                told.take(&parts.headers, !parts.status.is_redirection());
            }
            if matches!(status, 301 | 302 | 303 | 307 | 308) {
                let location = parts.headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
                address = target(&uri, location).map_err(Failure::Final)?;
                continue;
            }
            if status == 429 || status >= 500 {
                let error = Error::input(format!("{} answers {status} {}", place(&uri), reason(parts.status)));
                return Err(Failure::Passing(error, retry_after(&parts.headers)));
            }
            return Ok(Reply { status, headers: parts.headers, body, told });
        }
        Err(Failure::Final(
            Error::input(format!("{} redirects more than {REDIRECTS_MAX} times", self.base))
                .cause(format!("the request was for {path}"))
                .help("check HF_ENDPOINT"),
        ))
    }

    /// An answer of the API as JSON, or the status and headers of a refusal.
    pub fn json(&self, path: &str, observer: Observer) -> Result<Result<Value, (u16, HeaderMap)>> {
        let mut tries = Tries::new(self.backoff);
        loop {
            let failure = match self.get(path, 0) {
                Err(failure) => failure,
                Ok(reply) if reply.status != 200 => return Ok(Err((reply.status, reply.headers))),
                Ok(reply) => match read_limited(reply.body) {
                    Ok(bytes) => {
                        let value = serde_json::from_slice(&bytes).map_err(|error| {
                            Error::input(format!("{} does not answer as the Hub's API does", self.base))
                                .cause(format!("{path}: {error}"))
                                .help("check HF_ENDPOINT")
                        })?;
                        return Ok(Ok(value));
                    }
                    Err(failure) => failure,
                },
            };
            tries.again(failure, observer)?;
        }
    }

    pub fn tries(&self) -> Tries {
        Tries::new(self.backoff)
    }

    /// Whether an address is on the Hub's own host: the same scheme, host and port.
    fn is_hub(&self, uri: &Uri) -> bool {
        let port = |uri: &Uri| uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let same_host = uri.host().zip(self.endpoint.host()).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b));
        same_host && uri.scheme() == self.endpoint.scheme() && port(uri) == port(&self.endpoint)
    }
}

impl Told {
    fn take(&mut self, headers: &HeaderMap, is_last: bool) {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        self.commit = self.commit.take().or_else(|| text("x-repo-commit").map(str::to_string));
        self.bytes = self.bytes.or_else(|| text("x-linked-size").and_then(|size| size.parse().ok()));
        // The tag of what is linked to is that of the file; the plain one only where no link is in between.
        let tag = text("x-linked-etag").or_else(|| text("etag").filter(|_| is_last));
        self.checksum = self.checksum.take().or_else(|| tag.and_then(Checksum::from_tag));
    }
}

/// Counts tries that bring nothing, and waits between them.
pub(super) struct Tries {
    failed: u32,
    backoff: Duration,
}

impl Tries {
    fn new(backoff: Duration) -> Self {
        Self { failed: 0, backoff }
    }

    /// Something came: the count begins anew.
    pub fn progress(&mut self) {
        self.failed = 0;
    }

    /// Waits for the next try.
    ///
    /// # Errors
    /// If there is none: the failure is final, there were [`TRIES_MAX`], or the Hub asks for too long a wait.
    pub fn again(&mut self, failure: Failure, observer: Observer) -> Result<()> {
        let (error, asked) = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Passing(error, asked) => (error, asked),
        };
        self.failed += 1;
        if self.failed >= TRIES_MAX {
            let error = error.cause(format!("{TRIES_MAX} tries in a row"));
            return Err(match error.help_text() {
                Some(_) => error,
                None => error.help("run the same command again later: what is fetched already stays"),
            });
        }
        let wait = asked.unwrap_or(self.backoff * (1 << (self.failed - 1)));
        if wait > RETRY_AFTER_MAX {
            return Err(error.help(format!(
                "the Hub asks to wait for {} s: run the same command again then; with a token (HF_TOKEN) it allows more",
                wait.as_secs()
            )));
        }
        if wait > Duration::from_secs(5) {
            observer.warn(format!("{}; the next try is in {} s", error.what(), wait.as_secs()));
        }
        let begun = Instant::now();
        while begun.elapsed() < wait {
            observer.check()?;
            thread::sleep(POLL.min(wait));
        }
        observer.check()
    }
}

/// Where a redirect leads.
fn target(from: &Uri, location: Option<&str>) -> Result<String> {
    let refuse = |cause: String| {
        Error::input(format!("{} redirects to where nothing is fetched from", place(from))).cause(cause)
    };
    let location = location.ok_or_else(|| refuse("the answer names no place".into()))?;
    if location.starts_with('/') && !location.starts_with("//") {
        let authority = from.authority().map(|authority| authority.as_str()).unwrap_or_default();
        return Ok(format!("{}://{authority}{location}", from.scheme_str().unwrap_or_default()));
    }
    let to: Uri = location.parse().map_err(|error| refuse(format!("{error}")))?;
    match (from.scheme_str(), to.scheme_str()) {
        (_, Some("https")) | (Some("http"), Some("http")) if to.host().is_some() => Ok(location.to_string()),
        (_, Some("http")) => Err(refuse(format!("{} is not encrypted", place(&to)))),
        _ => Err(refuse(format!("`{}` is neither http nor https", location.chars().take(80).collect::<String>()))),
    }
}

/// Scheme and host: the rest of an address may hold a signature.
fn place(uri: &Uri) -> String {
    format!("{}://{}", uri.scheme_str().unwrap_or_default(), uri.authority().map_or("", |a| a.as_str()))
}

fn reason(status: http::StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or_default()
}

/// The seconds that an answer asks to wait. Dates are not read: the usual wait stands in for them.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

fn unreachable_host(uri: &Uri, error: ureq::Error) -> Failure {
    let report = Error::input(format!("{} cannot be reached", place(uri))).cause(&error);
    // A certificate that is not trusted will not be trusted at the next try.
    let is_untrusted = matches!(&error, ureq::Error::Io(io) if io.kind() == std::io::ErrorKind::InvalidData);
    match error {
        ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed | ureq::Error::Protocol(_)
            if !is_untrusted =>
        {
            Failure::Passing(
                report.help(
                    "check the network and HF_ENDPOINT, then run the same command again: what is fetched already stays; \
                     `HF_HUB_OFFLINE=1` takes what Hugging Face's cache holds",
                ),
                None,
            )
        }
        _ => Failure::Final(report.help("check HF_ENDPOINT; SSL_CERT_FILE names certificates to trust")),
    }
}

fn read_limited(body: Body) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    body.into_reader()
        .take(JSON_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::Passing(Error::input("the connection to the Hub was lost").cause(error), None))?;
    if bytes.len() as u64 > JSON_BYTES_MAX {
        return Err(Failure::Final(
            Error::input(format!("the Hub's answer is longer than {} MB", JSON_BYTES_MAX >> 20))
                .help("check HF_ENDPOINT"),
        ));
    }
    Ok(bytes)
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn certificates(path: &std::path::Path) -> Result<Vec<ureq::tls::Certificate<'static>>> {
    let fail = |error| Error::io("cannot read the certificates in", path, error);
    if fs::metadata(path).map_err(fail)?.len() > CERTIFICATES_BYTES_MAX {
        return Err(Error::input("this file of certificates is too long").at(path.display(), None));
    }
    let text = fs::read(path).map_err(fail)?;
    let found: Vec<_> = parse_pem(&text)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        return Err(Error::input("there are no certificates in this file")
            .at(path.display(), None)
            .help("SSL_CERT_FILE must name a PEM file; without it, Mozilla's list is used"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_redirects_lead() {
        let check = |from: &str, location: &str| target(&from.parse().unwrap(), Some(location)).ok();
        for (from, location, expected) in [
            ("https://hub/a/b", "/c?d=e", Some("https://hub/c?d=e")),
            ("https://hub/a", "https://cdn/x?y", Some("https://cdn/x?y")),
            ("http://hub/a", "http://cdn/x", Some("http://cdn/x")),
            ("http://hub/a", "https://cdn/x", Some("https://cdn/x")),
            ("https://hub/a", "http://cdn/x", None),
            ("https://hub/a", "//cdn/x", None),
            ("https://hub/a", "file:///etc/passwd", None),
            ("https://hub/a", "ftp://cdn/x", None),
            ("https://hub/a", "../x", None),
        ] {
            assert_eq!(check(from, location).as_deref(), expected, "{location}");
        }
        assert!(target(&"https://hub/a".parse().unwrap(), None).is_err());
    }
}
