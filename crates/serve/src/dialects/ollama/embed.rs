//! `/api/embed` and the older `/api/embeddings`, over `/v1/embeddings`.

use super::plain_name;
use crate::dialects::{
    clock::{Spent, nanoseconds},
    completion::Used,
    passing::Ignored,
};
use narthex_http::{ApiError, Fields};
use serde_json::{Map, Value, json};

/// Makes the answer to one request.
pub struct EmbedAnswering {
    model: String,
    /// The older form has one vector and no more.
    is_older: bool,
    ignored: Ignored,
}

/// `/api/embed`. There is no request where there is no text; the answer is that of [`EmbedAnswering::whole`] to `null`.
pub fn read_embed(body: Map<String, Value>) -> Result<(Option<Map<String, Value>>, EmbedAnswering), ApiError> {
    let mut fields = Fields::new(body, String::new());
    let input = match fields.take("input") {
        None => return Err(fields.missing("input")),
        Some(Value::String(text)) if text.is_empty() => None,
        Some(Value::Array(list)) if list.is_empty() => None,
        Some(Value::String(text)) => Some(json!(text)),
        Some(Value::Array(list)) if list.iter().all(Value::is_string) => Some(json!(list)),
        Some(_) => return Err(ApiError::field("input", "`input` must be a string or a list of strings")),
    };
    read(fields, input, false)
}

/// `/api/embeddings`.
pub fn read_embeddings(body: Map<String, Value>) -> Result<(Option<Map<String, Value>>, EmbedAnswering), ApiError> {
    let mut fields = Fields::new(body, String::new());
    let prompt = fields.string("prompt")?.filter(|prompt| !prompt.is_empty());
    read(fields, prompt.map(Value::from), true)
}

fn read(
    mut fields: Fields,
    input: Option<Value>,
    is_older: bool,
) -> Result<(Option<Map<String, Value>>, EmbedAnswering), ApiError> {
    let model = fields.string("model")?.ok_or_else(|| fields.missing("model"))?;
    let mut request = Map::new();
    request.insert("model".into(), plain_name(&model).into());
    request.insert("encoding_format".into(), "float".into());
    if fields.flag("truncate")?.unwrap_or(true) {
        request.insert("truncate_prompt_tokens".into(), (-1).into());
    }
    if let Some(dimensions) = fields.integer("dimensions", 0..=i64::MAX)?.filter(|dimensions| *dimensions > 0) {
        request.insert("dimensions".into(), dimensions.into());
    }
    let mut ignored = Ignored::default();
    if let Some(mut options) = fields.object("options")? {
        ignored.rest(&mut options);
    }
    ignored.rest(&mut fields);
    let request = input.map(|input| {
        request.insert("input".into(), input);
        request
    });
    Ok((request, EmbedAnswering { model, is_older, ignored }))
}

impl EmbedAnswering {
    /// The request's fields that nobody knows, and those that change nothing here.
    pub fn ignored(&self) -> &Ignored {
        &self.ignored
    }

    /// The answer from one of `/v1/embeddings`, or from `null` where nothing was asked.
    pub fn whole(self, reply: &Value, spent: &Spent) -> Value {
        let entries = reply["data"].as_array().map_or(&[][..], Vec::as_slice);
        let mut vectors = entries.iter().map(|entry| entry["embedding"].clone());
        if self.is_older {
            return json!({"embedding": vectors.next().unwrap_or(json!([]))});
        }
        json!({
            "model": self.model,
            "embeddings": vectors.collect::<Vec<_>>(),
            "total_duration": nanoseconds(spent.total),
            "load_duration": nanoseconds(spent.load),
            "prompt_eval_count": Used::of(reply).unwrap_or_default().prompt,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn both_forms_are_read() {
        let check = |is_older: bool, body: Value, expected: Value, names: &[&str]| {
            let read = if is_older { read_embeddings } else { read_embed };
            let (request, answering) = read(map(body.clone())).unwrap();
            assert_eq!(request.map_or(Value::Null, Value::Object), expected, "{body}");
            assert_eq!(answering.ignored().names(), names, "{body}");
        };
        let request = |input: Value| {
            json!({
                "model": "m", "encoding_format": "float", "truncate_prompt_tokens": -1, "input": input,
            })
        };
        check(false, json!({"model": "m:latest", "input": "a"}), request(json!("a")), &[]);
        check(
            false,
            json!({"model": "m", "input": ["a", "b"], "keep_alive": 5, "options": {"num_ctx": 5}, "dimensions": 0}),
            request(json!(["a", "b"])),
            &["options.num_ctx", "keep_alive"],
        );
        check(
            false,
            json!({"model": "m", "input": "a", "truncate": false, "dimensions": 3}),
            json!({"model": "m", "encoding_format": "float", "dimensions": 3, "input": "a"}),
            &[],
        );
        check(false, json!({"model": "m", "input": []}), json!(null), &[]);
        check(true, json!({"model": "m", "prompt": "a"}), request(json!("a")), &[]);
        check(true, json!({"model": "m", "prompt": ""}), json!(null), &[]);
        for body in [json!({"model": "m"}), json!({"model": "m", "input": [1]}), json!({"input": "a"})] {
            assert!(read_embed(map(body.clone())).is_err(), "{body}");
        }
    }

    #[test]
    fn both_forms_are_answered() {
        let reply = json!({
            "data": [{"embedding": [0.5, -1.0]}, {"embedding": [1.0, 0.25]}], "usage": {"prompt_tokens": 7},
        });
        let answering = |is_older| EmbedAnswering { model: "m:latest".into(), is_older, ignored: Ignored::default() };
        let spent = Spent { total: Duration::from_nanos(9), load: Duration::from_nanos(2), ..Spent::default() };
        assert_eq!(
            answering(false).whole(&reply, &spent),
            json!({
                "model": "m:latest", "embeddings": [[0.5, -1.0], [1.0, 0.25]], "total_duration": 9, "load_duration": 2,
                "prompt_eval_count": 7,
            })
        );
        assert_eq!(answering(true).whole(&reply, &spent), json!({"embedding": [0.5, -1.0]}));
        assert_eq!(answering(false).whole(&Value::Null, &spent)["embeddings"], json!([]));
        assert_eq!(answering(true).whole(&Value::Null, &spent), json!({"embedding": []}));
    }
}
