//! Whatever a client or our own endpoint sends, nothing here panics.

use super::{Event, Spent, anthropic, llama_server, ollama};
use narthex_http::ApiError;
use serde_json::{Map, Value, json};
use std::time::UNIX_EPOCH;

struct Bytes;

impl llama_server::Tokens for Bytes {
    fn ids(&self, text: &str, begins: bool) -> Result<Vec<u32>, ApiError> {
        Ok(begins.then_some(256).into_iter().chain(text.bytes().map(u32::from)).collect())
    }

    fn text(&self, ids: &[u32]) -> String {
        ids.len().to_string()
    }

    fn bytes(&self, id: u32) -> Vec<u8> {
        id.to_le_bytes().to_vec()
    }
}

fn odd_values() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(-1),
        json!(u64::MAX),
        json!(1e300),
        json!(""),
        json!("é\u{1f600}"),
        json!([]),
        json!([null, 5, "x", [], {}]),
        json!({}),
        json!({"type": "text", "text": "x", "é": {"": []}}),
    ]
}

/// The value with each of its parts in turn replaced by each odd value, or taken away.
fn variants(value: &Value) -> Vec<Value> {
    let mut all = odd_values();
    match value {
        Value::Array(list) => {
            for (index, part) in list.iter().enumerate() {
                for variant in variants(part) {
                    let mut list = list.clone();
                    list[index] = variant;
                    all.push(list.into());
                }
            }
        }
        Value::Object(map) => {
            for (name, part) in map {
                for variant in variants(part) {
                    let mut map = map.clone();
                    map[name] = variant;
                    all.push(map.into());
                }
                let mut map = map.clone();
                map.shift_remove(name);
                all.push(map.into());
            }
        }
        _ => {}
    }
    all
}

fn completion() -> Value {
    json!({
        "choices": [{
            "index": 0, "text": "a", "finish_reason": "stop", "stop_reason": "x", "token_ids": [5],
            "message": {
                "reasoning_content": "r", "content": "c",
                "tool_calls": [{"index": 0, "id": "1", "function": {"name": "f", "arguments": "{}"}}],
            },
            "delta": {
                "reasoning_content": "r", "content": "c",
                "tool_calls": [{"index": 0, "id": "1", "function": {"name": "f", "arguments": "{}"}}],
            },
            "logprobs": {
                "content": [{"token": "a"}], "tokens": ["token_id:5"], "token_logprobs": [-1.0],
                "top_logprobs": [{"token_id:5": -1.0}],
            },
        }],
        "usage": {
            "prompt_tokens": 5, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 3},
            "completion_tokens_details": {"reasoning_tokens": 1},
        },
    })
}

fn map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

const SPENT: Spent = Spent {
    total: std::time::Duration::MAX,
    load: std::time::Duration::ZERO,
    prompt: std::time::Duration::ZERO,
    answer: std::time::Duration::MAX,
};

/// Reads a request and answers it with this, whole and in pieces. Returns what was written, none if it was refused.
fn through_anthropic(body: Value, reply: &Value) -> Option<Vec<Event>> {
    let (_, mut answering) = anthropic::read(map(body.clone()), "msg_1".into()).ok()?;
    let mut events = answering.begin();
    events.extend(answering.piece(reply));
    events.extend(answering.piece(&completion()));
    events.extend(answering.piece(reply));
    events.extend(answering.end());
    events.extend(answering.broken(reply));
    answering.whole(reply);
    anthropic::read_count(map(body)).ok()?;
    Some(events)
}

fn through_ollama(body: Value, reply: &Value) -> Option<Vec<Event>> {
    let _ = (ollama::read_show(map(body.clone())), ollama::error(reply));
    for read in [ollama::read_embed, ollama::read_embeddings] {
        if let Ok((_, answering)) = read(map(body.clone())) {
            answering.whole(reply, &SPENT);
        }
    }
    let mut events = vec![];
    for read in [ollama::read_chat, ollama::read_generate] {
        let mut answering = read(map(body.clone())).ok()?.answering;
        events.extend(answering.piece(reply, UNIX_EPOCH));
        events.extend(answering.piece(&completion(), UNIX_EPOCH));
        events.extend(answering.end(UNIX_EPOCH, &SPENT));
        answering.whole(reply, UNIX_EPOCH, &SPENT);
    }
    Some(events)
}

fn through_llama_server(body: Value, reply: &Value) -> Option<Vec<Event>> {
    let defaults = llama_server::Defaults {
        model: "m".into(),
        context: 64,
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repeat_penalty: 1.0,
    };
    let fim = llama_server::Fim { prefix: 1, suffix: 2, middle: 3, repository: Some((4, 5)) };
    let _ = llama_server::read_infill(map(body.clone()), Some(&fim), &defaults, &Bytes);
    if let Ok(request) = llama_server::read_tokenize(map(body.clone()), &Bytes) {
        llama_server::tokenized(&request, &Bytes);
    }
    let mut answering = llama_server::read(map(body), &defaults, &Bytes).ok()?.answering;
    let mut events = answering.piece(reply, &Bytes);
    events.extend(answering.piece(&completion(), &Bytes));
    events.extend(answering.end(&SPENT));
    answering.whole(reply, &Bytes, &SPENT);
    Some(events)
}

fn check(body: Value, through: impl Fn(Value, &Value) -> Option<Vec<Event>>) {
    assert!(through(body.clone(), &completion()).is_some_and(|events| !events.is_empty()), "{body}");
    let (mut accepted, mut refused) = (0, 0);
    for variant in variants(&body) {
        *if through(variant, &completion()).is_some() { &mut accepted } else { &mut refused } += 1;
    }
    assert!(accepted > 20 && refused > 100, "{accepted} {refused}");
    for reply in variants(&completion()) {
        assert!(through(body.clone(), &reply).is_some());
    }
}

#[test]
fn anthropic_takes_anything() {
    let body = json!({
        "model": "m", "max_tokens": 5, "system": [{"type": "text", "text": "s"}], "stream": true,
        "messages": [
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "t", "signature": "s"}, {"type": "text", "text": "x"},
                {"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "é"}],
                 "is_error": true},
            ]},
        ],
        "tools": [{"name": "f", "input_schema": {"type": "object"}, "description": "d"}],
        "tool_choice": {"type": "tool", "name": "f"}, "thinking": {"type": "enabled", "budget_tokens": 5},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {}}}, "stop_sequences": ["x"],
        "chat_template_kwargs": {"x": 1},
    });
    check(body, through_anthropic);
}

#[test]
fn ollama_takes_anything() {
    let body = json!({
        "model": "m", "prompt": "p", "input": ["x"], "stream": true, "format": {"type": "object"}, "think": "low",
        "messages": [
            {"role": "assistant", "content": "c", "thinking": "t", "tool_calls": [
                {"id": "1", "function": {"name": "f", "arguments": {"a": 1}}},
            ]},
            {"role": "tool", "content": "c", "tool_name": "f", "tool_call_id": "1"},
        ],
        "tools": [{"type": "function", "function": {"name": "f"}}], "keep_alive": "5m", "truncate": true,
        "options": {"num_predict": 5, "seed": 5, "stop": ["x"], "temperature": 1.0},
    });
    check(body, through_ollama);
}

#[test]
fn llama_server_takes_anything() {
    let body = json!({
        "prompt": ["a", [1, "b"], {"prompt_string": "c"}], "n_predict": 5, "temperature": 1.0, "top_k": 5, "seed": 5,
        "stop": ["x"], "logit_bias": [[5, 1], ["x", false]], "n_probs": 2, "stream": true, "json_schema": {"a": 1},
        "response_fields": ["content", "generation_settings/n_predict"], "n_cmpl": 2, "content": "x", "tokens": [5],
        "input_prefix": "a", "input_suffix": "b", "input_extra": [{"filename": "f", "text": "t"}],
    });
    check(body, through_llama_server);
}
