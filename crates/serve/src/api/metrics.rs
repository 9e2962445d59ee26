//! `GET /metrics`: Prometheus' text format (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use crate::{
    app::Shared,
    metrics::{AdaptersHeld, render},
};
use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};

/// Renders all counters.
pub(crate) async fn get(State(shared): State<Shared>) -> Response {
    let models = shared.models.all();
    let described: Vec<_> = models.iter().map(|serving| serving.described()).collect();
    let adapters = AdaptersHeld {
        most: described.iter().map(|described| described.adapters_max()).max().unwrap_or_default(),
        loaded: described
            .iter()
            .flat_map(|described| described.adapters())
            .filter_map(|entry| entry.loaded.then_some(entry.name))
            .collect(),
    };
    let figures = models.iter().zip(&described);
    let figures = figures.map(|(serving, described)| (described.id.clone(), serving.stats(), serving.metrics()));
    let text = render(figures, &adapters);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

#[cfg(test)]
mod tests {
    use crate::testing::{self, get, post};
    use serde_json::json;

    #[tokio::test]
    async fn counts_what_was_answered() {
        let router = testing::router(testing::answer("one two."));
        let body = json!({"model": "m", "prompt": "x", "max_tokens": 3});
        post(&router, "/v1/completions", &body).await.json(200);
        post(&router, "/v1/completions", &json!({"model": "m", "prompt": "x", "stop": "tw"})).await.json(200);
        let reply = get(&router, "/metrics").await;
        assert_eq!(reply.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
        let text = reply.text(200);
        for line in [
            "# TYPE vllm:num_requests_running gauge",
            "# TYPE vllm:time_to_first_token_seconds histogram",
            "vllm:prompt_tokens_total{model_name=\"m\",engine=\"0\"} 2",
            "vllm:request_success_total{model_name=\"m\",engine=\"0\",finished_reason=\"stop\"} 1",
            "vllm:request_success_total{model_name=\"m\",engine=\"0\",finished_reason=\"length\"} 1",
            "vllm:request_success_total{model_name=\"m\",engine=\"0\",finished_reason=\"abort\"} 0",
            "vllm:time_to_first_token_seconds_count{model_name=\"m\",engine=\"0\"} 2",
            "vllm:e2e_request_latency_seconds_bucket{model_name=\"m\",engine=\"0\",le=\"+Inf\"} 2",
            concat!("narthex_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            assert!(text.lines().any(|found| found == line), "no line {line} in\n{text}");
        }
    }
}
