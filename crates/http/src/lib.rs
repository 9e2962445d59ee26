//! What every page and API of ours shares: listening and stopping, TLS, who may ask, a request's JSON read field by
//! field, errors in OpenAI's form, server-sent events, the access log and traces.
//!
//! It knows requests and answers, and of a generation the figures that a log shows. It knows no endpoint, no model and
//! no text: whoever has routes hands them to [`serve`], or to [`guarded`] where no port is listened on.
//!
//! ```
//! use axum::{Router, routing::get};
//! use narthex_http::{HttpOptions, bind, serve};
//!
//! let options = HttpOptions { port: 0, ..HttpOptions::default() };
//! let bound = bind(&options).unwrap();
//! let routes = Router::new().route("/", get(async || "a page"));
//! serve(bound, routes, &options, |path| path.starts_with("/private/"), async {}).unwrap();
//! ```

mod access_log;
mod error;
mod events;
mod exchange;
mod fields;
mod guard;
mod id;
mod observe;
mod options;
mod routes;
mod server;
mod tls;
mod trace;

pub use access_log::warn;
pub use error::{ApiError, ErrorObject};
pub use events::{Events, Lines, event_stream, line_stream, plain_event_stream};
pub use exchange::{Ended, Exchange, GenerationRecord};
pub use fields::{Fields, JsonBody};
pub use id::{entropy, new_id};
pub use observe::Observers;
pub use options::{ApiKey, HttpLimits, HttpOptions};
pub use routes::guarded;
pub use server::{Bound, Stopping, bind, serve};
pub use tls::TlsFiles;
