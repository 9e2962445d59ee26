//! What a request asks to be read, as a chain of hashes: requests that begin alike have chains that begin alike. The
//! text is no model's prompt, but alike where prompts are. Knows no tokens and no replicas.

use serde_json::Value;
use xxhash_rust::xxh64::xxh64;

/// Bytes of a block: some 16 tokens, as many as engines keep together in their caches.
pub(crate) const BLOCK_BYTES: usize = 64;

/// Blocks of a prompt that count, which are 256 KiB.
const BLOCKS_MAX: usize = 4096;

/// The block that names a prompt's home: what is alike for the first 256 bytes has one.
const HOME_BLOCK: usize = 3;

/// Paths whose requests are read by a decoder, for which it pays to come back to where they began.
const READ: [&str; 11] = [
    "/v1/chat/completions",
    "/chat/completions",
    "/v1/completions",
    "/completions",
    "/completion",
    "/v1/responses",
    "/v1/messages",
    "/api/chat",
    "/api/generate",
    "/infill",
    "/invocations",
];

/// Fields of the prompt, in the order in which chat templates write them.
const FIELDS: [&str; 10] = [
    "tools",
    "system",
    "instructions",
    "messages",
    "context",
    "input",
    "prompt",
    "input_extra",
    "input_prefix",
    "input_suffix",
];

/// What changes from turn to turn though the prompt is the same.
const PASSING: [&str; 1] = ["cache_control"];

/// The hashes of a prompt's blocks, each with all that stands before it. The last block may be shorter. Empty if the
/// path has no prompt or the body none.
pub(crate) fn chain(path: &str, body: &Value) -> Vec<u64> {
    if !READ.contains(&path) {
        return vec![];
    }
    let mut text = Text(vec![]);
    for field in FIELDS {
        if let Some(value) = body.get(field) {
            text.add(value);
        }
    }
    let of = |field: &str| body.get(field).and_then(Value::as_str).unwrap_or_default();
    // Caches are a model's own, and a salt's.
    let mut hash = xxh64(of("cache_salt").as_bytes(), xxh64(of("model").as_bytes(), 0));
    let mut chain = Vec::with_capacity(text.0.len().div_ceil(BLOCK_BYTES));
    for block in text.0.chunks(BLOCK_BYTES).take(BLOCKS_MAX) {
        hash = xxh64(block, hash);
        chain.push(hash);
    }
    chain
}

/// The hash that a replica is found by where nobody remembers the prompt.
pub(crate) fn home(chain: &[u64]) -> Option<u64> {
    chain.get(HOME_BLOCK).or(chain.last()).copied()
}

/// Text of a prompt under way.
struct Text(Vec<u8>);

impl Text {
    fn add(&mut self, value: &Value) {
        if self.0.len() >= BLOCKS_MAX * BLOCK_BYTES {
            return;
        }
        match value {
            Value::Null => {}
            Value::Bool(_) | Value::Number(_) => self.push(&value.to_string()),
            Value::String(text) => self.push(text),
            Value::Array(values) => values.iter().for_each(|value| self.add(value)),
            Value::Object(fields) => {
                // A part of text is what the same text is as a string.
                let is_text = fields.get("type").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("text"));
                if let Some(Value::String(text)) = fields.get("text").filter(|_| is_text) {
                    return self.push(text);
                }
                let mut names: Vec<&String> = fields.keys().filter(|name| !PASSING.contains(&name.as_str())).collect();
                // The role and the name stand before what is said.
                names.sort_by_key(|name| (name.as_str() != "role", name.as_str() == "content", name.as_str()));
                for name in names {
                    if !fields[name].is_null() {
                        self.0.extend_from_slice(name.as_bytes());
                        self.0.push(0x1e);
                        self.add(&fields[name]);
                    }
                }
            }
        }
    }

    fn push(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0x1f);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Blocks that two requests have in common, and blocks of the first.
    fn common(a: &Value, b: &Value) -> (usize, usize) {
        let (a, b) = (chain("/v1/chat/completions", a), chain("/v1/chat/completions", b));
        (a.iter().zip(&b).take_while(|(a, b)| a == b).count(), a.len())
    }

    #[test]
    fn what_begins_alike_has_a_common_chain() {
        let long = "You are a careful assistant. ".repeat(40);
        let turn = |last: &str| json!([{"role": "system", "content": long}, {"role": "user", "content": last}]);
        let chat = json!({"model": "m", "messages": turn("one")});
        let (same, blocks) = common(&chat, &chat);
        assert_eq!((same, blocks), (19, 19));
        let cases = [
            ("another question", json!({"model": "m", "messages": turn("two")}), 18),
            ("another model", json!({"model": "n", "messages": turn("one")}), 0),
            ("another salt", json!({"model": "m", "cache_salt": "s", "messages": turn("one")}), 0),
            ("other keys of no prompt", json!({"stream": true, "messages": turn("one"), "model": "m", "n": 2}), 19),
            (
                "parts, in another order",
                json!({"model": "m", "messages": [
                    {"content": [{"type": "text", "text": long, "cache_control": {"type": "ephemeral"}}], "role": "system"},
                    {"content": [{"text": "one", "type": "input_text"}], "role": "user", "name": null},
                ]}),
                19,
            ),
            ("tools before all", json!({"model": "m", "messages": turn("one"), "tools": [{"type": "function"}]}), 0),
        ];
        for (name, other, expected) in cases {
            assert_eq!(common(&chat, &other).0, expected, "{name}");
        }
        let mut longer = chat.clone();
        longer["messages"].as_array_mut().unwrap().push(json!({"role": "assistant", "content": "x".repeat(500)}));
        assert_eq!(common(&chat, &longer).0, 18, "a conversation that goes on");
    }

    #[test]
    fn other_requests_have_none_and_long_ones_end() {
        assert!(chain("/v1/embeddings", &json!({"input": "x"})).is_empty());
        assert!(chain("/v1/completions", &json!({"stream": true})).is_empty());
        assert_eq!(chain("/v1/completions", &json!({"prompt": [1, 2, 3]})).len(), 1);
        assert_eq!(chain("/v1/completions", &json!({"prompt": "x".repeat(1 << 20)})).len(), BLOCKS_MAX);
        let (a, b) = (json!({"prompt": "a".repeat(1000)}), json!({"prompt": format!("{}b", "a".repeat(999))}));
        assert_eq!(home(&chain("/v1/completions", &a)), home(&chain("/v1/completions", &b)));
        assert_eq!(home(&[]), None);
        assert_eq!(home(&[7, 8]), Some(8));
    }
}
