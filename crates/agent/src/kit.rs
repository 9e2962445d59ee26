//! Agents made ready: a definition's names looked up among the models and tools at hand, its patterns and schemas
//! compiled. What is wrong is told before anything runs.

use crate::{
    agents::AgentView,
    builtin::{AGENT_PREFIX, ask_agent, builtin, is_reserved},
    canonical::canonical_digest,
    clock::Clock,
    definition::{AgentDefinition, Output},
    judge::{Act, Equipped},
    looks_up::{LooksUp, RETRIEVE},
    model::Model,
    policy::Policy,
    schema::Schema,
    store::Store,
    tool::{Tool, ToolDefinition},
};
use narthex_base::{Error, Result, error::nearest};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Agents of one project at most.
const AGENTS_MAX: usize = 1000;
/// Tools of one agent at most: each stands in every prompt.
const TOOLS_MAX: usize = 512;
/// How another agent is named among the tools of a definition.
const AGENT_WORD: &str = "agent:";

/// What agents are made of.
#[derive(Clone, Default)]
pub struct Kit {
    /// Models by the names that definitions give.
    pub models: BTreeMap<String, Arc<dyn Model>>,
    /// Tools; their definitions name them.
    pub tools: Vec<Arc<dyn Tool>>,
}

/// An agent, ready to run.
pub(crate) struct Agent {
    pub(crate) name: String,
    pub(crate) definition: AgentDefinition,
    pub(crate) tools: Vec<Equipped>,
    pub(crate) models: Vec<Arc<dyn Model>>,
    pub(crate) policy: Policy,
    pub(crate) output: Option<Schema>,
}

/// Makes agents ready.
pub(crate) struct Maker {
    pub(crate) kit: Kit,
    /// Names and descriptions of all agents.
    pub(crate) others: BTreeMap<String, String>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Maker {
    /// Makes all agents of a project ready.
    pub(crate) fn all(&self, agents: &[(String, AgentDefinition)]) -> Result<Vec<Arc<Agent>>> {
        if agents.len() > AGENTS_MAX {
            return Err(Error::input(format!("{} agents, and {AGENTS_MAX} are the limit", agents.len())));
        }
        let mut names = BTreeSet::new();
        for tool in &self.kit.tools {
            let name = &tool.definition().name;
            if is_reserved(name) {
                return Err(Error::input(format!("the tool `{name}` has the name of one of ours"))
                    .help("give it another name where it is configured"));
            }
            if !is_name(name) {
                return Err(Error::input(format!("`{name}` is no name of a tool"))
                    .help("a name has 1 to 128 of A–Z a–z 0–9 _ - ."));
            }
            if !names.insert(name.clone()) {
                return Err(Error::input(format!("two tools have the name `{name}`"))
                    .help("give one of them another name where it is configured"));
            }
        }
        agents.iter().map(|(name, definition)| self.agent(name, definition, false).map(Arc::new)).collect()
    }

    /// Makes an agent ready. A run that began with another definition goes on with what is left of its tools.
    pub(crate) fn agent(&self, name: &str, definition: &AgentDefinition, with_what_is_left: bool) -> Result<Agent> {
        let about = |error: Error| error.context(format!("the agent `{name}` cannot be made ready"));
        let tools = self.tools(name, definition, with_what_is_left).map_err(about)?;
        let output = match (&definition.output, definition.output_schema()) {
            (Some(Output::File(file)), _) => {
                return Err(about(Error::internal(format!("its output schema {file} was not read"))));
            }
            (_, Some(schema)) => Some(
                Schema::compile(&schema)
                    .map_err(|why| about(Error::input("`output` is no usable JSON Schema").cause(why)))?,
            ),
            (_, None) => None,
        };
        Ok(Agent {
            name: name.to_string(),
            definition: definition.clone(),
            models: self.models(definition, &tools).map_err(about)?,
            tools,
            policy: Policy::compile(&definition.policy).map_err(about)?,
            output,
        })
    }

    /// The models in the order in which they are asked, behind what is looked up first.
    fn models(&self, definition: &AgentDefinition, tools: &[Equipped]) -> Result<Vec<Arc<dyn Model>>> {
        let mut models = definition.models().map(|model| self.model(model)).collect::<Result<Vec<_>>>()?;
        let names = definition.knowledge.iter().map(|name| format!("{RETRIEVE}{name}"));
        let first: BTreeSet<String> = names.filter(|name| tools.iter().any(|t| t.definition.name == *name)).collect();
        if !first.is_empty() {
            let offered = first.iter().filter(|name| definition.tools.iter().any(|tool| means(tool, name)));
            let offered: BTreeSet<String> = offered.cloned().collect();
            for model in &mut models {
                *model = Arc::new(LooksUp::new(model.clone(), first.clone(), offered.clone()));
            }
        }
        Ok(models)
    }

    fn model(&self, name: &str) -> Result<Arc<dyn Model>> {
        self.kit
            .models
            .get(name)
            .cloned()
            .ok_or_else(|| not_there("model", name, nearest(name, self.kit.models.keys().map(String::as_str))))
    }

    fn tools(&self, agent: &str, definition: &AgentDefinition, with_what_is_left: bool) -> Result<Vec<Equipped>> {
        let mut tools: Vec<Equipped> = Vec::new();
        let knowledge = definition.knowledge.iter().map(|name| format!("{RETRIEVE}{name}"));
        for name in definition.tools.iter().cloned().chain(knowledge) {
            let found = match self.found(agent, &name) {
                Ok(found) => found,
                Err(_) if with_what_is_left => continue,
                Err(error) => return Err(error),
            };
            for (definition, act) in found {
                // A name and a pattern may both mean it.
                if tools.iter().all(|tool| tool.definition.name != definition.name) {
                    let schema = Schema::compile(&definition.input_schema).map_err(|why| {
                        Error::input(format!("the tool `{}` has no usable schema", definition.name)).cause(why)
                    })?;
                    tools.push(Equipped { digest: definition.digest(), definition, schema, act });
                }
            }
        }
        if tools.len() > TOOLS_MAX {
            return Err(Error::input(format!("{} tools, and {TOOLS_MAX} are the limit", tools.len()))
                .help("name those that it needs in `tools`"));
        }
        Ok(tools)
    }

    /// The tools that a name in a definition means.
    fn found(&self, agent: &str, name: &str) -> Result<Vec<(ToolDefinition, Act)>> {
        if let Some(other) = name.strip_prefix(AGENT_WORD) {
            return match self.others.get(other) {
                Some(description) if is_name(&format!("{AGENT_PREFIX}{other}")) => {
                    Ok(vec![(ask_agent(other, description), Act::Delegate(other.to_string()))])
                }
                Some(_) => Err(Error::input(format!("the agent `{other}` cannot be a tool"))
                    .help("its name may have letters, digits, `_`, `-` and `.`")),
                None => Err(not_there("agent", other, nearest(other, self.others.keys().map(String::as_str)))),
            };
        }
        if let Some(tool) = builtin(name, agent, &self.store, &self.clock) {
            return Ok(vec![(tool.definition().clone(), Act::Call(tool))]);
        }
        let fits = |tool: &&Arc<dyn Tool>| means(name, &tool.definition().name);
        let found: Vec<_> = self.kit.tools.iter().filter(fits).collect();
        if found.is_empty() {
            let names = self.kit.tools.iter().map(|tool| tool.definition().name.as_str());
            return Err(not_there("tool", name, nearest(name, names)));
        }
        Ok(found.into_iter().map(|tool| (tool.definition().clone(), Act::Call(tool.clone()))).collect())
    }
}

/// Whether a name in a definition means a tool: its own, or `files.*` for all that begin so.
fn means(name: &str, tool: &str) -> bool {
    match name.strip_suffix('*') {
        Some(beginning) => tool.starts_with(beginning),
        None => tool == name,
    }
}

fn not_there(what: &str, name: &str, near: Option<&str>) -> Error {
    let error = Error::input(format!("there is no {what} `{name}`"));
    match near {
        Some(near) => error.help(format!("did you mean `{near}`?")),
        None => error.help(format!("add the {what} to the project, or take its name out")),
    }
}

/// Whether models and policies can name a tool so.
fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || ['_', '-', '.'].contains(&c);
    (1..=128).contains(&name.len()) && name.chars().all(fits)
}

impl Agent {
    /// What is shown of it.
    pub(crate) fn view(&self) -> AgentView {
        let digests: Vec<String> = self.tools.iter().map(|tool| tool.digest.to_string()).collect();
        let made_of = json!([self.definition, digests]);
        AgentView {
            name: self.name.clone(),
            description: self.definition.description.clone(),
            version: canonical_digest(&made_of).short(),
            output: self.definition.output_schema(),
            tools: self
                .tools
                .iter()
                .map(|tool| (tool.definition.name.clone(), tool.definition.description.clone()))
                .collect(),
        }
    }

    /// The tools as its model sees them.
    pub(crate) fn tool_definitions(&self) -> Vec<&ToolDefinition> {
        self.tools.iter().map(|tool| &tool.definition).collect()
    }

    /// A tool by its name.
    pub(crate) fn tool(&self, name: &str) -> Option<&Equipped> {
        self.tools.iter().find(|tool| tool.definition.name == name)
    }
}
