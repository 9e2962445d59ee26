//! What may be called: rules by name and arguments, the first that fits decides. Knows no run and no person; it says
//! what is to be done with a call, and nothing is done here.

use crate::tool::Effect;
use globset::{GlobBuilder, GlobMatcher};
use narthex_base::{Error, Result};
use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{borrow::Cow, collections::BTreeMap};

/// More rules of one agent are refused.
const RULES_MAX: usize = 1000;
/// A longer pattern is refused.
const PATTERN_BYTES_MAX: usize = 4096;
/// Seconds that a question stays open unless set otherwise: a day.
const APPROVAL_S: u64 = 86_400;

/// `[agents.NAME.policy]`: what is called, asked about, or refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyRules {
    /// For calls that write or reach out and that no rule names. Calls that only read are allowed then.
    pub default: Then,
    /// Looked through in this order; the first that fits decides.
    pub rules: Vec<Rule>,
    /// Seconds that a question to a person stays open.
    #[schemars(range(min = 1))]
    pub approval_s: u64,
}

impl Default for PolicyRules {
    fn default() -> Self {
        Self { default: Then::Deny, rules: vec![], approval_s: APPROVAL_S }
    }
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The tool's name; `*` stands for any part of it.
    pub tool: String,
    /// Patterns by JSON pointer into the arguments; all must fit. A glob, or `{ regex = "…" }` for the whole value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub arguments: BTreeMap<String, Pattern>,
    /// What is done with the call.
    pub then: Then,
}

/// What is done with a call, the mildest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Then {
    /// It is called.
    Allow,
    /// A person is asked.
    Ask,
    /// It is not called, and the model reads so.
    #[default]
    Deny,
}

/// What an argument must look like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Pattern {
    /// `*` stands for anything but `/`, `**` for anything.
    Glob(String),
    /// A regular expression for the whole value.
    Regex(RegexPattern),
}

/// A regular expression for the whole value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegexPattern {
    /// The expression.
    pub regex: String,
}

/// Rules, compiled.
#[derive(Clone)]
pub struct Policy {
    default: Then,
    rules: Vec<Compiled>,
}

#[derive(Clone)]
struct Compiled {
    name: String,
    tool: GlobMatcher,
    arguments: Vec<(String, Matcher)>,
    then: Then,
}

#[derive(Clone)]
enum Matcher {
    Glob(GlobMatcher),
    Regex(Regex),
}

impl Policy {
    /// Compiles rules.
    ///
    /// # Errors
    /// Which pattern is wrong and why.
    pub fn compile(rules: &PolicyRules) -> Result<Self> {
        if rules.rules.len() > RULES_MAX {
            return Err(Error::input(format!(
                "a policy has {} rules, and {RULES_MAX} are the limit",
                rules.rules.len()
            )));
        }
        Ok(Self { default: rules.default, rules: rules.rules.iter().map(compile).collect::<Result<_>>()? })
    }

    /// What is to be done with a call, and which rule says so.
    pub fn judge(&self, tool: &str, effect: Effect, arguments: &Map<String, Value>) -> (Then, String) {
        for rule in &self.rules {
            if rule.fits(tool, arguments) {
                return (rule.then, format!("the rule for `{}` of the policy", rule.name));
            }
        }
        match effect {
            Effect::Reads => (Then::Allow, "it only reads".into()),
            Effect::Writes => (self.default, "the policy's default for what writes".into()),
            Effect::Reaches => (self.default, "the policy's default for what reaches out".into()),
        }
    }
}

impl Compiled {
    fn fits(&self, tool: &str, arguments: &Map<String, Value>) -> bool {
        self.tool.is_match(tool)
            && self.arguments.iter().all(|(pointer, matcher)| match at(arguments, pointer) {
                // A list is allowed only if all of it is, and asked about or refused if any of it is.
                Some(Value::Array(items)) if self.then == Then::Allow => {
                    !items.is_empty() && items.iter().all(|item| self.fits_one(matcher, item))
                }
                Some(Value::Array(items)) => items.iter().any(|item| self.fits_one(matcher, item)),
                Some(value) => self.fits_one(matcher, value),
                None => false,
            })
    }

    fn fits_one(&self, matcher: &Matcher, value: &Value) -> bool {
        let text: Cow<str> = match value {
            Value::String(text) => text.into(),
            Value::Number(_) | Value::Bool(_) | Value::Null => value.to_string().into(),
            Value::Array(_) | Value::Object(_) => return false,
        };
        match matcher {
            // `notes/**` is meant to stay below `notes`.
            Matcher::Glob(glob) => {
                let fits = glob.is_match(&*text) || glob.is_match(plain(&text));
                fits && !(self.then == Then::Allow && climbs(&text))
            }
            Matcher::Regex(regex) => regex.is_match(&text),
        }
    }
}

/// Whether a path has a part that leads upwards.
fn climbs(text: &str) -> bool {
    text.split(['/', '\\']).any(|part| part == "..")
}

/// A path without what changes nothing in it: `./private//key` and `a/../private/key` are `private/key`, and a rule for
/// that must not be passed by in other words. What is no path, as a URL, stays as it is.
fn plain(text: &str) -> String {
    if text.contains("://") {
        return text.into();
    }
    let mut parts: Vec<&str> = vec![];
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    let root = if text.starts_with('/') { "/" } else { "" };
    format!("{root}{}", parts.join("/"))
}

/// What a JSON pointer points at in arguments.
fn at<'a>(arguments: &'a Map<String, Value>, pointer: &str) -> Option<&'a Value> {
    let path = pointer.strip_prefix('/')?;
    let (first, rest) = path.split_at(path.find('/').unwrap_or(path.len()));
    arguments.get(&first.replace("~1", "/").replace("~0", "~"))?.pointer(rest)
}

fn compile(rule: &Rule) -> Result<Compiled> {
    let wrong = |what: &str, why: String| {
        Error::input(format!("the rule for `{}` has a wrong pattern `{what}`", rule.tool)).cause(why)
    };
    let glob = |pattern: &str, literal_separator: bool| {
        bounded(pattern).map_err(|why| wrong(pattern, why))?;
        let glob = GlobBuilder::new(pattern).literal_separator(literal_separator).backslash_escape(true).build();
        glob.map(|glob| glob.compile_matcher()).map_err(|error| wrong(pattern, error.to_string()))
    };
    let mut arguments = Vec::new();
    for (pointer, pattern) in &rule.arguments {
        if !pointer.starts_with('/') {
            let help = format!("write `\"/{pointer}\"`");
            return Err(wrong(pointer, "a JSON pointer begins with `/`".into()).help(help));
        }
        let matcher = match pattern {
            Pattern::Glob(pattern) => Matcher::Glob(glob(pattern, true)?),
            Pattern::Regex(RegexPattern { regex }) => {
                bounded(regex).map_err(|why| wrong(regex, why))?;
                let whole = Regex::new(&format!(r"\A(?:{regex})\z"));
                Matcher::Regex(whole.map_err(|error| wrong(regex, error.to_string()))?)
            }
        };
        arguments.push((pointer.clone(), matcher));
    }
    Ok(Compiled { name: rule.tool.clone(), tool: glob(&rule.tool, false)?, arguments, then: rule.then })
}

fn bounded(pattern: &str) -> Result<(), String> {
    let bytes = pattern.len();
    if bytes > PATTERN_BYTES_MAX { Err(format!("it has {bytes} bytes of {PATTERN_BYTES_MAX}")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules(json: Value) -> PolicyRules {
        serde_json::from_value(json).unwrap()
    }

    fn check(policy: &PolicyRules, tool: &str, effect: Effect, arguments: Value, expected: Then) {
        let policy = Policy::compile(policy).unwrap();
        let arguments = arguments.as_object().unwrap().clone();
        assert_eq!(policy.judge(tool, effect, &arguments).0, expected, "{tool} {arguments:?}");
    }

    #[test]
    fn a_path_in_other_words_is_the_same_path() {
        let policy = rules(json!({"rules": [
            {"tool": "read", "then": "deny", "arguments": {"/path": "private/**"}},
            {"tool": "write", "then": "allow", "arguments": {"/path": "notes/**"}}]}));
        for path in
            ["private/key", "./private/key", "private//key", ".//private/./key", "a/../private/key", "private/x/../key"]
        {
            check(&policy, "read", Effect::Reads, json!({"path": path}), Then::Deny);
        }
        for (path, expected) in [
            ("notes/a.md", Then::Allow),
            ("./notes/a.md", Then::Allow),
            ("notes/../private/key", Then::Deny),
            ("private/../notes/a.md", Then::Deny),
            ("https://example.org/notes//a", Then::Deny),
        ] {
            check(&policy, "write", Effect::Writes, json!({"path": path}), expected);
        }
    }

    #[test]
    fn without_rules_only_reading_is_allowed() {
        let none = PolicyRules::default();
        check(&none, "a", Effect::Reads, json!({}), Then::Allow);
        check(&none, "a", Effect::Writes, json!({}), Then::Deny);
        check(&none, "a", Effect::Reaches, json!({}), Then::Deny);
        let asks = PolicyRules { default: Then::Ask, ..none };
        check(&asks, "a", Effect::Reads, json!({}), Then::Allow);
        check(&asks, "a", Effect::Writes, json!({}), Then::Ask);
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let policy = rules(json!({"rules": [
            {"tool": "files.write", "arguments": {"/path": "notes/private/**"}, "then": "deny"},
            {"tool": "files.write", "arguments": {"/path": "notes/**"}, "then": "allow"},
            {"tool": "files.*", "arguments": {"/path": {"regex": "/etc/.*"}}, "then": "deny"},
            {"tool": "files.*", "then": "ask"},
            {"tool": "mail.send", "arguments": {"/to": "*@example.org", "/copies/0/name": "a~b"}, "then": "allow"},
            {"tool": "post", "arguments": {"/to": "*@example.org"}, "then": "allow"},
            {"tool": "drop", "arguments": {"/to": "*@bad.org"}, "then": "deny"},
            {"tool": "drop", "then": "allow"},
            {"tool": "pay", "arguments": {"/sum": {"regex": "[0-9]"}}, "then": "allow"},
        ]}));
        let write = |path: &str, then| check(&policy, "files.write", Effect::Writes, json!({"path": path}), then);
        write("notes/a", Then::Allow);
        write("notes/b/c", Then::Allow);
        write("notes/private/x", Then::Deny);
        write("notes/../secret", Then::Ask);
        write("notes/b/../../secret", Then::Ask);
        write("/etc/passwd", Then::Deny);
        write("x/etc/passwd", Then::Ask);
        check(&policy, "files.read", Effect::Reads, json!({"path": "/etc/passwd"}), Then::Deny);
        check(&policy, "files.read", Effect::Reads, json!({}), Then::Ask);
        check(&policy, "mail.send", Effect::Reaches, json!({"to": "a@example.org"}), Then::Deny);
        let mail = json!({"to": "a@example.org", "copies": [{"name": "a~b"}]});
        check(&policy, "mail.send", Effect::Reaches, mail, Then::Allow);
        for (to, post, drop) in [
            (json!(["a@example.org", "b@example.org"]), Then::Allow, Then::Allow),
            (json!(["a@example.org", "b@bad.org"]), Then::Deny, Then::Deny),
            (json!([]), Then::Deny, Then::Allow),
            (json!({"a@example.org": 1}), Then::Deny, Then::Allow),
        ] {
            check(&policy, "post", Effect::Reaches, json!({"to": to}), post);
            check(&policy, "drop", Effect::Reaches, json!({"to": to}), drop);
        }
        check(&policy, "pay", Effect::Reaches, json!({"sum": 9}), Then::Allow);
        check(&policy, "pay", Effect::Reaches, json!({"sum": 10}), Then::Deny);
        check(&policy, "pay", Effect::Reaches, json!({"sum": "9\n"}), Then::Deny);
    }

    #[test]
    fn wrong_patterns_are_told() {
        for (rule, part) in [
            (json!({"tool": "a[", "then": "allow"}), "a["),
            (json!({"tool": "a", "arguments": {"path": "x"}, "then": "allow"}), "begins with `/`"),
            (json!({"tool": "a", "arguments": {"/p": {"regex": "("}}, "then": "allow"}), "`(`"),
            (json!({"tool": "a".repeat(PATTERN_BYTES_MAX + 1), "then": "allow"}), "bytes"),
        ] {
            let error = Policy::compile(&rules(json!({"rules": [rule]}))).err().unwrap().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
