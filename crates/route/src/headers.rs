//! Which headers go on, and which end at the router (RFC 9110, section 7.6.1). Knows headers only.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use narthex_http::Exchange;

/// Headers of a connection, and not of a message.
const OF_THE_CONNECTION: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What the router answers for itself: who it is (`host`), how long the body is, whether it may come (`expect`), and
/// whose page asks: the guard has judged that, and a replica knows other names than the client.
const OF_THE_FRONT: [&str; 4] = ["host", "content-length", "expect", "origin"];

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Takes out what belongs to a connection, whether it is known or named in `Connection`.
fn end_to_end(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in OF_THE_CONNECTION {
        headers.remove(name);
    }
}

/// The headers that a request has on its way to a replica.
pub(crate) fn onward(mut headers: HeaderMap, exchange: Option<&Exchange>, key: Option<&HeaderValue>) -> HeaderMap {
    end_to_end(&mut headers);
    for name in OF_THE_FRONT {
        headers.remove(name);
    }
    if let Some(exchange) = exchange {
        if let Ok(id) = HeaderValue::from_str(&exchange.id) {
            headers.insert(REQUEST_ID, id);
        }
        if let Some(peer) = exchange.peer {
            let before = headers.get(FORWARDED_FOR).and_then(|value| value.to_str().ok());
            let all = before.map_or_else(|| peer.ip().to_string(), |before| format!("{before}, {}", peer.ip()));
            if let Ok(all) = HeaderValue::from_str(&all) {
                headers.insert(FORWARDED_FOR, all);
            }
        }
    }
    if let Some(key) = key {
        headers.remove(API_KEY);
        headers.insert(header::AUTHORIZATION, key.clone());
    }
    headers
}

/// The headers that an answer has on its way to the client.
pub(crate) fn back(mut headers: HeaderMap) -> HeaderMap {
    end_to_end(&mut headers);
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn what_belongs_to_a_connection_ends_here() {
        let from = headers(&[
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("transfer-encoding", "chunked"),
            ("proxy-authorization", "Basic x"),
            ("host", "router:1"),
            ("origin", "https://page.example"),
            ("content-length", "3"),
            ("authorization", "Bearer client"),
            ("x-api-key", "client"),
            ("accept", "text/event-stream"),
            ("traceparent", "00-1"),
        ]);
        let kept = |headers: &HeaderMap| {
            let mut names: Vec<String> = headers.keys().map(ToString::to_string).collect();
            names.sort();
            names.join(" ")
        };
        let on = onward(from.clone(), None, None);
        assert_eq!(kept(&on), "accept authorization traceparent x-api-key");
        let key = HeaderValue::from_static("Bearer replica");
        let on = onward(from, None, Some(&key));
        assert_eq!((kept(&on).as_str(), &on["authorization"]), ("accept authorization traceparent", &key));
        let answer = headers(&[("connection", "keep-alive"), ("content-length", "2"), ("content-type", "text/plain")]);
        assert_eq!(kept(&back(answer)), "content-length content-type");
    }
}
