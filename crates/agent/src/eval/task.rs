//! The table of tasks as it is written: TOML through serde, or a task in each line of JSON. Knows forms and bounds;
//! runs nothing.

use crate::{
    model::ModelAnswer,
    schema::Schema,
    scripted::{Scripted, call, say},
};
use narthex_base::{Error, Result, chat::Message};
use regex::RegexBuilder;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Tasks of one file.
const TASKS_MAX: usize = 10_000;
/// Times that a task is done.
const TIMES_MAX: u32 = 1000;
/// Bytes of a compiled regular expression.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// A table of tasks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalFile {
    /// The agent of tasks that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// How often each task is done that says nothing else, each time with another seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// The first seed; the further times count on from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Tools whose calls are approved where an agent must ask; `*` at the end stands for the rest of a name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approve: Vec<String>,
    /// Tools whose calls are refused. Of what stands in neither, the run waits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refuse: Vec<String>,
    /// Models of this file, in place of those of the project that have the same name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, EvalModel>,
    /// The tasks.
    #[serde(default)]
    pub tasks: Vec<Task>,
}

/// A model of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum EvalModel {
    /// Gives these answers one after the other, in each run from the first on.
    Scripted {
        /// The answers.
        answers: Vec<ScriptedAnswer>,
    },
}

/// An answer of a script.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ScriptedAnswer {
    /// A text.
    Say(String),
    /// Calls of tools.
    Calls {
        /// The calls.
        calls: Vec<ScriptedCall>,
    },
}

/// A call of a script.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScriptedCall {
    /// The tool.
    pub tool: String,
    /// Its arguments.
    #[serde(default)]
    pub arguments: Map<String, Value>,
}

/// Something that an agent is asked to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Its name in the report.
    pub id: String,
    /// The agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// What is said; or `messages`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// A conversation, the person's words last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<Message>,
    /// How often it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// In place of the file's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approve: Option<Vec<String>>,
    /// In place of the file's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refuse: Option<Vec<String>>,
    /// Models for this task alone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, EvalModel>,
    /// Seconds of the clock on the wall before it is given up.
    #[serde(default = "timeout_s")]
    pub timeout_s: u64,
    /// What is expected.
    #[serde(default)]
    pub expect: Expected,
}

fn timeout_s() -> u64 {
    600
}

/// What is expected of a run. What is not said is not looked at; but for its end, which is `done`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expected {
    /// How it ends.
    pub status: StatusExpected,
    /// Its answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<AnswerExpected>,
    /// Calls that its model asks for, in this order; others may stand between them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<CallExpected>,
    /// Whether the order of `calls` is all the same.
    pub any_order: bool,
    /// Whether there are no other calls than `calls`.
    pub no_others: bool,
    /// Tools that are not run, by it or by agents that it asks; `*` at the end stands for the rest of a name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub never: Vec<String>,
    /// What it uses at most, with the agents that it asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<UsedLimits>,
}

/// How a run ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatusExpected {
    /// With its answer.
    #[default]
    Done,
    /// It waits for a person.
    Waits,
    /// It cannot go on.
    Failed,
    /// At one of its limits.
    Limited,
}

/// What an answer is like: all that is said here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AnswerExpected {
    /// This text, but for space around it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub equals: Option<String>,
    /// These words are in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub contains: Vec<String>,
    /// These words are not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<String>,
    /// The expression finds something in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// It is JSON, and this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub json: Option<Value>,
    /// It is JSON, and valid for this schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
}

/// A call that is expected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallExpected {
    /// The tool.
    pub tool: String,
    /// Arguments that it has, each with this value; it may have others.
    #[serde(default)]
    pub arguments: Map<String, Value>,
}

/// What is used at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UsedLimits {
    /// Requests to models.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_calls: Option<u32>,
    /// Calls that were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<u32>,
    /// Tokens of prompts and answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
}

impl EvalFile {
    /// Reads a task from each line of JSON; empty lines are left out.
    ///
    /// # Errors
    /// Which line is no task.
    pub fn from_lines(text: &str) -> Result<Self> {
        let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
        let task = |(number, line): (usize, &str)| {
            let wrong = |error| Error::input(format!("line {number} is no task")).cause(error);
            serde_json::from_str(line).map_err(wrong)
        };
        Ok(Self { tasks: lines.map(task).collect::<Result<_>>()?, ..Self::default() })
    }

    /// Looks for what would only be found when a task is done.
    ///
    /// # Errors
    /// The first thing that is wrong, with the task.
    pub fn check(&self) -> Result<()> {
        if self.tasks.is_empty() || self.tasks.len() > TASKS_MAX {
            return Err(Error::input(format!("{} tasks; 1 to {TASKS_MAX} can be done", self.tasks.len()))
                .help("write them as `[[tasks]]`, each with an `id` and a `prompt`"));
        }
        let mut ids = BTreeSet::new();
        for task in &self.tasks {
            self.check_task(task).map_err(|error| error.context(format!("the task `{}`", task.id)))?;
            if !ids.insert(&task.id) {
                return Err(Error::input(format!("two tasks have the id `{}`", task.id)).help("give one another"));
            }
        }
        Ok(())
    }

    fn check_task(&self, task: &Task) -> Result<()> {
        self.agent_of(task)?;
        if task.prompt.is_some() != task.messages.is_empty() {
            return Err(Error::input("it has either `prompt` or `messages`"));
        }
        if !(1..=TIMES_MAX).contains(&self.times_of(task)) {
            return Err(Error::input(format!("`times` is 1 to {TIMES_MAX}")));
        }
        if task.timeout_s == 0 {
            return Err(Error::input("`timeout_s` is 1 or more"));
        }
        let answer = task.expect.answer.iter();
        for answer in answer {
            if let Some(regex) = &answer.regex {
                compiled(regex).map_err(|error| Error::input("`regex` cannot be read").cause(error))?;
            }
            if let Some(schema) = &answer.schema {
                Schema::compile(schema).map_err(|why| Error::input("`schema` is no usable JSON Schema").cause(why))?;
            }
        }
        Ok(())
    }

    /// The agent of a task.
    ///
    /// # Errors
    /// If neither it nor the file names one.
    pub fn agent_of<'a>(&'a self, task: &'a Task) -> Result<&'a str> {
        task.agent.as_deref().or(self.agent.as_deref()).ok_or_else(|| {
            Error::input(format!("the task `{}` names no agent", task.id))
                .help("write `agent = \"NAME\"` into the file, or give `--agent NAME`")
        })
    }

    /// How often a task is done.
    pub fn times_of(&self, task: &Task) -> u32 {
        task.times.or(self.times).unwrap_or(1)
    }

    /// The seed of a task's time, counted from 0; none where it is done once and nobody named a seed.
    pub fn seed_of(&self, task: &Task, time: u32) -> Option<u64> {
        let wanted = self.seed.is_some() || self.times_of(task) > 1;
        wanted.then(|| self.seed.unwrap_or(0).saturating_add(u64::from(time)))
    }

    /// The models of a task: the file's, and in their place its own.
    pub fn models_of<'a>(&'a self, task: &'a Task) -> BTreeMap<&'a str, &'a EvalModel> {
        self.models.iter().chain(&task.models).map(|(name, model)| (name.as_str(), model)).collect()
    }
}

impl EvalModel {
    /// The model, at the beginning of its script.
    pub fn model(&self, name: &str) -> Scripted {
        let Self::Scripted { answers } = self;
        Scripted::list(name, answers.iter().map(|answer| Ok(answer.answer())).collect())
    }
}

impl ScriptedAnswer {
    fn answer(&self) -> ModelAnswer {
        match self {
            Self::Say(text) => say(text),
            Self::Calls { calls } => {
                let calls: Vec<(&str, Value)> =
                    calls.iter().map(|call| (call.tool.as_str(), Value::Object(call.arguments.clone()))).collect();
                call(&calls)
            }
        }
    }
}

/// A regular expression of bounded size.
pub(super) fn compiled(regex: &str) -> std::result::Result<regex::Regex, regex::Error> {
    RegexBuilder::new(regex).size_limit(REGEX_BYTES_MAX).build()
}

/// Whether a name is one of these; `*` at the end stands for the rest.
pub(super) fn is_among(name: &str, patterns: &[String]) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => pattern == name,
    })
}
