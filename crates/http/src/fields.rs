//! Reading a request's JSON object field by field, so that each complaint names its field and no
//! field is dropped unseen. Knows JSON, not what the fields mean.

use crate::{error::ApiError, exchange::Exchange};
use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{StatusCode, header},
};
use narthex_base::error::nearest;
use serde_json::{Map, Value};
use std::{ops::RangeInclusive, sync::Arc};

/// The fields that nobody has read yet. `null` counts as absent, as OpenAI's clients send it.
pub struct Fields {
    map: Map<String, Value>,
    /// `messages[0].` for a nested object, empty on top.
    prefix: String,
    /// Every name that was asked for, for suggestions.
    known: Vec<&'static str>,
    /// Those of them that were there.
    taken: Vec<&'static str>,
    /// Where fields that nobody knows are noted; without it they are refused.
    exchange: Option<Arc<Exchange>>,
}

/// Fields that change no answer of ours, whatever they say.
const HARMLESS: [&str; 7] =
    ["user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"];

impl Fields {
    /// Reads a JSON object.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(map)) => Ok(Self::new(map, String::new())),
            Ok(_) => Err(ApiError::invalid("the body must be a JSON object")),
            Err(error) => Err(ApiError::invalid(format!("the body is not valid JSON: {error}"))),
        }
    }

    /// A nested object whose fields are named behind `prefix`.
    pub fn new(map: Map<String, Value>, prefix: String) -> Self {
        Self { map, prefix, known: vec![], taken: vec![], exchange: None }
    }

    /// An object whose fields that nobody knows are noted for this exchange.
    pub fn noting(map: Map<String, Value>, exchange: &Arc<Exchange>) -> Self {
        Self { exchange: Some(exchange.clone()), ..Self::new(map, String::new()) }
    }

    /// A nested object, in whose names fields are named behind `name` and a dot.
    pub fn inner(&self, map: Map<String, Value>, name: &str) -> Self {
        Self { exchange: self.exchange.clone(), ..Self::new(map, format!("{name}.")) }
    }

    /// What nobody has read, but for `null`, which asks for nothing.
    pub fn rest(&mut self) -> Map<String, Value> {
        std::mem::take(&mut self.map).into_iter().filter(|(_, value)| !value.is_null()).collect()
    }

    /// Notes the names of fields that change nothing though somebody sent them.
    pub fn ignore<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        if let Some(exchange) = &self.exchange {
            names.into_iter().for_each(|name| exchange.ignore(name));
        }
    }

    /// The full name of a field.
    pub fn name(&self, field: &str) -> String {
        format!("{}{field}", self.prefix)
    }

    fn wrong(&self, field: &str, what: &str) -> ApiError {
        let name = self.name(field);
        ApiError::field(&name, format!("`{name}` must be {what}"))
    }

    /// The field's value, unless absent or `null`.
    pub fn take(&mut self, field: &'static str) -> Option<Value> {
        self.known.push(field);
        let value = self.map.shift_remove(field).filter(|value| !value.is_null())?;
        self.taken.push(field);
        Some(value)
    }

    /// Whether a field that has been read was there, or one that has not says something.
    pub fn asked(&self, field: &str) -> bool {
        self.taken.contains(&field) || self.has(field)
    }

    /// Whether a field is there and says something.
    pub fn has(&self, field: &str) -> bool {
        self.map.get(field).is_some_and(|value| !value.is_null())
    }

    /// What a field says, without having read it.
    pub fn look(&self, field: &str) -> Option<&Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    /// The error for a field that must be there.
    pub fn missing(&self, field: &str) -> ApiError {
        let name = self.name(field);
        ApiError::field(&name, format!("the field `{name}` is missing")).code("missing_required_parameter")
    }

    /// A string.
    pub fn string(&mut self, field: &'static str) -> Result<Option<String>, ApiError> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(field, "a string")),
        }
    }

    /// `true` or `false`.
    pub fn flag(&mut self, field: &'static str) -> Result<Option<bool>, ApiError> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(self.wrong(field, "true or false")),
        }
    }

    /// A whole number within bounds.
    pub fn integer(&mut self, field: &'static str, bounds: RangeInclusive<i64>) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.take(field) else { return Ok(None) };
        let whole = value.as_i64().or_else(|| value.as_u64().map(|_| i64::MAX));
        match whole.filter(|number| bounds.contains(number)) {
            Some(number) => Ok(Some(number)),
            None if *bounds.end() == i64::MAX => {
                Err(self.wrong(field, &format!("a whole number from {}", bounds.start())))
            }
            None => Err(self.wrong(field, &format!("a whole number from {} to {}", bounds.start(), bounds.end()))),
        }
    }

    /// A number within bounds.
    pub fn number(&mut self, field: &'static str, bounds: RangeInclusive<f64>) -> Result<Option<f64>, ApiError> {
        let Some(value) = self.take(field) else { return Ok(None) };
        match value.as_f64().filter(|number| bounds.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(field, &format!("a number from {} to {}", bounds.start(), bounds.end()))),
        }
    }

    /// An object.
    pub fn object(&mut self, field: &'static str) -> Result<Option<Fields>, ApiError> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(self.inner(map, &self.name(field)))),
            Some(_) => Err(self.wrong(field, "an object")),
        }
    }

    /// A field that we know but can't honour: refused unless it says what happens anyway.
    pub fn unsupported(&mut self, field: &'static str, neutral: &[Value]) -> Result<(), ApiError> {
        match self.take(field) {
            Some(value) if !is_neutral(&value, neutral) => {
                let name = self.name(field);
                Err(ApiError::field(&name, format!("`{name}` is not supported yet: leave it out"))
                    .code("unsupported_parameter"))
            }
            _ => Ok(()),
        }
    }

    /// Notes what nobody has read, for the answer's header and the log; a strict server refuses it. Names that change
    /// no answer are passed over.
    pub fn finish(self) -> Result<(), ApiError> {
        let harmless = |name: &str| self.prefix.is_empty() && HARMLESS.contains(&name);
        let unread = self.map.iter().filter(|(field, value)| !value.is_null() && !harmless(field));
        if let Some(exchange) = self.exchange.as_ref().filter(|exchange| !exchange.strict) {
            unread.for_each(|(field, _)| exchange.ignore(&self.name(field)));
            return Ok(());
        }
        let Some((field, _)) = self.map.iter().find(|(field, value)| !value.is_null() && !harmless(field)) else {
            return Ok(());
        };
        let name = self.name(field);
        let hint = nearest(field, self.known.iter().copied()).map(|near| format!("; did you mean `{near}`?"));
        Err(ApiError::field(&name, format!("unknown field `{name}`{}", hint.unwrap_or_default()))
            .code("unknown_parameter"))
    }
}

/// Empty lists and objects ask for nothing; numbers are compared by value (`0` and `0.0`).
fn is_neutral(value: &Value, neutral: &[Value]) -> bool {
    match value {
        Value::Array(list) if list.is_empty() => true,
        Value::Object(map) if map.is_empty() => true,
        Value::Number(number) => neutral.iter().any(|value| value.as_f64() == number.as_f64()),
        _ => neutral.contains(value),
    }
}

/// A body that is one JSON object, with errors in OpenAI's form.
pub struct JsonBody(pub Fields);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        // A page of another site can send any other type without asking first (a "simple request"
        // in https://fetch.spec.whatwg.org), so that this check also protects against it.
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
        let essence = kind.split(';').next().unwrap_or("").trim();
        // Some clients of Ollama's name no type; a page always names its origin.
        let unnamed = essence.is_empty() && !request.headers().contains_key(header::ORIGIN);
        let exchange = request.extensions().get::<Arc<Exchange>>().cloned();
        if !unnamed && !essence.eq_ignore_ascii_case("application/json") {
            return Err(ApiError::request(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the header `Content-Type: application/json` is missing",
                Some("unsupported_media_type"),
            ));
        }
        let body = Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                ApiError::request(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large", Some("request_too_large"))
            }
            _ => ApiError::invalid(format!("cannot read the body: {}", rejection.body_text())),
        })?;
        Fields::parse(&body).map(|fields| JsonBody(Fields { exchange, ..fields }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(body: &str, read: impl Fn(&mut Fields) -> Result<(), ApiError>, expected: &str) {
        let outcome = Fields::parse(body.as_bytes()).and_then(|mut fields| {
            read(&mut fields)?;
            fields.finish()
        });
        let shown = match outcome {
            Ok(()) => "ok".to_string(),
            Err(error) => {
                let object = serde_json::to_value(error.object()).unwrap();
                format!(
                    "{}: {}",
                    object["error"]["param"].as_str().unwrap_or("-"),
                    object["error"]["message"].as_str().unwrap()
                )
            }
        };
        assert!(shown.starts_with(expected), "{body}: {shown}");
    }

    #[test]
    fn each_complaint_names_its_field() {
        let read = |fields: &mut Fields| {
            fields.integer("n", 1..=4)?;
            fields.number("temperature", 0.0..=2.0)?;
            fields.flag("stream")?;
            fields.string("model")?;
            fields.unsupported("suffix", &[json!("")])?;
            fields.unsupported("frequency_penalty", &[json!(0)])?;
            match fields.object("stream_options")? {
                Some(mut nested) => nested.flag("include_usage").and_then(|_| nested.finish()),
                None => Ok(()),
            }
        };
        for (body, expected) in [
            (
                r#"{"n": 4, "temperature": 2, "stream": null, "user": "x", "frequency_penalty": 0.0, "suffix": ""}"#,
                "ok",
            ),
            (r#"{"x": null}"#, "ok"),
            ("{", "-: the body is not valid JSON: EOF"),
            ("[]", "-: the body must be a JSON object"),
            (r#"{"n": 5}"#, "n: `n` must be a whole number from 1 to 4"),
            (r#"{"n": 1.5}"#, "n: `n` must be a whole number from 1 to 4"),
            (r#"{"n": 18446744073709551615}"#, "n: `n` must be"),
            (r#"{"temperature": "hot"}"#, "temperature: `temperature` must be a number from 0 to 2"),
            (r#"{"temperature": -0.1}"#, "temperature: `temperature` must be"),
            (r#"{"stream": 1}"#, "stream: `stream` must be true or false"),
            (r#"{"model": 1}"#, "model: `model` must be a string"),
            (r#"{"temprature": 1}"#, "temprature: unknown field `temprature`; did you mean `temperature`?"),
            (r#"{"suffix": "x"}"#, "suffix: `suffix` is not supported yet"),
            (r#"{"frequency_penalty": 0.5}"#, "frequency_penalty: `frequency_penalty` is not supported yet"),
            (r#"{"stream_options": {"x": 1}}"#, "stream_options.x: unknown field `stream_options.x`"),
            (r#"{"stream_options": {"user": 1}}"#, "stream_options.user: unknown field"),
            (r#"{"stream_options": []}"#, "stream_options: `stream_options` must be an object"),
        ] {
            check(body, read, expected);
        }
    }
}
