//! What an answer must be, in the words of OpenAI's `response_format`, of vLLM's `structured_outputs` and its older
//! `guided_…`, and of llama-server's `json_schema` and `grammar`. Knows no tokens.

use narthex_answer::{Form, Spacing};
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
        kind => {
            let message = format!(
                "`response_format.type` must be text, json_object, json_schema, regex or grammar, not `{kind}`"
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
    wanted.unsupported("structural_tag", &[])?;
    // Which engine another server should take.
    wanted.take("backend");
    wanted.take("disable_fallback");
    wanted.finish()?;
    if found.is_none() {
        let message = "`structured_outputs` must have one of `json`, `regex`, `choice`, `grammar` and `json_object`";
        return Err(ApiError::field("structured_outputs", message));
    }
    Ok(found)
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
        let tight = Spacing { pattern: None, none: true, closed: true };
        for (body, form) in [
            (json!({}), None),
            (json!({"response_format": {"type": "text"}}), None),
            (json!({"response_format": {"type": "json_object"}}), Some(Form::object())),
            (json!({"structured_outputs": {"json_object": true}}), Some(Form::object())),
            (json!({"structured_outputs": {"regex": "a+"}}), Some(Form::Regex("a+".into()))),
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
                "response_format.type: `response_format.type` must be text, json_object, json_schema, regex or grammar, not `xml`",
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
                "structured_outputs: `structured_outputs` must have one of `json`, `regex`, `choice`, `grammar` and `json_object`",
            ),
            (
                json!({"structured_outputs": {"regex": "a", "choice": ["b"]}}),
                "structured_outputs.choice: `structured_outputs.regex` and `structured_outputs.choice` ask for two forms of one answer: set one",
            ),
            (
                json!({"guided_regex": "a", "response_format": {"type": "json_object"}}),
                "guided_regex: `response_format` and `guided_regex` ask for two forms of one answer: set one",
            ),
            (json!({"guided_choice": "a"}), "guided_choice: `guided_choice` must be a list of strings"),
            (json!({"guided_json": "{"}), "guided_json: `guided_json` must be a JSON schema"),
            (json!({"guided_regex": ""}), "guided_regex: `guided_regex` must be a string that is not empty"),
        ] {
            check(body, Err(message));
        }
    }
}
