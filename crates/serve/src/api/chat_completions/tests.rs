//! Chat completions as a client sees them.

use crate::testing::{self, answer, byte_tokens, describe, get, post};
use axum::Router;
use narthex_infer::scripted::{Scripted, say};
use narthex_infer::{FinishReason, Output, SubmitError};
use serde_json::{Value, json};
use std::sync::Arc;

const PATH: &str = "/v1/chat/completions";

/// A request with one message, and these fields.
fn chat(more: Value) -> Value {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

async fn contents(router: &Router, body: &Value) -> Vec<String> {
    let reply = post(router, PATH, body).await.json(200);
    let choices = reply["choices"].as_array().unwrap();
    choices.iter().map(|choice| choice["message"]["content"].as_str().unwrap().to_string()).collect()
}

/// Content deltas of a stream, joined with `|`, and the finish reason.
async fn streamed(router: &Router, body: &Value) -> String {
    let events = post(router, PATH, body).await.events();
    let content = |event: &Value| event["choices"][0]["delta"]["content"].as_str().map(str::to_string);
    let deltas: Vec<String> = events.iter().filter_map(content).filter(|text| !text.is_empty()).collect();
    let reason = events.iter().find_map(|event| event["choices"][0]["finish_reason"].as_str()).unwrap();
    format!("{} ({reason})", deltas.join("|"))
}

#[tokio::test]
async fn answers_whole() {
    let reply = post(&testing::router(answer("Hello.")), PATH, &chat(json!({}))).await.json(200);
    assert_eq!(
        reply,
        json!({
            "id": "chatcmpl-…", "object": "chat.completion", "created": 0, "model": "m",
            "system_fingerprint": "fp_0123456789ab",
            "choices": [{
                "index": 0,
                "message": {"role": "assistant", "content": "Hello.", "refusal": null},
                "logprobs": null,
                "finish_reason": "stop",
                "stop_reason": null,
            }],
            "usage": {"prompt_tokens": 21, "completion_tokens": 7, "total_tokens": 28, "prompt_tokens_details": {"cached_tokens": 0}},
        })
    );
}

#[tokio::test]
async fn answers_in_pieces() {
    let body = chat(json!({"stream": true, "stream_options": {"include_usage": true}}));
    let reply = post(&testing::router(answer("Hi")), PATH, &body).await;
    assert_eq!(reply.header("x-accel-buffering"), "no");
    let head = json!({
        "id": "chatcmpl-…", "object": "chat.completion.chunk", "created": 0, "model": "m",
        "system_fingerprint": "fp_0123456789ab",
    });
    let event = |choices: Value, usage: Value| {
        let mut event = head.clone();
        event["choices"] = choices;
        event["usage"] = usage;
        event
    };
    let delta = |delta: Value, reason: Value| {
        event(json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": reason}]), Value::Null)
    };
    let mut last = delta(json!({}), json!("stop"));
    last["choices"][0]["stop_reason"] = Value::Null;
    assert_eq!(
        reply.events(),
        [
            delta(json!({"role": "assistant", "content": ""}), Value::Null),
            delta(json!({"content": "H"}), Value::Null),
            delta(json!({"content": "i"}), Value::Null),
            last,
            event(
                json!([]),
                json!({"prompt_tokens": 21, "completion_tokens": 3, "total_tokens": 24, "prompt_tokens_details": {"cached_tokens": 0}})
            ),
        ]
    );
    let events = post(&testing::router(answer("Hi")), PATH, &chat(json!({"stream": true}))).await.events();
    assert!(events.iter().all(|event| event.get("usage").is_none()), "usage that nobody asked for");
}

#[tokio::test]
async fn stop_strings_and_split_characters() {
    for (says, more, whole, pieces) in [
        ("a b END c", json!({"stop": "END"}), "a b ", "a| |b|  (stop)"),
        ("a END", json!({"stop": ["x", "END."]}), "a END", "a| |END (stop)"),
        ("né", json!({}), "né", "n|é (stop)"),
        ("a🦀b", json!({"stop": "🦀"}), "a", "a (stop)"),
        ("abcdef", json!({"max_tokens": 3}), "abc", "a|b|c (length)"),
        ("abcdef", json!({"max_completion_tokens": 2, "stop": "bc"}), "ab", "a|b (length)"),
        ("🦀", json!({"max_tokens": 2}), "\u{fffd}", "\u{fffd} (length)"),
        ("", json!({}), "", " (stop)"),
    ] {
        let router = testing::router(answer(says));
        assert_eq!(contents(&router, &chat(more.clone())).await, [whole], "{says} {more}");
        let mut body = chat(more.clone());
        body["stream"] = true.into();
        assert_eq!(streamed(&router, &body).await, pieces, "{says} {more}");
    }
}

#[tokio::test]
async fn stop_string_cancels_the_rest() {
    let generator = Arc::new(Scripted::new(answer("abcdefghijklmnop")).delay(std::time::Duration::from_millis(5)));
    let router = testing::router_of(generator.clone());
    let reply = post(&router, PATH, &chat(json!({"stop": "c"}))).await.json(200);
    assert_eq!(reply["usage"]["completion_tokens"], 3);
    assert!(testing::aborted(&generator).await);
    let metrics = get(&router, "/metrics").await.text(200);
    assert!(metrics.contains("finished_reason=\"stop\"} 1\n"), "{metrics}");
}

#[tokio::test]
async fn each_choice_has_its_seed() {
    let generator = Arc::new(Scripted::new(|request: &narthex_infer::Request| {
        say(request, &byte_tokens(request.sampling.seed.to_string().as_bytes()))
    }));
    let router = testing::router_of(generator.clone());
    assert_eq!(contents(&router, &chat(json!({"n": 3, "seed": 40}))).await, ["40", "41", "42"]);
    let events = post(&router, PATH, &chat(json!({"n": 2, "seed": 7, "stream": true}))).await.events();
    for (index, expected) in ["7", "8"].iter().enumerate() {
        let of_choice = events.iter().map(|event| &event["choices"][0]).filter(|choice| choice["index"] == index);
        let text: String = of_choice.filter_map(|choice| choice["delta"]["content"].as_str()).collect();
        assert_eq!(text, *expected);
    }
    assert_ne!(contents(&router, &chat(json!({}))).await, contents(&router, &chat(json!({}))).await);
    let request = generator.requests().pop().unwrap();
    assert_eq!((request.max_tokens, request.stop_tokens, request.logprobs), (4096 - 21, vec![2], None));
}

#[tokio::test]
async fn logprobs() {
    let router = testing::router(answer("aé"));
    let more = json!({"logprobs": true, "top_logprobs": 2});
    let reply = post(&router, PATH, &chat(more.clone())).await.json(200);
    let content = &reply["choices"][0]["logprobs"]["content"];
    assert_eq!(
        content[0],
        json!({
            "token": "a", "logprob": -0.5, "bytes": [97],
            "top_logprobs": [
                {"token": "a", "logprob": -0.5, "bytes": [97]},
                {"token": "b", "logprob": -1.5, "bytes": [98]},
            ],
        })
    );
    assert_eq!(content[1]["token"], "\\xc3");
    assert_eq!(content[2]["bytes"], json!([0xa9]));
    // The token that ends an answer counts, but has no text.
    assert_eq!(content[3]["token"], "<|im_end|>");
    assert_eq!(content.as_array().unwrap().len(), 4);
    assert_eq!(
        (&reply["choices"][0]["message"]["content"], &reply["usage"]["completion_tokens"]),
        (&json!("aé"), &json!(4))
    );

    let mut body = chat(more);
    body["stream"] = true.into();
    let events = post(&router, PATH, &body).await.events();
    let scored: Vec<(String, usize)> = events
        .iter()
        .filter_map(|event| {
            let choice = &event["choices"][0];
            let content = choice["delta"]["content"].as_str().unwrap_or("");
            Some((content.into(), choice["logprobs"]["content"].as_array()?.len()))
        })
        .collect();
    assert_eq!(scored, [("a".into(), 1), ("é".into(), 2), (String::new(), 1)]);

    // The tokens of a stop string are no more part of the answer than its text.
    let reply = post(&router, PATH, &chat(json!({"logprobs": true, "stop": "é"}))).await.json(200);
    let content = reply["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!((content.len(), &content[0]["top_logprobs"]), (1, &json!([])));
}

#[tokio::test]
async fn messages_in_all_their_forms() {
    let generator = Arc::new(Scripted::new(answer("x")));
    let router = testing::router_of(generator.clone());
    let messages = json!([
        {"role": "developer", "content": "be brief"},
        {"role": "guide", "content": "go on", "name": "g"},
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
        {"role": "assistant", "content": "yes", "refusal": null, "tool_calls": null, "annotations": []},
        {"role": "tool", "content": "4", "tool_call_id": "call_1"},
    ]);
    contents(&router, &chat(json!({"messages": messages, "user": "u", "temperature": 0}))).await;
    let request = generator.requests().pop().unwrap();
    assert_eq!(
        testing::tokenizer().decode(&request.prompt, false).unwrap(),
        "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>guide\ngo on<|im_end|>\n<|im_start|>user\none\ntwo<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>\n\
         <|im_start|>user\nThe tool says: 4<|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!(request.sampling.temperature, 0.0);
}

#[tokio::test]
async fn refusals_name_the_field() {
    let router = testing::router(answer("x"));
    let part = |part: Value| json!({"messages": [{"role": "user", "content": [part]}]});
    for (more, status, expected) in [
        (json!({"model": "gpt"}), 404, "model: the model `gpt` does not exist; this server has `m`"),
        (json!({"messages": null}), 400, "messages: the field `messages` is missing"),
        (json!({"messages": []}), 400, "messages: `messages` must be a list of at least one message"),
        (json!({"messages": ["x"]}), 400, "messages[0]: `messages[0]` must be an object with `role` and `content`"),
        (json!({"messages": [{"content": "x"}]}), 400, "messages[0].role: the field `messages[0].role` is missing"),
        (
            json!({"messages": [{"role": "", "content": "x"}]}),
            400,
            "messages[0].role: `messages[0].role` must not be empty",
        ),
        (
            json!({"messages": [{"role": "assistant", "content": null, "tool_calls": [{"id": "c"}]}]}),
            400,
            "messages[0].tool_calls[0]: `messages[0].tool_calls[0]` must be an object with `id`, `type` and `function`",
        ),
        (
            part(json!({"type": "image_url", "image_url": {"url": "x"}})),
            400,
            "messages[0].content[0].type: parts of type `image_url` are not supported yet: only `text`",
        ),
        (part(json!("x")), 400, "messages[0].content[0]: `messages[0].content[0]` must be an object with `type`"),
        (
            json!({"messages": [{"role": "user", "content": "x".repeat(50)}]}),
            400,
            "messages: the prompt is too long: the messages have 69 tokens, and this model's maximum context length is 64",
        ),
        (json!({"temperature": 3}), 400, "temperature: `temperature` must be a number from 0 to 2"),
        (json!({"n": 0}), 400, "n: `n` must be a whole number from 1 to 128"),
        (json!({"max_tokens": 0}), 400, "max_tokens: `max_tokens` must be a whole number from 1"),
        (
            json!({"max_tokens": 1, "max_completion_tokens": 2}),
            400,
            "max_tokens: `max_tokens` and `max_completion_tokens` differ: set the latter only",
        ),
        (json!({"top_logprobs": 2}), 400, "top_logprobs: `top_logprobs` needs `logprobs` to be true"),
        (
            json!({"logprobs": true, "top_logprobs": 21}),
            400,
            "top_logprobs: `top_logprobs` must be a whole number from 0 to 20",
        ),
        (json!({"tools": []}), 400, "tools: `tools` must be a list of at least one tool"),
        (
            json!({"tools": [{"type": "function"}]}),
            400,
            "tools[0]: `tools[0]` must be an object with `type` and `function`",
        ),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}}),
            400,
            "response_format: `response_format` cannot be honoured: the keyword `not` is not supported",
        ),
    ] {
        let error = post(&router, PATH, &chat(more)).await.json(status);
        assert_eq!(describe(&error), expected);
    }
    let error = post(&router, PATH, &chat(json!({"messages": [{"role": "user", "content": "x".repeat(50)}]}))).await;
    assert_eq!(error.json(400)["error"]["code"], "context_length_exceeded");
}

#[tokio::test]
async fn without_a_template() {
    let mut model = testing::model(answer("x"));
    testing::text(&mut model).model.template = None;
    let router = testing::router_over(model);
    let error = post(&router, PATH, &chat(json!({}))).await.json(400);
    assert_eq!(describe(&error), "model: the model `m` has no chat template: use /v1/completions");
}

#[tokio::test]
async fn the_template_may_refuse() {
    let mut model = testing::model(answer("x"));
    let source = "{{ raise_exception('roles must alternate') }}";
    testing::text(&mut model).model.template = Some(narthex_text::ChatTemplate::new(source, None, None).unwrap());
    let router = testing::router_over(model);
    let error = post(&router, PATH, &chat(json!({}))).await.json(400);
    assert_eq!(error["error"]["param"], "messages");
    assert!(describe(&error).contains("roles must alternate"), "{error}");
}

#[tokio::test]
async fn a_busy_or_broken_engine() {
    for (refusal, code) in [(SubmitError::QueueFull, "queue_full"), (SubmitError::Stopped, "engine_stopped")] {
        let router = testing::router_of(Arc::new(Scripted::new(|_| vec![]).refuse(refusal)));
        let reply = post(&router, PATH, &chat(json!({"stream": true}))).await;
        assert_eq!(reply.header("retry-after"), "1");
        assert_eq!(reply.json(503)["error"]["code"], code);
    }
    let failing = |_: &narthex_infer::Request| vec![Output::Failed("out of memory".into())];
    let error = post(&testing::router(failing), PATH, &chat(json!({}))).await.json(500);
    assert_eq!(describe(&error), "-: the engine failed: out of memory");
    let events = post(&testing::router(failing), PATH, &chat(json!({"stream": true}))).await.events();
    assert_eq!(events[1]["error"]["type"], "server_error");
    // The engine's thread is gone without a word.
    let error = post(&testing::router(|_| vec![]), PATH, &chat(json!({}))).await.json(503);
    assert_eq!(error["error"]["code"], "engine_stopped");
    let silent = |_: &narthex_infer::Request| vec![Output::Finished(FinishReason::Length)];
    assert_eq!(contents(&testing::router(silent), &chat(json!({}))).await, [""]);
}
