//! `GET /v1/models`, `GET /v1/models/{id}` and `GET /v1/models/{id}/manifest`: the models, their adapters, and their
//! papers; and which of them are in memory.

use super::{encoding::read_model, lineage::over};
use crate::{
    AdapterEntry, Serving,
    app::{Addressed, Shared, unknown},
    model::Described,
};
use axum::{
    Json,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use narthex_base::License;
use narthex_http::{ApiError, JsonBody};
use narthex_openness::{Openness, Shown};
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;

#[derive(Clone, Serialize)]
pub(crate) struct Model {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    /// vLLM's name for the context, in tokens.
    max_model_len: usize,
    /// Whether the model takes messages. Our own field, for the page; so are those that follow.
    chat: bool,
    /// The licence of its own components; null where none is declared.
    license: Option<License>,
    /// The class of the Model Openness Framework: 1, 2, 3 or null.
    openness_class: Option<u8>,
    /// What it does: `generate`, `embed`, `score` or `classify`. Our own field too.
    task: &'static str,
    /// The classes of a classifier, in the order of its numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<Vec<String>>,
    /// Of an adapter, the model that it changes; as vLLM has it.
    parent: Option<String>,
    /// Of an adapter, where it lies, and of a model its name; as vLLM has it.
    root: String,
    /// Whether it is in memory; as llama-server has it.
    status: Status,
}

/// Whether a model is in memory.
#[derive(Clone, Copy, Serialize)]
struct Status {
    /// `loaded` or `unloaded`.
    value: &'static str,
}

impl Status {
    fn of(is_loaded: bool) -> Self {
        Self { value: if is_loaded { "loaded" } else { "unloaded" } }
    }
}

#[derive(Serialize)]
pub(crate) struct Models {
    object: &'static str,
    data: Vec<Model>,
}

/// One model with what it was made from.
#[derive(Serialize)]
pub(crate) struct ModelWithLineage {
    #[serde(flatten)]
    model: Model,
    /// The class in full: what it is, and what is missing for the next.
    openness: Option<Openness>,
    /// The tree of what it was made from.
    lineage: Value,
    /// Where its manifest can be downloaded; null where it has none.
    manifest: Option<String>,
}

impl Model {
    fn of(model: &Described, status: Status) -> Self {
        let own = &model.provenance;
        Self {
            id: model.id.clone(),
            object: "model",
            created: model.created,
            owned_by: "narthex",
            max_model_len: model.context,
            chat: model.chats,
            license: own.license.clone(),
            openness_class: own.openness.as_ref().and_then(|openness| openness.class),
            task: model.task,
            labels: model.labels.clone(),
            parent: None,
            root: model.id.clone(),
            status,
        }
    }

    /// An adapter, under its own terms.
    fn adapter(base: &Self, entry: &AdapterEntry) -> Self {
        let own = entry.source.provenance();
        Self {
            id: entry.name.clone(),
            created: entry.created,
            license: own.license.clone(),
            openness_class: own.openness.as_ref().and_then(|openness| openness.class),
            parent: Some(base.id.clone()),
            status: Status::of(entry.loaded),
            root: entry.source.place().display().to_string(),
            ..base.clone()
        }
    }
}

/// The end of the address of a model's manifest.
const MANIFEST: &str = "/manifest";

/// Lists the models, each with its adapters behind it.
pub(crate) async fn list(State(shared): State<Shared>) -> Json<Models> {
    let with_adapters = |serving: &Arc<Serving>| {
        let known = serving.described();
        let base = Model::of(&known, Status::of(serving.is_loaded()));
        let adapters: Vec<Model> = known.adapters().iter().map(|entry| Model::adapter(&base, entry)).collect();
        std::iter::once(base).chain(adapters)
    };
    Json(Models { object: "list", data: shared.models.all().iter().flat_map(with_adapters).collect() })
}

/// `POST /models/load`: has a model in memory.
pub(crate) async fn load(asked: Addressed) -> Result<Json<Value>, ApiError> {
    let Addressed { app, mut fields, .. } = asked;
    read_model(&mut fields, &app.model)?;
    fields.finish()?;
    Ok(Json(json!({"success": true})))
}

/// `POST /models/unload`: puts a model out of memory until it is asked for again.
pub(crate) async fn unload(
    State(shared): State<Shared>,
    JsonBody(mut fields): JsonBody,
) -> Result<Json<Value>, ApiError> {
    let name = fields.string("model")?.ok_or_else(|| fields.missing("model"))?;
    fields.finish()?;
    let serving = shared.models.find(&name).ok_or_else(|| unknown(&name, &shared.models))?;
    if serving.is_loaded() && !serving.unload() {
        let message = format!("the model `{name}` stays in memory: it could not be loaded again");
        return Err(ApiError::field("model", message));
    }
    Ok(Json(json!({"success": true})))
}

/// Shows one model or adapter by name, or, with `/manifest` behind the name, gives its manifest and those of its
/// ancestors.
pub(crate) async fn get(State(shared): State<Shared>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let find = |id: &str| shared.models.find(id);
    if let Some(shown) = find(&id).and_then(|serving| shown(&id, serving)) {
        return Ok(Json(shown).into_response());
    }
    let papers = id.strip_suffix(MANIFEST).and_then(|id| papers(id, &find(id)?.described()));
    papers.unwrap_or_else(|| Err(unknown(&id, &shared.models)))
}

/// The model or adapter of this name, if there is one. Nothing is loaded for it.
fn shown(id: &str, serving: &Serving) -> Option<ModelWithLineage> {
    let (model, status) = (&*serving.described(), Status::of(serving.is_loaded()));
    let manifest = |shown: &Shown| shown.papers.as_ref().map(|_| format!("/v1/models/{id}{MANIFEST}"));
    if id == model.id {
        return Some(ModelWithLineage {
            model: Model::of(model, status),
            openness: model.provenance.openness.clone(),
            lineage: json!(model.provenance.lineage),
            manifest: manifest(&model.provenance),
        });
    }
    let entry = model.adapter(id)?;
    Some(ModelWithLineage {
        model: Model::adapter(&Model::of(model, status), &entry),
        openness: entry.source.provenance().openness.clone(),
        lineage: over(entry.source.as_ref(), id, model),
        manifest: manifest(entry.source.provenance()),
    })
}

/// The papers of the model or adapter of this name as a download, or that it has none; none if there is no such name.
fn papers(id: &str, model: &Described) -> Option<Result<Response, ApiError>> {
    let (kind, papers) = if id == model.id {
        ("model", model.provenance.papers.clone())
    } else {
        ("adapter", model.adapter(id)?.source.provenance().papers.clone())
    };
    let name = (header::CONTENT_DISPOSITION, "attachment; filename=\"narthex.json\"");
    Some(papers.map(|papers| ([name], Json(papers)).into_response()).ok_or_else(|| {
        let message = format!("the {kind} `{id}` came without papers");
        ApiError::request(StatusCode::NOT_FOUND, message, Some("manifest_not_found"))
    }))
}

#[cfg(test)]
mod tests {
    use crate::testing::{self, get};
    use serde_json::json;

    #[tokio::test]
    async fn lists_and_shows() {
        let router = testing::router(|_| vec![]);
        let model = json!({
            "id": "m", "object": "model", "created": 1_700_000_000, "owned_by": "narthex", "max_model_len": 64, "chat": true,
            "license": "MIT", "openness_class": 3, "task": "generate", "parent": null, "root": "m", "status": {"value": "loaded"},
        });
        assert_eq!(get(&router, "/v1/models").await.json(200), json!({"object": "list", "data": [model]}));
        let shown = get(&router, "/v1/models/m").await.json(200);
        assert!(model.as_object().unwrap().iter().all(|(key, value)| shown[key] == *value), "{shown}");
        assert_eq!(shown["openness"]["class_name"], "Class III, Open Model");
        assert_eq!((shown["lineage"].is_null(), shown["manifest"].as_str()), (true, Some("/v1/models/m/manifest")));
        assert_eq!(get(&router, "/v1/models/m/manifest").await.json(200)["manifest"]["kind"], "bundle");
        get(&router, "/v1/models/other/manifest").await.json(404);
        let error = get(&router, "/v1/models/some/other").await.json(404);
        assert_eq!(
            error["error"],
            json!({
                "message": "the model `some/other` does not exist; this server has `m`",
                "type": "invalid_request_error", "param": "model", "code": "model_not_found",
            })
        );
    }
}
