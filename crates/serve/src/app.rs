//! What handlers see of the server.

use crate::{Limits, Served, Serving, api::keeping::FilesState, dialects::responses::Responses, metrics::Metrics};
use axum::extract::FromRef;
use narthex_http::Stopping;
use std::sync::Arc;

/// What handlers share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct App {
    /// The model that this request began with.
    pub model: Arc<Served>,
    pub shared: Shared,
}

/// What all requests share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub serving: Arc<Serving>,
    pub limits: Arc<Limits>,
    /// How the models write calls of tools, if their templates do not tell.
    pub call_parser: Option<Arc<str>>,
    /// What is kept of the Responses API.
    pub responses: Arc<Responses>,
    /// What is kept of files and batches.
    pub files: FilesState,
    pub metrics: Arc<Metrics>,
    /// Whether the server is about to stop.
    pub stopping: Stopping,
}

impl FromRef<Shared> for App {
    fn from_ref(shared: &Shared) -> Self {
        Self { model: shared.serving.model(), shared: shared.clone() }
    }
}

impl FromRef<Shared> for FilesState {
    fn from_ref(shared: &Shared) -> Self {
        shared.files.clone()
    }
}
