//! A tool that is a description and a function, and the checks that all kinds of tools share: names, and numbers within
//! bounds. Knows no kind of tool.

use futures::future::BoxFuture;
use narthex_agent::{Call, Effect, Progress, Tool, ToolDefinition, ToolFailure, ToolResult};
use narthex_base::Error;
use serde_json::{Map, Value};
use std::{fmt::Display, ops::RangeInclusive};

/// Characters of a tool's name.
const NAME_CHARS_MAX: usize = 128;

/// What a call gives.
pub type Outcome = Result<ToolResult, ToolFailure>;

/// A tool that is a description and a function.
pub struct Described<F> {
    definition: ToolDefinition,
    act: F,
}

impl<F: Fn(Call) -> BoxFuture<'static, Outcome> + Send + Sync> Described<F> {
    /// A tool that does `act` with a call.
    ///
    /// # Errors
    /// If the name is none that a tool can have.
    pub fn tool(
        name: &str,
        description: String,
        input_schema: Value,
        effect: Effect,
        act: F,
    ) -> Result<std::sync::Arc<dyn Tool>, Error>
    where
        F: 'static,
    {
        let name = checked_name(name)?.to_string();
        let definition = ToolDefinition { name, description, input_schema, output_schema: None, effect };
        Ok(std::sync::Arc::new(Self { definition, act }))
    }
}

impl<F: Fn(Call) -> BoxFuture<'static, Outcome> + Send + Sync> Tool for Described<F> {
    fn definition(&self) -> &ToolDefinition {
        &self.definition
    }

    fn call(&self, call: Call, _: Progress) -> BoxFuture<'static, Outcome> {
        (self.act)(call)
    }
}

/// A name that a tool can have.
///
/// # Errors
/// If it is empty, longer than 128 characters, or has others than `A–Z a–z 0–9 _ - .`.
pub fn checked_name(name: &str) -> Result<&str, Error> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.bytes().all(allowed) {
        let shown: String = name.chars().take(NAME_CHARS_MAX).collect();
        return Err(Error::input(format!("`{shown}` cannot be the name of a tool"))
            .help(format!("take 1 to {NAME_CHARS_MAX} of the letters a to z and A to Z, digits, `_`, `-` and `.`")));
    }
    Ok(name)
}

/// A setting's number within bounds.
///
/// # Errors
/// If it is outside.
pub fn within<N: PartialOrd + Display + Copy>(
    tool: &str,
    key: &str,
    number: N,
    bounds: RangeInclusive<N>,
) -> Result<N, Error> {
    if bounds.contains(&number) {
        return Ok(number);
    }
    Err(Error::input(format!("`{key}` of the tool `{tool}` is {number}")).help(format!(
        "take a number from {} to {}",
        bounds.start(),
        bounds.end()
    )))
}

/// A call that is refused before it had any effect.
pub fn refused(message: impl Into<String>) -> ToolFailure {
    ToolFailure { message: message.into(), harmless: true }
}

/// A string among the arguments.
///
/// # Errors
/// If it is missing or no string.
pub fn string<'a>(arguments: &'a Map<String, Value>, name: &str) -> Result<&'a str, ToolFailure> {
    arguments.get(name).and_then(Value::as_str).ok_or_else(|| refused(format!("`{name}` must be given, as a string")))
}

/// A string among the arguments that may be left out.
///
/// # Errors
/// If it is no string.
pub fn optional_string<'a>(arguments: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, ToolFailure> {
    match arguments.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(_) => string(arguments, name).map(Some),
    }
}

/// A whole number among the arguments that may be left out.
///
/// # Errors
/// If it is no whole number within the bounds.
pub fn optional_number(
    arguments: &Map<String, Value>,
    name: &str,
    bounds: RangeInclusive<usize>,
) -> Result<Option<usize>, ToolFailure> {
    let Some(value) = arguments.get(name).filter(|value| !value.is_null()) else { return Ok(None) };
    let number =
        value.as_u64().and_then(|number| usize::try_from(number).ok()).filter(|number| bounds.contains(number));
    number
        .map(Some)
        .ok_or_else(|| refused(format!("`{name}` must be a whole number from {} to {}", bounds.start(), bounds.end())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_and_numbers() {
        for (name, expected) in [
            ("files.read", true),
            ("A-1_z", true),
            ("", false),
            ("a b", false),
            ("é", false),
            ("a/b", false),
            (&"a".repeat(128), true),
            (&"a".repeat(129), false),
        ] {
            assert_eq!(checked_name(name).is_ok(), expected, "{name}");
        }
        assert!(within("t", "wall_ms", 5, 1..=5).is_ok() && within("t", "wall_ms", 6, 1..=5).is_err());
        let arguments = json!({"a": "x", "n": 3, "f": 1.5, "z": null});
        let arguments = arguments.as_object().unwrap();
        assert_eq!(string(arguments, "a"), Ok("x"));
        assert_eq!(optional_string(arguments, "z"), Ok(None));
        assert_eq!(optional_number(arguments, "n", 1..=3), Ok(Some(3)));
        for failure in [
            string(arguments, "n").map(drop),
            string(arguments, "none").map(drop),
            optional_string(arguments, "n").map(drop),
            optional_number(arguments, "n", 4..=5).map(drop),
            optional_number(arguments, "f", 1..=5).map(drop),
            optional_number(arguments, "a", 1..=5).map(drop),
        ] {
            assert!(failure.unwrap_err().harmless);
        }
    }
}
