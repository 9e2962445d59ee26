//! A model behind a port. Knows neither addresses nor connections.

use crate::{
    ServeOptions, Serving,
    router::{needs_key, routes},
};
use narthex_base::Result;
use narthex_http::Bound;
use std::{future::Future, sync::Arc};

/// Answers until `shutdown` is ready, then lets answers under way end within a limit. Blocks.
///
/// # Errors
/// If the runtime does not start.
pub fn serve(
    bound: Bound,
    serving: Arc<Serving>,
    options: &ServeOptions,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let routes = routes(serving, options, bound.stopping());
    narthex_http::serve(bound, routes, &options.http, needs_key, shutdown)
}
