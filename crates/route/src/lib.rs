//! A router before a few servers of the OpenAI API: it sends a request to the replica that has read the beginning of
//! its prompt before, unless that one is much busier than another, and only to replicas that say they are ready.
//!
//! It knows JSON, text and addresses: no tokens, no models and no engine. It keeps no state on disk. What it learnt of
//! prompts is bounded; after a restart a hash of a prompt's beginning leads to much the same replicas as before.
//!
//! ```no_run
//! use narthex_http::{HttpOptions, bind};
//! use narthex_route::{RouteOptions, serve};
//!
//! let replicas = vec!["http://10.0.0.1:8000".into(), "http://10.0.0.2:8000".into()];
//! let options = RouteOptions { replicas, ..RouteOptions::default() };
//! let bound = bind(&options.http)?;
//! serve(bound, &options, std::future::pending())?;
//! # Ok::<(), narthex_base::Error>(())
//! ```

mod address;
mod affinity;
mod answers;
mod check;
mod client;
mod everyone;
mod fleet;
mod headers;
mod kept;
mod listed;
mod message;
mod options;
mod prefix;
mod recent;
mod relay;
mod replica;
mod router;
mod shared;

pub use options::RouteOptions;
pub use router::serve;
