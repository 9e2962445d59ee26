//! A command's arguments as the operator wrote them, with places for values; and the values that a model may put there.
//! A value is always one whole argument or a part of one, and never becomes an option. Runs nothing.

use narthex_base::Error;
use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, path::Path};

/// Arguments that a command may have in its settings.
const ELEMENTS_MAX: usize = 256;
/// Values of an argument of type `strings`.
const STRINGS_MAX: usize = 256;
/// Characters that `length_max` may allow for a value in the command; the kernel takes 128 KiB for each argument.
const LENGTH_MAX: usize = 30_000;
/// Characters that `length_max` may allow for what goes to the standard input.
const INPUT_LENGTH_MAX: usize = 1 << 20;
/// Programs that read a program from the argument behind `-c`.
const SHELLS: [&str; 8] = ["sh", "bash", "dash", "zsh", "ksh", "fish", "ash", "busybox"];

/// A value that a model gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Argument {
    /// What it is. `strings` stands alone as `"{name}"` and becomes one argument for each.
    #[serde(rename = "type", default)]
    pub kind: ArgumentKind,
    /// What it means, for the model.
    #[serde(default)]
    pub description: String,
    /// It may be left out; so is then the argument of the command that it stands in.
    #[serde(default)]
    pub optional: bool,
    /// The only strings that it may be.
    #[serde(default)]
    pub values: Vec<String>,
    /// A regular expression that the whole string must match.
    #[serde(default)]
    pub pattern: Option<String>,
    /// The smallest number.
    #[serde(default)]
    pub minimum: Option<i64>,
    /// The largest number.
    #[serde(default)]
    pub maximum: Option<i64>,
    /// Characters of a string.
    #[serde(default = "length_max")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub length_max: usize,
}

/// What a value is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ArgumentKind {
    /// A string.
    #[default]
    String,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// A list of strings.
    Strings,
}

fn length_max() -> usize {
    1000
}

/// A command that is checked, and waits for values.
pub struct Template {
    elements: Vec<Element>,
    arguments: BTreeMap<String, Checked>,
    stdin: Option<String>,
}

/// One argument of the command.
struct Element {
    parts: Vec<Piece>,
    /// Behind `--`, where nothing is an option any more.
    is_behind: bool,
}

enum Piece {
    Literal(String),
    Value(String),
}

struct Checked {
    argument: Argument,
    pattern: Option<Regex>,
}

impl Template {
    /// `stdin` names the argument that goes to the command's standard input.
    ///
    /// # Errors
    /// If the program is not fixed, a place has no argument, an argument no place, or a shell would read a value.
    pub fn new(command: &[String], arguments: &BTreeMap<String, Argument>, stdin: Option<&str>) -> Result<Self, Error> {
        if command.is_empty() || command.len() > ELEMENTS_MAX {
            return Err(Error::input(format!("`command` has {} parts", command.len())).help(
                "write the program and each of its arguments: `command = [\"git\", \"log\", \"-n\", \"{count}\"]`",
            ));
        }
        let mut elements: Vec<Element> = vec![];
        for text in command {
            let is_behind = elements.iter().any(Element::ends_options);
            elements.push(Element { parts: pieces(text), is_behind });
        }
        let checked = arguments.iter().map(|(name, argument)| {
            Ok((name.clone(), Checked::new(name, argument.clone(), stdin == Some(name.as_str()))?))
        });
        let template =
            Self { elements, arguments: checked.collect::<Result<_, Error>>()?, stdin: stdin.map(Into::into) };
        template.check_places()?;
        template.check_program(command)?;
        Ok(template)
    }

    fn check_places(&self) -> Result<(), Error> {
        let values = self.elements.iter().flat_map(Element::values);
        let used: Vec<&str> = values.chain(self.stdin.as_deref()).collect();
        if let Some(name) = used.iter().find(|name| !self.arguments.contains_key(**name)) {
            return Err(Error::input(format!("`{{{name}}}` is in the command, and there is no such argument"))
                .help(format!("describe it: `arguments.{name} = {{ type = \"string\", description = \"…\" }}`")));
        }
        if let Some(name) = self.arguments.keys().find(|name| !used.contains(&name.as_str())) {
            return Err(Error::input(format!("the argument `{name}` is not in the command"))
                .help(format!("put `{{{name}}}` where it belongs, or name it in `stdin`")));
        }
        for (name, checked) in &self.arguments {
            let is_list = checked.argument.kind == ArgumentKind::Strings;
            let mut elements = self.elements.iter().filter(|element| element.values().any(|value| value == name));
            if is_list && (self.stdin.as_ref() == Some(name) || elements.any(|element| element.parts.len() != 1)) {
                return Err(Error::input(format!("`{{{name}}}` is a list, and stands within other text"))
                    .help(format!("let `\"{{{name}}}\"` stand alone: it becomes one argument for each string")));
            }
        }
        Ok(())
    }

    fn check_program(&self, command: &[String]) -> Result<(), Error> {
        if self.elements[0].values().next().is_some() || command[0].is_empty() {
            return Err(Error::input("the program of a command is a place for a value")
                .help("name the program itself: a model must not choose it"));
        }
        let program = Path::new(&command[0]).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let script = command.iter().position(|text| text.starts_with('-') && text.ends_with('c')).map(|at| at + 1);
        let reads_value =
            script.and_then(|at| self.elements.get(at)).is_some_and(|element| element.values().count() > 0);
        if SHELLS.contains(&program.as_str()) && reads_value {
            return Err(Error::input("a shell would read a value as a program").help(
                "write the script to a file, and give it the value as an argument: \
                       `command = [\"sh\", \"script.sh\", \"{path}\"]`",
            ));
        }
        Ok(())
    }

    /// The program.
    pub fn program(&self) -> &str {
        match &self.elements[0].parts[..] {
            [Piece::Literal(program)] => program,
            _ => "",
        }
    }

    /// The command as a person reads it.
    pub fn shown(&self) -> String {
        let shown = |piece: &Piece| match piece {
            Piece::Literal(text) => text.clone(),
            Piece::Value(name) => format!("{{{name}}}"),
        };
        let elements = self.elements.iter().map(|element| element.parts.iter().map(shown).collect::<String>());
        elements.collect::<Vec<_>>().join(" ")
    }

    /// JSON Schema of the values.
    pub fn schema(&self) -> Value {
        let properties: Map<String, Value> =
            self.arguments.iter().map(|(name, checked)| (name.clone(), checked.schema())).collect();
        let required: Vec<&String> =
            self.arguments.iter().filter(|(_, checked)| !checked.argument.optional).map(|(name, _)| name).collect();
        json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
    }

    /// The command's arguments without the program, and what goes to its standard input.
    ///
    /// # Errors
    /// If a value is missing, is not what it was described to be, or would be read as an option.
    pub fn fill(&self, values: &Map<String, Value>) -> Result<(Vec<String>, String), String> {
        if let Some(name) = values.keys().find(|name| !self.arguments.contains_key(*name)) {
            return Err(format!("there is no argument `{name}`"));
        }
        let mut texts: BTreeMap<&str, Option<Vec<String>>> = BTreeMap::new();
        for (name, checked) in &self.arguments {
            let is_input = self.stdin.as_ref() == Some(name);
            texts.insert(name, checked.texts(name, values.get(name).unwrap_or(&Value::Null), is_input)?);
        }
        let mut filled = vec![];
        for element in &self.elements[1..] {
            element.fill(&texts, &mut filled)?;
        }
        let stdin = self.stdin.as_deref().and_then(|name| texts.remove(name)).flatten();
        Ok((filled, stdin.map(|texts| texts.concat()).unwrap_or_default()))
    }
}

impl Element {
    fn values(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Piece::Value(name) => Some(name.as_str()),
            Piece::Literal(_) => None,
        })
    }

    fn ends_options(&self) -> bool {
        matches!(&self.parts[..], [Piece::Literal(text)] if text == "--")
    }

    fn fill(&self, texts: &BTreeMap<&str, Option<Vec<String>>>, filled: &mut Vec<String>) -> Result<(), String> {
        let mut wholes = vec![String::new()];
        for part in &self.parts {
            match part {
                Piece::Literal(text) => wholes.iter_mut().for_each(|whole| *whole += text),
                Piece::Value(name) => match texts.get(name.as_str()).and_then(Option::as_ref) {
                    None => return Ok(()),
                    // A list stands alone.
                    Some(values) if self.parts.len() == 1 => wholes = values.clone(),
                    Some(values) => wholes.iter_mut().for_each(|whole| *whole += &values.concat()),
                },
            }
        }
        let starts_with_value = matches!(self.parts.first(), Some(Piece::Value(_)));
        if let Some(whole) = wholes.iter().find(|whole| whole.starts_with('-') && starts_with_value && !self.is_behind)
        {
            let shown: String = whole.chars().take(40).collect();
            return Err(format!(
                "`{shown}` begins with `-` and would be read as an option: give a value that does not"
            ));
        }
        filled.extend(wholes);
        Ok(())
    }
}

impl Checked {
    fn new(name: &str, argument: Argument, is_input: bool) -> Result<Self, Error> {
        let is_name = |name: &str| pieces(&format!("{{{name}}}")).iter().any(|piece| matches!(piece, Piece::Value(_)));
        if !is_name(name) {
            return Err(Error::input(format!("`{name}` cannot be the name of an argument"))
                .help("take small letters, digits and `_`, with a letter first"));
        }
        let most = if is_input { INPUT_LENGTH_MAX } else { LENGTH_MAX };
        if !(1..=most).contains(&argument.length_max) {
            return Err(Error::input(format!("`length_max` of the argument `{name}` is {}", argument.length_max))
                .help(format!("take a number from 1 to {most}")));
        }
        // Anchored by us: a pattern that matches a part says nothing about the rest.
        let pattern = argument.pattern.as_ref().map(|pattern| Regex::new(&format!("^(?:{pattern})\\z"))).transpose();
        let pattern = pattern
            .map_err(|error| Error::input(format!("`pattern` of the argument `{name}` is wrong")).cause(error))?;
        Ok(Self { argument, pattern })
    }

    fn schema(&self) -> Value {
        let Argument { kind, description, values, pattern, minimum, maximum, length_max, .. } = &self.argument;
        let mut string = json!({"type": "string", "maxLength": length_max});
        if !values.is_empty() {
            string["enum"] = json!(values);
        }
        if let Some(pattern) = pattern {
            string["pattern"] = format!("^(?:{pattern})$").into();
        }
        let mut schema = match kind {
            ArgumentKind::String => string,
            ArgumentKind::Strings => json!({"type": "array", "items": string, "maxItems": STRINGS_MAX}),
            ArgumentKind::Integer => json!({"type": "integer"}),
            ArgumentKind::Number => json!({"type": "number"}),
            ArgumentKind::Boolean => json!({"type": "boolean"}),
        };
        for (key, bound) in [("minimum", minimum), ("maximum", maximum)] {
            if let Some(bound) = bound {
                schema[key] = json!(bound);
            }
        }
        if !description.is_empty() {
            schema["description"] = json!(description);
        }
        schema
    }

    /// A value as text; `None` where it may be left out, and was.
    fn texts(&self, name: &str, value: &Value, is_input: bool) -> Result<Option<Vec<String>>, String> {
        let wrong = |what: &str| Err(format!("`{name}` must be {what}"));
        let texts = match (self.argument.kind, value) {
            (_, Value::Null) if self.argument.optional => return Ok(None),
            (_, Value::Null) => return Err(format!("`{name}` is missing")),
            (ArgumentKind::String, Value::String(text)) => vec![text.clone()],
            (ArgumentKind::Strings, Value::Array(items)) => {
                let strings: Option<Vec<String>> = items.iter().map(|item| item.as_str().map(Into::into)).collect();
                match strings {
                    Some(strings) if strings.len() <= STRINGS_MAX => strings,
                    Some(_) => return wrong(&format!("{STRINGS_MAX} strings at most")),
                    None => return wrong("a list of strings"),
                }
            }
            (ArgumentKind::Integer, Value::Number(number)) if number.is_i64() || number.is_u64() => {
                vec![number.to_string()]
            }
            (ArgumentKind::Number, Value::Number(number)) => vec![number.to_string()],
            (ArgumentKind::Boolean, Value::Bool(flag)) => vec![flag.to_string()],
            (ArgumentKind::String, _) => return wrong("a string"),
            (ArgumentKind::Strings, _) => return wrong("a list of strings"),
            (ArgumentKind::Integer, _) => return wrong("a whole number"),
            (ArgumentKind::Number, _) => return wrong("a number"),
            (ArgumentKind::Boolean, _) => return wrong("true or false"),
        };
        if let Some(number) = value.as_f64() {
            let is_low = self.argument.minimum.is_some_and(|least| number < least as f64);
            if is_low || self.argument.maximum.is_some_and(|most| number > most as f64) {
                return wrong(&format!("within its bounds, and {number} is not"));
            }
        }
        if matches!(self.argument.kind, ArgumentKind::String | ArgumentKind::Strings) {
            texts.iter().try_for_each(|text| self.check_text(name, text, is_input))?;
        }
        Ok(Some(texts))
    }

    fn check_text(&self, name: &str, text: &str, is_input: bool) -> Result<(), String> {
        let Argument { values, pattern, length_max, .. } = &self.argument;
        if text.chars().count() > *length_max {
            return Err(format!("`{name}` may have {length_max} characters at most"));
        }
        if text.contains('\0') && !is_input {
            return Err(format!("`{name}` holds a character of code 0, which no argument may"));
        }
        if !values.is_empty() && !values.iter().any(|value| value == text) {
            return Err(format!("`{name}` must be one of: {}", values.join(", ")));
        }
        if let Some(regex) = &self.pattern
            && !regex.is_match(text)
        {
            return Err(format!("`{name}` must match `{}`", pattern.as_deref().unwrap_or_default()));
        }
        Ok(())
    }
}

/// Splits at `{name}`; other braces, as of `awk` or `HEAD@{1}`, are text.
fn pieces(text: &str) -> Vec<Piece> {
    let (mut pieces, mut literal, mut rest) = (vec![], String::new(), text);
    while let Some(open) = rest.find('{') {
        let behind = &rest[open + 1..];
        let name = behind.find('}').map(|close| &behind[..close]).filter(|name| {
            name.starts_with(|c: char| c.is_ascii_lowercase())
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        });
        literal += &rest[..open];
        match name {
            Some(name) => {
                if !literal.is_empty() {
                    pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                }
                pieces.push(Piece::Value(name.into()));
                rest = &behind[name.len() + 1..];
            }
            None => {
                literal.push('{');
                rest = behind;
            }
        }
    }
    literal += rest;
    if !literal.is_empty() || pieces.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARGUMENTS: &str = r#"
        count = { type = "integer", minimum = 1, maximum = 100, description = "how many" }
        path = { length_max = 20 }
        paths = { type = "strings", optional = true }
        word = { optional = true, values = ["a", "b"] }
        name = { optional = true, pattern = "[a-z]+" }
        all = { type = "boolean", optional = true }
        ratio = { type = "number", optional = true }
        text = { optional = true, length_max = 100000 }
    "#;

    fn template(command: &[&str], stdin: Option<&str>) -> Result<Template, Error> {
        let all: BTreeMap<String, Argument> = toml::from_str(ARGUMENTS).unwrap();
        let used = |name: &str| stdin == Some(name) || command.iter().any(|text| text.contains(&format!("{{{name}}}")));
        let arguments = all.into_iter().filter(|(name, _)| used(name)).collect();
        Template::new(&command.iter().map(ToString::to_string).collect::<Vec<_>>(), &arguments, stdin)
    }

    fn check(command: &[&str], values: Value, expected: Result<&[&str], &str>) {
        let outcome = template(command, None).unwrap().fill(values.as_object().unwrap());
        match (outcome, expected) {
            (Ok((filled, _)), Ok(expected)) => assert_eq!(filled, expected, "{command:?} {values}"),
            (Err(message), Err(part)) => assert!(message.contains(part), "{command:?} {values}: {message}"),
            (outcome, _) => panic!("{command:?} {values}: {outcome:?}"),
        }
    }

    #[test]
    fn values_become_arguments() {
        let git = ["git", "log", "-n", "{count}", "--", "{path}"];
        for (command, values, expected) in [
            (
                &git[..],
                json!({"count": 3, "path": "a b; rm -rf /"}),
                Ok(&["log", "-n", "3", "--", "a b; rm -rf /"][..]),
            ),
            (&git, json!({"count": 3, "path": "$(id)`id`\n"}), Ok(&["log", "-n", "3", "--", "$(id)`id`\n"])),
            (&git, json!({"count": 3, "path": "--output=x"}), Ok(&["log", "-n", "3", "--", "--output=x"])),
            (&git, json!({"count": 0, "path": "x"}), Err("within its bounds")),
            (&git, json!({"count": 1.5, "path": "x"}), Err("whole number")),
            (&git, json!({"count": "3", "path": "x"}), Err("whole number")),
            (&git, json!({"count": 3}), Err("`path` is missing")),
            (&git, json!({"count": 3, "path": "a\0b"}), Err("code 0")),
            (&git, json!({"count": 3, "path": "x".repeat(21)}), Err("20 characters")),
            (&git, json!({"count": 3, "path": "x", "more": 1}), Err("no argument `more`")),
            (&git, json!({"count": 3, "path": ["x"]}), Err("a string")),
            (&["ls", "{path}"], json!({"path": "-la"}), Err("read as an option")),
            (&["ls", "{path}"], json!({"path": "--help"}), Err("read as an option")),
            (&["ls", "{path}"], json!({"path": "-"}), Err("read as an option")),
            (&["ls", "{path}"], json!({"path": ""}), Ok(&[""])),
            (&["x", "{word}{path}"], json!({"path": "-la", "word": "a"}), Ok(&["a-la"])),
            (&["x", "./{path}"], json!({"path": "-la"}), Ok(&["./-la"])),
            (&["x", "--in={path}"], json!({"path": "-la"}), Ok(&["--in=-la"])),
            (&["x", "-n{count}"], json!({"count": 5}), Ok(&["-n5"])),
            (&["x", "{ratio}"], json!({"ratio": -0.5}), Err("read as an option")),
            (&["x", "{ratio}"], json!({"ratio": 0.5}), Ok(&["0.5"])),
            (&["x", "--all={all}"], json!({"all": true}), Ok(&["--all=true"])),
            (&["x", "--all={all}", "y"], json!({}), Ok(&["y"])),
            (&["x", "--all={all}", "y"], json!({"all": null}), Ok(&["y"])),
            (&["x", "{paths}"], json!({"paths": ["a", "b c"]}), Ok(&["a", "b c"])),
            (&["x", "{paths}"], json!({"paths": ["a", "-b"]}), Err("read as an option")),
            (&["x", "--", "{paths}"], json!({"paths": ["a", "-b"]}), Ok(&["--", "a", "-b"])),
            (&["x", "{paths}"], json!({"paths": []}), Ok(&[])),
            (&["x", "{paths}"], json!({"paths": ["a", 1]}), Err("list of strings")),
            (&["x", "{paths}"], json!({"paths": vec!["a"; 300]}), Err("256 strings")),
            (&["x", "{word}"], json!({"word": "c"}), Err("one of: a, b")),
            (&["x", "{name}"], json!({"name": "abc"}), Ok(&["abc"])),
            (&["x", "{name}"], json!({"name": "abc\n"}), Err("must match")),
            (&["x", "{name}"], json!({"name": "abc -x"}), Err("must match")),
            (
                &["awk", "{print $1}", "HEAD@{1}", "{}", "{Path}", "{"],
                json!({}),
                Ok(&["{print $1}", "HEAD@{1}", "{}", "{Path}", "{"]),
            ),
        ] {
            check(command, values, expected);
        }
        let (_, stdin) =
            template(&["cat"], Some("text")).unwrap().fill(json!({"text": "-\0"}).as_object().unwrap()).unwrap();
        assert_eq!(stdin, "-\0");
    }

    #[test]
    fn commands_are_checked() {
        for (command, stdin, part) in [
            (&[][..], None, "0 parts"),
            (&["{path}"], None, "place for a value"),
            (&["/bin/{path}"], None, "place for a value"),
            (&[""], None, "place for a value"),
            (&["ls", "{other}"], None, "no such argument"),
            (&["ls"], Some("other"), "no such argument"),
            (&["ls", "a{paths}"], None, "is a list"),
            (&["ls"], Some("paths"), "is a list"),
            (&["sh", "-c", "ls {path}"], None, "shell would read"),
            (&["/bin/bash", "-lc", "{path}"], None, "shell would read"),
            (&["ls", "{text}"], None, "`length_max`"),
        ] {
            let error = template(command, stdin).err().unwrap();
            assert!(error.to_string().contains(part), "{command:?}: {error}");
        }
        assert!(template(&["sh", "-c", "ls \"$1\"", "sh", "{path}"], None).is_ok());
        let unused = BTreeMap::from([("path".to_string(), toml::from_str("").unwrap())]);
        assert!(
            Template::new(&["ls".into()], &unused, None).err().unwrap().to_string().contains("is not in the command")
        );
        let odd = BTreeMap::from([("A-b".to_string(), toml::from_str("").unwrap())]);
        assert!(Template::new(&["ls".into()], &odd, None).err().unwrap().to_string().contains("cannot be the name"));
        let schema = template(&["x", "{count}", "{paths}", "{name}"], None).unwrap().schema();
        assert_eq!(schema["required"], json!(["count"]));
        assert_eq!(
            schema["properties"]["count"],
            json!({"type": "integer", "minimum": 1, "maximum": 100, "description": "how many"})
        );
        assert_eq!(schema["properties"]["name"]["pattern"], "^(?:[a-z]+)$");
    }
}
