//! `GET /v1/provenance`: what the model and its adapters were made from and under which licences. Our own endpoint.

use crate::app::App;
use axum::{Json, extract::State};
use serde_json::{Value, json};

/// The provenance as the caller gave it; if there are adapters, theirs by name, each as it is alone.
pub(crate) async fn get(State(app): State<App>) -> Json<Value> {
    let mut provenance = app.model.provenance.clone();
    let adapters = app.model.adapters.list();
    if let Some(known) = provenance.as_object_mut().filter(|_| !adapters.is_empty()) {
        let adapters = adapters.iter().map(|entry| (entry.name.clone(), entry.source.provenance().clone()));
        known.insert("adapters".into(), json!(adapters.collect::<serde_json::Map<_, _>>()));
    }
    Json(provenance)
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
