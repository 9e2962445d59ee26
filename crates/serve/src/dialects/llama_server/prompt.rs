//! Prompts in their many forms. Knows nothing of what is done with them.

use narthex_http::{ApiError, Fields};
use serde_json::{Value, json};

/// What the model's tokenizer knows.
pub trait Tokens {
    /// The tokens of a text, with those that begin a prompt if `begins`.
    fn ids(&self, text: &str, begins: bool) -> Result<Vec<u32>, ApiError>;
    /// The text of tokens, special ones included.
    fn text(&self, ids: &[u32]) -> String;
    /// The bytes of one token, which need not be whole characters.
    fn bytes(&self, id: u32) -> Vec<u8>;
}

/// One prompt.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Prompt {
    Text(String),
    Ids(Vec<u32>),
}

impl Prompt {
    pub(super) fn ids(&self, tokens: &dyn Tokens) -> Result<Vec<u32>, ApiError> {
        match self {
            Self::Text(text) => tokens.ids(text, true),
            Self::Ids(ids) => Ok(ids.clone()),
        }
    }

    pub(super) fn text(&self, tokens: &dyn Tokens) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Ids(ids) => tokens.text(ids),
        }
    }
}

fn wrong() -> ApiError {
    let message = "`prompt` must be a string, a list of token ids and strings, or a list of such prompts";
    ApiError::field("prompt", message)
}

/// One prompt or several: a list with a number in it is one prompt.
pub(super) fn read(value: Value, tokens: &dyn Tokens) -> Result<Vec<Prompt>, ApiError> {
    match value {
        Value::Array(list) if list.is_empty() => Err(ApiError::field("prompt", "`prompt` must not be empty")),
        Value::Array(list) if !list.iter().any(Value::is_number) => {
            list.into_iter().map(|value| read_one(value, tokens)).collect()
        }
        value => Ok(vec![read_one(value, tokens)?]),
    }
}

fn read_one(value: Value, tokens: &dyn Tokens) -> Result<Prompt, ApiError> {
    match value {
        Value::String(text) => Ok(Prompt::Text(text)),
        Value::Array(list) => Ok(Prompt::Ids(sequence(&list, tokens)?)),
        Value::Object(map) => {
            let mut fields = Fields::new(map, "prompt.".into());
            fields.unsupported("multimodal_data", &[])?;
            let text = fields.string("prompt_string")?.ok_or_else(|| fields.missing("prompt_string"))?;
            Ok(Prompt::Text(text))
        }
        _ => Err(wrong()),
    }
}

/// Token ids and strings between them. A string in front begins the prompt.
pub(super) fn sequence(list: &[Value], tokens: &dyn Tokens) -> Result<Vec<u32>, ApiError> {
    let mut ids = vec![];
    for (place, value) in list.iter().enumerate() {
        match (value.as_str(), value.as_u64().map(u32::try_from)) {
            (Some(text), _) => ids.extend(tokens.ids(text, place == 0)?),
            (_, Some(Ok(id))) => ids.push(id),
            _ => return Err(wrong()),
        }
    }
    Ok(ids)
}

/// The field `prompt` of our endpoint, which has no mixed lists.
pub(super) fn request(prompts: &[Prompt], tokens: &dyn Tokens) -> Result<Value, ApiError> {
    match prompts {
        [Prompt::Text(text)] => Ok(json!(text)),
        [Prompt::Ids(ids)] => Ok(json!(ids)),
        several if several.iter().all(|prompt| matches!(prompt, Prompt::Text(_))) => {
            Ok(several.iter().map(|prompt| prompt.text(tokens)).collect())
        }
        several => Ok(json!(several.iter().map(|prompt| prompt.ids(tokens)).collect::<Result<Vec<_>, _>>()?)),
    }
}
