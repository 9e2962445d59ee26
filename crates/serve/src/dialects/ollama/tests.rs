//! Ollama's API in and out, without a server.

use super::*;
use crate::dialects::Spent;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const START: &str = "1970-01-01T00:00:00.000000000Z";

fn map(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn joined(base: Value, more: Value) -> Value {
    let mut whole = map(base);
    whole.extend(map(more));
    Value::Object(whole)
}

fn check(reading: Result<Reading, ApiError>, route: Route, expected: Value, ignored: &[&str]) {
    let reading = reading.unwrap_or_else(|error| panic!("{}", crate::testing::object_of(&error)));
    assert_eq!((reading.route, Value::Object(reading.request)), (route, expected.clone()));
    assert_eq!(reading.answering.ignored().names(), ignored, "{expected}");
}

/// A chat without a stream, and what is added to it.
fn check_chat(more: Value, expected: Value, ignored: &[&str]) {
    let messages = json!([{"role": "user", "content": "hi"}]);
    let body = joined(json!({"model": "m", "messages": messages, "stream": false}), more);
    let expected = joined(json!({"model": "m", "messages": messages}), expected);
    check(read_chat(map(body)), Route::Chat, expected, ignored);
}

/// The same for a raw prompt.
fn check_raw(more: Value, expected: Value, ignored: &[&str]) {
    let body = joined(json!({"model": "m", "prompt": "hi", "raw": true, "stream": false}), more);
    let expected = joined(json!({"model": "m", "prompt": "hi", "max_tokens": 2_147_483_647}), expected);
    check(read_generate(map(body)), Route::Completions, expected, ignored);
}

fn check_error(reading: Result<Reading, ApiError>, expected: &str) {
    let error = match reading {
        Ok(reading) => panic!("{expected}: {}", Value::Object(reading.request)),
        Err(error) => crate::testing::object_of(&error)["error"].take(),
    };
    let shown = format!("{} {}", error["param"].as_str().unwrap(), error["code"].as_str().unwrap_or("-"));
    assert_eq!(shown, expected, "{error}");
}

#[test]
fn streams_unless_told_otherwise() {
    let messages = json!([{"role": "user", "content": "hi"}]);
    let stream = json!({"stream": true, "stream_options": {"include_usage": true}});
    let expected = joined(json!({"model": "m", "messages": messages}), stream.clone());
    check(read_chat(map(json!({"model": "m:latest", "messages": messages}))), Route::Chat, expected.clone(), &[]);
    check(read_generate(map(json!({"model": "m", "prompt": "hi"}))), Route::Chat, expected, &[]);
    check_chat(json!({}), json!({}), &[]);
}

#[test]
fn options_become_fields() {
    check_chat(
        json!({"options": {
            "num_predict": 7, "temperature": 0.5, "top_k": 3, "top_p": 0.9, "min_p": 0.1, "seed": 42, "stop": ["a"],
            "repeat_penalty": 1.1, "presence_penalty": 0.5, "frequency_penalty": 0.25, "typical_p": 1.0, "mirostat": 0,
        }}),
        json!({
            "max_tokens": 7, "temperature": 0.5, "top_k": 3, "top_p": 0.9, "min_p": 0.1, "seed": 42, "stop": ["a"],
            "repetition_penalty": 1.1, "presence_penalty": 0.5, "frequency_penalty": 0.25,
        }),
        &[],
    );
    check_chat(
        json!({"options": {"num_predict": -1, "seed": -1, "stop": [], "num_ctx": 4096, "num_gpu": null, "x": 1}}),
        json!({}),
        &["options.num_ctx", "options.x"],
    );
    check_chat(json!({"keep_alive": "5m", "truncate": true, "y": 1}), json!({}), &["keep_alive", "truncate", "y"]);
    check_chat(
        json!({"seed": 5, "structured_outputs": {"regex": "a"}}),
        json!({"seed": 5, "structured_outputs": {"regex": "a"}}),
        &[],
    );
    check_raw(json!({"options": {"num_predict": 3}}), json!({"max_tokens": 3}), &[]);
    check_raw(json!({"options": {"num_predict": -2}, "think": true}), json!({}), &["think"]);
    let chat = |options: Value| read_chat(map(json!({"model": "m", "messages": [], "options": options})));
    for (options, expected) in [
        (json!({"mirostat": 1}), "options.mirostat unsupported_parameter"),
        (json!({"typical_p": 0.5}), "options.typical_p unsupported_parameter"),
        (json!({"num_predict": "x"}), "options.num_predict -"),
        (json!({"seed": 1.5}), "options.seed -"),
        (json!(5), "options -"),
    ] {
        check_error(chat(options), expected);
    }
}

#[test]
fn format_think_and_logprobs() {
    let schema = json!({"type": "object"});
    let json_schema = json!({"name": "format", "schema": schema, "strict": true});
    check_chat(json!({"format": "json"}), json!({"response_format": {"type": "json_object"}}), &[]);
    check_chat(
        json!({"format": schema}),
        json!({"response_format": {"type": "json_schema", "json_schema": json_schema}}),
        &[],
    );
    check_chat(json!({"format": ""}), json!({}), &[]);
    check_raw(json!({"format": "json"}), json!({"structured_outputs": {"json_object": true}}), &[]);
    check_raw(json!({"format": schema}), json!({"structured_outputs": {"json": schema}}), &[]);
    let flag = |flag: bool| json!({"chat_template_kwargs": {"enable_thinking": flag}});
    check_chat(json!({"think": true}), flag(true), &[]);
    check_chat(json!({"think": false}), flag(false), &[]);
    check_chat(json!({"think": "low"}), joined(flag(true), json!({"reasoning_effort": "low"})), &[]);
    check_chat(json!({"think": "max"}), joined(flag(true), json!({"reasoning_effort": "xhigh"})), &[]);
    check_chat(json!({"logprobs": true, "top_logprobs": 3}), json!({"logprobs": true, "top_logprobs": 3}), &[]);
    check_chat(json!({"logprobs": false, "top_logprobs": 3}), json!({}), &[]);
    let chat = |more: Value| read_chat(map(joined(json!({"model": "m", "messages": []}), more)));
    check_error(chat(json!({"format": "xml"})), "format -");
    check_error(chat(json!({"think": "hard"})), "think -");
    check_error(chat(json!({"_debug_render_only": true})), "_debug_render_only unsupported_parameter");
    let raw = json!({"model": "m", "prompt": "a", "raw": true, "logprobs": true});
    check_error(read_generate(map(raw)), "logprobs unsupported_parameter");
}

#[test]
fn messages_and_tools() {
    let call = |name: &str, arguments: Value| json!({"function": {"index": 0, "name": name, "arguments": arguments}});
    let called = |id: &str, name: &str, arguments: &str| {
        json!({
            "id": id, "type": "function", "function": {"name": name, "arguments": arguments},
        })
    };
    check_chat(
        json!({"messages": [
            {"role": "System", "content": "s"},
            {"role": "assistant", "content": "c", "thinking": "t", "tool_calls": [
                call("f", json!({"a": 1})), call("g", json!({})), joined(call("f", json!({})), json!({"id": "x"})),
            ]},
            {"role": "tool", "content": "r1", "tool_name": "g"},
            {"role": "tool", "content": "r2", "tool_call_id": "x", "tool_name": "f"},
            {"role": "tool", "content": "r3"},
            {"role": "tool", "content": "r4"},
            {"role": "user", "images": [], "mood": 1},
        ]}),
        json!({"messages": [
            {"role": "system", "content": "s"},
            {"role": "assistant", "content": "c", "reasoning_content": "t", "tool_calls": [
                called("call_1_0", "f", r#"{"a":1}"#), called("call_1_1", "g", "{}"), called("x", "f", "{}"),
            ]},
            {"role": "tool", "content": "r1", "tool_call_id": "call_1_1", "name": "g"},
            {"role": "tool", "content": "r2", "tool_call_id": "x", "name": "f"},
            {"role": "tool", "content": "r3", "tool_call_id": "call_1_0"},
            {"role": "tool", "content": "r4", "tool_call_id": "call_5"},
            {"role": "user", "content": ""},
        ]}),
        &["messages[].mood"],
    );
    let function = json!({"name": "f", "description": "d", "parameters": {"type": "object"}});
    let tools = json!([{"type": "function", "function": function}]);
    check_chat(json!({"tools": [{"function": function}]}), json!({"tools": tools}), &[]);
    check_chat(json!({"tools": tools}), json!({"tools": tools}), &[]);
    check_chat(json!({"tools": []}), json!({}), &[]);
    let chat = |more: Value| read_chat(map(joined(json!({"model": "m"}), more)));
    for (more, expected) in [
        (json!({"messages": 5}), "messages -"),
        (json!({"messages": [5]}), "messages[0] -"),
        (json!({"messages": [{"content": "x"}]}), "messages[0].role missing_required_parameter"),
        (json!({"messages": [{"role": "judge"}]}), "messages[0].role -"),
        (json!({"messages": [{"role": "user", "content": []}]}), "messages[0].content -"),
        (json!({"messages": [{"role": "user", "images": ["aa"]}]}), "messages[0].images unsupported_parameter"),
        (
            json!({"messages": [{"role": "assistant", "tool_calls": [{}]}]}),
            "messages[0].tool_calls[0].function missing_required_parameter",
        ),
        (
            json!({"messages": [{"role": "assistant", "tool_calls": [call("f", json!("{}"))]}]}),
            "messages[0].tool_calls[0].function.arguments -",
        ),
        (json!({"tools": 5}), "tools -"),
        (json!({"tools": [{"type": "x"}]}), "tools[0].type unsupported_parameter"),
        (json!({"tools": [{}]}), "tools[0].function missing_required_parameter"),
    ] {
        check_error(chat(more), expected);
    }
}

#[test]
fn prompts_take_their_way() {
    let generate = |more: Value| read_generate(map(joined(json!({"model": "m", "stream": false}), more)));
    let (user, system) = (json!({"role": "user", "content": "p"}), json!({"role": "system", "content": "s"}));
    check(
        generate(json!({"prompt": "p", "system": "s", "context": [], "images": [], "template": "", "suffix": ""})),
        Route::Chat,
        json!({"model": "m", "messages": [system, user]}),
        &[],
    );
    check(generate(json!({"prompt": "p", "system": ""})), Route::Chat, json!({"model": "m", "messages": [user]}), &[]);
    check_raw(json!({}), json!({}), &[]);
    for (more, expected) in [
        (json!({"suffix": "x"}), "suffix unsupported_parameter"),
        (json!({"template": "x"}), "template unsupported_parameter"),
        (json!({"context": [1]}), "context unsupported_parameter"),
        (json!({"images": ["x"]}), "images unsupported_parameter"),
        (json!({"raw": true, "system": "s"}), "system -"),
        (json!({"prompt": 5}), "prompt -"),
        (json!({"model": null}), "model missing_required_parameter"),
    ] {
        check_error(generate(joined(json!({"prompt": "p"}), more)), expected);
    }
}

#[test]
fn nothing_to_say_is_a_wish_to_load() {
    for (more, reason) in [
        (json!({}), "load"),
        (json!({"keep_alive": "5m"}), "load"),
        (json!({"keep_alive": -1}), "load"),
        (json!({"keep_alive": "10s"}), "load"),
        (json!({"keep_alive": 0}), "unload"),
        (json!({"keep_alive": "0"}), "unload"),
        (json!({"keep_alive": "0s"}), "unload"),
    ] {
        let body = joined(json!({"model": "m:latest", "prompt": ""}), more);
        let reading = read_generate(map(body.clone())).unwrap();
        let route = if reason == "load" { Route::Load } else { Route::Unload };
        assert_eq!(reading.route, route, "{body}");
        let head = json!({"model": "m:latest", "created_at": START, "done": true, "done_reason": reason});
        assert_eq!(reading.answering.idle(UNIX_EPOCH), joined(head.clone(), json!({"response": ""})));
        let reading = read_chat(map(body)).unwrap();
        let message = json!({"message": {"role": "assistant", "content": ""}});
        assert_eq!((reading.route, reading.answering.idle(UNIX_EPOCH)), (route, joined(head, message)));
    }
}

#[test]
fn names_and_errors() {
    for (name, plain) in [("m", "m"), ("m:latest", "m"), ("m:7b", "m:7b"), ("a/b:latest", "a/b")] {
        assert_eq!(plain_name(name), plain);
        assert_eq!(read_show(map(json!({"model": name, "verbose": true}))).unwrap(), plain);
        assert_eq!(read_show(map(json!({"name": name}))).unwrap(), plain);
    }
    assert!(read_show(Map::new()).is_err());
    assert_eq!(error(&json!({"error": {"message": "no"}})), json!({"error": "no"}));
}

fn spent() -> Spent {
    let time = Duration::from_nanos;
    Spent { total: time(40), load: time(1), prompt: time(9), answer: time(30) }
}

/// Lines put together as clients do.
fn accumulate(lines: Vec<super::super::Event>) -> Value {
    let mut sum = Value::Null;
    for line in lines {
        assert_eq!(line.name, None);
        assert!(sum["done"] != true);
        let (before, is_chat) = (sum, line.data.get("message").is_some());
        sum = line.data;
        let text = |value: &Value| value.as_str().unwrap_or("").to_string();
        let (old, new) = if is_chat { (&before["message"], &mut sum["message"]) } else { (&before, &mut sum) };
        for field in ["content", "response", "thinking"] {
            let whole = text(&old[field]) + &text(&new[field]);
            if new.get(field).is_some() || !whole.is_empty() {
                new[field] = whole.into();
            }
        }
        let mut calls = old["tool_calls"].as_array().cloned().unwrap_or_default();
        calls.extend(new["tool_calls"].as_array().cloned().unwrap_or_default());
        if !calls.is_empty() {
            new["tool_calls"] = calls.into();
        }
    }
    assert_eq!(sum["done"], true);
    sum
}

fn check_answer(read: impl Fn() -> Reading, message: Value, finish: &str, said: Value, reason: &str) {
    let usage = json!({"prompt_tokens": 9, "completion_tokens": 4});
    let is_chat = read().route == Route::Chat;
    let choice = |message: &Value, name: &str| {
        if is_chat { json!({name: message}) } else { json!({"text": message["content"]}) }
    };
    let completion = json!({
        "choices": [joined(choice(&message, "message"), json!({"finish_reason": finish}))], "usage": usage,
    });
    let expected = joined(
        said,
        json!({
            "model": "m", "created_at": START, "done": true, "done_reason": reason, "total_duration": 40,
            "load_duration": 1, "prompt_eval_count": 9, "prompt_eval_duration": 9, "eval_count": 4, "eval_duration": 30,
        }),
    );
    assert_eq!(read().answering.whole(&completion, UNIX_EPOCH, &spent()), expected);
    let mut answering = read().answering;
    let mut lines = answering.begin();
    let mut feed = |choice: Value| lines.extend(answering.piece(&json!({"choices": [choice]}), UNIX_EPOCH));
    for field in ["reasoning_content", "content"] {
        for letter in message[field].as_str().unwrap_or("").chars() {
            let delta =
                if is_chat { json!({field: letter.to_string()}) } else { json!({"content": letter.to_string()}) };
            feed(choice(&delta, "delta"));
        }
    }
    for (index, call) in message["tool_calls"].as_array().unwrap_or(&vec![]).iter().enumerate() {
        let start = json!({"index": index, "id": call["id"], "function": {"name": call["function"]["name"]}});
        feed(json!({"delta": {"tool_calls": [start]}}));
        for letter in call["function"]["arguments"].as_str().unwrap().chars() {
            let piece = json!({"index": index, "function": {"arguments": letter}});
            feed(json!({"delta": {"tool_calls": [piece]}}));
        }
    }
    feed(json!({"delta": {}, "text": "", "finish_reason": finish}));
    lines.extend(answering.piece(&json!({"choices": [], "usage": usage}), UNIX_EPOCH));
    lines.extend(answering.end(UNIX_EPOCH, &spent()));
    assert_eq!(accumulate(lines), expected);
}

#[test]
fn answers_are_the_same_whole_and_streamed() {
    let chat = || read_chat(map(json!({"model": "m", "messages": [{"role": "user", "content": "u"}]}))).unwrap();
    let generate = || read_generate(map(json!({"model": "m", "prompt": "u"}))).unwrap();
    let raw = || read_generate(map(json!({"model": "m", "prompt": "u", "raw": true}))).unwrap();
    let said = |content: Value| json!({"message": joined(json!({"role": "assistant"}), content)});
    check_answer(chat, json!({"content": "hé"}), "stop", said(json!({"content": "hé"})), "stop");
    check_answer(chat, json!({"content": "a"}), "length", said(json!({"content": "a"})), "length");
    let thought = json!({"reasoning_content": "hm", "content": "a"});
    check_answer(chat, thought.clone(), "stop", said(json!({"content": "a", "thinking": "hm"})), "stop");
    let call = |id: &str, arguments: &str| json!({"id": id, "function": {"name": "f", "arguments": arguments}});
    let given = |id: &str, index: usize, arguments: Value| {
        json!({
            "id": id, "function": {"index": index, "name": "f", "arguments": arguments},
        })
    };
    check_answer(
        chat,
        json!({"content": null, "tool_calls": [call("1", r#"{"a":{"b":"}"}}"#), call("2", ""), call("3", "{}")]}),
        "tool_calls",
        said(json!({"content": "", "tool_calls": [
            given("1", 0, json!({"a": {"b": "}"}})), given("2", 1, json!({})), given("3", 2, json!({})),
        ]})),
        "stop",
    );
    check_answer(generate, thought, "stop", json!({"response": "a", "thinking": "hm"}), "stop");
    check_answer(raw, json!({"content": "ab"}), "length", json!({"response": "ab"}), "length");
}

#[test]
fn lines_of_a_stream() {
    let mut answering = read_chat(map(json!({"model": "m", "messages": []}))).unwrap().answering;
    let now: SystemTime = UNIX_EPOCH;
    assert!(answering.piece(&json!({"choices": [{"delta": {"role": "assistant", "content": ""}}]}), now).is_empty());
    let logprobs = json!([{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}]);
    let chunk = json!({"choices": [{"delta": {"content": "a"}, "logprobs": {"content": logprobs}}]});
    let line = json!({
        "model": "m", "created_at": START, "message": {"role": "assistant", "content": "a"}, "done": false,
        "logprobs": logprobs,
    });
    let lines = answering.piece(&chunk, now);
    assert_eq!(lines.iter().map(|line| &line.data).collect::<Vec<_>>(), [&line]);
    assert!(answering.piece(&json!(null), now).is_empty());
    let broken = answering.broken(&json!({"message": "no"}));
    assert_eq!(broken[0].data, json!({"error": "no"}));
}

#[test]
fn a_call_is_given_out_once_the_next_begins() {
    let mut answering = read_chat(map(json!({"model": "m", "messages": []}))).unwrap().answering;
    let mut counts = vec![];
    for (place, name, arguments) in [(0, "f", "{\"a\""), (0, "", ": 1}"), (1, "g", "{}"), (2, "h", "")] {
        let call = json!({"index": place, "function": {"name": name, "arguments": arguments}});
        let chunk = json!({"choices": [{"delta": {"tool_calls": [call]}}]});
        let lines = answering.piece(&chunk, UNIX_EPOCH);
        let names = lines.iter().map(|line| line.data["message"]["tool_calls"][0]["function"]["name"].clone());
        counts.push(names.collect::<Vec<_>>());
    }
    assert_eq!(json!(counts), json!([[], [], ["f"], ["g"]]));
    let last = answering.end(UNIX_EPOCH, &spent());
    assert_eq!((last.len(), &last[0].data["message"]["tool_calls"][0]["function"]["name"]), (2, &json!("h")));
}
