//! `POST /v1/load_lora_adapter` and `POST /v1/unload_lora_adapter`, as vLLM has them: adapters come and go while the
//! server answers.

use crate::{
    Adapters, NotServed,
    app::{App, Shared},
};
use axum::{extract::State, http::StatusCode};
use narthex_base::Error;
use narthex_http::{ApiError, Fields, JsonBody, warn};
use std::path::{Path, PathBuf};

/// Adds an adapter under a name.
pub(crate) async fn load(State(shared): State<Shared>, JsonBody(mut fields): JsonBody) -> Result<String, ApiError> {
    // vLLM's name for the model that it is for.
    let base = fields.string("base_model_name")?;
    let app = App::choose(&shared, base.as_deref()).await?;
    // Reading an adapter takes a while; answers go on meanwhile.
    let worked = tokio::task::spawn_blocking(move || add(&app, fields)).await;
    worked.map_err(|error| ApiError::internal(error.to_string()))?
}

fn add(app: &App, mut fields: Fields) -> Result<String, ApiError> {
    let model = &app.model;
    let (adapters, root) = open(app)?;
    let name = fields.string("lora_name")?.ok_or_else(|| fields.missing("lora_name"))?;
    let path = fields.string("lora_path")?.ok_or_else(|| fields.missing("lora_path"))?;
    let in_place = fields.flag("load_inplace")?.unwrap_or(false);
    fields.finish()?;
    if name == model.id {
        return Err(ApiError::field("lora_name", format!("`{name}` is the name of the model itself")));
    }
    if !in_place && adapters.list().iter().any(|entry| entry.name == name) {
        let message = format!("`{name}` is loaded already: unload it first, or set `load_inplace`");
        return Err(ApiError::field("lora_name", message));
    }
    let folder = resolve(root, &path)?;
    let source = adapters.open(&name, &folder).map_err(|reason| match reason {
        NotServed::Refused(error) => {
            ApiError::request(StatusCode::FORBIDDEN, error.to_string(), Some("adapter_refused")).param("lora_path")
        }
        NotServed::Unfit(error) => unfit(&error),
    })?;
    let warnings = adapters.add(&name, source, model).map_err(|error| unfit(&error))?;
    warnings.iter().for_each(|warning| warn(warning));
    Ok(format!("Success: LoRA adapter '{name}' added successfully."))
}

fn unfit(error: &Error) -> ApiError {
    ApiError::field("lora_path", error.to_string())
}

/// Takes an adapter away; requests under way keep it.
pub(crate) async fn unload(State(shared): State<Shared>, JsonBody(mut fields): JsonBody) -> Result<String, ApiError> {
    let name = fields.string("lora_name")?.ok_or_else(|| fields.missing("lora_name"))?;
    let base = shared.models.only().or_else(|| shared.models.find(&name)).map(|serving| serving.described().id.clone());
    let app = App::choose(&shared, base.as_deref().or(Some(&name))).await?;
    let (adapters, _) = open(&app)?;
    // vLLM's number of it, which does not matter there either.
    fields.take("lora_int_id");
    fields.finish()?;
    if !adapters.remove(&name) {
        let message = format!("there is no adapter `{name}`");
        return Err(ApiError::request(StatusCode::NOT_FOUND, message, Some("adapter_not_found")).param("lora_name"));
    }
    Ok(format!("Success: LoRA adapter '{name}' removed successfully."))
}

/// The model's adapters and where those lie that clients may load; refuses where the server was not started for it.
fn open(app: &App) -> Result<(&Adapters, &Path), ApiError> {
    let adapters = app.model.ability.adapters();
    adapters.and_then(|adapters| Some((adapters.as_ref(), adapters.folder()?))).ok_or_else(|| {
        let message = "this server loads no adapters over HTTP: start it with `--lora-dir DIR`";
        ApiError::request(StatusCode::FORBIDDEN, message, Some("lora_loading_off"))
    })
}

/// Where an adapter lies that a client names, within the folder from which clients may load.
fn resolve(root: &Path, path: &str) -> Result<PathBuf, ApiError> {
    let wrong = |message: String| ApiError::field("lora_path", message);
    let found = root.join(path).canonicalize();
    let found = found.map_err(|_| wrong(format!("there is no folder `{path}` in the server's `--lora-dir`")))?;
    if !found.starts_with(root) {
        return Err(wrong(format!("`{path}` is outside the server's `--lora-dir`")));
    }
    Ok(found)
}
