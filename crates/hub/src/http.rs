//! Requests to the Hub: redirects followed by hand, so that the token goes to the Hub's own host alone. Knows headers
//! and limits, nothing of repositories.

use super::{Checksum, HubSettings};
use narthex_base::{Error, Observer, Result};
use narthex_remote::{
    AgentOptions, Failure, Tries, agent, is_loopback, place, reason, retry_after, target, unreachable_host,
};
use serde_json::Value;
use std::{io::Read, time::Duration};
use ureq::{
    Agent, Body,
    http::{HeaderMap, Uri, header, uri::InvalidUri},
};

/// Redirects that one request may take.
pub(super) const REDIRECTS_MAX: usize = 8;
/// The largest answer of the API: some ten thousand files with their digests.
pub(super) const JSON_BYTES_MAX: u64 = 16 << 20;
/// What to look at where nothing comes.
const CHECK: &str = "the network and HF_ENDPOINT (`HF_HUB_OFFLINE=1` takes what Hugging Face's cache holds)";
/// What to do after a long wait.
const LONG_WAIT: &str = "run the same command again; with a token (HF_TOKEN) the Hub allows more";

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

impl Client {
    pub fn new(settings: &HubSettings) -> Result<Self> {
        let wrong = |cause: &str| {
            Error::input(format!("HF_ENDPOINT is no address: `{}`", settings.endpoint))
                .cause(cause)
                .help("write it as `https://huggingface.co`")
        };
        let endpoint: Uri = settings.endpoint.parse().map_err(|error: InvalidUri| wrong(&error.to_string()))?;
        if !matches!(endpoint.scheme_str(), Some("http" | "https")) || endpoint.host().is_none() {
            return Err(wrong("it needs http:// or https:// and a host"));
        }
        if endpoint.query().is_some() || endpoint.authority().is_some_and(|authority| authority.as_str().contains('@'))
        {
            return Err(wrong("it may hold neither a query nor a password"));
        }
        let is_local = endpoint.host().is_some_and(is_loopback);
        let agent = agent(&AgentOptions { certificates: settings.certificates.as_deref(), is_local })?;
        let mut warnings = Vec::new();
        let is_safe = endpoint.scheme_str() == Some("https") || is_local;
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
            let uri: Uri = address.parse().map_err(|error: InvalidUri| {
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
            let response = request.call().map_err(|error| unreachable_host(&uri, error, CHECK))?;
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
        let mut tries = Tries::new(self.backoff, LONG_WAIT);
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
        Tries::new(self.backoff, LONG_WAIT)
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
