//! The routes: cards at the well-known places, and each agent under a path of its own.

use crate::{
    card::{KEYS_PATH, ServedCard, agent_path, served_card},
    front,
    handler::{Handler, Shared},
    options::A2aOptions,
    push::Deliverer,
    signature::CardSigner,
};
use a2a_server::{WELL_KNOWN_AGENT_CARD_PATH, jsonrpc::jsonrpc_router, rest::rest_router};
use axum::{
    Router,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
    routing::{MethodRouter, get},
};
use narthex_agent::Agents;
use serde_json::json;
use std::sync::Arc;
use tokio::sync::{Notify, Semaphore};

/// How long a card may be kept by those who read it.
const CARD_CACHED: &str = "public, max-age=300";

/// Routes for all agents that there are now: each at `/a2a/NAME` (JSON-RPC there, HTTP+JSON below it, its card at
/// `/a2a/NAME/.well-known/agent-card.json`), and the card of one of them at `/.well-known/agent-card.json`.
///
/// Begins to deliver push notifications, on a thread of its own, which ends when the router is dropped. Where the
/// system gives no thread, push notifications are refused.
pub fn router(agents: Arc<dyn Agents>, options: A2aOptions) -> Router {
    let answered = Arc::new(Notify::new());
    let deliverer = Deliverer::start(agents.clone(), &options, answered.clone());
    if let Err(error) = &deliverer {
        (options.warn)(&format!("no push notifications are sent: {error}"));
    }
    let views = agents.list();
    let shared = Arc::new(Shared {
        agents,
        answered,
        streams: Arc::new(Semaphore::new(options.limits.streams)),
        deliverer: deliverer.ok(),
        options: options.clone(),
    });
    let mut routes = Router::new();
    if let Some(signer) = &options.signer {
        routes = routes.route(KEYS_PATH, keys_route(signer));
    }
    let default = options.default_agent.as_ref().and_then(|name| views.iter().find(|view| view.name == *name));
    if let Some(view) = default.or(views.first()) {
        routes = routes.route(WELL_KNOWN_AGENT_CARD_PATH, card_route(served_card(view, &options)));
    }
    for view in &views {
        let handler = Arc::new(Handler { shared: shared.clone(), agent: view.name.clone() });
        let bindings = jsonrpc_router(handler.clone())
            .merge(rest_router(handler))
            .layer(from_fn_with_state(options.limits.body_bytes, front::handle))
            // Behind the layer: a card is read before any version is known.
            .route(WELL_KNOWN_AGENT_CARD_PATH, card_route(served_card(view, &options)));
        // A service, unlike a router, is reached with and without a slash behind its path: clients join URLs either
        // way.
        routes = routes.nest_service(&agent_path(&view.name), bindings);
    }
    routes
}

/// A card, for readers of every origin; unchanged, it is not sent again.
fn card_route(card: ServedCard) -> MethodRouter {
    let card = Arc::new(card);
    get(async move |headers: HeaderMap| {
        let known = headers.get(header::IF_NONE_MATCH).is_some_and(|tag| tag.as_bytes() == card.etag.as_bytes());
        let mut response = match known {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => json_response(card.json.clone()),
        };
        // A digest in quotes fits in every header.
        if let Ok(etag) = HeaderValue::from_str(&card.etag) {
            response.headers_mut().insert(header::ETAG, etag);
        }
        cached(response)
    })
}

/// The public keys that cards are checked with (RFC 7517).
fn keys_route(signer: &CardSigner) -> MethodRouter {
    let keys = json!({"keys": [signer.card_key().jwk()]}).to_string();
    get(async move || cached(json_response(keys.clone())))
}

fn json_response(json: String) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], json).into_response()
}

fn cached(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(CARD_CACHED));
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}
