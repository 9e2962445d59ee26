//! Conversations with tools, thoughts and forms, through a script in the engine's place.

use crate::testing::{self, answer, byte_tokens, describe, post};
use axum::Router;
use narthex_infer::{
    Allowed, Request,
    scripted::{Scripted, say},
};
use narthex_text::ChatTemplate;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

const PATH: &str = "/v1/chat/completions";

/// A template of the family that Qwen's models have: tools, thoughts, calls.
const TEMPLATE: &str = "{% if tools %}T{{ tools | length }}{% endif %}{% for m in messages %}[{{ m.role }}:{{ m.content }}\
    {% for c in m.tool_calls or [] %}<tool_call>{\"name\": \"{{ c.function.name }}\", \"arguments\": \
    {{ c.function.arguments | tojson }}}</tool_call>{% endfor %}]{% endfor %}\
    {% if add_generation_prompt %}A:{% if think %}<think>{% endif %}{% endif %}{# </think> #}";

/// A router over a model with this template that says this, and what the engine was asked.
fn saying(template: &str, said: &str) -> (Router, Arc<Scripted>) {
    let tokens = byte_tokens(said.as_bytes());
    let engine = Arc::new(Scripted::new(move |request: &Request| say(request, &tokens)).with_context(2000));
    let mut model = testing::model_of(engine.clone());
    testing::text(&mut model).model.template = Some(ChatTemplate::new(template, None, None).unwrap());
    (testing::router_over(model), engine)
}

fn ask(more: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn tool(name: &str) -> Value {
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]});
    json!({"type": "function", "function": {"name": name, "parameters": schema}})
}

/// Message and reason of an answer; the same from a stream of it must be the same but for the calls' names.
async fn both(router: &Router, body: Value) -> (Value, String) {
    let whole = post(router, PATH, &body).await.json(200)["choices"][0].clone();
    let mut streamed = body;
    streamed["stream"] = true.into();
    let (mut text, mut thought, mut calls, mut reason) = (String::new(), String::new(), vec![], String::new());
    for event in post(router, PATH, &streamed).await.events() {
        let choice = &event["choices"][0];
        text += choice["delta"]["content"].as_str().unwrap_or("");
        thought += choice["delta"]["reasoning_content"].as_str().unwrap_or("");
        for call in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
            if let Some(name) = call["function"]["name"].as_str() {
                assert_eq!(call["index"], calls.len(), "{call}");
                assert!(call["id"].as_str().is_some_and(|id| !id.is_empty()) && call["type"] == "function", "{call}");
                calls.push((name.to_string(), String::new()));
            }
            calls.last_mut().unwrap().1 += call["function"]["arguments"].as_str().unwrap();
        }
        reason += choice["finish_reason"].as_str().unwrap_or("");
    }
    let message = whole["message"].clone();
    assert_eq!(message["content"].as_str().unwrap_or(""), text);
    assert_eq!(message["reasoning_content"].as_str().unwrap_or(""), thought);
    let whole_calls: Vec<(String, String)> = message["tool_calls"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|call| {
            let function = &call["function"];
            (function["name"].as_str().unwrap().into(), function["arguments"].as_str().unwrap().into())
        })
        .collect();
    assert_eq!(whole_calls, calls);
    assert_eq!(whole["finish_reason"], reason.as_str());
    (message, reason)
}

#[tokio::test]
async fn calls_are_parsed_by_the_template_of_the_model() {
    let said = "Let me see.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>";
    let (router, engine) = saying(TEMPLATE, said);
    let (message, reason) = both(&router, ask(json!({"tools": [tool("f")]}))).await;
    assert_eq!((&message["content"], reason.as_str()), (&json!("Let me see."), "tool_calls"));
    assert_eq!(message["tool_calls"][0]["function"], json!({"name": "f", "arguments": "{\"a\": 1}"}));
    let request = engine.requests().pop().unwrap();
    assert!(testing::tokenizer().decode(&request.prompt, false).unwrap().starts_with("T1[user:hi]"));
    assert!(request.constraint.is_some(), "calls are held to their schemas");
    // A tool that is named is not why the answer ends; without tools, the same is text.
    let named = json!({"tools": [tool("f")], "tool_choice": {"type": "function", "function": {"name": "f"}}});
    assert_eq!(both(&router, ask(named)).await.1, "stop");
    let (message, reason) = both(&router, ask(json!({"tools": [tool("f")], "tool_choice": "none"}))).await;
    assert_eq!((&message["content"], reason.as_str()), (&json!(said), "stop"));
    assert!(engine.requests().pop().unwrap().constraint.is_none());
    // The conversation goes on with the call and its result.
    let call = json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}});
    let messages = json!([
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "2"},
    ]);
    post(&router, PATH, &json!({"messages": messages, "tools": [tool("f")]})).await.json(200);
    let prompt = testing::tokenizer().decode(&engine.requests().pop().unwrap().prompt, false).unwrap();
    assert_eq!(
        prompt,
        "T1[user:hi][assistant:<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>][tool:2]A:"
    );
}

#[tokio::test]
async fn templates_without_tools_get_a_list() {
    let said = "[{\"name\": \"f\", \"arguments\": {\"a\": 1}}]";
    let (router, engine) = saying(narthex_text::CHATML, said);
    let (message, reason) = both(&router, ask(json!({"tools": [tool("f")], "tool_choice": "required"}))).await;
    assert_eq!((message["tool_calls"].as_array().unwrap().len(), reason.as_str()), (1, "tool_calls"));
    let prompt = testing::tokenizer().decode(&engine.requests().pop().unwrap().prompt, false).unwrap();
    assert!(prompt.starts_with("<|im_start|>system\nYou can call these tools:\n{\"name\":\"f\""), "{prompt}");
}

#[tokio::test]
async fn thoughts_come_beside_the_answer() {
    let (router, _) = saying(TEMPLATE, "\nwell\n</think>\n\nYes.");
    let think = json!({"chat_template_kwargs": {"think": true}});
    let (message, _) = both(&router, ask(think.clone())).await;
    assert_eq!((&message["reasoning_content"], &message["content"]), (&json!("well"), &json!("Yes.")));
    assert_eq!(message["reasoning"], message["reasoning_content"]);
    let mut silent = think;
    silent["include_reasoning"] = false.into();
    let (message, _) = both(&router, ask(silent)).await;
    assert_eq!((message.get("reasoning_content"), &message["content"]), (None, &json!("Yes.")));
    // The model may begin by itself.
    let (router, _) = saying(TEMPLATE, "<think>\nwell</think>Yes.");
    let (message, _) = both(&router, ask(json!({}))).await;
    assert_eq!((&message["reasoning_content"], &message["content"]), (&json!("well"), &json!("Yes.")));
}

/// The first byte that a request's constraint lets pass.
fn first_bytes(request: &Request) -> Vec<u8> {
    let mut state = request.constraint.as_ref().unwrap().begin();
    match state.allowed(&[]).unwrap().remove(0) {
        Allowed::Anything => vec![],
        Allowed::Only { tokens, .. } => {
            let tokenizer = testing::tokenizer();
            (3..259).filter(|id| tokens.contains(*id)).flat_map(|id| tokenizer.token_bytes(id).unwrap()).collect()
        }
    }
}

#[tokio::test]
async fn the_form_of_an_answer_reaches_the_engine() {
    let asked: Arc<Mutex<Vec<Request>>> = Arc::default();
    let (router, engine) = saying(TEMPLATE, "{}");
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}});
    post(&router, PATH, &ask(json!({"response_format": format}))).await.json(200);
    post(&router, PATH, &ask(json!({"structured_outputs": {"choice": ["b", "c"]}}))).await.json(200);
    // Either a call, or an answer in the form.
    let both = json!({"response_format": format, "tools": [tool("f")]});
    post(&router, PATH, &ask(both)).await.json(200);
    asked.lock().unwrap().extend(engine.requests());
    let found: Vec<Vec<u8>> = asked.lock().unwrap().iter().map(first_bytes).collect();
    assert_eq!(found, [b"{".to_vec(), b"bc".to_vec(), b"<{".to_vec()]);
    let named = json!({
        "response_format": format, "tools": [tool("f")],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
    });
    let error = post(&router, PATH, &ask(named)).await.json(400);
    assert_eq!(error["error"]["param"], "tool_choice", "{error}");
}

#[tokio::test]
async fn a_schema_that_cannot_be_honoured_is_refused_by_name() {
    let router = testing::router(answer("x"));
    for (more, expected) in [
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}}}),
            "response_format: `response_format` cannot be honoured: Invalid type: nonsense",
        ),
        (
            json!({"structured_outputs": {"regex": "("}}),
            "structured_outputs.regex: `structured_outputs.regex` cannot be honoured:",
        ),
        (
            json!({"tools": [{"function": {"name": "f", "strict": true, "parameters": {"not": {}}}}]}),
            "tools[0].function.parameters: `tools[0].function.parameters` cannot be honoured: the keyword `not`",
        ),
    ] {
        let error = post(&router, PATH, &ask(more)).await.json(400);
        assert!(describe(&error).starts_with(expected), "{error}");
    }
    // A tool that is not strict is taken with any object.
    let loose = json!({"tools": [{"function": {"name": "f", "parameters": {"not": {}}}}], "max_tokens": 1});
    let (router, _) = saying(TEMPLATE, "x");
    post(&router, PATH, &ask(loose)).await.json(200);
}

#[tokio::test]
async fn an_answer_can_be_continued() {
    let (router, engine) = saying(narthex_text::CHATML, " world");
    let messages = json!([{"role": "user", "content": "say"}, {"role": "assistant", "content": "hello "}]);
    let body =
        json!({"messages": messages, "continue_final_message": true, "add_generation_prompt": false, "echo": true});
    let reply = post(&router, PATH, &body).await.json(200);
    assert_eq!(reply["choices"][0]["message"]["content"], "hello  world");
    let prompt = testing::tokenizer().decode(&engine.requests().pop().unwrap().prompt, false).unwrap();
    assert!(prompt.ends_with("<|im_start|>assistant\nhello "), "{prompt}");
    let mut wrong = body;
    wrong["add_generation_prompt"] = true.into();
    assert_eq!(post(&router, PATH, &wrong).await.json(400)["error"]["param"], "continue_final_message");
}
