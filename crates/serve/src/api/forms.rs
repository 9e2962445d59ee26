//! What an answer must be, in the words of OpenAI's `response_format`, of vLLM's `structured_outputs` and its older
//! `guided_…`, and of llama-server's `json_schema` and `grammar`. Knows no tokens.

use narthex_answer::{Form, Spacing, Tag, Tags};
use narthex_http::{ApiError, Fields};
use serde_json::Value;

/// A form, and the field that asked for it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AskedForm {
    pub form: Form,
    pub field: String,
}

/// Reads what a request says of the form of its answer; nothing if it says nothing.
pub(crate) fn read_form(fields: &mut Fields) -> Result<Option<AskedForm>, ApiError> {
    let mut found = read_response_format(fields)?;
    let structured = read_structured(fields)?;
    if structured.is_some() {
        only_one(&found, &structured)?;
        found = structured;
    }
    let spacing = Spacing { pattern: fields.string("guided_whitespace_pattern")?, ..Spacing::default() };
    for kind in ["guided_json", "guided_regex", "guided_choice", "guided_grammar", "json_schema", "grammar"] {
        let Some(value) = fields.take(kind) else { continue };
        let form = read_kind(kind, kind, value, &spacing)?;
        only_one(&found, &Some(form.clone()))?;
        found = Some(form);
    }
    if fields.flag("guided_json_object")? == Some(true) {
        let form = AskedForm { form: Form::object(), field: "guided_json_object".into() };
        only_one(&found, &Some(form.clone()))?;
        found = Some(form);
    }
    // Which engine another server should take.
    fields.take("guided_decoding_backend");
    Ok(found)
}

fn only_one(one: &Option<AskedForm>, other: &Option<AskedForm>) -> Result<(), ApiError> {
    match (one, other) {
        (Some(one), Some(other)) => {
            let message = format!("`{}` and `{}` ask for two forms of one answer: set one", one.field, other.field);
            Err(ApiError::field(&other.field, message))
        }
        _ => Ok(()),
    }
}

fn read_response_format(fields: &mut Fields) -> Result<Option<AskedForm>, ApiError> {
    let Some(mut format) = fields.object("response_format")? else { return Ok(None) };
    let field = "response_format".to_string();
    let kind = format.string("type")?.ok_or_else(|| format.missing("type"))?;
    let form = match kind.as_str() {
        "text" => None,
        // llama-server's form holds the schema beside the type.
        "json_object" => Some(match format.take("schema") {
            Some(schema) => Form::Schema(schema, Spacing::default()),
            None => Form::object(),
        }),
        "json_schema" => {
            let nested = format.object("json_schema")?;
            let schema = match nested {
                Some(mut nested) => {
                    nested.string("name")?;
                    nested.string("description")?;
                    // What is asked for is honoured, strict or not.
                    nested.flag("strict")?;
                    let schema = nested.take("schema").ok_or_else(|| nested.missing("schema"))?;
                    nested.finish()?;
                    schema
                }
                None => format.take("schema").ok_or_else(|| format.missing("json_schema"))?,
            };
            Some(Form::Schema(schema, Spacing::default()))
        }
        "grammar" => {
            let grammar = format.string("grammar")?.ok_or_else(|| format.missing("grammar"))?;
            Some(Form::Grammar(grammar))
        }
        "regex" => {
            let pattern = format.string("pattern")?.ok_or_else(|| format.missing("pattern"))?;
            Some(Form::Regex(pattern))
        }
        "structural_tag" => Some(Form::Tags(read_tags(&mut format)?)),
        kind => {
            let message = format!(
                "`response_format.type` must be text, json_object, json_schema, structural_tag, regex or grammar, not `{kind}`"
            );
            return Err(ApiError::field("response_format.type", message));
        }
    };
    format.finish()?;
    Ok(form.map(|form| AskedForm { form, field }))
}

fn read_structured(fields: &mut Fields) -> Result<Option<AskedForm>, ApiError> {
    let Some(mut wanted) = fields.object("structured_outputs")? else { return Ok(None) };
    let spacing = Spacing {
        pattern: wanted.string("whitespace_pattern")?,
        none: wanted.flag("disable_any_whitespace")?.unwrap_or(false),
        closed: wanted.flag("disable_additional_properties")?.unwrap_or(false),
    };
    let mut found = None;
    for kind in ["json", "regex", "choice", "grammar"] {
        let Some(value) = wanted.take(kind) else { continue };
        let form = read_kind(kind, &wanted.name(kind), value, &spacing)?;
        only_one(&found, &Some(form.clone()))?;
        found = Some(form);
    }
    if wanted.flag("json_object")? == Some(true) {
        let form = AskedForm {
            form: Form::Schema(serde_json::json!({"type": "object"}), spacing),
            field: wanted.name("json_object"),
        };
        only_one(&found, &Some(form.clone()))?;
        found = Some(form);
    }
    if let Some(mut tags) = read_tag_object(&mut wanted)? {
        let form = AskedForm { form: Form::Tags(read_tags(&mut tags)?), field: wanted.name("structural_tag") };
        tags.finish()?;
        only_one(&found, &Some(form.clone()))?;
        found = Some(form);
    }
    // Which engine another server should take.
    wanted.take("backend");
    wanted.take("disable_fallback");
    wanted.finish()?;
    if found.is_none() {
        let message = "`structured_outputs` must have one of `json`, `regex`, `choice`, `grammar`, `json_object` and `structural_tag`";
        return Err(ApiError::field("structured_outputs", message));
    }
    Ok(found)
}

/// vLLM's `structured_outputs.structural_tag`: an object, or one as text.
fn read_tag_object(wanted: &mut Fields) -> Result<Option<Fields>, ApiError> {
    let Some(value) = wanted.take("structural_tag") else { return Ok(None) };
    let value = match value {
        Value::String(text) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
        other => other,
    };
    let name = wanted.name("structural_tag");
    let Value::Object(map) = value else {
        return Err(ApiError::field(&name, format!("`{name}` must be an object, or one as text")));
    };
    let mut fields = wanted.inner(map, &name);
    fields.take("type");
    Ok(Some(fields))
}

/// Tags in either of vLLM's forms: `structures` with `triggers`, or `format` with `triggered_tags`.
fn read_tags(fields: &mut Fields) -> Result<Tags, ApiError> {
    if let Some(mut format) = fields.object("format")? {
        let kind = format.string("type")?.ok_or_else(|| format.missing("type"))?;
        if kind != "triggered_tags" {
            let name = format.name("type");
            return Err(ApiError::field(&name, format!("`{name}` must be triggered_tags, not `{kind}`")));
        }
        let at_least_one = format.flag("at_least_one")?.unwrap_or(false);
        let stop_after_first = format.flag("stop_after_first")?.unwrap_or(false);
        let tags = read_list(&mut format, "tags", |tag| {
            let mut content = tag.object("content")?.ok_or_else(|| tag.missing("content"))?;
            content.unsupported("type", &["json_schema".into()])?;
            let schema = content.take("json_schema").ok_or_else(|| content.missing("json_schema"))?;
            content.finish()?;
            Ok(schema)
        })?;
        let triggers = read_triggers(&mut format)?;
        format.finish()?;
        return Ok(Tags { tags, triggers, at_least_one, stop_after_first });
    }
    let schema = |tag: &mut Fields| tag.take("schema").ok_or_else(|| tag.missing("schema"));
    let tags = read_list(fields, "structures", schema)?;
    Ok(Tags { tags, triggers: read_triggers(fields)?, at_least_one: false, stop_after_first: false })
}

fn read_list(
    fields: &mut Fields,
    list: &'static str,
    schema: impl Fn(&mut Fields) -> Result<Value, ApiError>,
) -> Result<Vec<Tag>, ApiError> {
    let name = fields.name(list);
    let wrong = || ApiError::field(&name, format!("`{name}` must be a list of objects"));
    let Some(Value::Array(values)) = fields.take(list) else { return Err(wrong()) };
    let read = |(index, value)| {
        let Value::Object(map) = value else { return Err(wrong()) };
        let mut tag = fields.inner(map, &format!("{name}[{index}]"));
        let begin = tag.string("begin")?.ok_or_else(|| tag.missing("begin"))?;
        let end = tag.string("end")?.unwrap_or_default();
        let schema = schema(&mut tag)?;
        tag.finish()?;
        Ok(Tag { begin, schema, end })
    };
    values.into_iter().enumerate().map(read).collect()
}

fn read_triggers(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let name = fields.name("triggers");
    let wrong = || ApiError::field(&name, format!("`{name}` must be a list of strings"));
    let Some(Value::Array(values)) = fields.take("triggers") else { return Err(wrong()) };
    values.into_iter().map(|value| value.as_str().map(String::from).ok_or_else(wrong)).collect()
}

fn read_kind(kind: &str, field: &str, value: Value, spacing: &Spacing) -> Result<AskedForm, ApiError> {
    let wrong = |what: &str| ApiError::field(field, format!("`{field}` must be {what}"));
    let text = |value: Value| match value {
        Value::String(text) if !text.is_empty() => Ok(text),
        _ => Err(wrong("a string that is not empty")),
    };
    let form = match kind.trim_start_matches("guided_") {
        "json" | "json_schema" => {
            let schema = match value {
                Value::String(text) => serde_json::from_str(&text).map_err(|_| wrong("a JSON schema"))?,
                other => other,
            };
            Form::Schema(schema, spacing.clone())
        }
        "regex" => Form::Regex(text(value)?),
        "grammar" => Form::Grammar(text(value)?),
        _ => {
            let Value::Array(list) = value else { return Err(wrong("a list of strings")) };
            let choices = list.into_iter().map(|choice| match choice {
                Value::String(choice) => Ok(choice),
                _ => Err(wrong("a list of strings")),
            });
            Form::Choice(choices.collect::<Result<_, _>>()?)
        }
    };
    Ok(AskedForm { form, field: field.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::message_of;
    use serde_json::json;

    fn check(body: Value, expected: Result<Option<Form>, &str>) {
        let mut fields = Fields::parse(body.to_string().as_bytes()).unwrap();
        match (read_form(&mut fields), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found.map(|asked| asked.form), expected, "{body}"),
            (Err(error), Err(expected)) => assert_eq!(message_of(&error), expected, "{body}"),
            (found, _) => panic!("{body}: {found:?}"),
        }
    }

    #[test]
    fn each_way_of_asking_is_read() {
        let (schema, plain) = (json!({"type": "string"}), Spacing::default());
        let asked = Form::Schema(schema.clone(), plain.clone());
        for body in [
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": true}}}),
            json!({"response_format": {"type": "json_object", "schema": schema}}),
            json!({"structured_outputs": {"json": schema}}),
            json!({"structured_outputs": {"json": schema.to_string()}}),
            json!({"guided_json": schema, "guided_decoding_backend": "xgrammar"}),
            json!({"json_schema": schema}),
        ] {
            check(body, Ok(Some(asked.clone())));
        }
        let tag = Tag { begin: "<f=a>".into(), schema: json!({"type": "string"}), end: "</f>".into() };
        let triggers = vec!["<f".to_string()];
        let tags = Form::Tags(Tags { tags: vec![tag], triggers, at_least_one: false, stop_after_first: false });
        let tight = Spacing { pattern: None, none: true, closed: true };
        for (body, form) in [
            (json!({}), None),
            (json!({"response_format": {"type": "text"}}), None),
            (json!({"response_format": {"type": "json_object"}}), Some(Form::object())),
            (json!({"structured_outputs": {"json_object": true}}), Some(Form::object())),
            (json!({"structured_outputs": {"regex": "a+"}}), Some(Form::Regex("a+".into()))),
            (
                json!({"response_format": {"type": "structural_tag", "triggers": ["<f"],
                    "structures": [{"begin": "<f=a>", "schema": {"type": "string"}, "end": "</f>"}]}}),
                Some(tags.clone()),
            ),
            (
                json!({"structured_outputs": {"structural_tag": json!({"type": "structural_tag", "format": {
                    "type": "triggered_tags", "triggers": ["<f"], "tags": [{"begin": "<f=a>", "end": "</f>",
                    "content": {"type": "json_schema", "json_schema": {"type": "string"}}}]}}).to_string()}}),
                Some(tags),
            ),
            (json!({"guided_choice": ["a", "b"]}), Some(Form::Choice(vec!["a".into(), "b".into()]))),
            (json!({"grammar": "root ::= \"x\""}), Some(Form::Grammar("root ::= \"x\"".into()))),
            (
                json!({"structured_outputs": {"json": {}, "disable_any_whitespace": true, "disable_additional_properties": true}}),
                Some(Form::Schema(json!({}), tight)),
            ),
            (
                json!({"guided_json": {}, "guided_whitespace_pattern": " *"}),
                Some(Form::Schema(json!({}), Spacing { pattern: Some(" *".into()), ..plain })),
            ),
        ] {
            check(body, Ok(form));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, message) in [
            (json!({"response_format": "json"}), "response_format: `response_format` must be an object"),
            (
                json!({"response_format": {"type": "xml"}}),
                "response_format.type: `response_format.type` must be text, json_object, json_schema, structural_tag, regex or grammar, not `xml`",
            ),
            (
                json!({"response_format": {"type": "json_schema"}}),
                "response_format.json_schema: the field `response_format.json_schema` is missing",
            ),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}),
                "response_format.json_schema.schema: the field `response_format.json_schema.schema` is missing",
            ),
            (
                json!({"structured_outputs": {}}),
                "structured_outputs: `structured_outputs` must have one of `json`, `regex`, `choice`, `grammar`, `json_object` and `structural_tag`",
            ),
            (
                json!({"structured_outputs": {"regex": "a", "choice": ["b"]}}),
                "structured_outputs.choice: `structured_outputs.regex` and `structured_outputs.choice` ask for two forms of one answer: set one",
            ),
            (
                json!({"guided_regex": "a", "response_format": {"type": "json_object"}}),
                "guided_regex: `response_format` and `guided_regex` ask for two forms of one answer: set one",
            ),
            (
                json!({"response_format": {"type": "structural_tag", "structures": [{"end": "x"}], "triggers": []}}),
                "response_format.structures[0].begin: the field `response_format.structures[0].begin` is missing",
            ),
            (
                json!({"structured_outputs": {"structural_tag": {"format": {"type": "sequence"}}}}),
                "structured_outputs.structural_tag.format.type: `structured_outputs.structural_tag.format.type` must be triggered_tags, not `sequence`",
            ),
            (json!({"guided_choice": "a"}), "guided_choice: `guided_choice` must be a list of strings"),
            (json!({"guided_json": "{"}), "guided_json: `guided_json` must be a JSON schema"),
            (json!({"guided_regex": ""}), "guided_regex: `guided_regex` must be a string that is not empty"),
        ] {
            check(body, Err(message));
        }
    }
}
