//! What an agent is: the keys of `[agents.NAME]` in a project file. Knows their form and their defaults; who they name
//! is looked up elsewhere.

use crate::{
    policy::PolicyRules,
    redact::{Masker, Redact},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// `[agents.NAME]`: a model with instructions, tools, and bounds to all that it does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentDefinition {
    /// What it is for, as others see it who choose among agents.
    #[serde(default)]
    pub description: String,
    /// The model that answers.
    pub model: String,
    /// What the model is told before all else.
    #[serde(default)]
    pub instructions: String,
    /// What it may call: names of tools, `github.*` for all that begin so, `todo`, `remember`, `recall`, and
    /// `agent:NAME` for another agent.
    #[serde(default)]
    pub tools: Vec<String>,
    /// Knowledge that every question is looked up in before the model answers: steps of kind `knowledge`, or artifacts.
    /// Answers name what was found. `retrieve.NAME` among the tools lets the model look things up itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub knowledge: Vec<String>,
    /// Where a run ends, whatever the model wants.
    #[serde(default)]
    pub limits: Limits,
    /// What may be called without asking, what a person is asked about, and what is refused.
    #[serde(default)]
    pub policy: PolicyRules,
    /// How often a model is asked again that did not answer.
    #[serde(default)]
    pub retry: Retry,
    /// Models that are asked, in this order, where the first does not answer.
    #[serde(default)]
    pub fallback: Vec<String>,
    /// How much of a long conversation the model sees.
    #[serde(default)]
    pub context: Context,
    /// How the model chooses its words.
    #[serde(default)]
    pub sampling: Sampling,
    /// The JSON Schema that the final answer is valid for, or the name of a file that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Output>,
    /// What is masked before it is kept, streamed or sent to a model: `email`, `card`, `phone`, `iban`, `ip`, `secret`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redact: Vec<Redact>,
    /// What a million tokens cost, by model; `limits.money` needs it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub prices: BTreeMap<String, Price>,
}

/// Where a run ends. Each has a default; there is no word for "without limit".
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Requests to models, those that failed included.
    #[schemars(range(min = 1))]
    pub model_calls: u32,
    /// Calls that the model asks for, wrong and refused ones included.
    pub tool_calls: u32,
    /// Tokens of all prompts and answers together.
    #[schemars(range(min = 1))]
    pub tokens: u64,
    /// Seconds of work; waiting for a person does not count.
    #[schemars(range(min = 1))]
    pub wall_s: u64,
    /// Tools under way at once.
    #[schemars(range(min = 1))]
    pub parallel: u32,
    /// Bytes of one result that the model reads; the rest is kept and can be looked at.
    #[schemars(range(min = 256))]
    pub result_bytes: usize,
    /// Money, in the unit of `prices`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub money: Option<f64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            model_calls: 50,
            tool_calls: 100,
            tokens: 1_000_000,
            wall_s: 3600,
            parallel: 4,
            result_bytes: 32 << 10,
            money: None,
        }
    }
}

/// What a million tokens of a model cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Of the prompt.
    pub input: f64,
    /// Of the answer.
    pub output: f64,
}

/// How often a model is asked again: only failures that may pass, each time after a longer wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Times that a model is asked again before the next one is.
    #[schemars(range(max = 10))]
    pub times: u32,
    /// Milliseconds before the first further try; each later wait is twice as long.
    pub wait_ms: u64,
    /// Milliseconds of one wait at most.
    pub wait_ms_max: u64,
}

impl Default for Retry {
    fn default() -> Self {
        Self { times: 3, wait_ms: 500, wait_ms_max: 30_000 }
    }
}

/// How much of a long conversation the model sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Context {
    /// Messages at the end that are always shown as they are.
    #[schemars(range(min = 1))]
    pub keep: usize,
    /// Tokens, estimated, beyond which the model sums up what is older; the messages stay in the store.
    #[schemars(range(min = 100))]
    pub summarize_at: u64,
}

impl Default for Context {
    fn default() -> Self {
        Self { keep: 12, summarize_at: 24_000 }
    }
}

/// How the model chooses its words.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sampling {
    /// 0 takes the likeliest token; the model's own default where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 2.0))]
    pub temperature: Option<f32>,
    /// Of the random choices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Tokens of one answer at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub tokens_max: Option<usize>,
}

/// What the final answer looks like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Output {
    /// A file with a JSON Schema, to be read by whoever reads the project.
    File(String),
    /// The JSON Schema itself.
    Schema(Map<String, Value>),
}

impl AgentDefinition {
    /// An agent of a model, and defaults for all else.
    pub fn new(model: impl Into<String>) -> Self {
        Self {
            description: String::new(),
            model: model.into(),
            instructions: String::new(),
            tools: vec![],
            knowledge: vec![],
            limits: Limits::default(),
            policy: PolicyRules::default(),
            retry: Retry::default(),
            fallback: vec![],
            context: Context::default(),
            sampling: Sampling::default(),
            output: None,
            redact: vec![],
            prices: BTreeMap::new(),
        }
    }

    /// The schema of the final answer, where one is set and read.
    pub fn output_schema(&self) -> Option<Value> {
        match &self.output {
            Some(Output::Schema(schema)) => Some(Value::Object(schema.clone())),
            Some(Output::File(_)) | None => None,
        }
    }

    /// What masks what the agent hears and says.
    pub fn masker(&self) -> Masker {
        Masker::new(&self.redact)
    }

    /// The models in the order in which they are asked.
    pub fn models(&self) -> impl Iterator<Item = &str> {
        [&self.model].into_iter().chain(&self.fallback).map(String::as_str)
    }

    /// What tokens of a model cost; nothing where no price is set.
    pub(crate) fn cost(&self, model: &str, tokens_in: u64, tokens_out: u64) -> f64 {
        let cost = |price: &Price| (tokens_in as f64 * price.input + tokens_out as f64 * price.output) / 1e6;
        self.prices.get(model).map_or(0.0, cost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Then;

    const WHOLE: &str = r#"
        description = "answers mail"
        model = "small"
        instructions = "Be brief."
        tools = ["files.*", "todo", "agent:researcher"]
        fallback = ["large"]
        limits = { model_calls = 3, money = 0.5 }
        retry = { times = 1 }
        context = { keep = 4 }
        output = "answer.schema.json"
        redact = ["email", "secret"]
        prices.small = { input = 1.0, output = 2.0 }
        [policy]
        default = "ask"
        rules = [
            { tool = "files.read", then = "allow", arguments = { "/path" = "notes/**" } },
            { tool = "mail.send", then = "ask", arguments = { "/to" = { regex = ".*@example\\.org" } } },
        ]
    "#;

    #[test]
    fn read_as_it_stands_in_a_project() {
        let read: AgentDefinition = toml::from_str(WHOLE).unwrap();
        assert_eq!((read.limits.model_calls, read.limits.tool_calls, read.retry.wait_ms), (3, 100, 500));
        assert_eq!((read.policy.default, read.policy.rules.len()), (Then::Ask, 2));
        assert_eq!(read.models().collect::<Vec<_>>(), ["small", "large"]);
        assert_eq!(read.cost("small", 1_000_000, 500_000), 2.0);
        assert_eq!(read.redact, [Redact::Email, Redact::Secret]);
        assert_eq!(read.output, Some(Output::File("answer.schema.json".into())));
        let json = serde_json::to_string(&read).unwrap();
        assert_eq!(serde_json::from_str::<AgentDefinition>(&json).unwrap(), read);
        let least: AgentDefinition = toml::from_str("model = 'm'").unwrap();
        assert_eq!(least, AgentDefinition::new("m"));
        assert_eq!(least.policy.default, Then::Deny, "what nobody allowed is refused");
    }

    #[test]
    fn misspelt_keys_are_told() {
        for (text, word) in [
            ("model = 'm'\ntool = []", "tool"),
            ("model = 'm'\nlimits = { model_call = 1 }", "model_call"),
            ("model = 'm'\n[policy]\ndefault = 'never'", "never"),
            ("model = 'm'\n[policy]\nrules = [{ tool = 'a', then = 'allow', argument = {} }]", "argument"),
            ("model = 'm'\nredact = ['mail']", "mail"),
            ("instructions = ''", "model"),
        ] {
            let error = toml::from_str::<AgentDefinition>(text).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn has_a_json_schema() {
        let schema = serde_json::to_value(schemars::schema_for!(AgentDefinition)).unwrap();
        assert_eq!(schema["additionalProperties"], false);
        assert!(schema["properties"]["limits"].is_object());
    }
}
