//! A request as it goes on to a replica. Plain data.

use axum::{
    body::Bytes,
    http::{HeaderMap, Method},
};

/// A request with its body, which can be sent several times.
pub(crate) struct Message {
    pub method: Method,
    /// The path without the query.
    pub path: String,
    pub path_and_query: String,
    /// Those that go on.
    pub headers: HeaderMap,
    pub body: Bytes,
}
