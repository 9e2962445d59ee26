//! `/v1/batches`, as OpenAI has it (<https://platform.openai.com/docs/api-reference/batch>): batches are made, listed,
//! shown and cancelled. Knows what may be asked for, not how a batch is answered.

use super::keeping::{Asked, FilesState, Id, Page, refusal};
use crate::batches::{BatchObject, NewBatch, StoreError};
use axum::{Json, extract::State};
use narthex_http::{ApiError, Fields, JsonBody};
use serde_json::{Map, Value};

/// What the requests of a batch may ask.
const ENDPOINTS: [&str; 4] = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"];

/// Batches on a page, unless the client says how many, and at most.
const PAGE: usize = 20;
const PAGE_MAX: usize = 100;

/// Seconds that the files of answers may be asked to stay; the longest is usual.
const EXPIRES_S_MIN: i64 = 60 * 60;
const EXPIRES_S_MAX: i64 = 30 * 24 * 60 * 60;

/// Of metadata: pairs, characters of a key, characters of a value.
const PAIRS_MAX: usize = 16;
const KEY_MAX: usize = 64;
const VALUE_MAX: usize = 512;

/// Makes a batch.
pub(crate) async fn create(
    State(files): State<FilesState>,
    JsonBody(fields): JsonBody,
) -> Result<Json<BatchObject>, ApiError> {
    let new = files.clone().open().and_then(|_| read(fields))?;
    let input = new.input_file_id.clone();
    let made = files.with(move |store| store.create_batch(new)).await?;
    made.map(Json).map_err(|error| match error {
        StoreError::Unknown => {
            let input: String = input.chars().take(64).collect();
            ApiError::field("input_file_id", format!("there is no file `{input}`")).code("file_not_found")
        }
        error => refusal(error, "batch", ""),
    })
}

fn read(mut fields: Fields) -> Result<NewBatch, ApiError> {
    let input_file_id = fields.string("input_file_id")?.ok_or_else(|| fields.missing("input_file_id"))?;
    let endpoint = fields.string("endpoint")?.ok_or_else(|| fields.missing("endpoint"))?;
    let Some(endpoint) = ENDPOINTS.into_iter().find(|known| *known == endpoint) else {
        return Err(ApiError::field("endpoint", format!("`endpoint` must be one of {}", ENDPOINTS.join(", "))));
    };
    let window = fields.string("completion_window")?.ok_or_else(|| fields.missing("completion_window"))?;
    if window != "24h" {
        return Err(ApiError::field("completion_window", "`completion_window` must be `24h`"));
    }
    let metadata = match fields.take("metadata") {
        None => None,
        Some(Value::Object(map)) => Some(check_metadata(map)?),
        Some(_) => return Err(ApiError::field("metadata", "`metadata` must be an object")),
    };
    let mut output_expires_s = EXPIRES_S_MAX;
    if let Some(mut nested) = fields.object("output_expires_after")? {
        let anchor = nested.string("anchor")?.ok_or_else(|| nested.missing("anchor"))?;
        if anchor != "created_at" {
            let name = nested.name("anchor");
            return Err(ApiError::field(&name, format!("`{name}` must be `created_at`")));
        }
        let seconds = nested.integer("seconds", EXPIRES_S_MIN..=EXPIRES_S_MAX)?;
        output_expires_s = seconds.ok_or_else(|| nested.missing("seconds"))?;
        nested.finish()?;
    }
    fields.finish()?;
    Ok(NewBatch { input_file_id, endpoint, metadata, output_expires_s: output_expires_s.unsigned_abs() })
}

fn check_metadata(map: Map<String, Value>) -> Result<Map<String, Value>, ApiError> {
    let wrong = |message: String| Err(ApiError::field("metadata", message));
    if map.len() > PAIRS_MAX {
        return wrong(format!("`metadata` must have at most {PAIRS_MAX} pairs"));
    }
    for (key, value) in &map {
        if key.chars().count() > KEY_MAX {
            return wrong(format!("the keys of `metadata` must have at most {KEY_MAX} characters"));
        }
        if value.as_str().is_none_or(|value| value.chars().count() > VALUE_MAX) {
            return wrong(format!("the values of `metadata` must be strings of at most {VALUE_MAX} characters"));
        }
    }
    Ok(map)
}

/// Lists batches, the newest first.
pub(crate) async fn list(State(files): State<FilesState>, asked: Asked) -> Result<Json<Page<BatchObject>>, ApiError> {
    let paging = asked.paging(PAGE, PAGE_MAX)?;
    let found = files.with(move |store| store.batches(&paging)).await?;
    let found = found.map_err(|error| refusal(error, "batch", ""))?;
    Ok(Json(Page::new(found, |batch| &batch.id)))
}

/// Shows a batch.
pub(crate) async fn get(State(files): State<FilesState>, Id(id): Id) -> Result<Json<BatchObject>, ApiError> {
    let asked = id.clone();
    let found = files.with(move |store| store.batch(&asked)).await?;
    found.map(Json).map_err(|error| refusal(error, "batch", &id))
}

/// Asks for the end of a batch.
pub(crate) async fn cancel(State(files): State<FilesState>, Id(id): Id) -> Result<Json<BatchObject>, ApiError> {
    let asked = id.clone();
    let done = files.with(move |store| store.cancel_batch(&asked)).await?;
    done.map(Json).map_err(|error| refusal(error, "batch", &id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing_files::Server;
    use serde_json::json;

    const PATH: &str = "/v1/batches";

    #[tokio::test]
    async fn requests_that_are_wrong_name_the_field() {
        let server = Server::new(|_| {});
        let input = server.upload("in", "batch", "").await;
        let data = server.upload("in", "user_data", "").await;
        let gone = server.upload("in", "batch", "").await;
        server.store().age(&gone);
        let pairs: Map<String, Value> = (0..17).map(|n| (n.to_string(), json!(""))).collect();
        let expires = |value: Value| json!({"output_expires_after": value});
        let span = "must be a whole number from 3600 to 2592000";
        for (more, expected) in [
            (json!({"input_file_id": null}), "400 input_file_id missing_required_parameter: the field `input_file_id`"),
            (json!({"input_file_id": 1}), "400 input_file_id -: `input_file_id` must be a string"),
            (json!({"input_file_id": "file-x"}), "400 input_file_id file_not_found: there is no file `file-x`"),
            (json!({"input_file_id": "../x"}), "400 input_file_id file_not_found: there is no file `../x`"),
            (json!({"input_file_id": "é".repeat(5000)}), "400 input_file_id file_not_found: there is no file `éé"),
            (json!({"input_file_id": gone}), "400 input_file_id file_not_found: "),
            (
                json!({"input_file_id": data}),
                "400 input_file_id invalid_purpose: this file was sent with the purpose `user_data`: send it again \
                 with the purpose `batch`",
            ),
            (json!({"endpoint": null}), "400 endpoint missing_required_parameter: the field `endpoint` is missing"),
            (
                json!({"endpoint": "/v1/nothing"}),
                "400 endpoint -: `endpoint` must be one of /v1/chat/completions, /v1/",
            ),
            (json!({"endpoint": "/v1/batches"}), "400 endpoint -: `endpoint` must be one of "),
            (json!({"completion_window": null}), "400 completion_window missing_required_parameter: "),
            (json!({"completion_window": "1h"}), "400 completion_window -: `completion_window` must be `24h`"),
            (json!({"metadata": []}), "400 metadata -: `metadata` must be an object"),
            (json!({"metadata": pairs}), "400 metadata -: `metadata` must have at most 16 pairs"),
            (json!({"metadata": {"k".repeat(65): ""}}), "400 metadata -: the keys of `metadata` must have at most 64 "),
            (json!({"metadata": {"a": 1}}), "400 metadata -: the values of `metadata` must be strings of at most 512 "),
            (json!({"metadata": {"a": "v".repeat(513)}}), "400 metadata -: the values of `metadata` must be strings"),
            (expires(json!(1)), "400 output_expires_after -: `output_expires_after` must be an object"),
            (
                expires(json!({"seconds": 3600})),
                "400 output_expires_after.anchor missing_required_parameter: the field `output_expires_after.anchor`",
            ),
            (
                expires(json!({"anchor": "now", "seconds": 3600})),
                "400 output_expires_after.anchor -: `output_expires_after.anchor` must be `created_at`",
            ),
            (expires(json!({"anchor": "created_at"})), "400 output_expires_after.seconds missing_required_parameter: "),
            (
                expires(json!({"anchor": "created_at", "seconds": 3599})),
                &format!("400 output_expires_after.seconds -: `output_expires_after.seconds` {span}"),
            ),
            (expires(json!({"anchor": "created_at", "seconds": 2_592_001})), "400 output_expires_after.seconds -: "),
            (json!({"colour": "red"}), "400 colour unknown_parameter: unknown field `colour`"),
        ] {
            let mut body =
                json!({"input_file_id": input, "endpoint": "/v1/chat/completions", "completion_window": "24h"});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let error = server.post(PATH, &body).await.error();
            assert!(error.starts_with(expected) && error.len() < 300, "{error}, not {expected}");
        }
        assert_eq!(server.get(PATH).await.json(200)["data"], json!([]));
        assert_eq!(server.names("batches"), Vec::<String>::new());
    }

    #[tokio::test]
    async fn names_that_are_none_are_not_found() {
        let server = Server::new(|_| {});
        let zeros = "0".repeat(32);
        for wrong in [
            "..",
            "%2e%2e%2f",
            "%2fetc",
            "batch_nobody",
            &format!("batch_{zeros}"),
            &format!("file-{zeros}"),
            &"b".repeat(5000),
        ] {
            for (method, end) in [("GET", ""), ("POST", "/cancel")] {
                let error = server.send(method, &format!("{PATH}/{wrong}{end}"), "", "").await.error();
                assert!(error.starts_with("404 id not_found: there is no batch `") && error.len() < 130, "{error}");
            }
        }
    }

    #[tokio::test]
    async fn a_batch_has_every_field() {
        let mut server = Server::new(|_| {});
        server.rest();
        let input = server.upload("in", "batch", crate::testing_files::line("a", &json!({"model": "m"}))).await;
        let body = json!({
            "input_file_id": input, "endpoint": "/v1/chat/completions", "completion_window": "24h",
            "metadata": {"b": "1", "a": "2"}, "output_expires_after": {"anchor": "created_at", "seconds": 3600},
        });
        let made = server.post(PATH, &body).await.json(200);
        let created = made["created_at"].as_u64().unwrap();
        let mut expected = json!({
            "id": made["id"], "object": "batch", "endpoint": "/v1/chat/completions", "model": null, "errors": null,
            "input_file_id": input, "completion_window": "24h", "status": "validating", "output_file_id": null,
            "error_file_id": null, "created_at": created, "in_progress_at": null, "expires_at": created + 86_400,
            "finalizing_at": null, "completed_at": null, "failed_at": null, "expired_at": null,
            "cancelling_at": null, "cancelled_at": null,
            "request_counts": {"total": 0, "completed": 0, "failed": 0}, "usage": null,
            "metadata": {"b": "1", "a": "2"},
        });
        assert_eq!(made.to_string(), expected.to_string());
        // Somebody works on it.
        server.stop();
        server.start();
        let done = server.wait(made["id"].as_str().unwrap(), "completed").await;
        let usage = json!({
            "input_tokens": 2, "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 3, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 5,
        });
        let output = done["output_file_id"].as_str().unwrap();
        let counts = json!({"total": 1, "completed": 1, "failed": 0});
        for (name, value) in [
            ("status", json!("completed")),
            ("model", json!("m")),
            ("output_file_id", json!(output)),
            ("request_counts", counts),
            ("usage", usage),
        ] {
            expected[name] = value;
        }
        for name in ["in_progress_at", "finalizing_at", "completed_at"] {
            assert!(done[name].as_u64() >= Some(created), "{name}: {done}");
            expected[name] = done[name].clone();
        }
        assert_eq!(done, expected);
        let file = server.get(&format!("/v1/files/{output}")).await.json(200);
        let stays = file["expires_at"].as_u64().unwrap() - file["created_at"].as_u64().unwrap();
        let id = made["id"].as_str().unwrap();
        assert_eq!((&file["purpose"], stays), (&json!("batch_output"), 3600));
        assert_eq!(file["filename"], format!("{id}_output.jsonl"));
    }

    #[tokio::test]
    async fn lists_have_pages() {
        let server = Server::new(|_| {});
        let mut ids = vec![];
        for _ in 0..22 {
            ids.push(server.batch(&[]).await);
        }
        ids.reverse();
        for (query, first, count, more) in [
            ("".to_string(), 0, 20, true),
            ("?limit=22".into(), 0, 22, false),
            ("?limit=100".into(), 0, 22, false),
            (format!("?limit=3&after={}", ids[1]), 2, 3, true),
            (format!("?after={}", ids[19]), 20, 2, false),
            (format!("?after={}", ids[21]), 22, 0, false),
        ] {
            let list = server.get(&format!("{PATH}{query}")).await.json(200);
            let found: Vec<_> =
                list["data"].as_array().unwrap().iter().map(|batch| batch["id"].as_str().unwrap()).collect();
            assert_eq!(
                (found, &list["has_more"]),
                (ids[first..first + count].iter().map(String::as_str).collect(), &json!(more)),
                "{query}"
            );
            assert_eq!(list["object"], "list");
        }
        for (query, expected) in [
            ("?limit=0", "400 limit -: `limit` must be a whole number from 1 to 100"),
            ("?limit=101", "400 limit -: "),
            ("?after=batch_nobody", "400 after -: `after` names no batch"),
        ] {
            let error = server.get(&format!("{PATH}{query}")).await.error();
            assert!(error.starts_with(expected), "{error}, not {expected}");
        }
    }
}
