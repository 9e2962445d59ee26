//! What Ollama tells of models: `/api/tags`, `/api/show`, `/api/ps` and `/api/version`. Knows shapes, not where the
//! facts come from.

use crate::dialects::clock::rfc3339;
use serde_json::{Map, Value, json};
use std::time::{Duration, SystemTime};

/// A model that is kept in memory goes after this long, which is never.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The facts of one model.
#[derive(Clone, Debug)]
pub struct Model {
    /// As clients ask for it.
    pub name: String,
    /// SHA-256 in hexadecimal letters.
    pub digest: String,
    /// Bytes on disk.
    pub size_bytes: u64,
    /// When its files were written.
    pub modified: SystemTime,
    /// `gguf` or `safetensors`.
    pub format: String,
    /// The architecture: `llama`, `qwen3`.
    pub family: String,
    /// How many weights there are.
    pub parameters: u64,
    /// How they are kept: `BF16`, `Q4_K_M`.
    pub quantization: String,
    /// Tokens.
    pub context: usize,
    /// Numbers in a hidden state.
    pub embedding_length: usize,
    /// What it can do.
    pub capabilities: Vec<Capability>,
    /// The text of its licence.
    pub license: Option<String>,
    /// The source of its chat template.
    pub template: Option<String>,
    /// Names and values that the model's makers recommend, such as `temperature` and `0.7`.
    pub defaults: Vec<(String, String)>,
}

/// What a model can do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Capability {
    /// Write.
    Completion,
    /// Call tools.
    Tools,
    /// Think first.
    Thinking,
    /// Turn texts into vectors.
    Embedding,
}

impl Capability {
    fn as_str(self) -> &'static str {
        match self {
            Self::Completion => "completion",
            Self::Tools => "tools",
            Self::Thinking => "thinking",
            Self::Embedding => "embedding",
        }
    }
}

/// A model in memory.
#[derive(Clone, Copy, Debug)]
pub struct Running<'a> {
    /// Which one.
    pub model: &'a Model,
    /// Bytes in all memory.
    pub memory_bytes: u64,
    /// Bytes of those on accelerators.
    pub vram_bytes: u64,
}

/// `GET /api/tags`.
pub fn tags(models: &[Model]) -> Value {
    let entry = |model: &Model| {
        json!({
            "name": model.name,
            "model": model.name,
            "modified_at": rfc3339(model.modified),
            "size": model.size_bytes,
            "digest": model.digest,
            "details": details(model),
            "capabilities": capabilities(model),
        })
    };
    json!({"models": models.iter().map(entry).collect::<Vec<_>>()})
}

/// `GET /api/ps`.
pub fn ps(running: &[Running], now: SystemTime) -> Value {
    let entry = |running: &Running| {
        json!({
            "name": running.model.name,
            "model": running.model.name,
            "size": running.memory_bytes,
            "digest": running.model.digest,
            "details": details(running.model),
            "expires_at": rfc3339(now + FOREVER),
            "size_vram": running.vram_bytes,
            "context_length": running.model.context,
        })
    };
    json!({"models": running.iter().map(entry).collect::<Vec<_>>()})
}

/// `GET /api/version`.
pub fn version(version: &str) -> Value {
    json!({"version": version})
}

/// `POST /api/show`.
pub fn show(model: &Model) -> Value {
    let mut shown = Map::new();
    shown.extend(model.license.as_ref().map(|license| ("license".to_string(), license.clone().into())));
    let quote = |text: &str| format!("\"\"\"{text}\"\"\"");
    let mut modelfile = format!("FROM {}\n", model.name);
    if let Some(template) = &model.template {
        modelfile += &format!("TEMPLATE {}\n", quote(template));
    }
    for (name, value) in &model.defaults {
        modelfile += &format!("PARAMETER {name} {value}\n");
    }
    if let Some(license) = &model.license {
        modelfile += &format!("LICENSE {}\n", quote(license));
    }
    shown.insert("modelfile".into(), modelfile.into());
    let lines: Vec<String> = model.defaults.iter().map(|(name, value)| format!("{name:<30} {value}")).collect();
    shown.insert("parameters".into(), lines.join("\n").into());
    shown.insert("template".into(), model.template.clone().unwrap_or_default().into());
    shown.insert("details".into(), details(model));
    let family = &model.family;
    let mut info = Map::new();
    info.insert("general.architecture".into(), family.clone().into());
    info.insert("general.parameter_count".into(), model.parameters.into());
    info.insert(format!("{family}.context_length"), model.context.into());
    info.insert(format!("{family}.embedding_length"), model.embedding_length.into());
    shown.insert("model_info".into(), info.into());
    shown.insert("capabilities".into(), capabilities(model));
    shown.insert("modified_at".into(), rfc3339(model.modified).into());
    shown.into()
}

fn capabilities(model: &Model) -> Value {
    model.capabilities.iter().map(|capability| capability.as_str()).collect()
}

fn details(model: &Model) -> Value {
    json!({
        "parent_model": "",
        "format": model.format,
        "family": model.family,
        "families": [model.family],
        "parameter_size": human(model.parameters),
        "quantization_level": model.quantization,
        "context_length": model.context,
        "embedding_length": model.embedding_length,
    })
}

/// `134.52M`, `8.0B`: as Ollama writes how many weights there are.
fn human(count: u64) -> String {
    let number = count as f64;
    match count {
        1_000_000_000_000.. => format!("{:.1}T", number / 1e12),
        1_000_000_000.. => format!("{:.1}B", number / 1e9),
        1_000_000.. => format!("{:.2}M", number / 1e6),
        1000.. => format!("{:.0}K", number / 1e3),
        _ => count.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    fn model() -> Model {
        Model {
            name: "m".into(),
            digest: "ab".repeat(32),
            size_bytes: 5,
            modified: UNIX_EPOCH,
            format: "safetensors".into(),
            family: "llama".into(),
            parameters: 134_515_008,
            quantization: "BF16".into(),
            context: 8192,
            embedding_length: 576,
            capabilities: vec![Capability::Completion, Capability::Tools],
            license: Some("free".into()),
            template: Some("{{ x }}".into()),
            defaults: vec![("temperature".into(), "0.7".into())],
        }
    }

    #[test]
    fn counts_are_short() {
        for (count, expected) in
            [(7, "7"), (1500, "2K"), (134_515_008, "134.52M"), (8_030_261_248, "8.0B"), (1_000_000_000_000, "1.0T")]
        {
            assert_eq!(human(count), expected);
        }
    }

    #[test]
    fn a_model_is_shown_in_each_list() {
        let (model, start) = (model(), "1970-01-01T00:00:00.000000000Z");
        let details = json!({
            "parent_model": "", "format": "safetensors", "family": "llama", "families": ["llama"],
            "parameter_size": "134.52M", "quantization_level": "BF16", "context_length": 8192, "embedding_length": 576,
        });
        assert_eq!(
            tags(std::slice::from_ref(&model)),
            json!({"models": [{
                "name": "m", "model": "m", "modified_at": start, "size": 5, "digest": "ab".repeat(32),
                "details": details, "capabilities": ["completion", "tools"],
            }]})
        );
        let running = Running { model: &model, memory_bytes: 9, vram_bytes: 4 };
        assert_eq!(
            ps(&[running], UNIX_EPOCH),
            json!({"models": [{
                "name": "m", "model": "m", "size": 9, "digest": "ab".repeat(32), "details": details,
                "expires_at": "2069-12-07T00:00:00.000000000Z", "size_vram": 4, "context_length": 8192,
            }]})
        );
        assert_eq!(
            show(&model),
            json!({
                "license": "free",
                "modelfile": concat!(
                    "FROM m\nTEMPLATE \"\"\"{{ x }}\"\"\"\n", "PARAMETER temperature 0.7\nLICENSE \"\"\"free\"\"\"\n",
                ),
                "parameters": "temperature                    0.7",
                "template": "{{ x }}",
                "details": details,
                "model_info": {
                    "general.architecture": "llama", "general.parameter_count": 134_515_008,
                    "llama.context_length": 8192, "llama.embedding_length": 576,
                },
                "capabilities": ["completion", "tools"],
                "modified_at": start,
            })
        );
        let bare = Model { license: None, template: None, defaults: vec![], ..model };
        assert_eq!((&show(&bare)["modelfile"], show(&bare).get("license")), (&json!("FROM m\n"), None));
        assert_eq!(version("1.2"), json!({"version": "1.2"}));
        assert_eq!(tags(&[]), json!({"models": []}));
    }
}
