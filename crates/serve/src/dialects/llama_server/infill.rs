//! `POST /infill`: what stands between a prefix and a suffix. Knows how prompts for that are built.

use super::{
    Reading, finish,
    prompt::{Prompt, Tokens},
    settings::Defaults,
};
use narthex_http::{ApiError, Fields};
use serde_json::{Map, Value};

/// The model's tokens for it.
#[derive(Clone, Debug)]
pub struct Fim {
    /// In front of what stands before the gap.
    pub prefix: u32,
    /// In front of what stands behind it.
    pub suffix: u32,
    /// In front of what fills it.
    pub middle: u32,
    /// Those that begin a repository and a file of it.
    pub repository: Option<(u32, u32)>,
}

/// What a file is called whose name is not said.
const NAMELESS: &str = "tmp";

/// Reads a request; the answer is that of a completion.
pub fn read_infill(
    body: Map<String, Value>,
    fim: Option<&Fim>,
    defaults: &Defaults,
    tokens: &dyn Tokens,
) -> Result<Reading, ApiError> {
    let Some(fim) = fim else {
        let message = "this model has no tokens for infilling: ask one that was trained for it";
        return Err(ApiError::invalid(message).code("unsupported_parameter"));
    };
    let mut fields = Fields::new(body, String::new());
    let prefix = fields.string("input_prefix")?.ok_or_else(|| fields.missing("input_prefix"))?;
    let suffix = fields.string("input_suffix")?.ok_or_else(|| fields.missing("input_suffix"))?;
    let prompt = fields.string("prompt")?.unwrap_or_default();
    let extra = read_extra(fields.take("input_extra"))?;
    let mut ids = tokens.ids("", true)?;
    match fim.repository {
        Some((repository, file)) if !extra.is_empty() => {
            ids.push(repository);
            ids.extend(tokens.ids("myproject\n", false)?);
            for (name, text) in &extra {
                ids.push(file);
                ids.extend(tokens.ids(&format!("{name}\n{text}\n"), false)?);
            }
            ids.push(file);
            ids.extend(tokens.ids("filename\n", false)?);
        }
        _ => {
            for (_, text) in &extra {
                ids.extend(tokens.ids(&format!("{text}\n"), false)?);
            }
        }
    }
    for (mark, text) in [(fim.prefix, prefix), (fim.suffix, suffix), (fim.middle, prompt)] {
        ids.push(mark);
        if !text.is_empty() {
            ids.extend(tokens.ids(&text, false)?);
        }
    }
    finish(fields, vec![Prompt::Ids(ids)], defaults, tokens)
}

/// Files around the one in question: names and texts.
fn read_extra(value: Option<Value>) -> Result<Vec<(String, String)>, ApiError> {
    let wrong = || {
        let message = "`input_extra` must be a list of `{\"filename\": string, \"text\": string}`";
        ApiError::field("input_extra", message)
    };
    let list = match value {
        None => return Ok(vec![]),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(wrong()),
    };
    let file = |value: Value| {
        let text = value["text"].as_str().ok_or_else(wrong)?;
        let name = match value.get("filename") {
            None => NAMELESS,
            Some(name) => name.as_str().ok_or_else(wrong)?,
        };
        Ok((name.to_string(), text.to_string()))
    };
    list.into_iter().map(file).collect()
}
