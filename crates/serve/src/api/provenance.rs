//! `GET /v1/provenance`: what the model was made from and under which licences. Our own endpoint.

use crate::app::App;
use axum::{Json, extract::State};
use serde_json::Value;

/// The provenance as the caller gave it.
pub(crate) async fn get(State(app): State<App>) -> Json<Value> {
    Json(app.model.provenance.clone())
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
