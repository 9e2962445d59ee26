//! Chat completions and models.

use crate::testing::{fake::Fake, fresh, get, of, post, send, served, with};
use narthex_base::chat::{Message, Role};
use serde_json::{Value, json};
use std::sync::Arc;

const PATH: &str = "/v1/chat/completions";

fn asks(agent: &str) -> Value {
    json!({"model": agent, "messages": [{"role": "user", "content": "hello there"}]})
}

/// The texts of a stream, and its last chunk.
fn streamed(events: &[crate::testing::Told]) -> (Vec<String>, Value) {
    assert_eq!(events.last().unwrap().2, "[DONE]");
    let chunks = &events[..events.len() - 1];
    let text =
        |(.., chunk): &crate::testing::Told| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_string);
    (chunks.iter().filter_map(text).filter(|text| !text.is_empty()).collect(), chunks.last().unwrap().2.clone())
}

#[tokio::test]
async fn agents_answer_whole_and_in_pieces_alike() {
    for (agent, expected, finish, status) in [
        ("echo", "you said: hello there", "stop", "done"),
        ("looker", "let me look\n\nit is a cat", "stop", "done"),
        ("former", "{\"colour\":\"red\"}", "stop", "done"),
        ("limited", "so far", "length", "limited"),
    ] {
        for agents in [Fake::new(), Fake::late()] {
            let router = served(&Arc::new(agents));
            let whole = post(&router, PATH, &asks(agent)).await.json(200);
            let choice = &whole["choices"][0];
            assert_eq!((&choice["message"]["content"], &choice["finish_reason"]), (&json!(expected), &json!(finish)));
            assert_eq!(whole["narthex"]["status"], status);
            let mut body = asks(agent);
            body["stream"] = json!(true);
            let (texts, last) = streamed(&post(&router, PATH, &body).await.events());
            assert_eq!((texts.concat().as_str(), &last["choices"][0]["finish_reason"]), (expected, &json!(finish)));
            assert_eq!(last["narthex"]["status"], status);
        }
    }
    let (_, router) = fresh();
    let mut body = asks("echo");
    body["stream"] = json!(true);
    let (texts, _) = streamed(&post(&router, PATH, &body).await.events());
    assert_eq!(texts, ["you ", "said: ", "hello ", "there"]);
}

#[tokio::test]
async fn what_waits_is_told_and_answered() {
    let (_, router) = fresh();
    let whole = post(&router, PATH, &asks("mailer")).await.json(200);
    let text = whole["choices"][0]["message"]["content"].as_str().unwrap();
    for part in ["run-1 waits", "i1: may `mail.send`", "{\"to\":\"anna\"", "POST /agents/runs/run-1/answers"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(whole["choices"][0]["finish_reason"], "stop");
    assert_eq!(whole["narthex"]["interrupts"][0]["id"], "i1");
    let answers = json!([{"interrupt": "i1", "approve": true, "by": "otto"}]);
    let rest = json!({"model": "mailer", "narthex": {"run": "run-1", "answers": answers}});
    let whole = post(&router, PATH, &rest).await.json(200);
    assert_eq!(whole["choices"][0]["message"]["content"], "that is all");
    assert_eq!(whole["narthex"]["status"], "done");
    let run = get(&router, "/agents/runs/run-1").await.json(200);
    assert_eq!(run["messages"][2]["content"], "done for otto (local)");
    assert!(post(&router, PATH, &rest).await.error(409).contains("has ended"));
}

#[tokio::test]
async fn all_that_a_client_says_is_asked() {
    let (agents, router) = fresh();
    let messages = json!([{"role": "system", "content": "be kind"}, {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]);
    let mut body = json!({"model": "echo", "messages": messages, "metadata": {"x": "1"}});
    post(&router, PATH, &body).await.json(200);
    let said = |role, text: &str| Message::new(role, text);
    let (user, own) = (Role::User, Role::Assistant);
    assert_eq!(agents.asked().messages, [said(user, "be kind"), said(user, "a"), said(own, "b"), said(user, "c")]);
    assert_eq!((agents.asked().thread, agents.asked().metadata["x"].clone()), (None, json!("1")));
    body["narthex"] = json!({"thread": "t"});
    post(&router, PATH, &body).await.json(200);
    assert_eq!((agents.asked().messages, agents.asked().thread), (vec![said(user, "c")], Some("t".into())));
}

#[tokio::test]
async fn the_same_key_is_one_run() {
    let (agents, router) = fresh();
    for _ in 0..2 {
        let mut request = with("POST", PATH, &asks("echo"));
        request.headers_mut().insert("idempotency-key", "k".parse().unwrap());
        let whole = send(&router, request).await.json(200);
        assert_eq!(whole["choices"][0]["message"]["content"], "you said: hello there");
    }
    assert_eq!(agents.count(), 1);
}

#[tokio::test]
async fn failures_and_wrong_requests_are_named() {
    let (_, router) = fresh();
    let changed = |field: &str, value: Value| {
        let mut body = asks("echo");
        body[field] = value;
        body
    };
    for (body, status, expected) in [
        (asks("failing"), 422, "the run run-1 failed: the model is gone"),
        (asks("ecco"), 404, "there is no agent `ecco`: did you mean `echo`?"),
        (json!({"messages": []}), 400, "the field `model` is missing"),
        (json!({"model": "echo"}), 400, "the field `messages` is missing"),
        (json!({"model": "echo", "messages": []}), 400, "say something: `messages` is empty"),
        (
            changed("tools", json!([{"type": "function"}])),
            400,
            "`tools` cannot be chosen by a request: an agent has tools",
        ),
        (changed("response_format", json!({"type": "json_object"})), 400, "`response_format` cannot be chosen"),
        (changed("n", json!(2)), 400, "`n` is not supported yet"),
        (changed("narthex", json!({"run": "run-9"})), 404, "there is no run `run-9`"),
        (changed("narthex", json!({"run": "run-1", "answers": 1})), 400, "`narthex.answers` must be a list"),
    ] {
        let error = post(&router, PATH, &body).await.error(status);
        assert!(error.starts_with(expected), "{body}: {error}");
    }
    let reply = post(&router, PATH, &changed("temperature", json!(0.5))).await;
    assert_eq!(reply.header("x-narthex-ignored"), "temperature");
    let (_, router) = fresh();
    let mut body = asks("failing");
    body["stream"] = json!(true);
    let events = post(&router, PATH, &body).await.events();
    let (error, done) = (&events[events.len() - 2].2, &events[events.len() - 1].2);
    assert_eq!((&error["error"]["code"], done), (&json!("run_failed"), &json!("[DONE]")));
}

#[tokio::test]
async fn tenants_see_their_own_runs() {
    let (agents, router) = fresh();
    send(&router, of("anna", with("POST", PATH, &asks("mailer")))).await.json(200);
    assert_eq!(agents.asked().tenant, "anna");
    let rest = json!({"model": "mailer", "narthex": {"run": "run-1"}});
    send(&router, of("otto", with("POST", PATH, &rest))).await.error(404);
    send(&router, of("anna", with("POST", PATH, &rest))).await.json(200);
}

#[tokio::test]
async fn models_are_the_agents() {
    let (_, router) = fresh();
    let list = get(&router, "/v1/models").await.json(200);
    assert_eq!((list["data"].as_array().unwrap().len(), &list["data"][0]["id"]), (9, &json!("echo")));
    assert_eq!(get(&router, "/v1/models/former").await.json(200)["object"], "model");
    get(&router, "/v1/models/none").await.error(404);
}
