//! What a request must be before the protocol sees it: to the right host, from no other site's page, with the right
//! token. Looks at headers only; knows no message.

use super::{
    access::{Access, Denial, LOCAL_TENANT},
    sessions::Visit,
};
use axum::{
    Json,
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use narthex_base::Caller;
use serde_json::json;
use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
};

/// Where the server's metadata lies (RFC 9728); for a resource with a path, that follows.
pub(crate) const METADATA_PATH: &str = "/.well-known/oauth-protected-resource";

/// Seconds after which a client that found too many sessions may try again.
const CROWDED_RETRY_S: u64 = 10;

/// The rules, made once.
pub(crate) struct Gate {
    /// Names without port, in small letters; only names of this machine where there are none.
    allowed_hosts: Vec<String>,
    /// In small letters, with their port; `*` is any.
    allowed_origins: Vec<String>,
    access: Option<Access>,
}

impl Gate {
    pub fn new(allowed_hosts: &[String], allowed_origins: &[String], access: Option<Access>) -> Self {
        let allowed_origins = allowed_origins.iter().map(|origin| with_port(&origin.to_ascii_lowercase())).collect();
        Self {
            allowed_hosts: allowed_hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            allowed_origins,
            access,
        }
    }

    /// Refuses other sites' pages: those that reach us under a name of their own (DNS rebinding) by `Host`, all
    /// others by `Origin`, which browsers set and pages cannot change.
    fn check_site(&self, headers: &HeaderMap, uri: &Uri) -> Result<(), String> {
        let host = match headers.get(header::HOST) {
            Some(host) => host.to_str().map_err(|_| "the `Host` header is no text")?.to_ascii_lowercase(),
            None => uri.authority().map(|authority| authority.as_str().to_ascii_lowercase()).unwrap_or_default(),
        };
        let name = host_name(&host);
        let named = self.allowed_hosts.iter().any(|allowed| allowed == "*" || allowed == name || *allowed == host);
        let local = self.allowed_hosts.is_empty() && is_loopback(name);
        if !named && !local {
            return Err(format!("this server does not answer as `{name}`: add it to the allowed hosts"));
        }
        match headers.get(header::ORIGIN) {
            None => Ok(()),
            // Pages of this server itself: `Host` is one that it answers as.
            Some(origin) if self.shares_with(origin) || is_same_site(origin, &host) => Ok(()),
            Some(origin) => {
                let origin = String::from_utf8_lossy(origin.as_bytes());
                Err(format!("pages of `{origin}` may not use this server: add it to the allowed origins"))
            }
        }
    }

    /// Whether pages of this origin may ask.
    fn shares_with(&self, origin: &HeaderValue) -> bool {
        let Ok(origin) = origin.to_str() else { return false };
        let origin = with_port(&origin.to_ascii_lowercase());
        self.allowed_origins.iter().any(|allowed| allowed == "*" || *allowed == origin)
    }

    /// The metadata of a protected resource, if this server is one and the path asks for it.
    fn metadata(&self, path: &str) -> Option<Response> {
        let access = self.access.as_ref()?;
        let resource: Uri = access.resource.parse().ok()?;
        let own = format!("{METADATA_PATH}{}", resource.path().trim_end_matches('/'));
        if path != METADATA_PATH && path != own {
            return None;
        }
        let mut metadata = json!({"resource": access.resource, "bearer_methods_supported": ["header"]});
        if !access.authorization_servers.is_empty() {
            metadata["authorization_servers"] = json!(access.authorization_servers);
        }
        if !access.scopes.is_empty() {
            metadata["scopes_supported"] = json!(access.scopes);
        }
        // It is public, and clients in pages of any site need it to find where to log in.
        Some(([(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")], Json(metadata)).into_response())
    }

    /// Whose request it is.
    /// Without rules of its own, whoever stands in front of it has said who asks: `known`.
    async fn check_token(&self, headers: &HeaderMap, known: Option<Caller>) -> Result<String, Response> {
        let Some(access) = &self.access else {
            return Ok(known.map_or_else(|| LOCAL_TENANT.into(), |caller| caller.0));
        };
        let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.split_once(' '));
        let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        access.admit(token).await.map_err(|denial| denied(access, &denial))
    }
}

/// 401 or 403 with where to get a better token (RFC 6750, RFC 9728).
fn denied(access: &Access, denial: &Denial) -> Response {
    let (status, error, what) = match denial {
        Denial::Missing => (StatusCode::UNAUTHORIZED, None, "a token is needed: `Authorization: Bearer TOKEN`"),
        Denial::Bad => (StatusCode::UNAUTHORIZED, Some("invalid_token"), "the token is not good for this server"),
        Denial::Weak => (StatusCode::FORBIDDEN, Some("insufficient_scope"), "the token does not allow enough"),
    };
    let mut challenge = String::from("Bearer");
    let mut push = |name: &str, value: &str| {
        let separator = if challenge.len() == "Bearer".len() { ' ' } else { ',' };
        challenge.push(separator);
        challenge.push_str(&format!("{name}=\"{}\"", value.replace(['"', '\\'], "")));
    };
    if let Some(error) = error {
        push("error", error);
    }
    if let Some(address) = metadata_address(&access.resource) {
        push("resource_metadata", &address);
    }
    if !access.scopes.is_empty() {
        push("scope", &access.scopes.join(" "));
    }
    let mut response = refused(status, what);
    if let Ok(challenge) = HeaderValue::from_str(&challenge) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

/// Where the metadata of a resource lies: between its host and its path.
fn metadata_address(resource: &str) -> Option<String> {
    let uri: Uri = resource.parse().ok()?;
    let path = uri.path().trim_end_matches('/');
    Some(format!("{}://{}{METADATA_PATH}{path}", uri.scheme_str()?, uri.authority()?))
}

/// A refusal in JSON-RPC's form, which is all that clients of this protocol read.
fn refused(status: StatusCode, what: &str) -> Response {
    let body = json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32600, "message": what}});
    (status, Json(body)).into_response()
}

/// An origin with its port, the scheme's own if it names none.
fn with_port(origin: &str) -> String {
    let port = match origin.split_once("://") {
        Some(("http", site)) if !has_port(site) => ":80",
        Some(("https", site)) if !has_port(site) => ":443",
        _ => "",
    };
    format!("{origin}{port}")
}

/// Whether an origin is the host that was asked, at the same port.
fn is_same_site(origin: &HeaderValue, host: &str) -> bool {
    let Ok(origin) = origin.to_str() else { return false };
    let origin = with_port(&origin.to_ascii_lowercase());
    let Some((scheme, site)) = origin.split_once("://") else { return false };
    with_port(&format!("{scheme}://{host}")).strip_prefix(&format!("{scheme}://")) == Some(site)
}

fn has_port(authority: &str) -> bool {
    host_name(authority).len() < authority.len()
}

/// The name of `name:port` or `[address]:port`; it keeps its brackets.
fn host_name(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') && !name.is_empty() => name,
        _ => authority,
    }
}

/// Whether a host name or address means this machine, whatever a name server says.
fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// Applies the rules before anything else sees a request.
pub(crate) async fn check(gate: Arc<Gate>, mut request: Request, next: Next) -> Response {
    let (is_get, is_delete) = (request.method() == Method::GET, request.method() == Method::DELETE);
    if is_get && let Some(metadata) = gate.metadata(request.uri().path()) {
        return metadata;
    }
    if let Err(what) = gate.check_site(request.headers(), request.uri()) {
        return refused(StatusCode::FORBIDDEN, &what);
    }
    let origin = request.headers().get(header::ORIGIN).cloned();
    // What a browser asks before it sends another site's request; it carries no token.
    let asks = request.method() == Method::OPTIONS
        && origin.is_some()
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let wanted = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let known = request.extensions().get::<Caller>().cloned();
    let mut response = if asks {
        StatusCode::NO_CONTENT.into_response()
    } else {
        match gate.check_token(request.headers(), known).await {
            Err(response) => response,
            Ok(tenant) => {
                request.extensions_mut().insert(Caller(tenant.clone()));
                // The token has done its work: no tool, log or other server may see it.
                request.headers_mut().remove(header::AUTHORIZATION);
                let visit = Visit::new(tenant);
                let response = visit.clone().serve(next.run(request)).await;
                match (visit.crowded.load(Ordering::Relaxed), is_delete, response.status()) {
                    (true, ..) => crowded(),
                    // A session is closed by then; clients take 202 for a sign that it is not.
                    (_, true, StatusCode::ACCEPTED) => StatusCode::NO_CONTENT.into_response(),
                    _ => response,
                }
            }
        }
    };
    if let Some(origin) = origin {
        share(&mut response, origin, asks, wanted);
    }
    response
}

fn crowded() -> Response<Body> {
    let what = "too many sessions are open: end one with DELETE, or use revision 2026-07-28, which has none";
    let mut response = refused(StatusCode::SERVICE_UNAVAILABLE, what);
    response.headers_mut().insert(header::RETRY_AFTER, CROWDED_RETRY_S.into());
    response
}

/// Lets a page of an allowed origin read the answer.
fn share(response: &mut Response, origin: HeaderValue, asks: bool, wanted: Option<HeaderValue>) {
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    let shown = HeaderValue::from_static("mcp-session-id, www-authenticate");
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, shown);
    if asks {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, DELETE"));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        let any = HeaderValue::from_static("authorization, content-type");
        let name: HeaderName = header::ACCESS_CONTROL_ALLOW_HEADERS;
        headers.insert(name, wanted.unwrap_or(any));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::access::StaticKeys;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| text.to_string()).collect()
    }

    #[test]
    fn other_sites_are_refused() {
        let local = Gate::new(&[], &[], None);
        let open = Gate::new(
            &strings(&["Agents.example", "localhost"]),
            &strings(&["https://Chat.example", "http://localhost:3000"]),
            None,
        );
        let any = Gate::new(&strings(&["*"]), &strings(&["*"]), None);
        for (gate, host, origin, expected) in [
            (&local, "localhost:8000", "", true),
            (&local, "127.0.0.1:8000", "", true),
            (&local, "LOCALHOST", "", true),
            (&local, "[::1]:8000", "", true),
            (&local, "a.localhost", "", true),
            (&local, "", "", false),
            (&local, "evil.example", "", false),
            (&local, "127.0.0.1.evil.example", "", false),
            (&local, "localhost.evil.example:80", "", false),
            (&local, "0.0.0.0:8000", "", false),
            (&local, "localhost:8000", "http://evil.example", false),
            (&local, "localhost:8000", "http://localhost:8000", true),
            (&local, "LOCALHOST:8000", "http://Localhost:8000", true),
            (&local, "localhost", "https://localhost", true),
            (&local, "[::1]:8000", "http://[::1]:8000", true),
            (&local, "localhost:8000", "http://localhost:3000", false),
            (&local, "localhost:8000", "http://localhost", false),
            (&local, "localhost:8000", "http://127.0.0.1:8000", false),
            (&local, "localhost:8000", "localhost:8000", false),
            (&local, "evil.example:8000", "http://evil.example:8000", false),
            (&local, "localhost:8000", "null", false),
            (&local, "localhost:8000", "", true),
            (&open, "agents.example", "https://chat.example", true),
            (&open, "agents.example:8443", "https://chat.example:443", true),
            (&open, "agents.example", "https://chat.example:8443", false),
            (&open, "agents.example", "http://chat.example", false),
            (&open, "agents.example", "https://chat.example.evil.example", false),
            (&open, "localhost:1", "http://localhost:3000", true),
            (&open, "localhost:1", "http://localhost:3001", false),
            (&open, "127.0.0.1:1", "", false),
            (&any, "whatever.example", "https://anyone.example", true),
        ] {
            let mut headers = HeaderMap::new();
            if !host.is_empty() {
                headers.insert(header::HOST, host.parse().unwrap());
            }
            if !origin.is_empty() {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            let checked = gate.check_site(&headers, &Uri::from_static("/mcp"));
            assert_eq!(checked.is_ok(), expected, "host {host}, origin {origin}: {checked:?}");
        }
    }

    #[test]
    fn where_to_log_in_is_told() {
        let access = Access {
            tokens: Arc::new(StaticKeys::default()),
            resource: "https://agents.example/mcp".into(),
            authorization_servers: strings(&["https://login.example"]),
            scopes: strings(&["agents", "files"]),
        };
        let at = "resource_metadata=\"https://agents.example/.well-known/oauth-protected-resource/mcp\"";
        for (denial, status, challenge) in [
            (Denial::Missing, 401, format!("Bearer {at},scope=\"agents files\"")),
            (Denial::Bad, 401, format!("Bearer error=\"invalid_token\",{at},scope=\"agents files\"")),
            (Denial::Weak, 403, format!("Bearer error=\"insufficient_scope\",{at},scope=\"agents files\"")),
        ] {
            let response = denied(&access, &denial);
            assert_eq!(response.status().as_u16(), status, "{denial:?}");
            assert_eq!(response.headers()[header::WWW_AUTHENTICATE], challenge, "{denial:?}");
        }
        let gate = Gate::new(&[], &[], Some(access));
        for (path, expected) in [
            ("/.well-known/oauth-protected-resource", true),
            ("/.well-known/oauth-protected-resource/mcp", true),
            ("/.well-known/oauth-protected-resource/other", false),
            ("/mcp", false),
        ] {
            assert_eq!(gate.metadata(path).is_some(), expected, "{path}");
        }
        assert!(Gate::new(&[], &[], None).metadata(METADATA_PATH).is_none());
    }
}
