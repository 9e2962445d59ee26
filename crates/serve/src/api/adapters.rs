//! `POST /v1/load_lora_adapter` and `POST /v1/unload_lora_adapter`, as vLLM has them: adapters come and go while the server
//! answers.

use crate::{
    adapter_source::NotServed,
    app::App,
    error::ApiError,
    fields::{Fields, JsonBody},
    log,
};
use axum::{extract::State, http::StatusCode};
use narthex_base::Error;

/// Adds an adapter under a name.
pub(crate) async fn load(State(app): State<App>, JsonBody(fields): JsonBody) -> Result<String, ApiError> {
    // Reading an adapter takes a while; answers go on meanwhile.
    let worked = tokio::task::spawn_blocking(move || add(&app, fields)).await;
    worked.map_err(|error| ApiError::internal(error.to_string()))?
}

fn add(app: &App, mut fields: Fields) -> Result<String, ApiError> {
    let (model, adapters) = (&app.model, &app.model.adapters);
    allowed(app)?;
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
    let folder = adapters.resolve(&path)?;
    let source = adapters.open(&name, &folder).map_err(|reason| match reason {
        NotServed::Refused(error) => {
            ApiError::request(StatusCode::FORBIDDEN, error.to_string(), Some("adapter_refused")).param("lora_path")
        }
        NotServed::Unfit(error) => unfit(&error),
    })?;
    let warnings = adapters.add(&name, source, model).map_err(|error| unfit(&error))?;
    warnings.iter().for_each(|warning| log::warn(warning));
    Ok(format!("Success: LoRA adapter '{name}' added successfully."))
}

fn unfit(error: &Error) -> ApiError {
    ApiError::field("lora_path", error.to_string())
}

/// Takes an adapter away; requests under way keep it.
pub(crate) async fn unload(State(app): State<App>, JsonBody(mut fields): JsonBody) -> Result<String, ApiError> {
    allowed(&app)?;
    let name = fields.string("lora_name")?.ok_or_else(|| fields.missing("lora_name"))?;
    // vLLM's number of it, which does not matter there either.
    fields.take("lora_int_id");
    fields.finish()?;
    if !app.model.adapters.remove(&name) {
        let message = format!("there is no adapter `{name}`");
        return Err(ApiError::request(StatusCode::NOT_FOUND, message, Some("adapter_not_found")).param("lora_name"));
    }
    Ok(format!("Success: LoRA adapter '{name}' removed successfully."))
}

/// Refuses where the server was not started for it.
fn allowed(app: &App) -> Result<(), ApiError> {
    if app.model.adapters.is_open() { Ok(()) } else { app.model.adapters.resolve("").map(|_| ()) }
}
