//! Rows of a query as documents or chats, and their normalisation. Knows Arrow columns and
//! messages; what is kept is decided elsewhere.

use crate::{bad_rows::BadRow, query::describe, rows::json_type, spec::Normalize};
use datafusion::arrow::{
    array::{Array, ArrayRef, LargeListArray, LargeStringArray, ListArray, RecordBatch, StructArray},
    compute::cast,
    datatypes::DataType,
};
use narthex_base::{Error, Message, Pair, Result, Role};
use serde_json::Value;
use std::ops::Range;
use unicode_normalization::{UnicodeNormalization, is_nfc, is_nfkc};

/// The columns of a record by name.
pub type Record = serde_json::Map<String, serde_json::Value>;

/// What a row is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Text(String),
    Chat(Vec<Message>),
    Pair(Pair),
    Record(Record),
    /// Null, or nothing but white space.
    Empty,
    Bad(BadRow),
}

/// The rows of a batch as documents.
pub(crate) fn texts(batch: &RecordBatch) -> Result<Vec<Item>> {
    let text = strings(batch, "text", "select … as text")?;
    Ok((0..text.len()).map(|row| cell(&text, row).map_or(Item::Empty, text_item)).collect())
}

/// The rows of a batch as chats.
pub(crate) fn chats(batch: &RecordBatch) -> Result<Vec<Item>> {
    if batch.column_by_name("messages").is_some() { messages(batch) } else { turns(batch) }
}

fn text_item(text: &str) -> Item {
    if text.trim().is_empty() { Item::Empty } else { Item::Text(text.to_string()) }
}

pub(crate) fn cell(column: &LargeStringArray, row: usize) -> Option<&str> {
    column.is_valid(row).then(|| column.value(row))
}

/// A column as strings; an error if it is missing or of another type.
pub(crate) fn strings(batch: &RecordBatch, name: &str, fix: &str) -> Result<LargeStringArray> {
    let Some(column) = batch.column_by_name(name) else {
        return Err(Error::input(format!("the transform's result has no column `{name}`"))
            .cause(format!("it has {}", describe(&batch.schema())))
            .help(format!("name the column: `{fix}`")));
    };
    as_strings(column).ok_or_else(|| {
        Error::input(format!("the column `{name}` is {}, not text", column.data_type()))
            .help(format!("convert it in the transform: `cast({name} as varchar) as {name}`"))
    })
}

pub(crate) fn as_strings(column: &ArrayRef) -> Option<LargeStringArray> {
    let is_text =
        |kind: &DataType| matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null);
    let fits = match column.data_type() {
        DataType::Dictionary(_, value) => is_text(value),
        other => is_text(other),
    };
    let column = fits.then(|| cast(column, &DataType::LargeUtf8).ok()).flatten()?;
    column.as_any().downcast_ref::<LargeStringArray>().cloned()
}

/// Chats from the columns `user`, `assistant` and, where there is one, `system`.
fn turns(batch: &RecordBatch) -> Result<Vec<Item>> {
    let fix = "select … as \"user\", … as assistant";
    let (user, assistant) = (strings(batch, "user", fix)?, strings(batch, "assistant", fix)?);
    let system = batch.column_by_name("system").map(|_| strings(batch, "system", fix)).transpose()?;
    let said =
        |column: &LargeStringArray, row| cell(column, row).filter(|text| !text.trim().is_empty()).map(str::to_string);
    let item = |row| {
        let (Some(question), Some(answer)) = (said(&user, row), said(&assistant, row)) else { return Item::Empty };
        let instruction = system.as_ref().and_then(|system| said(system, row));
        let mut chat = Vec::from_iter(instruction.map(|text| Message::new(Role::System, text)));
        chat.extend([Message::new(Role::User, question), Message::new(Role::Assistant, answer)]);
        Item::Chat(chat)
    };
    Ok((0..batch.num_rows()).map(item).collect())
}

/// Chats from the column `messages`: JSON text, or a list of structs.
fn messages(batch: &RecordBatch) -> Result<Vec<Item>> {
    let column = batch.column_by_name("messages").expect("the caller looked");
    if let Some(json) = as_strings(column) {
        return Ok((0..json.len()).map(|row| cell(&json, row).map_or(Item::Empty, json_chat)).collect());
    }
    list_chats(column).ok_or_else(|| {
        Error::input(format!("the column `messages` is {}", column.data_type()))
            .help("it must be JSON text, or a list of structs with the text fields `role` and `content`")
    })
}

pub(crate) fn list_chats(column: &ArrayRef) -> Option<Vec<Item>> {
    let (values, ranges): (&ArrayRef, Vec<Range<usize>>) =
        if let Some(list) = column.as_any().downcast_ref::<ListArray>() {
            (list.values(), list.value_offsets().windows(2).map(|ends| ends[0] as usize..ends[1] as usize).collect())
        } else {
            let list = column.as_any().downcast_ref::<LargeListArray>()?;
            (list.values(), list.value_offsets().windows(2).map(|ends| ends[0] as usize..ends[1] as usize).collect())
        };
    let entries = values.as_any().downcast_ref::<StructArray>()?;
    let field = |name: &str| entries.column_by_name(name).and_then(as_strings);
    let (roles, contents) = (field("role")?, field("content")?);
    let entry = |at: usize| {
        let (Some(role), Some(content)) = (cell(&roles, at), cell(&contents, at)) else {
            return Err(BadRow::new("invalid messages", "a message has no role or no content"));
        };
        Ok(Message::new(role_of(role)?, content))
    };
    let item = |(row, range): (usize, &Range<usize>)| match column.is_valid(row) {
        false => Item::Empty,
        true => chat_item(range.clone().map(entry).collect()),
    };
    Some(ranges.iter().enumerate().map(item).collect())
}

fn role_of(name: &str) -> Result<Role, BadRow> {
    serde_json::from_value(Value::from(name)).map_err(|_| {
        BadRow::new("invalid messages", format!("the role `{name}` is none of system, user, assistant and tool"))
    })
}

pub(crate) fn json_chat(json: &str) -> Item {
    let entry = |value: &Value| match (&value["role"], &value["content"]) {
        (Value::String(role), Value::String(content)) => Ok(Message::new(role_of(role)?, content)),
        (role, content) => {
            let (role, content) = (json_type(role), json_type(content));
            let why = format!("a message must have a role and a content that are strings, not {role} and {content}");
            Err(BadRow::new("invalid messages", why))
        }
    };
    chat_item(match serde_json::from_str(json) {
        Ok(Value::Array(entries)) => entries.iter().map(entry).collect(),
        Ok(other) => Err(BadRow::new("invalid messages", format!("`messages` is {}, not an array", json_type(&other)))),
        Err(error) => Err(BadRow::new("invalid messages", format!("`messages` is not JSON: {error}"))),
    })
}

fn chat_item(chat: Result<Vec<Message>, BadRow>) -> Item {
    match chat {
        Err(bad) => Item::Bad(bad),
        Ok(chat) if chat.iter().all(|message| message.text().trim().is_empty()) => Item::Empty,
        Ok(chat) => Item::Chat(chat),
    }
}

/// LF line ends, and the Unicode form asked for.
pub(crate) fn normalized(text: String, normalize: Normalize) -> String {
    let text = match text.contains('\r') {
        true => text.replace("\r\n", "\n").replace('\r', "\n"),
        false => text,
    };
    match normalize {
        Normalize::Nfc if !is_nfc(&text) => text.nfc().collect(),
        Normalize::Nfkc if !is_nfkc(&text) => text.nfkc().collect(),
        Normalize::None | Normalize::Nfc | Normalize::Nfkc => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalisation() {
        for (text, none, nfc, nfkc) in [
            ("a\r\nb\rc\n", "a\nb\nc\n", "a\nb\nc\n", "a\nb\nc\n"),
            ("e\u{301}", "e\u{301}", "é", "é"),
            ("ﬁ Ａ", "ﬁ Ａ", "ﬁ Ａ", "fi A"),
        ] {
            for (form, expected) in [(Normalize::None, none), (Normalize::Nfc, nfc), (Normalize::Nfkc, nfkc)] {
                assert_eq!(normalized(text.to_string(), form), expected);
            }
        }
    }

    #[test]
    fn chats_in_json() {
        let chat = Item::Chat(vec![Message::new(Role::User, "q"), Message::new(Role::Assistant, "a")]);
        assert_eq!(json_chat(r#"[{"role":"user","content":"q"},{"role":"assistant","content":"a","x":1}]"#), chat);
        for empty in ["[]", r#"[{"role":"user","content":" \n"}]"#] {
            assert_eq!(json_chat(empty), Item::Empty);
        }
        for (bad, why) in [
            ("[", "not JSON"),
            ("{}", "an object, not an array"),
            (r#"[{"role":"user"}]"#, "not a string and null"),
            (r#"[{"role":"bot","content":"a"}]"#, "the role `bot`"),
            (r#"[{"role":"user","content":["a"]}]"#, "an array"),
            ("[1]", "null and null"),
        ] {
            let Item::Bad(row) = json_chat(bad) else { panic!("{bad} is accepted") };
            assert!(row.why.contains(why), "{bad}: {}", row.why);
        }
    }
}
