//! A server over HTTP, on a client that the caller may bring: one that reaches no private address, for instance. No
//! redirect is followed, and no stream brings more than a number of bytes.

use futures::{StreamExt, stream::BoxStream};
use http::{HeaderName, HeaderValue};
use narthex_base::{Error, Result};
use rmcp::{
    model::ClientJsonRpcMessage,
    transport::{
        auth::{OAuthHttpClient, OAuthHttpClientFuture, OAuthHttpRequest},
        streamable_http_client::{
            SseError, StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse,
            StreamableHttpResponseLimits,
        },
    },
};
use sse_stream::Sse;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// Bytes of what an authorization server answers.
const OAUTH_BYTES_MAX: usize = 1 << 20;

/// Seconds that an authorization server may take.
const OAUTH_S: u64 = 30;

/// Seconds to reach a server.
const REACH_S: u64 = 15;

/// Seconds that a connection which nobody uses is kept: less than the 5 after which servers on Node close theirs. A
/// request on one that is closed just then fails, and nobody knows whether it was heard.
const KEPT_S: u64 = 4;

type Headers = HashMap<HeaderName, HeaderValue>;
type Events = BoxStream<'static, std::result::Result<Sse, SseError>>;
type Outcome<T> = std::result::Result<T, StreamableHttpError<reqwest::Error>>;

/// What our own client is made of, for callers that want one which reaches no private address, for instance: HTTPS with
/// this machine's certificates, and no redirect is followed. A token must not travel on, and an address that was judged
/// must be the one that answers.
pub fn client_builder() -> reqwest::ClientBuilder {
    // Whoever came first is as good: both are ring's.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(REACH_S))
        .pool_idle_timeout(Duration::from_secs(KEPT_S))
}

/// Our own client.
///
/// # Errors
/// If this machine has no certificates to trust.
pub(super) fn client() -> Result<reqwest::Client> {
    client_builder().build().map_err(|error| Error::input("cannot set up HTTPS").cause(error))
}

/// A client whose streams are bounded.
#[derive(Clone)]
pub(super) struct Bounded {
    pub client: reqwest::Client,
    pub stream_bytes_max: usize,
    /// Told when a stream ended because it brought too much: the SDK would only ask for the rest, again and again.
    pub too_long: watch::Sender<u64>,
    /// Why an authorization server was last not reached: the SDK says no more than that a request failed.
    pub unreached: Arc<Mutex<Option<String>>>,
}

impl Bounded {
    /// Keeps why an authorization server was not reached.
    fn note(&self, error: &reqwest::Error) {
        let mut deepest: &dyn std::error::Error = error;
        while let Some(source) = deepest.source() {
            deepest = source;
        }
        let said = format!("{error}: {deepest}");
        *self.unreached.lock().unwrap_or_else(PoisonError::into_inner) = Some(said);
    }

    /// A stream that ends with its first error, and with one once it brought too much.
    fn events(&self, events: Events) -> Events {
        let (too_long, bytes_max) = (self.too_long.clone(), self.stream_bytes_max);
        let counted = events.scan(Some(bytes_max), move |left, event| {
            let Some(before) = *left else { return std::future::ready(None) };
            let counted = event.and_then(|event| match before.checked_sub(size(&event)) {
                Some(rest) => {
                    *left = Some(rest);
                    Ok(event)
                }
                None => Err(SseError::Body(format!("a stream exceeded the maximum size of {bytes_max} bytes").into())),
            });
            if let Err(error) = &counted {
                *left = None;
                // The SDK has no kind of error for an event that is too long, only these words, as we have above.
                if error.to_string().contains("exceeded the maximum size") {
                    too_long.send_modify(|times| *times += 1);
                }
            }
            std::future::ready(Some(counted))
        });
        counted.boxed()
    }
}

/// Bytes of an event; one of no data still costs its line.
fn size(event: &Sse) -> usize {
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    1 + length(&event.data) + length(&event.event) + length(&event.id)
}

impl StreamableHttpClient for Bounded {
    type Error = reqwest::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        custom_headers: Headers,
    ) -> Outcome<StreamableHttpPostResponse> {
        let limits = StreamableHttpResponseLimits::default();
        self.post_message_with_response_limits(uri, message, session_id, auth_header, custom_headers, limits).await
    }

    async fn post_message_with_response_limits(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        custom_headers: Headers,
        limits: StreamableHttpResponseLimits,
    ) -> Outcome<StreamableHttpPostResponse> {
        let client = &self.client;
        let posted =
            client.post_message_with_response_limits(uri, message, session_id, auth_header, custom_headers, limits);
        Ok(match posted.await? {
            StreamableHttpPostResponse::Sse(events, session) => {
                StreamableHttpPostResponse::Sse(self.events(events), session)
            }
            other => other,
        })
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session_id: Arc<str>,
        auth_header: Option<String>,
        custom_headers: Headers,
    ) -> Outcome<()> {
        self.client.delete_session(uri, session_id, auth_header, custom_headers).await
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        custom_headers: Headers,
    ) -> Outcome<Events> {
        let events = self.client.get_stream(uri, session_id, last_event_id, auth_header, custom_headers).await?;
        Ok(self.events(events))
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        custom_headers: Headers,
        max_sse_event_size: usize,
    ) -> Outcome<Events> {
        let client = &self.client;
        let events = client.get_stream_with_max_sse_event_size(
            uri,
            session_id,
            last_event_id,
            auth_header,
            custom_headers,
            max_sse_event_size,
        );
        Ok(self.events(events.await?))
    }
}

/// Asks authorization servers on the caller's client.
impl OAuthHttpClient for Bounded {
    fn execute(&self, request: OAuthHttpRequest) -> OAuthHttpClientFuture<'_> {
        Box::pin(async move {
            let mut request = reqwest::Request::try_from(request.request)?;
            request.timeout_mut().get_or_insert(Duration::from_secs(OAUTH_S));
            // Nothing is asked twice in a short time, and a kept connection may be closed just when it is used again.
            request.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
            let response = self.client.execute(request).await.inspect_err(|error| self.note(error))?;
            let mut answer = http::Response::builder().status(response.status());
            for (name, value) in response.headers() {
                answer = answer.header(name, value);
            }
            let mut body = vec![];
            let mut chunks = response.bytes_stream();
            while let Some(chunk) = chunks.next().await {
                body.extend_from_slice(&chunk?);
                if body.len() > OAUTH_BYTES_MAX {
                    let what = format!("an authorization server answered more than {OAUTH_BYTES_MAX} bytes");
                    return Err(what.into());
                }
            }
            Ok(answer.body(body)?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn streams_end() {
        let (too_long, told) = watch::channel(0);
        let client = client().unwrap();
        let bounded = Bounded { client, stream_bytes_max: 100, too_long, unreached: Arc::default() };
        for (data_bytes, expected) in [(9, 10), (99, 1), (100, 0), (0, 100)] {
            let event = Sse { event: None, data: Some("x".repeat(data_bytes)), id: None, retry: None };
            // Endless.
            let events = futures::stream::repeat_with(move || Ok(event.clone())).boxed();
            let all: Vec<_> = bounded.events(events).collect().await;
            assert_eq!(all.iter().filter(|event| event.is_ok()).count(), expected, "{data_bytes}");
            assert!(all.last().is_some_and(|last| last.is_err()), "{data_bytes}");
        }
        assert_eq!(*told.borrow(), 4);
    }
}
