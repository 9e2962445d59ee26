//! `GET /v1/models`, `GET /v1/models/{id}` and `GET /v1/models/{id}/manifest`: the one model, its adapters, and their
//! papers.

use super::{lineage::over, parameters::unknown_model};
use crate::{Ability, AdapterEntry, Served, app::App};
use axum::{
    Json,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use narthex_base::License;
use narthex_http::ApiError;
use narthex_openness::{Openness, Shown};
use serde::Serialize;
use serde_json::{Value, json};

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
    fn of(model: &Served) -> Self {
        let own = &model.provenance;
        Self {
            id: model.id.clone(),
            object: "model",
            created: model.created,
            owned_by: "narthex",
            max_model_len: model.ability.context(),
            chat: model.ability.chats(),
            license: own.license.clone(),
            openness_class: own.openness.as_ref().and_then(|openness| openness.class),
            task: model.ability.task(),
            labels: match &model.ability {
                Ability::Labels(labels) => Some(labels.names.clone()),
                _ => None,
            },
            parent: None,
            root: model.id.clone(),
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
            root: entry.source.place().display().to_string(),
            ..base.clone()
        }
    }
}

/// The end of the address of a model's manifest.
const MANIFEST: &str = "/manifest";

/// Lists the model, then its adapters.
pub(crate) async fn list(State(app): State<App>) -> Json<Models> {
    let base = Model::of(&app.model);
    let adapters = app.model.ability.adapters().map(|adapters| adapters.list()).unwrap_or_default();
    let adapters: Vec<Model> = adapters.iter().map(|entry| Model::adapter(&base, entry)).collect();
    Json(Models { object: "list", data: std::iter::once(base).chain(adapters).collect() })
}

/// Shows one model or adapter by name, or, with `/manifest` behind the name, gives its manifest and those of its
/// ancestors.
pub(crate) async fn get(State(app): State<App>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let model = &app.model;
    if let Some(shown) = shown(&id, model) {
        return Ok(Json(shown).into_response());
    }
    let papers = id.strip_suffix(MANIFEST).and_then(|id| papers(id, model));
    papers.unwrap_or_else(|| Err(unknown_model(&id, model)))
}

/// The model or adapter of this name, if there is one. Nothing is loaded for it.
fn shown(id: &str, model: &Served) -> Option<ModelWithLineage> {
    let manifest = |shown: &Shown| shown.papers.as_ref().map(|_| format!("/v1/models/{id}{MANIFEST}"));
    if id == model.id {
        return Some(ModelWithLineage {
            model: Model::of(model),
            openness: model.provenance.openness.clone(),
            lineage: json!(model.provenance.lineage),
            manifest: manifest(&model.provenance),
        });
    }
    let entry = model.ability.adapters()?.find(id)?;
    Some(ModelWithLineage {
        model: Model::adapter(&Model::of(model), &entry),
        openness: entry.source.provenance().openness.clone(),
        lineage: over(entry.source.as_ref(), id, model),
        manifest: manifest(entry.source.provenance()),
    })
}

/// The papers of the model or adapter of this name as a download, or that it has none; none if there is no such name.
fn papers(id: &str, model: &Served) -> Option<Result<Response, ApiError>> {
    let (kind, papers) = if id == model.id {
        ("model", model.provenance.papers.clone())
    } else {
        ("adapter", model.ability.adapters()?.find(id)?.source.provenance().papers.clone())
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
            "license": "MIT", "openness_class": 3, "task": "generate", "parent": null, "root": "m",
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
