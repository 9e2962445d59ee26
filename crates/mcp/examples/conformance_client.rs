//! A client for the protocol's conformance suite, which appends the address of a server and says in the environment
//! which scenario it plays. It connects as every client of ours does; nothing here knows the protocol.

use futures::future::BoxFuture;
use narthex_agent::{Call, Tool};
use narthex_base::Result;
use narthex_mcp::{
    Ability, Answered, ClientLimits, ClientOptions, Consent, Credentials, McpServer, MemoryTokens, OAuth, Question,
    Questions, Reach, Revision, ServerSpec, connect,
};
use serde_json::{Map, Value, json};
use std::{process::ExitCode, sync::Arc};

/// Seconds for a call: the suite kills a client after 30.
const CALL_S: u64 = 15;

/// Times that the tools are called anew where the suite takes tokens away meanwhile.
const MIGRATIONS: usize = 3;

/// Fills forms with their defaults, and answers models' questions with a fixed text.
struct Fills;

impl Questions for Fills {
    fn abilities(&self) -> Vec<Ability> {
        vec![Ability::Form, Ability::Sample]
    }

    fn answer(&self, _: &str, question: Question) -> BoxFuture<'static, Answered> {
        let answered = match question {
            Question::Form { schema, .. } => Answered::Filled(filled(&schema)),
            Question::Sample { .. } => Answered::Sampled("an answer of no model".into()),
            Question::Roots => Answered::Declined,
        };
        Box::pin(std::future::ready(answered))
    }
}

/// A form's fields: their defaults, and of those without one, some value where one must be given.
fn filled(schema: &Value) -> Map<String, Value> {
    let mut fields = Map::new();
    let required = |name: &str| {
        let names = schema.get("required").and_then(Value::as_array);
        names.is_some_and(|names| names.iter().any(|required| required == name))
    };
    for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        if let Some(default) = field.get("default") {
            fields.insert(name.clone(), default.clone());
        } else if required(name) {
            fields.insert(name.clone(), some(field));
        }
    }
    fields
}

/// Some value of a type.
fn some(schema: &Value) -> Value {
    match schema.get("type").and_then(Value::as_str) {
        Some("number" | "integer") => json!(1),
        Some("boolean") => json!(true),
        Some("array") => json!([]),
        Some("object") => json!({}),
        _ => json!("test"),
    }
}

/// Logs in by asking the page itself: the suite's sends everyone back at once.
struct Headless;

impl Consent for Headless {
    fn ask(&self, _: &str, url: &str) -> BoxFuture<'static, std::result::Result<String, String>> {
        let url = url.to_string();
        Box::pin(async move {
            let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build();
            let sent = client.map_err(|error| error.to_string())?.get(url).send().await;
            let response = sent.map_err(|error| error.to_string())?;
            let location = response.headers().get("location").and_then(|value| value.to_str().ok());
            location.map(String::from).ok_or_else(|| "the page sends nobody back".into())
        })
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(url) = std::env::args().nth(1) else {
        eprintln!("the address of a server is missing: `conformance_client http://127.0.0.1:8001/mcp`");
        return ExitCode::FAILURE;
    };
    match play(&url).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}: {}", error.causes().join("; "));
            ExitCode::FAILURE
        }
    }
}

async fn play(url: &str) -> Result<()> {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let scenario = variable("MCP_CONFORMANCE_SCENARIO");
    let context: Value = serde_json::from_str(&variable("MCP_CONFORMANCE_CONTEXT")).unwrap_or_default();
    let text = |name: &str| context.get(name).and_then(Value::as_str).map(String::from);
    let registered = text("client_id").map(|id| (id, text("client_secret")));
    let credentials = match scenario.starts_with("auth/") {
        false => Credentials::None,
        true => Credentials::OAuth(OAuth {
            redirect_uri: "http://localhost:3000/callback".into(),
            client_metadata_url: Some("https://conformance-test.local/client-metadata.json".into()),
            registered,
            consent: Arc::new(Headless),
            tokens: Arc::new(MemoryTokens::default()),
        }),
    };
    let mut spec = ServerSpec::new("suite", Reach::Http { url: url.into(), credentials });
    spec.revision = match variable("NARTHEX_MCP_REVISION").as_str() {
        "newest" => Revision::Newest,
        "older" => Revision::Older,
        _ => Revision::Auto,
    };
    let limits = ClientLimits { call_s: CALL_S, ..ClientLimits::default() };
    let options = ClientOptions { questions: Arc::new(Fills), limits, ..ClientOptions::default() };
    let rounds = if scenario == "auth/authorization-server-migration" { MIGRATIONS } else { 1 };
    let server = connect(spec, options).await?;
    for round in 0..rounds {
        if round > 0 {
            server.refresh().await?;
        }
        call_all(&server, &context).await;
    }
    Ok(())
}

/// Calls what the scenario says, or every tool.
async fn call_all(server: &McpServer, context: &Value) {
    let tools = server.tools();
    let named = context.get("toolCalls").or_else(|| context.get("tool_calls")).and_then(Value::as_array);
    if let Some(named) = named.filter(|named| !named.is_empty()) {
        for call in named {
            let name = format!("suite.{}", call.get("name").and_then(Value::as_str).unwrap_or_default());
            let arguments = call.get("arguments").and_then(Value::as_object).cloned().unwrap_or_default();
            if let Some(tool) = tools.iter().find(|tool| tool.definition().name == name) {
                call_one(tool, arguments).await;
            }
        }
        return;
    }
    for tool in &tools {
        let mut arguments = filled(&tool.definition().input_schema);
        // The suite compares what came through with what it sent.
        if let Some(schema) = arguments.get_mut("schema")
            && let Some(first) = tools.first()
        {
            *schema = first.definition().input_schema.clone();
        }
        call_one(tool, arguments).await;
    }
}

async fn call_one(tool: &Arc<dyn Tool>, arguments: Map<String, Value>) {
    let call = Call { id: "1".into(), run: "1".into(), tenant: "suite".into(), arguments };
    match tool.call(call, Arc::new(|_, _, _| {})).await {
        Ok(result) => println!("{}: {result:?}", tool.definition().name),
        Err(failure) => println!("{}: {}", tool.definition().name, failure.message),
    }
}
