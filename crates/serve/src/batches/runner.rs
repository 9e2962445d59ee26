//! Who works on the batches: one thread with a small runtime of its own, from the start of the server to its end. Knows
//! which batches are due, not what is done with one.

use super::{run::run, store::Store};
use axum::Router;
use futures::{StreamExt, stream::FuturesUnordered};
use std::{
    collections::HashSet,
    io,
    sync::Arc,
    thread::{self, JoinHandle},
};
use tokio::{runtime, sync::oneshot};

/// Works on the batches of a store until it is dropped. What is under way then is asked again by the next one.
pub struct Runner {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Runner {
    /// Begins, also with what an earlier runner left. Requests go through `routes`.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(store: Arc<Store>, routes: Router) -> io::Result<Self> {
        // A thread of its own: files are written in it without holding up other requests.
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let work = move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = work(&store, &routes) => {}
                }
            });
            runtime.shutdown_background();
        };
        let thread = thread::Builder::new().name("batches".into()).spawn(work)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Whether it broke or not, it is over.
            let _ = thread.join();
        }
    }
}

async fn work(store: &Store, routes: &Router) {
    let mut changes = store.changes();
    let mut running = HashSet::new();
    let mut runs = FuturesUnordered::new();
    loop {
        changes.borrow_and_update();
        for id in store.due(&running) {
            running.insert(id.clone());
            runs.push(async {
                run(store, routes, &id).await;
                id
            });
        }
        tokio::select! {
            Some(id) = runs.next() => {
                running.remove(&id);
            }
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}
