//! A process that runs an agent is killed with SIGKILL, before and after each of its writes and at any time, and
//! another takes the run up: no effect twice, none left out unsaid, and the conversation is the same as without.
//!
//! The processes are this test's own program. `-- --ignored --nocapture` kills at 200 times by chance, and over
//! PostgreSQL too where `NARTHEX_TEST_POSTGRES` names a server and the feature `postgres` is on.
#![cfg(unix)]

use futures::{StreamExt, future::BoxFuture};
use narthex_agent::{
    AgentDefinition, Agents, Answer, Append, Ask, Call, Creation, Durability, Effect, Interrupt, Kit, Lease, Memory,
    NewRun, Page, Progress, Row, RunFilter, Runner, SqliteStore, Stamped, Store, StoreError, Surroundings, Tool,
    ToolDefinition, ToolFailure, ToolResult, Wait, open_store,
    scripted::{Scripted, call, say},
};
use narthex_base::{
    chat::{Message, Role},
    random::Stream,
};
use serde_json::{Map, json};
use std::{
    collections::BTreeMap,
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// Where a life's run writes down what it does; set for the processes that are to be killed.
const FOLDER: &str = "NARTHEX_LIFE_FOLDER";
/// Where it keeps its run.
const STORE: &str = "NARTHEX_LIFE_STORE";
/// The write at which it dies, counted from 0, and whether before or after: `3 after`.
const DEATH: &str = "NARTHEX_LIFE_DEATH";
/// A run is given up that does not end in so many lives.
const LIVES_MAX: usize = 60;
/// Deaths at times by chance, for each database.
const DEATHS: usize = 200;
const TENANT: &str = "anna";
/// What each tool of the agent does to the world.
const TOOLS: [(&str, Effect); 5] = [
    ("look", Effect::Reads),
    ("list", Effect::Reads),
    ("write", Effect::Writes),
    ("store", Effect::Writes),
    ("send", Effect::Reaches),
];

/// Six calls of each life that write or reach out, alone and side by side.
fn script() -> Scripted {
    Scripted::by_turn(
        "m",
        vec![
            call(&[("look", json!({"x": 1})), ("write", json!({"x": 2}))]),
            call(&[("store", json!({"x": 3})), ("list", json!({"x": 4}))]),
            call(&[("send", json!({"x": 5}))]),
            call(&[("write", json!({"x": 6})), ("store", json!({"x": 7})), ("send", json!({"x": 8}))]),
            say("all is done"),
        ],
    )
}

/// A tool that writes its call down, on disk before it returns.
struct Written {
    definition: ToolDefinition,
    folder: PathBuf,
}

impl Tool for Written {
    fn definition(&self) -> &ToolDefinition {
        &self.definition
    }

    fn call(&self, call: Call, _: Progress) -> BoxFuture<'static, Result<ToolResult, ToolFailure>> {
        let (file, name) = (self.folder.join("effects"), self.definition.name.clone());
        let text = did(&name, &json!(call.arguments));
        let reads = self.definition.effect == Effect::Reads;
        Box::pin(async move {
            if !reads {
                note(&file, &format!("{} {text}", call.id));
            }
            Ok(ToolResult::text(text))
        })
    }
}

fn did(tool: &str, arguments: &serde_json::Value) -> String {
    format!("{tool} did {arguments}")
}

/// Adds a line to a file: on disk when it returns.
fn note(file: &Path, line: &str) {
    let mut file = fs::OpenOptions::new().create(true).append(true).open(file).unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
    file.sync_data().unwrap();
}

fn lines(file: &Path) -> Vec<String> {
    fs::read_to_string(file).unwrap_or_default().lines().map(String::from).collect()
}

/// A store at one of whose writes the process dies.
struct Deadly {
    inner: Arc<dyn Store>,
    left: AtomicUsize,
    after: bool,
}

impl Deadly {
    fn write<'a, T: Send + 'a>(&'a self, write: Wait<'a, T>) -> Wait<'a, T> {
        Box::pin(async move {
            let last = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) == Err(0);
            if last && !self.after {
                die();
            }
            let written = write.await;
            if last {
                die();
            }
            written
        })
    }
}

fn die() -> ! {
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
    unreachable!("nothing comes after SIGKILL")
}

impl Store for Deadly {
    fn create(&self, new: NewRun) -> Wait<'_, Creation> {
        self.write(self.inner.create(new))
    }
    fn append(&self, append: Append) -> Wait<'_, ()> {
        self.write(self.inner.append(append))
    }
    fn events<'a>(&'a self, tenant: &'a str, run: &'a str, after: u64) -> Wait<'a, Vec<Stamped>> {
        self.inner.events(tenant, run, after)
    }
    fn row<'a>(&'a self, tenant: &'a str, run: &'a str) -> Wait<'a, Option<Row>> {
        self.inner.row(tenant, run)
    }
    fn rows<'a>(&'a self, tenant: &'a str, filter: RunFilter, page: Page) -> Wait<'a, Vec<Row>> {
        self.inner.rows(tenant, filter, page)
    }
    fn last_of_thread<'a>(&'a self, tenant: &'a str, thread: &'a str) -> Wait<'a, Option<Row>> {
        self.inner.last_of_thread(tenant, thread)
    }
    fn run_of_key<'a>(&'a self, tenant: &'a str, key: &'a str) -> Wait<'a, Option<String>> {
        self.inner.run_of_key(tenant, key)
    }
    fn lease<'a>(&'a self, run: &'a str, owner: &'a str, now_ms: u64, until_ms: u64) -> Wait<'a, Option<Lease>> {
        self.write(self.inner.lease(run, owner, now_ms, until_ms))
    }
    fn renew<'a>(&'a self, lease: &'a Lease, until_ms: u64) -> Wait<'a, bool> {
        self.write(self.inner.renew(lease, until_ms))
    }
    fn release<'a>(&'a self, lease: &'a Lease, events: u64) -> Wait<'a, bool> {
        self.write(self.inner.release(lease, events))
    }
    fn due<'a>(&'a self, owner: &'a str, now_ms: u64, count: usize) -> Wait<'a, Vec<(String, String)>> {
        self.inner.due(owner, now_ms, count)
    }
    fn remember(&self, memory: Memory) -> Wait<'_, ()> {
        self.write(self.inner.remember(memory))
    }
    fn recall<'a>(&'a self, tenant: &'a str, agent: &'a str, words: &'a str, count: usize) -> Wait<'a, Vec<Memory>> {
        self.inner.recall(tenant, agent, words, count)
    }
}

async fn opened(address: &str) -> Result<Arc<dyn Store>, StoreError> {
    match address.contains("://") {
        true => open_store(address).await,
        // The process dies here, not the machine.
        false => Ok(Arc::new(SqliteStore::open(Path::new(address), Durability::Process).await?)),
    }
}

/// One life, in a process of its own that [`World::live`] starts: the run is begun or found again, and its questions
/// are answered, until it has ended.
#[test]
fn life() {
    let Some(folder) = env::var_os(FOLDER).map(PathBuf::from) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut store = opened(&env::var(STORE).unwrap()).await.unwrap();
        if let Ok(death) = env::var(DEATH) {
            let (write, moment) = death.split_once(' ').unwrap();
            let left = AtomicUsize::new(write.parse().unwrap());
            store = Arc::new(Deadly { inner: store, left, after: moment == "after" });
        }
        note(&folder.join("lives"), "born");
        let view = live(&folder, store).await;
        // It may die here, too.
        fs::write(folder.join("nearly"), json!([view.status, view.messages]).to_string()).unwrap();
        fs::rename(folder.join("nearly"), folder.join("end")).unwrap();
    });
}

async fn live(folder: &Path, store: Arc<dyn Store>) -> narthex_agent::RunView {
    let name = folder.file_name().unwrap().to_string_lossy().into_owned();
    let tools = TOOLS.map(|(name, effect)| {
        let input_schema = json!({"type": "object", "properties": {"x": {"type": "integer"}}});
        let (name, description) = (name.to_string(), "Does something.".to_string());
        let definition = ToolDefinition { name, description, input_schema, output_schema: None, effect };
        Arc::new(Written { definition, folder: folder.into() }) as Arc<dyn Tool>
    });
    let kit = Kit { models: BTreeMap::from([("m".to_string(), Arc::new(script()) as _)]), tools: tools.into() };
    let policy = json!({"rules": [{"tool": "store", "then": "ask"}, {"tool": "*", "then": "allow"}]});
    let agent = AgentDefinition {
        tools: TOOLS.map(|(name, _)| name.to_string()).into(),
        policy: serde_json::from_value(policy).unwrap(),
        ..AgentDefinition::new("m")
    };
    let surroundings = Surroundings { owner: format!("here-{name}"), ..Surroundings::default() };
    let runner = Runner::new(vec![("a".into(), agent)], kit, store, surroundings).unwrap();
    let ask = Ask {
        agent: "a".into(),
        tenant: TENANT.into(),
        messages: vec![Message::new(Role::User, "do it")],
        thread: None,
        key: Some(name),
        metadata: Map::new(),
    };
    let run = runner.start(ask).await.unwrap();
    runner.resume_all().await.unwrap();
    loop {
        let _: Vec<_> = runner.follow(TENANT, &run, 0).collect().await;
        let view = runner.run(TENANT, &run).await.unwrap();
        if view.status.is_final() {
            return view;
        }
        for interrupt in &view.interrupts {
            // A question may have been answered in between.
            let _ = runner.answer(TENANT, &run, &interrupt.id, answer(folder, interrupt)).await;
        }
    }
}

/// A person approves; and asked about a call that nobody knows the fate of, looks whether it took effect.
fn answer(folder: &Path, interrupt: &Interrupt) -> Answer {
    let approve = Answer::Approve { by: "berta".into() };
    let (Some(_), Some((tool, arguments))) = (&interrupt.form, &interrupt.call) else { return approve };
    let text = did(tool, arguments);
    note(&folder.join("unknown"), &text);
    match lines(&folder.join("effects")).iter().any(|line| line.ends_with(&text)) {
        true => Answer::Say { value: json!({"result": text}) },
        false => approve,
    }
}

/// A run with what is known of it from outside.
struct World {
    _keep: tempfile::TempDir,
    folder: PathBuf,
    store: String,
}

impl World {
    fn new(database: Option<&str>) -> Self {
        let keep = tempfile::Builder::new().prefix("life-").tempdir().unwrap();
        let folder = keep.path().to_path_buf();
        let store = database.map_or_else(|| folder.join("runs.db").display().to_string(), String::from);
        Self { _keep: keep, folder, store }
    }

    fn live(&self, death: Option<(usize, &str)>) -> Child {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["life", "--exact"]).env(FOLDER, &self.folder).env(STORE, &self.store).env_remove(DEATH);
        if let Some((write, moment)) = death {
            command.env(DEATH, format!("{write} {moment}"));
        }
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn count(&self, file: &str) -> usize {
        lines(&self.folder.join(file)).len()
    }

    fn end(&self) -> Option<String> {
        fs::read_to_string(self.folder.join("end")).ok()
    }

    /// Every effect once, and the end that the run has that nothing happened to.
    fn check(&self, whole: &str, what: &str) {
        let mut effects: Vec<String> = lines(&self.folder.join("effects"));
        let made = effects.len();
        effects.sort();
        effects.dedup();
        assert_eq!((effects.len(), made), (6, 6), "{what}: {effects:?}");
        assert_eq!(self.end().as_deref(), Some(whole), "{what}");
    }
}

/// Waits for a life's end; true if it was killed.
fn buried(child: Child, what: &str) -> bool {
    use std::os::unix::process::ExitStatusExt;
    let output = child.wait_with_output().unwrap();
    match (output.status.signal(), output.status.success()) {
        (Some(9), _) => true,
        (_, true) => false,
        _ => panic!("{what}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)),
    }
}

/// The end of a run that nothing happens to.
fn whole(database: Option<&str>) -> String {
    let world = World::new(database);
    assert!(!buried(world.live(None), "the whole run"));
    world.check(&world.end().unwrap(), "the whole run");
    assert_eq!(world.count("unknown"), 0);
    world.end().unwrap()
}

#[test]
fn killed_at_every_write() {
    let whole = whole(None);
    // Two at once: there are as many moments.
    let deaths = std::thread::scope(|scope| {
        let whole = &whole;
        let work = ["before", "after"].map(|moment| scope.spawn(move || killed_at_each(moment, whole)));
        work.map(|work| work.join().unwrap())
    });
    let (points, unknown) = deaths.iter().fold((0, 0), |sum, each| (sum.0 + each.0, sum.1 + each.1));
    println!("killed at {points} moments; {unknown} calls of unknown fate, all asked about");
    assert!(points >= 38, "only {points} moments");
    // How many depends on which of the calls that go at once comes first: 11 to 16 were seen, fewer on a busy machine.
    assert!(unknown >= 8, "only {unknown} calls of unknown fate");
}

/// Kills at each write until there is none; gives how many there were, and the calls of unknown fate.
fn killed_at_each(moment: &str, whole: &str) -> (usize, usize) {
    let mut unknown = 0;
    for write in 0.. {
        let (world, what) = (World::new(None), format!("killed {moment} write {write}"));
        let killed = buried(world.live(Some((write, moment))), &what);
        if killed {
            assert!(!buried(world.live(None), &what));
        }
        world.check(whole, &what);
        unknown += world.count("unknown");
        if !killed {
            return (write, unknown);
        }
    }
    unreachable!("the loop has no end of its own")
}

/// Kills at times by chance, several times each run, until enough have died.
fn killed_by_chance(name: &str, database: Option<&str>) {
    let whole = whole(database);
    let world = World::new(database);
    let start = Instant::now();
    assert!(!buried(world.live(None), "timed"));
    let life = start.elapsed();
    let (chance, mut deaths, mut runs, mut unknown, mut in_work) = (Stream::new(11, name), 0, 0, 0, 0);
    while deaths < DEATHS {
        let (world, what) = (World::new(database), format!("{name}, run {runs}"));
        runs += 1;
        for lives in 1.. {
            assert!(lives <= LIVES_MAX, "{what}: no end after {lives} lives");
            let born = world.count("lives");
            let mut child = world.live(None);
            // Each life may be as long as a whole run; then it is let live, so that the run ends.
            if lives < LIVES_MAX / 2 {
                let wait = life.mul_f64(chance.uniform_f64((runs * LIVES_MAX + lives) as u64) * 1.1);
                std::thread::sleep(wait.max(Duration::from_millis(1)));
                in_work += usize::from(world.count("lives") > born && world.end().is_none());
                let _ = child.kill();
            }
            if buried(child, &what) {
                deaths += 1;
            } else if world.end().is_some() {
                break;
            }
        }
        world.check(&whole, &what);
        unknown += world.count("unknown");
    }
    println!(
        "{name}: {deaths} deaths in {runs} runs, {in_work} of them at work, a whole life takes {} ms; {unknown} calls of \
         unknown fate, all asked about; every effect once, every conversation the same",
        life.as_millis()
    );
}

#[test]
#[ignore = "takes minutes"]
fn killed_at_two_hundred_times_by_chance_over_sqlite() {
    killed_by_chance("sqlite", None);
}

#[test]
#[ignore = "takes minutes, and a PostgreSQL server"]
fn killed_at_two_hundred_times_by_chance_over_postgres() {
    match env::var("NARTHEX_TEST_POSTGRES") {
        Ok(server) => killed_by_chance("postgres", Some(&server)),
        Err(_) => println!("skipped: NARTHEX_TEST_POSTGRES=postgres://USER@HOST:PORT/DATABASE names a server"),
    }
}
