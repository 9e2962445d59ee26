//! Responses: items, stream events, approvals, conversations.

use crate::testing::{fresh, get, of, post, send, with};
use serde_json::{Value, json};

const PATH: &str = "/v1/responses";

fn asks(agent: &str, input: &str) -> Value {
    json!({"model": agent, "input": input})
}

/// Kinds of items with what they say.
fn items(response: &Value) -> Vec<(String, String)> {
    let of = |item: &Value| {
        let said = item["content"][0]["text"].as_str().or(item["output"].as_str()).or(item["arguments"].as_str());
        (item["type"].as_str().unwrap().to_string(), said.unwrap_or_default().to_string())
    };
    response["output"].as_array().unwrap().iter().map(of).collect()
}

fn shown(kinds: &[(&str, &str)]) -> Vec<(String, String)> {
    kinds.iter().map(|(kind, said)| (kind.to_string(), said.to_string())).collect()
}

#[tokio::test]
async fn streams_whole_answers_and_later_looks_agree() {
    for (agent, status, expected) in [
        ("echo", "completed", shown(&[("message", "you said: a")])),
        (
            "looker",
            "completed",
            shown(&[
                ("reasoning", "hm"),
                ("message", "let me look"),
                ("mcp_call", "a cat"),
                ("message", "it is a cat"),
            ]),
        ),
        ("former", "completed", shown(&[("message", "{\"colour\":\"red\"}")])),
        ("limited", "incomplete", shown(&[("message", "so far")])),
        ("failing", "failed", shown(&[])),
    ] {
        let (_, router) = fresh();
        let mut whole = post(&router, PATH, &asks(agent, "a")).await.json(200);
        assert_eq!((whole["status"].as_str().unwrap(), items(&whole)), (status, expected), "{whole}");
        let id = whole["id"].as_str().unwrap().to_string();
        assert_eq!(id, "resp_run-1_0");
        assert_eq!(get(&router, &format!("{PATH}/{id}")).await.json(200), whole);
        let mut body = asks(agent, "a");
        body["stream"] = json!(true);
        let events = post(&router, PATH, &body).await.events();
        for (number, (_, name, event)) in events.iter().enumerate() {
            assert_eq!((name.as_deref(), &event["sequence_number"]), (event["type"].as_str(), &json!(number)));
        }
        assert_eq!(events[0].1.as_deref(), Some("response.created"));
        let mut last = events.last().unwrap().2["response"].clone();
        // It is another run at another time.
        let same =
            |value: &Value| -> Value { serde_json::from_str(&value.to_string().replace("run-2", "run-1")).unwrap() };
        (whole["narthex"], last["narthex"]) = (Value::Null, Value::Null);
        assert_eq!(same(&last)["output"], whole["output"]);
        let done: Vec<Value> = events
            .iter()
            .filter(|(_, name, _)| name.as_deref() == Some("response.output_item.done"))
            .map(|(.., event)| event["item"].clone())
            .collect();
        let mut output = last["output"].as_array().unwrap().clone();
        // Items are done in the order in which they end.
        output.sort_by_key(|item| done.iter().position(|known| known == item));
        assert_eq!(done, output);
    }
}

#[tokio::test]
async fn approvals_are_items_and_answers_go_on() {
    for (approve, result) in [(true, "done for local"), (false, "refused by local: no")] {
        let (_, router) = fresh();
        let first = post(&router, PATH, &asks("mailer", "a")).await.json(200);
        let output = first["output"].as_array().unwrap();
        assert!(output[0]["content"][0]["text"].as_str().unwrap().contains("run-1 waits"));
        let arguments = "{\"to\":\"anna\",\"text\":\"a\"}";
        let request = json!({"id": "i1", "type": "mcp_approval_request", "server_label": "narthex",
            "name": "mail.send", "arguments": arguments});
        assert_eq!((&output[1], &first["status"]), (&request, &json!("completed")));
        let answer =
            json!({"type": "mcp_approval_response", "approval_request_id": "i1", "approve": approve, "reason": "no"});
        let body = json!({"model": "mailer", "previous_response_id": first["id"], "input": [answer]});
        let second = post(&router, PATH, &body).await.json(200);
        let said = items(&second);
        assert_eq!(said.last().unwrap().1, "that is all");
        assert_eq!(said.len(), if approve { 2 } else { 1 }, "{said:?}");
        assert_ne!(second["id"], first["id"]);
        let run = get(&router, "/agents/runs/run-1").await.json(200);
        assert_eq!(run["messages"][2]["content"], result);
        // Both can be looked at again; the first waits for nothing now.
        let path = format!("{PATH}/{}", second["id"].as_str().unwrap());
        assert_eq!(get(&router, &path).await.json(200), second);
        let path = format!("{PATH}/{}", first["id"].as_str().unwrap());
        let again = get(&router, &path).await.json(200);
        assert_eq!((&again["status"], items(&again)), (&json!("completed"), vec![]));
    }
}

#[tokio::test]
async fn conversations_go_on() {
    let (agents, router) = fresh();
    let first = post(&router, PATH, &asks("echo", "a")).await.json(200);
    let mut body = asks("echo", "b");
    body["previous_response_id"] = first["id"].clone();
    body["metadata"] = json!({"x": "1"});
    let second = post(&router, PATH, &body).await.json(200);
    assert_eq!(agents.asked().thread.as_deref(), Some("thread-1"));
    assert_eq!((&second["previous_response_id"], &second["metadata"]), (&first["id"], &json!({"x": "1"})));
    let opened = post(&router, "/v1/conversations", &json!({})).await.json(200);
    body = asks("echo", "c");
    body["conversation"] = json!({"id": opened["id"]});
    post(&router, PATH, &body).await.json(200);
    assert_eq!(agents.asked().thread.as_deref(), opened["id"].as_str());
}

#[tokio::test]
async fn background_runs_are_looked_at_and_cancelled() {
    let (agents, router) = fresh();
    let mut body = asks("slow", "a");
    body["background"] = json!(true);
    let first = post(&router, PATH, &body).await.json(200);
    let path = format!("{PATH}/{}", first["id"].as_str().unwrap());
    assert_eq!(first["status"], "in_progress");
    assert_eq!(get(&router, &path).await.json(200)["status"], "in_progress");
    agents.release();
    let done = get(&router, &path).await.json(200);
    assert_eq!((&done["status"], items(&done)), (&json!("completed"), shown(&[("message", "at last")])));
    post(&router, &format!("{path}/cancel"), &json!({})).await.error(409);
    let second = post(&router, PATH, &body).await.json(200);
    let cancelled = post(&router, &format!("{PATH}/{}/cancel", second["id"].as_str().unwrap()), &json!({})).await;
    assert_eq!(cancelled.json(200)["status"], "cancelled");
}

#[tokio::test]
async fn unknown_and_foreign_responses_do_not_exist() {
    let (_, router) = fresh();
    send(&router, of("anna", with("POST", PATH, &asks("echo", "a")))).await.json(200);
    for id in ["x", "resp_", "resp_run-1", "resp_run-1_x", "resp_run-9_0", "resp_run-1_99", "resp_run-1_0"] {
        let error = get(&router, &format!("{PATH}/{id}")).await.error(404);
        assert_eq!(error, format!("there is no response `{id}`"));
    }
    let request = axum::http::Request::get(format!("{PATH}/resp_run-1_0")).body(axum::body::Body::empty()).unwrap();
    send(&router, of("anna", request)).await.json(200);
    let answer = json!([{"type": "mcp_approval_response", "approval_request_id": "i1", "approve": true}]);
    let error = post(&router, PATH, &json!({"model": "mailer", "input": answer})).await.error(400);
    assert!(error.contains("needs `previous_response_id`"), "{error}");
}
