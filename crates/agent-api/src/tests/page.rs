//! The page is complete and loads nothing from elsewhere.

use crate::{
    needs_key,
    page::FILES,
    testing::{fresh, get},
};

#[tokio::test]
async fn page_is_complete_and_stays_at_home() {
    let (_, router) = fresh();
    let reply = get(&router, "/").await;
    assert!(reply.header("content-security-policy").starts_with("default-src 'none'; script-src 'self';"));
    assert_eq!(reply.header("content-type"), "text/html; charset=utf-8");
    let html = reply.text(200);
    for (path, kind, _) in FILES.into_iter().skip(1) {
        assert!(html.contains(&format!("\"{}\"", &path[1..])), "the page does not use {path}");
        let reply = get(&router, path).await;
        assert_eq!(reply.header("content-type"), kind);
        let text = reply.text(200).replace("http://www.w3.org/2000/svg", "");
        assert!(!text.is_empty(), "{path}");
        for forbidden in ["http://", "https://", "innerHTML", "outerHTML", "insertAdjacentHTML", "eval("] {
            assert!(!text.contains(forbidden), "{path}: {forbidden}");
        }
    }
    assert!(!html.contains("http://") && !html.contains("https://"));
}

#[test]
fn the_page_asks_for_no_key_and_agents_do() {
    for (path, expected) in
        [("/", false), ("/page.js", false), ("/ok", false), ("/agents", true), ("/v1/models", true), ("/threads", true)]
    {
        assert_eq!(needs_key(path), expected, "{path}");
    }
}
