//! What a step costs besides the model and the tool: `steps STORE [STEPS]` lets an agent take so many, 100 unless it is
//! said, with a model that answers at once and a tool that does nothing, and prints the milliseconds of each.

use futures::{StreamExt, future::BoxFuture};
use narthex_agent::{
    AgentDefinition, Agents, Ask, Call, Effect, Kit, Limits, Progress, RunStatus, Runner, Surroundings, Tool,
    ToolDefinition, ToolFailure, ToolResult, open_store,
    scripted::{Scripted, call, say},
};
use narthex_base::chat::{Message, Role};
use serde_json::{Map, json};
use std::{collections::BTreeMap, error::Error, sync::Arc, time::Instant};

/// A tool that does nothing, though the loop must take it for one that does.
struct Nothing(ToolDefinition);

impl Tool for Nothing {
    fn definition(&self) -> &ToolDefinition {
        &self.0
    }

    fn call(&self, _: Call, _: Progress) -> BoxFuture<'static, Result<ToolResult, ToolFailure>> {
        Box::pin(async { Ok(ToolResult::text("nothing")) })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let store = arguments.next().ok_or("say where: `steps STORE [STEPS]`")?;
    let steps: u32 = arguments.next().map_or(Ok(100), |steps| steps.parse())?;
    let definition = ToolDefinition {
        name: "nothing".into(),
        description: "Does nothing.".into(),
        input_schema: json!({"type": "object", "properties": {"step": {"type": "integer"}}}),
        output_schema: None,
        effect: Effect::Writes,
    };
    let mut script: Vec<_> = (0..steps).map(|step| call(&[("nothing", json!({"step": step}))])).collect();
    script.push(say("done"));
    let kit = Kit {
        models: BTreeMap::from([("m".to_string(), Arc::new(Scripted::by_turn("m", script)) as _)]),
        tools: vec![Arc::new(Nothing(definition))],
    };
    let limits = Limits { model_calls: steps + 1, tool_calls: steps, tokens: u64::MAX, ..Limits::default() };
    let policy = serde_json::from_value(json!({"rules": [{"tool": "nothing", "then": "allow"}]}))?;
    let agent = AgentDefinition { tools: vec!["nothing".into()], limits, policy, ..AgentDefinition::new("m") };
    let store = open_store(&store).await?;
    let runner = Runner::new(vec![("a".into(), agent)], kit, store, Surroundings::default())?;
    let ask = Ask {
        agent: "a".into(),
        tenant: "anna".into(),
        messages: vec![Message::new(Role::User, "do it")],
        thread: None,
        key: None,
        metadata: Map::new(),
    };
    let start = Instant::now();
    let run = runner.start(ask).await?;
    let _: Vec<_> = runner.follow("anna", &run, 0).collect().await;
    let ms = start.elapsed().as_secs_f64() * 1e3;
    let view = runner.run("anna", &run).await?;
    if view.status != RunStatus::Done || view.messages.len() != 2 * steps as usize + 2 {
        return Err(format!("{:?} after {} messages: {:?}", view.status, view.messages.len(), view.reason).into());
    }
    println!("{:.4}", ms / f64::from(steps));
    Ok(())
}
