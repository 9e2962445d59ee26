//! All routes, and which of them ask for a key where keys are set.

use crate::{
    app::App,
    graph::{assistants, runs as graph_runs, server, threads},
    openai::{chat, models, responses},
    opened::Opened,
    options::ApiOptions,
    page,
    runs::{feed, routes},
};
use axum::{
    Router,
    routing::{get, post},
};
use narthex_agent::Agents;
use std::sync::Arc;

/// The routes over these agents. Whoever serves them puts [`narthex_http::guarded`] around, which limits bodies and
/// names fields that nobody read, and a layer that sets [`Caller`](narthex_base::Caller) where there are several
/// tenants. Needs a tokio runtime to run in.
pub fn router(agents: Arc<dyn Agents>, options: ApiOptions) -> Router {
    let mut router = own();
    if options.page {
        router = router.merge(page::routes());
    }
    if options.openai {
        router = router.merge(openai());
    }
    if options.agent_protocol {
        router = router.merge(agent_protocol());
    }
    router.with_state(App { agents, options, opened: Arc::new(Opened::default()) })
}

/// Whether requests to a path must carry a key: all but the page's own files and the signs of life.
pub fn needs_key(path: &str) -> bool {
    !["/ok", "/info"].contains(&path) && !page::FILES.iter().any(|(file, ..)| *file == path)
}

fn own() -> Router<App> {
    Router::new()
        .route("/agents", get(routes::agents))
        .route("/agents/events", get(feed::events))
        .route("/agents/runs", get(routes::list).post(routes::start))
        .route("/agents/runs/{id}", get(routes::get))
        .route("/agents/runs/{id}/events", get(routes::events))
        .route("/agents/runs/{id}/trace", get(routes::trace))
        .route("/agents/runs/{id}/answers", post(routes::answer))
        .route("/agents/runs/{id}/cancel", post(routes::cancel))
}

fn openai() -> Router<App> {
    Router::new()
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::get))
        .route("/v1/chat/completions", post(chat::create))
        .route("/v1/conversations", post(responses::open))
        .route("/v1/responses", post(responses::create))
        .route("/v1/responses/{id}", get(responses::get))
        .route("/v1/responses/{id}/cancel", post(responses::cancel))
}

fn agent_protocol() -> Router<App> {
    Router::new()
        .route("/ok", get(server::ok))
        .route("/info", get(server::info))
        .route("/assistants/search", post(assistants::search))
        .route("/assistants/count", post(assistants::count))
        .route("/assistants/{id}", get(assistants::get))
        .route("/assistants/{id}/schemas", get(assistants::schemas))
        .route("/assistants/{id}/graph", get(assistants::graph))
        .route("/assistants/{id}/subgraphs", get(assistants::subgraphs))
        .route("/threads", post(threads::create))
        .route("/threads/search", post(threads::search))
        .route("/threads/count", post(threads::count))
        .route("/threads/{id}", get(threads::get).patch(threads::update).delete(threads::delete))
        .route("/threads/{id}/copy", post(threads::copy))
        .route("/threads/{id}/state", get(threads::state).post(threads::write_state))
        .route("/threads/{id}/state/checkpoint", post(threads::state_of))
        .route("/threads/{id}/state/{checkpoint}", get(threads::state_at))
        .route("/threads/{id}/history", post(threads::history).get(threads::history_of))
        .route("/threads/{id}/runs", get(graph_runs::list).post(graph_runs::create))
        .route("/threads/{id}/runs/stream", post(graph_runs::stream))
        .route("/threads/{id}/runs/wait", post(graph_runs::wait))
        .route("/threads/{id}/runs/{run}", get(graph_runs::get).delete(graph_runs::delete))
        .route("/threads/{id}/runs/{run}/cancel", post(graph_runs::cancel))
        .route("/threads/{id}/runs/{run}/join", get(graph_runs::join))
        .route("/threads/{id}/runs/{run}/stream", get(graph_runs::join_stream))
        .route("/runs", post(graph_runs::create_alone))
        .route("/runs/stream", post(graph_runs::stream_alone))
        .route("/runs/wait", post(graph_runs::wait_alone))
}
