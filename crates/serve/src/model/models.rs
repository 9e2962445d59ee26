//! The models of a server, each under its name. They are loaded as they are asked for, within a budget of memory: those
//! that were asked for longest ago make room. Knows no wire format.

use super::{Served, Serving};
use narthex_base::{Error, Result};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::Mutex;

/// Requests that wait for models to be loaded.
const WAITING_MAX: usize = 1024;

/// How long a model that must go gets to end its answers.
const DRAINING_MAX: Duration = Duration::from_secs(60);

/// How often is looked whether it has.
const DRAINING_LOOK: Duration = Duration::from_millis(5);

/// The models of a server, in the order in which they were named.
pub struct Models {
    list: Vec<Arc<Serving>>,
    memory_bytes_max: u64,
    /// Held while a model is loaded: one at a time, so that what there is of memory is counted once.
    loading: Mutex<()>,
    waiting: AtomicUsize,
    clock: AtomicU64,
}

/// Why a model cannot answer now.
#[derive(Debug)]
pub(crate) enum NotReady {
    /// The others have no end with their answers, or too many wait.
    Busy,
    /// It cannot be loaded, or not any more.
    Broken(Error),
}

impl Models {
    /// None yet; those that are loaded may take so many bytes together.
    pub fn within(memory_bytes_max: Option<u64>) -> Self {
        Self {
            list: vec![],
            memory_bytes_max: memory_bytes_max.unwrap_or(u64::MAX),
            loading: Mutex::default(),
            waiting: AtomicUsize::new(0),
            clock: AtomicU64::new(0),
        }
    }

    /// One model alone.
    pub fn of(serving: Arc<Serving>) -> Self {
        Self { list: vec![serving], ..Self::within(None) }
    }

    /// Adds one that is loaded; those before it make room.
    ///
    /// # Errors
    /// If its name is taken, or it alone takes more than all may.
    pub fn add(&mut self, serving: Arc<Serving>) -> Result<()> {
        let described = serving.described();
        let adapters = described.adapters().into_iter().map(|entry| entry.name);
        if let Some(name) = std::iter::once(described.id.clone()).chain(adapters).find(|name| self.find(name).is_some())
        {
            return Err(Error::usage(format!("two of the models and adapters are called `{name}`"))
                .help("give one of them another name: `NAME=REF`, `--lora-modules NAME=PATH`"));
        }
        let bytes = serving.held_bytes();
        if bytes > self.memory_bytes_max {
            let (id, most) = (&described.id, self.memory_bytes_max);
            return Err(Error::input(format!(
                "`{id}` may take {bytes} bytes of memory, more than the {most} of all models"
            ))
            .help("raise `--models-memory-bytes`, or lower the model's `--kv-cache-memory-bytes`"));
        }
        serving.model_at(self.now());
        self.list.push(serving);
        while self.held_bytes() > self.memory_bytes_max && self.unload_oldest(self.list.len() - 1) {}
        Ok(())
    }

    /// All of them.
    pub fn all(&self) -> &[Arc<Serving>] {
        &self.list
    }

    /// The one there is, if there is but one.
    pub(crate) fn only(&self) -> Option<&Arc<Serving>> {
        if let [only] = &self.list[..] { Some(only) } else { None }
    }

    /// The model of this name, or the one under the adapter of this name.
    pub(crate) fn find(&self, name: &str) -> Option<&Arc<Serving>> {
        let has = |serving: &Arc<Serving>| serving.described().id == name;
        let over = |serving: &Arc<Serving>| serving.described().adapter(name).is_some();
        self.list.iter().find(|serving| has(serving)).or_else(|| self.list.iter().find(|serving| over(serving)))
    }

    /// A model for a new request, loaded if it is not in memory. Whoever waits too long or with too many is told so.
    pub(crate) async fn ready(&self, serving: &Arc<Serving>) -> Result<Arc<Served>, NotReady> {
        if let Some(model) = serving.model_at(self.now()) {
            return Ok(model);
        }
        let _place = Place::take(&self.waiting).ok_or(NotReady::Busy)?;
        let _alone = self.loading.lock().await;
        loop {
            // Another request may have had it loaded meanwhile.
            if let Some(model) = serving.model_at(self.now()) {
                return Ok(model);
            }
            self.make_room(serving.memory_bytes()).await?;
            let loading = serving.clone();
            let loaded = tokio::task::spawn_blocking(move || loading.load()).await;
            loaded.map_err(|error| NotReady::Broken(Error::internal(error.to_string())))?.map_err(NotReady::Broken)?;
        }
    }

    /// Waits until there is room for so many bytes.
    async fn make_room(&self, bytes: u64) -> Result<(), NotReady> {
        let begun = Instant::now();
        while self.held_bytes().saturating_add(bytes) > self.memory_bytes_max {
            let has_unloaded = self.unload_oldest(self.list.len());
            if begun.elapsed() > DRAINING_MAX {
                return Err(NotReady::Busy);
            }
            if !has_unloaded {
                tokio::time::sleep(DRAINING_LOOK).await;
            }
        }
        Ok(())
    }

    /// Unloads the one of the first so many that was asked for longest ago.
    fn unload_oldest(&self, of: usize) -> bool {
        let oldest = self.list[..of].iter().filter_map(|serving| Some((serving.used()?, serving)));
        oldest.min_by_key(|(used, _)| *used).is_some_and(|(_, serving)| serving.unload())
    }

    fn held_bytes(&self) -> u64 {
        self.list.iter().map(|serving| serving.held_bytes()).sum()
    }

    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }
}

/// A place among those that wait.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize) -> Option<Self> {
        let place = Self(waiting);
        let before = waiting.fetch_add(1, Ordering::Relaxed);
        (before < WAITING_MAX).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ServeOptions,
        testing::{self, get, post},
    };
    use axum::Router;
    use narthex_infer::scripted::{Scripted, say};
    use serde_json::{Value, json};

    /// A model of this name that says it, and takes so many bytes.
    fn named(name: &'static str, memory_bytes: u64, delay: Duration) -> Served {
        let said = testing::byte_tokens(name.as_bytes());
        let script = Scripted::new(move |request| say(request, &said)).with_context(64).delay(delay);
        let mut model = testing::model_of(Arc::new(script));
        (model.id, model.sizes.memory_bytes) = (name.into(), memory_bytes);
        model
    }

    fn serving(name: &'static str, memory_bytes: u64, delay: Duration) -> Arc<Serving> {
        let load = move |_: Option<&str>| Ok(named(name, memory_bytes, delay));
        Arc::new(Serving::with_load(named(name, memory_bytes, delay), load))
    }

    /// Three models and an encoder, of which two fit.
    fn router() -> Router {
        let mut models = Models::within(Some(20));
        for name in ["a", "b", "c"] {
            models.add(serving(name, 10, Duration::ZERO)).unwrap();
        }
        models.add(Arc::new(Serving::new(testing::embedding_model()))).unwrap();
        crate::router(models, &ServeOptions::default()).unwrap()
    }

    async fn loaded(router: &Router) -> Vec<String> {
        let list = get(router, "/v1/models").await.json(200);
        let is_loaded = |model: &&Value| model["status"]["value"] == "loaded";
        let data = list["data"].as_array().unwrap();
        data.iter().filter(is_loaded).map(|model| model["id"].as_str().unwrap().to_string()).collect()
    }

    #[tokio::test]
    async fn each_answers_under_its_name_and_the_oldest_makes_room() {
        let router = router();
        assert_eq!(loaded(&router).await, ["b", "c", "e"]);
        for (path, name, said, then) in [
            ("/v1/completions", "b", "/choices/0/text", ["b", "c", "e"]),
            ("/v1/completions", "a", "/choices/0/text", ["a", "b", "e"]),
            ("/completion", "c", "/content", ["a", "c", "e"]),
            ("/api/generate", "b:latest", "/response", ["b", "c", "e"]),
        ] {
            let body = json!({"model": name, "prompt": "x", "max_tokens": 8, "stream": false});
            let reply = post(&router, path, &body).await.json(200);
            assert_eq!(reply.pointer(said).unwrap(), &name[..1], "{path} {reply}");
            assert_eq!(loaded(&router).await, then, "{path} {name}");
        }
        let talk = json!({"model": "a", "max_tokens": 8, "messages": [{"role": "user", "content": "x"}]});
        for path in ["/v1/chat/completions", "/v1/messages", "/invocations"] {
            assert_eq!(post(&router, path, &talk).await.json(200)["model"], "a", "{path}");
        }
        let body = json!({"model": "a", "input": "x"});
        assert_eq!(post(&router, "/v1/responses", &body).await.json(200)["output"][0]["content"][0]["text"], "a");
        let body = json!({"model": "e", "input": ["x"]});
        assert_eq!(post(&router, "/v1/embeddings", &body).await.json(200)["model"], "e");
        // What is asked of the wrong one is refused in its name.
        let body = json!({"model": "a", "input": ["x"]});
        let error = post(&router, "/v1/embeddings", &body).await.json(400);
        assert!(error["error"]["message"].as_str().unwrap().contains("`a`"), "{error}");
    }

    #[tokio::test]
    async fn names_are_needed_where_there_are_several() {
        let router = router();
        let body = json!({"prompt": "x"});
        let error = post(&router, "/v1/completions", &body).await.json(400);
        assert_eq!((&error["error"]["param"], &error["error"]["code"]), (&json!("model"), &Value::Null));
        let message = "there are several models: name one in `model`; this server has `a`, `b`, `c`, `e`";
        assert_eq!(error["error"]["message"], message);
        let body = json!({"model": "z", "prompt": "x"});
        let error = post(&router, "/v1/completions", &body).await.json(404);
        assert_eq!(error["error"]["message"], "the model `z` does not exist; this server has `a`, `b`, `c`, `e`");
        assert_eq!(
            post(&router, "/api/show", &json!({"model": "e"})).await.json(200)["capabilities"],
            json!(["embedding"])
        );
        assert_eq!(get(&router, "/props?model=b").await.json(200)["model_path"], "b");
        get(&router, "/props?model=z").await.json(404);
        assert_eq!(get(&router, "/v1/models/c").await.json(200)["id"], "c");
        assert_eq!(get(&router, "/api/tags").await.json(200)["models"].as_array().unwrap().len(), 4);
        assert_eq!(get(&router, "/api/ps").await.json(200)["models"].as_array().unwrap().len(), 3);
    }

    #[tokio::test]
    async fn models_are_loaded_and_unloaded_by_hand() {
        let router = router();
        let unload = |name| json!({"model": name});
        assert_eq!(post(&router, "/models/unload", &unload("b")).await.json(200), json!({"success": true}));
        assert_eq!(loaded(&router).await, ["c", "e"]);
        post(&router, "/models/unload", &unload("b")).await.json(200);
        post(&router, "/models/load", &unload("a")).await.json(200);
        assert_eq!(loaded(&router).await, ["a", "c", "e"]);
        post(&router, "/api/generate", &json!({"model": "a", "keep_alive": 0})).await.json(200);
        assert_eq!(loaded(&router).await, ["c", "e"]);
        post(&router, "/models/unload", &unload("z")).await.json(404);
        // It was not said how it comes back.
        let error = post(&router, "/models/unload", &unload("e")).await.json(400);
        assert!(error["error"]["message"].as_str().unwrap().contains("stays in memory"), "{error}");
    }

    #[tokio::test]
    async fn what_was_counted_stays_and_each_family_stands_once() {
        let router = router();
        for name in ["a", "b", "c"] {
            post(&router, "/v1/completions", &json!({"model": name, "prompt": "xy"})).await.json(200);
        }
        let page = get(&router, "/metrics").await.text(200);
        for name in ["a", "b", "c"] {
            let line = format!("vllm:prompt_tokens_total{{model_name=\"{name}\",engine=\"0\"}} 2\n");
            assert!(page.contains(&line), "{line} in {page}");
        }
        let heads: Vec<&str> = page.lines().filter(|line| line.starts_with("# TYPE")).collect();
        let once: std::collections::HashSet<&&str> = heads.iter().collect();
        assert_eq!(heads.len(), once.len());
    }

    #[tokio::test]
    async fn answers_under_way_hold_their_memory() {
        let slow = Duration::from_millis(20);
        let mut models = Models::within(Some(10));
        for name in ["a long answer", "b"] {
            models.add(serving(name, 10, slow)).unwrap();
        }
        let (a, b) = (models.all()[0].clone(), models.all()[1].clone());
        let router = crate::router(models, &ServeOptions::default()).unwrap();
        let ask = |name: &'static str| {
            let router = router.clone();
            tokio::spawn(async move {
                post(&router, "/v1/completions", &json!({"model": name, "prompt": "x"})).await.json(200)
            })
        };
        let first = ask("a long answer");
        while a.stats().requests_running == 0 {
            tokio::task::yield_now().await;
        }
        let second = ask("b");
        let mut held_most = 0;
        while !second.is_finished() {
            held_most = held_most.max(a.held_bytes() + b.held_bytes());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(first.await.unwrap()["choices"][0]["text"], "a long answer");
        assert_eq!(second.await.unwrap()["choices"][0]["text"], "b");
        assert_eq!(held_most, 10);
    }

    #[tokio::test]
    async fn a_model_that_cannot_come_back_says_why() {
        let mut models = Models::within(None);
        let fails = |_: Option<&str>| Err(Error::input("its folder is gone"));
        let broken = Arc::new(Serving::with_load(named("a", 1, Duration::ZERO), fails));
        models.add(broken.clone()).unwrap();
        models.add(serving("b", 1, Duration::ZERO)).unwrap();
        assert!(broken.unload());
        let router = crate::router(models, &ServeOptions::default()).unwrap();
        let error = post(&router, "/v1/completions", &json!({"model": "a", "prompt": "x"})).await.json(503);
        assert_eq!(error["error"]["message"], "the model `a` cannot be loaded: its folder is gone");
        post(&router, "/v1/completions", &json!({"model": "b", "prompt": "x"})).await.json(200);
    }

    #[test]
    fn names_and_sizes_must_fit() {
        let mut models = Models::within(Some(10));
        models.add(serving("a", 10, Duration::ZERO)).unwrap();
        let error = models.add(serving("a", 1, Duration::ZERO)).unwrap_err();
        assert!(error.to_string().contains("are called `a`"), "{error}");
        let error = models.add(serving("b", 11, Duration::ZERO)).unwrap_err();
        assert!(error.to_string().contains("may take 11 bytes"), "{error}");
    }
}
