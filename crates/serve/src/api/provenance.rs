//! `GET /v1/provenance`: what the model and its adapters were made from and under which licences. Our own endpoint.

use crate::app::Named;
use axum::Json;
use indexmap::IndexMap;
use narthex_openness::Shown;
use serde::Serialize;

#[derive(Serialize)]
pub(crate) struct Provenance {
    #[serde(flatten)]
    own: Shown,
    /// Of each adapter, by name, as it is alone.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    adapters: IndexMap<String, Shown>,
}

/// What is known of the model; if there are adapters, of them too.
pub(crate) async fn get(Named(serving): Named) -> Json<Provenance> {
    let model = serving.described();
    let adapters = model.adapters().into_iter().map(|entry| (entry.name, entry.source.provenance().clone()));
    Json(Provenance { own: model.provenance.clone(), adapters: adapters.collect() })
}

#[cfg(test)]
mod tests {
    use crate::testing::{self, get};

    #[tokio::test]
    async fn is_passed_on() {
        let router = testing::router(|_| vec![]);
        let provenance = get(&router, "/v1/provenance").await.json(200);
        assert_eq!(provenance["license"], "MIT");
        assert_eq!(provenance["digest"], "0123456789abcdef");
    }
}
