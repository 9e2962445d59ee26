//! `/admin/model`: goes over to another version of a model while the server answers, at once or after a trial on a share of the requests.
//! Only with a key of its own (`--admin-key`).

use crate::{
    Serving,
    app::{Shared, unknown},
    model::TrialLimits,
};
use axum::{
    Json,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
};
use narthex_http::{ApiError, ApiKey, Fields, JsonBody};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// Failures that a trial allows unless told otherwise.
const ERROR_RATE_MAX: f64 = 0.01;

/// Refuses whoever does not show a key of those who run the server.
fn check_key(shared: &Shared, headers: &HeaderMap) -> Result<(), ApiError> {
    if shared.admin_keys.is_empty() {
        let message = "this server takes no orders over HTTP: `narthex serve --admin-key KEY` lets it";
        return Err(ApiError::request(StatusCode::NOT_FOUND, message, Some("admin_off")));
    }
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let key = given.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    match key {
        Some((_, key)) if ApiKey::new(key.trim()).is_among(&shared.admin_keys) => Ok(()),
        _ => {
            let message = "a key of those who run this server is needed: `Authorization: Bearer KEY`";
            Err(ApiError::request(StatusCode::UNAUTHORIZED, message, Some("invalid_api_key")))
        }
    }
}

/// The model of this name; without one, the only one there is.
fn find<'a>(shared: &'a Shared, name: Option<&str>) -> Result<&'a Arc<Serving>, ApiError> {
    match (shared.models.only(), name) {
        (Some(only), None) => Ok(only),
        (_, Some(name)) => shared.models.find(name).ok_or_else(|| unknown(name, &shared.models)),
        (None, None) => Err(ApiError::field("model", "there are several models: name one in `model`")),
    }
}

fn shown(serving: &Serving) -> Value {
    let described = serving.described();
    let papers = described.provenance.papers.as_ref();
    let digest = papers.map(|papers| papers.manifest.digest().to_string());
    let mut shown = json!({
        "model": described.id, "digest": digest, "license": described.provenance.license,
        "said": serving.said(), "trial": null,
    });
    if let Some(trial) = serving.trial() {
        let (counts, limits) = (trial.counts(), trial.limits);
        let papers = trial.model.provenance.papers.as_ref();
        shown["trial"] = json!({
            "digest": papers.map(|papers| papers.manifest.digest().to_string()), "share": limits.share,
            "requests": limits.requests, "ended": counts.ended, "failed": counts.failed,
            "error_rate_max": limits.error_rate_max, "first_token_s_max": limits.first_token_s_max,
        });
    }
    shown
}

/// `GET /admin/model`: each model, its version and what is on trial.
pub(crate) async fn get(State(shared): State<Shared>, headers: HeaderMap) -> Result<Json<Value>, ApiError> {
    check_key(&shared, &headers)?;
    let models: Vec<Value> = shared.models.all().iter().map(|serving| shown(serving)).collect();
    Ok(Json(json!({ "models": models })))
}

/// `POST /admin/model`: `{"reference": …, "model": …, "share": 0.1, "requests": 200, "error_rate_max": 0.01, "first_token_s_max": 2}`.
/// Answers once the version is loaded: it has taken over, or its trial has begun.
pub(crate) async fn post(
    State(shared): State<Shared>,
    headers: HeaderMap,
    JsonBody(mut fields): JsonBody,
) -> Result<Json<Value>, ApiError> {
    check_key(&shared, &headers)?;
    let reference = fields.string("reference")?.ok_or_else(|| fields.missing("reference"))?;
    let name = fields.string("model")?;
    let limits = limits(&mut fields)?;
    // Elsewhere a field that nobody knows is passed over; a bound of a trial that is misspelt would be no bound.
    if let Some(field) = fields.rest().keys().next() {
        return Err(ApiError::field(field.clone(), format!("`{field}` is not known here")));
    }
    let serving = find(&shared, name.as_deref())?.clone();
    if serving.trial().is_some() {
        let message = "another version is on trial: wait for its end, or end it with DELETE /admin/model";
        return Err(ApiError::request(StatusCode::CONFLICT, message, Some("trial_under_way")));
    }
    let going = serving.clone();
    let outcome = tokio::task::spawn_blocking(move || going.go_over(&reference, limits)).await;
    let outcome = outcome.map_err(|error| ApiError::internal(error.to_string()))?;
    outcome.map_err(|error| {
        let help = error.help_text().map_or(String::new(), |help| format!("; {help}"));
        let message = format!("the model stays as it is: {}{help}", error.what());
        ApiError::request(StatusCode::CONFLICT, message, Some("version_refused"))
    })?;
    Ok(Json(shown(&serving)))
}

/// `DELETE /admin/model?model=NAME`: ends a trial; the version before goes on alone.
pub(crate) async fn delete(
    State(shared): State<Shared>,
    headers: HeaderMap,
    Query(query): Query<BTreeMap<String, String>>,
) -> Result<Json<Value>, ApiError> {
    check_key(&shared, &headers)?;
    let serving = find(&shared, query.get("model").map(String::as_str))?;
    if !serving.end_trial("it was ended by hand") {
        return Err(ApiError::request(StatusCode::CONFLICT, "no version is on trial", Some("no_trial")));
    }
    Ok(Json(shown(serving)))
}

fn limits(fields: &mut Fields) -> Result<TrialLimits, ApiError> {
    let share = fields.number("share", 0.0..=1.0)?.unwrap_or(1.0);
    if share == 0.0 {
        return Err(ApiError::field("share", "`share` is more than 0 and at most 1"));
    }
    let requests = fields.integer("requests", 0..=1_000_000)?;
    let requests = requests.map_or(if share < 1.0 { 100 } else { 0 }, i64::unsigned_abs);
    let error_rate_max = fields.number("error_rate_max", 0.0..=1.0)?.unwrap_or(ERROR_RATE_MAX);
    let first_token_s_max = fields.number("first_token_s_max", 0.0..=86_400.0)?;
    Ok(TrialLimits { share, requests, error_rate_max, first_token_s_max })
}

#[cfg(test)]
mod tests {
    use crate::{
        Models, ServeOptions, Served, Serving,
        api::keeping::FilesState,
        dialects::responses::Responses,
        model::Described,
        router::routes,
        testing::{self, byte_tokens, post, send},
    };
    use axum::{Router, body::Body, http::Request};
    use narthex_base::Error;
    use narthex_http::{ApiKey, HttpOptions, Observers, Stopping, guarded};
    use narthex_infer::scripted::{Scripted, say};
    use serde_json::{Value, json};
    use std::sync::Arc;

    /// The model `m` that says this.
    fn saying(text: &str) -> Served {
        let said = byte_tokens(text.as_bytes());
        testing::model_of(Arc::new(Scripted::new(move |request| say(request, &said)).with_context(64)))
    }

    /// A server of `m`, which says `old`; of its other versions `bad` cannot be loaded.
    fn router(keys: &[&str]) -> Router {
        let load = |reference: Option<&str>| match reference {
            Some("bad") => Err(Error::input("its weights are damaged").help("pull it again")),
            other => Ok(saying(other.unwrap_or("old"))),
        };
        let admin_keys = keys.iter().map(|key| ApiKey::new(key)).collect();
        let options = ServeOptions { admin_keys, ..ServeOptions::default() };
        let models = Arc::new(Models::of(Arc::new(Serving::with_load(saying("old"), load))));
        let routes =
            routes(models, &options, Stopping::default(), &FilesState::default(), Responses::new(options.responses));
        guarded(routes, &HttpOptions::default(), |_| false, Observers::default())
    }

    async fn admin(router: &Router, method: &str, path: &str, body: Value, key: &str) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {key}"))
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()))
            .unwrap();
        let (status, text) = send(router, request).await.any();
        (status, serde_json::from_str(&text).unwrap())
    }

    async fn answers(router: &Router, count: usize) -> Vec<String> {
        let mut found = vec![];
        for _ in 0..count {
            let body = json!({"model": "m", "prompt": "x", "max_tokens": 8});
            let answer = post(router, "/v1/completions", &body).await.json(200);
            found.push(answer["choices"][0]["text"].as_str().unwrap().to_string());
        }
        found
    }

    #[tokio::test]
    async fn only_those_who_run_the_server_may() {
        let closed = router(&[]);
        assert_eq!(admin(&closed, "GET", "/admin/model", json!({}), "k").await.0, 404);
        let open = router(&["k"]);
        for key in ["", "K", "kk"] {
            assert_eq!(admin(&open, "GET", "/admin/model", json!({}), key).await.0, 401);
            assert_eq!(admin(&open, "POST", "/admin/model", json!({"reference": "new"}), key).await.0, 401);
        }
        let (status, shown) = admin(&open, "GET", "/admin/model", json!({}), "k").await;
        assert_eq!(
            (status, &shown["models"][0]["model"], &shown["models"][0]["trial"]),
            (200, &json!("m"), &Value::Null)
        );
    }

    #[tokio::test]
    async fn over_at_once_or_not_at_all() {
        let router = router(&["k"]);
        let (status, error) = admin(&router, "POST", "/admin/model", json!({"reference": "bad"}), "k").await;
        let message = error["error"]["message"].as_str().unwrap();
        assert_eq!((status, message), (409, "the model stays as it is: its weights are damaged; pull it again"));
        for body in [json!({}), json!({"reference": "x", "share": 0}), json!({"reference": "x", "shares": 1})] {
            assert_eq!(admin(&router, "POST", "/admin/model", body.clone(), "k").await.0, 400, "{body}");
        }
        let body = json!({"reference": "x", "model": "other"});
        assert_eq!(admin(&router, "POST", "/admin/model", body, "k").await.0, 404);
        assert_eq!(answers(&router, 2).await, ["old", "old"]);
        assert_eq!(admin(&router, "POST", "/admin/model", json!({"reference": "new"}), "k").await.0, 200);
        assert_eq!(answers(&router, 2).await, ["new", "new"]);
        assert_eq!(admin(&router, "DELETE", "/admin/model", json!({}), "k").await.0, 409);
    }

    #[tokio::test]
    async fn a_good_version_takes_over_after_its_trial() {
        let router = router(&["k"]);
        let body = json!({"reference": "new", "share": 0.5, "requests": 3, "first_token_s_max": 60});
        let (status, shown) = admin(&router, "POST", "/admin/model", body.clone(), "k").await;
        assert_eq!((status, &shown["trial"]["share"], &shown["trial"]["ended"]), (200, &json!(0.5), &json!(0)));
        assert_eq!(admin(&router, "POST", "/admin/model", body, "k").await.0, 409);
        assert_eq!(answers(&router, 4).await, ["old", "new", "old", "new"]);
        assert_eq!(answers(&router, 4).await, ["old", "new", "new", "new"]);
        let (_, shown) = admin(&router, "GET", "/admin/model", json!({}), "k").await;
        assert_eq!(shown["models"][0]["said"], "it took over after 3 requests, of which 0 failed");
    }

    #[tokio::test]
    async fn a_slow_version_goes_and_a_trial_can_be_ended() {
        let router = router(&["k"]);
        let body = json!({"reference": "new", "share": 1, "requests": 2, "first_token_s_max": 0});
        assert_eq!(admin(&router, "POST", "/admin/model", body, "k").await.0, 200);
        assert_eq!(answers(&router, 3).await, ["new", "new", "old"]);
        let (_, shown) = admin(&router, "GET", "/admin/model", json!({}), "k").await;
        let said = shown["models"][0]["said"].as_str().unwrap();
        assert!(said.starts_with("the version before goes on alone: 95 of 100 first tokens came within"), "{said}");
        let body = json!({"reference": "new", "share": 1, "requests": 100});
        assert_eq!(admin(&router, "POST", "/admin/model", body, "k").await.0, 200);
        assert_eq!(answers(&router, 1).await, ["new"]);
        assert_eq!(admin(&router, "DELETE", "/admin/model?model=m", json!({}), "k").await.0, 200);
        assert_eq!(answers(&router, 1).await, ["old"]);
    }

    #[tokio::test]
    async fn a_version_that_fails_goes() {
        let failing = || {
            let mut model = testing::model_of(Arc::new(Scripted::new(|_| vec![]).with_context(64)));
            model.id = "m".into();
            model
        };
        let serving = Arc::new(Serving::with_load(saying("old"), move |_: Option<&str>| Ok(failing())));
        let limits =
            crate::model::TrialLimits { share: 1.0, requests: 10, error_rate_max: 0.0, first_token_s_max: None };
        serving.go_over("new", limits).unwrap();
        let model = serving.model_at(1).unwrap();
        assert_eq!(Described::of(&model).id, "m");
        serving.ended(&model, true, None);
        assert!(serving.trial().is_some());
        serving.ended(&model, true, None);
        assert!(serving.trial().is_none() && serving.said().unwrap().contains("2 of 2 requests failed"));
        // What ends late counts no more.
        serving.ended(&model, true, None);
        assert!(!Arc::ptr_eq(&serving.model_at(2).unwrap(), &model));
    }
}
