//! Connections to replicas: HTTP/1.1, kept open, with or without TLS. Knows no routes.

use crate::address::Address;
use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header},
};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use narthex_base::{Error, Result};
use std::{sync::Arc, time::Duration};

/// What requests are sent with.
pub(crate) type Upstream = Client<HttpsConnector<HttpConnector>, Body>;

/// How long a replica may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an idle connection is kept: uvicorn closes its own after 5 s.
const IDLE: Duration = Duration::from_secs(4);

/// Idle connections to a replica at most.
const IDLE_MAX: usize = 256;

/// How connections are made.
#[derive(Clone, Debug)]
pub(crate) struct Connector(HttpsConnector<HttpConnector>);

impl Connector {
    /// `https://` is checked against the system's certificates, or those of `SSL_CERT_FILE`.
    ///
    /// # Errors
    /// If TLS has no cipher suites.
    pub fn new() -> Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::internal("TLS has no cipher suites").cause(error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        Ok(Self(builder.wrap_connector(tcp)))
    }

    /// A client that keeps connections open for further requests.
    pub fn keeping(&self) -> Upstream {
        self.client(IDLE_MAX)
    }

    /// A client that makes a connection for each request: so it learns whether there is still somebody who takes them.
    pub fn afresh(&self) -> Upstream {
        self.client(0)
    }

    fn client(&self, idle_max: usize) -> Upstream {
        Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(idle_max)
            .pool_timer(TokioTimer::new())
            .build(self.0.clone())
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Nothing was sent: nobody accepted a connection.
    pub unsent: bool,
    pub why: String,
}

/// Sends a request to a replica; the answer's body is still to come.
///
/// # Errors
/// If the connection fails, or ends before there is an answer.
pub(crate) async fn send(
    client: &Upstream,
    address: &Address,
    method: Method,
    path_and_query: &str,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Incoming>, Failure> {
    let uri = address.uri(path_and_query).map_err(|why| Failure { unsent: true, why })?;
    let mut request = Request::new(body);
    (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method, uri, headers);
    client.request(request).await.map_err(|error| Failure { unsent: error.is_connect(), why: reason(&error) })
}

/// An error with what caused it.
fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// Fetches all of a page.
///
/// # Errors
/// If there is no answer in time, it breaks, or it is longer than `bytes_max`.
pub(crate) async fn fetch(
    client: &Upstream,
    address: &Address,
    path_and_query: &str,
    headers: HeaderMap,
    bytes_max: usize,
    timeout: Duration,
) -> Result<(StatusCode, Bytes), String> {
    let all = async {
        let answer = send(client, address, Method::GET, path_and_query, headers, Body::empty()).await;
        let (head, body) = answer.map_err(|failure| failure.why)?.into_parts();
        Ok((head.status, whole(body, bytes_max).await?))
    };
    tokio::time::timeout(timeout, all).await.map_err(|_| "no answer in time".to_string())?
}

/// All of a body.
///
/// # Errors
/// If it breaks, or is longer than `bytes_max`.
pub(crate) async fn whole(body: Incoming, bytes_max: usize) -> Result<Bytes, String> {
    let collected = Limited::new(body, bytes_max).collect().await;
    collected.map(|all| all.to_bytes()).map_err(|error| reason(error.as_ref()))
}

/// The headers of the router's own questions.
pub(crate) fn own_headers(key: Option<&HeaderValue>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(key) = key {
        headers.insert(header::AUTHORIZATION, key.clone());
    }
    headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("narthex-route/", env!("CARGO_PKG_VERSION"))));
    headers
}
