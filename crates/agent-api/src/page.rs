//! `GET /`: the page and its files, part of the binary. They load nothing from elsewhere.

use axum::{
    Router,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};

/// Nothing but this server's own files: no inline script, no other host, no frame around the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

fn file(kind: &'static str, content: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, content).into_response()
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The page and its files: path, kind and content.
pub(crate) const FILES: [(&str, &str, &str); 11] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/page.css", "text/css; charset=utf-8", include_str!("page/page.css")),
    ("/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
    ("/theme.js", SCRIPT, include_str!("page/theme.js")),
    ("/basics.js", SCRIPT, include_str!("page/basics.js")),
    ("/server.js", SCRIPT, include_str!("page/server.js")),
    ("/approvals.js", SCRIPT, include_str!("page/approvals.js")),
    ("/chat.js", SCRIPT, include_str!("page/chat.js")),
    ("/spans.js", SCRIPT, include_str!("page/spans.js")),
    ("/runs.js", SCRIPT, include_str!("page/runs.js")),
    ("/page.js", SCRIPT, include_str!("page/page.js")),
];

/// A route for each.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES
        .into_iter()
        .fold(Router::new(), |router, (path, kind, content)| router.route(path, get(async move || file(kind, content))))
}
