//! What can go wrong in a request, as OpenAI's error object
//! (<https://platform.openai.com/docs/guides/error-codes>). Knows status codes, not causes.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// Seconds after which a refused client may try again.
const RETRY_AFTER_S: u32 = 1;

/// `{"error": {"message", "type", "param", "code"}}` with its status.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    body: ErrorBody,
}

#[derive(Debug, Serialize)]
struct ErrorBody {
    message: String,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<String>,
    code: Option<&'static str>,
}

/// The object as it stands in a body or an event.
#[derive(Serialize)]
pub struct ErrorObject<'a> {
    error: &'a ErrorBody,
}

impl ApiError {
    /// The request is at fault.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::request(StatusCode::BAD_REQUEST, message, None)
    }

    /// A field of the request is at fault.
    pub fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid(message).param(param)
    }

    /// The request is at fault, with a status and code of its own.
    pub fn request(status: StatusCode, message: impl Into<String>, code: Option<&'static str>) -> Self {
        Self { status, body: ErrorBody { message: message.into(), kind: "invalid_request_error", param: None, code } }
    }

    /// The server is at fault.
    pub fn server(status: StatusCode, message: impl Into<String>, code: Option<&'static str>) -> Self {
        Self { status, body: ErrorBody { message: message.into(), kind: "server_error", param: None, code } }
    }

    /// Our own fault.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::server(StatusCode::INTERNAL_SERVER_ERROR, message, None)
    }

    /// Names the field.
    pub fn param(mut self, param: impl Into<String>) -> Self {
        self.body.param = Some(param.into());
        self
    }

    /// Names fields below `from` as those below `to`: what another API calls them.
    pub fn renamed(mut self, from: &str, to: &str) -> Self {
        if let Some(rest) = self.body.param.as_deref().and_then(|param| param.strip_prefix(from)) {
            self.body.param = Some(format!("{to}{rest}"));
            self.body.message = self.body.message.replace(&format!("`{from}"), &format!("`{to}"));
        }
        self
    }

    /// Sets the machine-readable code.
    pub fn code(mut self, code: &'static str) -> Self {
        self.body.code = Some(code);
        self
    }

    /// The status that it is answered with.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The object to write.
    pub fn object(&self) -> ErrorObject<'_> {
        ErrorObject { error: &self.body }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.object())).into_response();
        let headers = response.headers_mut();
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}
