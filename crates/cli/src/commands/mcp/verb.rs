//! A verb of ours as a tool: described by the type of its arguments, carried out where it may block, told of as it goes,
//! and stopped when nobody waits for it any more. Knows no verb.

use super::desk::Desk;
use futures::future::BoxFuture;
use narthex_agent::{Call, Effect, Progress, Tool, ToolDefinition, ToolFailure, ToolResult};
use narthex_base::{Error, Event, Observer, Result};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Notices of progress are at least so far apart, so that they are seen and not dropped.
const NOTICE_EVERY: Duration = Duration::from_millis(200);

/// By how much progress grows at least: clients take no notice that does not say more than the last one.
const LEAST_STEP: f64 = 1e-6;

/// How far a step is whose work is done and which has not ended: its end has to say more.
const STEP_ALL_BUT_DONE: f64 = 0.999;

/// Warnings of one call that are given with its result.
const WARNINGS_MAX: usize = 50;

/// What a verb does with the arguments of a call.
type Act = dyn Fn(&Desk, Map<String, Value>, &Watch) -> Result<Value> + Send + Sync;

/// A verb as a tool.
struct Verb {
    definition: ToolDefinition,
    desk: Arc<Desk>,
    act: Arc<Act>,
}

/// How a verb is described.
pub struct About {
    /// What it is called by.
    pub name: &'static str,
    /// What it does, for a model that chooses among tools.
    pub description: &'static str,
    /// What it does to the project.
    pub effect: Effect,
    /// What its result has: keys, and the types of their values.
    pub gives: &'static [(&'static str, &'static str)],
}

/// A verb that reads, or writes, as a tool.
pub fn verb<A: DeserializeOwned + JsonSchema + 'static>(
    desk: &Arc<Desk>,
    about: About,
    act: impl Fn(&Desk, A, &Watch) -> Result<Value> + Send + Sync + 'static,
) -> Arc<dyn Tool> {
    let About { name, description, effect, gives } = about;
    let gives = gives.iter().map(|(key, kind)| (key.to_string(), json!({"type": kind})));
    let keys: Vec<&str> = about.gives.iter().map(|(key, _)| *key).collect();
    let output_schema = json!({"type": "object", "properties": Map::from_iter(gives), "required": keys});
    let definition = ToolDefinition {
        name: name.into(),
        description: description.into(),
        input_schema: schema_of::<A>(),
        output_schema: Some(output_schema),
        effect,
    };
    let act = move |desk: &Desk, arguments: Map<String, Value>, watch: &Watch| {
        let wrong = |error| Error::input(format!("the arguments of `{name}` are not as they should be")).cause(error);
        act(desk, serde_json::from_value(Value::Object(arguments)).map_err(wrong)?, watch)
    };
    Arc::new(Verb { definition, desk: desk.clone(), act: Arc::new(act) })
}

/// The schema of a verb's arguments, in the words that every host understands: without references, and without `null`
/// beside the type of what may be left out.
fn schema_of<A: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<A>().to_value();
    plain(&mut schema);
    if let Some(fields) = schema.as_object_mut() {
        fields.remove("title");
        fields.remove("description");
        fields.entry("properties").or_insert_with(|| json!({}));
        fields.insert("additionalProperties".into(), false.into());
    }
    schema
}

fn plain(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(plain),
        Value::Object(fields) => {
            if let Some(Value::Array(kinds)) = fields.get_mut("type") {
                kinds.retain(|kind| kind != "null");
                if let [only] = &kinds[..] {
                    let only = only.clone();
                    fields.insert("type".into(), only);
                }
            }
            if let Some(Value::Array(values)) = fields.get_mut("enum") {
                values.retain(|value| !value.is_null());
            }
            if let Some(Value::Array(ways)) = fields.get_mut("anyOf") {
                ways.retain(|way| way["type"] != "null");
                if let [Value::Object(only)] = &ways[..] {
                    let only = only.clone();
                    fields.remove("anyOf");
                    for (key, value) in only {
                        fields.entry(key).or_insert(value);
                    }
                }
            }
            // A format of Rust's numbers, which no other program knows.
            if fields.get("format").is_some_and(|format| format.as_str().is_some_and(is_of_rust)) {
                fields.remove("format");
            }
            if fields.get("default").is_some_and(Value::is_null) {
                fields.remove("default");
            }
            fields.values_mut().for_each(plain);
        }
        _ => {}
    }
}

fn is_of_rust(format: &str) -> bool {
    ["uint", "uint8", "uint16", "uint32", "uint64", "int", "int32", "int64", "float", "double"].contains(&format)
}

impl Tool for Verb {
    fn definition(&self) -> &ToolDefinition {
        &self.definition
    }

    fn call(&self, call: Call, progress: Progress) -> BoxFuture<'static, Result<ToolResult, ToolFailure>> {
        let (desk, act) = (self.desk.clone(), self.act.clone());
        Box::pin(async move {
            let work = match desk.begin() {
                Ok(work) => work,
                Err(error) => return Ok(ToolResult::error(error.to_string())),
            };
            // Dropped with this future: whoever cancels a call does not want what it computes.
            let _stop = StopOnDrop(work.stop());
            let acted = tokio::task::spawn_blocking(move || {
                let watch = Watch::new(work.stop(), progress);
                let result = act(&desk, call.arguments, &watch);
                drop(work);
                result
            });
            match acted.await {
                Ok(Ok(value)) => Ok(ToolResult { content: vec![], structured: Some(value), is_error: false }),
                Ok(Err(error)) => Ok(ToolResult::error(error.to_string())),
                Err(error) => Err(ToolFailure { message: format!("the call broke: {error}"), harmless: false }),
            }
        })
    }
}

struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Who watches a call: told how far it is, and says when it should stop.
pub struct Watch {
    stop: Arc<AtomicBool>,
    progress: Progress,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Steps that are done.
    done: f64,
    /// What was told last, and when.
    last: f64,
    at: Option<Instant>,
    warnings: Vec<String>,
}

impl Watch {
    fn new(stop: Arc<AtomicBool>, progress: Progress) -> Self {
        Self { stop, progress, seen: Mutex::default() }
    }

    /// Raised once the call should stop.
    pub fn interrupt(&self) -> &AtomicBool {
        &self.stop
    }

    /// Whether the call should stop.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// An error once the call should stop.
    ///
    /// # Errors
    /// Then.
    pub fn check(&self) -> Result<()> {
        Observer::new(&|_| {}, &self.stop).check()
    }

    /// Tells how far the call is, if there was no notice just now.
    pub fn tell(&self, done: f64, of: Option<f64>, word: &str) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.at.is_none_or(|at| at.elapsed() >= NOTICE_EVERY) {
            self.say(&mut seen, done, of, word);
        }
    }

    fn say(&self, seen: &mut Seen, done: f64, of: Option<f64>, word: &str) {
        let done = if seen.at.is_some() { done.max(seen.last + LEAST_STEP) } else { done };
        (seen.last, seen.at) = (done, Some(Instant::now()));
        (self.progress)(done, of, Some(word));
    }

    /// Tells what happens in a run, counted in steps: of so many, if that is known.
    pub fn event(&self, event: Event, of: Option<f64>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::StepStarted { step, kind, reason } => {
                let done = seen.done;
                self.say(&mut seen, done, of, &format!("{step} ({kind}): {reason}"));
            }
            Event::StepUnchanged { step, .. } => {
                seen.done += 1.0;
                let done = seen.done;
                self.say(&mut seen, done, of, &format!("{step}: unchanged"));
            }
            Event::StepFinished { step, digest, .. } => {
                seen.done += 1.0;
                let done = seen.done;
                self.say(&mut seen, done, of, &format!("{step} = {}", digest.short()));
            }
            Event::Progress { step, done, total, unit, detail } => {
                if seen.at.is_some_and(|at| at.elapsed() < NOTICE_EVERY) {
                    return;
                }
                let so_far = seen.done + STEP_ALL_BUT_DONE * (done as f64 / total.max(1) as f64).min(1.0);
                let detail = if detail.is_empty() { String::new() } else { format!(", {detail}") };
                let step = if step.is_empty() { String::new() } else { format!("{step}: ") };
                self.say(&mut seen, so_far, of, &format!("{step}{done} of {total} {unit}{detail}"));
            }
            Event::Warning { step, message } if seen.warnings.len() < WARNINGS_MAX => {
                let step = if step.is_empty() { String::new() } else { format!("{step}: ") };
                seen.warnings.push(format!("{step}{message}"));
            }
            Event::Warning { .. } | Event::Metric { .. } | Event::Sample { .. } => {}
        }
    }

    /// A result, with the warnings that came on the way.
    pub fn with_warnings(&self, mut value: Value) -> Value {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.warnings.is_empty() {
            value["warnings"] = json!(seen.warnings);
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use narthex_base::Digest;
    use serde::Deserialize;

    #[derive(Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        One,
        Two,
    }

    /// The arguments.
    #[derive(Deserialize, JsonSchema)]
    struct Asked {
        /// Which.
        #[expect(dead_code, reason = "only its schema is looked at")]
        name: String,
        #[expect(dead_code, reason = "only its schema is looked at")]
        kind: Option<Kind>,
        #[serde(default)]
        #[schemars(range(min = 1, max = 9))]
        #[expect(dead_code, reason = "only its schema is looked at")]
        count: Option<u32>,
    }

    #[test]
    fn schemas_are_plain() {
        let expected = json!({
            "type": "object",
            "properties": {
                "name": {"type": "string", "description": "Which."},
                "kind": {"type": "string", "enum": ["one", "two"]},
                "count": {"type": "integer", "minimum": 1, "maximum": 9}
            },
            "required": ["name"],
            "additionalProperties": false
        });
        assert_eq!(schema_of::<Asked>(), expected);
    }

    #[test]
    fn progress_only_grows_and_counts_steps() {
        let told = Arc::new(Mutex::new(vec![]));
        let teller = told.clone();
        let progress: Progress = Arc::new(move |done, of, word: Option<&str>| {
            teller.lock().unwrap().push((done, of, word.map(String::from)))
        });
        let watch = Watch::new(Arc::default(), progress);
        let digest = Digest::of(b"x");
        let step = || "a".to_string();
        for event in [
            Event::StepUnchanged { step: step(), digest },
            Event::StepStarted { step: "b".into(), kind: "train".into(), reason: "new".into() },
            Event::Warning { step: step(), message: "careful".into() },
            Event::StepFinished { step: "b".into(), digest, seconds: 1.0 },
        ] {
            watch.event(event, Some(2.0));
        }
        let told = told.lock().unwrap();
        let words: Vec<&str> = told.iter().map(|(_, _, word)| word.as_deref().unwrap()).collect();
        assert_eq!(words, ["a: unchanged", "b (train): new", &format!("b = {}", digest.short())]);
        assert!(told.windows(2).all(|pair| pair[0].0 < pair[1].0), "{told:?}");
        assert_eq!((told[0].0, told[2].0, told[2].1), (1.0, 2.0, Some(2.0)));
        assert_eq!(watch.with_warnings(json!({})), json!({"warnings": ["a: careful"]}));
        assert!(watch.check().is_ok());
        watch.stop.store(true, Ordering::Relaxed);
        assert!(watch.is_stopped() && watch.check().is_err());
    }
}
