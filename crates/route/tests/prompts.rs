//! Where prompts go: to the replica that knows them, spread where one is busy, by model, by what is kept there.

use crate::fake::{Replica, read_until, router, router_with, until};
use narthex_route::RouteOptions;
use serde_json::json;
use std::{collections::BTreeMap, sync::atomic::Ordering::SeqCst};

fn system(index: usize) -> String {
    format!("Document {index}. {}", format!("Paragraph of document {index}, to be read with care. ").repeat(30))
}

#[test]
fn prompts_with_a_common_beginning_stay_together() {
    let replicas: Vec<Replica> = ["a", "b", "c"].map(Replica::start).into();
    let running = router(&replicas.iter().collect::<Vec<_>>());
    let mut places: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for question in 0..8 {
        for document in 0..6 {
            let body = match document % 2 {
                0 => json!({"model": "m", "messages": [
                    {"role": "system", "content": system(document)},
                    {"role": "user", "content": format!("Question {question}?")},
                ]}),
                _ => json!({"model": "m", "prompt": format!("{}Question {question}?", system(document))}),
            };
            let path = if document % 2 == 0 { "/v1/chat/completions" } else { "/v1/completions" };
            places.entry(document).or_default().push(running.post(path, &body).by());
        }
    }
    for (document, places) in &places {
        assert!(places.iter().all(|place| *place == places[0]), "document {document}: {places:?}");
    }
    assert!(replicas.iter().all(|replica| replica.count() >= 8), "each replica has some of them");
    // A router that starts anew sends them where they were.
    drop(running);
    let running = router(&replicas.iter().collect::<Vec<_>>());
    let again: Vec<String> = (0..6)
        .map(|document| match document % 2 {
            0 => running.post(
                "/v1/chat/completions",
                &json!({"model": "m", "messages": [
                    {"role": "system", "content": system(document)},
                    {"role": "user", "content": "Another question?"},
                ]}),
            ),
            _ => running.prompt(&format!("{}Another question?", system(document))),
        })
        .map(|reply| reply.by())
        .collect();
    assert_eq!(again, places.values().map(|places| places[0].clone()).collect::<Vec<_>>());
    let figures = running.get("/metrics").text;
    assert!(figures.contains("narthex_route_prefix_blocks_total "), "{figures}");
}

#[test]
fn a_hot_prompt_spreads_and_others_do_not_suffer() {
    let replicas: Vec<Replica> = ["a", "b", "c"].map(Replica::start).into();
    let running = router(&replicas.iter().collect::<Vec<_>>());
    let held: Vec<_> = (0..24)
        .map(|_| {
            let before: usize = replicas.iter().map(Replica::count).sum();
            let stream = running.begin("/v1/completions", &json!({"prompt": system(1), "act": "hold"}));
            until("it is sent", || replicas.iter().map(Replica::count).sum::<usize>() > before);
            stream
        })
        .collect();
    let counts: Vec<usize> = replicas.iter().map(Replica::count).collect();
    assert!(counts.iter().all(|count| (4..=12).contains(count)), "{counts:?}");
    let other = |question| running.prompt(&format!("{}{question}", system(2))).by();
    let first = other(0);
    assert!((1..6).all(|question| other(question) == first));
    for replica in &replicas {
        replica.state.go_on.notify_waiters();
    }
    for mut stream in held {
        assert!(read_until(&mut stream, "\"by\"").starts_with("HTTP/1.1 200 OK\r\n"));
    }
}

#[test]
fn what_a_replica_says_of_itself_counts() {
    let (a, b) = (Replica::start("a"), Replica::start("b"));
    let running = router(&[&a, &b]);
    let first = running.prompt(&system(1)).by();
    let (known, other) = if first == "a" { (&a, &b) } else { (&b, &a) };
    // Others have given it much to do.
    *known.state.metrics.lock().unwrap() = "vllm:num_requests_running 9\nvllm:num_requests_waiting{e=\"0\"} 2\n".into();
    until("its load is seen", || running.prompt(&system(1)).by() == other.state.name);
    let (a, b) = (Replica::start("a"), Replica::start("b"));
    let running = router(&[&a, &b]);
    let first = running.prompt(&system(1)).by();
    let known = if first == "a" { &a } else { &b };
    *known.state.metrics.lock().unwrap() = "vllm:kv_cache_usage_perc 0.97\nvllm:num_requests_running 1\n".into();
    until("its full cache is seen", || running.prompt(&system(1)).by() != first);
}

#[test]
fn requests_without_a_prompt_take_turns() {
    let replicas: Vec<Replica> = ["a", "b", "c"].map(Replica::start).into();
    let running = router(&replicas.iter().collect::<Vec<_>>());
    for index in 0..12 {
        running.post("/v1/embeddings", &json!({"model": "m", "input": format!("text {index}")})).by();
    }
    assert!(replicas.iter().all(|replica| replica.count() == 4));
}

#[test]
fn models_are_one_list_and_requests_go_where_theirs_is() {
    let (a, b) = (Replica::start("a"), Replica::start("b"));
    *b.state.models.lock().unwrap() = vec!["m".into(), "only-b".into()];
    let running = router(&[&a, &b]);
    let list = running.get("/v1/models").json();
    let names: Vec<&str> = list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!((names, &list["object"]), (vec!["m", "only-b"], &json!("list")));
    for index in 0..6 {
        let body = json!({"model": "only-b", "prompt": format!("{index}")});
        assert_eq!(running.post("/v1/completions", &body).by(), "b");
        assert_eq!(running.get("/v1/models/only-b").by(), "b");
    }
    // What nobody names somebody refuses, or has just got.
    running.post("/v1/completions", &json!({"model": "nobody", "prompt": "x"})).by();
    running.post("/v1/load_lora_adapter", &json!({"lora_name": "x"})).by();
    for replica in [&a, &b] {
        assert_eq!(
            (replica.last().path.as_str(), replica.last().body.as_str()),
            ("/v1/load_lora_adapter", "{\"lora_name\":\"x\"}")
        );
    }
}

#[test]
fn what_is_kept_is_found_again() {
    let replicas: Vec<Replica> = ["a", "b", "c"].map(Replica::start).into();
    let running = router(&replicas.iter().collect::<Vec<_>>());
    let make = |path: &str| {
        let made = running.send("POST", path, &[("content-type", "multipart/form-data; boundary=x")], "--x--");
        (made.json()["id"].as_str().unwrap().to_string(), made.by())
    };
    let files: Vec<(String, String)> = (0..6).map(|_| make("/v1/files")).collect();
    let (response, keeper_of_response) = make("/v1/responses");
    let after_a_restart = router(&replicas.iter().collect::<Vec<_>>());
    for running in [&running, &after_a_restart] {
        for (id, keeper) in &files {
            assert_eq!(running.get(&format!("/v1/files/{id}/content")).by(), *keeper);
            assert_eq!(running.post("/v1/batches", &json!({"input_file_id": id})).by(), *keeper);
        }
        let goes_on = json!({"model": "m", "previous_response_id": response, "input": "and then?"});
        assert_eq!(running.post("/v1/responses", &goes_on).by(), keeper_of_response);
        assert_eq!(running.get("/v1/files/nobodys").status, 404);
        let list = running.get("/v1/files?limit=4").json();
        let page: Vec<&str> =
            list["data"].as_array().unwrap().iter().map(|file| file["id"].as_str().unwrap()).collect();
        assert_eq!((page.len(), &list["has_more"], &list["first_id"]), (4, &json!(true), &json!(page[0])));
        let rest = running.get(&format!("/v1/files?limit=4&after={}", page[3])).json();
        let rest: Vec<&str> =
            rest["data"].as_array().unwrap().iter().map(|file| file["id"].as_str().unwrap()).collect();
        assert!(rest.len() == 2 && rest.iter().all(|id| !page.contains(id)), "{page:?} {rest:?}");
        assert_eq!(running.get("/v1/files?limit=0").json()["error"]["param"], "limit");
    }
    // The keeper is about to stop: it is asked still.
    let keeper = replicas.iter().find(|replica| replica.state.name == files[0].1).unwrap();
    keeper.state.unready.store(true, SeqCst);
    running.until_ready(2);
    assert_eq!(running.get(&format!("/v1/files/{}", files[0].0)).by(), files[0].1);
}

#[test]
fn memory_of_prompts_is_bounded() {
    let a = Replica::start("a");
    let running = router_with(&[&a], |options: &mut RouteOptions| options.blocks_max = 64);
    for index in 0..40 {
        running.prompt(&system(index)).by();
    }
    let figures = running.get("/metrics").text;
    let line = figures.lines().find(|line| line.starts_with("narthex_route_prefix_blocks_remembered ")).unwrap();
    let count: usize = line.rsplit(' ').next().unwrap().parse().unwrap();
    assert!((1..=64).contains(&count), "{line}");
}
