//! The store: of two writers one wins, a process that has lost its hold writes nothing, and what is written stays.

use super::world::{NOW_MS, TENANT, World, agent, answered, approve, ask, begun, until_still};
use crate::{
    agents::{AgentError, Agents, Page, RunFilter, RunStatus},
    event::{Event, Stamped},
    scripted::{Scripted, call, say},
    store::{Append, Durability, Lease, SqliteStore, Standing, StoreError, open_store},
};
use serde_json::json;
use std::sync::Arc;

fn append(run: &str, number: u64, lease: Option<&Lease>) -> Append {
    Append {
        run: run.into(),
        number,
        stamped: vec![Stamped { at_ms: NOW_MS, event: Event::Resumed }],
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

/// Reads all pages of a list, and lets a run change between any two of them.
async fn pages(world: &World, size: usize, mut between: impl AsyncFnMut(usize)) -> Vec<String> {
    let runner = world.runner(vec![("a", agent())], script()).await;
    let (mut after, mut seen) = (None, vec![]);
    for page in 0.. {
        let views = runner.runs(TENANT, RunFilter::default(), Page { after: after.clone(), size }).await.unwrap();
        let Some(last) = views.last() else { break };
        after = Some(last.cursor());
        seen.extend(views.into_iter().map(|view| view.id));
        between(page).await;
    }
    seen
}

#[tokio::test]
async fn lists_go_by_the_last_change_and_hold_no_run_twice() {
    let world = World::new();
    let runner = world.runner(vec![("a", agent())], script()).await;
    let mut runs = vec![];
    for i in 0..7 {
        // Two that changed at the same time stand by their age.
        world.clock.advance(i % 2);
        runs.push(begun(&runner, ask("a", "go")).await);
    }
    let ids = |order: [usize; 7]| order.map(|i| runs[i].id.clone()).to_vec();
    assert_eq!(pages(&world, 3, async |_| {}).await, ids([6, 5, 4, 3, 2, 1, 0]));
    world.clock.advance(1);
    answered(&runner, &runs[2], approve()).await;
    for size in [1, 2, 3, 7, 100] {
        assert_eq!(pages(&world, size, async |_| {}).await, ids([2, 6, 5, 4, 3, 1, 0]), "{size} at once");
    }
    // The last of the first page changes, and so does one that has not been seen: what was seen does not come again.
    let change = async |page| {
        world.clock.advance(1);
        if page == 0 {
            answered(&runner, &runs[6], approve()).await;
            world.clock.advance(1);
            answered(&runner, &runs[0], approve()).await;
        }
    };
    assert_eq!(pages(&world, 2, change).await, ids([2, 6, 5, 4, 3, 1, 0])[..6]);
    assert_eq!(pages(&world, 2, async |_| {}).await, ids([0, 6, 2, 5, 4, 3, 1]));
    for (after, expected) in [(runs[2].id.clone(), ids([5, 4, 3, 1, 0, 0, 0])[..4].to_vec()), ("none".into(), vec![])] {
        let behind = Page { after: Some(after), size: 9 };
        let views = runner.runs(TENANT, RunFilter::default(), behind).await.unwrap();
        assert_eq!(views.into_iter().map(|view| view.id).collect::<Vec<_>>(), expected);
    }
    let filter = RunFilter { status: Some(RunStatus::Done), changed_since_ms: Some(0), ..RunFilter::default() };
    let behind = Page { after: Some(runner.run(TENANT, &runs[0].id).await.unwrap().cursor()), size: 9 };
    let done = runner.runs(TENANT, filter, behind).await.unwrap();
    assert_eq!(done.into_iter().map(|view| view.id).collect::<Vec<_>>(), ids([6, 2, 0, 0, 0, 0, 0])[..2]);
}

#[tokio::test]
async fn all_events_of_a_write_or_none() {
    let world = World::new();
    let run = begun(&world.runner(vec![("a", agent())], script()).await, ask("a", "go")).await.id;
    let store = world.store().await;
    let events = store.row(TENANT, &run).await.unwrap().unwrap().events;
    let mut three = append(&run, events + 1, None);
    three.stamped = vec![three.stamped[0].clone(); 3];
    store.append(three.clone()).await.unwrap();
    assert_eq!(store.row(TENANT, &run).await.unwrap().unwrap().events, events + 3);
    assert_eq!(store.events(TENANT, &run, events).await.unwrap(), three.stamped);
    for number in [events + 1, events + 3] {
        three.number = number;
        assert_eq!(store.append(three.clone()).await, Err(StoreError::Conflict));
    }
    assert_eq!(store.row(TENANT, &run).await.unwrap().unwrap().events, events + 3);
}

#[tokio::test]
async fn any_text_comes_back() {
    let world = World::new();
    let texts = ["a\0b\u{1}c\u{1}0", "ä\u{10ffff}\u{feff}", "'; drop table runs; --", "{\"$blob\": 1}"];
    for text in texts.map(String::from).into_iter().chain(texts.map(|text| text.repeat(300))) {
        let runner = world.runner(vec![("a", agent())], Scripted::new("m", |_| Ok(say("done")))).await;
        let mut asked = ask("a", &text);
        asked.thread = Some(text.chars().take(20).collect());
        let run = runner.start(asked.clone()).await.unwrap();
        let (_, view) = until_still(&runner, &run).await.unwrap();
        assert_eq!((view.messages[0].text().as_ref(), Some(view.thread)), (text.as_str(), asked.thread));
    }
    for name in ["", "\0", "'", "ä"] {
        assert_eq!(world.store().await.row(name, name).await.unwrap(), None);
    }
}

#[tokio::test]
async fn many_begin_the_same_at_once() {
    let world = World::new();
    let mut begun = vec![];
    for owner in ["here", "there"] {
        let runner = world.runner_over(world.store().await, vec![("a", agent())], Arc::new(script()), owner).await;
        let ask = |key: &str, thread: &str| {
            let mut asked = ask("a", "go");
            (asked.key, asked.thread) = (Some(key.into()), Some(thread.into()));
            runner.start(asked)
        };
        // One key in several threads, and several keys in one thread: either begins one run.
        let keys = (0..8).map(|i| ask("key", &format!("thread-{i}")));
        let threads = (0..8).map(|i| ask(&format!("key-{i}"), "thread"));
        begun.push((futures::future::join_all(keys), futures::future::join_all(threads), runner));
    }
    let (there, here) = (begun.pop().unwrap(), begun.pop().unwrap());
    let (one, two) = futures::future::join(here.0, there.0).await;
    let mut known: Vec<_> = one.into_iter().chain(two).map(Result::unwrap).collect();
    known.dedup();
    assert_eq!(known.len(), 1, "{known:?}");
    let (one, two) = futures::future::join(here.1, there.1).await;
    let (good, bad): (Vec<_>, Vec<_>) = one.into_iter().chain(two).partition(Result::is_ok);
    assert!(bad.iter().all(|error| matches!(error, Err(AgentError::Busy(_)))), "{bad:?}");
    let mut known: Vec<_> = good.into_iter().map(Result::unwrap).collect();
    known.sort();
    known.dedup();
    assert!(!known.is_empty() && known.len() <= 8, "{known:?}");
    let filter = RunFilter { thread: Some("thread".into()), ..RunFilter::default() };
    let runs = here.2.runs(TENANT, filter, Page { after: None, size: 9 }).await.unwrap();
    assert_eq!(runs.into_iter().map(|run| run.id).collect::<Vec<_>>(), known);
}

#[tokio::test]
async fn addresses_of_stores() {
    let world = World::new();
    let file = world.folder.path().join("named.db");
    for address in [file.display().to_string(), format!("sqlite://{}", file.display())] {
        assert!(open_store(&address).await.is_ok(), "{address}");
    }
    let postgres = match cfg!(feature = "postgres") {
        true => "cannot open the runs in the PostgreSQL database agents at 127.0.0.1:1",
        false => "cargo build --release -p narthex --features postgres",
    };
    for (address, part) in [
        ("postgres://anna:secret@127.0.0.1:1/agents", postgres),
        ("mysql://127.0.0.1/agents", "an address of `mysql`"),
        ("/nowhere/at/all.db", "/nowhere/at/all.db"),
    ] {
        let error = open_store(address).await.err().unwrap().to_string();
        assert!(error.contains(part) && !error.contains("secret"), "{error}");
    }
}

/// Whoever names a server means all of these tests over it: `NARTHEX_TEST_POSTGRES=postgres://USER@HOST:PORT/DATABASE
/// cargo test -p narthex-agent --features postgres`.
#[test]
fn postgres_is_tested_where_there_is_one() {
    let names_one = std::env::var("NARTHEX_TEST_POSTGRES").is_ok();
    assert!(!names_one || cfg!(feature = "postgres"), "run the tests with `--features postgres`");
}

#[tokio::test]
async fn files_that_are_no_store() {
    let world = World::new();
    let path = world.folder.path().join("other.db");
    std::fs::write(&path, "no database, though it is long enough to be taken for one".repeat(100)).unwrap();
    let error = SqliteStore::open(&path, Durability::Process).await.err().unwrap().to_string();
    assert!(error.contains("other.db"), "{error}");
}
