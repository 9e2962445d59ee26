//! Asking other hosts: one way to connect, to trust, to wait and to try again, for all that is fetched or sent by
//! blocking requests. Knows headers and limits, nothing of what is asked for.

use narthex_base::{Error, Observer, Result};
use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};
use ureq::{
    Agent,
    http::{HeaderMap, StatusCode, Uri, header},
    tls::{PemItem, RootCerts, TlsConfig, parse_pem},
};

/// Tries in a row that bring nothing.
pub const TRIES_MAX: u32 = 5;
/// The longest wait that a host may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
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

/// How to connect.
#[derive(Clone, Copy, Default)]
pub struct AgentOptions<'a> {
    /// Certificates to trust instead of Mozilla's, as PEM.
    pub certificates: Option<&'a Path>,
    /// Whether the host is this machine: then no proxy stands in between.
    pub is_local: bool,
}

/// What all requests share: no redirect is followed without being looked at, no status is an error, and nobody waits
/// for ever.
///
/// # Errors
/// If the certificates cannot be read.
pub fn agent(options: &AgentOptions) -> Result<Agent> {
    let mut tls = TlsConfig::builder();
    if let Some(path) = options.certificates {
        tls = tls.root_certs(RootCerts::from(certificates(path)?.into_iter()));
    }
    // What is on this machine is not asked for through a proxy.
    let proxy = if options.is_local { None } else { ureq::Proxy::try_from_env() };
    Ok(Agent::config_builder()
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
        .into())
}

/// Why a request brought nothing.
pub enum Failure {
    /// Another try may help, after this time if the Hub names one.
    Passing(Error, Option<Duration>),
    /// Another try would not help.
    Final(Error),
}

/// Counts tries that bring nothing, and waits between them.
pub struct Tries {
    failed: u32,
    backoff: Duration,
    /// What a host's wish to wait for long is answered with.
    long_wait: &'static str,
}

impl Tries {
    /// None yet; each further try waits twice as long as the one before. `long_wait` is what to do if the host asks
    /// for a wait of several minutes.
    pub fn new(backoff: Duration, long_wait: &'static str) -> Self {
        Self { failed: 0, backoff, long_wait }
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
            let seconds = wait.as_secs();
            return Err(error.help(format!("wait for {seconds} s, as it asks, then {}", self.long_wait)));
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

/// Where a redirect leads: never from an encrypted connection to a plain one, and to HTTP only.
///
/// # Errors
/// If nothing may be fetched from there.
pub fn target(from: &Uri, location: Option<&str>) -> Result<String> {
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
pub fn place(uri: &Uri) -> String {
    format!("{}://{}", uri.scheme_str().unwrap_or_default(), uri.authority().map_or("", |a| a.as_str()))
}

/// What a status is called.
pub fn reason(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or_default()
}

/// The seconds that an answer asks to wait. Dates are not read: the usual wait stands in for them.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// A request that got no answer. `check` says what to look at, such as "the network and HF_ENDPOINT".
pub fn unreachable_host(uri: &Uri, error: ureq::Error, check: &str) -> Failure {
    let report = Error::input(format!("{} cannot be reached", place(uri))).cause(&error);
    // A certificate that is not trusted will not be trusted at the next try.
    let is_untrusted = matches!(&error, ureq::Error::Io(io) if io.kind() == std::io::ErrorKind::InvalidData);
    match error {
        ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed | ureq::Error::Protocol(_)
            if !is_untrusted =>
        {
            let help = format!("check {check}, then run the same command again: what is there already stays");
            Failure::Passing(report.help(help), None)
        }
        _ => Failure::Final(report.help(format!("check {check}; SSL_CERT_FILE names certificates to trust"))),
    }
}

/// Whether a host is this machine.
pub fn is_loopback(host: &str) -> bool {
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
