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

async fn unknown_route(request: Request) -> ApiError {
    let message = format!("unknown URL: {} {}", request.method(), request.uri().path());
    ApiError::request(StatusCode::NOT_FOUND, message, Some("unknown_url"))
}

async fn wrong_method(request: Request) -> ApiError {
    let message = format!("{} does not take {}", request.uri().path(), request.method());
    ApiError::request(StatusCode::METHOD_NOT_ALLOWED, message, Some("method_not_allowed"))
}
