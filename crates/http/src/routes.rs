//! What stands around all routes: the limit of a body, the guard, the observers, and what answers when no route fits.
//! Knows no route.

use crate::{
    error::ApiError,
    guard::{Guard, check},
    observe::{Observers, observe},
    options::HttpOptions,
};
use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::StatusCode,
    middleware,
    response::{IntoResponse, Redirect, Response},
};
use std::sync::Arc;

/// Routes behind the guard, each request with an id and seen by the observers. `needs_key` says of a path whether a
/// request must carry one of the keys.
pub fn guarded(routes: Router, options: &HttpOptions, needs_key: fn(&str) -> bool, observers: Observers) -> Router {
    let (guard, observers) = (Arc::new(Guard::new(options, needs_key)), Arc::new(observers));
    routes
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(options.limits.body_bytes_max))
        .layer(middleware::from_fn(move |request, next| check(guard.clone(), request, next)))
        .layer(middleware::from_fn(move |request, next| observe(observers.clone(), request, next)))
}

/// A path with a `/` too many is sent on to the one without, method and body with it.
async fn unknown_route(request: Request) -> Response {
    let path = request.uri().path();
    let trimmed = path.trim_matches('/');
    if path.ends_with('/') && !trimmed.is_empty() {
        let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
        return Redirect::temporary(&format!("/{trimmed}{query}")).into_response();
    }
    let message = format!("unknown URL: {} {path}", request.method());
    ApiError::request(StatusCode::NOT_FOUND, message, Some("unknown_url")).into_response()
}

async fn wrong_method(request: Request) -> ApiError {
    let message = format!("{} does not take {}", request.uri().path(), request.method());
    ApiError::request(StatusCode::METHOD_NOT_ALLOWED, message, Some("method_not_allowed"))
}
