//! `[models.NAME]`: a model behind somebody's OpenAI-compatible API. The operator names it, so its host may be
//! anywhere; the key goes there and nowhere else. Knows how requests travel, not what they say.

use crate::outside::{Limits, Outside, address, rules::Rules, secret_value};
use futures::{StreamExt, future::BoxFuture};
use narthex_agent::{ModelFailure, Reply, Transport};
use narthex_base::{Error, Result};
use reqwest::{
    Client, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{env, time::Duration};

/// `[models.NAME]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// The API's base, as `https://api.example.com/v1`.
    pub url: String,
    /// What the API calls the model; the table's name where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The environment variable that holds the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_env: Option<String>,
    /// Milliseconds for a whole answer.
    #[serde(default = "wall_ms")]
    #[schemars(range(min = 1, max = 3_600_000))]
    pub wall_ms: u64,
}

fn wall_ms() -> u64 {
    600_000
}

/// The way to a model behind an API.
pub struct Elsewhere {
    client: Client,
    base: Url,
    headers: HeaderMap,
    wall: Duration,
}

impl Elsewhere {
    /// The way to it; asks nobody yet.
    ///
    /// # Errors
    /// If the URL is none, or the variable of the key is not set.
    pub fn new(name: &str, settings: &Endpoint) -> Result<Self> {
        let wrong = |what: String| Error::input(format!("the model `{name}`: {what}"));
        let base = Url::parse(settings.url.trim_end_matches('/')).map_err(|error| {
            wrong(format!("`{}` is no URL", settings.url))
                .cause(error)
                .help("write the API's base, as `https://api.example.com/v1`")
        })?;
        let host = base.host_str().ok_or_else(|| wrong("its URL names no host".into()))?;
        let port = base.port_or_known_default().ok_or_else(|| wrong("its URL names no port".into()))?;
        let rules = Rules::new(&[], &[format!("{host}:{port}")], address::refusal)?;
        let limits = Limits { wall_ms: settings.wall_ms, body_bytes_max: 0, redirects_max: 0 };
        let client = Outside::new(rules, limits)?.client(&base).map_err(|failure| wrong(failure.message))?;
        let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        if let Some(variable) = &settings.key_env {
            let key = env::var(variable).map_err(|_| {
                wrong(format!("the environment variable {variable} is not set")).help(format!("export {variable}=KEY"))
            })?;
            headers.insert(AUTHORIZATION, secret_value(&format!("Bearer {}", key.trim()))?);
        }
        Ok(Self { client, base, headers, wall: Duration::from_millis(settings.wall_ms) })
    }
}

impl Transport for Elsewhere {
    fn post(&self, path: &'static str, body: Vec<u8>) -> BoxFuture<'static, std::result::Result<Reply, ModelFailure>> {
        let url = format!("{}{path}", self.base);
        let request = self.client.post(url).headers(self.headers.clone()).timeout(self.wall).body(body);
        let host = self.base.host_str().unwrap_or_default().to_string();
        Box::pin(async move {
            let failed = |error: reqwest::Error| {
                // Without the URL, whose query may hold a key.
                let message = format!("`{host}` gave no answer: {}", error.without_url());
                ModelFailure { message, passing: true, wait_ms: None }
            };
            let reply = request.send().await.map_err(failed)?;
            let seconds = reply.headers().get(RETRY_AFTER).and_then(|text| text.to_str().ok()?.parse::<u64>().ok());
            let status = reply.status().as_u16();
            let piece = |piece: reqwest::Result<_>| match piece {
                Ok(bytes) => Ok(Vec::from(bytes)),
                Err(error) => Err(error.without_url().to_string()),
            };
            let body = reply.bytes_stream().map(piece).boxed();
            Ok(Reply { status, wait_ms: seconds.map(|seconds| seconds.saturating_mul(1000)), body })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_endpoint_is_told() {
        for (url, key_env, expected) in [
            ("nowhere", None, "`nowhere` is no URL"),
            ("ftp://example.org/v1", None, "URLs are not asked"),
            ("https://user:pass@example.org/v1", None, "user name or a password"),
            ("https://example.org/v1", Some("NARTHEX_TEST_NO_SUCH_KEY"), "NARTHEX_TEST_NO_SUCH_KEY is not set"),
        ] {
            let settings = Endpoint { url: url.into(), model: None, key_env: key_env.map(String::from), wall_ms: 1 };
            let error = Elsewhere::new("big", &settings).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains("`big`") && error.contains(expected), "{error}");
        }
        Elsewhere::new(
            "big",
            &Endpoint { url: "http://localhost:8000/v1/".into(), model: None, key_env: None, wall_ms: 1 },
        )
        .unwrap();
    }
}
