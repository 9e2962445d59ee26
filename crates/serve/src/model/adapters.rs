//! The adapters over the model that answers: known by name, in memory while they are used. Those that were used longest
//! ago make room; a request for one that is known and not there loads it. What an adapter is and whether it may be
//! served, others say.

use crate::{Ability, AdapterSources, NotServed, Served, ServedAdapter};
use indexmap::IndexMap;
use narthex_base::{Error, Result};
use narthex_infer::{Adapter, Generates};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{SystemTime, UNIX_EPOCH},
};

/// Names that are known at most.
const KNOWN_MAX: usize = 4096;

/// Bytes of a name.
const NAME_BYTES_MAX: usize = 256;

/// The adapters of a server; by default there are none, and none can come.
#[derive(Default)]
pub struct Adapters {
    /// In memory at most.
    loaded_max: usize,
    /// Where adapters lie that may be loaded over HTTP; none may if there is no such folder.
    folder: Option<PathBuf>,
    sources: Option<Arc<dyn AdapterSources>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: IndexMap<String, Known>,
    clock: u64,
}

struct Known {
    source: Arc<dyn ServedAdapter>,
    created: u64,
    loaded: Option<Loaded>,
}

struct Loaded {
    adapter: Arc<Adapter>,
    /// What it was loaded for: after a replacement it is another. As long as this is held, no other can have its
    /// address.
    of: Weak<dyn Generates>,
    used: u64,
}

/// What is shown of an adapter.
#[derive(Clone)]
pub struct AdapterEntry {
    /// The name that clients ask for.
    pub name: String,
    /// Where it lies, and what is known of it.
    pub source: Arc<dyn ServedAdapter>,
    /// When it was added, in seconds since 1970.
    pub created: u64,
    /// Whether it is in memory.
    pub loaded: bool,
}

impl Adapters {
    /// With room for so many in memory, and a folder from which clients may load more. `sources` says what may be
    /// served.
    ///
    /// # Errors
    /// If there is no such folder.
    pub fn new(loaded_max: usize, folder: Option<&Path>, sources: Arc<dyn AdapterSources>) -> Result<Self> {
        let folder =
            folder.map(|folder| folder.canonicalize().map_err(|error| Error::io("cannot read", folder, error)));
        let (folder, sources) = (folder.transpose()?, Some(sources));
        Ok(Self { loaded_max: loaded_max.max(1), folder, sources, state: Mutex::default() })
    }

    /// How many may be in memory at once.
    pub(crate) fn loaded_max(&self) -> usize {
        self.loaded_max
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the adapter at a place that is to be served under a name, without loading it.
    ///
    /// # Errors
    /// If the name is none, there are too many, or the adapter may not be served or cannot be read.
    pub fn open(&self, name: &str, place: &Path) -> Result<Arc<dyn ServedAdapter>, NotServed> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            let help = format!("take 1 to {NAME_BYTES_MAX} bytes without control characters");
            return Err(Error::input("this is no name for an adapter").help(help).into());
        }
        {
            let state = self.lock();
            if state.known.len() >= KNOWN_MAX && !state.known.contains_key(name) {
                let help = "take one away with /v1/unload_lora_adapter";
                return Err(Error::input(format!("there are {KNOWN_MAX} adapters already")).help(help).into());
            }
        }
        match &self.sources {
            Some(sources) => sources.open(name, place),
            None => Err(Error::input("this server takes no adapters").into()),
        }
    }

    /// Loads an adapter that was opened for this name, in the place of the one that has the name. Returns what the
    /// operator should know; each a line.
    ///
    /// # Errors
    /// If it cannot be read, or does not fit the model.
    pub fn add(&self, name: &str, source: Arc<dyn ServedAdapter>, base: &Served) -> Result<Vec<String>> {
        let Ability::Text(text) = &base.ability else {
            return Err(Error::input("this model takes no adapters").at(source.folder().display(), None));
        };
        let adapter = text.model.engine.adapter(source.folder())?;
        let warnings = warnings(name, source.as_ref(), base);
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut state = self.lock();
        state.known.insert(name.into(), Known { source, created, loaded: None });
        state.keep(name, adapter, Arc::downgrade(&text.model.engine), self.loaded_max);
        Ok(warnings)
    }

    /// What the operator should know of all adapters over this model; each a line.
    pub fn warnings(&self, base: &Served) -> Vec<String> {
        self.list().iter().flat_map(|entry| warnings(&entry.name, entry.source.as_ref(), base)).collect()
    }

    /// Forgets a name. Returns whether there was one; requests under way keep the adapter.
    pub fn remove(&self, name: &str) -> bool {
        self.lock().known.shift_remove(name).is_some()
    }

    /// Forgets all, and with them what was made for reading them.
    pub fn clear(&self) {
        let known = std::mem::take(&mut self.lock().known);
        drop(known);
    }

    /// Takes all out of memory; they stay known.
    pub(crate) fn unload(&self) {
        self.lock().known.values_mut().for_each(|known| known.loaded = None);
    }

    /// The adapter of a name for this engine, loaded if it is not there; none if the name is not known. If another lies
    /// in its place by then, that one is opened, and must be allowed too. Not for asynchronous code: this reads files,
    /// and what it calls may wait.
    ///
    /// # Errors
    /// If it must be loaded and cannot be.
    pub fn get(&self, name: &str, engine: &Arc<dyn Generates>) -> Result<Option<Arc<Adapter>>> {
        let of = Arc::downgrade(engine);
        let source = {
            let mut state = self.lock();
            state.clock += 1;
            let clock = state.clock;
            let Some(known) = state.known.get_mut(name) else { return Ok(None) };
            if let Some(loaded) = known.loaded.as_mut().filter(|loaded| loaded.of.ptr_eq(&of)) {
                loaded.used = clock;
                return Ok(Some(loaded.adapter.clone()));
            }
            known.source.clone()
        };
        let newer = if source.is_current() { None } else { Some(self.open(name, source.place())?) };
        let adapter = engine.adapter(newer.as_ref().unwrap_or(&source).folder())?;
        let mut state = self.lock();
        let known = state.known.get_mut(name);
        // It may have been taken away, or replaced, while it was loaded: then this request alone has it.
        if let Some(known) = known.filter(|known| Arc::ptr_eq(&known.source, &source)) {
            known.source = newer.unwrap_or(source);
            state.keep(name, adapter.clone(), of, self.loaded_max);
        }
        Ok(Some(adapter))
    }

    /// All that are known, in the order in which they came.
    pub fn list(&self) -> Vec<AdapterEntry> {
        self.lock().known.iter().map(|(name, known)| known.entry(name)).collect()
    }

    /// The one of this name, without loading it.
    pub fn find(&self, name: &str) -> Option<AdapterEntry> {
        self.lock().known.get(name).map(|known| known.entry(name))
    }

    /// Where adapters lie that clients may load; none may be loaded without.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }
}

/// What there is to know of an adapter over a model, with its name in front.
fn warnings(name: &str, source: &dyn ServedAdapter, base: &Served) -> Vec<String> {
    source.warnings(base).into_iter().map(|what| format!("the adapter `{name}`: {what}")).collect()
}

impl Known {
    fn entry(&self, name: &str) -> AdapterEntry {
        let (source, created, loaded) = (self.source.clone(), self.created, self.loaded.is_some());
        AdapterEntry { name: name.into(), source, created, loaded }
    }
}

impl State {
    /// Puts a loaded adapter in its place; those that were used longest ago make room.
    fn keep(&mut self, name: &str, adapter: Arc<Adapter>, of: Weak<dyn Generates>, loaded_max: usize) {
        self.clock += 1;
        // It may have been taken away while it was loaded.
        let Some(known) = self.known.get_mut(name) else { return };
        known.loaded = Some(Loaded { adapter, of, used: self.clock });
        let used = |known: &Known| known.loaded.as_ref().map(|loaded| loaded.used);
        while self.known.values().filter_map(used).count() > loaded_max {
            let oldest = self.known.values_mut().filter(|known| known.loaded.is_some()).min_by_key(|known| used(known));
            if let Some(known) = oldest {
                known.loaded = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Models, ServeOptions, Serving, testing};
    use narthex_base::{ArtifactKind, Digest, LineageNode};
    use narthex_infer::{
        EngineStats, Request, Sink, StatsReader, SubmitError, Takes, Ticket,
        scripted::{Scripted, say},
    };
    use narthex_openness::Shown;
    use serde_json::{Value, json};

    /// Says which adapter a request has: its rank as a letter behind `a`.
    struct Ranks;

    impl Takes<Request, Sink> for Ranks {
        fn submit(&self, request: Request, sink: Sink) -> std::result::Result<Ticket, SubmitError> {
            let rank = request.adapter.as_ref().map_or(0, |adapter| adapter.rank());
            let script = testing::byte_tokens(format!("rank {rank}").as_bytes());
            Scripted::new(move |request| say(request, &script)).submit(request, sink)
        }

        fn stats_reader(&self) -> StatsReader {
            Arc::new(EngineStats::default)
        }

        fn context(&self) -> usize {
            1000
        }
    }

    impl Generates for Ranks {
        fn adapter(&self, folder: &Path) -> Result<Arc<Adapter>> {
            let text = std::fs::read_to_string(folder.join("rank"))
                .map_err(|error| Error::io("cannot read", folder, error))?;
            Ok(Arc::new(Adapter::nothing(text.trim().parse().unwrap_or(0))))
        }
    }

    /// Folders whose file `terms` holds what is known of them as JSON, and which may not be served if that says so.
    struct Folders;

    struct Folder {
        place: PathBuf,
        rank: String,
        terms: Value,
        shown: Shown,
    }

    /// A node of a tree, whose digest is that of a word.
    fn node(name: &str, word: &str, parents: Vec<LineageNode>) -> LineageNode {
        let manifest = testing::manifest(ArtifactKind::Model, name);
        LineageNode { parents, ..LineageNode::of(&manifest, Digest::of(word.as_bytes())) }
    }

    /// With a licence, a class and papers if `license` is there, and a tree if `lineage` names an ancestor.
    fn shown_of(terms: &Value) -> Shown {
        let Some(license) = terms["license"].as_str() else { return Shown::unknown() };
        let lineage = terms["lineage"].as_str().map(|words| node("talker", "aa", vec![node(words, words, vec![])]));
        Shown { lineage, ..testing::shown("aa", license, 2) }
    }

    impl AdapterSources for Folders {
        fn open(&self, name: &str, place: &Path) -> Result<Arc<dyn ServedAdapter>, NotServed> {
            let terms = std::fs::read_to_string(place.join("terms")).unwrap_or("{}".into());
            let terms: Value = serde_json::from_str(&terms).unwrap();
            if terms["refused"] == true {
                let error = Error::input(format!("the policy does not allow to serve `{name}`"));
                return Err(NotServed::Refused(error.cause("rule not-for-sale: we sell it")));
            }
            let rank = std::fs::read_to_string(place.join("rank")).unwrap_or_default();
            Ok(Arc::new(Folder { place: place.into(), rank, shown: shown_of(&terms), terms }))
        }
    }

    impl ServedAdapter for Folder {
        fn place(&self) -> &Path {
            &self.place
        }

        fn folder(&self) -> &Path {
            &self.place
        }

        fn is_current(&self) -> bool {
            std::fs::read_to_string(self.place.join("rank")).is_ok_and(|rank| rank == self.rank)
        }

        fn provenance(&self) -> &Shown {
            &self.shown
        }

        fn warnings(&self, base: &Served) -> Vec<String> {
            let other = self.terms["base"].as_str().filter(|wanted| *wanted != base.id);
            other.map(|wanted| format!("made for {wanted}")).into_iter().collect()
        }
    }

    fn adapters(folder: &Path) -> Adapters {
        for rank in 1..=4 {
            std::fs::create_dir_all(folder.join(format!("r{rank}"))).unwrap();
            std::fs::write(folder.join(format!("r{rank}/rank")), rank.to_string()).unwrap();
        }
        Adapters::new(2, Some(folder), Arc::new(Folders)).unwrap()
    }

    fn add(adapters: &Adapters, name: &str, place: &Path, base: &Served) -> Result<Vec<String>> {
        adapters.add(name, adapters.open(name, place)?, base)
    }

    #[test]
    fn the_longest_unused_makes_room_and_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let adapters = adapters(folder.path());
        let base = testing::model_of(Arc::new(Ranks));
        let Ability::Text(text) = &base.ability else { panic!("the model writes text") };
        let engine = text.model.engine.clone();
        for rank in 1..=3 {
            add(&adapters, &format!("a{rank}"), &folder.path().join(format!("r{rank}")), &base).unwrap();
        }
        let loaded = || -> Vec<bool> { adapters.list().iter().map(|entry| entry.loaded).collect() };
        assert_eq!(loaded(), [false, true, true]);
        let get = |name: &str| adapters.get(name, &engine).unwrap().map(|adapter| adapter.rank());
        assert_eq!((get("a2"), get("a1"), get("none")), (Some(2), Some(1), None));
        assert_eq!(loaded(), [true, true, false], "the third was used longest ago");
        let held = adapters.get("a2", &engine).unwrap().unwrap();
        assert!(Arc::ptr_eq(&held, &adapters.get("a2", &engine).unwrap().unwrap()), "it is loaded once");
        let other: Arc<dyn Generates> = Arc::new(Ranks);
        assert!(!Arc::ptr_eq(&held, &adapters.get("a2", &other).unwrap().unwrap()), "after a replacement again");
        assert!(adapters.remove("a2") && !adapters.remove("a2"));
        assert_eq!(get("a2"), None);
        assert_eq!(held.rank(), 2, "who has it keeps it");
        let missing = add(&adapters, "x", &folder.path().join("r9"), &base).unwrap_err();
        assert!(missing.to_string().contains("cannot read"), "{missing}");
        let none = Adapters::default().open("x", folder.path()).err().map(Error::from).unwrap();
        assert!(none.what().contains("takes no adapters"), "{none}");
    }

    #[test]
    fn what_was_changed_meanwhile_must_be_allowed_again() {
        let folder = tempfile::tempdir().unwrap();
        let adapters = adapters(folder.path());
        let base = testing::model_of(Arc::new(Ranks));
        let place = folder.path().join("r1");
        let write = |name: &str, text: &str| std::fs::write(place.join(name), text).unwrap();
        add(&adapters, "a", &place, &base).unwrap();
        write("rank", "7");
        write("terms", r#"{"license": "MIT", "base": "other"}"#);
        let get = |engine: &Arc<dyn Generates>| adapters.get("a", engine).map(|a| a.unwrap().rank());
        let Ability::Text(text) = &base.ability else { panic!("the model writes text") };
        assert_eq!(get(&text.model.engine).unwrap(), 1, "what is in memory stays");
        let next: Arc<dyn Generates> = Arc::new(Ranks);
        assert_eq!(get(&next).unwrap(), 7);
        let license = adapters.find("a").unwrap().source.provenance().license.clone().unwrap();
        assert_eq!(license.as_str(), "MIT", "its terms are the new ones");
        assert_eq!(adapters.warnings(&base), ["the adapter `a`: made for other"]);
        write("rank", "8");
        write("terms", r#"{"refused": true}"#);
        let after: Arc<dyn Generates> = Arc::new(Ranks);
        assert!(get(&after).unwrap_err().to_string().contains("rule not-for-sale"));
        adapters.clear();
        assert!(adapters.list().is_empty());
    }

    #[tokio::test]
    async fn each_shows_its_own_terms_and_the_model_under_it() {
        let folder = tempfile::tempdir().unwrap();
        let adapters = adapters(folder.path());
        let terms = json!({"license": "Apache-2.0", "lineage": "words"});
        std::fs::write(folder.path().join("r1/terms"), terms.to_string()).unwrap();
        std::fs::write(folder.path().join("r4/terms"), r#"{"refused": true}"#).unwrap();
        let mut model = testing::model_of(Arc::new(Ranks));
        testing::text(&mut model).adapters = Arc::new(adapters);
        let (known, served) = (testing::text(&mut model).adapters.clone(), Arc::new(Serving::new(model)));
        let router = crate::router(Models::of(served.clone()), &ServeOptions::default()).unwrap();
        let get = async |path: &str, status: u16| testing::get(&router, path).await.json(status);
        assert!(get("/v1/provenance", 200).await.get("adapters").is_none());
        let load = |name: &str, path: &str| json!({"lora_name": name, "lora_path": path});
        for (name, path) in [("papered", "r1"), ("bare", "r2")] {
            testing::post(&router, "/v1/load_lora_adapter", &load(name, path)).await.text(200);
        }
        let error = testing::post(&router, "/v1/load_lora_adapter", &load("sold", "r4")).await.json(403);
        let error = &error["error"];
        assert_eq!((&error["code"], &error["param"]), (&json!("adapter_refused"), &json!("lora_path")));
        assert!(error["message"].as_str().unwrap().contains("rule not-for-sale: we sell it"), "{error}");
        assert!(known.find("sold").is_none() && known.list().len() == 2, "nothing is loaded");

        let models = get("/v1/models", 200).await;
        let terms: Vec<_> =
            models["data"].as_array().unwrap().iter().map(|m| (&m["license"], &m["openness_class"])).collect();
        assert_eq!(
            terms,
            [(&json!("MIT"), &json!(3)), (&json!("Apache-2.0"), &json!(2)), (&Value::Null, &Value::Null)]
        );
        let shown = get("/v1/models/papered", 200).await;
        assert_eq!(
            (&shown["license"], &shown["openness"]["class"], &shown["parent"]),
            (&json!("Apache-2.0"), &json!(2), &json!("m"))
        );
        let parents = |shown: &Value| -> Vec<Value> {
            let all = shown["lineage"]["parents"].as_array().unwrap();
            all.iter().map(|node| json!([node["role"], node["name"], node["repeated"]])).collect()
        };
        assert_eq!(shown["lineage"]["name"], "talker");
        assert_eq!(
            parents(&shown),
            [json!([null, "words", false]), json!(["base", "m", false])],
            "of the base nothing is known"
        );
        assert_eq!(shown["manifest"], "/v1/models/papered/manifest");
        assert_eq!(get("/v1/models/papered/manifest", 200).await["manifest"]["kind"], "bundle");
        let bare = get("/v1/models/bare", 200).await;
        assert_eq!((&bare["lineage"]["name"], &bare["manifest"]), (&json!("bare"), &Value::Null));
        let error = get("/v1/models/bare/manifest", 404).await;
        assert_eq!(error["error"]["message"], "the adapter `bare` came without papers");
        let all = get("/v1/provenance", 200).await;
        assert_eq!((&all["license"], &all["adapters"]["papered"]["license"]), (&json!("MIT"), &json!("Apache-2.0")));

        // The base as it is known after a replacement: with its own tree, and once if it is an ancestor already.
        for (word, expected) in [("base", json!(["words"])), ("words", json!([]))] {
            let mut next = testing::model_of(Arc::new(Ranks));
            testing::text(&mut next).adapters = known.clone();
            next.provenance.lineage = Some(node("base", word, vec![node("words", "words", vec![])]));
            served.replace(next);
            let shown = get("/v1/models/papered", 200).await;
            let base = &shown["lineage"]["parents"][1];
            assert_eq!((&base["role"], &base["name"]), (&json!("base"), &json!("base")));
            let found: Vec<_> = base["parents"].as_array().unwrap().iter().map(|n| n["name"].clone()).collect();
            assert_eq!(json!(found), expected);
            assert_eq!(base["repeated"], word == "words");
        }
        // Over another model it would have to be read again; looks and other uses of the name load nothing.
        std::fs::remove_dir_all(folder.path().join("r2")).unwrap();
        let tokens = json!({"model": "bare", "tokens": [3]});
        testing::post(&router, "/detokenize", &tokens).await.json(200);
        get("/v1/models/bare", 200).await;
    }

    #[tokio::test]
    async fn adapters_come_and_go_over_http() {
        let folder = tempfile::tempdir().unwrap();
        let mut model = testing::model_of(Arc::new(Ranks));
        testing::text(&mut model).adapters = Arc::new(adapters(folder.path()));
        let router = crate::router(Models::of(Arc::new(Serving::new(model))), &ServeOptions::default()).unwrap();
        let post = async |path: &str, body: Value, status: u16| testing::post(&router, path, &body).await.text(status);
        let says = async |name: &str| {
            let body = json!({"model": name, "prompt": "x", "max_tokens": 20});
            let answer = testing::post(&router, "/v1/completions", &body).await.json(200);
            assert_eq!(answer["model"], name);
            answer["choices"][0]["text"].as_str().unwrap().to_string()
        };
        assert_eq!(says("m").await, "rank 0");
        let load = |name: &str, path: &str| json!({"lora_name": name, "lora_path": path});
        let text = post("/v1/load_lora_adapter", load("french", "r3"), 200).await;
        assert_eq!(text, "Success: LoRA adapter 'french' added successfully.");
        assert_eq!((says("french").await, says("m").await), ("rank 3".into(), "rank 0".into()));
        let models = testing::get(&router, "/v1/models").await.json(200);
        assert_eq!((&models["data"][0]["id"], &models["data"][1]["id"]), (&json!("m"), &json!("french")));
        assert_eq!(models["data"][1]["parent"], "m");
        for (path, body, status, expected) in [
            ("/v1/load_lora_adapter", load("french", "r1"), 400, "is loaded already"),
            ("/v1/load_lora_adapter", load("m", "r1"), 400, "is the name of the model itself"),
            ("/v1/load_lora_adapter", load("x", "r7"), 400, "there is no folder `r7`"),
            ("/v1/load_lora_adapter", load("x", "../"), 400, "outside the server's `--lora-dir`"),
            ("/v1/load_lora_adapter", load("x", "/"), 400, "outside the server's `--lora-dir`"),
            ("/v1/load_lora_adapter", load("x", "."), 400, "cannot read"),
            ("/v1/load_lora_adapter", json!({"lora_name": "x"}), 400, "`lora_path` is missing"),
            ("/v1/unload_lora_adapter", json!({"lora_name": "x"}), 404, "there is no adapter `x`"),
        ] {
            let text = post(path, body, status).await;
            assert!(text.contains(expected), "{expected}: {text}");
        }
        let again = json!({"lora_name": "french", "lora_path": "r1", "load_inplace": true});
        post("/v1/load_lora_adapter", again, 200).await;
        assert_eq!(says("french").await, "rank 1");
        let text = post("/v1/unload_lora_adapter", json!({"lora_name": "french"}), 200).await;
        assert_eq!(text, "Success: LoRA adapter 'french' removed successfully.");
        let body = json!({"model": "french", "prompt": "x"});
        let error = testing::post(&router, "/v1/completions", &body).await.json(404);
        assert_eq!(error["error"]["message"], "the model `french` does not exist; this server has `m`");
    }

    #[tokio::test]
    async fn nothing_is_loaded_over_http_unless_the_server_says_from_where() {
        let router = testing::router_with(|_| vec![], &ServeOptions::default());
        for path in ["/v1/load_lora_adapter", "/v1/unload_lora_adapter"] {
            let body = json!({"lora_name": "x", "lora_path": "/etc"});
            let error = testing::post(&router, path, &body).await.json(403);
            assert_eq!(error["error"]["code"], "lora_loading_off");
        }
    }
}
