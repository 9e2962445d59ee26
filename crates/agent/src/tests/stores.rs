//! The store: of two writers one wins, a process that has lost its hold writes nothing, and what is written stays.

use super::world::{NOW_MS, TENANT, World, agent, approve, ask, begun, until_still};
use crate::{
    agents::{Agents, RunStatus},
    event::{Event, Stamped},
    scripted::{Scripted, call, say},
    store::{Append, Durability, Lease, SqliteStore, Standing, StoreError},
};
use serde_json::json;
use std::sync::Arc;

fn append(run: &str, number: u64, lease: Option<&Lease>) -> Append {
    Append {
        run: run.into(),
        number,
        stamped: Stamped { at_ms: NOW_MS, event: Event::Resumed },
        standing: Standing { status: RunStatus::Running, told: 9, wake_at_ms: Some(0) },
        lease: lease.cloned(),
    }
}

fn script() -> Scripted {
    Scripted::by_turn("m", vec![call(&[("store", json!({"x": 1}))]), say("done")])
}

#[tokio::test]
async fn one_writer_at_a_time() {
    let world = World::new();
    let run = begun(&world.runner(vec![("a", agent())], script()).await, ask("a", "go")).await.id;
    let store = world.store().await;
    let next = store.row(TENANT, &run).await.unwrap().unwrap().events + 1;
    let here = store.lease(&run, "here", NOW_MS, NOW_MS + 10).await.unwrap().unwrap();
    assert_eq!(store.lease(&run, "there", NOW_MS + 9, NOW_MS + 20).await.unwrap(), None);
    store.append(append(&run, next, Some(&here))).await.unwrap();
    for number in [next - 1, next, next + 2] {
        assert_eq!(store.append(append(&run, number, Some(&here))).await, Err(StoreError::Conflict));
        assert_eq!(store.append(append(&run, number, None)).await, Err(StoreError::Conflict));
    }
    store.append(append(&run, next + 1, None)).await.unwrap();
    assert!(!store.release(&here, next).await.unwrap(), "there is more than it knows of");
    let there = store.lease(&run, "there", NOW_MS + 10, NOW_MS + 20).await.unwrap().unwrap();
    assert_eq!(store.append(append(&run, next + 2, Some(&here))).await, Err(StoreError::Lost));
    assert!(!store.renew(&here, NOW_MS + 99).await.unwrap() && !store.release(&here, next + 1).await.unwrap());
    // The same process, started again: its former self is locked out.
    let again = store.lease(&run, "there", NOW_MS + 11, NOW_MS + 20).await.unwrap().unwrap();
    assert_eq!(store.append(append(&run, next + 2, Some(&there))).await, Err(StoreError::Lost));
    store.append(append(&run, next + 2, Some(&again))).await.unwrap();
    assert!(store.renew(&again, NOW_MS + 99).await.unwrap() && store.release(&again, next + 2).await.unwrap());
}

#[tokio::test]
async fn another_process_takes_over_when_the_lease_is_over() {
    let world = World::new();
    let here = world.runner_over(world.store().await, vec![("a", agent())], Arc::new(script()), "here").await;
    let run = begun(&here, ask("a", "go")).await;
    let store = world.store().await;
    // It dies while it works.
    here.answer(TENANT, &run.id, &run.interrupts[0].id, approve()).await.unwrap();
    drop(here);
    store.lease(&run.id, "here", NOW_MS, NOW_MS + 30_000).await.unwrap().unwrap();
    let there = world.runner_over(world.store().await, vec![("a", agent())], Arc::new(script()), "there").await;
    assert_eq!(there.resume_all().await.unwrap(), 0);
    world.clock.advance(30_000);
    assert_eq!(there.resume_all().await.unwrap(), 1);
    let (_, view) = until_still(&there, &run.id).await.unwrap();
    assert_eq!((view.status, world.counts()["store"]), (RunStatus::Done, 1));
}

#[tokio::test]
async fn files_that_are_no_store() {
    let world = World::new();
    let path = world.folder.path().join("other.db");
    std::fs::write(&path, "no database, though it is long enough to be taken for one".repeat(100)).unwrap();
    let error = SqliteStore::open(&path, Durability::Process).await.err().unwrap().to_string();
    assert!(error.contains("other.db"), "{error}");
}
