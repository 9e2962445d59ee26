//! Reaching out to others over HTTP, safely: every URL is judged, every address of every name is screened, each hop of
//! a redirect is judged again, headers stay with the host that they were meant for, and what comes back is bounded in
//! time and size. Proxies of the environment are not used. Knows no tool and no protocol above HTTP.

pub mod address;
pub mod names;
pub mod rules;

use names::{Names, Refused, ScreenedNames, SystemNames};
use narthex_base::Error;
use reqwest::{
    Client, Method, StatusCode, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION},
    redirect,
};
use rules::{Rules, Way};
use std::{error::Error as _, sync::Arc, time::Duration};

/// What we say we are.
const USER_AGENT: &str = concat!("narthex/", env!("CARGO_PKG_VERSION"), " (tool of an agent)");
/// Header lines of an answer.
const HEADERS_MAX: usize = 100;
/// Connections to a host that are kept for the next request.
const IDLE_MAX: usize = 2;

/// How much a request may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Milliseconds for all of it, redirects and body included.
    pub wall_ms: u64,
    /// Bytes of the body, as they are after the transfer encoding; what is beyond is not read.
    pub body_bytes_max: usize,
    /// Redirects that are followed.
    pub redirects_max: usize,
}

/// Asks others, within rules and limits.
pub struct Outside {
    rules: Rules,
    limits: Limits,
    screened: Client,
    exempt: Client,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Asking {
    /// The method.
    pub method: Method,
    /// The URL; a fragment is not sent.
    pub url: Url,
    /// Headers for the host of `url` alone: at a redirect to another origin they are dropped.
    pub headers: HeaderMap,
    /// The body and its media type. It is never sent to another origin.
    pub body: Option<(String, Vec<u8>)>,
}

impl Asking {
    /// A GET without headers of its own.
    pub fn get(url: Url) -> Self {
        Self { method: Method::GET, url, headers: HeaderMap::new(), body: None }
    }
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The status.
    pub status: StatusCode,
    /// Where it came from in the end.
    pub url: Url,
    /// The media type as the host wrote it; empty if it wrote none.
    pub media_type: String,
    /// The body, or its beginning.
    pub body: Vec<u8>,
    /// Whether the body goes on behind [`Limits::body_bytes_max`].
    pub is_cut: bool,
}

/// Why nothing came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutsideFailure {
    /// What is wrong and what to do, for a model. Holds no header and no query.
    pub message: String,
    /// Whether certainly no request was sent.
    pub unsent: bool,
}

impl Outside {
    /// Reaches out within these rules and limits.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn new(rules: Rules, limits: Limits) -> Result<Self, Error> {
        Self::with_names(rules, limits, Arc::new(SystemNames))
    }

    /// As [`Outside::new`], with another way of finding addresses.
    ///
    /// # Errors
    /// As [`Outside::new`].
    pub fn with_names(rules: Rules, limits: Limits, names: Arc<dyn Names>) -> Result<Self, Error> {
        let connect = Duration::from_millis(limits.wall_ms);
        let tls = tls()?;
        let screened =
            client(ScreenedNames { names: names.clone(), screen: Some(rules.screen()) }, tls.clone(), connect)?;
        let exempt = client(ScreenedNames { names, screen: None }, tls, connect)?;
        Ok(Self { rules, limits, screened, exempt })
    }

    /// What may be asked.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// A client for one URL that is judged here, for protocols that bring their own requests. It follows no redirects
    /// and connects to screened addresses of names only. An address that stands in a URL is not resolved: any other URL
    /// must be judged again, by this function.
    ///
    /// # Errors
    /// If the URL may not be asked.
    pub fn client(&self, url: &Url) -> Result<Client, OutsideFailure> {
        let way = self.rules.judge(url).map_err(|message| OutsideFailure { message, unsent: true })?;
        Ok(self.through(way).clone())
    }

    fn through(&self, way: Way) -> &Client {
        match way {
            Way::Screened => &self.screened,
            Way::Exempt => &self.exempt,
        }
    }

    /// Sends a request and follows its redirects.
    ///
    /// # Errors
    /// If a URL on the way may not be asked, the host cannot be reached, or the limits are too small for it.
    pub async fn send(&self, asking: Asking) -> Result<Answered, OutsideFailure> {
        let wall = Duration::from_millis(self.limits.wall_ms);
        let late = |_| OutsideFailure {
            message: format!("no answer within {} ms: ask for less, or try again later", self.limits.wall_ms),
            unsent: false,
        };
        tokio::time::timeout(wall, self.follow(asking)).await.unwrap_or_else(|error| Err(late(error)))
    }

    async fn follow(&self, mut hop: Asking) -> Result<Answered, OutsideFailure> {
        for hops in 0..=self.limits.redirects_max {
            let astray = |message: String| OutsideFailure {
                message: format!("redirected to where it may not go: {message}"),
                unsent: false,
            };
            let way = self.rules.judge(&hop.url).map_err(|message| match hops {
                0 => OutsideFailure { message, unsent: true },
                _ => astray(message),
            })?;
            let response = self.request(way, &hop).send().await.map_err(|error| OutsideFailure {
                unsent: hops == 0 && error.is_connect(),
                ..explain(&hop.url, &error)
            })?;
            let Some(next) = next_url(&hop.url, &response).map_err(astray)? else {
                return self.read(response).await;
            };
            hop = redirected(hop, next, response.status()).map_err(astray)?;
        }
        let message = format!("more than {} redirects: ask the last address yourself", self.limits.redirects_max);
        Err(OutsideFailure { message, unsent: false })
    }

    fn request(&self, way: Way, hop: &Asking) -> reqwest::RequestBuilder {
        let mut request = self.through(way).request(hop.method.clone(), hop.url.clone()).headers(hop.headers.clone());
        if let Some((media_type, body)) = &hop.body {
            request = request.header(CONTENT_TYPE, media_type).body(body.clone());
        }
        request
    }

    async fn read(&self, mut response: reqwest::Response) -> Result<Answered, OutsideFailure> {
        let (status, url) = (response.status(), response.url().clone());
        let media_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (media_type, mut body, mut is_cut) = (media_type.to_string(), vec![], false);
        while let Some(chunk) = response.chunk().await.map_err(|error| explain(&url, &error))? {
            let free = self.limits.body_bytes_max - body.len();
            is_cut = chunk.len() > free;
            body.extend_from_slice(&chunk[..chunk.len().min(free)]);
            if is_cut {
                break;
            }
        }
        Ok(Answered { status, url, media_type, body, is_cut })
    }
}

/// Whom the system trusts, or Mozilla where the system has no list, as in small containers.
fn tls() -> Result<rustls::ClientConfig, Error> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = versions.map_err(|error| Error::internal("cannot set up TLS").cause(error))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn client(names: ScreenedNames, tls: rustls::ClientConfig, connect: Duration) -> Result<Client, Error> {
    Client::builder()
        .tls_backend_preconfigured(tls)
        .dns_resolver(Arc::new(names))
        .no_proxy()
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .http1_only()
        .http1_max_headers(HEADERS_MAX)
        .connect_timeout(connect)
        .pool_max_idle_per_host(IDLE_MAX)
        .user_agent(USER_AGENT)
        .build()
        .map_err(|error| Error::internal("cannot set up a client for HTTP").cause(error))
}

/// What went wrong, without the URL, whose query may hold what is nobody's business.
fn explain(url: &Url, error: &reqwest::Error) -> OutsideFailure {
    let host = url.host_str().unwrap_or_default();
    let (mut cause, mut last) = (error.source(), String::new());
    while let Some(inner) = cause {
        if let Some(Refused(message)) = inner.downcast_ref() {
            return OutsideFailure { message: message.clone(), unsent: false };
        }
        last = inner.to_string();
        cause = inner.source();
    }
    let what = if error.is_connect() { "cannot be reached" } else { "gave no whole answer" };
    OutsideFailure { message: format!("`{host}` {what}: {last}"), unsent: false }
}

/// Where an answer sends us; `None` if it is the answer itself.
fn next_url(at: &Url, response: &reqwest::Response) -> Result<Option<Url>, String> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = response.headers().get(LOCATION) else { return Ok(None) };
    let next = location.to_str().ok().and_then(|location| at.join(location).ok());
    next.map(Some).ok_or_else(|| "its address is not a URL".into())
}

/// The request that follows a redirect: what belongs to one origin stays there.
fn redirected(mut hop: Asking, next: Url, status: StatusCode) -> Result<Asking, String> {
    let stays = hop.url.origin() == next.origin();
    if hop.url.scheme() == "https" && next.scheme() == "http" {
        return Err("from https to http".into());
    }
    // As browsers do it (<https://fetch.spec.whatwg.org>, HTTP-redirect fetch).
    let becomes_get = match status.as_u16() {
        303 => hop.method != Method::HEAD,
        301 | 302 => hop.method == Method::POST,
        _ => false,
    };
    if becomes_get {
        (hop.method, hop.body) = (Method::GET, None);
    }
    if !stays {
        hop.headers.clear();
        if !matches!(hop.method, Method::GET | Method::HEAD) {
            return Err("what is sent would go to another host".into());
        }
    }
    hop.url = next;
    Ok(hop)
}

/// A value of a header that is shown in no message and no log.
///
/// # Errors
/// If it holds what no header may hold; the value is not named.
pub fn secret_value(text: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| Error::input("the secret holds a line break or another character that no header may hold"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests;
