//! `GET /health`: 200 as soon as requests are answered.

use axum::Json;
use serde_json::{Value, json};

/// The model is loaded before the server listens, so that whoever answers is well.
pub(crate) async fn get() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

#[cfg(test)]
mod tests {
    use crate::testing::{self, get};
    use serde_json::json;

    #[tokio::test]
    async fn answers() {
        let router = testing::router(|_| vec![]);
        assert_eq!(get(&router, "/health").await.json(200), json!({"status": "ok"}));
    }
}
