//! What an answer must be: a form that a request names becomes a constraint over the model's tokens. Compiled once and
//! kept; knows no wire format. What computes it is in `guidance`, and only there.

mod apart;
mod either;
mod formats;
mod gbnf;
mod guidance;
mod lark;
mod meeting;
mod schema;
mod tags;
mod thoughts;
mod vocabulary;

use self::guidance::{Factory, Grammar};
use indexmap::IndexMap;
use narthex_base::{Digest, Error, Result};
use narthex_infer::Constraint;
use narthex_text::Tokenizer;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

pub use either::Either;
pub use schema::{Spacing, prepared_schema};
pub use tags::{Tag, Tags};
pub use thoughts::Thoughts;

/// Constraints that are kept for later requests.
const KEPT_MAX: usize = 128;

/// Bytes of a form at most.
pub const FORM_BYTES_MAX: usize = 256 << 10;

/// Bytes of a regular expression at most: the work of each step may grow with their square.
const REGEX_BYTES_MAX: usize = 8 << 10;

/// Choices at most.
const CHOICES_MAX: usize = 4096;

/// What an answer must be.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// JSON that this schema takes (2020-12 or the draft that it names), written with this spacing.
    Schema(Value, Spacing),
    /// What this regular expression matches as a whole (the syntax of Rust's crate `regex`).
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// What this grammar derives: Lark's syntax, or GBNF's (`root ::= …`).
    Grammar(String),
    /// Free text in which some beginnings open a form.
    Tags(Tags),
    /// What this grammar derives: the engine's own Lark, in which tokens can be named by their ids.
    Lark(String),
}

impl Form {
    /// Any JSON object.
    pub fn object() -> Self {
        Form::Schema(json!({"type": "object"}), Spacing::default())
    }

    fn key(&self) -> String {
        match self {
            Form::Schema(schema, spacing) => format!("schema {spacing:?} {schema}"),
            Form::Regex(regex) => format!("regex {regex}"),
            Form::Choice(choices) => format!("choice {}", json!(choices)),
            Form::Grammar(grammar) => format!("grammar {grammar}"),
            Form::Tags(tags) => format!("tags {tags:?}"),
            Form::Lark(grammar) => format!("lark {grammar}"),
        }
    }
}

/// Makes constraints for the tokens of one model. Its tables are made with the first constraint.
pub struct Constraints {
    tokenizer: Tokenizer,
    factory: OnceLock<Result<Factory, String>>,
    kept: Mutex<IndexMap<Digest, Arc<Grammar>>>,
}

impl Constraints {
    /// For what this tokenizer writes.
    pub fn new(tokenizer: &Tokenizer) -> Self {
        Self { tokenizer: tokenizer.clone(), factory: OnceLock::new(), kept: Mutex::default() }
    }

    /// The constraint that lets nothing but this form pass. Takes a while; not for the engine's thread.
    ///
    /// # Errors
    /// If the form is none, asks for something that cannot be honoured (it is named), or is too large.
    pub fn of(&self, form: &Form) -> Result<Arc<dyn Constraint>> {
        let key = form.key();
        if key.len() > FORM_BYTES_MAX {
            let what = format!("it is too large: {} bytes, {FORM_BYTES_MAX} at most", key.len());
            return Err(Error::input(what));
        }
        let digest = Digest::of(key.as_bytes());
        if let Some(known) = self.known(&digest) {
            return Ok(known);
        }
        let compiled = Arc::new(self.compile(form)?);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX {
            kept.shift_remove_index(0);
        }
        kept.insert(digest, compiled.clone());
        Ok(compiled)
    }

    /// What was compiled before; it moves to the end of those that make room.
    fn known(&self, digest: &Digest) -> Option<Arc<dyn Constraint>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept.shift_remove(digest)?;
        kept.insert(*digest, known.clone());
        Some(known)
    }

    fn compile(&self, form: &Form) -> Result<Grammar> {
        let factory = self.factory.get_or_init(|| Factory::new(&self.tokenizer));
        let factory = factory.as_ref().map_err(|why| Error::internal(why.clone()))?;
        let compiled = |text: &str| factory.lark(text).map_err(Error::input);
        match form {
            Form::Schema(schema, spacing) => {
                let schema = prepared_schema(schema, spacing)?;
                factory.schema(schema.clone()).map_err(|why| schema::explained(&schema, why))
            }
            Form::Regex(regex) if regex.len() > REGEX_BYTES_MAX => {
                Err(Error::input(format!("it is too large: {} bytes, {REGEX_BYTES_MAX} at most", regex.len())))
            }
            Form::Regex(regex) => factory.regex(regex).map_err(Error::input),
            Form::Choice(choices) => compiled(&choice_grammar(choices)?),
            Form::Grammar(text) if gbnf::is_gbnf(text) => compiled(&gbnf::to_lark(text)?),
            Form::Grammar(text) => lark::judged(text).and_then(|()| compiled(text)),
            Form::Tags(tags) => compiled(&tags::grammar(tags)?),
            Form::Lark(text) => compiled(text),
        }
    }
}

/// A grammar of one of these texts. They are one word to the engine, of which it follows thousands at once; of rules
/// only two.
fn choice_grammar(choices: &[String]) -> Result<String> {
    if choices.is_empty() || choices.len() > CHOICES_MAX {
        return Err(Error::input(format!("there must be from 1 to {CHOICES_MAX} choices")));
    }
    if choices.iter().any(String::is_empty) {
        return Err(Error::input("a choice must not be empty"));
    }
    let choices: Vec<String> = choices.iter().map(|choice| Value::from(choice.as_str()).to_string()).collect();
    Ok(format!("start: CHOICE\nCHOICE: {}\n", choices.join(" | ")))
}

#[cfg(test)]
mod tests;
