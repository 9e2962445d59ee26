//! What the handlers of files and batches share: the store, its errors in the API's words, and pages of lists. Knows no
//! form of a request's body.

use crate::batches::{ObjectKind, Paging, Store, StoreError};
use axum::{
    extract::{FromRequestParts, Path, Query},
    http::{StatusCode, request::Parts},
};
use narthex_http::ApiError;
use serde::Serialize;
use std::sync::Arc;

/// Where files and batches lie; nothing where the server keeps none.
#[derive(Clone, Default)]
pub(crate) struct FilesState(pub Option<Arc<Store>>);

impl FilesState {
    /// The store, or the error that says how to get one.
    pub(crate) fn open(self) -> Result<Arc<Store>, ApiError> {
        self.0.ok_or_else(|| {
            let message = "this server keeps no files and no batches: start it with `--files-dir DIR`";
            ApiError::request(StatusCode::NOT_IMPLEMENTED, message, Some("files_not_enabled"))
        })
    }

    /// Does something with the disk where it holds nobody up.
    pub(crate) async fn with<T: Send + 'static>(
        self,
        work: impl FnOnce(&Arc<Store>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<Result<T, StoreError>, ApiError> {
        let store = self.open()?;
        blocking(move || work(&store)).await
    }
}

/// Runs what waits for the disk.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| ApiError::internal(error.to_string()))
}

/// A store's error about the thing that the URL names, or about a field.
pub(crate) fn refusal(error: StoreError, kind: &str, id: &str) -> ApiError {
    let message = error.to_string();
    let request = |status, code| ApiError::request(status, message.clone(), Some(code));
    match error {
        StoreError::Unknown => {
            let id: String = id.chars().take(64).collect();
            let message = format!("there is no {kind} `{id}`");
            ApiError::request(StatusCode::NOT_FOUND, message, Some("not_found")).param("id")
        }
        StoreError::UnknownCursor(id) => {
            let id: String = id.chars().take(64).collect();
            ApiError::field("after", format!("`after` names no {kind}: there is no `{id}`"))
        }
        StoreError::FileTooLarge(_) => request(StatusCode::PAYLOAD_TOO_LARGE, "file_too_large").param("file"),
        StoreError::Full(_) | StoreError::TooManyFiles(_) => request(StatusCode::PAYLOAD_TOO_LARGE, "files_full"),
        StoreError::TooManyBatches(_) => request(StatusCode::TOO_MANY_REQUESTS, "too_many_batches"),
        StoreError::InUse(_) => request(StatusCode::CONFLICT, "file_in_use"),
        StoreError::NotForBatches(_) => ApiError::field("input_file_id", message).code("invalid_purpose"),
        StoreError::Ended(_) => request(StatusCode::CONFLICT, "batch_ended"),
        StoreError::Io(_) => ApiError::internal(message),
    }
}

/// A page of a list.
#[derive(Serialize)]
pub(crate) struct Page<T> {
    object: ObjectKind,
    data: Vec<T>,
    first_id: Option<String>,
    last_id: Option<String>,
    has_more: bool,
}

impl<T> Page<T> {
    /// Of things in their order, and whether there are more.
    pub fn new((data, has_more): (Vec<T>, bool), id: impl Fn(&T) -> &String) -> Self {
        let (first_id, last_id) = (data.first().map(&id).cloned(), data.last().map(&id).cloned());
        Self { object: ObjectKind::List, data, first_id, last_id, has_more }
    }
}

/// The name that stands in the path, whatever it is.
pub(crate) struct Id(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(id)) => Ok(Self(id)),
            Err(rejection) => Err(ApiError::invalid(format!("cannot read the URL: {}", rejection.body_text()))),
        }
    }
}

/// What stands behind the `?`.
pub(crate) struct Asked(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(pairs)) => Ok(Self(pairs)),
            Err(rejection) => Err(ApiError::invalid(format!("cannot read the URL: {}", rejection.body_text()))),
        }
    }
}

impl Asked {
    /// The value of a name that says something; the last, if there are several.
    pub fn get(&self, name: &str) -> Option<&str> {
        let value = self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        value.filter(|value| !value.is_empty())
    }

    /// `limit`, `after` and `order`.
    pub fn paging(&self, default: usize, most: usize) -> Result<Paging, ApiError> {
        let limit = match self.get("limit").map(str::parse) {
            None => default,
            Some(Ok(limit)) if (1..=most).contains(&limit) => limit,
            Some(_) => {
                let message = format!("`limit` must be a whole number from 1 to {most}");
                return Err(ApiError::field("limit", message));
            }
        };
        let newest_first = match self.get("order") {
            None | Some("desc") => true,
            Some("asc") => false,
            Some(_) => return Err(ApiError::field("order", "`order` must be `asc` or `desc`")),
        };
        Ok(Paging { limit, after: self.get("after").map(str::to_string), newest_first })
    }
}
