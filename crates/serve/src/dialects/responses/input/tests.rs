//! Items of a request's input in all their forms.

use super::*;

/// Items with the names of ours, or the complaint; then what was ignored.
fn check(input: Value, expected: Value) {
    let mut ignored = vec![];
    let kept = |id: &str| (id == "msg_old_0").then(|| json!({"id": id, "type": "message", "kept": true}));
    let read = read(Some(input.clone()), &Ids::new("s"), &kept, &mut ignored);
    let shown = match read {
        Ok(items) => json!({"items": items, "ignored": ignored}),
        Err(error) => {
            let error = crate::testing::object_of(&error)["error"].take();
            json!([error["param"], error["message"], error["code"]])
        }
    };
    assert_eq!(shown, expected, "{input}");
}

fn items(items: Value) -> Value {
    json!({"items": items, "ignored": []})
}

fn message(index: usize, role: &str, text: &str) -> Value {
    let id = format!("msg_s_{index}");
    let part = match role {
        "assistant" => json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []}),
        _ => json!({"type": "input_text", "text": text}),
    };
    json!({"id": id, "type": "message", "status": "completed", "role": role, "content": [part]})
}

#[test]
fn every_form_becomes_one() {
    check(json!("Hi"), items(json!([message(0, "user", "Hi")])));
    check(json!([]), items(json!([])));
    check(
        json!([
            {"role": "developer", "content": "Be brief."},
            {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "s"}]},
            {"role": "user", "content": [{"type": "output_text", "text": "mixed up"}]},
            {"role": "assistant", "content": "a", "phase": "commentary"},
        ]),
        items(json!([
            message(0, "developer", "Be brief."),
            message(1, "system", "s"),
            message(2, "user", "mixed up"),
            message(3, "assistant", "a"),
        ])),
    );
    // An answer as it was given comes back under its own name.
    check(
        json!([{
            "id": "msg_x_2", "type": "message", "role": "assistant", "status": "incomplete",
            "content": [
                {"type": "output_text", "text": "a", "annotations": [{"type": "file_path"}], "logprobs": [1]},
                {"type": "refusal", "refusal": "no"},
            ],
        }]),
        items(json!([{
            "id": "msg_x_2", "type": "message", "status": "incomplete", "role": "assistant",
            "content": [
                {"type": "output_text", "text": "a", "annotations": [], "logprobs": []},
                {"type": "refusal", "refusal": "no"},
            ],
        }])),
    );
    check(
        json!([
            {
                "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "id": "",
                "caller": {"type": "direct"},
            },
            {"type": "function_call_output", "call_id": "c", "output": "4", "id": null},
            {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "4"}]},
        ]),
        items(json!([
            {
                "id": "fc_s_0", "type": "function_call", "status": "completed", "call_id": "c", "name": "f",
                "arguments": "{}",
            },
            {"id": "fco_s_1", "type": "function_call_output", "status": "completed", "call_id": "c", "output": "4"},
            {
                "id": "fco_s_2", "type": "function_call_output", "status": "completed", "call_id": "c",
                "output": [{"type": "input_text", "text": "4"}],
            },
        ])),
    );
    check(
        json!([
            {"type": "reasoning", "id": "rs_x", "summary": [{"type": "summary_text", "text": "short"}]},
            {
                "type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "long"}],
                "encrypted_content": "?",
            },
        ]),
        items(json!([
            {
                "id": "rs_x", "type": "reasoning", "summary": [{"type": "summary_text", "text": "short"}],
                "content": [], "encrypted_content": null, "status": "completed",
            },
            {
                "id": "rs_s_1", "type": "reasoning", "summary": [],
                "content": [{"type": "reasoning_text", "text": "long"}], "encrypted_content": "?",
                "status": "completed",
            },
        ])),
    );
    let kept = json!([{"id": "msg_old_0", "type": "message", "kept": true}]);
    check(json!([{"type": "item_reference", "id": "msg_old_0"}]), items(kept.clone()));
    check(json!([{"id": "msg_old_0", "type": null}]), items(kept));
}

#[test]
fn what_nobody_knows_is_named() {
    check(
        json!([
            {"role": "user", "content": [{"type": "input_text", "text": "x", "loud": true}], "mood": 1, "none": null},
        ]),
        json!({"items": [message(0, "user", "x")], "ignored": ["input[0].content[0].loud", "input[0].mood"]}),
    );
}

#[test]
fn refusals_name_the_place() {
    let unsupported = "unsupported_parameter";
    let missing = "missing_required_parameter";
    for (input, param, message, code) in [
        (json!(1), "input", "`input` must be a string or a list of items", None),
        (json!(["x"]), "input[0]", "`input[0]` must be an object", None),
        (json!([{}]), "input[0].type", "the field `input[0].type` is missing", Some(missing)),
        (
            json!([{"type": "web_search_call"}]),
            "input[0].type",
            "`input[0].type` is not supported: items of type `web_search_call` cannot be read here",
            Some(unsupported),
        ),
        (json!([{"type": "message"}]), "input[0].role", "the field `input[0].role` is missing", Some(missing)),
        (
            json!([{"role": "tool", "content": "x"}]),
            "input[0].role",
            "`input[0].role` must be user, assistant, system or developer",
            None,
        ),
        (json!([{"role": "user"}]), "input[0].content", "the field `input[0].content` is missing", Some(missing)),
        (
            json!([{"role": "user", "content": 1}]),
            "input[0].content",
            "`input[0].content` must be a string or a list of parts",
            None,
        ),
        (
            json!([{"role": "user", "content": [{"type": "input_text", "text": "x"}, {"type": "input_image"}]}]),
            "input[0].content[1].type",
            "`input[0].content[1].type` is not supported: images cannot be read here, only text",
            Some(unsupported),
        ),
        (
            json!([{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]),
            "input[0].content[0].type",
            "`input[0].content[0].type` is not supported: files cannot be read here, only text: give their text",
            Some(unsupported),
        ),
        (
            json!([{"role": "user", "content": [{"type": "refusal", "refusal": "no"}]}]),
            "input[0].content[0].type",
            "`input[0].content[0].type` must be input_text",
            None,
        ),
        (
            json!([{"role": "assistant", "content": [{"type": "text", "text": "x"}]}]),
            "input[0].content[0].type",
            "`input[0].content[0].type` must be output_text or refusal",
            None,
        ),
        (
            json!([{"type": "function_call", "call_id": "c", "name": "f", "arguments": {}}]),
            "input[0].arguments",
            "`input[0].arguments` must be a string",
            None,
        ),
        (
            json!([{"type": "function_call", "call_id": "c", "name": "f", "arguments": "", "namespace": "n"}]),
            "input[0].namespace",
            "`input[0].namespace` is not supported: functions have plain names here",
            Some(unsupported),
        ),
        (
            json!([{"type": "function_call_output", "output": "x"}]),
            "input[0].call_id",
            "the field `input[0].call_id` is missing",
            Some(missing),
        ),
        (
            json!([{"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image"}]}]),
            "input[0].output[0].type",
            "`input[0].output[0].type` is not supported: images cannot be read here, only text",
            Some(unsupported),
        ),
        (
            json!([{"type": "reasoning", "summary": [{"type": "reasoning_text", "text": "x"}]}]),
            "input[0].summary[0].type",
            "`input[0].summary[0].type` must be summary_text",
            None,
        ),
        (
            json!([{"role": "user", "content": "x"}, {"type": "item_reference", "id": "msg_new_0"}]),
            "input[1].id",
            "no item `msg_new_0` is kept here: it is unknown, too old, or of `\"store\": false`",
            Some("item_not_found"),
        ),
    ] {
        check(input, json!([param, message, code]));
    }
}
