//! What the store of runs asks of a database: statements with numbered values, in a transaction or alone, and rows of
//! texts and numbers. Knows no table but by the statements that it is given.

use super::{StoreError, Wait};
use sqlx::SqlStr;

/// A database that can keep runs. The dialects share all statements but the search for words.
pub trait Database: Send + Sync + 'static {
    /// The texts of an agent that fit a question best: `$1` what [`Database::question`] made, `$2` the tenant, `$3` the
    /// agent, `$4` how many. Gives key, time and text.
    const RECALL: &'static str;

    /// Words as a question for any of them. They have letters and digits only.
    fn question(words: &[&str]) -> String;

    /// Begins a transaction that can write: while it lasts no other has the same `claim`, and what it reads of what the
    /// claim stands for stays true.
    fn begin<'a>(&'a self, claim: Option<&'a str>) -> Wait<'a, Box<dyn Writing>>;

    /// The rows that a statement gives, each a transaction of its own.
    fn rows<'a>(&'a self, statement: SqlStr, values: Vec<Value<'a>>) -> Wait<'a, Vec<Cells>>;

    /// How many rows a statement changed.
    fn change<'a>(&'a self, statement: SqlStr, values: Vec<Value<'a>>) -> Wait<'a, u64>;
}

/// A transaction: undone unless it is committed.
pub trait Writing: Send {
    /// The rows that a statement gives.
    fn rows<'a>(&'a mut self, statement: SqlStr, values: Vec<Value<'a>>) -> Wait<'a, Vec<Cells>>;

    /// How many rows a statement changed.
    fn change<'a>(&'a mut self, statement: SqlStr, values: Vec<Value<'a>>) -> Wait<'a, u64>;

    /// Keeps what was done: it is on disk then.
    fn commit(self: Box<Self>) -> Wait<'static, ()>;
}

/// A value of a statement.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// A text, or none.
    Text(Option<&'a str>),
    /// A number, or none.
    Number(Option<i64>),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Some(text))
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(Some(text))
    }
}

impl<'a> From<Option<&'a str>> for Value<'a> {
    fn from(text: Option<&'a str>) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Self::Number(Some(signed(number)))
    }
}

impl From<Option<u64>> for Value<'_> {
    fn from(number: Option<u64>) -> Self {
        Self::Number(number.map(signed))
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A field of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
    /// Nothing.
    Nothing,
}

/// The fields of a row, taken one after the other.
#[derive(Debug)]
pub struct Cells(std::vec::IntoIter<Cell>);

impl Cells {
    /// A row of these fields.
    pub fn new(cells: Vec<Cell>) -> Self {
        Self(cells.into_iter())
    }

    /// The next field, a text.
    ///
    /// # Errors
    /// If it is none.
    pub fn text(&mut self) -> Result<String, StoreError> {
        self.text_or_nothing()?.ok_or_else(|| unexpected("a text", None))
    }

    /// The next field, a text or nothing.
    ///
    /// # Errors
    /// If it is a number, or there is no further field.
    pub fn text_or_nothing(&mut self) -> Result<Option<String>, StoreError> {
        match self.0.next() {
            Some(Cell::Text(text)) => Ok(Some(text)),
            Some(Cell::Nothing) => Ok(None),
            other => Err(unexpected("a text", other)),
        }
    }

    /// The next field, a number that is not negative.
    ///
    /// # Errors
    /// If it is none.
    pub fn number(&mut self) -> Result<u64, StoreError> {
        match self.0.next() {
            Some(Cell::Number(number)) => Ok(number.max(0) as u64),
            other => Err(unexpected("a number", other)),
        }
    }
}

fn unexpected(wanted: &str, cell: Option<Cell>) -> StoreError {
    StoreError::Failed(format!("the store of runs gave {cell:?} where {wanted} stands"))
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error.as_database_error() {
            // Two began the same at once: the other was first.
            Some(error) if error.is_unique_violation() => Self::Conflict,
            _ => Self::Failed(format!("the store of runs failed: {error}")),
        }
    }
}
