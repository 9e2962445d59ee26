//! Conversations with tools through the chat templates of families that write calls, held against transformers
//! (`xtask/goldens/prompts.py`). Knows the rendered text, not what models answer.

use narthex_base::Message;
use narthex_text::{ChatInput, ChatTemplate, calls};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};

#[derive(Deserialize)]
struct Golden {
    /// What `strftime_now` tells, in seconds since 1970.
    now: u64,
    tokens: BTreeMap<String, String>,
    tools: BTreeMap<String, Value>,
    cases: Vec<Case>,
    /// The texts of the cases; none where the template refuses.
    templates: BTreeMap<String, Vec<Option<Text>>>,
}

/// The place of an earlier text counted from 1 (0: an empty one), how many of its characters this one begins with, what
/// follows, and how many of its last characters this one ends with.
#[derive(Deserialize)]
struct Text(usize, usize, String, usize);

impl Text {
    fn after(&self, earlier: &[String]) -> String {
        let Self(place, first, between, last) = self;
        let earlier: Vec<char> = earlier[*place].chars().collect();
        let (first, last) = (&earlier[..*first], &earlier[earlier.len() - last..]);
        first.iter().copied().chain(between.chars()).chain(last.iter().copied()).collect()
    }
}

#[derive(Deserialize)]
struct Case {
    name: String,
    messages: Vec<Message>,
    /// Their names.
    tools: Vec<String>,
    /// Whether the answer comes next.
    prompt: bool,
    others: Map<String, Value>,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn golden() -> Golden {
    serde_json::from_slice(&fs::read(folder().join("prompts.json")).unwrap()).unwrap()
}

fn template(golden: &Golden, name: &str) -> ChatTemplate {
    let source = fs::read_to_string(folder().join(format!("prompts/{name}.jinja"))).unwrap();
    let now = golden.now;
    ChatTemplate::with_clock(&source, golden.tokens.clone(), Arc::new(move || now)).unwrap()
}

#[test]
fn prompts_are_those_of_transformers() {
    let golden = golden();
    let mut wrong = Vec::new();
    for (name, expected) in &golden.templates {
        let template = template(&golden, name);
        assert_eq!(expected.len(), golden.cases.len(), "{name}");
        let mut texts = vec![String::new()];
        for (case, expected) in golden.cases.iter().zip(expected) {
            let mut others = case.others.clone();
            let unfinished = others.remove("unfinished").is_some();
            let tools: Vec<Value> = case.tools.iter().map(|name| golden.tools[name].clone()).collect();
            let input = ChatInput {
                messages: &case.messages,
                tools: &tools,
                add_generation_prompt: case.prompt,
                others: Some(&others),
                ..ChatInput::default()
            };
            let found = if unfinished { template.render_unfinished(&input) } else { template.render_input(&input) };
            let Some(expected) = expected else {
                texts.push(String::new());
                continue;
            };
            let text = expected.after(&texts);
            match found {
                Ok(found) if found == text => {}
                Ok(found) => wrong.push(format!("{name}, {}:\n  {found:?}\n  {text:?}", case.name)),
                Err(error) => wrong.push(format!("{name}, {}: {error:?}\n  {text:?}", case.name)),
            }
            texts.push(text);
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn templates_lead_to_their_syntax() {
    let golden = golden();
    for (name, syntax) in [
        ("qwen2.5", "hermes"),
        ("qwen3", "hermes"),
        ("qwen3-coder", "qwen3_coder"),
        ("smollm3", "hermes"),
        ("hermes", "hermes"),
        ("granite-3.0", "granite"),
        ("granite-3.3", "granite"),
        ("granite-4.0", "hermes"),
        ("mistral-nemo", "mistral"),
        ("mistral-small-3.2", "mistral"),
        ("phi4-mini", "phi4"),
        ("deepseek-v3", "deepseek_v3"),
        ("deepseek-v3.1", "deepseek_v31"),
        ("glm-4.7", "glm4"),
        ("minimax-m2", "minimax_m2"),
        ("olmo-3.1", "olmo3"),
        ("toolace", "pythonic"),
    ] {
        let found = calls::of_template(template(&golden, name).source());
        assert_eq!(found.map(|found| found.name()), Some(syntax), "{name}");
    }
}
