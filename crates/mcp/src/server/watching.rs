//! Changes told to clients that want to know: in a session of the older revision by itself, in the newest where a
//! client listens. Knows who wants what; not why something changed.

use super::catalog::Catalog;
use crate::changes::{Change, next};
use rmcp::{
    ErrorData, RoleServer,
    model::ResourceUpdatedNotificationParam,
    service::{Peer, SubscriptionContext},
};
use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Addresses that one session watches at most.
const WATCHED_MAX: usize = 1000;

/// Seconds between looks whether a session's client is still there, while nothing changes.
const LOOK_S: u64 = 30;

/// What the client of one session watches.
#[derive(Default)]
pub(crate) struct Watched {
    addresses: Mutex<HashSet<String>>,
    begun: AtomicBool,
}

impl Watched {
    /// Watches an address.
    ///
    /// # Errors
    /// If too many are watched.
    pub fn add(&self, address: String) -> Result<(), String> {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if addresses.len() >= WATCHED_MAX && !addresses.contains(&address) {
            return Err(format!("{WATCHED_MAX} resources are watched, and no more are: unsubscribe from one"));
        }
        addresses.insert(address);
        Ok(())
    }

    pub fn remove(&self, address: &str) {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).remove(address);
    }

    fn has(&self, address: &str) -> bool {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).contains(address)
    }
}

/// Tells the client of a session what changes, for as long as it is there.
pub(crate) fn watch(catalog: Arc<Catalog>, watched: Arc<Watched>, peer: Peer<RoleServer>) {
    if watched.begun.swap(true, Ordering::Relaxed) {
        return;
    }
    let Ok(permit) = catalog.subscriptions.clone().try_acquire_owned() else { return };
    let mut listener = catalog.offer.changes.listen();
    tokio::spawn(async move {
        let _permit = permit;
        let mut look = tokio::time::interval(Duration::from_secs(LOOK_S));
        while !peer.is_transport_closed() {
            let changes = tokio::select! {
                changes = next(&mut listener) => changes,
                _ = look.tick() => Some(vec![]),
            };
            let Some(changes) = changes else { return };
            for change in changes {
                let told = match change {
                    Change::Tools => peer.notify_tool_list_changed().await,
                    Change::Prompts => peer.notify_prompt_list_changed().await,
                    Change::Resources => peer.notify_resource_list_changed().await,
                    Change::Resource(uri) if watched.has(&uri) => {
                        peer.notify_resource_updated(ResourceUpdatedNotificationParam::new(uri)).await
                    }
                    Change::Resource(_) => Ok(()),
                };
                if told.is_err() {
                    return;
                }
            }
        }
    });
}

/// Tells a listening client what changes, until it stops listening.
///
/// # Errors
/// If too many listen.
pub(crate) async fn listen(catalog: &Catalog, context: SubscriptionContext) -> Result<(), ErrorData> {
    let Ok(_permit) = catalog.subscriptions.try_acquire() else {
        let what = format!("{} clients listen, and no more can", catalog.limits.subscriptions_max);
        return Err(ErrorData::internal_error(what, None));
    };
    let mut listener = catalog.offer.changes.listen();
    let (sink, accepted) = (context.sink(), context.accepted());
    let wants = |flag: Option<bool>| flag == Some(true);
    loop {
        let changes = tokio::select! {
            () = context.cancelled() => return Ok(()),
            changes = next(&mut listener) => changes,
        };
        let Some(changes) = changes else { return Ok(()) };
        for change in changes {
            let told = match change {
                Change::Tools if wants(accepted.tools_list_changed) => sink.notify_tool_list_changed().await,
                Change::Prompts if wants(accepted.prompts_list_changed) => sink.notify_prompt_list_changed().await,
                Change::Resources if wants(accepted.resources_list_changed) => {
                    sink.notify_resource_list_changed().await
                }
                Change::Resource(uri)
                    if accepted.resource_subscriptions.as_ref().is_some_and(|uris| uris.contains(&uri)) =>
                {
                    sink.notify_resource_updated(uri).await
                }
                _ => Ok(()),
            };
            if told.is_err() {
                return Ok(());
            }
        }
    }
}
