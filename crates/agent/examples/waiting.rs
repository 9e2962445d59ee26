//! What runs cost that wait for a person: `waiting [FILE] [RUNS]` begins so many, 1,000 unless it is said, and prints
//! the memory of the process before and after, and that one of them ends once it is approved.

use futures::StreamExt;
use narthex_agent::{
    AgentDefinition, AgentError, Agents, Answer, Ask, Call, Effect, Kit, Progress, RunStatus, Runner, Surroundings,
    Tool, ToolDefinition, ToolFailure, ToolResult, open_store,
    scripted::{Scripted, call, say},
};
use narthex_base::chat::{Message, Role};
use serde_json::{Map, json};
use std::{collections::BTreeMap, error::Error, sync::Arc, time::Instant};

/// A tool that does nothing, and must be approved.
struct Nothing(ToolDefinition);

impl Tool for Nothing {
    fn definition(&self) -> &ToolDefinition {
        &self.0
    }

    fn call(&self, _: Call, _: Progress) -> futures::future::BoxFuture<'static, Result<ToolResult, ToolFailure>> {
        Box::pin(async { Ok(ToolResult::text("nothing")) })
    }
}

/// Kilobytes that the system says of this process; 0 where it says nothing.
fn kilobytes(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    line.split_whitespace().find_map(|word| word.parse().ok()).unwrap_or(0)
}

fn print_memory(when: &str) {
    let (resident, most) = (kilobytes("VmRSS:") as f64 / 1024.0, kilobytes("VmHWM:") as f64 / 1024.0);
    println!("{when}: {resident:.1} MiB resident, {most:.1} MiB at most");
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().unwrap_or_else(|| "waiting.db".into());
    let count: usize = arguments.next().map_or(Ok(1000), |count| count.parse())?;
    let definition = ToolDefinition {
        name: "nothing".into(),
        description: "Does nothing.".into(),
        input_schema: json!({"type": "object"}),
        output_schema: None,
        effect: Effect::Writes,
    };
    let model = Scripted::by_turn("m", vec![call(&[("nothing", json!({}))]), say("done")]);
    let kit = Kit {
        models: BTreeMap::from([("m".to_string(), Arc::new(model) as _)]),
        tools: vec![Arc::new(Nothing(definition))],
    };
    let policy = serde_json::from_value(json!({"rules": [{"tool": "nothing", "then": "ask"}]}))?;
    let agent = AgentDefinition { tools: vec!["nothing".into()], policy, ..AgentDefinition::new("m") };
    let store = open_store(&file).await?;
    let runner = Arc::new(Runner::new(vec![("a".into(), agent)], kit, store, Surroundings::default())?);
    print_memory("before");
    let start = Instant::now();
    let began = (0..count).map(|_| {
        let runner = runner.clone();
        tokio::spawn(async move {
            let run = runner.start(ask()).await?;
            let _: Vec<_> = runner.follow("anna", &run, 0).collect().await;
            Ok::<_, AgentError>(run)
        })
    });
    let began: Vec<_> = began.collect();
    let mut runs = vec![];
    for run in began {
        runs.push(run.await??);
    }
    let mut waiting = 0;
    for run in &runs {
        waiting += usize::from(runner.run("anna", run).await?.status == RunStatus::Waiting);
    }
    println!("{waiting} of {count} runs wait, {:.1} s", start.elapsed().as_secs_f64());
    print_memory("waiting");
    let view = runner.run("anna", &runs[count / 2]).await?;
    runner.answer("anna", &view.id, &view.interrupts[0].id, Answer::Approve { by: "berta".into() }).await?;
    let _: Vec<_> = runner.follow("anna", &view.id, view.last_event).collect().await;
    println!("one is approved: {:?}", runner.run("anna", &view.id).await?.status);
    Ok(())
}

fn ask() -> Ask {
    Ask {
        agent: "a".into(),
        tenant: "anna".into(),
        messages: vec![Message::new(Role::User, "do it")],
        thread: None,
        key: None,
        metadata: Map::new(),
    }
}
