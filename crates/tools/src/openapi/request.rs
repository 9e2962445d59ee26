//! The request of a call: each value goes where its parameter says, and nowhere else. Sends nothing.

use super::operation::{Form, Operation, Parameter, Place};
use crate::outside::Asking;
use reqwest::{
    Url,
    header::{ACCEPT, HeaderMap, HeaderName, HeaderValue},
};
use serde_json::{Map, Value};

/// Bytes of a body that is sent.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Bytes of one value in a path, a query or a header.
const VALUE_BYTES_MAX: usize = 4_000;

/// The request of a call.
///
/// # Errors
/// If a value cannot stand where it belongs; nothing was sent.
pub fn request(server: &Url, operation: &Operation, arguments: &Map<String, Value>) -> Result<Asking, String> {
    let is_known = |name: &&String| {
        let mut parameters = operation.parameters.iter();
        parameters.any(|parameter| parameter.argument == **name)
            || operation.body.as_ref().is_some_and(|(argument, _)| argument == *name)
    };
    if let Some(name) = arguments.keys().find(|name| !is_known(name)) {
        return Err(format!("there is no argument `{name}`"));
    }
    let mut url = server.clone();
    let path = format!("{}{}", server.path().trim_end_matches('/'), path(operation, arguments)?);
    url.set_path(&path);
    let (mut query, mut headers) = (vec![], HeaderMap::new());
    headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/*;q=0.9, */*;q=0.5"));
    for parameter in &operation.parameters {
        let Some(value) = arguments.get(&parameter.argument).filter(|value| !value.is_null()) else { continue };
        match parameter.place {
            Place::Path => {}
            Place::Query => query.extend(pairs(parameter, value)?),
            Place::Header => {
                let wrong = || format!("`{}` cannot stand in a header: no line breaks, ASCII only", parameter.argument);
                let name = HeaderName::from_bytes(parameter.name.as_bytes()).map_err(|_| wrong())?;
                let text = whole(parameter, value)?;
                headers.insert(name, HeaderValue::from_str(&text).map_err(|_| wrong())?);
            }
        }
    }
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    let body = match &operation.body {
        Some((argument, media_type)) => arguments.get(argument).map(|value| (media_type.clone(), value.to_string())),
        None => None,
    };
    if body.as_ref().is_some_and(|(_, text)| text.len() > BODY_BYTES_MAX) {
        return Err(format!("the body has more than {BODY_BYTES_MAX} bytes"));
    }
    let body = body.map(|(media_type, text)| (media_type, text.into_bytes()));
    Ok(Asking { method: operation.method.clone(), url, headers, body })
}

/// The path with its values, each of which stays one segment of it.
fn path(operation: &Operation, arguments: &Map<String, Value>) -> Result<String, String> {
    let mut path = operation.path.clone();
    for parameter in operation.parameters.iter().filter(|parameter| parameter.place == Place::Path) {
        let name = &parameter.argument;
        let value = arguments.get(name).ok_or_else(|| format!("`{name}` is missing"))?;
        let text = whole(parameter, value)?;
        if text.is_empty() {
            return Err(format!("`{name}` is empty, which would be another path"));
        }
        // What was put in holds no brace, so that no value becomes a place.
        path = path.replace(&format!("{{{}}}", parameter.name), &encoded(&text));
    }
    // A parser of URLs reads these as steps upwards, however they are written.
    if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err("a value of the path is `.` or `..`, which would be another path".into());
    }
    Ok(path)
}

/// All but what RFC 3986 calls unreserved, as percent signs and digits.
fn encoded(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// A value as one text.
fn whole(parameter: &Parameter, value: &Value) -> Result<String, String> {
    let text = match (parameter.form, value) {
        (Form::Json, _) => value.to_string(),
        (Form::Joined(between), Value::Array(items)) => {
            let texts: Vec<String> = items.iter().map(|item| scalar(parameter, item)).collect::<Result<_, _>>()?;
            texts.join(&between.to_string())
        }
        _ => scalar(parameter, value)?,
    };
    if text.len() > VALUE_BYTES_MAX {
        return Err(format!("`{}` has more than {VALUE_BYTES_MAX} bytes", parameter.argument));
    }
    Ok(text)
}

fn scalar(parameter: &Parameter, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        _ => Err(format!("`{}` must be a string, a number or a boolean, or a list of them", parameter.argument)),
    }
}

/// Names and values of a query.
fn pairs(parameter: &Parameter, value: &Value) -> Result<Vec<(String, String)>, String> {
    let name = &parameter.name;
    match (parameter.form, value) {
        (Form::Repeated, Value::Array(items)) => {
            items.iter().map(|item| Ok((name.clone(), scalar(parameter, item)?))).collect()
        }
        (Form::Repeated, Value::Object(map)) => {
            map.iter().map(|(key, item)| Ok((key.clone(), scalar(parameter, item)?))).collect()
        }
        (Form::Deep, Value::Object(map)) => {
            map.iter().map(|(key, item)| Ok((format!("{name}[{key}]"), scalar(parameter, item)?))).collect()
        }
        _ => Ok(vec![(name.clone(), whole(parameter, value)?)]),
    }
}
