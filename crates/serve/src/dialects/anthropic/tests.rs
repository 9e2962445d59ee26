//! Anthropic's API in and out, without a server.

use super::*;
use crate::dialects::Event;

fn map(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// A request with a message, `max_tokens` and a model, and what else is given.
fn request(more: Value) -> Value {
    let mut body = map(json!({"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}));
    body.extend(map(more));
    Value::Object(body)
}

fn check(more: Value, expected: Value, ignored: &[&str]) {
    let (chat, answering) = read(map(request(more.clone())), "msg_1".into()).unwrap();
    let mut whole = map(json!({"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}));
    whole.extend(map(expected));
    assert_eq!(Value::Object(chat), Value::Object(whole), "{more}");
    assert_eq!(answering.ignored().names(), ignored, "{more}");
}

fn check_error(body: Value, expected: &str) {
    let error = match read(map(body.clone()), "msg_1".into()) {
        Ok((chat, _)) => panic!("{body}: {}", Value::Object(chat)),
        Err(error) => crate::testing::object_of(&error)["error"].take(),
    };
    let (param, code) = (error["param"].as_str().unwrap(), error["code"].as_str().unwrap_or("-"));
    let shown = format!("{param} {code}: {}", error["message"].as_str().unwrap());
    assert!(shown.starts_with(expected), "{body}\n  {shown}\n  {expected}");
}

fn check_messages(messages: Value, expected: Value) {
    let chat = read(map(request(json!({"messages": messages}))), "msg_1".into()).unwrap().0;
    assert_eq!(chat["messages"], expected, "{messages}");
}

fn tool(name: &str) -> Value {
    json!({"name": name, "description": "d", "input_schema": {"type": "object"}})
}

fn function(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name, "description": "d", "parameters": {"type": "object"}}})
}

#[test]
fn settings_become_those_of_a_chat() {
    check(json!({}), json!({}), &[]);
    check(
        json!({
            "temperature": 0.5, "top_p": 0.9, "top_k": 7, "stop_sequences": ["a", "b"],
            "metadata": {"user_id": "u"},
        }),
        json!({"temperature": 0.5, "top_p": 0.9, "top_k": 7, "stop": ["a", "b"]}),
        &[],
    );
    check(json!({"stream": true}), json!({"stream": true, "stream_options": {"include_usage": true}}), &[]);
    check(json!({"stream": false, "service_tier": "auto", "stop_sequences": [], "container": null}), json!({}), &[]);
    check(
        json!({"seed": 3, "min_p": 0.1, "structured_outputs": {"regex": "a"}, "colour": 1, "inference_geo": "x"}),
        json!({"seed": 3, "min_p": 0.1, "structured_outputs": {"regex": "a"}}),
        &["colour", "inference_geo"],
    );
    check(json!({"system": ""}), json!({}), &[]);
    check(json!({"cache_control": {"type": "ephemeral"}, "n": 2}), json!({}), &["n"]);
}

#[test]
fn thinking_becomes_a_flag_of_the_template_and_a_budget() {
    let flag = |flag: bool| json!({"chat_template_kwargs": {"enable_thinking": flag}});
    check(
        json!({"thinking": {"type": "enabled", "budget_tokens": 1024}}),
        json!({"thinking_token_budget": 1024, "chat_template_kwargs": {"enable_thinking": true}}),
        &[],
    );
    check(json!({"thinking": {"type": "disabled"}}), flag(false), &[]);
    check(json!({"thinking": {"type": "adaptive", "mood": 1}}), flag(true), &["thinking.mood"]);
    check(
        json!({"thinking": {"type": "disabled"}, "chat_template_kwargs": {"x": null}}),
        json!({"chat_template_kwargs": {"x": null, "enable_thinking": false}}),
        &[],
    );
    for (thinking, expected) in [
        (json!({"type": "enabled"}), "thinking.budget_tokens missing_required_parameter:"),
        (json!({"type": "enabled", "budget_tokens": 0}), "thinking.budget_tokens -:"),
        (json!({"type": "between_tools"}), "thinking.type unsupported_parameter:"),
        (json!({"type": "adaptive", "display": "x"}), "thinking.display -:"),
        (json!({}), "thinking.type missing_required_parameter:"),
        (json!(true), "thinking -: `thinking` must be an object"),
    ] {
        check_error(request(json!({"thinking": thinking})), expected);
    }
}

#[test]
fn the_form_of_an_answer() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "null"}}});
    let format = json!({"type": "json_schema", "schema": schema});
    let json_schema = json!({"name": "output", "schema": schema, "strict": true});
    let expected = json!({"response_format": {"type": "json_schema", "json_schema": json_schema}});
    check(json!({"output_format": format}), expected.clone(), &[]);
    check(json!({"output_config": {"format": format, "x": 1}}), expected, &["output_config.x"]);
    check(json!({"output_config": {"effort": "low"}}), json!({"reasoning_effort": "low"}), &[]);
    check(json!({"output_config": {"effort": "max", "format": null}}), json!({"reasoning_effort": "xhigh"}), &[]);
    for (config, expected) in [
        (json!({"effort": "huge"}), "output_config.effort -:"),
        (json!({"format": {"type": "xml"}}), "output_config.format.type -:"),
        (json!({"format": {"type": "json_schema"}}), "output_config.format.schema missing_required_parameter:"),
    ] {
        check_error(request(json!({"output_config": config})), expected);
    }
}

#[test]
fn tools_and_their_choice() {
    let tools = json!([tool("a"), tool("b")]);
    let functions = json!([function("a"), function("b")]);
    for (choice, more) in [
        (json!({"type": "auto"}), json!({"tool_choice": "auto"})),
        (json!({"type": "any"}), json!({"tool_choice": "required"})),
        (json!({"type": "none"}), json!({"tool_choice": "none"})),
        (
            json!({"type": "any", "disable_parallel_tool_use": true}),
            json!({"tool_choice": "required", "parallel_tool_calls": false}),
        ),
        (
            json!({"type": "tool", "name": "b", "disable_parallel_tool_use": false}),
            json!({"tool_choice": {"type": "function", "function": {"name": "b"}}}),
        ),
        (json!(null), json!({})),
    ] {
        let mut expected = map(json!({"tools": functions}));
        expected.extend(map(more));
        check(json!({"tools": tools, "tool_choice": choice}), Value::Object(expected), &[]);
    }
    check(json!({"tools": [], "tool_choice": {"type": "auto", "disable_parallel_tool_use": true}}), json!({}), &[]);
    check(
        json!({"tools": [{
            "type": "custom", "name": "a", "input_schema": {"type": "object", "$defs": {}}, "strict": true,
            "cache_control": {"type": "ephemeral"}, "input_examples": [{}], "description": null,
        }]}),
        json!({"tools": [{"type": "function", "function": {
            "name": "a", "parameters": {"type": "object", "$defs": {}}, "strict": true,
        }}]}),
        &["tools[].input_examples"],
    );
    for (more, expected) in [
        (json!({"tools": {}}), "tools -:"),
        (json!({"tools": [1]}), "tools[0] -:"),
        (json!({"tools": [{"name": "a"}]}), "tools[0].input_schema missing_required_parameter:"),
        (json!({"tools": [{"input_schema": {}}]}), "tools[0].name missing_required_parameter:"),
        (
            json!({"tools": [tool("a"), {"type": "web_search_20250305", "name": "web_search"}]}),
            "tools[1].type unsupported_parameter: tools of type `web_search_20250305` are not supported",
        ),
        (json!({"tool_choice": {"type": "any"}}), "tool_choice -: `tool_choice` asks for a call"),
        (json!({"tools": tools, "tool_choice": {"type": "tool", "name": "c"}}), "tool_choice.name -:"),
        (json!({"tools": tools, "tool_choice": {"type": "tool"}}), "tool_choice.name missing_required_parameter:"),
        (json!({"tools": tools, "tool_choice": {"type": "x"}}), "tool_choice.type -:"),
        (json!({"tools": tools, "tool_choice": "auto"}), "tool_choice -:"),
    ] {
        check_error(request(more), expected);
    }
}

#[test]
fn blocks_become_messages() {
    let text = |text: &str| json!({"type": "text", "text": text});
    check_messages(json!([{"role": "user", "content": [text("a")]}]), json!([{"role": "user", "content": "a"}]));
    check_messages(
        json!([{"role": "user", "content": [text("a"), {"type": "text", "text": "b", "cache_control": {}}]}]),
        json!([{"role": "user", "content": [text("a"), text("b")]}]),
    );
    check_messages(
        json!([{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]),
        json!([{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]),
    );
    let call = |id: &str, input: Value| json!({"type": "tool_use", "id": id, "name": "f", "input": input});
    let called = |id: &str, arguments: &str| {
        json!({
            "id": id, "type": "function", "function": {"name": "f", "arguments": arguments},
        })
    };
    check_messages(
        json!([
            {"role": "user", "content": "u"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "t", "signature": "s"}, {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "a", "citations": null},
                call("1", json!({"b": 1.5, "a": [null]})), call("2", json!({})),
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "1", "content": "r"},
                {"type": "tool_result", "tool_use_id": "2", "content": [text("x"), text("y")], "is_error": true},
                {"type": "tool_result", "tool_use_id": "3", "is_error": true},
                {"type": "tool_result", "tool_use_id": "4", "content": "Error, no", "is_error": true},
                text("v"),
            ]},
        ]),
        json!([
            {"role": "user", "content": "u"},
            {"role": "assistant", "content": "a", "reasoning_content": "t", "tool_calls": [
                called("1", r#"{"b":1.5,"a":[null]}"#), called("2", "{}"),
            ]},
            {"role": "tool", "tool_call_id": "1", "content": "r"},
            {"role": "tool", "tool_call_id": "2", "content": "Error: x\ny"},
            {"role": "tool", "tool_call_id": "3", "content": "Error"},
            {"role": "tool", "tool_call_id": "4", "content": "Error, no"},
            {"role": "user", "content": "v"},
        ]),
    );
    // Text in front of results stays in front.
    check_messages(
        json!([
            {"role": "assistant", "content": [call("1", json!({}))]},
            {"role": "user", "content": [text("a"), {"type": "tool_result", "tool_use_id": "1", "content": "r"}]},
        ]),
        json!([
            {"role": "assistant", "content": null, "tool_calls": [called("1", "{}")]},
            {"role": "user", "content": "a"},
            {"role": "tool", "tool_call_id": "1", "content": "r"},
        ]),
    );
    check(
        json!({"system": [text("a"), text("b")], "messages": [{"role": "user", "content": "u", "name": "x"}]}),
        json!({"messages": [{"role": "system", "content": [text("a"), text("b")]}, {"role": "user", "content": "u"}]}),
        &["messages[].name"],
    );
}

#[test]
fn a_last_message_of_the_assistant_is_continued() {
    let messages = json!([{"role": "user", "content": "u"}, {"role": "assistant", "content": "{"}]);
    check(
        json!({"messages": messages}),
        json!({"messages": messages, "add_generation_prompt": false, "continue_final_message": true}),
        &[],
    );
    let call = json!({"type": "tool_use", "id": "1", "name": "f", "input": {}});
    check_error(
        request(json!({"messages": [{"role": "assistant", "content": [call]}]})),
        "messages -: the last message",
    );
}

#[test]
fn refusals_name_the_field() {
    let user = |content: Value| request(json!({"messages": [{"role": "user", "content": content}]}));
    for (body, expected) in [
        (json!({}), "model missing_required_parameter: the field `model` is missing"),
        (json!({"model": "m"}), "max_tokens missing_required_parameter:"),
        (json!({"model": "m", "max_tokens": 0}), "max_tokens -: `max_tokens` must be"),
        (json!({"model": "m", "max_tokens": 1}), "messages missing_required_parameter:"),
        (request(json!({"messages": []})), "messages -:"),
        (request(json!({"messages": [1]})), "messages[0] -:"),
        (request(json!({"messages": [{"role": "tool", "content": "x"}]})), "messages[0].role -:"),
        (request(json!({"messages": [{"content": "x"}]})), "messages[0].role missing_required_parameter:"),
        (request(json!({"messages": [{"role": "user"}]})), "messages[0].content missing_required_parameter:"),
        (user(json!(5)), "messages[0].content -:"),
        (user(json!([5])), "messages[0].content[0] -:"),
        (user(json!([{"text": "x"}])), "messages[0].content[0].type missing_required_parameter:"),
        (user(json!([{"type": "text"}])), "messages[0].content[0].text missing_required_parameter:"),
        (user(json!([{"type": "text", "text": 5}])), "messages[0].content[0].text -:"),
        (
            user(json!([{"type": "image", "source": {}}])),
            "messages[0].content[0].type unsupported_parameter: blocks of type `image` are not supported",
        ),
        (user(json!([{"type": "document"}])), "messages[0].content[0].type unsupported_parameter:"),
        (
            user(json!([{"type": "tool_result", "tool_use_id": "1", "content": [{"type": "image"}]}])),
            "messages[0].content[0].content[0].type unsupported_parameter:",
        ),
        (user(json!([{"type": "tool_result"}])), "messages[0].content[0].tool_use_id missing_required_parameter:"),
        (user(json!([{"type": "tool_use"}])), "messages[0].content[0].type unsupported_parameter:"),
        (
            request(json!({"messages": [{"role": "assistant", "content": [
                {"type": "tool_use", "id": "1", "name": "f", "input": "x"},
            ]}]})),
            "messages[0].content[0].input -:",
        ),
        (request(json!({"system": 5})), "system -:"),
        (request(json!({"system": [{"type": "image"}]})), "system[0].type unsupported_parameter:"),
        (request(json!({"stop_sequences": "x"})), "stop_sequences -:"),
        (request(json!({"stop_sequences": [""]})), "stop_sequences -:"),
        (request(json!({"stream": 1})), "stream -:"),
        (request(json!({"mcp_servers": [{}]})), "mcp_servers unsupported_parameter:"),
    ] {
        check_error(body, expected);
    }
}

#[test]
fn counting_reads_the_prompt_only() {
    let body = json!({
        "model": "m", "system": "s", "messages": [{"role": "user", "content": "u"}], "tools": [tool("a")],
        "thinking": {"type": "disabled"}, "stream": true, "temperature": 9, "x": 1,
    });
    let (chat, ignored) = read_count(map(body)).unwrap();
    let expected = json!({
        "model": "m",
        "chat_template_kwargs": {"enable_thinking": false},
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
        "tools": [function("a")],
    });
    assert_eq!((Value::Object(chat), ignored.names()), (expected, &["x".to_string()][..]));
    assert_eq!(counted(3), json!({"input_tokens": 3}));
}

fn answering(more: Value) -> Answering {
    read(map(request(more)), "msg_1".into()).unwrap().1
}

/// A message from its events, as clients put it together; panics where they come in a wrong order.
fn accumulate(events: Vec<Event>) -> Value {
    let mut message = Value::Null;
    let mut inputs: Vec<String> = vec![];
    let (mut is_open, mut is_over) = (false, false);
    for Event { name, data } in events {
        let kind = data["type"].as_str().unwrap().to_string();
        assert_eq!(name, Some(kind.as_str()));
        assert!(!is_over, "{data}");
        let place = data["index"].as_u64().unwrap_or(0) as usize;
        match kind.as_str() {
            "message_start" => message = data["message"].clone(),
            "ping" => {}
            "content_block_start" => {
                let content = message["content"].as_array_mut().unwrap();
                assert!(!is_open && place == content.len());
                is_open = true;
                inputs.push(String::new());
                content.push(data["content_block"].clone());
            }
            "content_block_delta" => {
                let (delta, block) = (&data["delta"], &mut message["content"][place]);
                let (from, to) = match delta["type"].as_str().unwrap() {
                    "text_delta" => ("text", "text"),
                    "thinking_delta" => ("thinking", "thinking"),
                    "signature_delta" => ("signature", "signature"),
                    "input_json_delta" => {
                        inputs[place] += delta["partial_json"].as_str().unwrap();
                        continue;
                    }
                    other => panic!("{other}"),
                };
                block[to] = (block[to].as_str().unwrap().to_string() + delta[from].as_str().unwrap()).into();
            }
            "content_block_stop" => {
                assert!(is_open);
                is_open = false;
                if !inputs[place].is_empty() {
                    message["content"][place]["input"] = serde_json::from_str(&inputs[place]).unwrap();
                }
            }
            "message_delta" => {
                for (field, value) in data["delta"].as_object().unwrap() {
                    message[field] = value.clone();
                }
                message["usage"] = data["usage"].clone();
            }
            "message_stop" => is_over = true,
            other => panic!("{other}"),
        }
    }
    assert!(is_over && !is_open);
    message
}

/// Streams a message's parts letter by letter.
fn chunks(completion: &Value) -> Vec<Value> {
    let choice = &completion["choices"][0];
    let chunk = |delta: Value, end: Value, stop: Value| {
        json!({
            "choices": [{"index": 0, "delta": delta, "finish_reason": end, "stop_reason": stop}],
        })
    };
    let piece = |delta: Value| chunk(delta, Value::Null, Value::Null);
    let mut all = vec![piece(json!({"role": "assistant", "content": ""}))];
    for field in ["reasoning_content", "content"] {
        for letter in choice["message"][field].as_str().unwrap_or("").chars() {
            all.push(piece(json!({field: letter})));
        }
    }
    for (index, call) in choice["message"]["tool_calls"].as_array().unwrap_or(&vec![]).iter().enumerate() {
        let function = json!({"name": call["function"]["name"], "arguments": ""});
        let start = json!({"index": index, "id": call["id"], "type": "function", "function": function});
        all.push(piece(json!({"tool_calls": [start]})));
        for letter in call["function"]["arguments"].as_str().unwrap().chars() {
            all.push(piece(json!({"tool_calls": [{"index": index, "function": {"arguments": letter}}]})));
        }
    }
    all.push(chunk(json!({}), choice["finish_reason"].clone(), choice["stop_reason"].clone()));
    all.push(json!({"choices": [], "usage": completion["usage"]}));
    all
}

fn check_answer(more: Value, message: Value, end: Value, content: Value, reason: &str, sequence: Value) {
    let mut choice = map(json!({"index": 0, "message": message}));
    choice.extend(map(end));
    let completion = json!({
        "choices": [choice],
        "usage": {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 2}},
    });
    let expected = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": content,
        "stop_reason": reason, "stop_sequence": sequence,
        "usage": {
            "input_tokens": 7, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 2, "output_tokens": 4,
        },
    });
    assert_eq!(answering(more.clone()).whole(&completion), expected);
    let mut answering = answering(more);
    let mut events = answering.begin();
    events.extend(chunks(&completion).iter().flat_map(|chunk| answering.piece(chunk)));
    events.extend(answering.end());
    assert_eq!(accumulate(events), expected);
}

#[test]
fn answers_are_the_same_whole_and_streamed() {
    let text = |text: &str| json!({"type": "text", "text": text});
    let thinking = |text: &str| json!({"type": "thinking", "thinking": text, "signature": "unsigned"});
    let call = |id: &str, arguments: &str| {
        json!({
            "id": id, "type": "function", "function": {"name": "f", "arguments": arguments},
        })
    };
    let used = |id: &str, input: Value| json!({"type": "tool_use", "id": id, "name": "f", "input": input});
    let none = || json!({});
    for (finish, reason) in [("stop", "end_turn"), ("length", "max_tokens"), ("content_filter", "refusal")] {
        let end = json!({"finish_reason": finish});
        check_answer(none(), json!({"content": "hé"}), end, json!([text("hé")]), reason, Value::Null);
    }
    let end = json!({"finish_reason": "stop", "stop_reason": "END"});
    check_answer(none(), json!({"content": "a"}), end, json!([text("a")]), "stop_sequence", json!("END"));
    // A token that ended the answer is a number.
    let end = json!({"finish_reason": "stop", "stop_reason": 7});
    check_answer(none(), json!({"content": "a"}), end, json!([text("a")]), "end_turn", Value::Null);
    let stop = json!({"finish_reason": "stop", "stop_reason": null});
    check_answer(none(), json!({"content": ""}), stop.clone(), json!([text("")]), "end_turn", Value::Null);
    let message = json!({"reasoning_content": "hm", "content": "a"});
    check_answer(none(), message.clone(), stop.clone(), json!([thinking("hm"), text("a")]), "end_turn", Value::Null);
    let hidden = json!({"thinking": {"type": "adaptive", "display": "omitted"}});
    check_answer(hidden, message, stop.clone(), json!([thinking(""), text("a")]), "end_turn", Value::Null);
    let message = json!({"reasoning_content": "hm", "content": null});
    check_answer(none(), message, stop.clone(), json!([thinking("hm"), text("")]), "end_turn", Value::Null);
    let calls = json!([call("1", r#"{"x":[1,{"é":"}"}]}"#), call("2", ""), call("3", "{}")]);
    let blocks = [used("1", json!({"x": [1, {"é": "}"}]})), used("2", json!({})), used("3", json!({}))];
    let message = json!({"reasoning_content": "hm", "content": "a", "tool_calls": calls});
    let content = json!([thinking("hm"), text("a"), blocks[0], blocks[1], blocks[2]]);
    check_answer(none(), message, json!({"finish_reason": "tool_calls"}), content, "tool_use", Value::Null);
    // A forced call.
    let message = json!({"content": null, "tool_calls": [call("1", "{}")]});
    check_answer(none(), message, stop, json!([used("1", json!({}))]), "tool_use", Value::Null);
}

#[test]
fn a_stream_tells_the_prompt_and_its_failure() {
    let mut answering = answering(json!({}));
    answering.prompt_tokens(12);
    assert_eq!(answering.begin()[0].data["message"]["usage"]["input_tokens"], 12);
    let events = answering.broken(&json!({"message": "no", "type": "server_error"}));
    let data = json!({"type": "error", "error": {"type": "api_error", "message": "no"}});
    assert_eq!(events, [Event { name: Some("error"), data }]);
}

#[test]
fn strange_chunks_do_no_harm() {
    let mut answering = answering(json!({}));
    let mut events = answering.begin();
    for chunk in [
        json!(null),
        json!({"choices": 5}),
        json!({"choices": [{"delta": {"tool_calls": [{}], "content": 5}}]}),
        // The second call begins before the first one ends.
        json!({"choices": [{"delta": {"tool_calls": [{"index": 1, "id": "b", "function": {"name": "g"}}]}}]}),
        json!({"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}}]}),
    ] {
        events.extend(answering.piece(&chunk));
    }
    events.extend(answering.end());
    let names: Vec<&str> = events.iter().filter_map(|event| event.name).collect();
    assert_eq!(
        names,
        [
            "message_start",
            "ping",
            "content_block_start",
            "content_block_stop",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
    );
    assert_eq!((&events[5].data["index"], &events[7].data["delta"]["stop_reason"]), (&json!(0), &Value::Null));
}

/// What a coding agent sends besides: hints at caches, marks of betas, settings that nobody here has.
#[test]
fn an_agent_is_understood() {
    let hint = json!({"type": "ephemeral", "ttl": "1h"});
    check(
        json!({
            "system": [{"type": "text", "text": "s", "cache_control": hint}], "stream": true,
            "messages": [{"role": "user", "content": [{"type": "text", "text": "u", "cache_control": hint}]}],
            "tools": [{
                "name": "a", "description": "d", "eager_input_streaming": true, "cache_control": hint,
                "input_schema": {"$schema": "x", "type": "object", "additionalProperties": false},
            }],
            "metadata": {"user_id": "u"}, "thinking": {"type": "adaptive"}, "output_config": {"effort": "high"},
            "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        }),
        json!({
            "stream": true, "stream_options": {"include_usage": true},
            "chat_template_kwargs": {"enable_thinking": true}, "reasoning_effort": "high",
            "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
            "tools": [{"type": "function", "function": {
                "name": "a", "description": "d",
                "parameters": {"$schema": "x", "type": "object", "additionalProperties": false},
            }}],
        }),
        &["context_management"],
    );
}
