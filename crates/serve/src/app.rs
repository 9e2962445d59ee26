//! What handlers see of the server, and how a request finds its model: by the name in its body, or, where it has none,
//! by the one in its query.

use crate::{
    Limits, Models, Served, Serving, api::keeping::FilesState, dialects::responses::Responses, model::NotReady,
};
use axum::{
    extract::{FromRef, FromRequest, FromRequestParts, Query, Request},
    http::{StatusCode, request},
};
use narthex_http::{ApiError, ApiKey, Exchange, Fields, GenerationRecord, JsonBody, Stopping};
use serde_json::Value;
use std::sync::Arc;

/// What handlers share, with the model that was asked for. Cheap to clone.
#[derive(Clone)]
pub(crate) struct App {
    /// The model that this request began with.
    pub model: Arc<Served>,
    /// Where it stands among the models.
    pub serving: Arc<Serving>,
    pub shared: Shared,
}

/// What all requests share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub models: Arc<Models>,
    pub limits: Arc<Limits>,
    /// What is kept of the Responses API.
    pub responses: Arc<Responses>,
    /// What is kept of files and batches.
    pub files: FilesState,
    /// Keys of those who may change what is served; none lets nobody.
    pub admin_keys: Arc<[ApiKey]>,
    /// Whether the server is about to stop.
    pub stopping: Stopping,
}

/// A request for a model: the one it names, who asks, and what nobody has read yet.
pub(crate) struct Addressed {
    pub app: App,
    pub exchange: Arc<Exchange>,
    pub fields: Fields,
}

impl App {
    /// With the model of this name, or of an adapter of this name, in memory. A server with one model takes it for
    /// whatever is asked: the endpoint says in its own words that it is another.
    ///
    /// # Errors
    /// If there is none, none is named where there are several, or it cannot be loaded.
    pub async fn choose(shared: &Shared, name: Option<&str>) -> Result<Self, ApiError> {
        let models = &shared.models;
        let serving = match (models.only(), name) {
            (Some(only), _) => only,
            (None, Some(name)) => {
                // Ollama's clients name a version of a model too.
                let plain = || models.find(name.strip_suffix(":latest")?);
                models.find(name).or_else(plain).ok_or_else(|| unknown(name, models))?
            }
            (None, None) => {
                let message = format!("there are several models: name one in `model`; {}", known(models));
                return Err(ApiError::field("model", message));
            }
        };
        let model = models.ready(serving).await.map_err(|reason| match reason {
            NotReady::Busy => {
                let message = "the models in memory are busy and there is no room for another: try again later";
                ApiError::server(StatusCode::SERVICE_UNAVAILABLE, message, Some("models_busy"))
            }
            NotReady::Broken(error) => {
                let message = format!("the model `{}` cannot be loaded: {}", serving.described().id, error.what());
                ApiError::server(StatusCode::SERVICE_UNAVAILABLE, message, Some("model_unavailable")).param("model")
            }
        })?;
        Ok(Self { model, serving: serving.clone(), shared: shared.clone() })
    }

    /// If the model is on trial, how this request ends counts.
    fn watch(&self, exchange: &Exchange) {
        if self.serving.trial().is_none_or(|trial| !Arc::ptr_eq(&trial.model, &self.model)) {
            return;
        }
        let (serving, model) = (self.serving.clone(), self.model.clone());
        exchange.at_end(move |ended| {
            let generation = ended.generation.as_ref();
            // Text that ended without a reason, though the client was there, ended with an error.
            let writes = |record: &&GenerationRecord| ["chat", "text_completion"].contains(&record.operation);
            let broke = generation.filter(writes).is_some_and(|record| record.finish_reasons.is_empty());
            let failed = ended.status.is_server_error() || (ended.complete && ended.status.is_success() && broke);
            serving.ended(&model, failed, generation.and_then(|record| record.first_token_s));
        });
    }
}

/// There is neither a model nor an adapter of this name.
pub(crate) fn unknown(name: &str, models: &Models) -> ApiError {
    let message = format!("the model `{name}` does not exist; {}", known(models));
    ApiError::request(StatusCode::NOT_FOUND, message, Some("model_not_found")).param("model")
}

/// Names that an error shows at most.
const NAMES_SHOWN: usize = 16;

fn known(models: &Models) -> String {
    let names = models.all().iter().map(|serving| format!("`{}`", serving.described().id));
    let more = if models.all().len() > NAMES_SHOWN { " and others" } else { "" };
    format!("this server has {}{more}", names.take(NAMES_SHOWN).collect::<Vec<_>>().join(", "))
}

/// The model that `?model=NAME` says, in memory or not; without it, the first of several.
pub(crate) struct Named(pub Arc<Serving>);

impl FromRequestParts<Shared> for Named {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut request::Parts, shared: &Shared) -> Result<Self, ApiError> {
        let query = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let query = query.map_err(|error| ApiError::invalid(format!("the query cannot be read: {error}")))?;
        let asked = query.0.into_iter().find_map(|(key, value)| (key == "model").then_some(value));
        let found = match &asked {
            Some(name) => shared.models.find(name).ok_or_else(|| unknown(name, &shared.models))?,
            None => shared.models.all().first().ok_or_else(|| unknown("", &shared.models))?,
        };
        Ok(Self(found.clone()))
    }
}

/// As [`Named`], in memory.
impl FromRequestParts<Shared> for App {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut request::Parts, shared: &Shared) -> Result<Self, ApiError> {
        let Named(serving) = Named::from_request_parts(parts, shared).await?;
        Self::choose(shared, Some(&serving.described().id)).await
    }
}

/// By the field `model`.
impl FromRequest<Shared> for Addressed {
    type Rejection = ApiError;

    async fn from_request(request: Request, shared: &Shared) -> Result<Self, ApiError> {
        let exchange = request.extensions().get::<Arc<Exchange>>().cloned();
        let exchange = exchange.ok_or_else(|| ApiError::internal("a request without an exchange"))?;
        let JsonBody(fields) = JsonBody::from_request(request, shared).await?;
        let app = App::choose(shared, fields.look("model").and_then(Value::as_str)).await?;
        app.watch(&exchange);
        Ok(Self { app, exchange, fields })
    }
}

impl FromRef<Shared> for FilesState {
    fn from_ref(shared: &Shared) -> Self {
        shared.files.clone()
    }
}
