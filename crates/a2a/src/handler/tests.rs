//! Messages that were cut short between the store and the run.

use super::*;
use crate::scripted::{Script, Scripted, Step, agent, interrupt, said};
use crate::store::Store;
use a2a::{Part, Role};
use narthex_agent::Answer;
use serde_json::json;

fn message(text: &str, task: Option<&str>) -> SendMessageRequest {
    let message = Message { task_id: task.map(str::to_string), ..Message::new(Role::User, vec![Part::text(text)]) };
    SendMessageRequest { message, configuration: None, metadata: None, tenant: None }
}

async fn sent(handler: &Handler, request: SendMessageRequest) -> Task {
    match handler.send_message(&ServiceParams::new(), request).await.unwrap() {
        SendMessageResponse::Task(task) => task,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_approval_is_given_to_its_own_call_only() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("a2a.db")).await.unwrap();
    let script: Script = Arc::new(|_, answer| match answer {
        None => vec![Step::Ask(interrupt("i2", "Delete it?", Some(("files.delete", json!({})))))],
        Some(_) => vec![Step::Done(said("Deleted"))],
    });
    let agents = Scripted::new(vec![agent("bard")], script);
    let shared = Shared {
        agents: Arc::new(agents.clone()),
        options: A2aOptions::new("http://127.0.0.1", store.clone()),
        answered: Arc::default(),
        streams: Arc::new(Semaphore::new(1)),
        deliverer: None,
    };
    let handler = Handler { shared: Arc::new(shared), agent: "bard".into() };
    let task = sent(&handler, message("delete", None)).await;
    let (run, tenant) = (task.id.as_str(), "local");
    // Kept for a call that has been answered since, by whoever else: the one that waits now is not approved by it.
    let late = message("yes", Some(run));
    let row = exchange(&late.message, incoming::content(&late.message), 1, None, Some("i1".into()));
    store.put_exchange(tenant, run, &row).await.unwrap();
    let still = sent(&handler, late.clone()).await;
    assert_eq!((still.status.state, agents.answers(run)), (a2a::TaskState::InputRequired, vec![]));
    assert!(store.exchanges(tenant, run).await.unwrap()[1].done);
    // Kept for the call that waits, and never given: it is given when it comes again, and once.
    let timely = message("yes", Some(run));
    let row = exchange(&timely.message, incoming::content(&timely.message), 1, None, Some("i2".into()));
    store.put_exchange(tenant, run, &row).await.unwrap();
    for _ in 0..2 {
        let done = sent(&handler, timely.clone()).await;
        assert_eq!(done.status.state, a2a::TaskState::Completed);
        assert_eq!(agents.answers(run), [Answer::Approve { by: "local".into() }]);
    }
}

#[test]
fn large_files_are_not_kept() {
    let large = Message::new(Role::User, vec![Part::raw(vec![0; FILE_BYTES_MAX + 1]), Part::raw(vec![0; 4])]);
    let parts = kept(&large).parts;
    assert_eq!((parts[0].as_text(), &parts[1]), (Some("[a file of 65537 bytes]"), &large.parts[1]));
}
