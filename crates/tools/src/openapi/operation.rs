//! One operation of an OpenAPI file: what a model must give, and where each value goes. Sends nothing.

use super::{document::Document, schema::Schemas};
use reqwest::Method;
use serde_json::{Map, Value};

/// Parameters of an operation.
const PARAMETERS_MAX: usize = 100;
/// Bytes of a description.
const DESCRIPTION_BYTES_MAX: usize = 1_000;
/// Headers that say how a message travels, or who sends it: never a model's to write. OpenAPI asks to ignore the first
/// three among parameters.
const OWN_HEADERS: [&str; 14] = [
    "accept",
    "authorization",
    "content-type",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// An operation that can be called.
#[derive(Clone, Debug)]
pub struct Operation {
    /// `operationId`, or method and path.
    pub id: String,
    /// The method.
    pub method: Method,
    /// The path, with `{name}` where a parameter belongs.
    pub path: String,
    /// What it does.
    pub description: String,
    /// JSON Schema of the arguments.
    pub schema: Value,
    /// Where arguments go.
    pub parameters: Vec<Parameter>,
    /// The argument that is the body, and its media type.
    pub body: Option<(String, String)>,
}

/// Where an argument goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// The argument's name.
    pub argument: String,
    /// The name in the request.
    pub name: String,
    /// In which part of the request.
    pub place: Place,
    /// How it is written there.
    pub form: Form,
}

/// A part of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The path.
    Path,
    /// The query.
    Query,
    /// The headers.
    Header,
}

/// How values of several parts are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Each with the name: `a=1&a=2`; members of an object by their own names.
    Repeated,
    /// In one value, with this between them.
    Joined(char),
    /// `a[key]=1`
    Deep,
    /// As JSON.
    Json,
}

/// The methods that operations have.
const METHODS: [&str; 7] = ["get", "head", "post", "put", "patch", "delete", "options"];

/// An operation in the file: its name, its method, its path, and the values that describe the path and it.
pub struct Found<'a> {
    /// `operationId`, or method and path, of characters that a tool's name may have.
    pub id: String,
    method: &'static str,
    path: &'a str,
    item: &'a Value,
    operation: &'a Value,
}

/// A parameter's name, its place unless that is a cookie, and what the file says of it.
type Given<'d> = (String, Option<Place>, &'d Value);

/// All operations of a file, in its order.
///
/// # Errors
/// If the paths are not there, or refer to another file.
pub fn all(document: &Document) -> Result<Vec<Found<'_>>, String> {
    let paths = document.value()["paths"].as_object().ok_or("the file has no `paths`")?;
    let mut found = vec![];
    for (path, item) in paths.iter().filter(|(path, _)| path.starts_with('/')) {
        let item = document.meant(item)?;
        for method in METHODS {
            let operation = &item[method];
            if operation.is_object() {
                let named = operation["operationId"].as_str().map(Into::into);
                let id = tool_name(&named.unwrap_or_else(|| format!("{method}_{path}")));
                found.push(Found { id, method, path, item, operation });
            }
        }
    }
    Ok(found)
}

/// Only characters of a tool's name, none of `_` twice or at an end.
fn tool_name(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    plain.split('_').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("_")
}

impl Found<'_> {
    /// The operation, with its schema. `secret_header` is the one that no argument may write.
    ///
    /// # Errors
    /// What of it no tool can do.
    pub fn read(&self, document: &Document, secret_header: Option<&str>) -> Result<Operation, String> {
        let mut schemas = Schemas::of(document);
        let (mut properties, mut required, mut parameters) = (Map::new(), vec![], vec![]);
        for (name, place, value) in self.parameters(document)? {
            let is_own = OWN_HEADERS.contains(&name.to_ascii_lowercase().as_str())
                || secret_header.is_some_and(|secret| secret.eq_ignore_ascii_case(&name));
            if place == Some(Place::Header) && is_own {
                continue;
            }
            let is_required = value["required"] == true || place == Some(Place::Path);
            let Some(place) = place else {
                if is_required {
                    return Err(format!("it needs `{name}` in a cookie, which no tool sends"));
                }
                continue;
            };
            let (schema, form) = described(value, place)?;
            let mut schema = schemas.convert(or_anything(schema))?;
            let told = value["description"].as_str().filter(|_| schema.get("description").is_none());
            if let (Some(told), Some(schema)) = (told, schema.as_object_mut()) {
                schema.insert("description".into(), shortened(told).into());
            }
            let argument = free_name(&name, place, &properties);
            if is_required {
                required.push(argument.clone());
            }
            properties.insert(argument.clone(), schema);
            parameters.push(Parameter { argument, name, place, form });
        }
        check_path(self.path, &parameters)?;
        let body = self.body(document)?;
        let mut body_argument = None;
        if let Some((media_type, schema, is_required)) = body {
            let argument = if properties.contains_key("body") { "request_body" } else { "body" }.to_string();
            if properties.insert(argument.clone(), schemas.convert(or_anything(schema))?).is_some() {
                return Err("its parameters take the names of the body".into());
            }
            if is_required {
                required.push(argument.clone());
            }
            body_argument = Some((argument, media_type));
        }
        let method =
            Method::from_bytes(self.method.to_ascii_uppercase().as_bytes()).map_err(|error| error.to_string())?;
        Ok(Operation {
            id: self.id.clone(),
            method,
            path: self.path.into(),
            description: self.description(),
            schema: schemas.finish(properties, &required)?,
            parameters,
            body: body_argument,
        })
    }

    fn description(&self) -> String {
        let texts = ["summary", "description"].map(|key| self.operation[key].as_str().unwrap_or_default().trim());
        let told = texts.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n");
        let told = if told.is_empty() { format!("{} {}", self.method.to_ascii_uppercase(), self.path) } else { told };
        shortened(&told)
    }

    /// Parameters of the path and of the operation, which wins; without a place those of cookies.
    fn parameters<'d>(&self, document: &'d Document) -> Result<Vec<Given<'d>>, String>
    where
        Self: 'd,
    {
        let lists = [&self.item["parameters"], &self.operation["parameters"]];
        let mut all: Vec<Given> = vec![];
        for value in lists.into_iter().filter_map(Value::as_array).flatten() {
            let value = document.meant(value)?;
            let name = value["name"].as_str().ok_or("a parameter has no name")?.to_string();
            let place = match value["in"].as_str() {
                Some("path") => Some(Place::Path),
                Some("query") => Some(Place::Query),
                Some("header") => Some(Place::Header),
                Some("cookie") => None,
                _ => return Err(format!("the parameter `{name}` does not say where it goes")),
            };
            all.retain(|(known, at, _)| !(*known == name && *at == place));
            all.push((name, place, value));
            if all.len() > PARAMETERS_MAX {
                return Err(format!("it has more than {PARAMETERS_MAX} parameters"));
            }
        }
        Ok(all)
    }

    fn body<'d>(&self, document: &'d Document) -> Result<Option<(String, &'d Value, bool)>, String>
    where
        Self: 'd,
    {
        let body = &self.operation["requestBody"];
        if body.is_null() {
            return Ok(None);
        }
        let body = document.meant(body)?;
        let is_required = body["required"] == true;
        let is_json = |media_type: &str| {
            let plain = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
            plain == "application/json" || plain.ends_with("+json")
        };
        let found = body["content"].as_object().and_then(|content| content.iter().find(|(kind, _)| is_json(kind)));
        match found {
            Some((media_type, value)) => Ok(Some((media_type.clone(), &value["schema"], is_required))),
            None if is_required => Err("its body is not JSON, which is all that a tool sends".into()),
            None => Ok(None),
        }
    }
}

/// No schema says: anything.
fn or_anything(schema: &Value) -> &Value {
    if schema.is_null() { &Value::Bool(true) } else { schema }
}

/// A parameter's schema, and how it is written.
fn described(value: &Value, place: Place) -> Result<(&Value, Form), String> {
    if let Some((media_type, content)) = value["content"].as_object().and_then(|content| content.iter().next()) {
        if media_type != "application/json" {
            return Err(format!("a parameter is `{}`, which no tool writes", shortened(media_type)));
        }
        return Ok((&content["schema"], Form::Json));
    }
    let style = value["style"].as_str().unwrap_or(if place == Place::Query { "form" } else { "simple" });
    let explodes = value["explode"].as_bool().unwrap_or(style == "form");
    let form = match (place, style) {
        (Place::Path | Place::Header, "simple") => Form::Joined(','),
        (Place::Query, "form" | "spaceDelimited" | "pipeDelimited") if explodes => Form::Repeated,
        (Place::Query, "form") => Form::Joined(','),
        (Place::Query, "spaceDelimited") => Form::Joined(' '),
        (Place::Query, "pipeDelimited") => Form::Joined('|'),
        (Place::Query, "deepObject") => Form::Deep,
        _ => return Err(format!("a parameter has the style `{}`, which no tool writes", shortened(style))),
    };
    Ok((&value["schema"], form))
}

/// A name of an argument that no other has, of characters that models can write.
fn free_name(name: &str, place: Place, taken: &Map<String, Value>) -> String {
    let plain = tool_name(name);
    let placed = match place {
        Place::Path => format!("path_{plain}"),
        Place::Query => format!("query_{plain}"),
        Place::Header => format!("header_{plain}"),
    };
    if !plain.is_empty() && !taken.contains_key(&plain) {
        return plain;
    }
    if !taken.contains_key(&placed) {
        return placed;
    }
    format!("{placed}_{}", taken.len())
}

/// Every place of the path has a parameter, and every parameter of the path a place.
fn check_path(path: &str, parameters: &[Parameter]) -> Result<(), String> {
    let mut rest = path.to_string();
    for parameter in parameters.iter().filter(|parameter| parameter.place == Place::Path) {
        let place = format!("{{{}}}", parameter.name);
        if !rest.contains(&place) {
            return Err(format!("its path has no place for `{}`", parameter.name));
        }
        rest = rest.replace(&place, "");
    }
    if rest.contains(['{', '}', '?', '#', '\\', '%']) {
        return Err("its path has a place without a parameter, or a character that no path has".into());
    }
    Ok(())
}

fn shortened(text: &str) -> String {
    let end = text.floor_char_boundary(DESCRIPTION_BYTES_MAX);
    if end < text.len() { format!("{}…", &text[..end]) } else { text.into() }
}
