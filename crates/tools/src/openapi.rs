//! `kind = "openapi"`: the operations of an OpenAPI file as tools. The file says what there is to call, the settings
//! which of it may be, and with what credentials. See `document`, `schema`, `operation`, `request`.

mod document;
mod operation;
mod request;
mod schema;

use crate::{
    bounds::{RESULT_BYTES_MAX, cut, text_of},
    described::{Described, Outcome, refused, within},
    outside::{
        Answered, Limits, Outside,
        address::refusal,
        rules::{Rules, Way},
        secret_value,
    },
};
use document::Document;
use globset::{Glob, GlobMatcher};
use narthex_agent::{Call, Effect, Tool, ToolFailure, ToolResult};
use narthex_base::{Digest, Error, error::nearest};
use operation::Operation;
use reqwest::{
    Method, Url,
    header::{HeaderName, HeaderValue},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{collections::BTreeSet, env, path::PathBuf, sync::Arc};

/// Tools of one file: more than a model can tell apart.
const OPERATIONS_MAX: usize = 64;
/// Patterns of a setting.
const PATTERNS_MAX: usize = 64;
/// Bytes of an answer that are read.
const BODY_BYTES_MAX: usize = 4 << 20;
/// Milliseconds that a setting may allow.
const WALL_MS_MAX: u64 = 600_000;
/// Redirects that are followed, on the server alone.
const REDIRECTS_MAX: usize = 3;

/// `[tools.NAME]` with `kind = "openapi"`: operations of an OpenAPI file, as the tools `NAME.OPERATION`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenApiTool {
    /// The file: OpenAPI 3.0 or 3.1, JSON or YAML.
    pub file: PathBuf,
    /// Which operations, by `operationId` or `METHOD_PATH`: `getPet`, `get*`, and `!deletePet` for all but that one.
    #[serde(default = "operations")]
    #[schemars(length(min = 1), extend("x-hint" = "[\"get*\", \"!getSecrets\"]"))]
    pub operations: Vec<String>,
    /// The server's URL; without it, the file's first. Must be here where `auth` is: no file says who gets credentials.
    #[serde(default)]
    pub server: Option<String>,
    /// `HOST:PORT` that may be asked wherever it is, such as `localhost:8000`.
    #[serde(default)]
    pub allow_hosts: Vec<String>,
    /// A credential that goes with each request to the server.
    #[serde(default)]
    pub auth: Option<OpenApiAuth>,
    /// The header in which the server looks for a key of the call, such as `Idempotency-Key`, so that it does once
    /// what it is told twice. Goes with all methods but GET and HEAD.
    #[serde(default)]
    pub idempotency_header: Option<String>,
    /// What GET and HEAD do to the world: `reads`, `writes` or `reaches`. All other methods reach out, or write with
    /// `writes`.
    #[serde(default)]
    pub effect: Effect,
    /// Bytes of text that a result has at most.
    #[serde(default = "result_bytes_max")]
    #[schemars(range(min = 100, max = 1_048_576))]
    pub result_bytes_max: usize,
    /// Milliseconds that a call may take.
    #[serde(default = "wall_ms")]
    #[schemars(range(min = 1, max = 600_000))]
    pub wall_ms: u64,
}

/// A credential, by the name of the variable that holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenApiAuth {
    /// The header.
    #[serde(default = "header")]
    pub header: String,
    /// The environment variable that holds the secret.
    pub env: String,
    /// What stands in front of the secret.
    #[serde(default = "prefix")]
    pub prefix: String,
}

fn operations() -> Vec<String> {
    vec!["*".into()]
}

fn result_bytes_max() -> usize {
    20_000
}

fn wall_ms() -> u64 {
    30_000
}

fn header() -> String {
    "Authorization".into()
}

fn prefix() -> String {
    "Bearer ".into()
}

/// Who is asked, and how.
struct Api {
    outside: Outside,
    server: Url,
    auth: Option<(HeaderName, HeaderValue)>,
    idempotency_header: Option<HeaderName>,
    /// The secret, so that it can be taken out of what comes back.
    secret: Option<String>,
    result_bytes_max: usize,
}

/// The tools of an OpenAPI file.
///
/// # Errors
/// If the file is not OpenAPI 3, no operation is chosen or too many are, one of them is nothing that a tool can do, the
/// server may not be asked, or the variable of the credential is not set.
pub fn openapi(name: &str, settings: &OpenApiTool) -> Result<Vec<Arc<dyn Tool>>, Error> {
    let secret = settings.auth.as_ref().map(|auth| secret(&auth.env)).transpose();
    let made = secret.and_then(|secret| tools(name, settings, secret));
    made.map_err(|error| error.context(format!("the tool `{name}` cannot be made")))
}

fn tools(name: &str, settings: &OpenApiTool, secret: Option<String>) -> Result<Vec<Arc<dyn Tool>>, Error> {
    let document = Document::read(&settings.file)?;
    let api = Arc::new(Api::new(name, settings, &document, secret)?);
    let operations = chosen(&document, settings).map_err(|error| error.at(settings.file.display(), None))?;
    let tools = operations.into_iter().map(|operation| {
        let effect = effect(&operation.method, settings.effect);
        let (description, schema) = (operation.description.clone(), operation.schema.clone());
        let (api, called) = (api.clone(), Arc::new(operation));
        Described::tool(&format!("{name}.{}", called.id), description, schema, effect, {
            move |call| {
                let (api, operation) = (api.clone(), called.clone());
                Box::pin(async move { api.call(&operation, &call).await })
            }
        })
    });
    tools.collect()
}

/// What a method does, as far as the operator says so.
fn effect(method: &Method, said: Effect) -> Effect {
    match (method, said) {
        (&Method::GET | &Method::HEAD, said) => said,
        (_, Effect::Writes) => Effect::Writes,
        _ => Effect::Reaches,
    }
}

fn secret(variable: &str) -> Result<String, Error> {
    env::var(variable).ok().filter(|secret| !secret.is_empty()).ok_or_else(|| {
        Error::input(format!("the environment variable `{variable}` is not set, or is no text"))
            .help(format!("set it where this runs: `export {variable}=…`"))
    })
}

/// The operations that the patterns choose.
fn chosen(document: &Document, settings: &OpenApiTool) -> Result<Vec<Operation>, Error> {
    if settings.operations.len() > PATTERNS_MAX {
        return Err(Error::input(format!("more than {PATTERNS_MAX} patterns in `operations`")).help("use `*`"));
    }
    let compile = |pattern: &str| -> Result<GlobMatcher, Error> {
        let glob = Glob::new(pattern);
        glob.map(|glob| glob.compile_matcher())
            .map_err(|error| Error::input("`operations` holds a wrong pattern").cause(error))
    };
    let all = operation::all(document).map_err(Error::input)?;
    let (mut wanted, mut unwanted) = (vec![], vec![]);
    for pattern in &settings.operations {
        match pattern.strip_prefix('!') {
            Some(pattern) => unwanted.push(compile(pattern)?),
            None => wanted.push((pattern, compile(pattern)?)),
        }
    }
    for (pattern, glob) in &wanted {
        if !all.iter().any(|found| glob.is_match(&found.id)) {
            let near = nearest(pattern, all.iter().map(|found| found.id.as_str()));
            return Err(Error::input(format!("no operation is called `{pattern}`"))
                .help(near.map_or("see `operationId` in the file".into(), |near| format!("did you mean `{near}`?"))));
        }
    }
    let is_wanted =
        |id: &str| wanted.iter().any(|(_, glob)| glob.is_match(id)) && !unwanted.iter().any(|glob| glob.is_match(id));
    let found: Vec<_> = all.into_iter().filter(|found| is_wanted(&found.id)).collect();
    if found.is_empty() || found.len() > OPERATIONS_MAX {
        return Err(Error::input(format!("{} operations are chosen, and 1 to {OPERATIONS_MAX} can be", found.len()))
            .help("choose by patterns: `operations = [\"get*\", \"!getSecrets\"]`"));
    }
    let mut ids = BTreeSet::new();
    if let Some(twice) = found.iter().find(|found| !ids.insert(found.id.clone())) {
        return Err(
            Error::input(format!("two operations are called `{}`", twice.id)).help("give each its `operationId`")
        );
    }
    let secret_header = settings.auth.as_ref().map(|auth| auth.header.as_str());
    let read = found.iter().map(|found| {
        found.read(document, secret_header).map_err(|why| {
            Error::input(format!("the operation `{}` cannot be a tool", found.id))
                .cause(why)
                .help(format!("leave it out: `operations = [\"*\", \"!{}\"]`", found.id))
        })
    });
    read.collect()
}

impl Api {
    fn new(name: &str, settings: &OpenApiTool, document: &Document, secret: Option<String>) -> Result<Self, Error> {
        let result_bytes_max = within(name, "result_bytes_max", settings.result_bytes_max, 100..=RESULT_BYTES_MAX)?;
        let wall_ms = within(name, "wall_ms", settings.wall_ms, 1..=WALL_MS_MAX)?;
        let server = server(settings, document)?;
        let host = server.host_str().unwrap_or_default().to_string();
        let rules = Rules::new(std::slice::from_ref(&host), &settings.allow_hosts, refusal)?;
        let way = rules.judge(&server).map_err(|why| Error::input("the server may not be asked").cause(why))?;
        if secret.is_some() && server.scheme() != "https" && way == Way::Screened {
            return Err(Error::input(format!("the credential would travel readable to {host}"))
                .help("use the server's https address, or name it in `allow_hosts` if that network is yours"));
        }
        let auth =
            settings.auth.as_ref().zip(secret.as_ref()).map(|(auth, secret)| {
                Ok((header_name(&auth.header)?, secret_value(&format!("{}{secret}", auth.prefix))?))
            });
        let idempotency_header = settings.idempotency_header.as_deref().map(header_name).transpose()?;
        let limits = Limits { wall_ms, body_bytes_max: BODY_BYTES_MAX, redirects_max: REDIRECTS_MAX };
        Ok(Self {
            outside: Outside::new(rules, limits)?,
            server,
            auth: auth.transpose()?,
            idempotency_header,
            secret,
            result_bytes_max,
        })
    }

    async fn call(&self, operation: &Operation, call: &Call) -> Outcome {
        let mut asking = request::request(&self.server, operation, &call.arguments).map_err(refused)?;
        let changes = !matches!(operation.method, Method::GET | Method::HEAD);
        if let Some(header) = self.idempotency_header.as_ref().filter(|_| changes) {
            // Of the call alone: when it is made again after a crash, the server knows it again. Hexadecimal digits,
            // since ids are others' text.
            let key = Digest::of(json!([call.tenant, call.run, call.id]).to_string().as_bytes());
            let value = HeaderValue::from_str(&key.to_string()).map_err(|error| refused(error.to_string()))?;
            asking.headers.insert(header.clone(), value);
        }
        if let Some((header, value)) = &self.auth {
            asking.headers.insert(header.clone(), value.clone());
        }
        let sent = self.outside.send(asking).await;
        let answered =
            sent.map_err(|failure| ToolFailure { message: self.redacted(failure.message), harmless: failure.unsent })?;
        Ok(self.told(answered))
    }

    /// What came back, for the model. A server may repeat what it was sent: the secret is taken out.
    fn told(&self, answered: Answered) -> ToolResult {
        let Answered { status, media_type, body, is_cut, .. } = answered;
        let kind = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let is_json = kind == "application/json" || kind.ends_with("+json");
        let is_text = is_json || kind.is_empty() || kind.starts_with("text/") || kind.ends_with("xml");
        let bytes = body.len();
        let text = if is_text { self.redacted(text_of(body)) } else { format!("[{bytes} bytes of `{kind}`]") };
        let fits = text.len() <= self.result_bytes_max && !is_cut;
        let structured = if is_json && fits && status.is_success() { serde_json::from_str(&text).ok() } else { None };
        let mut shown = cut(text, self.result_bytes_max, "ask for less, by the operation's own parameters");
        if is_cut {
            shown += "\n[the answer is longer than what is read of one]";
        }
        if status.is_success() {
            let shown = if shown.is_empty() { format!("{status}, without a body") } else { shown };
            return ToolResult { structured, ..ToolResult::text(shown) };
        }
        ToolResult::error(format!("the server answered with status {status}\n{shown}").trim_end())
    }

    fn redacted(&self, text: String) -> String {
        match &self.secret {
            Some(secret) if text.contains(secret.as_str()) => text.replace(secret.as_str(), "[secret]"),
            _ => text,
        }
    }
}

fn header_name(text: &str) -> Result<HeaderName, Error> {
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| {
        Error::input(format!("`{}` is not the name of a header", text.escape_debug()))
            .help("take letters, digits and `-`, such as `X-Api-Key`")
    })
}

/// The server's URL, without a query.
fn server(settings: &OpenApiTool, document: &Document) -> Result<Url, Error> {
    let first = &document.value()["servers"][0];
    let from_file = first["url"].as_str().map(|url| {
        let variables = first["variables"].as_object().into_iter().flatten();
        variables.fold(url.to_string(), |url, (name, variable)| {
            url.replace(&format!("{{{name}}}"), variable["default"].as_str().unwrap_or_default())
        })
    });
    let help = format!("write it: `server = \"{}\"`", from_file.as_deref().unwrap_or("https://api.example.org/v1"));
    if settings.auth.is_some() && settings.server.is_none() {
        return Err(Error::input("a credential is set, and `server` is not").help(help));
    }
    let url = settings.server.clone().or(from_file);
    let url = url.ok_or_else(|| Error::input("neither the settings nor the file name a server").help(help.clone()))?;
    let parsed: Url =
        url.parse().map_err(|error| Error::input("the server is not a URL").cause(error).help(help.clone()))?;
    if !matches!(parsed.scheme(), "http" | "https") || parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(Error::input("the server is not a URL of http or https without a query").help(help));
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests;
