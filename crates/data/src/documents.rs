//! Rows of a query as documents or chats, and their normalisation. Knows Arrow columns and
//! messages; what is kept is decided elsewhere.

use crate::{bad_rows::BadRow, query::describe, rows::json_type, spec::Normalize};
use datafusion::arrow::{
    array::{Array, ArrayRef, BooleanArray, LargeListArray, LargeStringArray, ListArray, RecordBatch, StructArray},
    compute::cast,
    datatypes::DataType,
};
use narthex_base::{Conversation, Error, Message, Pair, Result, Role};
use serde_json::{Number, Value};
use unicode_normalization::{UnicodeNormalization, is_nfc, is_nfkc};

/// The columns of a record by name.
pub type Record = serde_json::Map<String, serde_json::Value>;

/// What a row is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Text(String),
    Chat(Conversation),
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
        Item::Chat(chat.into())
    };
    Ok((0..batch.num_rows()).map(item).collect())
}

/// Chats from the column `messages` and, where there is one, `tools`: JSON text, or lists of structs.
fn messages(batch: &RecordBatch) -> Result<Vec<Item>> {
    let column = batch.column_by_name("messages").expect("the caller looked");
    let items = as_chats(column).ok_or_else(|| not_messages("messages", column))?;
    let Some(tools) = batch.column_by_name("tools") else { return Ok(items) };
    let tools = (0..batch.num_rows()).map(|row| tools_of(json_of(tools, row)));
    Ok(items
        .into_iter()
        .zip(tools)
        .map(|(item, tools)| match (item, tools) {
            (Item::Chat(chat), Ok(tools)) => Item::Chat(Conversation { tools, ..chat }),
            (Item::Chat(_), Err(bad)) => Item::Bad(bad),
            (other, _) => other,
        })
        .collect())
}

pub(crate) fn not_messages(name: &str, column: &ArrayRef) -> Error {
    Error::input(format!("the column `{name}` is {}", column.data_type()))
        .help("it must be JSON text, or a list of structs with the fields `role` and `content`")
}

/// The chats of a column of JSON text, or of lists of structs.
pub(crate) fn as_chats(column: &ArrayRef) -> Option<Vec<Item>> {
    if let Some(json) = as_strings(column) {
        return Some((0..json.len()).map(|row| cell(&json, row).map_or(Item::Empty, json_chat)).collect());
    }
    is_list_of_structs(column).then(|| (0..column.len()).map(|row| chat_of(json_of(column, row))).collect())
}

fn is_list_of_structs(column: &ArrayRef) -> bool {
    match column.data_type() {
        DataType::List(field) | DataType::LargeList(field) => matches!(field.data_type(), DataType::Struct(_)),
        _ => false,
    }
}

/// A cell as JSON. Fields of structs that are null are left out: files with columns fill up what a row does not say.
pub(crate) fn json_of(column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    if let Some(text) = as_strings(&column.slice(row, 1)) {
        return Value::from(text.value(0));
    }
    let list = |values: ArrayRef| (0..values.len()).map(|at| json_of(&values, at)).collect();
    if let Some(lists) = column.as_any().downcast_ref::<ListArray>() {
        return list(lists.value(row));
    }
    if let Some(lists) = column.as_any().downcast_ref::<LargeListArray>() {
        return list(lists.value(row));
    }
    if let Some(structs) = column.as_any().downcast_ref::<StructArray>() {
        let field = |(name, column): (&str, &ArrayRef)| (name.to_string(), json_of(column, row));
        let fields = structs.column_names().into_iter().zip(structs.columns()).map(field);
        return Value::Object(fields.filter(|(_, value)| !value.is_null()).collect());
    }
    if let Some(switches) = column.as_any().downcast_ref::<BooleanArray>() {
        return Value::from(switches.value(row));
    }
    let written = cast(&column.slice(row, 1), &DataType::Utf8).ok().and_then(|column| as_strings(&column));
    let written = written.map(|text| text.value(0).to_string()).unwrap_or_default();
    written.parse::<Number>().map_or(Value::String(written), Value::Number)
}

/// Tools: a list of them, or its JSON text.
fn tools_of(value: Value) -> Result<Vec<Value>, BadRow> {
    let bad = |why: String| Err(BadRow::new("invalid tools", why));
    match value {
        Value::Null => Ok(vec![]),
        Value::Array(tools) => tools
            .into_iter()
            .map(|tool| match tool {
                Value::String(text) => serde_json::from_str(&text)
                    .map_err(|error| BadRow::new("invalid tools", format!("a tool is not JSON: {error}"))),
                other => Ok(other),
            })
            .collect(),
        Value::String(text) if text.trim().is_empty() => Ok(vec![]),
        Value::String(text) => match serde_json::from_str(&text) {
            Ok(Value::Array(tools)) => Ok(tools),
            Ok(Value::Null) => Ok(vec![]),
            Ok(other) => bad(format!("`tools` is {}, not an array", json_type(&other))),
            Err(error) => bad(format!("`tools` is not JSON: {error}")),
        },
        other => bad(format!("`tools` is {}, not an array", json_type(&other))),
    }
}

pub(crate) fn json_chat(json: &str) -> Item {
    match serde_json::from_str(json) {
        Ok(value) => chat_of(value),
        Err(error) => Item::Bad(BadRow::new("invalid messages", format!("`messages` is not JSON: {error}"))),
    }
}

/// A chat from its messages: all that they say is kept, for the template.
fn chat_of(value: Value) -> Item {
    let chat: Result<Vec<Message>, BadRow> = match value {
        Value::Null => return Item::Empty,
        Value::Array(entries) => entries.into_iter().map(message_of).collect(),
        other => Err(BadRow::new("invalid messages", format!("`messages` is {}, not an array", json_type(&other)))),
    };
    let says = |message: &Message| !message.text().trim().is_empty() || !message.tool_calls.is_empty();
    match chat {
        Err(bad) => Item::Bad(bad),
        Ok(chat) if !chat.iter().any(says) => Item::Empty,
        Ok(chat) => Item::Chat(chat.into()),
    }
}

fn message_of(mut value: Value) -> Result<Message, BadRow> {
    let bad = |why: String| Err(BadRow::new("invalid messages", why));
    let Some(fields) = value.as_object_mut() else {
        return bad(format!("a message is {}, not an object", json_type(&value)));
    };
    match &fields.get("role") {
        // OpenAI's later name for instructions, which templates do not know.
        Some(Value::String(role)) if role == "developer" => drop(fields.insert("role".into(), "system".into())),
        Some(Value::String(role)) if serde_json::from_value::<Role>(Value::from(role.as_str())).is_err() => {
            return bad(format!("the role `{role}` is none of system, developer, user, assistant and tool"));
        }
        Some(Value::String(_)) => {}
        role => {
            let found = role.map_or("nothing", json_type);
            return bad(format!("a message must have a role that is a string, not {found}"));
        }
    }
    let calls = fields.get("tool_calls").and_then(Value::as_array).is_some_and(|calls| !calls.is_empty());
    match fields.get("content") {
        Some(Value::String(_) | Value::Array(_)) => {}
        None | Some(Value::Null) if calls => {}
        content => {
            let found = content.map_or("nothing", json_type);
            return bad(format!("a message must have a content that is a string or a list of parts, not {found}"));
        }
    }
    // Null says as much as nothing, and the weight is OpenAI's way to say what is not to be learnt.
    fields.retain(|key, value| !value.is_null() || key == "content");
    let weight = fields.shift_remove("weight");
    match weight.as_ref().map(Value::as_f64) {
        None => {}
        Some(Some(0.0)) => drop(fields.insert("train".into(), false.into())),
        Some(Some(1.0)) => {}
        _ => return bad("the weight of a message must be 0 or 1".into()),
    }
    match fields.get("train") {
        None | Some(Value::Bool(_)) => {}
        Some(other) => return bad(format!("`train` of a message must be true or false, not {}", json_type(other))),
    }
    if fields.get("tool_calls").is_some_and(|calls| calls.as_array().is_some_and(Vec::is_empty)) {
        fields.shift_remove("tool_calls");
    }
    serde_json::from_value(value).or_else(|error| bad(format!("a message cannot be read: {error}")))
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
        let chat = Item::Chat(vec![Message::new(Role::User, "q"), Message::new(Role::Assistant, "a")].into());
        assert_eq!(
            json_chat(r#"[{"role":"user","content":"q"},{"role":"assistant","content":"a","name":null}]"#),
            chat
        );
        let Item::Chat(chat) = json_chat(
            r#"[{"role":"developer","content":[{"type":"text","text":"b"}]},{"role":"user","content":"q"},
                {"role":"assistant","content":null,"reasoning_content":"r","tool_calls":[{"function":{"name":"f","arguments":{"a":1}}}]},
                {"role":"tool","content":"1","name":"f"},{"role":"assistant","content":"a","weight":0},
                {"role":"assistant","content":"a","train":false}]"#,
        ) else {
            panic!("a chat");
        };
        let [system, _, call, result, silent, quiet] = &chat.messages[..] else { panic!("{chat:?}") };
        assert_eq!((system.role, system.text().as_ref()), (Role::System, "b"));
        assert_eq!(
            (call.tool_calls[0].function.arguments.as_str(), &call.others["reasoning_content"]),
            (r#"{"a":1}"#, &Value::from("r"))
        );
        assert_eq!((result.name.as_deref(), silent.train, quiet.train, call.train), (Some("f"), false, false, true));
        for empty in ["[]", r#"[{"role":"user","content":" \n"}]"#] {
            assert_eq!(json_chat(empty), Item::Empty);
        }
        for (bad, why) in [
            ("[", "not JSON"),
            ("{}", "an object, not an array"),
            (r#"[{"role":"user"}]"#, "not nothing"),
            (r#"[{"role":"user","content":null}]"#, "not null"),
            (r#"[{"role":"assistant","content":"a","weight":0.5}]"#, "0 or 1"),
            (r#"[{"role":"assistant","content":"a","train":"no"}]"#, "true or false"),
            (r#"[{"role":"bot","content":"a"}]"#, "the role `bot`"),
            (r#"[{"role":"user","content":["a"]}]"#, "cannot be read"),
            ("[1]", "a number, not an object"),
        ] {
            let Item::Bad(row) = json_chat(bad) else { panic!("{bad} is accepted") };
            assert!(row.why.contains(why), "{bad}: {}", row.why);
        }
    }
}
