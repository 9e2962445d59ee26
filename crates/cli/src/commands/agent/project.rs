//! The agents of a project with all that they need: models loaded or reached, tools made, servers of tools connected to.
//! Knows the project file and the crates that each table belongs to.

use super::{house::House, telemetry::Still};
use crate::{
    commands::{base_options, shelf, source::Source},
    output::plain,
};
use narthex_a2a::RemoteSettings;
use narthex_agent::{
    AgentDefinition, AgentError, Agents, Kit, OpenAiModel, Output, RETRIEVE, RunView, Runner, Store, Surroundings,
    Tool, open_store,
};
use narthex_base::{
    ArtifactKind, Error, Plan, Result,
    plan::{Layers, guests},
};
use narthex_mcp::{ClientOptions, McpServer, McpSettings};
use narthex_serve::{InHouse, Models, ServeOptions};
use narthex_shelf::{Purpose, ReadyOptions, layers, root_of};
use narthex_tools::{
    endpoint::{Elsewhere, Endpoint},
    fetch::fetch,
    files::files,
    openapi::openapi,
    pinned::Pins,
    retrieve::retrieve,
    settings::ToolSettings,
    shell::shell,
};
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Whose runs they are where nobody says who asks.
pub(super) const TENANT: &str = "local";

/// Names another store of runs than the file in the project: `postgres://USER@HOST/DATABASE`, or another file.
const STORE_VARIABLE: &str = "NARTHEX_AGENT_STORE";

/// Bytes of a file with a schema.
const SCHEMA_BYTES_MAX: u64 = 1 << 20;

/// What a project says of agents.
pub(in crate::commands) struct Project {
    root: PathBuf,
    layers: Layers,
    pub agents: Vec<(String, AgentDefinition)>,
}

/// Agents with what they are made of.
pub(in crate::commands) struct Parts {
    pub agents: Vec<(String, AgentDefinition)>,
    pub kit: Kit,
    /// Tools end with their servers.
    pub servers: Vec<McpServer>,
}

/// Agents that can be asked, and what must live as long as they do.
pub(in crate::commands) struct Ready {
    pub runner: Arc<Runner>,
    /// Their servers of tools end with them.
    _servers: Vec<McpServer>,
}

impl Ready {
    /// Goes on with the runs that were interrupted, and with those of other processes that die. Says how many there
    /// were.
    pub async fn go_on(&self) -> Result<usize> {
        let taken_up = self.runner.resume_all().await;
        let taken_up = taken_up.map_err(|error| Error::input("runs cannot be taken up").cause(error))?;
        tokio::spawn(self.runner.keep_resuming());
        Ok(taken_up)
    }
}

impl Project {
    /// Reads the project's file.
    pub fn read(path: &Path) -> Result<Self> {
        let layers = layers(path, &base_options(&[]))?;
        let root = root_of(path);
        let mut agents: Vec<(String, AgentDefinition)> = guests(&layers, "agents")?;
        for (name, agent) in &mut agents {
            if let Some(Output::File(file)) = &agent.output {
                agent.output = Some(Output::Schema(read_schema(name, &root.join(file))?));
            }
        }
        Ok(Self { root, layers, agents })
    }

    /// Where a file lies that agents keep, in a folder that is there.
    pub fn state(&self, name: &str) -> Result<PathBuf> {
        let folder = self.root.join(".narthex");
        std::fs::create_dir_all(&folder).map_err(|error| Error::io("cannot make", &folder, error))?;
        Ok(folder.join(name))
    }

    /// A run of whoever sits here.
    pub async fn run(&self, run: &str) -> Result<RunView> {
        let onlooker = Runner::new(vec![], Kit::default(), self.store().await?, Surroundings::default())?;
        onlooker.run(TENANT, run).await.map_err(error_of)
    }

    /// The store of runs, made if there is none: the file in the project, or what `NARTHEX_AGENT_STORE` names.
    pub async fn store(&self) -> Result<Arc<dyn Store>> {
        let named = std::env::var(STORE_VARIABLE).ok().filter(|address| !address.is_empty());
        let address = match &named {
            Some(address) => address.clone(),
            None => self.state("agents.db")?.to_string_lossy().into_owned(),
        };
        open_store(&address).await.map_err(|error| {
            let error = Error::input("the runs of agents cannot be opened").cause(error);
            match named {
                // The address may hold a password.
                Some(_) => error.help(format!("check {STORE_VARIABLE}")),
                None => error.at(address, None),
            }
        })
    }

    /// An agent by its name.
    pub fn agent(&self, name: &str) -> Result<&AgentDefinition> {
        self.agents.iter().find(|(known, _)| known == name).map(|(_, agent)| agent).ok_or_else(|| {
            let names: Vec<&str> = self.agents.iter().map(|(name, _)| name.as_str()).collect();
            let error = Error::input(format!("there is no agent `{name}`"));
            match names.is_empty() {
                true => error.help("write one into narthex.toml: `[agents.NAME]` with `model = \"REF\"`"),
                false => error.help(format!("agents: {}", names.join(", "))),
            }
        })
    }

    /// These agents and those that they may ask, ready to run; all without names.
    pub async fn ready(&self, names: &[&str]) -> Result<Ready> {
        self.ready_and_told(names, Arc::new(|_, _| {})).await
    }

    /// The same; `still` is told when a run ends or waits.
    pub async fn ready_and_told(&self, names: &[&str], still: Still) -> Result<Ready> {
        let Parts { agents, kit, servers } = self.parts(names, &|_| false).await?;
        let store = self.store().await?;
        let warn = Arc::new(|what: String| noteln!("warning: {}", plain(&what)));
        let surroundings = Surroundings { warn, still, ..Surroundings::default() };
        let runner = Arc::new(Runner::new(agents, kit, store, surroundings)?);
        Ok(Ready { runner, _servers: servers })
    }

    /// These agents and those that they may ask, with their tools, and their models but for those that are left out.
    pub async fn parts(&self, names: &[&str], left_out: &(dyn Fn(&str) -> bool + Sync)) -> Result<Parts> {
        let agents = self.with_others(names)?;
        // Opening a model asks the ledger, which waits.
        let (models, tools) = tokio::task::block_in_place(|| {
            let mut tools = self.knowledge(&agents)?;
            tools.extend(self.tools()?);
            Ok::<_, Error>((self.models(&agents, left_out)?, tools))
        })?;
        let mut kit = Kit { models, tools };
        let mut servers = vec![];
        let mut theirs = self.remotes(&agents).await?;
        for server in self.servers(&agents).await? {
            theirs.extend(server.tools());
            for (tool, why) in server.left_out() {
                noteln!("warning: the tool `{}` of `{}` is left out: {}", plain(&tool), server.name(), plain(&why));
            }
            servers.push(server);
        }
        let pins = Pins::open(&self.state("tools.json")?)?;
        for tool in theirs {
            let tool = pins.pinned(tool)?;
            if tool.has_changed() {
                let name = plain(&tool.definition().name).into_owned();
                noteln!(
                    "warning: `{name}` is described otherwise than when it was first used here: its calls are asked about"
                );
            }
            kit.tools.push(tool);
        }
        Ok(Parts { agents, kit, servers })
    }

    /// The named agents and those that they name as tools, in the order of the file.
    fn with_others(&self, names: &[&str]) -> Result<Vec<(String, AgentDefinition)>> {
        let mut wanted: BTreeSet<String> = names.iter().map(|name| name.to_string()).collect();
        if names.is_empty() {
            wanted = self.agents.iter().map(|(name, _)| name.clone()).collect();
        }
        let mut open: Vec<String> = wanted.iter().cloned().collect();
        while let Some(name) = open.pop() {
            for other in self.agent(&name)?.tools.iter().filter_map(|tool| tool.strip_prefix("agent:")) {
                if wanted.insert(other.to_string()) {
                    open.push(other.to_string());
                }
            }
        }
        Ok(self.agents.iter().filter(|(name, _)| wanted.contains(name)).cloned().collect())
    }

    /// Every model that these agents name: somebody's, if `[models.NAME]` says so, or one of ours, loaded.
    fn models(
        &self,
        agents: &[(String, AgentDefinition)],
        left_out: &dyn Fn(&str) -> bool,
    ) -> Result<BTreeMap<String, Arc<dyn narthex_agent::Model>>> {
        let endpoints: BTreeMap<String, Endpoint> = guests(&self.layers, "models")?.into_iter().collect();
        let names = agents.iter().flat_map(|(_, agent)| agent.models()).filter(|name| !left_out(name));
        let names: BTreeSet<&str> = names.collect();
        let mut found: BTreeMap<String, Arc<dyn narthex_agent::Model>> = BTreeMap::new();
        let mut models = Models::within(None);
        for name in &names {
            if let Some(endpoint) = endpoints.get(*name) {
                let served = endpoint.model.as_deref().unwrap_or(name);
                let model = OpenAiModel::new(*name, served, Arc::new(Elsewhere::new(name, endpoint)?));
                found.insert(name.to_string(), Arc::new(model));
                continue;
            }
            let mut source = Source::new(shelf(&self.root), name.to_string(), ReadyOptions::default());
            source.name = Some(name.to_string());
            models.add(Arc::new(source).start()?)?;
        }
        if names.iter().all(|name| found.contains_key(*name)) {
            return Ok(found);
        }
        let house = Arc::new(House(InHouse::new(models, &ServeOptions::default())?));
        for name in names.into_iter().filter(|name| !endpoints.contains_key(*name)) {
            found.insert(name.into(), Arc::new(OpenAiModel::new(name, name, house.clone())));
        }
        Ok(found)
    }

    /// Every tool that `[tools.NAME]` describes. Relative paths start in the project's folder.
    fn tools(&self) -> Result<Vec<Arc<dyn Tool>>> {
        let mut tools = vec![];
        for (name, settings) in guests::<ToolSettings>(&self.layers, "tools")? {
            tools.extend(match settings.below(&self.root) {
                ToolSettings::Shell(settings) => shell(&name, &settings)?,
                ToolSettings::OpenApi(settings) => openapi(&name, &settings)?,
                ToolSettings::Files(settings) => files(&name, &settings)?,
                ToolSettings::Fetch(settings) => fetch(&name, &settings)?,
                ToolSettings::Sql(settings) => super::tables_asked::sql_tool(&self.root, &name, &settings)?,
            });
        }
        Ok(tools)
    }

    /// What looks things up, for all knowledge that these agents name.
    fn knowledge(&self, agents: &[(String, AgentDefinition)]) -> Result<Vec<Arc<dyn Tool>>> {
        let named = agents.iter().flat_map(|(_, agent)| {
            let tools = agent.tools.iter().filter_map(|tool| tool.strip_prefix(RETRIEVE));
            agent.knowledge.iter().map(String::as_str).chain(tools)
        });
        let mut names = BTreeSet::new();
        for name in named {
            match name.strip_suffix('*') {
                Some(begins) => names.extend(self.steps_of_knowledge()?.into_iter().filter(|n| n.starts_with(begins))),
                None => _ = names.insert(name.to_string()),
            }
        }
        let shelf = shelf(&self.root);
        let mut tools = vec![];
        for name in names {
            let knowledge = Arc::new(shelf.knowledge(&name, Purpose::Serve, None)?);
            let sources: Vec<&str> = knowledge.card().sources.iter().map(|source| source.name.as_str()).collect();
            let (about, settings) = (sources.join(", "), knowledge.settings());
            let search = Arc::new(move |question: &str, settings, files| knowledge.search(question, settings, files));
            tools.push(retrieve(&name, &about, settings, search)?);
        }
        Ok(tools)
    }

    fn steps_of_knowledge(&self) -> Result<Vec<String>> {
        let steps = Plan::resolve(&self.layers)?.steps.into_iter();
        Ok(steps.filter(|step| step.step.yields() == ArtifactKind::Knowledge).map(|step| step.name).collect())
    }

    /// The servers of tools that these agents use: those whose name begins the name of a tool.
    async fn servers(&self, agents: &[(String, AgentDefinition)]) -> Result<Vec<McpServer>> {
        let mut servers = vec![];
        for (name, spec) in guests::<McpSettings>(&self.layers, "mcp")? {
            let begins = format!("{name}.");
            let is_used = agents.iter().flat_map(|(_, agent)| &agent.tools).any(|tool| tool.starts_with(&begins));
            if is_used {
                let spec = spec.spec(&name, &self.root)?;
                noteln!("  {}", spec.describe());
                servers.push(narthex_mcp::connect(spec, ClientOptions::default()).await?);
            }
        }
        Ok(servers)
    }

    /// The agents of others that these agents may ask.
    async fn remotes(&self, agents: &[(String, AgentDefinition)]) -> Result<Vec<Arc<dyn Tool>>> {
        let mut tools = vec![];
        for (name, settings) in guests::<RemoteSettings>(&self.layers, "remotes")? {
            if is_used(agents, &name) {
                let remote = narthex_a2a::connect(&settings.url, settings.options(&name, &self.root)?).await?;
                let signed = if remote.is_signed() { "its card is signed" } else { "its card is not signed" };
                let (who, version) = (plain(remote.name()), plain(remote.version()));
                noteln!("  {name} is {who} {version} at {}; {signed}", settings.url);
                tools.push(remote.tool());
            }
        }
        Ok(tools)
    }
}

/// Whether one of these agents names a tool.
fn is_used(agents: &[(String, AgentDefinition)], name: &str) -> bool {
    agents.iter().flat_map(|(_, agent)| &agent.tools).any(|tool| tool == name)
}

/// An agent's error as ours.
pub(super) fn error_of(error: AgentError) -> Error {
    match error {
        AgentError::Failed(what) => Error::internal(what),
        other => Error::input(other.to_string()),
    }
}

/// The JSON Schema in a file.
fn read_schema(agent: &str, path: &Path) -> Result<Map<String, Value>> {
    let wrong = |what: &str| Error::input(format!("`output` of the agent `{agent}` {what}")).at(path.display(), None);
    let bytes = std::fs::metadata(path).map_err(|error| Error::io("cannot read", path, error))?.len();
    if bytes > SCHEMA_BYTES_MAX {
        return Err(wrong(&format!("has {bytes} bytes, {SCHEMA_BYTES_MAX} at most")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| Error::io("cannot read", path, error))?;
    serde_json::from_str(&text).map_err(|error| wrong("is no JSON Schema").cause(error))
}
