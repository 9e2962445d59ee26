//! Requests that concern every replica, such as loading an adapter: each gets them, or the next request for the adapter
//! would find it on one of them only.

use crate::{
    client::{send, whole},
    message::Message,
    replica::Hold,
    shared::Shared,
};
use axum::{
    body::Body,
    http::{Method, Response, StatusCode},
};
use futures::future::join_all;
use narthex_http::ApiError;
use std::sync::atomic::Ordering::Relaxed;

/// Their paths.
const PATHS: [&str; 5] =
    ["/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/models/load", "/models/unload", "/reset_prefix_cache"];

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Whether a message is for all.
pub(crate) fn concerns(message: &Message) -> bool {
    message.method == Method::POST && PATHS.contains(&message.path.as_str())
}

/// Sends it to all that are ready. The answer is that of the first one which refuses, else of the first.
pub(crate) async fn ask(shared: &Shared, message: &Message) -> Result<Response<Body>, ApiError> {
    let ask_one = async |replica| {
        let hold = Hold::new(replica);
        hold.replica().sent.fetch_add(1, Relaxed);
        let (method, headers, body) = (message.method.clone(), message.headers.clone(), message.body.clone().into());
        let answer =
            send(&hold.replica().client(), &hold.replica().address, method, &message.path_and_query, headers, body)
                .await;
        let (mut head, body) = answer.map_err(|failure| failure.why)?.into_parts();
        head.headers = crate::headers::back(head.headers);
        Ok::<_, String>((head, whole(body, ANSWER_BYTES_MAX).await?))
    };
    let mut answers = join_all(shared.fleet.ready().into_iter().map(ask_one)).await;
    if answers.is_empty() {
        return Err(shared.nobody());
    }
    let refuses = |answer: &Result<(axum::http::response::Parts, _), _>| {
        !answer.as_ref().is_ok_and(|(head, _)| head.status.is_success())
    };
    let told = answers.iter().position(refuses).unwrap_or(0);
    let (head, body) = answers.swap_remove(told).map_err(|_| {
        let what = "not all servers could be told: try again when they are ready";
        ApiError::server(StatusCode::BAD_GATEWAY, what, Some("replica_failed"))
    })?;
    Ok(Response::from_parts(head, Body::from(body)))
}
