//! llama-server's smaller endpoints: `/props`, `/slots`, `/apply-template` and `/tokenize`. Knows
//! shapes, not where the facts come from.

use super::{
    prompt::{Tokens, sequence},
    settings::Defaults,
};
use narthex_http::{ApiError, Fields};
use serde_json::{Map, Value, json};

/// The facts of a server.
#[derive(Clone, Debug)]
pub struct Props {
    /// Answers at once.
    pub slots: usize,
    /// Where the model lies.
    pub model_path: String,
    /// Its source.
    pub chat_template: String,
    /// What begins a prompt, as text.
    pub bos_token: String,
    /// What ends an answer, as text.
    pub eos_token: String,
    /// The server's name and version.
    pub build: String,
}

/// One of the answers that the server can give at once.
#[derive(Clone, Debug, Default)]
pub struct Slot {
    /// Whether it is giving one.
    pub is_processing: bool,
    /// Tokens written so far.
    pub written: usize,
}

/// `GET /props`.
pub fn props(props: &Props, defaults: &Defaults) -> Value {
    json!({
        "default_generation_settings": {
            "id": 0,
            "id_task": -1,
            "n_ctx": defaults.context,
            "speculative": false,
            "is_processing": false,
            "params": defaults.settings(),
            "prompt": "",
            "next_token": {
                "has_next_token": true, "has_new_line": false, "n_remain": -1, "n_decoded": 0, "stopping_word": "",
            },
        },
        "total_slots": props.slots,
        "model_alias": defaults.model,
        "model_path": props.model_path,
        "modalities": {"vision": false, "audio": false},
        "chat_template": props.chat_template,
        "chat_template_caps": {},
        "bos_token": props.bos_token,
        "eos_token": props.eos_token,
        "build_info": props.build,
        "is_sleeping": false,
    })
}

/// `GET /slots`.
pub fn slots(slots: &[Slot], context: usize) -> Value {
    let entry = |(id, slot): (usize, &Slot)| {
        json!({
            "id": id,
            "id_task": if slot.is_processing { 0 } else { -1 },
            "n_ctx": context,
            "speculative": false,
            "is_processing": slot.is_processing,
            "next_token": [{
                "has_next_token": slot.is_processing, "has_new_line": false, "n_remain": -1, "n_decoded": slot.written,
            }],
        })
    };
    slots.iter().enumerate().map(entry).collect()
}

/// `POST /apply-template`, whose request is that of a chat.
pub fn apply_template(prompt: &str) -> Value {
    json!({"prompt": prompt})
}

/// A request to tokenize.
pub struct Tokenize {
    /// The tokens.
    pub ids: Vec<u32>,
    /// Whether their texts are wanted too.
    pub with_pieces: bool,
}

/// `POST /tokenize` with `content`; vLLM's request of the same path has none.
pub fn read_tokenize(body: Map<String, Value>, tokens: &dyn Tokens) -> Result<Tokenize, ApiError> {
    let mut fields = Fields::new(body, String::new());
    let begins = fields.flag("add_special")?.unwrap_or(false);
    let with_pieces = fields.flag("with_pieces")?.unwrap_or(false);
    fields.unsupported("parse_special", &[json!(true)])?;
    let ids = match fields.take("content") {
        None => return Err(fields.missing("content")),
        Some(Value::String(text)) => tokens.ids(&text, begins)?,
        Some(Value::Array(list)) => sequence(&list, tokens)?,
        Some(_) => return Err(ApiError::field("content", "`content` must be a string")),
    };
    Ok(Tokenize { ids, with_pieces })
}

/// The answer to it. A piece that is no text is a list of bytes.
pub fn tokenized(request: &Tokenize, tokens: &dyn Tokens) -> Value {
    if !request.with_pieces {
        return json!({"tokens": request.ids});
    }
    let piece = |id: &u32| {
        let bytes = tokens.bytes(*id);
        let piece = std::str::from_utf8(&bytes).map_or_else(|_| json!(bytes), |text| json!(text));
        json!({"id": id, "piece": piece})
    };
    json!({"tokens": request.ids.iter().map(piece).collect::<Vec<_>>()})
}
