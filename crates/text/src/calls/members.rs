//! Writes arguments that the model didn't write as JSON, member by member, as they come.

use super::input::Input;
use serde_json::Value;

/// The arguments of one call.
pub(crate) struct Members<'a> {
    input: &'a Input,
    keys: Vec<String>,
}

impl<'a> Members<'a> {
    /// Opens the object.
    pub(crate) fn open(input: &'a Input) -> Self {
        input.arguments("{");
        Self { input, keys: vec![] }
    }

    /// Begins a member. False if the key was there before: the first one stays, as it may be out already.
    pub(crate) fn key(&mut self, key: &str) -> bool {
        if self.keys.iter().any(|known| known == key) {
            return false;
        }
        if !self.keys.is_empty() {
            self.input.arguments(",");
        }
        self.input.arguments(&format!("{}:", Value::from(key)));
        self.keys.push(key.to_string());
        true
    }

    /// Writes a whole member.
    pub(crate) fn add(&mut self, key: &str, value: &Value) {
        if self.key(key) {
            self.input.arguments(&value.to_string());
        }
    }

    /// Writes text as it stands inside a JSON string.
    pub(crate) fn text(&self, text: &str) {
        let quoted = Value::from(text).to_string();
        self.input.arguments(&quoted[1..quoted.len() - 1]);
    }

    /// A quotation mark around such text.
    pub(crate) fn quote(&self) {
        self.input.arguments("\"");
    }

    /// Closes the object.
    pub(crate) fn close(self) {
        self.input.arguments("}");
    }
}
