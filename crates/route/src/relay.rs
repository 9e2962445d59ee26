//! A request to the replica that fits it, and elsewhere as long as no byte of an answer has come. Knows which requests
//! have a prompt, name something that is kept, or concern all.

use crate::{
    answers::passed_on,
    client::{Failure, fetch, send},
    everyone,
    headers::onward,
    kept::{self, Name, Naming},
    listed,
    message::Message,
    prefix,
    replica::{Hold, Replica},
    shared::{Ask, Shared},
};
use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, Method, Response, StatusCode, header},
    response::IntoResponse,
};
use futures::future::join_all;
use http_body_util::Limited;
use hyper::body::Incoming;
use narthex_http::{ApiError, Exchange};
use serde_json::Value;
use std::{
    error::Error,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

/// Where one server is told what to serve: by chance, the router would tell some of them.
const ADMIN: &str = "/admin/model";

/// How often a request is sent, where replicas take it and then end the connection: it may be what ends them.
const SENT_MAX: usize = 2;

/// How long a replica may take to say whether it keeps something, and how long its answer may be.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
const PROBE_BYTES_MAX: usize = 16 << 20;

/// Everything that the router does not answer itself.
pub(crate) async fn relay(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    routed(&shared, request).await.unwrap_or_else(IntoResponse::into_response)
}

async fn routed(shared: &Arc<Shared>, request: Request) -> Result<Response<Body>, ApiError> {
    let (head, body) = request.into_parts();
    let exchange = head.extensions.get::<Arc<Exchange>>().map(Arc::as_ref);
    let length = head.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let length = length.and_then(|length| length.parse::<u64>().ok()).unwrap_or(0);
    let path = head.uri.path().to_string();
    if path == ADMIN {
        let message = "what a server serves is told to each server itself, not through the router";
        return Err(ApiError::request(StatusCode::NOT_FOUND, message, Some("not_routed")));
    }
    let is_upload = head.method == Method::POST && path == "/v1/files";
    let bytes_max = if is_upload { shared.upload_bytes_max } else { shared.body_bytes_max };
    if length > bytes_max as u64 {
        return Err(too_large());
    }
    let mut message = Message {
        path_and_query: head.uri.path_and_query().map_or_else(|| path.clone(), ToString::to_string),
        headers: onward(head.headers, exchange, shared.replica_key.as_ref()),
        method: head.method,
        body: Bytes::new(),
        path,
    };
    if is_upload {
        return upload(shared, message, Body::new(Limited::new(body, bytes_max))).await;
    }
    message.body = to_bytes(body, bytes_max).await.map_err(|error| {
        let is_limit = error.source().is_some_and(|cause| cause.is::<http_body_util::LengthLimitError>());
        if is_limit { too_large() } else { ApiError::invalid("the body ended early") }
    })?;
    if kept::is_list(&message.method, &message.path) {
        return listed::collection(shared, &message).await;
    }
    if everyone::concerns(&message) {
        return everyone::ask(shared, &message).await;
    }
    let body: Option<Value> = match message.body.first() {
        Some(_) if message.method == Method::POST => serde_json::from_slice(&message.body).ok(),
        _ => None,
    };
    let name =
        kept::of_path(&message.path).or_else(|| body.as_ref().and_then(|body| kept::of_body(&message.path, body)));
    if let Some(name) = name
        && let Some(keeper) = keeper(shared, &message.headers, &name).await
    {
        return to_keeper(shared, message, &keeper).await;
    }
    let ask = Ask {
        chain: body.as_ref().map(|body| prefix::chain(&message.path, body)).unwrap_or_default(),
        model: model(&message.path, body.as_ref()),
    };
    to_the_best(shared, &message, &ask).await
}

/// The model that a request names, in its body or its path.
fn model(path: &str, body: Option<&Value>) -> Option<String> {
    let named = body.and_then(|body| body.get("model")).and_then(Value::as_str);
    let of_path = || path.strip_prefix("/v1/models/").map(|name| name.strip_suffix("/manifest").unwrap_or(name));
    named.or_else(of_path).map(str::to_string)
}

fn too_large() -> ApiError {
    ApiError::request(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large", Some("request_too_large"))
}

fn broken(failure: &Failure) -> ApiError {
    let what = if failure.unsent { "the server cannot be reached" } else { "the server ended without an answer" };
    ApiError::server(StatusCode::BAD_GATEWAY, what, Some("replica_failed"))
}

/// Sends a message to a replica that a place is held on.
async fn sent(message: &Message, hold: &Hold, body: Body) -> Result<Response<Incoming>, Failure> {
    let replica = hold.replica();
    replica.sent.fetch_add(1, Relaxed);
    let (method, headers) = (message.method.clone(), message.headers.clone());
    let answer = send(&replica.client(), &replica.address, method, &message.path_and_query, headers, body).await;
    if answer.is_err() {
        replica.suspect();
    }
    answer
}

fn naming(message: &Message) -> Option<Naming> {
    kept::makes(&message.method, &message.path).then(Naming::default)
}

/// Asks the replica that fits best; the next one if that cannot be reached, breaks before an answer, or has no place.
async fn to_the_best(shared: &Arc<Shared>, message: &Message, ask: &Ask) -> Result<Response<Body>, ApiError> {
    // What a replica makes and then cannot tell of would be there twice.
    let may_repeat = !(kept::makes(&message.method, &message.path) && message.path != "/v1/responses");
    let (mut tried, mut broke, mut refusal, mut failure) = (vec![], 0, None, None);
    while let Some(hold) = shared.pick(ask, &tried) {
        if !tried.is_empty() {
            shared.sent_again.fetch_add(1, Relaxed);
        }
        tried.push(hold.replica().clone());
        match sent(message, &hold, message.body.clone().into()).await {
            Ok(answer) if has_no_place(answer.status()) => {
                hold.replica().doubt.notify_one();
                refusal = Some((answer, hold));
            }
            Ok(answer) => return Ok(passed_on(answer, hold, shared.clone(), naming(message))),
            Err(this) => {
                broke += usize::from(!this.unsent);
                let is_last = !this.unsent && (!may_repeat || broke >= SENT_MAX);
                failure = Some(this);
                if is_last {
                    break;
                }
            }
        }
    }
    match (refusal, failure) {
        (Some((answer, hold)), _) => Ok(passed_on(answer, hold, shared.clone(), None)),
        (None, Some(failure)) if !failure.unsent => Err(broken(&failure)),
        _ => Err(shared.nobody()),
    }
}

/// Whether an answer says that another replica should be asked: 529 is Anthropic's for an overload.
fn has_no_place(status: StatusCode) -> bool {
    status == StatusCode::SERVICE_UNAVAILABLE || status.as_u16() == 529
}

/// A file on its way: it is not kept here, so that there is one try.
async fn upload(shared: &Arc<Shared>, message: Message, body: Body) -> Result<Response<Body>, ApiError> {
    let hold = shared.pick(&Ask::default(), &[]).ok_or_else(|| shared.nobody())?;
    let replica = hold.replica().clone();
    replica.sent.fetch_add(1, Relaxed);
    let (method, headers) = (message.method.clone(), message.headers.clone());
    match send(&replica.client(), &replica.address, method, &message.path_and_query, headers, body).await {
        Ok(answer) => Ok(passed_on(answer, hold, shared.clone(), naming(&message))),
        // The client's end of it broke, or the replica's; a look at the replica tells.
        Err(failure) if failure.why.contains("length limit exceeded") => Err(too_large()),
        Err(failure) => {
            replica.doubt.notify_one();
            Err(broken(&failure))
        }
    }
}

/// Asks the one replica that keeps what is named, ready or not: one that is about to stop still has it.
async fn to_keeper(shared: &Arc<Shared>, message: Message, keeper: &Arc<Replica>) -> Result<Response<Body>, ApiError> {
    let hold = Hold::new(keeper.clone());
    let answer = sent(&message, &hold, message.body.clone().into()).await;
    let answer = answer.map_err(|failure| {
        if !failure.unsent {
            return broken(&failure);
        }
        shared.refused("the server that keeps this is not there: try again")
    })?;
    Ok(passed_on(answer, hold, shared.clone(), naming(&message)))
}

/// Who keeps what is named: as it was remembered, else whoever says that it does.
async fn keeper(shared: &Shared, headers: &HeaderMap, name: &Name) -> Option<Arc<Replica>> {
    if let Some(replica) = shared.keeper(name) {
        return Some(replica);
    }
    let ready = shared.fleet.ready();
    if ready.len() < 2 {
        return ready.into_iter().next();
    }
    let mut asking = headers.clone();
    asking.remove(header::CONTENT_TYPE);
    let probe = async |replica: &Arc<Replica>| {
        let (client, asking) = (replica.client(), asking.clone());
        let answer = fetch(&client, &replica.address, &name.path, asking, PROBE_BYTES_MAX, PROBE_TIMEOUT).await;
        answer.is_ok_and(|(status, _)| status.is_success())
    };
    let found = join_all(ready.iter().map(probe)).await;
    let replica = ready.iter().zip(found).find_map(|(replica, has_it)| has_it.then(|| replica.clone()))?;
    shared.keep(name.id.clone(), &replica.address);
    Some(replica)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_model_that_is_named() {
        for (path, body, expected) in [
            ("/v1/completions", Some(json!({"model": "m"})), Some("m")),
            ("/v1/completions", Some(json!({"model": 5})), None),
            ("/v1/models/a/b", None, Some("a/b")),
            ("/v1/models/a/manifest", None, Some("a")),
            ("/props", None, None),
        ] {
            assert_eq!(model(path, body.as_ref()).as_deref(), expected, "{path}");
        }
    }
}
