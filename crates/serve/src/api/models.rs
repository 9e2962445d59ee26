//! `GET /v1/models` and `GET /v1/models/{id}`: the one model.

use crate::{ServedModel, app::App, error::ApiError, parameters::check_model};
use axum::{
    Json,
    extract::{Path, State},
};
use serde::Serialize;

#[derive(Serialize)]
pub(crate) struct Model {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    /// vLLM's name for the context, in tokens.
    max_model_len: usize,
    /// Whether the model takes messages. Our own field, for the page.
    chat: bool,
}

#[derive(Serialize)]
pub(crate) struct Models {
    object: &'static str,
    data: [Model; 1],
}

impl Model {
    fn of(model: &ServedModel) -> Self {
        Self {
            id: model.id.clone(),
            object: "model",
            created: model.created,
            owned_by: "narthex",
            max_model_len: model.generator.context(),
            chat: model.template.is_some(),
        }
    }
}

/// Lists the model.
pub(crate) async fn list(State(app): State<App>) -> Json<Models> {
    Json(Models { object: "list", data: [Model::of(&app.model)] })
}

/// Shows one model by name.
pub(crate) async fn get(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Model>, ApiError> {
    check_model(&id, &app.model)?;
    Ok(Json(Model::of(&app.model)))
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
        });
        assert_eq!(get(&router, "/v1/models").await.json(200), json!({"object": "list", "data": [model]}));
        assert_eq!(get(&router, "/v1/models/m").await.json(200), model);
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
