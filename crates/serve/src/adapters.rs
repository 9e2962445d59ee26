//! The adapters over the model that answers: known by name, in memory while they are used. Those that were used longest ago
//! make room; a request for one that is known and not there loads it.

use crate::{Generator, error::ApiError};
use axum::http::StatusCode;
use indexmap::IndexMap;
use narthex_base::{Error, Result};
use narthex_infer::Adapter;
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{SystemTime, UNIX_EPOCH},
};

/// Names that are known at most.
const KNOWN_MAX: usize = 4096;

/// Bytes of a name.
const NAME_BYTES_MAX: usize = 256;

/// The adapters of a server.
#[derive(Debug, Default)]
pub struct Adapters {
    /// In memory at most.
    loaded_max: usize,
    /// Where adapters lie that may be loaded over HTTP; none may if there is no such folder.
    folder: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: IndexMap<String, Known>,
    clock: u64,
}

#[derive(Debug)]
struct Known {
    folder: PathBuf,
    created: u64,
    loaded: Option<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    adapter: Arc<Adapter>,
    /// What it was loaded for: after an exchange it is another. As long as this is held, no other can have its address.
    of: Weak<dyn Generator>,
    used: u64,
}

/// What is shown of an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterEntry {
    /// The name that clients ask for.
    pub name: String,
    /// Where it lies.
    pub folder: PathBuf,
    /// When it was added, in seconds since 1970.
    pub created: u64,
    /// Whether it is in memory.
    pub loaded: bool,
}

impl Adapters {
    /// With room for so many in memory, and a folder from which clients may load more.
    ///
    /// # Errors
    /// If there is no such folder.
    pub fn new(loaded_max: usize, folder: Option<&Path>) -> Result<Self> {
        let folder =
            folder.map(|folder| folder.canonicalize().map_err(|error| Error::io("cannot read", folder, error)));
        Ok(Self { loaded_max: loaded_max.max(1), folder: folder.transpose()?, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an adapter of this folder under a name, or puts it in the place of the one that has the name.
    ///
    /// # Errors
    /// If the name is none, there are too many, or the adapter does not fit the model.
    pub fn add(&self, name: &str, folder: &Path, generator: &Arc<dyn Generator>) -> Result<()> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(Error::input("this is no name for an adapter")
                .help(format!("take 1 to {NAME_BYTES_MAX} bytes without control characters")));
        }
        {
            let state = self.lock();
            if state.known.len() >= KNOWN_MAX && !state.known.contains_key(name) {
                return Err(Error::input(format!("there are {KNOWN_MAX} adapters already"))
                    .help("take one away with /v1/unload_lora_adapter"));
            }
        }
        let adapter = generator.adapter(folder)?;
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut state = self.lock();
        state.known.insert(name.into(), Known { folder: folder.into(), created, loaded: None });
        state.keep(name, adapter, Arc::downgrade(generator), self.loaded_max);
        Ok(())
    }

    /// Forgets a name. Returns whether there was one; requests under way keep the adapter.
    pub fn remove(&self, name: &str) -> bool {
        self.lock().known.shift_remove(name).is_some()
    }

    /// The adapter of a name for this generator, loaded if it is not there; none if the name is not known.
    ///
    /// # Errors
    /// If it must be loaded and cannot be.
    pub fn get(&self, name: &str, generator: &Arc<dyn Generator>) -> Result<Option<Arc<Adapter>>> {
        let of = Arc::downgrade(generator);
        let folder = {
            let mut state = self.lock();
            state.clock += 1;
            let clock = state.clock;
            let Some(known) = state.known.get_mut(name) else { return Ok(None) };
            if let Some(loaded) = known.loaded.as_mut().filter(|loaded| loaded.of.ptr_eq(&of)) {
                loaded.used = clock;
                return Ok(Some(loaded.adapter.clone()));
            }
            known.folder.clone()
        };
        let adapter = generator.adapter(&folder)?;
        self.lock().keep(name, adapter.clone(), of, self.loaded_max);
        Ok(Some(adapter))
    }

    /// All that are known, in the order in which they came.
    pub fn list(&self) -> Vec<AdapterEntry> {
        let entry = |(name, known): (&String, &Known)| AdapterEntry {
            name: name.clone(),
            folder: known.folder.clone(),
            created: known.created,
            loaded: known.loaded.is_some(),
        };
        self.lock().known.iter().map(entry).collect()
    }

    /// Where an adapter lies that a client names.
    ///
    /// # Errors
    /// If clients may load none, or it is outside the folder from which they may.
    pub(crate) fn resolve(&self, path: &str) -> std::result::Result<PathBuf, ApiError> {
        let Some(root) = &self.folder else {
            let message = "this server loads no adapters over HTTP: start it with `--lora-dir DIR`";
            return Err(ApiError::request(StatusCode::FORBIDDEN, message, Some("lora_loading_off")));
        };
        let wrong = |message: String| ApiError::field("lora_path", message);
        let found = root.join(path).canonicalize();
        let found = found.map_err(|_| wrong(format!("there is no folder `{path}` in the server's `--lora-dir`")))?;
        if !found.starts_with(root) {
            return Err(wrong(format!("`{path}` is outside the server's `--lora-dir`")));
        }
        Ok(found)
    }

    /// Whether clients may load and unload.
    pub(crate) fn open(&self) -> bool {
        self.folder.is_some()
    }
}

impl State {
    /// Puts a loaded adapter in its place; those that were used longest ago make room.
    fn keep(&mut self, name: &str, adapter: Arc<Adapter>, of: Weak<dyn Generator>, loaded_max: usize) {
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
    use crate::{ServeOptions, Serving, scripted, testing};
    use narthex_infer::{EngineStats, Request, SubmitError};
    use serde_json::{Value, json};

    /// Says which adapter a request has: its rank as a letter behind `a`.
    struct Ranks;

    impl Generator for Ranks {
        fn submit(&self, request: Request, sink: crate::Sink) -> std::result::Result<crate::Ticket, SubmitError> {
            let rank = request.adapter.as_ref().map_or(0, |adapter| adapter.rank());
            let script = testing::byte_tokens(format!("rank {rank}").as_bytes());
            scripted::Scripted::new(move |request| scripted::say(request, &script)).submit(request, sink)
        }

        fn counters(&self) -> crate::Counters {
            Arc::new(EngineStats::default)
        }

        fn context(&self) -> usize {
            1000
        }

        fn adapter(&self, folder: &Path) -> Result<Arc<Adapter>> {
            let text = std::fs::read_to_string(folder.join("rank"))
                .map_err(|error| Error::io("cannot read", folder, error))?;
            Ok(Arc::new(Adapter::nothing(text.trim().parse().unwrap_or(0))))
        }
    }

    fn adapters(folder: &Path) -> Adapters {
        for rank in 1..=4 {
            std::fs::create_dir_all(folder.join(format!("r{rank}"))).unwrap();
            std::fs::write(folder.join(format!("r{rank}/rank")), rank.to_string()).unwrap();
        }
        Adapters::new(2, Some(folder)).unwrap()
    }

    #[test]
    fn the_longest_unused_makes_room_and_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let adapters = adapters(folder.path());
        let generator: Arc<dyn Generator> = Arc::new(Ranks);
        for rank in 1..=3 {
            adapters.add(&format!("a{rank}"), &folder.path().join(format!("r{rank}")), &generator).unwrap();
        }
        let loaded = || -> Vec<bool> { adapters.list().iter().map(|entry| entry.loaded).collect() };
        assert_eq!(loaded(), [false, true, true]);
        let get = |name: &str| adapters.get(name, &generator).unwrap().map(|adapter| adapter.rank());
        assert_eq!((get("a2"), get("a1"), get("none")), (Some(2), Some(1), None));
        assert_eq!(loaded(), [true, true, false], "the third was used longest ago");
        let held = adapters.get("a2", &generator).unwrap().unwrap();
        assert!(Arc::ptr_eq(&held, &adapters.get("a2", &generator).unwrap().unwrap()), "it is loaded once");
        let other: Arc<dyn Generator> = Arc::new(Ranks);
        assert!(!Arc::ptr_eq(&held, &adapters.get("a2", &other).unwrap().unwrap()), "after an exchange again");
        assert!(adapters.remove("a2") && !adapters.remove("a2"));
        assert_eq!(get("a2"), None);
        assert_eq!(held.rank(), 2, "who has it keeps it");
        let missing = adapters.add("x", &folder.path().join("r9"), &generator).unwrap_err();
        assert!(missing.to_string().contains("cannot read"), "{missing}");
    }

    #[tokio::test]
    async fn adapters_come_and_go_over_http() {
        let folder = tempfile::tempdir().unwrap();
        let mut model = testing::model_of(Arc::new(Ranks));
        model.adapters = Arc::new(adapters(folder.path()));
        let router = crate::router(Arc::new(Serving::new(model)), &ServeOptions::default()).unwrap();
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
