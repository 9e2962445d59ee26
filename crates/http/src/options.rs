//! Where to listen and whom to answer. Plain data: nothing here reads files or listens.

use crate::tls::TlsFiles;
use narthex_base::Caller;
use sha2::{Digest, Sha256};
use std::{fmt, path::PathBuf};

/// A key that clients show, and who they are then.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// SHA-256 of the key: comparing takes the same time for all keys of all lengths.
    sha256: [u8; 32],
    caller: Caller,
}

/// Without anything of the key.
impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

impl ApiKey {
    /// A key as it is, of [`Caller::LOCAL`].
    pub fn new(key: &str) -> Self {
        Self { sha256: Sha256::digest(key.as_bytes()).into(), caller: Caller::local() }
    }

    /// Reads `KEY` or `KEY CALLER`, where the key may be `sha256:` and 64 hexadecimal digits.
    ///
    /// # Errors
    /// If the digits are not that, or the caller's name is none.
    pub fn parse(line: &str) -> Result<Self, String> {
        let (key, caller) = line.split_once(char::is_whitespace).map_or((line, None), |(k, c)| (k, Some(c.trim())));
        let caller = match caller {
            None => Caller::local(),
            Some(name) => Caller::named(name).ok_or_else(|| {
                format!("`{name}` cannot be whose key it is: a name has 1 to 64 of A–Z a–z 0–9 _ - .")
            })?,
        };
        let Some(digits) = key.strip_prefix("sha256:") else { return Ok(Self { caller, ..Self::new(key) }) };
        let mut sha256 = [0; 32];
        let wrong =
            || "`sha256:` needs 64 hexadecimal digits behind it, as `printf %s KEY | sha256sum` shows".to_string();
        if digits.len() != 2 * sha256.len() || !digits.is_ascii() {
            return Err(wrong());
        }
        for (i, byte) in sha256.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Self { sha256, caller })
    }

    /// Whether it is one of these, in a time that tells neither which nor how much of it was right.
    pub fn is_among(&self, keys: &[Self]) -> bool {
        keys.iter().fold(false, |known, key| known | self.is(key))
    }

    /// Whether it is this one, in a time that tells nothing.
    pub(crate) fn is(&self, other: &Self) -> bool {
        equal(&self.sha256, &other.sha256)
    }

    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }
}

/// Whether two strings of one length are equal, in a time that depends on the length only.
fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && std::hint::black_box(a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b))) == 0
}

/// Where to listen and whom to answer.
#[derive(Clone)]
pub struct HttpOptions {
    /// An address or host name; on a loopback address, requests that name another host are refused.
    pub host: String,
    /// 0 takes any free port.
    pub port: u16,
    /// Keys of which requests to the paths that need one must carry one; empty asks for none.
    pub api_keys: Vec<ApiKey>,
    /// Further host names (without port) under which the server may be addressed, for instance by a reverse proxy.
    pub allowed_hosts: Vec<String>,
    /// Origins of other sites' pages that may ask (`https://chat.example`); `*` is any.
    pub allowed_origins: Vec<String>,
    /// Whether fields of a request that nobody knows are refused, rather than named in the answer's header.
    pub strict_fields: bool,
    /// The server's certificate and key; plain HTTP without.
    pub tls: Option<TlsFiles>,
    /// A file to which a line is added for each request, without its content; `-` is standard error.
    pub access_log: Option<PathBuf>,
    /// The OTLP/HTTP address of a collector that receives a span for each generation, without its content.
    pub otlp_traces_endpoint: Option<String>,
    /// Sizes that a request or connection may not exceed.
    pub limits: HttpLimits,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".into(),
            port: 8000,
            api_keys: vec![],
            allowed_hosts: vec![],
            allowed_origins: vec![],
            strict_fields: false,
            tls: None,
            access_log: None,
            otlp_traces_endpoint: None,
            limits: HttpLimits::default(),
        }
    }
}

/// Without the keys.
impl fmt::Debug for HttpOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpOptions")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("api_keys", &format_args!("{} keys", self.api_keys.len()))
            .field("allowed_hosts", &self.allowed_hosts)
            .field("allowed_origins", &self.allowed_origins)
            .field("strict_fields", &self.strict_fields)
            .field("tls", &self.tls)
            .field("access_log", &self.access_log)
            .field("otlp_traces_endpoint", &self.otlp_traces_endpoint)
            .field("limits", &self.limits)
            .finish()
    }
}

/// Sizes that a request or connection may not exceed, whatever it asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpLimits {
    /// Bytes of a request's body.
    pub body_bytes_max: usize,
    /// Bytes of a request's line and headers: more than twice as many are never taken.
    pub header_bytes_max: usize,
    /// Headers of a request.
    pub headers_max: usize,
    /// Seconds that a client may take to send them, or to shake hands.
    pub header_s: u64,
    /// Connections served at once; further ones wait in the system's backlog.
    pub connections_max: usize,
    /// Seconds that answers under way get after the signal to stop.
    pub shutdown_s: u64,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            body_bytes_max: 8 << 20,
            header_bytes_max: 64 << 10,
            headers_max: 100,
            header_s: 30,
            connections_max: 1024,
            shutdown_s: 30,
        }
    }
}
