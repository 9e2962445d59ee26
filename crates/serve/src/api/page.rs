//! `GET /`: the chat page and its files, part of the binary. They load nothing from elsewhere.

use axum::{
    http::header,
    response::{IntoResponse, Response},
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

/// The page.
pub(crate) async fn html() -> Response {
    file("text/html; charset=utf-8", include_str!("../page/index.html"))
}

/// Its style.
pub(crate) async fn css() -> Response {
    file("text/css; charset=utf-8", include_str!("../page/page.css"))
}

/// Its script.
pub(crate) async fn js() -> Response {
    file("text/javascript; charset=utf-8", include_str!("../page/page.js"))
}

/// The script of its section "Serving".
pub(crate) async fn serving_js() -> Response {
    file("text/javascript; charset=utf-8", include_str!("../page/serving.js"))
}

/// Its icon.
pub(crate) async fn icon() -> Response {
    file("image/svg+xml", include_str!("../page/icon.svg"))
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
        for (path, kind) in [
            ("/page.css", "text/css"),
            ("/page.js", "text/javascript"),
            ("/serving.js", "text/javascript"),
            ("/icon.svg", "image/svg"),
        ] {
            assert!(html.contains(&format!("\"{}\"", &path[1..])), "the page does not use {path}");
            let reply = get(&router, path).await;
            assert!(reply.header("content-type").starts_with(kind));
            let text = reply.text(200).replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains("http://") && !text.contains("https://") && !text.contains("innerHTML"), "{path}");
        }
        assert!(!html.contains("http://") && !html.contains("https://"));
    }
}
