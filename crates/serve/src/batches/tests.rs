//! Batches from their making to their end, over a model that does as it is told.

use crate::{
    batches::FilesOptions,
    testing_files::{Server, line},
};
use serde_json::{Value, json};
use std::fs;

fn counts(batch: &Value) -> (u64, u64, u64) {
    let count = |name: &str| batch["request_counts"][name].as_u64().unwrap();
    (count("total"), count("completed"), count("failed"))
}

fn names(lines: &[(String, Value)]) -> Vec<&str> {
    lines.iter().map(|(name, _)| name.as_str()).collect()
}

fn usual(_: &mut FilesOptions) {}

#[tokio::test]
async fn answers_go_to_one_file_and_errors_to_another() {
    let server = Server::new(usual);
    let batch = server
        .batch(&[
            json!({"model": "m"}),
            json!({"status": 400}),
            json!({"stream": true}),
            json!({"stream": false, "priority": 3}),
            json!({"panics": true}),
            json!({"text": true}),
            json!({"busy": 2}),
            json!({"busy": 1, "busy_status": 429}),
            json!({"status": 500}),
            json!({"status": 201}),
        ])
        .await;
    let done = server.wait(&batch, "completed").await;
    assert_eq!(counts(&done), (10, 5, 5));
    assert_eq!(
        (&done["usage"]["total_tokens"], &done["model"], &done["errors"]),
        (&json!(20), &json!(null), &json!(null))
    );
    let output = server.lines(&done["output_file_id"]).await;
    assert_eq!(names(&output), ["r0", "r3", "r5", "r6", "r7"]);
    let answer = &output[1].1;
    assert!(answer["id"].as_str().unwrap().starts_with("batch_req_"), "{answer}");
    assert_eq!((&answer["response"]["status_code"], &answer["error"]), (&json!(200), &json!(null)));
    assert_eq!(answer["response"]["request_id"], "req-r3");
    // What the model got is what the file said.
    assert_eq!(answer["response"]["body"]["echo"], json!({"stream": false, "priority": 3, "name": "r3"}));
    assert_eq!(output[2].1["response"]["body"], "no JSON");
    let errors = server.lines(&done["error_file_id"]).await;
    assert_eq!(names(&errors), ["r1", "r2", "r4", "r8", "r9"]);
    let statuses: Vec<_> = errors.iter().map(|(_, line)| line["response"]["status_code"].as_u64()).collect();
    assert_eq!(statuses, [Some(400), Some(400), None, Some(500), Some(201)]);
    let streaming = &errors[1].1["response"]["body"]["error"];
    assert_eq!((&streaming["param"], &streaming["code"]), (&json!("stream"), &json!("unsupported_parameter")));
    assert_eq!((&errors[2].1["response"], &errors[2].1["error"]["code"]), (&json!(null), &json!("server_error")));
    let asked = |name: &str| server.model.asked().iter().filter(|known| *known == name).count();
    assert_eq!(["r0", "r1", "r2", "r6", "r7"].map(asked), [1, 1, 0, 3, 2]);
    for (file, kind) in [(&done["output_file_id"], "output"), (&done["error_file_id"], "error")] {
        let file = server.get(&format!("/v1/files/{}", file.as_str().unwrap())).await.json(200);
        assert_eq!(
            (&file["purpose"], &file["filename"]),
            (&json!("batch_output"), &json!(format!("{batch}_{kind}.jsonl")))
        );
    }
    assert_eq!(server.names("batches"), [format!("{batch}.json")]);
    // All good, or nothing good.
    for (body, missing) in [(json!({}), "error_file_id"), (json!({"status": 400}), "output_file_id")] {
        let batch = server.batch(&[body]).await;
        assert_eq!(server.wait(&batch, "completed").await[missing], json!(null));
    }
}

#[tokio::test]
async fn files_that_are_no_requests_fail_with_their_lines() {
    let server = Server::new(usual);
    let good = line("a", &json!({}));
    for (text, expected) in [
        (String::new(), json!([["empty_file", null, null]])),
        ("nonsense\n".into(), json!([["invalid_json_line", null, 1]])),
        (
            format!("{good}\n{good}[]\n"),
            json!([["duplicate_custom_id", "custom_id", 3], ["invalid_json_line", null, 4]]),
        ),
        (good.replace("/v1/chat", "/v1/any"), json!([["invalid_url", "url", 1]])),
        (good.replace("POST", "GET"), json!([["invalid_method", "method", 1]])),
    ] {
        let batch = server.batch_of(&text).await;
        let failed = server.wait(&batch, "failed").await;
        assert_eq!(failed["errors"]["object"], "list");
        let faults = failed["errors"]["data"].as_array().unwrap().iter();
        let found: Vec<_> = faults.map(|fault| json!([fault["code"], fault["param"], fault["line"]])).collect();
        assert_eq!(json!(found), expected, "{failed}");
        assert!(failed["failed_at"].is_u64() && failed["errors"]["data"][0]["message"].is_string(), "{failed}");
        assert_eq!((&failed["output_file_id"], &failed["in_progress_at"]), (&json!(null), &json!(null)));
    }
    assert!(server.model.asked().is_empty());
}

#[tokio::test]
async fn a_restart_goes_on_where_it_stopped() {
    for torn in [false, true] {
        let mut server = Server::new(|options| options.at_once = 2);
        let bodies: Vec<_> = (0..10).map(|n| json!({"gate": true, "status": if n == 1 { 400 } else { 200 }})).collect();
        let batch = server.batch(&bodies).await;
        server.model.gate.add_permits(4);
        server.model.has_been_asked(6).await;
        let shown = server.show(&batch).await;
        assert_eq!((&shown["status"], counts(&shown)), (&json!("in_progress"), (10, 3, 1)));
        assert_eq!(shown["usage"]["total_tokens"], 15);
        server.stop();
        let path = server.path("batches", &batch, "output.jsonl");
        let mut kept: Vec<u8> = fs::read(&path).unwrap();
        if torn {
            // As a crash leaves it: the last of three lines is not whole.
            kept.truncate(kept.len() - 9);
            fs::write(&path, &kept).unwrap();
        }
        server.model.asked().clear();
        server.model.gate.add_permits(10);
        server.start();
        let done = server.wait(&batch, "completed").await;
        assert_eq!((counts(&done), &done["usage"]["total_tokens"]), ((10, 9, 1), &json!(45)));
        let output = server.lines(&done["output_file_id"]).await;
        assert_eq!(names(&output), ["r0", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9"]);
        assert_eq!(names(&server.lines(&done["error_file_id"]).await), ["r1"]);
        let again = if torn { 7 } else { 6 };
        assert_eq!(server.model.asked().len(), again, "torn: {torn}: {:?}", server.model.asked());
        // It has ended for good.
        server.stop();
        server.start();
        assert_eq!(server.show(&batch).await, done);
        assert_eq!(server.model.asked().len(), again);
        assert_eq!(server.names("batches"), [format!("{batch}.json")]);
    }
}

/// However far ending was when the power failed, the next start ends the same.
#[tokio::test]
async fn an_ending_that_was_interrupted_is_done_again() {
    for step in 0..4 {
        let mut server = Server::new(usual);
        let batch = server.batch(&[json!({}), json!({"status": 400})]).await;
        let done = server.wait(&batch, "completed").await;
        let files = ["output_file_id", "error_file_id"].map(|name| done[name].as_str().unwrap().to_string());
        let bytes = server.store().bytes();
        server.stop();
        // Back to an earlier point, as the records have it.
        let path = server.path("batches", &batch, "json");
        let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(record["ending"], "completed");
        record["batch"]["status"] = json!("finalizing");
        for name in ["output_file_id", "error_file_id", "completed_at"] {
            record["batch"][name] = json!(null);
        }
        fs::write(&path, record.to_string()).unwrap();
        let ends = ["output.jsonl", "errors.jsonl"];
        for (index, (file, end)) in files.iter().zip(ends).enumerate() {
            if step > index {
                fs::remove_file(server.path("files", file, "json")).unwrap();
            }
            if step >= 2 + index {
                fs::rename(server.path("files", file, "data"), server.path("batches", &batch, end)).unwrap();
            }
        }
        server.start();
        let again = server.wait(&batch, "completed").await;
        assert_eq!(counts(&again), (2, 1, 1), "step {step}");
        for (name, file) in ["output_file_id", "error_file_id"].iter().zip(&files) {
            assert_eq!(again[name], json!(file), "step {step}");
            assert_eq!(server.lines(&json!(file)).await.len(), 1);
        }
        assert_eq!(server.store().bytes(), bytes);
        assert_eq!(server.model.asked().len(), 2);
    }
}

#[tokio::test]
async fn cancelling_waits_for_what_is_under_way() {
    let mut server = Server::new(|options| options.at_once = 3);
    let mut bodies: Vec<_> = (0..20).map(|_| json!({"gate": true})).collect();
    bodies[0] = json!({});
    // It waits for room, and need not be waited for.
    bodies[1] = json!({"busy": u64::MAX});
    let batch = server.batch(&bodies).await;
    crate::testing_files::until("r0, r2 and r3 have come", || {
        let asked = server.model.asked();
        ["r0", "r1", "r2", "r3"].iter().all(|name| asked.iter().any(|known| known == name))
    })
    .await;
    let cancel = format!("/v1/batches/{batch}/cancel");
    let cancelling = server.send("POST", &cancel, "", "").await.json(200);
    assert_eq!(cancelling["status"], "cancelling");
    assert!(cancelling["cancelling_at"].is_u64());
    assert_eq!(server.send("POST", &cancel, "", "").await.json(200)["status"], "cancelling");
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert_eq!(server.show(&batch).await["status"], "cancelling");
    server.model.gate.add_permits(2);
    let cancelled = server.wait(&batch, "cancelled").await;
    assert_eq!(counts(&cancelled), (20, 3, 0));
    assert!(cancelled["cancelled_at"].is_u64() && cancelled["completed_at"].is_null(), "{cancelled}");
    assert_eq!(names(&server.lines(&cancelled["output_file_id"]).await), ["r0", "r2", "r3"]);
    assert_eq!(cancelled["error_file_id"], json!(null));
    let error = server.send("POST", &cancel, "", "").await.error();
    assert_eq!(error, "409 - batch_ended: the batch is `cancelled` and can no longer be cancelled");
    // One that was cancelled while nobody worked on it, before it began and after.
    server.rest();
    server.model.asked().clear();
    let batch = server.batch(&bodies).await;
    server.send("POST", &format!("/v1/batches/{batch}/cancel"), "", "").await.json(200);
    server.stop();
    server.start();
    let cancelled = server.wait(&batch, "cancelled").await;
    assert_eq!((counts(&cancelled), &cancelled["output_file_id"]), ((0, 0, 0), &json!(null)));
    assert!(server.model.asked().is_empty());
    bodies[1] = json!({});
    let batch = server.batch(&bodies).await;
    server.model.has_been_asked(5).await;
    server.rest();
    server.send("POST", &format!("/v1/batches/{batch}/cancel"), "", "").await.json(200);
    server.stop();
    server.start();
    let cancelled = server.wait(&batch, "cancelled").await;
    assert_eq!(counts(&cancelled), (20, 2, 0));
    assert_eq!(names(&server.lines(&cancelled["output_file_id"]).await), ["r0", "r1"]);
}

#[tokio::test]
async fn no_more_are_under_way_than_allowed() {
    let server = Server::new(|options| {
        options.at_once = 3;
        options.batches_running_max = 2;
    });
    let bodies: Vec<_> = (0..12).map(|_| json!({"gate": true})).collect();
    let [first, second, third] =
        [server.batch(&bodies).await, server.batch(&bodies).await, server.batch(&bodies).await];
    server.model.has_been_asked(6).await;
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert_eq!((server.model.asked().len(), server.model.most()), (6, 6));
    assert_eq!(server.show(&third).await["status"], "validating");
    // A batch that waits for its turn is cancelled without one.
    server.send("POST", &format!("/v1/batches/{third}/cancel"), "", "").await.json(200);
    server.wait(&third, "cancelled").await;
    server.model.gate.add_permits(24);
    for batch in [&first, &second] {
        assert_eq!(counts(&server.wait(batch, "completed").await), (12, 12, 0));
    }
    assert_eq!((server.model.asked().len(), server.model.most()), (24, 6));
}

#[tokio::test]
async fn a_batch_whose_time_is_over_says_which_requests_are_missing() {
    let mut server = Server::new(|options| options.at_once = 1);
    let batch = server.batch(&[json!({}), json!({"gate": true}), json!({})]).await;
    server.model.has_been_asked(2).await;
    server.rest();
    server.store().age_batch(&batch);
    server.stop();
    server.start();
    let expired = server.wait(&batch, "expired").await;
    assert_eq!(counts(&expired), (3, 1, 2));
    assert!(expired["expired_at"].is_u64() && expired["finalizing_at"].is_u64(), "{expired}");
    assert_eq!(names(&server.lines(&expired["output_file_id"]).await), ["r0"]);
    let errors = server.lines(&expired["error_file_id"]).await;
    assert_eq!(names(&errors), ["r1", "r2"]);
    assert_eq!((&errors[0].1["response"], &errors[0].1["error"]["code"]), (&json!(null), &json!("batch_expired")));
    assert_eq!(server.model.asked().len(), 2);
}

#[tokio::test]
async fn answers_that_find_no_room_end_the_batch_and_stay() {
    let server = Server::new(|options| {
        options.at_once = 1;
        options.bytes_max = 5000;
    });
    let batch = server.batch(&[json!({}), json!({"filler": 9000}), json!({})]).await;
    let failed = server.wait(&batch, "failed").await;
    assert_eq!(failed["errors"]["data"][0]["code"], "files_full");
    assert_eq!(counts(&failed), (3, 1, 0));
    assert_eq!(names(&server.lines(&failed["output_file_id"]).await), ["r0"]);
    let list = server.get("/v1/files").await.json(200);
    let bytes = list["data"].as_array().unwrap().iter().map(|file| file["bytes"].as_u64().unwrap());
    assert_eq!(server.store().bytes(), bytes.sum::<u64>());
}

#[tokio::test]
async fn a_file_stays_until_its_batch_has_read_it() {
    let server = Server::new(usual);
    let batch = server.batch(&[json!({"gate": true})]).await;
    server.model.has_been_asked(1).await;
    let input = server.show(&batch).await["input_file_id"].as_str().unwrap().to_string();
    let path = format!("/v1/files/{input}");
    let error = server.send("DELETE", &path, "", "").await.error();
    assert_eq!(
        error,
        format!("409 - file_in_use: the batch `{batch}` still reads this file: wait for its end or cancel it")
    );
    // Its time is over, but it is still read.
    server.store().age(&input);
    assert!(server.get(&path).await.error().starts_with("404 id not_found"));
    assert!(server.path("files", &input, "data").exists());
    server.model.gate.add_permits(1);
    server.wait(&batch, "completed").await;
    server.get("/v1/files").await.json(200);
    assert!(!server.path("files", &input, "data").exists());
}
