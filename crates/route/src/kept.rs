//! What a replica keeps for later: files, batches and responses have names, and whoever asks for one must come to the
//! replica that made it. Knows paths and names; asks nobody.

use axum::http::Method;
use serde_json::Value;

/// The collections, with the field by which a request to the collection names something kept.
const KEPT: [(&str, &str, &str); 3] = [
    ("/v1/files", "", ""),
    ("/v1/batches", "input_file_id", "/v1/files"),
    ("/v1/responses", "previous_response_id", "/v1/responses"),
];

/// Characters of a name at most: a longer one is nobody's.
const NAME_MAX: usize = 256;

/// Bytes of an answer in which the name of what was made stands.
const NAMED_WITHIN: usize = 8 << 10;

/// Something that a request asks for by name, and the path at which a replica tells whether it has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub id: String,
    pub path: String,
}

impl Name {
    fn new(collection: &str, id: &str) -> Option<Self> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let is_good = (1..=NAME_MAX).contains(&id.len()) && id.bytes().all(is_name) && !id.trim_matches('.').is_empty();
        is_good.then(|| Self { id: id.into(), path: format!("{collection}/{id}") })
    }
}

/// What a path names: `/v1/files/ID` and all below it.
pub(crate) fn of_path(path: &str) -> Option<Name> {
    KEPT.iter().find_map(|(collection, ..)| {
        let rest = path.strip_prefix(collection)?.strip_prefix('/')?;
        Name::new(collection, rest.split('/').next().unwrap_or_default())
    })
}

/// What the body of a request to a collection names.
pub(crate) fn of_body(path: &str, body: &Value) -> Option<Name> {
    let (_, field, holder) = KEPT.iter().find(|(collection, ..)| *collection == path)?;
    Name::new(holder, body.get(*field).filter(|_| !field.is_empty())?.as_str()?)
}

/// Whether an answer to this request names something that its replica keeps from now on.
pub(crate) fn makes(method: &Method, path: &str) -> bool {
    method == Method::POST && KEPT.iter().any(|(collection, ..)| *collection == path)
}

/// Whether a request asks for a list of what all replicas keep.
pub(crate) fn is_list(method: &Method, path: &str) -> bool {
    method == Method::GET && matches!(path, "/v1/files" | "/v1/batches")
}

/// Finds the name of what was made at the beginning of an answer, which may come in pieces: of an object, or of the
/// first event of a stream.
#[derive(Debug, Default)]
pub(crate) struct Naming {
    begun: Vec<u8>,
    done: bool,
}

impl Naming {
    /// Takes a piece; the name, once it has come.
    pub fn piece(&mut self, bytes: &[u8]) -> Option<String> {
        if self.done {
            return None;
        }
        self.begun.extend_from_slice(&bytes[..bytes.len().min(NAMED_WITHIN - self.begun.len())]);
        let found = first_id(&self.begun);
        self.done = found.is_some() || self.begun.len() >= NAMED_WITHIN;
        if self.done {
            self.begun = vec![];
        }
        found.filter(|id| id.len() <= NAME_MAX)
    }
}

/// The value of the first `"id": "…"`.
fn first_id(text: &[u8]) -> Option<String> {
    let key = b"\"id\"";
    let at = text.windows(key.len()).position(|window| window == key)? + key.len();
    let rest = text[at..].trim_ascii_start().strip_prefix(b":")?.trim_ascii_start().strip_prefix(b"\"")?;
    let end = rest.iter().position(|byte| *byte == b'"')?;
    std::str::from_utf8(&rest[..end]).ok().map(str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_in_paths_and_bodies() {
        for (path, expected) in [
            ("/v1/files/file-1", Some("/v1/files/file-1")),
            ("/v1/files/file-1/content", Some("/v1/files/file-1")),
            ("/v1/batches/batch_2/cancel", Some("/v1/batches/batch_2")),
            ("/v1/responses/resp_3/input_items", Some("/v1/responses/resp_3")),
            ("/v1/files", None),
            ("/v1/files/", None),
            ("/v1/files/..", None),
            ("/v1/files/a%2fb", None),
            ("/v1/filesystem/x", None),
            ("/v1/models/x", None),
        ] {
            assert_eq!(of_path(path).map(|name| name.path).as_deref(), expected, "{path}");
        }
        for (path, body, expected) in [
            ("/v1/batches", json!({"input_file_id": "file-1"}), Some("/v1/files/file-1")),
            ("/v1/responses", json!({"previous_response_id": "resp_1"}), Some("/v1/responses/resp_1")),
            ("/v1/responses", json!({"previous_response_id": null}), None),
            ("/v1/chat/completions", json!({"previous_response_id": "resp_1"}), None),
            ("/v1/files", json!({"": "x"}), None),
            ("/v1/batches", json!([]), None),
        ] {
            assert_eq!(of_body(path, &body).map(|name| name.path).as_deref(), expected, "{path} {body}");
        }
    }

    #[test]
    fn the_name_is_found_in_pieces_of_every_size() {
        for text in [
            r#"{"id":"resp_12","object":"response"}"#,
            "{\n  \"object\": \"file\",\n  \"id\" : \"resp_12\"}",
            "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_12\"}}\n\n",
        ] {
            for size in 1..text.len() {
                let mut naming = Naming::default();
                let found: Vec<_> = text.as_bytes().chunks(size).filter_map(|piece| naming.piece(piece)).collect();
                assert_eq!(found, ["resp_12"], "{text} by {size}");
            }
        }
        let mut naming = Naming::default();
        assert!((0..1000).all(|_| naming.piece(&[b'x'; 100]).is_none()));
        assert!(naming.begun.capacity() == 0);
    }
}
