//! What a dialect does with fields that are not its own: those of our endpoints pass unchanged, the rest is ignored
//! and remembered by name. Knows names, not what they mean.

use narthex_http::Fields;
use serde_json::{Map, Value};

/// Fields beyond OpenAI's that both our endpoints take, and those of OpenAI's that no dialect has a word for.
pub(super) const SHARED: [&str; 21] = [
    "allowed_token_ids",
    "bad_words",
    "cache_salt",
    "frequency_penalty",
    "ignore_eos",
    "include_stop_str_in_output",
    "logit_bias",
    "min_p",
    "min_tokens",
    "presence_penalty",
    "priority",
    "repetition_penalty",
    "seed",
    "skip_special_tokens",
    "stop",
    "stop_token_ids",
    "structured_outputs",
    "temperature",
    "top_k",
    "top_p",
    "truncate_prompt_tokens",
];

/// Fields that only chats have.
const CHAT: [&str; 6] = [
    "chat_template_kwargs",
    "include_reasoning",
    "parallel_tool_calls",
    "reasoning_effort",
    "response_format",
    "thinking_token_budget",
];

/// Fields that change no answer, whatever they say.
const HARMLESS: [&str; 7] =
    ["user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"];

/// More names than these fit no header.
const NAMES_MAX: usize = 32;

/// Names of fields that were left unread, each once; places in lists do not count.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ignored(Vec<String>);

impl Ignored {
    /// The names, in the order in which they came.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// Remembers a field.
    pub(super) fn note(&mut self, name: &str) {
        let mut within = false;
        let placeless = |letter: &char| {
            within = *letter == '[' || (within && *letter != ']');
            !within || *letter == '['
        };
        let name: String = name.chars().filter(placeless).collect();
        if self.0.len() < NAMES_MAX && !self.0.contains(&name) {
            self.0.push(name);
        }
    }

    /// Remembers all that nobody has read.
    pub(super) fn rest(&mut self, fields: &mut Fields) {
        for (field, _) in fields.rest() {
            self.note(&fields.name(&field));
        }
    }
}

/// Our endpoint that a request goes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Target {
    Chat,
    Completions,
}

/// Moves what the endpoint itself takes into its request. What the dialect has set already stays.
pub(super) fn pass(fields: &mut Fields, target: Target, request: &mut Map<String, Value>, ignored: &mut Ignored) {
    for (field, value) in fields.rest() {
        let taken = SHARED.contains(&field.as_str()) || (target == Target::Chat && CHAT.contains(&field.as_str()));
        if taken && !request.contains_key(&field) {
            request.insert(field, value);
        } else if !HARMLESS.contains(&field.as_str()) {
            ignored.note(&field);
        }
    }
}

/// Sets an entry of `chat_template_kwargs` beside those that the request came with.
pub(super) fn template_flag(request: &mut Map<String, Value>, name: &str, flag: bool) {
    let entry = request.entry("chat_template_kwargs").or_insert_with(|| Value::Object(Map::new()));
    // Anything but an object is for the endpoint to refuse.
    if let Value::Object(map) = entry {
        map.insert(name.into(), flag.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn own_fields_pass_and_others_are_named() {
        let check = |target, body: Value, passed: Value, names: &[&str]| {
            let (mut fields, mut ignored) = (Fields::new(map(body), String::new()), Ignored::default());
            let mut request = map(json!({"top_k": 1}));
            pass(&mut fields, target, &mut request, &mut ignored);
            request.shift_remove("top_k");
            assert_eq!(
                (Value::Object(request), ignored.names()),
                (passed, &names.iter().map(|name| name.to_string()).collect::<Vec<_>>()[..])
            );
        };
        let body = json!({"min_p": 0.1, "reasoning_effort": "low", "colour": 1, "user": "x", "top_k": 2, "seed": null});
        check(Target::Chat, body.clone(), json!({"min_p": 0.1, "reasoning_effort": "low"}), &["colour", "top_k"]);
        check(Target::Completions, body, json!({"min_p": 0.1}), &["reasoning_effort", "colour", "top_k"]);
    }

    #[test]
    fn names_come_once_without_places() {
        let mut ignored = Ignored::default();
        for name in ["messages[0].content[12].x", "messages[1].content[0].x", "y", "tools[3].y"] {
            ignored.note(name);
        }
        assert_eq!(ignored.names(), ["messages[].content[].x", "y", "tools[].y"]);
        for number in 0..99 {
            ignored.note(&number.to_string());
        }
        assert_eq!(ignored.names().len(), NAMES_MAX);
    }

    #[test]
    fn template_flags_join_what_is_there() {
        for (before, after) in [
            (json!({}), json!({"chat_template_kwargs": {"enable_thinking": true}})),
            (
                json!({"chat_template_kwargs": {"x": 1, "enable_thinking": false}}),
                json!({"chat_template_kwargs": {"x": 1, "enable_thinking": true}}),
            ),
            (json!({"chat_template_kwargs": 5}), json!({"chat_template_kwargs": 5})),
        ] {
            let mut request = map(before);
            template_flag(&mut request, "enable_thinking", true);
            assert_eq!(Value::Object(request), after);
        }
    }
}
