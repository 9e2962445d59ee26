//! Rows with two answers to one prompt. Knows the columns `prompt`, `chosen` and `rejected`, each text or messages.

use crate::{
    bad_rows::BadRow,
    documents::{Item, as_chats, as_strings, cell, json_chat, strings},
};
use datafusion::arrow::array::{LargeStringArray, RecordBatch};
use narthex_base::{Answers, Error, Message, Pair, Result};

/// What one column holds.
enum Column {
    Text(LargeStringArray),
    Lists(Vec<Item>),
}

/// What one cell holds.
enum Said {
    Text(String),
    Chat(Vec<Message>),
}

impl Column {
    fn of(batch: &RecordBatch, name: &str) -> Result<Self> {
        let Some(column) = batch.column_by_name(name) else {
            // The error for a column that is missing.
            return strings(batch, name, &format!("select … as {name}")).map(Self::Text);
        };
        if let Some(text) = as_strings(column) {
            return Ok(Self::Text(text));
        }
        as_chats(column).map(Self::Lists).ok_or_else(|| {
            Error::input(format!("the column `{name}` is {}", column.data_type()))
                .help("it must be text, or a list of structs with the text fields `role` and `content`")
        })
    }

    /// A row's cell; none where there is nothing.
    fn said(&self, row: usize) -> Result<Option<Said>, BadRow> {
        let item = match self {
            Self::Text(text) => match cell(text, row) {
                None => return Ok(None),
                // Messages that came as JSON text.
                Some(text) if is_list(text) => json_chat(text),
                Some("") => return Ok(None),
                Some(text) => return Ok(Some(Said::Text(text.to_string()))),
            },
            Self::Lists(items) => items[row].clone(),
        };
        match item {
            Item::Chat(chat) => Ok(Some(Said::Chat(chat.messages))),
            Item::Bad(bad) => Err(bad),
            _ => Ok(None),
        }
    }
}

/// Whether a text is a JSON list of objects with roles.
fn is_list(text: &str) -> bool {
    let value = if text.trim_start().starts_with('[') { serde_json::from_str(text).ok() } else { None };
    let list: Option<Vec<serde_json::Map<String, serde_json::Value>>> = value;
    list.is_some_and(|list| !list.is_empty() && list.iter().all(|entry| entry.contains_key("role")))
}

/// The rows of a batch as pairs.
pub(crate) fn pairs(batch: &RecordBatch) -> Result<Vec<Item>> {
    let (chosen, rejected) = (Column::of(batch, "chosen")?, Column::of(batch, "rejected")?);
    let prompt = batch.column_by_name("prompt").map(|_| Column::of(batch, "prompt")).transpose()?;
    let item = |row| {
        let said = || -> Result<Item, BadRow> {
            let prompt = prompt.as_ref().map(|prompt| prompt.said(row)).transpose()?.flatten();
            match (chosen.said(row)?, rejected.said(row)?) {
                (Some(chosen), Some(rejected)) => pair(prompt, chosen, rejected),
                _ => Ok(Item::Empty),
            }
        };
        said().unwrap_or_else(Item::Bad)
    };
    Ok((0..batch.num_rows()).map(item).collect())
}

fn pair(prompt: Option<Said>, chosen: Said, rejected: Said) -> Result<Item, BadRow> {
    let bad = |why: &str| Err(BadRow::new("invalid pair", why));
    let pair = match (prompt, chosen, rejected) {
        (None, Said::Text(chosen), Said::Text(rejected)) => Pair::of_texts(&chosen, &rejected),
        (None, Said::Chat(chosen), Said::Chat(rejected)) => Pair::of_chats(chosen, rejected),
        (Some(Said::Text(prompt)), Said::Text(chosen), Said::Text(rejected)) => {
            Pair::Text(Answers { prompt, chosen, rejected })
        }
        (Some(Said::Chat(prompt)), Said::Chat(chosen), Said::Chat(rejected)) => {
            Pair::Chat(Answers { prompt, chosen, rejected })
        }
        _ => return bad("`prompt`, `chosen` and `rejected` must all be text, or all be messages"),
    };
    let without_answer = match &pair {
        Pair::Text(texts) => texts.chosen.is_empty() || texts.rejected.is_empty(),
        Pair::Chat(chats) => chats.chosen.is_empty() || chats.rejected.is_empty(),
    };
    if without_answer {
        return bad("the two answers do not part, or one is how the other begins");
    }
    Ok(Item::Pair(pair))
}
