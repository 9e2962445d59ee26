//! Events of a stream, in their order.

use crate::dialects::{
    Event,
    responses::tests::{answering, completion},
};
use serde_json::{Value, json};

fn chunk(delta: Value, reason: Option<&str>, logprobs: Value) -> Value {
    json!({"choices": [{"index": 0, "delta": delta, "finish_reason": reason, "logprobs": logprobs}]})
}

fn usage(completion: &Value) -> Value {
    json!({"choices": [], "usage": completion["usage"]})
}

/// Events in short: what happened, to which item, what it says.
fn short(event: &Event) -> String {
    let data = &event.data;
    assert_eq!(event.name, data["type"].as_str());
    let name = event.name.unwrap().trim_start_matches("response.");
    let place = data["output_index"].as_u64().map_or(String::new(), |place| format!(" {place}"));
    let item = data["item_id"].as_str().or(data["item"]["id"].as_str()).map_or(String::new(), |id| format!(" {id}"));
    let said = ["delta", "text", "arguments", "message"].iter().find_map(|field| data[*field].as_str());
    let said = said.or(data["part"]["text"].as_str()).map_or(String::new(), |said| format!(" '{said}'"));
    let status = data["item"]["status"].as_str().or(data["response"]["status"].as_str());
    format!("{name}{place}{item}{said}{}", status.map_or(String::new(), |status| format!(" {status}")))
}

/// All events of these chunks, numbered from zero.
fn events(chunks: &[Value]) -> Vec<Event> {
    let mut answering = answering(json!({}));
    let mut events = answering.begin();
    events.extend(chunks.iter().flat_map(|chunk| answering.piece(chunk)).collect::<Vec<_>>());
    events.extend(answering.end());
    assert!(answering.end().is_empty() && answering.broken(&json!({})).is_empty(), "it has ended");
    assert!(answering.piece(&chunk(json!({"content": "late"}), None, json!(null))).is_empty(), "it has ended");
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event.data["sequence_number"], number, "{event:?}");
    }
    events
}

fn check(chunks: &[Value], expected: &[&str]) {
    let shown: Vec<String> = events(chunks).iter().map(short).collect();
    assert_eq!(shown, expected);
}

#[test]
fn events_come_in_order() {
    let delta = |delta: Value| chunk(delta, None, json!(null));
    let call = |index: u64, first: Option<(&str, &str)>, arguments: &str| {
        let mut call = json!({"index": index, "function": {"arguments": arguments}});
        if let Some((id, name)) = first {
            call["id"] = json!(id);
            call["type"] = json!("function");
            call["function"]["name"] = json!(name);
        }
        delta(json!({"tool_calls": [call]}))
    };
    check(
        &[
            delta(json!({"role": "assistant", "content": ""})),
            delta(json!({"reasoning_content": "h"})),
            delta(json!({"reasoning_content": "m"})),
            delta(json!({"content": "Hi"})),
            call(0, Some(("call_1", "f")), ""),
            call(0, None, "{"),
            call(0, None, "}"),
            call(1, Some(("call_2", "f")), "{}"),
            chunk(json!({}), Some("tool_calls"), json!(null)),
        ],
        &[
            "created in_progress",
            "in_progress in_progress",
            "output_item.added 0 rs_s_1 in_progress",
            "content_part.added 0 rs_s_1 ''",
            "reasoning_text.delta 0 rs_s_1 'h'",
            "reasoning_text.delta 0 rs_s_1 'm'",
            "reasoning_text.done 0 rs_s_1 'hm'",
            "content_part.done 0 rs_s_1 'hm'",
            "output_item.done 0 rs_s_1 completed",
            "output_item.added 1 msg_s_2 in_progress",
            "content_part.added 1 msg_s_2 ''",
            "output_text.delta 1 msg_s_2 'Hi'",
            "output_text.done 1 msg_s_2 'Hi'",
            "content_part.done 1 msg_s_2 'Hi'",
            "output_item.done 1 msg_s_2 completed",
            "output_item.added 2 fc_s_3 in_progress",
            "function_call_arguments.delta 2 fc_s_3 '{'",
            "function_call_arguments.delta 2 fc_s_3 '}'",
            "function_call_arguments.done 2 fc_s_3 '{}'",
            "output_item.done 2 fc_s_3 completed",
            "output_item.added 3 fc_s_4 in_progress",
            "function_call_arguments.delta 3 fc_s_4 '{}'",
            "function_call_arguments.done 3 fc_s_4 '{}'",
            "output_item.done 3 fc_s_4 completed",
            "completed completed",
        ],
    );
    let begun = ["created in_progress", "in_progress in_progress"];
    let cut = [
        "output_item.added 0 msg_s_1 in_progress",
        "content_part.added 0 msg_s_1 ''",
        "output_text.delta 0 msg_s_1 'a'",
        "output_text.done 0 msg_s_1 'a'",
        "content_part.done 0 msg_s_1 'a'",
        "output_item.done 0 msg_s_1 incomplete",
        "incomplete incomplete",
    ];
    check(&[chunk(json!({"content": "a"}), Some("length"), json!(null))], &[&begun[..], &cut].concat());
    let silent = [
        "output_item.added 0 msg_s_1 in_progress",
        "content_part.added 0 msg_s_1 ''",
        "output_text.done 0 msg_s_1 ''",
        "content_part.done 0 msg_s_1 ''",
        "output_item.done 0 msg_s_1 completed",
        "completed completed",
    ];
    check(&[chunk(json!({}), Some("stop"), json!(null))], &[&begun[..], &silent].concat());
    let lost = ["error 'the answer ended early (it does not say why)'", "failed failed"];
    check(&[], &[&begun[..], &lost].concat());
    let mixed = [
        "output_item.added 0 fc_s_1 in_progress",
        "function_call_arguments.delta 0 fc_s_1 '{'",
        "error 'a piece of a function call came without its beginning'",
        "failed failed",
    ];
    check(
        &[call(0, Some(("call_1", "f")), "{"), call(1, None, "}"), chunk(json!({}), Some("tool_calls"), json!(null))],
        &[&begun[..], &mixed].concat(),
    );
}

#[test]
fn a_stream_that_breaks_says_why() {
    for (error, code, told) in [
        (
            json!({"error": {"message": "x", "type": "server_error", "code": "engine_stopped"}}),
            "server_error",
            "engine_stopped",
        ),
        (json!({"message": "x", "type": "server_error", "code": null}), "server_error", "server_error"),
        (json!({"message": "x", "type": "rate_limit_error"}), "rate_limit_exceeded", "rate_limit_exceeded"),
        (json!({"message": "x", "type": "invalid_request_error", "param": "p"}), "invalid_prompt", "invalid_prompt"),
    ] {
        let mut answering = answering(json!({}));
        answering.begin();
        answering.piece(&chunk(json!({"content": "a"}), None, json!(null)));
        let events = answering.broken(&error);
        assert_eq!(events.iter().map(short).collect::<Vec<_>>(), ["error 'x'", "failed failed"]);
        assert_eq!((&events[0].data["code"], &events[0].data["sequence_number"]), (&json!(told), &json!(5)));
        let response = &events[1].data["response"];
        assert_eq!(response["error"], json!({"code": code, "message": "x"}));
        assert_eq!(
            (&response["output"][0]["status"], &response["output"][0]["content"][0]["text"]),
            (&json!("incomplete"), &json!("a"))
        );
        assert!(answering.end().is_empty() && answering.broken(&error).is_empty());
    }
}

fn scored(token: &str) -> Value {
    let top = json!({"token": token, "logprob": -0.5, "bytes": null});
    json!({"token": token, "logprob": -0.5, "bytes": token.as_bytes(), "top_logprobs": [top]})
}

/// Chunks of a message, text in pieces of this many characters.
fn cut(message: &Value, logprobs: bool, size: usize, reason: &str) -> Vec<Value> {
    let pieces = |text: &Value| {
        let letters: Vec<char> = text.as_str().unwrap_or_default().chars().collect();
        letters.chunks(size).map(|piece| piece.iter().collect::<String>()).collect::<Vec<_>>()
    };
    let mut chunks = vec![chunk(json!({"role": "assistant", "content": ""}), None, json!(null))];
    for piece in pieces(&message["reasoning_content"]) {
        // Thoughts have scores too, which belong to no text of the answer.
        let scores = if logprobs { json!({"content": [scored("thought")]}) } else { json!(null) };
        chunks.push(chunk(json!({"reasoning_content": piece}), None, scores));
    }
    for piece in pieces(&message["content"]) {
        let scores: Vec<Value> = piece.chars().map(|letter| scored(&letter.to_string())).collect();
        let scores = if logprobs { json!({"content": scores}) } else { json!(null) };
        chunks.push(chunk(json!({"content": piece}), None, scores));
    }
    for (index, call) in message["tool_calls"].as_array().into_iter().flatten().enumerate() {
        let mut first = call.clone();
        first["index"] = json!(index);
        first["function"]["arguments"] = json!("");
        chunks.push(chunk(json!({"tool_calls": [first]}), None, json!(null)));
        for piece in pieces(&call["function"]["arguments"]) {
            let call = json!({"index": index, "function": {"arguments": piece}});
            chunks.push(chunk(json!({"tool_calls": [call]}), None, json!(null)));
        }
    }
    chunks.push(chunk(json!({}), Some(reason), json!(null)));
    chunks
}

#[test]
fn scores_go_with_the_text() {
    let scores = |token: &str| json!({"content": [scored(token)]});
    let chunks = [
        chunk(json!({"reasoning_content": "h"}), None, scores("h")),
        chunk(json!({"reasoning_content": "m", "content": "A"}), None, scores("A")),
        chunk(json!({"content": ""}), None, scores("held back")),
        chunk(json!({"content": "B"}), None, scores("B")),
        chunk(json!({"tool_calls": [{"index": 0, "function": {"name": "f"}}]}), None, scores("f")),
        chunk(json!({"content": "C"}), None, scores("C")),
        chunk(json!({}), Some("stop"), scores("end")),
    ];
    let events = events(&chunks);
    let tokens = |logprobs: &Value| -> Vec<String> {
        logprobs.as_array().unwrap().iter().map(|token| token["token"].as_str().unwrap().to_string()).collect()
    };
    let deltas = events.iter().filter(|event| event.name == Some("response.output_text.delta"));
    let deltas: Vec<_> = deltas.map(|event| tokens(&event.data["logprobs"])).collect();
    assert_eq!(deltas, [vec!["A"], vec!["held back", "B"], vec!["C"]]);
    let output = &events.last().unwrap().data["response"]["output"];
    for (item, text, scores) in [(1, "AB", &["A", "held back", "B"][..]), (3, "C", &["C", "end"])] {
        let done = &output[item]["content"][0];
        assert_eq!(done["text"], text);
        assert_eq!(tokens(&done["logprobs"]), scores);
    }
}

#[test]
fn pieces_add_up_to_the_whole() {
    let call = |id: &str| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{\"ä\": 1}"}});
    for (message, logprobs) in [
        (json!({"content": "Grüße!"}), false),
        (json!({"content": "Grüße!"}), true),
        (json!({"content": "Hi", "reasoning_content": "hm, \u{1f600}"}), false),
        (json!({"content": "Hi", "reasoning_content": "hm"}), true),
        (json!({"content": null, "reasoning_content": "only thoughts"}), false),
        (json!({"content": null, "tool_calls": [call("1"), call("2")]}), false),
        (json!({"content": "Hi", "reasoning_content": "hm", "tool_calls": [call("1")]}), false),
        (json!({"content": "Hi", "tool_calls": [call("1"), {"function": {"name": "f", "arguments": "{}"}}]}), false),
        (json!({"content": ""}), false),
    ] {
        for reason in ["stop", "tool_calls", "length", "abort"] {
            let mut completion = completion(message.clone(), reason);
            if logprobs {
                let text = message["content"].as_str().unwrap();
                completion["choices"][0]["logprobs"] =
                    json!({"content": text.chars().map(|letter| scored(&letter.to_string())).collect::<Vec<_>>()});
            }
            let whole = answering(json!({})).whole(&completion);
            for size in 1..9 {
                let mut chunks = cut(&message, logprobs, size, reason);
                chunks.push(usage(&completion));
                let events = events(&chunks);
                assert_eq!(events.last().unwrap().data["response"], whole, "{message} {reason} {size}");
                // Pieces of one kind add up to what is said when they are done, scores too.
                for event in events.iter().filter(|event| event.data["item_id"].is_string()) {
                    let Some(kind) = event.name.unwrap().strip_suffix(".done") else { continue };
                    let of_it = |other: &&Event| {
                        other.data["item_id"] == event.data["item_id"] && other.name.unwrap() == format!("{kind}.delta")
                    };
                    let said: String =
                        events.iter().filter(of_it).map(|piece| piece.data["delta"].as_str().unwrap()).collect();
                    let done = event.data["text"].as_str().or(event.data["arguments"].as_str());
                    assert!(done.is_none_or(|done| done == said), "{event:?}");
                    let scores = |event: &Event| event.data["logprobs"].as_array().cloned().unwrap_or_default();
                    assert_eq!(events.iter().filter(of_it).flat_map(scores).collect::<Vec<_>>(), scores(event));
                }
            }
        }
    }
}
