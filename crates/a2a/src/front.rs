//! What stands in front of the official routers: who asks, which version, how large, and in which media type it is
//! answered. Knows HTTP, not what is asked.

use a2a::{A2AError, JsonRpcId, JsonRpcResponse, TypedDetail, error_reason, errordetails::PROTOCOL_DOMAIN};
use axum::{
    Json,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use narthex_base::Caller;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};

/// The version of the protocol that is spoken.
pub(crate) const VERSION: &str = "1.0";

/// What version a caller means that names none, by section 3.6.2.
const VERSION_WITHOUT: &str = "0.3";

/// The longest name of a version that is shown.
const VERSION_CHARS_MAX: usize = 32;

/// The header, and the query parameter, that names the version.
const VERSION_HEADER: &str = "a2a-version";

const A2A_JSON: &str = "application/a2a+json";
const JSON: &str = "application/json";
const PROBLEM_JSON: &str = "application/problem+json";

/// What goes between this and the handlers behind the official routers, which hand on headers only.
struct Exchange {
    /// Who asks. A header could be forged.
    caller: String,
    /// Whether the answer is a list of no tasks.
    lists_nothing: AtomicBool,
}

tokio::task_local! {
    static EXCHANGE: Exchange;
}

/// The longest answer that lists no tasks, in bytes.
const NOTHING_BYTES_MAX: usize = 4096;

/// Who asks.
pub(crate) fn caller() -> String {
    EXCHANGE.try_with(|exchange| exchange.caller.clone()).unwrap_or_else(|_| Caller::LOCAL.to_string())
}

/// Says that the answer is a list of no tasks.
pub(crate) fn lists_nothing() {
    // Without an exchange, nobody reads the answer.
    _ = EXCHANGE.try_with(|exchange| exchange.lists_nothing.store(true, Ordering::Relaxed));
}

/// Handles a request of one agent, of at most so many bytes: JSON-RPC at its root, HTTP+JSON below.
pub(crate) async fn handle(State(bytes_max): State<usize>, request: Request, next: Next) -> Response {
    let is_rpc = request.uri().path() == "/";
    let caller = request.extensions().get::<Caller>().map_or(Caller::LOCAL, |caller| caller.0.as_str()).to_string();
    let wanted = Wanted::read(request.headers());
    if is_rpc && !is_json(request.headers()) {
        let error = A2AError::content_type_not_supported();
        return Json(JsonRpcResponse::error(JsonRpcId::Null, error.to_jsonrpc_error())).into_response();
    }
    let mut request = match sized(request, bytes_max).await {
        Ok(request) => request,
        Err(response) => return wanted.typed(*response),
    };
    if let Err(version) = version(&mut request) {
        if !is_rpc {
            return wanted.typed(problem(&A2AError::version_not_supported(&version)));
        }
        // The JSON-RPC router answers in the envelope of the request, and refuses what is no number.
        let shown = HeaderValue::from_str(&format!("'{version}': this agent speaks {VERSION}"));
        request.headers_mut().insert(VERSION_HEADER, shown.unwrap_or(HeaderValue::from_static("unreadable")));
    }
    let exchange = Exchange { caller, lists_nothing: AtomicBool::new(false) };
    let answered = async {
        let response = next.run(request).await;
        (response, EXCHANGE.with(|exchange| exchange.lists_nothing.load(Ordering::Relaxed)))
    };
    let (mut response, is_nothing) = EXCHANGE.scope(exchange, answered).await;
    if is_nothing {
        response = with_nothing(response).await;
    }
    if response.headers().get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes() == b"text/event-stream") {
        // Proxies would otherwise hold a stream back until it is complete.
        response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if is_rpc { response } else { wanted.typed(plain_words_replaced(response)) }
}

/// A list of no tasks, with its required fields: the official crate leaves out what is empty or 0, against section 5.7.
async fn with_nothing(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let json = match to_bytes(body, NOTHING_BYTES_MAX).await {
        Ok(bytes) => serde_json::from_slice::<Value>(&bytes),
        Err(_) => Ok(Value::Null),
    };
    let mut json = json.unwrap_or_default();
    let list = if json.get("jsonrpc").is_some() { json.get_mut("result") } else { Some(&mut json) };
    if let Some(list) = list.and_then(Value::as_object_mut) {
        list.entry("tasks").or_insert_with(|| json!([]));
        list.entry("totalSize").or_insert_with(|| json!(0));
    }
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(json.to_string()))
}

/// The request with its body read, unless it is too large. What has no length is cut off when it has come so far. It is
/// read even where no handler asks for it: otherwise the connection could not be used again.
async fn sized(request: Request, bytes_max: usize) -> Result<Request, Box<Response>> {
    let refused = |error: &A2AError, status| Err(Box::new(problem_with(error, status)));
    let too_large = A2AError::invalid_request(format!("the request has more than {bytes_max} bytes"));
    let length =
        request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > bytes_max as u64) {
        return refused(&too_large, StatusCode::PAYLOAD_TOO_LARGE);
    }
    let (parts, body) = request.into_parts();
    match Limited::new(body, bytes_max).collect().await {
        Ok(body) => Ok(Request::from_parts(parts, Body::from(body.to_bytes()))),
        Err(error) if error.is::<LengthLimitError>() => refused(&too_large, StatusCode::PAYLOAD_TOO_LARGE),
        Err(_) => refused(&A2AError::invalid_request("the request broke off"), StatusCode::BAD_REQUEST),
    }
}

/// Takes the version from the header or the query, and leaves it in the header.
fn version(request: &mut Request) -> Result<(), String> {
    let of_header =
        request.headers().get(VERSION_HEADER).map(|value| value.to_str().unwrap_or("unreadable").trim().to_string());
    let of_query = request.uri().query().and_then(|query| {
        let pairs = url::form_urlencoded::parse(query.as_bytes());
        pairs
            .into_iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(VERSION_HEADER))
            .map(|(_, value)| value.into_owned())
    });
    let named = of_header.or(of_query).filter(|version| !version.is_empty()).unwrap_or_else(|| VERSION_WITHOUT.into());
    // Patch numbers say nothing (section 3.6).
    if named != VERSION
        && !named.strip_prefix("1.0.").is_some_and(|patch| patch.bytes().all(|byte| byte.is_ascii_digit()))
    {
        return Err(named.chars().filter(|letter| !letter.is_control()).take(VERSION_CHARS_MAX).collect());
    }
    request.headers_mut().insert(VERSION_HEADER, HeaderValue::from_static(VERSION));
    Ok(())
}

/// The media type that a caller of HTTP+JSON wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// `application/json`, and `application/a2a+json` not or less.
    Plain,
    /// `application/a2a+json`.
    Own,
    /// It does not say. Version 1.0.1 prefers A2A's own type, which a success gets. Of errors it shows three types;
    /// 1.0.0 has plain JSON, which every client reads.
    Any,
}

impl Wanted {
    fn read(headers: &HeaderMap) -> Self {
        let accepted = headers.get_all(header::ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
        let (mut plain, mut own) = (0.0, 0.0);
        for range in accepted.flat_map(|value| value.split(',')) {
            let mut pieces = range.split(';').map(str::trim);
            let name = pieces.next().unwrap_or_default().to_ascii_lowercase();
            let quality = pieces.find_map(|piece| piece.strip_prefix("q=")?.parse::<f32>().ok()).unwrap_or(1.0);
            match name.as_str() {
                JSON => plain = quality,
                A2A_JSON => own = quality,
                _ => {}
            }
        }
        match () {
            () if plain > own => Self::Plain,
            () if own > 0.0 => Self::Own,
            () => Self::Any,
        }
    }

    /// The answer in this type, if it is JSON.
    fn typed(self, mut response: Response) -> Response {
        let is_error = response.status().is_client_error() || response.status().is_server_error();
        let media_type = match (self, is_error) {
            (Self::Plain, _) | (Self::Any, true) => JSON,
            (Self::Own, _) | (Self::Any, false) => A2A_JSON,
        };
        let is_json = response.headers().get(header::CONTENT_TYPE).is_some_and(|value| {
            [A2A_JSON, JSON, PROBLEM_JSON].iter().any(|known| value.as_bytes().starts_with(known.as_bytes()))
        });
        if is_json {
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        }
        response.headers_mut().append(header::VARY, HeaderValue::from_static("accept"));
        response
    }
}

/// Whether a body says that it is JSON, or says nothing.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(media_type) = headers.get(header::CONTENT_TYPE) else { return true };
    let essence =
        media_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == JSON || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// What the router below refuses in plain words is put as the errors of A2A are.
fn plain_words_replaced(response: Response) -> Response {
    let media_type =
        response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_error = response.status().is_client_error() || response.status().is_server_error();
    if !is_error || media_type.starts_with(PROBLEM_JSON) {
        return response;
    }
    let (status, allow) = (response.status(), response.headers().get(header::ALLOW).cloned());
    let error = match status {
        StatusCode::NOT_FOUND => A2AError::method_not_found("this path"),
        StatusCode::METHOD_NOT_ALLOWED => A2AError::method_not_found("this path by this HTTP method"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => A2AError::new(
            a2a::error_code::CONTENT_TYPE_NOT_SUPPORTED,
            format!("send the request as {A2A_JSON} or {JSON}"),
        ),
        StatusCode::PAYLOAD_TOO_LARGE => A2AError::invalid_request("the request is too large"),
        _ => A2AError::invalid_request("the request cannot be read: send a JSON object as the specification has it"),
    };
    let mut response = problem_with(&error, status);
    if let Some(allow) = allow {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

fn problem(error: &A2AError) -> Response {
    let status = StatusCode::from_u16(error.http_status_code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    problem_with(error, status)
}

/// An error in the form of section 11.6.
fn problem_with(error: &A2AError, status: StatusCode) -> Response {
    let word = match status {
        StatusCode::NOT_FOUND => "NOT_FOUND",
        StatusCode::METHOD_NOT_ALLOWED => "UNIMPLEMENTED",
        _ if error.code == a2a::error_code::VERSION_NOT_SUPPORTED => "FAILED_PRECONDITION",
        _ => "INVALID_ARGUMENT",
    };
    let details = [TypedDetail::error_info(error_reason(error.code), PROTOCOL_DOMAIN, None)];
    let body =
        json!({"error": {"code": status.as_u16(), "status": word, "message": error.message, "details": details}});
    let mut response = (status, Json(body)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads the version of a request to this address with this header.
    fn check_version(address: &str, named: Option<&str>, refused: Option<&str>) {
        let mut request = Request::builder().uri(address);
        if let Some(named) = named {
            request = request.header(VERSION_HEADER, named);
        }
        let mut request = request.body(Body::empty()).unwrap();
        assert_eq!(version(&mut request).err().as_deref(), refused, "{address} {named:?}");
        if refused.is_none() {
            assert_eq!(request.headers()[VERSION_HEADER], VERSION);
        }
    }

    #[test]
    fn only_version_1_0_is_spoken() {
        check_version("/", Some("1.0"), None);
        check_version("/", Some(" 1.0 "), None);
        check_version("/", Some("1.0.1"), None);
        check_version("/?A2A-Version=1.0", None, None);
        check_version("/?a2a-version=1.0&x=1", None, None);
        check_version("/", None, Some("0.3"));
        check_version("/", Some(""), Some("0.3"));
        check_version("/?A2A-Version=", None, Some("0.3"));
        check_version("/?A2A-Version=1.0", Some("0.3"), Some("0.3"));
        for wrong in ["1", "1.1", "2.0", "1.0.x", "99", "bard"] {
            check_version("/", Some(wrong), Some(wrong));
        }
        check_version("/", Some(&"9".repeat(99)), Some(&"9".repeat(VERSION_CHARS_MAX)));
    }

    /// Answers a request with this `Accept`: a success, then an error.
    fn check_type(accept: Option<&'static str>, success: &str, error: &str) {
        let mut headers = HeaderMap::new();
        if let Some(accept) = accept {
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        }
        let wanted = Wanted::read(&headers);
        let found = |response| wanted.typed(response).headers()[header::CONTENT_TYPE].to_str().unwrap().to_string();
        let done = ([(header::CONTENT_TYPE, A2A_JSON)], "{}").into_response();
        assert_eq!(
            (found(done), found(problem(&A2AError::task_not_found("t")))),
            (success.into(), error.into()),
            "{accept:?}"
        );
    }

    #[test]
    fn answers_have_the_type_that_is_asked_for() {
        for accept in ["application/json", "application/json, */*", "application/a2a+json;q=0.5, application/json"] {
            check_type(Some(accept), JSON, JSON);
        }
        for accept in [
            "application/a2a+json",
            "application/json, application/a2a+json",
            "application/json;q=0.5, application/a2a+json;q=0.9",
        ] {
            check_type(Some(accept), A2A_JSON, A2A_JSON);
        }
        for accept in [None, Some("*/*"), Some("text/event-stream"), Some("application/json;q=0")] {
            check_type(accept, A2A_JSON, JSON);
        }
        let events = ([(header::CONTENT_TYPE, "text/event-stream")], "").into_response();
        assert_eq!(Wanted::Plain.typed(events).headers()[header::CONTENT_TYPE], "text/event-stream");
    }

    #[test]
    fn bodies_are_json_or_say_nothing() {
        for (media_type, expected) in [
            (None, true),
            (Some("application/json; charset=utf-8"), true),
            (Some("application/a2a+json"), true),
            (Some("text/plain"), false),
            (Some("text/json+json"), false),
            (Some(""), false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(media_type) = media_type {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
            }
            assert_eq!(is_json(&headers), expected, "{media_type:?}");
        }
    }

    #[tokio::test]
    async fn what_others_refuse_in_words_becomes_an_error_of_a2a() {
        for status in [400, 404, 405, 413, 415, 422] {
            let refused = (StatusCode::from_u16(status).unwrap(), "no").into_response();
            let response = plain_words_replaced(refused);
            assert_eq!(response.status().as_u16(), status);
            let body = to_bytes(response.into_body(), 4096).await.unwrap();
            let json: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(
                (json["error"]["code"].as_u64(), &json["error"]["details"][0]["domain"]),
                (Some(status.into()), &json!("a2a-protocol.org"))
            );
        }
    }
}
