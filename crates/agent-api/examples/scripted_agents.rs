//! Serves scripted agents on a port of this machine, for checks with real clients.
//!
//! usage: scripted [PORT]

#[path = "../src/testing/fake.rs"]
mod fake;

use narthex_agent_api::{ApiOptions, needs_key, router};
use narthex_http::{HttpOptions, bind, serve};
use std::{io::Read, sync::Arc};

fn main() -> Result<(), String> {
    let port = std::env::args().nth(1).map_or(Ok(8123), |port| port.parse()).map_err(|_| "PORT must be a number")?;
    let options = HttpOptions { port, ..HttpOptions::default() };
    let bound = bind(&options).map_err(|error| error.to_string())?;
    println!("http://{}", bound.address());
    let routes = router(Arc::new(fake::Fake::new()), ApiOptions::default());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    // Ends with whoever started it.
    std::thread::spawn(move || {
        _ = std::io::stdin().read_to_end(&mut Vec::new());
        drop(stop);
    });
    serve(bound, routes, &options, needs_key, async { _ = stopped.await }).map_err(|error| error.to_string())
}
