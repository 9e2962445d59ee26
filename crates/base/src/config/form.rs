//! What may stand behind a key of `narthex.toml`, read off the JSON schema that is derived from the configuration's own
//! types: doc comment, type, default, range and hint stand at the field, once. The check of a file and the tables of the
//! reference are made from it. It knows no TOML and no page.

use schemars::{JsonSchema, SchemaGenerator};
use serde_json::Value;

/// A table of the project file: what may be written in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Its keys in the order of the type's fields.
    pub keys: Vec<Key>,
}

/// A key of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// The name in the file.
    pub name: String,
    /// What it means: the field's doc comment in one line.
    pub meaning: String,
    /// Whether it must be written.
    pub is_required: bool,
    /// What it is if it is not written; `null` where that is nothing, or the table's own defaults.
    pub default: Value,
    /// What to write in place of a value that is out of range (`x-hint` in the schema).
    pub hint: Option<String>,
    /// What may stand behind it.
    pub form: Form,
}

/// What may stand behind a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// A string; what kind of one, in words.
    Text(&'static str),
    /// A whole number within bounds.
    Whole(Bounds),
    /// A number within bounds.
    Number(Bounds),
    /// `true` or `false`
    Switch,
    /// One of these strings or numbers.
    OneOf(Vec<Value>),
    /// A list of this.
    List(Box<Form>),
    /// A table of these keys.
    Table(Table),
    /// A table whose keys are names that the user chooses.
    Named(Box<Form>),
    /// Any of these.
    Either(Vec<Form>),
}

/// The numbers that are allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bounds {
    /// The lower bound.
    pub least: Option<Bound>,
    /// The upper bound.
    pub most: Option<Bound>,
}

/// An end of a range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// The number.
    pub value: f64,
    /// Whether the number itself is allowed.
    pub inclusive: bool,
}

impl Table {
    /// The table that a type of the configuration is read from.
    pub fn of<T: JsonSchema>() -> Self {
        let root = SchemaGenerator::default().into_root_schema_for::<T>().to_value();
        table(&root, &root)
    }

    /// The tables of a type that has kinds, each with the word that `kind` says; none of another type.
    pub fn kinds_of<T: JsonSchema>() -> Vec<(String, Self)> {
        let root = SchemaGenerator::default().into_root_schema_for::<T>().to_value();
        let kinds = resolved(&root, &root)["oneOf"].as_array().into_iter().flatten();
        let kind = |option: &Value| {
            let word = resolved(&root, option)["properties"]["kind"]["const"].as_str()?.to_string();
            Some((word, table(&root, option)))
        };
        kinds.filter_map(kind).collect()
    }

    /// A key by name.
    pub fn key(&self, name: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The names of all keys.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.keys.iter().map(|key| key.name.as_str())
    }

    /// The tables inside this one that have keys of their own: name and table.
    pub fn subtables(&self) -> impl Iterator<Item = (&str, &Table)> + Clone {
        self.keys.iter().filter_map(|key| match &key.form {
            Form::Table(table) => Some((key.name.as_str(), table)),
            _ => None,
        })
    }
}

impl Form {
    /// What it is called: `number, 0 to 0.5`, `list of strings`, or the values that may be written.
    pub fn words(&self) -> String {
        let several = |form: &Form| match form {
            Form::Text(_) => "strings".to_string(),
            Form::Table(_) => "tables".into(),
            other => other.words(),
        };
        match self {
            Form::Text(kind) => kind.to_string(),
            Form::Whole(bounds) => format!("integer{}", bounds.words()),
            Form::Number(bounds) => format!("number{}", bounds.words()),
            Form::Switch => "boolean".into(),
            Form::OneOf(values) => values.iter().map(bare).map(|v| format!("`{v}`")).collect::<Vec<_>>().join(", "),
            Form::List(form) => format!("list of {}", several(form)),
            Form::Table(_) => "table".into(),
            Form::Named(form) => format!("table of {}", several(form)),
            Form::Either(forms) => forms.iter().map(Form::words).collect::<Vec<_>>().join(" or "),
        }
    }
}

impl Bounds {
    /// Whether a number lies within.
    pub fn hold(&self, number: f64) -> bool {
        let above = |bound: Bound| number > bound.value || bound.inclusive && number == bound.value;
        let below = |bound: Bound| number < bound.value || bound.inclusive && number == bound.value;
        self.least.is_none_or(above) && self.most.is_none_or(below)
    }

    /// As a table of the reference has it: `, 0 to below 1`, or nothing where there are no two ends to tell.
    fn words(&self) -> String {
        match (self.least, self.most) {
            (Some(least), Some(most)) => {
                let below = if most.inclusive { "" } else { "below " };
                format!(", {} to {below}{}", grouped(least.value), grouped(most.value))
            }
            (Some(Bound { value: 0.0, inclusive: false }), None) => ", above 0".into(),
            (Some(least), None) if least.value != 0.0 => format!(", {} or more", grouped(least.value)),
            _ => String::new(),
        }
    }
}

/// A number with its thousands apart, from 10,000 on.
pub fn grouped(number: f64) -> String {
    if number.fract() != 0.0 || number.abs() < 10_000.0 || number.abs() > 1e15 {
        return number.to_string();
    }
    let digits = (number.abs() as u64).to_string();
    let mut text = if number < 0.0 { "-".to_string() } else { String::new() };
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A value as it is written in prose: strings without quotes.
pub fn bare(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), String::from)
}

fn table(root: &Value, schema: &Value) -> Table {
    let schema = resolved(root, schema);
    let required = |name: &str| schema["required"].as_array().is_some_and(|list| list.iter().any(|r| r == name));
    let properties = schema["properties"].as_object().into_iter().flatten();
    let keys = properties.map(|(name, property)| Key {
        name: name.clone(),
        meaning: one_line(property["description"].as_str().unwrap_or_default()),
        is_required: required(name),
        default: property["default"].clone(),
        hint: property["x-hint"].as_str().map(String::from),
        form: form(root, property),
    });
    Table { keys: keys.collect() }
}

fn form(root: &Value, schema: &Value) -> Form {
    let schema = resolved(root, schema);
    if let Some(options) = schema["anyOf"].as_array().or(schema["oneOf"].as_array()) {
        let constants: Option<Vec<Value>> = options.iter().map(|option| option.get("const").cloned()).collect();
        if let Some(constants) = constants {
            return Form::OneOf(constants);
        }
        let mut forms: Vec<Form> =
            options.iter().filter(|option| option["type"] != "null").map(|option| form(root, option)).collect();
        return if forms.len() == 1 { forms.remove(0) } else { Form::Either(forms) };
    }
    if let Some(values) = schema["enum"].as_array() {
        return Form::OneOf(values.iter().filter(|value| !value.is_null()).cloned().collect());
    }
    // What may be left out has a list of types, the other one `null`.
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().find(|kind| *kind != "null").unwrap_or(&Value::Null),
        kind => kind,
    };
    match kind.as_str().unwrap_or_default() {
        "integer" => Form::Whole(bounds(schema)),
        "number" => Form::Number(bounds(schema)),
        "boolean" => Form::Switch,
        "array" => Form::List(Box::new(form(root, &schema["items"]))),
        "object" if schema["properties"].is_object() => Form::Table(table(root, schema)),
        "object" => Form::Named(Box::new(form(root, &schema["additionalProperties"]))),
        _ if schema["format"] == "spdx-expression" => Form::Text("SPDX expression"),
        _ => Form::Text("string"),
    }
}

fn bounds(schema: &Value) -> Bounds {
    let end = |inclusive: &str, exclusive: &str| {
        let bound = |name: &str, inclusive| Some(Bound { value: schema[name].as_f64()?, inclusive });
        bound(exclusive, false).or_else(|| bound(inclusive, true))
    };
    Bounds { least: end("minimum", "exclusiveMinimum"), most: end("maximum", "exclusiveMaximum") }
}

/// What a schema refers to.
fn resolved<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
    let mut schema = schema;
    while let Some(found) = schema["$ref"].as_str().and_then(|path| root.pointer(path.strip_prefix('#')?)) {
        schema = found;
    }
    schema
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        BundleStep, DataStep, EvalStep, Lora, Policy, QuantizeStep, Source, Step, TrainStep, TuneStep,
    };

    fn check<T: JsonSchema>(path: &str, words: &str, default: &str) {
        let (mut table, mut found) = (Table::of::<T>(), None);
        for name in path.split('.') {
            let key = table.key(name).unwrap_or_else(|| panic!("{path}: there is no `{name}`")).clone();
            if let Form::Table(inner) = &key.form {
                table = inner.clone();
            } else if let Form::Named(inner) = &key.form
                && let Form::Table(inner) = &**inner
            {
                table = inner.clone();
            }
            found = Some(key);
        }
        let key = found.expect("a path has a part");
        let shown = if key.is_required { "required".into() } else { key.default.to_string() };
        assert_eq!((key.form.words().as_str(), shown.as_str()), (words, default), "{path}");
        assert!(!key.meaning.is_empty(), "{path} has no meaning");
    }

    #[test]
    fn keys_are_read_off_the_types() {
        check::<Source>("path", "string or list of strings", "required");
        check::<Source>("rows", "`file`, `paragraph`, `line`", "\"file\"");
        check::<Source>("license", "SPDX expression", "null");
        check::<Source>("columns", "table of strings", "{}");
        check::<DataStep>("validation", "number, 0 to 0.5", "0.0");
        check::<DataStep>("deduplicate", "boolean", "true");
        check::<TrainStep>("schedule.context", "integer, 2 to 1,048,576", "128");
        check::<TrainStep>("schedule.lr", "number, above 0", "0.001");
        check::<TrainStep>("schedule.beta1", "number, 0 to below 1", "0.9");
        let targets = Lora::TARGETS.map(|target| format!("`{target}`")).join(", ");
        check::<TuneStep>("lora.targets", &format!("list of {targets}"), &serde_json::json!(Lora::TARGETS).to_string());
        check::<QuantizeStep>("group", "`32`, `64`, `128`", "64");
        check::<EvalStep>("max_rows", "integer, 1 or more", "200");
        check::<BundleStep>("evaluations", "list of strings", "[]");
        check::<Policy>("rules.use", "list of `train`, `redistribute`, `serve-commercially`", "[]");
    }

    #[test]
    fn every_key_says_what_it_means() {
        for kind in Step::KINDS {
            let table = (kind.table)();
            let inner = table.subtables().flat_map(|(_, table)| &table.keys);
            for key in table.keys.iter().chain(inner) {
                assert!(!key.meaning.is_empty(), "`{}` of `{}`", key.name, kind.name);
            }
        }
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, expected) in
            [(0.5, "0.5"), (260.0, "260"), (1000.0, "1000"), (10_000.0, "10,000"), (-1_048_576.0, "-1,048,576")]
        {
            assert_eq!(grouped(number), expected);
        }
    }
}
