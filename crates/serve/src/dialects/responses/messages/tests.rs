//! Items as the messages of a chat.

use super::*;

/// Items in short: `[role, text…]`, `["think", text…]`, `["short", text]`, `["call", id]`, `["gave", id, text]`.
fn item(short: &Value) -> Value {
    let words: Vec<&str> = short.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    let parts = |kind: &str, texts: &[&str]| -> Value {
        texts.iter().map(|text| json!({"type": kind, "text": text})).collect()
    };
    match words[0] {
        "think" => json!({"type": "reasoning", "summary": [], "content": parts("reasoning_text", &words[1..])}),
        "short" => json!({"type": "reasoning", "summary": parts("summary_text", &words[1..]), "content": []}),
        "call" => json!({"type": "function_call", "call_id": words[1], "name": "f", "arguments": "{\"a\": 1}"}),
        "gave" => json!({"type": "function_call_output", "call_id": words[1], "output": words[2]}),
        role => json!({"type": "message", "role": role, "content": parts("output_text", &words[1..])}),
    }
}

fn check(instructions: Option<&str>, items: Value, expected: Value) {
    let items: Vec<Value> = items.as_array().unwrap().iter().map(item).collect();
    let shown = match messages(instructions, &items) {
        Ok(messages) => Value::Array(messages),
        Err(error) => crate::testing::object_of(&error)["error"]["message"].take(),
    };
    assert_eq!(shown, expected, "{items:?}");
}

fn call(id: &str) -> Value {
    json!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}})
}

fn gave(id: &str, text: &str) -> Value {
    json!({"role": "tool", "tool_call_id": id, "content": text})
}

#[test]
fn items_that_stand_together_are_one_message() {
    let user = json!({"role": "user", "content": "u"});
    check(Some("i"), json!([["user", "u"]]), json!([{"role": "system", "content": "i"}, user]));
    check(
        None,
        json!([["developer", "d"], ["user", "u", "v"]]),
        json!([
            {"role": "developer", "content": "d"},
            {"role": "user", "content": [{"type": "text", "text": "u"}, {"type": "text", "text": "v"}]},
        ]),
    );
    check(
        None,
        json!([
            ["user", "u"],
            ["think", "t", "t2"],
            ["assistant", "a"],
            ["call", "1"],
            ["call", "2"],
            ["gave", "2", "y"],
            ["gave", "1", "x"],
            ["short", "s"],
            ["assistant", "b"],
            ["user", "u"],
        ]),
        json!([
            user,
            {"role": "assistant", "content": "a", "reasoning_content": "t\nt2", "tool_calls": [call("1"), call("2")]},
            gave("2", "y"), gave("1", "x"),
            {"role": "assistant", "content": "b", "reasoning_content": "s"},
            user,
        ]),
    );
    // What calls gave must follow them: nothing of the model's own comes between.
    check(
        None,
        json!([
            ["think", "t"],
            ["call", "1"],
            ["think", "s"],
            ["call", "2"],
            ["assistant", "a"],
            ["gave", "1", "x"],
            ["gave", "2", "y"]
        ]),
        json!([
            {"role": "assistant", "content": "a", "reasoning_content": "t\ns", "tool_calls": [call("1"), call("2")]},
            gave("1", "x"), gave("2", "y"),
        ]),
    );
    check(
        None,
        json!([["assistant", "a"], ["call", "1"], ["assistant", "b"], ["gave", "1", "x"]]),
        json!([
            {
                "role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
                "tool_calls": [call("1")],
            },
            gave("1", "x"),
        ]),
    );
    check(
        None,
        json!([["call", "1"], ["gave", "1", ""]]),
        json!([{"role": "assistant", "content": null, "tool_calls": [call("1")]}, gave("1", "")]),
    );
    // Two answers stay two, and thoughts of the second are not those of the first.
    check(
        None,
        json!([["assistant", "a"], ["assistant", "b"], ["think", "t"], ["assistant", "c"]]),
        json!([
            {"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"},
            {"role": "assistant", "content": "c", "reasoning_content": "t"},
        ]),
    );
    // Thoughts without an answer, and without words.
    check(None, json!([["think", "t"], ["user", "u"], ["think", "t"]]), json!([user,]));
    check(None, json!([["think"], ["assistant", "a"]]), json!([{"role": "assistant", "content": "a"}]));
    check(None, json!([["assistant", ""]]), json!([{"role": "assistant", "content": ""}]));
}

#[test]
fn nothing_is_given_without_a_call() {
    for items in [json!([["gave", "1", "x"]]), json!([["gave", "1", "x"], ["call", "1"]])] {
        check(None, items, json!("the conversation has no function call `1` before what it gave"));
    }
}
