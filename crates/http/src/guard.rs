//! Who may ask: the right host, no other site's page, and the right key. Looks at headers only.

use crate::{
    error::ApiError,
    options::{ApiKey, HttpOptions},
};
use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use narthex_base::Caller;
use std::{net::IpAddr, sync::Arc};

/// The rules, made once from the options.
pub(crate) struct Guard {
    /// Only names of this machine, and `allowed_hosts`, may stand in `Host`.
    loopback: bool,
    allowed_hosts: Vec<String>,
    /// In small letters; `*` is any.
    allowed_origins: Vec<String>,
    keys: Vec<ApiKey>,
    /// Whether requests to a path must carry a key.
    needs_key: fn(&str) -> bool,
}

impl Guard {
    pub fn new(options: &HttpOptions, needs_key: fn(&str) -> bool) -> Self {
        Self {
            loopback: is_loopback(&options.host),
            allowed_hosts: options.allowed_hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            allowed_origins: options.allowed_origins.iter().map(|origin| origin.to_ascii_lowercase()).collect(),
            keys: options.api_keys.clone(),
            needs_key,
        }
    }

    /// Refuses other sites' pages: those that reach a loopback address under a name of their own
    /// (DNS rebinding) by `Host`, all others by `Origin`, which browsers set and pages can't change.
    fn check_site(&self, headers: &HeaderMap, authority: Option<&str>) -> Result<(), ApiError> {
        let refused = |what: String| Err(ApiError::request(StatusCode::FORBIDDEN, what, Some("forbidden_origin")));
        let host = authority.map(str::to_string).or_else(|| value(headers, header::HOST)).unwrap_or_default();
        let host = host.to_ascii_lowercase();
        let (name, _) = split_port(&host);
        if self.loopback && !host.is_empty() && !is_loopback(name) && !self.is_allowed(name) {
            return refused(format!("this server answers on this machine only, not as `{name}`"));
        }
        let Some(origin) = value(headers, header::ORIGIN).map(|origin| origin.to_ascii_lowercase()) else {
            return Ok(());
        };
        if self.is_named(&origin) {
            return Ok(());
        }
        let site = origin.strip_prefix("http://").map(|site| (site, "80"));
        let site = site.or_else(|| origin.strip_prefix("https://").map(|site| (site, "443")));
        match site {
            Some((site, port)) => {
                let (host_name, host_port) = split_port(&host);
                let (site_name, site_port) = split_port(site);
                let same_port = site_port.unwrap_or(port) == host_port.unwrap_or(port);
                if (site_name == host_name && same_port) || self.is_allowed(site_name) {
                    return Ok(());
                }
                refused(format!("pages of `{origin}` may not use this server"))
            }
            None => refused(format!("pages of `{origin}` may not use this server")),
        }
    }

    /// Whether pages of an origin, in small letters, may ask.
    fn is_named(&self, origin: &str) -> bool {
        self.allowed_origins.iter().any(|known| known == "*" || known == origin)
    }

    /// The origin that an answer must name, so that the other site's page may read it.
    fn shared_with(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        let lower = String::from_utf8_lossy(origin.as_bytes()).to_ascii_lowercase();
        let site = lower.strip_prefix("http://").or_else(|| lower.strip_prefix("https://"));
        let by_host = site.is_some_and(|site| self.is_allowed(split_port(site).0));
        (self.is_named(&lower) || by_host).then(|| origin.clone())
    }

    fn is_allowed(&self, name: &str) -> bool {
        self.allowed_hosts.iter().any(|host| host == name)
    }

    /// Who asks, if the request carries one of the keys; nobody in particular where there are none.
    fn check_key(&self, headers: &HeaderMap) -> Result<Option<Caller>, ApiError> {
        if self.keys.is_empty() {
            return Ok(None);
        }
        let refused = |what: &str| Err(ApiError::request(StatusCode::UNAUTHORIZED, what, Some("invalid_api_key")));
        // Anthropic's clients send it so.
        let other = value(headers, HeaderName::from_static("x-api-key")).map(|key| format!("Bearer {key}"));
        let Some(credentials) = value(headers, header::AUTHORIZATION).or(other) else {
            return refused("an API key is needed: `Authorization: Bearer KEY`");
        };
        let Some((_, key)) = credentials.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        else {
            return refused("an API key is needed: `Authorization: Bearer KEY`");
        };
        let given = ApiKey::new(key.trim());
        // No early exit: the time tells neither which key nor how much of it was right.
        let same = |key: &ApiKey| given.is(key);
        let known = self.keys.iter().fold(None, |known, key| if same(key) { Some(key) } else { known });
        known.map_or_else(|| refused("this API key is not known to the server"), |key| Ok(Some(key.caller().clone())))
    }
}

fn value(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// Name and port of `name:port` or `[address]:port`; the name keeps its brackets.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') && !name.is_empty() => (name, Some(port)),
        _ => (authority, None),
    }
}

/// Whether a host name or address means this machine, whatever a name server says.
fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost"),
    }
}

/// Applies the rules before any handler runs.
pub(crate) async fn check(guard: Arc<Guard>, mut request: Request, next: Next) -> Response {
    let authority = request.uri().authority().map(|authority| authority.as_str());
    let outcome = guard.check_site(request.headers(), authority);
    let outcome = outcome.and_then(|()| match (guard.needs_key)(request.uri().path()) {
        true => guard.check_key(request.headers()),
        false => Ok(None),
    });
    let origin = guard.shared_with(request.headers());
    // What a browser asks before it sends another site's request (<https://fetch.spec.whatwg.org>, CORS preflight); it
    // carries no key.
    let asks = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
        && origin.is_some();
    let wanted = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let mut response = match outcome {
        _ if asks => StatusCode::NO_CONTENT.into_response(),
        Ok(caller) => {
            if let Some(caller) = caller {
                request.extensions_mut().insert(caller);
            }
            next.run(request).await
        }
        Err(error) => error.into_response(),
    };
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        let shown = HeaderValue::from_static("x-request-id, x-narthex-ignored");
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, shown);
        if asks {
            let methods = HeaderValue::from_static("GET, POST, DELETE");
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
            let any = HeaderValue::from_static("authorization, content-type");
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.unwrap_or(any));
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guarding(options: HttpOptions) -> Guard {
        Guard::new(&options, |_| true)
    }

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn other_sites_are_refused() {
        let local = guarding(HttpOptions::default());
        let proxied = guarding(HttpOptions { allowed_hosts: vec!["Chat.example".into()], ..HttpOptions::default() });
        let open = guarding(HttpOptions { host: "0.0.0.0".into(), ..HttpOptions::default() });
        for (guard, host, origin, expected) in [
            (&local, "localhost:8000", "", true),
            (&local, "127.0.0.1:8000", "http://127.0.0.1:8000", true),
            (&local, "LOCALHOST:8000", "http://localhost:8000", true),
            (&local, "127.9.9.9", "", true),
            (&local, "[::1]:8000", "http://[::1]:8000", true),
            (&local, "chat.localhost:80", "http://chat.localhost", true),
            (&local, "", "", true),
            (&local, "evil.example:8000", "http://evil.example:8000", false),
            (&local, "evil.example", "", false),
            (&local, "127.0.0.1.evil.example", "", false),
            (&local, "localhost:8000", "http://evil.example", false),
            (&local, "localhost:8000", "http://localhost:3000", false),
            (&local, "localhost:8000", "http://localhost.evil.example:8000", false),
            (&local, "localhost:8000", "null", false),
            (&local, "localhost:8000", "file://", false),
            (&proxied, "chat.example", "https://chat.example", true),
            (&proxied, "localhost:8000", "https://chat.example", true),
            (&proxied, "other.example", "", false),
            (&open, "model.example:8000", "", true),
            (&open, "model.example:8000", "http://model.example:8000", true),
            (&open, "model.example", "https://model.example", true),
            (&open, "model.example:8000", "http://evil.example", false),
        ] {
            let mut pairs = vec![];
            if !host.is_empty() {
                pairs.push((header::HOST, host));
            }
            if !origin.is_empty() {
                pairs.push((header::ORIGIN, origin));
            }
            assert_eq!(guard.check_site(&headers(&pairs), None).is_ok(), expected, "host {host}, origin {origin}");
        }
    }

    #[test]
    fn keys() {
        // printf %s two | sha256sum
        let two = "sha256:3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3 team-a";
        let api_keys = vec![ApiKey::new("one"), ApiKey::parse(two).unwrap()];
        let guard = guarding(HttpOptions { api_keys, ..HttpOptions::default() });
        assert!(ApiKey::parse("key a b").is_err(), "a caller's name has no blanks");
        assert!(ApiKey::parse("sha256:3fc4").is_err() && ApiKey::parse(&format!("sha256:{}", "é".repeat(32))).is_err());
        for (credentials, expected) in [
            ("Bearer one", Some("local")),
            ("bearer two", Some("team-a")),
            ("Bearer tw", None),
            ("Bearer ", None),
            ("Bearer", None),
            ("Basic one", None),
            ("one", None),
        ] {
            assert_eq!(
                guard.check_key(&headers(&[(header::AUTHORIZATION, credentials)])).ok(),
                expected.map(|name: &str| Some(Caller(name.into()))),
                "{credentials}"
            );
        }
        assert!(guard.check_key(&HeaderMap::new()).is_err());
        assert!(guarding(HttpOptions::default()).check_key(&HeaderMap::new()).is_ok());
    }
}
