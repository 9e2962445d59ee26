//! The Agent Protocol, as LangGraph's clients use it.

use crate::testing::{Told, fresh, get, of, post, send, with};
use axum::{Router, body::Body, http::Request};
use serde_json::{Value, json};

async fn thread(router: &Router) -> String {
    post(router, "/threads", &json!({})).await.json(200)["thread_id"].as_str().unwrap().to_string()
}

fn asks(agent: &str, text: &str) -> Value {
    json!({"assistant_id": agent, "input": {"messages": [{"role": "user", "content": text}]}})
}

fn names(events: &[Told]) -> Vec<&str> {
    events.iter().map(|(_, name, _)| name.as_deref().unwrap_or("?")).collect()
}

fn texts(values: &Value) -> Vec<&str> {
    values["messages"].as_array().unwrap().iter().map(|message| message["content"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn runs_stream_in_each_mode() {
    for (modes, expected) in [
        (json!("values"), vec!["metadata", "values", "values", "values", "values", "values", "end"]),
        (json!("updates"), vec!["metadata", "updates", "updates", "updates", "end"]),
        (json!(["custom"]), vec!["metadata", "custom", "end"]),
    ] {
        let (_, router) = fresh();
        let thread = thread(&router).await;
        let mut body = asks("looker", "a");
        body["stream_mode"] = modes.clone();
        let reply = post(&router, &format!("/threads/{thread}/runs/stream"), &body).await;
        let run = format!("/threads/{thread}/runs/{}", crate::uuid::uuid_of("run", "run-1"));
        assert_eq!(reply.header("content-location"), run);
        assert!(reply.header("location").starts_with(&format!("{run}/stream?stream_mode=")));
        let events = reply.events();
        assert_eq!(names(&events), expected, "{modes}");
        if modes == "updates" {
            assert_eq!(events[1].2["model"]["messages"][0]["tool_calls"][0]["args"], json!({"at": "a"}));
            assert_eq!(events[2].2["tools"]["messages"][0]["content"], "a cat");
        }
        if modes == "values" {
            let last = &events[events.len() - 2].2;
            assert_eq!(texts(last), ["a", "let me look", "a cat", "it is a cat"]);
        }
    }
    let (_, router) = fresh();
    let mut body = asks("echo", "a b");
    body["stream_mode"] = json!(["messages-tuple"]);
    let events = post(&router, "/runs/stream", &body).await.events();
    let pieces: Vec<&str> =
        events[1..events.len() - 1].iter().map(|(.., data)| data[0]["content"].as_str().unwrap()).collect();
    assert_eq!(pieces, ["you ", "said: ", "a ", "b", ""]);
    assert_eq!((&events[1].2[0]["id"], &events[1].2[1]["langgraph_node"]), (&json!("run-1-1"), &json!("model")));
    body["stream_mode"] = json!(["messages"]);
    let events = post(&router, "/runs/stream", &body).await.events();
    let partial = "messages/partial";
    assert_eq!(
        names(&events),
        ["metadata", "messages/metadata", partial, partial, partial, partial, "messages/complete", "end"]
    );
}

#[tokio::test]
async fn streams_go_on_where_they_were_cut() {
    let (_, router) = fresh();
    let thread = thread(&router).await;
    let mut body = asks("looker", "a");
    body["stream_mode"] = json!(["updates", "values"]);
    let reply = post(&router, &format!("/threads/{thread}/runs/stream"), &body).await;
    let location = reply.header("location").to_string();
    let events = reply.events();
    for (place, (id, ..)) in events.iter().enumerate() {
        let Some(id) = id else { continue };
        let mut request = Request::get(&location).body(Body::empty()).unwrap();
        request.headers_mut().insert("last-event-id", id.parse().unwrap());
        let rest = send(&router, request).await.events();
        if place + 1 < events.len() {
            assert_eq!(rest[1..], events[place + 1..], "behind {id}");
        }
    }
}

#[tokio::test]
async fn interrupts_are_resumed() {
    for (decision, result) in [
        (json!({"type": "approve"}), "done for local"),
        (json!({"type": "reject", "message": "no"}), "refused by local: no"),
        (
            json!({"type": "edit", "edited_action": {"name": "mail.send", "args": {"to": "b"}}}),
            "done for local with {\"to\":\"b\"}",
        ),
    ] {
        let (_, router) = fresh();
        let thread = thread(&router).await;
        let path = format!("/threads/{thread}");
        let waiting = post(&router, &format!("{path}/runs/wait"), &asks("mailer", "a")).await.json(200);
        let interrupt = waiting["__interrupt__"][0].clone();
        assert_eq!(interrupt["value"]["action_requests"][0]["args"], json!({"to": "anna", "text": "a"}));
        let known = get(&router, &path).await.json(200);
        assert_eq!((&known["status"], known["interrupts"].as_object().unwrap().len()), (&json!("interrupted"), 1));
        let state = get(&router, &format!("{path}/state")).await.json(200);
        assert_eq!((&state["next"], &state["tasks"][0]["interrupts"][0]), (&json!(["tools"]), &interrupt));
        let busy = post(&router, &format!("{path}/runs/wait"), &asks("mailer", "b")).await.error(409);
        assert!(busy.contains("resume it with `command`"), "{busy}");
        let mut body = json!({"assistant_id": "mailer", "command": {"resume": {"decisions": [decision]}}});
        body["stream_mode"] = json!(["values", "updates"]);
        let events = post(&router, &format!("{path}/runs/stream"), &body).await.events();
        let last = &events[events.len() - 2].2;
        assert_eq!(texts(last)[2..], [result, "that is all"]);
        assert!(!names(&events).contains(&"error") && last["__interrupt__"].is_null());
        // What was told before the answer is not told again.
        assert!(events.iter().all(|(.., data)| data["model"]["messages"][0]["tool_calls"][0].is_null()));
        assert_eq!(get(&router, &path).await.json(200)["status"], "idle");
        let again = post(&router, &format!("{path}/runs/wait"), &body).await;
        assert!(again.error(400).contains("waits for anything"));
    }
}

#[tokio::test]
async fn several_interrupts_are_one_request() {
    let (_, router) = fresh();
    let thread = thread(&router).await;
    let path = format!("/threads/{thread}/runs/wait");
    let waiting = post(&router, &path, &asks("pair", "a")).await.json(200);
    assert_eq!(waiting["__interrupt__"].as_array().unwrap().len(), 1);
    let resume = |decisions: Value| json!({"assistant_id": "pair", "command": {"resume": {"decisions": decisions}}});
    let one = post(&router, &path, &resume(json!([{"type": "approve"}]))).await.error(400);
    assert!(one.contains("2 calls wait"), "{one}");
    let done = post(&router, &path, &resume(json!([{"type": "approve"}, {"type": "reject"}]))).await.json(200);
    assert_eq!(texts(&done)[2..], ["done for local", "refused by local: ", "that is all"]);
    let waiting = post(&router, &path, &asks("asker", "a")).await.json(200);
    assert_eq!(waiting["__interrupt__"][0]["value"]["question"], "which colour?");
    let body = json!({"assistant_id": "asker", "command": {"resume": "red"}});
    let done = post(&router, &path, &body).await.json(200);
    assert_eq!(texts(&done).last().unwrap(), &"\"red\" it is");
}

#[tokio::test]
async fn threads_go_on_and_have_a_history() {
    let (agents, router) = fresh();
    let id = thread(&router).await;
    let path = format!("/threads/{id}");
    for text in ["a", "b"] {
        post(&router, &format!("{path}/runs/wait"), &asks("echo", text)).await.json(200);
    }
    assert_eq!(agents.asked().messages.len(), 1);
    let state = get(&router, &format!("{path}/state")).await.json(200);
    assert_eq!(texts(&state["values"]), ["a", "you said: a", "b", "you said: b"]);
    let history = post(&router, &format!("{path}/history"), &json!({"limit": 10})).await.json(200);
    assert_eq!((history.as_array().unwrap().len(), &history[0]), (2, &state));
    assert_eq!(history[0]["parent_checkpoint"], history[1]["checkpoint"]);
    let checkpoint = history[1]["checkpoint"]["checkpoint_id"].as_str().unwrap();
    assert_eq!(get(&router, &format!("{path}/state/{checkpoint}")).await.json(200), history[1]);
    let body = json!({"checkpoint": history[1]["checkpoint"]});
    assert_eq!(post(&router, &format!("{path}/state/checkpoint"), &body).await.json(200), history[1]);
    let before =
        post(&router, &format!("{path}/history"), &json!({"before": history[0]["checkpoint"]})).await.json(200);
    assert_eq!(before, json!([history[1]]));
    get(&router, &format!("{path}/state/none")).await.error(404);
    let list = get(&router, &format!("{path}/runs?limit=1")).await.json(200);
    assert_eq!(list[0]["status"], "success");
    let run = list[0]["run_id"].as_str().unwrap();
    for id in [run, "run-2"] {
        assert_eq!(get(&router, &format!("{path}/runs/{id}")).await.json(200), list[0]);
    }
    get(&router, &format!("{path}/runs/run-9")).await.error(404);
    assert_eq!(texts(&get(&router, &format!("{path}/runs/{run}/join")).await.json(200)).len(), 4);
}

#[tokio::test]
async fn threads_are_opened_found_and_forgotten() {
    let (_, router) = fresh();
    let body = json!({"thread_id": "t", "metadata": {"owner": "x"}});
    let opened = post(&router, "/threads", &body).await.json(200);
    assert_eq!((&opened["status"], &opened["metadata"]), (&json!("idle"), &json!({"owner": "x"})));
    post(&router, "/threads", &body).await.error(409);
    let again = post(&router, "/threads", &json!({"thread_id": "t", "if_exists": "do_nothing"})).await.json(200);
    assert_eq!(again, opened);
    let other = thread(&router).await;
    post(&router, &format!("/threads/{other}/runs/wait"), &asks("mailer", "a")).await.json(200);
    let found = async |query: Value| {
        let list = post(&router, "/threads/search", &query).await.json(200);
        list.as_array().unwrap().iter().map(|thread| thread["thread_id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(found(json!({"metadata": {"owner": "x"}})).await, ["t"]);
    assert_eq!(found(json!({"status": "interrupted"})).await, [other.as_str()]);
    assert_eq!(found(json!({"ids": ["t"]})).await, ["t"]);
    assert_eq!(found(json!({"limit": 1, "offset": 1})).await.len(), 1);
    assert_eq!(post(&router, "/threads/count", &json!({})).await.json(200), 2);
    let patch = with("PATCH", "/threads/t", &json!({"metadata": {"more": 1}}));
    assert_eq!(send(&router, patch).await.json(200)["metadata"], json!({"owner": "x", "more": 1}));
    // What is noted goes with the runs.
    post(&router, "/threads/t/runs/wait", &asks("echo", "a")).await.json(200);
    let metadata = get(&router, "/threads/t").await.json(200)["metadata"].clone();
    assert_eq!((&metadata["more"], &metadata["graph_id"]), (&json!(1), &json!("echo")));
    send(&router, with("DELETE", "/threads/t", &json!({}))).await.error(422);
    let empty = thread(&router).await;
    send(&router, with("DELETE", &format!("/threads/{empty}"), &json!({}))).await.text(204);
    get(&router, &format!("/threads/{empty}")).await.error(404);
}

#[tokio::test]
async fn a_busy_thread_does_as_it_is_told() {
    let (agents, router) = fresh();
    let thread = thread(&router).await;
    let path = format!("/threads/{thread}/runs");
    let first = post(&router, &path, &asks("slow", "a")).await.json(200);
    assert_eq!(first["status"], "running");
    let with_strategy = |strategy: &str| {
        let mut body = asks("echo", "b");
        body["multitask_strategy"] = json!(strategy);
        body
    };
    post(&router, &format!("{path}/wait"), &with_strategy("reject")).await.error(409);
    post(&router, &format!("{path}/wait"), &with_strategy("rollback")).await.error(422);
    let body = with_strategy("enqueue");
    let target = format!("{path}/wait");
    let waiting = post(&router, &target, &body);
    let (done, ()) = tokio::join!(waiting, async { agents.release() });
    assert_eq!(texts(&done.json(200)), ["a", "at last", "b", "you said: b"]);
    post(&router, &path, &asks("slow", "c")).await.json(200);
    let done = post(&router, &format!("{path}/wait"), &with_strategy("interrupt")).await.json(200);
    assert_eq!(texts(&done)[4..], ["c", "b", "you said: b"]);
    let list = get(&router, &path).await.json(200);
    assert_eq!((&list[1]["status"], &list[1]["cancel_reason"]), (&json!("interrupted"), &json!("it was cancelled")));
    let third = post(&router, &path, &asks("slow", "d")).await.json(200);
    let run = format!("{path}/{}", third["run_id"].as_str().unwrap());
    post(&router, &format!("{run}/cancel?action=rollback"), &json!({})).await.error(422);
    post(&router, &format!("{run}/cancel?wait=1"), &json!({})).await.text(204);
    assert_eq!(get(&router, &run).await.json(200)["status"], "interrupted");
    let joined = get(&router, &format!("{run}/join")).await.json(200);
    assert_eq!(joined["__error__"]["error"], "UserInterrupt");
    send(&router, with("DELETE", &run, &json!({}))).await.error(422);
}

#[tokio::test]
async fn failures_are_told_in_the_stream_and_the_answer() {
    for (agent, error, message) in
        [("failing", "RunFailed", "the model is gone"), ("limited", "RunLimited", "model_calls: 3")]
    {
        let (_, router) = fresh();
        let events = post(&router, "/runs/stream", &asks(agent, "a")).await.events();
        let told = json!({"error": error, "message": message});
        assert_eq!((names(&events).last(), &events.last().unwrap().2), (Some(&"error"), &told));
        assert_eq!(post(&router, "/runs/wait", &asks(agent, "a")).await.json(200)["__error__"], told);
    }
    let (_, router) = fresh();
    let done = post(&router, "/runs/wait", &asks("former", "a")).await.json(200);
    assert_eq!(done["structured_response"], json!({"colour": "red"}));
}

#[tokio::test]
async fn what_is_not_here_is_refused() {
    let (_, router) = fresh();
    let id = thread(&router).await;
    for (path, body, status) in [
        ("/threads/none/runs/wait".to_string(), asks("echo", "a"), 404),
        ("/runs/wait".into(), asks("none", "a"), 404),
        (format!("/threads/{id}/copy"), json!({}), 422),
        (format!("/threads/{id}/state"), json!({"values": {}}), 422),
        ("/threads".into(), json!({"supersteps": [{}]}), 422),
        ("/threads".into(), json!({"thread_id": "x".repeat(257)}), 400),
        ("/assistants".into(), json!({}), 404),
    ] {
        post(&router, &path, &body).await.error(status);
    }
    let mut body = asks("echo", "a");
    body["if_not_exists"] = json!("create");
    post(&router, "/threads/fresh/runs/wait", &body).await.json(200);
    let foreign = Request::get(format!("/threads/{id}")).body(Body::empty()).unwrap();
    send(&router, of("anna", foreign)).await.error(404);
    let foreign = Request::get("/threads/fresh/runs/run-1").body(Body::empty()).unwrap();
    send(&router, of("anna", foreign)).await.error(404);
}

#[tokio::test]
async fn assistants_are_the_agents() {
    let (_, router) = fresh();
    assert_eq!(get(&router, "/ok").await.json(200), json!({"ok": true}));
    assert_eq!(get(&router, "/info").await.json(200)["flags"]["assistants"], true);
    let list = post(&router, "/assistants/search", &json!({"graph_id": "looker"})).await.json(200);
    let id = list[0]["assistant_id"].as_str().unwrap();
    assert_eq!(post(&router, "/assistants/count", &json!({})).await.json(200), 9);
    for name in [id, "looker"] {
        assert_eq!(get(&router, &format!("/assistants/{name}")).await.json(200), list[0]);
    }
    let graph = get(&router, &format!("/assistants/{id}/graph?xray=false")).await.json(200);
    assert_eq!((graph["nodes"].as_array().unwrap().len(), graph["edges"].as_array().unwrap().len()), (4, 4));
    let schemas = get(&router, "/assistants/former/schemas").await.json(200);
    assert!(schemas["output_schema"]["properties"]["structured_response"].is_object());
    get(&router, "/assistants/none").await.error(404);
}
