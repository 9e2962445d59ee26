//! Grammar of values that are written otherwise than as JSON, by a JSON Schema: as much of it as says which types
//! may stand where, which keys and which constants. Lengths, bounds and patterns are left to the model.

use super::{
    lark::{Lark, quoted},
    typed::{list_of, resolved},
};
use serde_json::{Map, Value};

/// Schemas within schemas are followed this far; deeper values are free.
const DEEPEST: usize = 6;

/// How a language writes values.
pub(crate) struct Dialect {
    /// Before and behind the key of an argument, and between arguments.
    pub(crate) argument: [&'static str; 2],
    /// Between keys and values of an inner object, and between members or items.
    pub(crate) member: [&'static str; 2],
    /// True, false and null, each in all its spellings.
    pub(crate) words: [&'static [&'static str]; 3],
    /// Keys of inner objects are bare; else they are strings.
    pub(crate) bare_keys: bool,
    /// Arguments stand in the order of the alphabet, as the template sorts them; else in the schema's.
    pub(crate) sorted: bool,
    /// Strings stand between two of this marker; else as in Python.
    pub(crate) quote: Option<&'static str>,
}

/// Adds rules for values of one dialect.
pub(crate) struct Values<'l, 'a> {
    lark: &'l mut Lark<'a>,
    dialect: &'static Dialect,
    count: usize,
}

impl<'l, 'a> Values<'l, 'a> {
    /// Adds what all values need.
    pub(crate) fn new(lark: &'l mut Lark<'a>, dialect: &'static Dialect) -> Self {
        lark.rule("INTEGER", "/-?(0|[1-9][0-9]{0,17})/");
        lark.rule("NUMBER", "/-?(0|[1-9][0-9]{0,17})(\\.[0-9]{1,17})?([eE][-+]?[0-9]{1,2})?/");
        match dialect.quote {
            Some(quote) => {
                lark.text_before("quoted_rest", quote);
                let quote = lark.mark(quote);
                lark.rule("text", &format!("{quote} quoted_rest"));
            }
            None => {
                let double = r#""([^"\\\x00-\x1f\x7f]|\\["'\\nrt]|\\u00[0-9a-f][0-9a-f])*""#;
                let single = r#"'([^'\\\x00-\x1f\x7f]|\\["'\\nrt]|\\u00[0-9a-f][0-9a-f])*'"#;
                lark.rule("text", &format!("/{double}/ | /{single}/"));
            }
        }
        lark.rule("NAME", "/[A-Za-z_][A-Za-z0-9_]{0,63}/");
        let [colon, comma] = dialect.member.map(quoted);
        let key = if dialect.bare_keys { "NAME" } else { "text" };
        let words = dialect.words.map(any_of).join(" | ");
        lark.rule("any_value", &format!("text | NUMBER | {words} | any_list | any_object"));
        lark.rule("any_list", &format!("\"[\" (any_value ({comma} any_value)*)? \"]\""));
        lark.rule("any_member", &format!("{key} {colon} any_value"));
        lark.rule("any_object", &format!("\"{{\" (any_member ({comma} any_member)*)? \"}}\""));
        Self { lark, dialect, count: 0 }
    }

    /// A rule for a tool's arguments, with nothing around them.
    pub(crate) fn arguments(&mut self, schema: &Value) -> String {
        let [equals, comma] = self.dialect.argument;
        let rule = self.next();
        let object = resolved(schema, schema).unwrap_or(schema);
        if object.get("properties").is_none() && object.get("additionalProperties") != Some(&Value::Bool(false)) {
            let (equals, comma) = (quoted(equals), quoted(comma));
            let member = format!("NAME {equals} any_value");
            self.lark.rule(&rule, &format!("({member} ({comma} {member})*)?"));
            return rule;
        }
        let body = self.members(object, schema, [equals, comma], true, DEEPEST);
        self.lark.rule(&rule, &body);
        rule
    }

    fn next(&mut self) -> String {
        self.count += 1;
        format!("part_{}", self.count)
    }

    /// A constant as the dialect writes it.
    fn constant(&self, value: &Value) -> String {
        match value {
            Value::Null => any_of(self.dialect.words[2]),
            Value::Bool(flag) => any_of(self.dialect.words[usize::from(!flag)]),
            Value::Number(number) => quoted(&number.to_string()),
            Value::String(text) => match self.dialect.quote {
                Some(quote) => {
                    let mark = self.lark.mark(quote);
                    if text.is_empty() { format!("{mark} {mark}") } else { format!("{mark} {} {mark}", quoted(text)) }
                }
                None => {
                    let single = format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n"));
                    // JSON's escapes are Python's.
                    format!("({} | {})", quoted(&Value::from(text.as_str()).to_string()), quoted(&single))
                }
            },
            Value::Array(_) => "any_list".to_string(),
            Value::Object(_) => "any_object".to_string(),
        }
    }

    /// What stands for a value of this schema in a rule's body.
    fn value(&mut self, schema: &Value, root: &Value, depth: usize) -> String {
        if depth == 0 {
            return "any_value".to_string();
        }
        if let Some(schema) = resolved(schema, root) {
            return self.value(schema, root, depth - 1);
        }
        let choices: Vec<&Value> = schema.get("const").into_iter().chain(list_of(schema, "enum")).collect();
        if !choices.is_empty() {
            let choices: Vec<String> = choices.into_iter().map(|choice| self.constant(choice)).collect();
            return format!("({})", choices.join(" | "));
        }
        for key in ["anyOf", "oneOf"] {
            let branches: Vec<Value> = list_of(schema, key).cloned().collect();
            if !branches.is_empty() {
                let branches: Vec<String> = branches.iter().map(|branch| self.value(branch, root, depth - 1)).collect();
                return format!("({})", branches.join(" | "));
            }
        }
        if let [only] = list_of(schema, "allOf").collect::<Vec<_>>()[..] {
            return self.value(only, root, depth - 1);
        }
        match schema.get("type") {
            Some(Value::String(kind)) => self.of_kind(kind, schema, root, depth),
            Some(Value::Array(kinds)) => {
                let kinds: Vec<String> = kinds
                    .iter()
                    .filter_map(Value::as_str)
                    .map(|kind| self.of_kind(kind, schema, root, depth))
                    .collect();
                if kinds.is_empty() { "any_value".to_string() } else { format!("({})", kinds.join(" | ")) }
            }
            _ if schema.get("properties").is_some() => self.of_kind("object", schema, root, depth),
            _ => "any_value".to_string(),
        }
    }

    fn of_kind(&mut self, kind: &str, schema: &Value, root: &Value, depth: usize) -> String {
        let [yes, no, nothing] = self.dialect.words.map(any_of);
        match kind {
            "string" => "text".to_string(),
            "integer" => "INTEGER".to_string(),
            "number" => "NUMBER".to_string(),
            "boolean" => format!("({yes} | {no})"),
            "null" => nothing,
            "array" => match schema.get("items") {
                Some(items) => {
                    let item = self.value(items, root, depth - 1);
                    let (rule, comma) = (self.next(), quoted(self.dialect.member[1]));
                    let least = schema.get("minItems").and_then(Value::as_u64).unwrap_or(0);
                    let items = format!("{item} ({comma} {item})*");
                    let items = if least == 0 { format!("({items})?") } else { items };
                    self.lark.rule(&rule, &format!("\"[\" {items} \"]\""));
                    rule
                }
                None => "any_list".to_string(),
            },
            "object" if schema.get("properties").is_some() => {
                let members = self.members(schema, root, self.dialect.member, self.dialect.bare_keys, depth);
                let rule = self.next();
                self.lark.rule(&rule, &format!("\"{{\" {members} \"}}\""));
                rule
            }
            "object" => "any_object".to_string(),
            _ => "any_value".to_string(),
        }
    }

    /// The members of an object in a fixed order, without what can be missing.
    fn members(
        &mut self,
        schema: &Value,
        root: &Value,
        [equals, comma]: [&str; 2],
        bare: bool,
        depth: usize,
    ) -> String {
        let properties = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_else(Map::new);
        let required: Vec<&str> = list_of(schema, "required").filter_map(Value::as_str).collect();
        let mut properties: Vec<(&String, &Value)> = properties.iter().collect();
        if self.dialect.sorted {
            properties.sort_by_key(|(key, _)| *key);
        }
        let mut parts = Vec::new();
        for (key, schema) in properties {
            let head = if bare {
                quoted(&format!("{key}{equals}"))
            } else {
                format!("{} {}", self.constant(&Value::from(key.as_str())), quoted(equals))
            };
            let value = self.value(schema, root, depth - 1);
            let rule = self.next();
            self.lark.rule(&rule, &format!("{head} {value}"));
            parts.push((rule, required.contains(&key.as_str())));
        }
        // `rest` is what may follow once a member stands; any member may be the first if all before it may be missing.
        let mut rest = "\"\"".to_string();
        let mut firsts = Vec::new();
        for (part, needed) in parts.iter().rev() {
            if *needed {
                firsts.clear();
            }
            firsts.push(format!("{part} {rest}"));
            let next = self.next();
            let with = format!("{} {part}", quoted(comma));
            let body = if *needed { format!("{with} {rest}") } else { format!("({with})? {rest}") };
            self.lark.rule(&next, &body);
            rest = next;
        }
        firsts.reverse();
        let all = format!("({})", firsts.join(" | "));
        match parts.iter().any(|(_, needed)| *needed) {
            true => all,
            false if firsts.is_empty() => "\"\"".to_string(),
            false => format!("{all}?"),
        }
    }
}

/// One of these texts.
fn any_of(texts: &[&str]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
    if let [only] = texts.as_slice() { only.clone() } else { format!("({})", texts.join(" | ")) }
}
