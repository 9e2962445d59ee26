//! What stands behind the `?` of an address, read name by name, with complaints that name it.

use axum::{
    extract::{FromRequestParts, Query},
    http::request::Parts,
};
use narthex_http::ApiError;
use std::ops::RangeInclusive;

/// Pairs in their order; a name may come several times.
pub(crate) struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::from_request_parts(parts, state).await;
        let Query(pairs) = query.map_err(|error| ApiError::invalid(error.body_text()))?;
        Ok(Self(pairs))
    }
}

impl Params {
    /// The last value of a name, unless it is empty.
    pub fn text(&self, name: &str) -> Option<String> {
        let (_, value) = self.0.iter().rfind(|(known, _)| known == name)?;
        (!value.is_empty()).then(|| value.clone())
    }

    /// All values of a name.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(known, _)| known == name).map(|(_, value)| value.clone()).collect()
    }

    /// Whether a name says yes.
    pub fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.text(name).as_deref() {
            None | Some("false" | "False" | "0") => Ok(false),
            Some("true" | "True" | "1") => Ok(true),
            Some(_) => Err(ApiError::field(name, format!("`{name}` must be true or false"))),
        }
    }

    /// A whole number within bounds.
    pub fn number(&self, name: &str, bounds: RangeInclusive<u64>) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.parse().ok().filter(|number| bounds.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                let (least, most) = (bounds.start(), bounds.end());
                Err(ApiError::field(name, format!("`{name}` must be a whole number from {least} to {most}")))
            }
        }
    }
}
