//! `GET /`: the chat page and its files, part of the binary. They load nothing from elsewhere.

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
pub(crate) const FILES: [(&str, &str, &str); 18] = [
    ("/", "text/html; charset=utf-8", include_str!("../page/index.html")),
    ("/page.css", "text/css; charset=utf-8", include_str!("../page/page.css")),
    ("/icon.svg", "image/svg+xml", include_str!("../page/icon.svg")),
    ("/theme.js", SCRIPT, include_str!("../page/theme.js")),
    ("/basics.js", SCRIPT, include_str!("../page/basics.js")),
    ("/server.js", SCRIPT, include_str!("../page/server.js")),
    ("/model.js", SCRIPT, include_str!("../page/model.js")),
    ("/settings.js", SCRIPT, include_str!("../page/settings.js")),
    ("/request.js", SCRIPT, include_str!("../page/request.js")),
    ("/markdown.js", SCRIPT, include_str!("../page/markdown.js")),
    ("/rendering.js", SCRIPT, include_str!("../page/rendering.js")),
    ("/views.js", SCRIPT, include_str!("../page/views.js")),
    ("/store.js", SCRIPT, include_str!("../page/store.js")),
    ("/chat.js", SCRIPT, include_str!("../page/chat.js")),
    ("/history.js", SCRIPT, include_str!("../page/history.js")),
    ("/encoders.js", SCRIPT, include_str!("../page/encoders.js")),
    ("/page.js", SCRIPT, include_str!("../page/page.js")),
    ("/serving.js", SCRIPT, include_str!("../page/serving.js")),
];

/// A route for each.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES
        .into_iter()
        .fold(Router::new(), |router, (path, kind, content)| router.route(path, get(async move || file(kind, content))))
}

#[cfg(test)]
mod tests {
    use crate::testing::{self, get};

    #[tokio::test]
    async fn page_is_complete_and_stays_at_home() {
        let router = testing::router(|_| vec![]);
        let reply = get(&router, "/").await;
        assert!(reply.header("content-security-policy").starts_with("default-src 'none'; script-src 'self';"));
        assert_eq!(reply.header("content-type"), "text/html; charset=utf-8");
        let html = reply.text(200);
        for (path, kind, _) in super::FILES.into_iter().skip(1) {
            assert!(html.contains(&format!("\"{}\"", &path[1..])), "the page does not use {path}");
            let reply = get(&router, path).await;
            assert_eq!(reply.header("content-type"), kind);
            let text = reply.text(200).replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains("http://") && !text.contains("https://") && !text.contains("innerHTML"), "{path}");
        }
        assert!(!html.contains("http://") && !html.contains("https://"));
    }
}
