//! Our own routes.

use crate::testing::{Told, fresh, get, of, post, send, with};
use axum::{body::Body, http::Request};
use serde_json::{Value, json};

const PATH: &str = "/agents/runs";

async fn start(router: &axum::Router, agent: &str) -> Value {
    post(router, PATH, &json!({"agent": agent, "say": "hello"})).await.json(201)
}

fn kinds(events: &[Told]) -> Vec<String> {
    let kind = |(_, name, data): &Told| data["type"].as_str().or(name.as_deref()).unwrap_or("?").to_string();
    events.iter().map(kind).collect()
}

#[tokio::test]
async fn events_go_on_where_they_were_cut() {
    let (_, router) = fresh();
    let run = start(&router, "looker").await;
    assert_eq!((&run["status"], &run["messages"][0]["content"]), (&json!("done"), &json!("hello")));
    let all = get(&router, "/agents/runs/run-1/events").await.events();
    assert_eq!(
        kinds(&all),
        [
            "working",
            "message",
            "said",
            "said",
            "message",
            "tool_started",
            "tool_progress",
            "message",
            "said",
            "said",
            "said",
            "said",
            "message",
            "ended",
            "end"
        ]
    );
    let numbered: Vec<&Told> = all.iter().filter(|(id, ..)| id.is_some()).collect();
    for (place, (id, _, data)) in numbered.iter().enumerate() {
        assert_eq!((id.as_deref(), &data["number"]), (Some((place + 1).to_string().as_str()), &json!(place + 1)));
        let mut request = Request::get("/agents/runs/run-1/events").body(Body::empty()).unwrap();
        request.headers_mut().insert("last-event-id", (place + 1).to_string().parse().unwrap());
        let rest = send(&router, request).await.events();
        let rest: Vec<&Told> = rest.iter().filter(|(id, ..)| id.is_some()).collect();
        assert_eq!(rest.len(), numbered.len() - place - 1);
        assert!(rest.iter().zip(&numbered[place + 1..]).all(|(a, b)| **a == **b));
    }
    for wrong in ["x", "-1", "1.5"] {
        let mut request = Request::get("/agents/runs/run-1/events").body(Body::empty()).unwrap();
        request.headers_mut().insert("last-event-id", wrong.parse().unwrap());
        assert!(send(&router, request).await.error(400).contains("Last-Event-ID"));
    }
}

#[tokio::test]
async fn answers_of_all_kinds() {
    for (agent, answer, status, expected) in [
        ("mailer", json!({"interrupt": "i1", "approve": true}), 200, "done for local"),
        (
            "mailer",
            json!({"interrupt": "i1", "edit": {"to": "otto"}, "by": "me"}),
            200,
            "done for me (local) with {\"to\":\"otto\"}",
        ),
        ("mailer", json!({"interrupt": "i1", "refuse": "not now"}), 200, "refused by local: not now"),
        ("asker", json!({"interrupt": "i1", "say": "red"}), 200, "\"red\" it is"),
        (
            "mailer",
            json!({"interrupt": "i1", "edit": {"to": "mallory"}}),
            403,
            "the edited call is denied by the policy",
        ),
        ("mailer", json!({"interrupt": "i1", "say": 1}), 400, "the answer does not fit the question"),
        ("mailer", json!({"interrupt": "i9", "approve": true}), 404, "the run asks no question `i9`"),
        ("mailer", json!({"interrupt": "i1"}), 400, "answer with one of `approve`"),
        ("echo", json!({"interrupt": "i1", "approve": true}), 409, "the run has ended"),
    ] {
        let (_, router) = fresh();
        start(&router, agent).await;
        let reply = post(&router, "/agents/runs/run-1/answers", &answer).await;
        if status == 200 {
            let run = reply.json(200);
            assert_eq!(run["status"], "done");
            let text = run["messages"].to_string();
            assert!(text.contains(&json!(expected).to_string()), "{expected}: {text}");
        } else {
            let error = reply.error(status);
            assert!(error.starts_with(expected), "{answer}: {error}");
        }
    }
}

#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let (_, router) = fresh();
    for agent in ["echo", "mailer", "echo", "slow", "failing"] {
        start(&router, agent).await;
    }
    let ids = async |query: &str| {
        let list = get(&router, &format!("{PATH}{query}")).await.json(200);
        let ids: Vec<String> =
            list["runs"].as_array().unwrap().iter().map(|run| run["id"].as_str().unwrap()[4..].to_string()).collect();
        (ids.join(""), list["next"].as_str().unwrap_or_default().to_string())
    };
    for (query, expected, next) in [
        ("", "54321", ""),
        ("?limit=2", "54", "run-4"),
        ("?limit=2&after=run-4", "32", "run-2"),
        ("?limit=2&after=run-2", "1", ""),
        ("?agent=echo", "31", ""),
        ("?status=waiting", "2", ""),
        ("?status=running&agent=slow", "4", ""),
        ("?thread=thread-3", "3", ""),
        ("?changed_since_ms=9999999999999", "", ""),
    ] {
        assert_eq!(ids(query).await, (expected.to_string(), next.to_string()), "{query}");
    }
    for (query, field) in
        [("?limit=0", "limit"), ("?limit=101", "limit"), ("?limit=x", "limit"), ("?status=odd", "status")]
    {
        assert_eq!(get(&router, &format!("{PATH}{query}")).await.json(400)["error"]["param"], field, "{query}");
    }
}

#[tokio::test]
async fn runs_are_cancelled_once_and_wrong_ones_named() {
    let (agents, router) = fresh();
    start(&router, "slow").await;
    let cancelled = post(&router, "/agents/runs/run-1/cancel", &json!({})).await.json(200);
    assert_eq!((&cancelled["status"], &cancelled["reason"]), (&json!("cancelled"), &json!("it was cancelled")));
    post(&router, "/agents/runs/run-1/cancel", &json!({})).await.error(409);
    for path in ["/agents/runs/run-9", "/agents/runs/run-9/events"] {
        assert_eq!(get(&router, path).await.error(404), "there is no run `run-9`");
    }
    for (body, expected) in [
        (json!({"say": "a"}), "the field `agent` is missing"),
        (json!({"agent": "echo"}), "give `messages`, or `say` with one text"),
        (json!({"agent": "echo", "say": "a", "messages": []}), "give `messages`, or `say` with one text"),
    ] {
        assert_eq!(post(&router, PATH, &body).await.error(400), expected);
    }
    let body = json!({"agent": "slow", "say": "a", "thread": "t"});
    post(&router, PATH, &body).await.json(201);
    assert!(post(&router, PATH, &body).await.error(429).contains("is not over"));
    assert_eq!(agents.count(), 2);
}

#[tokio::test]
async fn tenants_see_their_own_runs() {
    let (_, router) = fresh();
    start(&router, "mailer").await;
    let request = |method: &str, path: &str| with(method, path, &json!({"interrupt": "i1", "approve": true}));
    for (method, path) in [
        ("GET", "/agents/runs/run-1"),
        ("GET", "/agents/runs/run-1/events"),
        ("POST", "/agents/runs/run-1/answers"),
        ("POST", "/agents/runs/run-1/cancel"),
    ] {
        send(&router, of("anna", request(method, path))).await.error(404);
    }
    let list = send(&router, of("anna", request("GET", PATH))).await.json(200);
    assert_eq!(list["runs"], json!([]));
    assert_eq!(get(&router, "/agents/runs/run-1").await.json(200)["status"], "waiting");
}

#[tokio::test]
async fn agents_are_listed() {
    let (_, router) = fresh();
    let list = get(&router, "/agents").await.json(200);
    assert_eq!(list["agents"][1]["tools"], json!([{"name": "look", "description": "does look"}]));
}

#[tokio::test]
async fn a_run_as_spans() {
    let (_, router) = fresh();
    start(&router, "looker").await;
    let trace = get(&router, "/agents/runs/run-1/trace?content=true").await.json(200);
    assert_eq!(trace, json!({"resourceSpans": []}), "this agent makes none");
    get(&router, "/agents/runs/run-2/trace").await.json(404);
    get(&router, "/agents/runs/run-1/trace?content=perhaps").await.json(400);
}
