//! Models behind a port. Knows neither addresses nor connections.

use crate::{
    Models, ServeOptions,
    api::keeping::FilesState,
    batches::{Runner, Store},
    dialects::responses::Responses,
    router::{needs_key, routes},
};
use narthex_base::{Error, Result};
use narthex_http::{Bound, HttpOptions, Observers, guarded};
use std::{future::Future, sync::Arc};

/// Answers until `shutdown` is ready, then lets answers under way end within a limit. Blocks.
///
/// # Errors
/// If the runtime does not start, or the folder for files cannot be used.
pub fn serve(
    bound: Bound,
    models: Models,
    options: &ServeOptions,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let cannot = |error| Error::input("the folder for files cannot be used").cause(error).help("see `--files-dir`");
    let store = options.files.clone().map(Store::open).transpose().map_err(cannot)?;
    let files = FilesState(store.clone());
    // The store of files holds the folder's lock.
    let journal = options.files.as_ref().map(|files| files.folder.join("responses.jsonl"));
    let responses = match journal {
        Some(path) => Responses::open(options.responses, &path).map_err(cannot)?,
        None => Responses::new(options.responses),
    };
    let routes = routes(Arc::new(models), options, bound.stopping(), &files, responses);
    // Lines of batches go the way of all requests, but within the house: they carry no key.
    let inner = HttpOptions {
        strict_fields: options.http.strict_fields,
        limits: options.http.limits.clone(),
        ..HttpOptions::default()
    };
    let start = |store| Runner::start(store, guarded(routes.clone(), &inner, |_| false, Observers::default()));
    let runner = store.map(start).transpose().map_err(cannot)?;
    let shutdown = async move {
        shutdown.await;
        // It waits for the line under way; others go on meanwhile.
        std::thread::spawn(move || drop(runner));
    };
    narthex_http::serve(bound, routes, &options.http, needs_key, shutdown)
}
