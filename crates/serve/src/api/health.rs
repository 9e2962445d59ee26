//! `GET /health`: 200 as soon as requests are answered. `GET /ready`: 200 as long as new ones should come, 503 once the
//! server is about to stop.

use crate::app::Shared;
use axum::{Json, extract::State, http::StatusCode};
use serde_json::{Value, json};

/// The model is loaded before the server listens, so that whoever answers is well.
pub(crate) async fn get() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// Whether a load balancer should send requests here.
pub(crate) async fn ready(State(shared): State<Shared>) -> (StatusCode, Json<Value>) {
    if shared.stopping.has_begun() {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "stopping"})));
    }
    (StatusCode::OK, Json(json!({"status": "ready"})))
}

#[cfg(test)]
mod tests {
    use crate::{
        Models, ServeOptions, Serving,
        api::keeping::FilesState,
        dialects::responses::Responses,
        router::routes,
        testing::{self, get},
    };
    use narthex_http::Stopping;
    use serde_json::json;
    use std::sync::Arc;

    #[tokio::test]
    async fn answers() {
        let router = testing::router(|_| vec![]);
        assert_eq!(get(&router, "/health").await.json(200), json!({"status": "ok"}));
    }

    #[tokio::test]
    async fn a_server_that_stops_is_not_ready() {
        let stopping = Stopping::default();
        let serving = Arc::new(Serving::new(testing::model(|_| vec![])));
        let options = ServeOptions::default();
        let router = routes(
            Arc::new(Models::of(serving)),
            &options,
            stopping.clone(),
            &FilesState::default(),
            Responses::new(options.responses),
        );
        assert_eq!(get(&router, "/ready").await.json(200), json!({"status": "ready"}));
        stopping.begin();
        assert_eq!(get(&router, "/ready").await.json(503), json!({"status": "stopping"}));
        assert_eq!(get(&router, "/health").await.json(200), json!({"status": "ok"}));
    }
}
