//! The Responses API in and out, without a server.

use super::*;

fn reading(responses: &Responses) -> Reading<'_> {
    Reading { seed: "s".to_string(), now: || 7, responses, defaults: Map::new() }
}

fn store() -> Responses {
    Responses::new(StoreLimits { responses: 4, bytes: 1 << 20 })
}

pub(super) fn request(more: Value) -> Map<String, Value> {
    let mut body = json!({"model": "m", "input": "u"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body.as_object().unwrap().clone()
}

pub(super) fn answering(more: Value) -> Answering {
    let store = store();
    read(request(more), reading(&store)).map_err(|error| crate::testing::object_of(&error)).unwrap().1
}

/// What chat gets besides the model and the user's message, and what is ignored.
fn check(more: Value, expected: Value, ignored: &[&str]) {
    let store = store();
    let (chat, answering) =
        read(request(more.clone()), reading(&store)).map_err(|error| crate::testing::object_of(&error)).unwrap();
    let mut whole = json!({"model": "m", "messages": [{"role": "user", "content": "u"}]});
    whole.as_object_mut().unwrap().extend(expected.as_object().unwrap().clone());
    assert_eq!(Value::Object(chat), whole, "{more}");
    assert_eq!(answering.ignored, ignored, "{more}");
}

#[test]
fn fields_reach_chat_in_its_words() {
    let schema = json!({"type": "object"});
    let tool = json!({"type": "function", "name": "f", "description": "d", "parameters": schema, "strict": true});
    let bare = json!({"type": "function", "name": "g", "parameters": null});
    let tools = json!([
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": schema, "strict": true}},
        {"type": "function", "function": {"name": "g"}},
    ]);
    for (more, expected) in [
        (json!({}), json!({})),
        (json!({"input": [{"role": "user", "content": "u"}]}), json!({})),
        (
            json!({"instructions": "i"}),
            json!({"messages": [{"role": "system", "content": "i"}, {"role": "user", "content": "u"}]}),
        ),
        (json!({"max_output_tokens": 5}), json!({"max_completion_tokens": 5})),
        (json!({"temperature": 0, "top_p": 0.5}), json!({"temperature": 0, "top_p": 0.5})),
        (json!({"stream": true}), json!({"stream": true, "stream_options": {"include_usage": true}})),
        (json!({"stream": false, "stream_options": {"include_obfuscation": false}}), json!({})),
        (
            json!({"include": ["message.output_text.logprobs", "reasoning.encrypted_content"]}),
            json!({"logprobs": true, "top_logprobs": 0}),
        ),
        (json!({"include": ["reasoning.encrypted_content"], "top_logprobs": 0}), json!({})),
        (json!({"top_logprobs": 3}), json!({"logprobs": true, "top_logprobs": 3})),
        (json!({"text": {"format": {"type": "text"}, "verbosity": "low"}}), json!({"verbosity": "low"})),
        (json!({"text": {"format": {"type": "json_object"}}}), json!({"response_format": {"type": "json_object"}})),
        (
            json!({"text": {"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": true}}}),
            json!({"response_format": {
                "type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": true},
            }}),
        ),
        (json!({"reasoning": {"effort": "high"}}), json!({"reasoning_effort": "high"})),
        (json!({"reasoning": {"context": "auto", "mode": "standard"}}), json!({})),
        (json!({"tools": [], "tool_choice": "auto", "parallel_tool_calls": true}), json!({})),
        (json!({"tool_choice": "required"}), json!({"tool_choice": "required"})),
        (json!({"tools": [tool, bare]}), json!({"tools": tools})),
        (
            json!({"tools": [tool, bare], "tool_choice": "none", "parallel_tool_calls": false}),
            json!({"tools": tools, "tool_choice": "none", "parallel_tool_calls": false}),
        ),
        (
            json!({"tools": [tool, bare], "tool_choice": {"type": "function", "name": "g"}}),
            json!({"tools": tools, "tool_choice": {"type": "function", "function": {"name": "g"}}}),
        ),
        (
            json!({"tools": [tool, bare], "tool_choice": {
                "type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"}],
            }}),
            json!({"tools": tools, "tool_choice": {"type": "allowed_tools", "allowed_tools": {
                "mode": "required", "tools": [{"type": "function", "function": {"name": "f"}}],
            }}}),
        ),
        (
            json!({
                "user": "w", "prompt_cache_key": "k", "safety_identifier": "x", "metadata": {"a": "b"}, "store": false,
            }),
            json!({"user": "w", "prompt_cache_key": "k", "safety_identifier": "x"}),
        ),
        (
            json!({"service_tier": "auto", "truncation": "disabled", "background": false, "max_tool_calls": 2}),
            json!({}),
        ),
        (json!({"conversation": null, "prompt": null, "n": 1, "context_management": []}), json!({})),
        (
            json!({"prompt_cache_options": {"mode": "implicit", "ttl": "30m"}, "prompt_cache_retention": "24h"}),
            json!({}),
        ),
        (
            json!({"top_k": 5, "seed": 1, "stop": ["x"], "chat_template_kwargs": {"a": 1}, "structured_outputs": {}}),
            json!({"top_k": 5, "seed": 1, "stop": ["x"], "chat_template_kwargs": {"a": 1}, "structured_outputs": {}}),
        ),
    ] {
        check(more, expected, &[]);
    }
    let more = json!({
        "color": 1, "text": {"font": "x"}, "reasoning": {"summary": "auto"},
        "tools": [{"type": "function", "name": "g", "output_schema": {}}], "stream_options": {"include_usage": true},
    });
    let tools = json!({"tools": [{"type": "function", "function": {"name": "g"}}]});
    let ignored = ["text.font", "reasoning.summary", "tools[0].output_schema", "stream_options.include_usage", "color"];
    check(more, tools, &ignored);
}

#[test]
fn refusals_name_the_field() {
    let tools = json!([{"type": "function", "name": "f"}]);
    let not = "unsupported_parameter";
    for (more, param, begins, code) in [
        (json!({"model": null}), "model", "the field `model` is missing", "missing_required_parameter"),
        (json!({"input": null}), "input", "the field `input` is missing", "missing_required_parameter"),
        (json!({"input": []}), "input", "the field `input` is missing", "missing_required_parameter"),
        (json!({"messages": [{}]}), "messages", "`messages` is not supported: the field is called `input` here", not),
        (
            json!({"max_tokens": 5}),
            "max_tokens",
            "`max_tokens` is not supported: the field is called `max_output_t",
            not,
        ),
        (json!({"n": 2}), "n", "`n` is not supported", not),
        (json!({"conversation": "conv_1"}), "conversation", "`conversation` is not supported", not),
        (json!({"prompt": {"id": "p"}}), "prompt", "`prompt` is not supported", not),
        (json!({"background": true}), "background", "`background` is not supported", not),
        (json!({"truncation": "auto"}), "truncation", "`truncation` is not supported", not),
        (json!({"moderation": {"model": "x"}}), "moderation", "`moderation` is not supported", not),
        (
            json!({"stream_options": {"include_obfuscation": true}}),
            "stream_options.include_obfuscation",
            "`stream_options.include_obfuscation` is not supported",
            not,
        ),
        (
            json!({"tools": [{"type": "web_search"}]}),
            "tools[0].type",
            "`tools[0].type` is not supported: there is no",
            not,
        ),
        (
            json!({"tools": [{"type": "function", "function": {"name": "f"}}]}),
            "tools[0].name",
            "the field `tools[0].name` is missing",
            "missing_required_parameter",
        ),
        (
            json!({"tools": [{"type": "function", "name": "f", "defer_loading": true}]}),
            "tools[0].defer_loading",
            "`tools[0].defer_loading` is not supported",
            not,
        ),
        (json!({"tool_choice": "some"}), "tool_choice", "`tool_choice` must be none, auto, required or an object", ""),
        (
            json!({"tool_choice": {"type": "file_search"}}),
            "tool_choice.type",
            "`tool_choice.type` is not supported: there is no built-in tool `file_search`",
            not,
        ),
        (
            json!({"tools": tools, "tool_choice": {"type": "function", "name": "x"}}),
            "tool_choice.name",
            "`tool_choice.name` must be the name of a function in `tools`, and `x` is none",
            "",
        ),
        (
            json!({"tools": tools, "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}}),
            "tool_choice.tools",
            "`tool_choice.tools` must be a list of at least one function",
            "",
        ),
        (json!({"max_output_tokens": 0}), "max_output_tokens", "`max_output_tokens` must be a whole number from 1", ""),
        (json!({"temperature": "x"}), "temperature", "`temperature` must be a number", ""),
        (json!({"top_logprobs": 21}), "top_logprobs", "`top_logprobs` must be a whole number from 0 to 20", ""),
        (json!({"include": ["x"]}), "include[0]", "`include[0]` must be message.output_text.logprobs, ", ""),
        (json!({"text": "x"}), "text", "`text` must be an object", ""),
        (
            json!({"text": {"format": {"type": "json_schema", "name": "n"}}}),
            "text.format.schema",
            "the field `text.format.schema` is missing",
            "missing_required_parameter",
        ),
        (
            json!({"text": {"format": {"type": "xml"}}}),
            "text.format.type",
            "`text.format.type` must be text, json_object or json_schema",
            "",
        ),
        (
            json!({"reasoning": {"effort": "huge"}}),
            "reasoning.effort",
            "`reasoning.effort` must be none, minimal, ",
            "",
        ),
        (json!({"reasoning": {"mode": "pro"}}), "reasoning.mode", "`reasoning.mode` is not supported", not),
        (json!({"metadata": {"a": 1}}), "metadata", "`metadata` must be an object of 16 strings", ""),
        (json!({"metadata": {"a": "é".repeat(513)}}), "metadata", "`metadata` must be an object of 16 strings", ""),
        (json!({"metadata": {"é".repeat(65): "a"}}), "metadata", "`metadata` must be an object of 16 strings", ""),
        (json!({"service_tier": "gold"}), "service_tier", "`service_tier` must be auto, ", ""),
        (
            json!({"previous_response_id": "resp_0"}),
            "previous_response_id",
            "no response `resp_0` is kept here",
            "previous_response_not_found",
        ),
        (
            json!({"input": [{"type": "function_call_output", "call_id": "c", "output": ""}]}),
            "input",
            "the conversation has no function call `c` before what it gave",
            "",
        ),
    ] {
        let store = store();
        let Err(error) = read(request(more.clone()), reading(&store)) else { panic!("taken: {more}") };
        let error = crate::testing::object_of(&error)["error"].take();
        assert_eq!(error["param"], param, "{more}: {error}");
        assert!(error["message"].as_str().unwrap().starts_with(begins), "{more}: {error}");
        assert_eq!(error["code"].as_str().unwrap_or_default(), code, "{more}: {error}");
    }
}

pub(super) fn completion(message: Value, reason: &str) -> Value {
    json!({
        "object": "chat.completion", "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": {
            "prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8,
            "prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 2},
        },
    })
}

#[test]
fn a_whole_response_has_every_field() {
    let more = json!({"input": [{"role": "user", "content": "u"}, {"role": "user", "content": "v"}], "user": "w"});
    let message = json!({
        "role": "assistant", "content": "Hi", "reasoning_content": "hm",
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    });
    let expected = json!({
        "id": "resp_s", "object": "response", "created_at": 7, "status": "completed", "background": false,
        "completed_at": 7, "error": null, "incomplete_details": null, "instructions": null, "max_output_tokens": null,
        "max_tool_calls": null, "model": "m",
        "output": [
            {
                "id": "rs_s_2", "type": "reasoning", "status": "completed", "summary": [],
                "content": [{"type": "reasoning_text", "text": "hm"}], "encrypted_content": null,
            },
            {
                "id": "msg_s_3", "type": "message", "status": "completed", "role": "assistant",
                "content": [{"type": "output_text", "text": "Hi", "annotations": [], "logprobs": []}],
            },
            {
                "id": "fc_s_4", "type": "function_call", "status": "completed", "call_id": "call_1", "name": "f",
                "arguments": "{}",
            },
        ],
        "parallel_tool_calls": true, "previous_response_id": null, "prompt_cache_key": null,
        "prompt_cache_retention": null, "reasoning": {"effort": null, "summary": null}, "safety_identifier": null,
        "service_tier": "default", "store": true, "temperature": null,
        "text": {"format": {"type": "text"}, "verbosity": null}, "tool_choice": "auto", "tools": [], "top_logprobs": 0,
        "top_p": null, "truncation": "disabled",
        "usage": {
            "input_tokens": 5, "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
            "output_tokens": 3, "output_tokens_details": {"reasoning_tokens": 2}, "total_tokens": 8,
        },
        "user": "w", "metadata": {},
    });
    let response = answering(more).whole(&completion(message, "tool_calls"));
    assert_eq!(response, expected);
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&response), keys(&expected));
}

#[test]
fn how_an_answer_ended() {
    let said = json!({"role": "assistant", "content": "Hi"});
    let call = json!({"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [
        {"type": "function", "function": {"name": "f", "arguments": "{\"a"}},
    ]});
    let nothing = json!({"role": "assistant", "content": null});
    for (message, reason, status, details, items) in [
        (&said, "stop", "completed", Value::Null, json!(["msg_s_1 completed"])),
        (&said, "length", "incomplete", json!({"reason": "max_output_tokens"}), json!(["msg_s_1 incomplete"])),
        (&said, "content_filter", "incomplete", json!({"reason": "content_filter"}), json!(["msg_s_1 incomplete"])),
        (&said, "abort", "failed", Value::Null, json!(["msg_s_1 incomplete"])),
        (
            &call,
            "length",
            "incomplete",
            json!({"reason": "max_output_tokens"}),
            json!(["rs_s_1 completed", "fc_s_2 incomplete"]),
        ),
        (&nothing, "stop", "completed", Value::Null, json!(["msg_s_1 completed"])),
        (&nothing, "abort", "failed", Value::Null, json!([])),
    ] {
        let response = answering(json!({})).whole(&completion(message.clone(), reason));
        assert_eq!((&response["status"], &response["incomplete_details"]), (&json!(status), &details), "{reason}");
        let shown = |item: &Value| format!("{} {}", item["id"], item["status"]).replace('"', "");
        let shown: Vec<String> = response["output"].as_array().unwrap().iter().map(shown).collect();
        assert_eq!(json!(shown), items, "{message} {reason}");
        assert_eq!(response["error"].is_null(), status != "failed");
        assert_eq!(response["completed_at"].is_null(), status != "completed");
    }
    let response = answering(json!({})).whole(&completion(call, "stop"));
    assert_eq!(response["output"][1]["call_id"], "call_s_2");
}

#[test]
fn a_response_goes_on_from_another() {
    let responses = store();
    let more = json!({"instructions": "i", "input": "one"});
    let (_, mut first) =
        read(request(more), reading(&responses)).map_err(|error| crate::testing::object_of(&error)).unwrap();
    let given = first.kept().unwrap();
    assert!(first.kept().is_none());
    let said = json!({"role": "assistant", "content": "uno", "reasoning_content": "hm"});
    responses.insert(given, first.whole(&completion(said, "stop"))).unwrap();
    let next = json!({"previous_response_id": "resp_s", "instructions": "j", "input": "two"});
    let (chat, _) =
        read(request(next), reading(&responses)).map_err(|error| crate::testing::object_of(&error)).unwrap();
    let expected = json!([
        {"role": "system", "content": "j"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "uno", "reasoning_content": "hm"},
        {"role": "user", "content": "two"},
    ]);
    assert_eq!(chat["messages"], expected);
    // Without input it goes on as well, and an item can be referred to by its name.
    let next = json!({"previous_response_id": "resp_s", "input": null});
    let (chat, _) =
        read(request(next), reading(&responses)).map_err(|error| crate::testing::object_of(&error)).unwrap();
    assert_eq!(chat["messages"].as_array().unwrap().len(), 2);
    let next = json!({"input": [{"type": "item_reference", "id": "msg_s_2"}]});
    let (chat, _) =
        read(request(next), reading(&responses)).map_err(|error| crate::testing::object_of(&error)).unwrap();
    assert_eq!(chat["messages"], json!([{"role": "assistant", "content": "uno"}]));
}

#[test]
fn only_what_is_wanted_is_kept() {
    let off = Responses::new(StoreLimits { responses: 0, bytes: 0 });
    for (responses, more, expected) in
        [(&store(), json!({}), true), (&store(), json!({"store": false}), false), (&off, json!({"store": true}), false)]
    {
        let (_, mut answering) =
            read(request(more), reading(responses)).map_err(|error| crate::testing::object_of(&error)).unwrap();
        assert_eq!(answering.kept().is_some(), expected);
        let response = answering.whole(&completion(json!({"content": "x"}), "stop"));
        assert_eq!(response["store"], expected);
    }
}

#[test]
fn defaults_fill_what_is_open() {
    let responses = store();
    let defaults = json!({"temperature": 0.6, "top_p": 0.9, "id": "x", "status": "x", "color": "x"});
    let reading = Reading { defaults: defaults.as_object().unwrap().clone(), ..reading(&responses) };
    let (chat, answering) =
        read(request(json!({"top_p": 0.5})), reading).map_err(|error| crate::testing::object_of(&error)).unwrap();
    assert!(!chat.contains_key("temperature"));
    let response = answering.whole(&completion(json!({"content": "x"}), "stop"));
    assert_eq!((&response["temperature"], &response["top_p"]), (&json!(0.6), &json!(0.5)));
    assert_eq!(
        (&response["id"], &response["status"], &response["color"]),
        (&json!("resp_s"), &json!("completed"), &Value::Null)
    );
}
