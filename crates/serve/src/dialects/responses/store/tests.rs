//! What is kept of responses, and what is forgotten.

use super::*;
use std::{iter::once, thread};

fn responses(responses: usize, bytes: usize) -> Responses {
    Responses::new(StoreLimits { responses, bytes })
}

fn text(id: &str, text: &str) -> Value {
    json!({"id": id, "text": text})
}

/// Keeps `resp_NAME_…`, which goes on from another one.
fn put(store: &Responses, name: &str, before: Option<&str>) {
    let before = before.map(|before| store.conversation(&format!("resp_{before}")).unwrap());
    let input = vec![text(&format!("msg_{name}_0"), &format!("{name}?"))];
    let output = [text(&format!("msg_{name}_1"), &format!("{name}!"))];
    store
        .insert(Given { input, before }, json!({"id": format!("resp_{name}"), "output": output, "model": "m"}))
        .unwrap();
}

fn said(store: &Responses, name: &str) -> Option<String> {
    let conversation = store.conversation(&format!("resp_{name}"))?;
    Some(conversation.items().iter().map(|item| item["text"].as_str().unwrap()).collect::<Vec<_>>().join(" "))
}

#[test]
fn a_conversation_goes_on() {
    let store = responses(9, 1 << 20);
    put(&store, "a", None);
    put(&store, "b", Some("a"));
    put(&store, "c", Some("b"));
    put(&store, "d", Some("a"));
    assert_eq!(said(&store, "c").unwrap(), "a? a! b? b! c? c!");
    assert_eq!(said(&store, "d").unwrap(), "a? a! d? d!");
    assert_eq!(said(&store, "e"), None);
    let kept = store.get("resp_b").unwrap();
    assert_eq!(kept, json!({"id": "resp_b", "output": [text("msg_b_1", "b!")], "model": "m"}));
    assert_eq!(kept.as_object().unwrap().keys().collect::<Vec<_>>(), ["id", "output", "model"]);
    for (id, expected) in
        [("msg_b_0", Some("b?")), ("msg_b_1", Some("b!")), ("msg_b_2", None), ("msg_x_0", None), ("b", None)]
    {
        assert_eq!(store.item(id).map(|item| item["text"].clone()), expected.map(|text| json!(text)), "{id}");
    }
    assert_eq!(store.delete("resp_b").unwrap(), Some(json!({"id": "resp_b", "object": "response", "deleted": true})));
    assert_eq!((store.delete("resp_b").unwrap(), store.get("resp_b"), store.item("msg_b_0")), (None, None, None));
    assert_eq!(said(&store, "b"), None);
    assert_eq!(said(&store, "c").unwrap(), "a? a! b? b! c? c!");
}

#[test]
fn the_oldest_give_way() {
    let store = responses(2, 1 << 20);
    for name in ["a", "b", "c"] {
        put(&store, name, None);
    }
    assert_eq!(["a", "b", "c"].map(|name| said(&store, name).is_some()), [false, true, true]);
    assert_eq!(store.kept().places.len(), 2);
    // Kept again, it is the newest.
    put(&store, "b", None);
    put(&store, "d", None);
    assert_eq!(["b", "c", "d"].map(|name| said(&store, name).is_some()), [true, false, true]);
    for off in [responses(0, 1 << 20), responses(9, 10)] {
        put(&off, "a", None);
        assert_eq!((said(&off, "a"), off.bytes.load(Ordering::Relaxed)), (None, 0));
    }
}

#[test]
fn bytes_count_as_long_as_something_holds_them() {
    let store = responses(9, 1 << 20);
    put(&store, "a", None);
    let one = store.bytes.load(Ordering::Relaxed);
    assert!(one > 300 && one < 3000, "{one}");
    put(&store, "b", Some("a"));
    store.delete("resp_a").unwrap();
    assert_eq!(store.bytes.load(Ordering::Relaxed), 2 * one);
    store.delete("resp_b").unwrap();
    assert_eq!(store.bytes.load(Ordering::Relaxed), 0);
    // Two fit: of three that are one conversation none can go alone, so that the newest goes too.
    let tight = responses(9, 2 * one + one / 2);
    put(&tight, "a", None);
    put(&tight, "b", None);
    put(&tight, "c", None);
    assert_eq!(["a", "b", "c"].map(|name| said(&tight, name).is_some()), [false, true, true]);
    put(&tight, "d", Some("c"));
    assert_eq!(["b", "c", "d"].map(|name| said(&tight, name).is_some()), [false, true, true]);
    put(&tight, "e", Some("d"));
    assert_eq!(tight.bytes.load(Ordering::Relaxed), 0);
}

#[test]
fn a_long_conversation_is_dropped_without_a_deep_stack() {
    let store = responses(1, usize::MAX);
    let mut last = "0".to_string();
    put(&store, &last, None);
    for turn in 1..20_000 {
        let name = turn.to_string();
        put(&store, &name, Some(&last));
        last = name;
    }
    let work = move || {
        assert_eq!(said(&store, &last).unwrap().len(), (1..20_000).chain(once(1)).map(digits).sum::<usize>() - 1);
        store.delete(&format!("resp_{last}")).unwrap();
        assert_eq!(store.bytes.load(Ordering::Relaxed), 0);
    };
    thread::Builder::new().stack_size(64 << 10).spawn(work).unwrap().join().unwrap();
}

/// Letters of `N? N! `.
fn digits(turn: usize) -> usize {
    2 * (turn.to_string().len() + 2)
}

#[test]
fn pages() {
    let store = responses(9, 1 << 20);
    let input = (0..25).map(|index| text(&format!("msg_a_{index}"), "")).collect();
    store.insert(Given { input, before: None }, json!({"id": "resp_a", "output": []})).unwrap();
    let page = |query: &[(&str, &str)]| -> String {
        let listed = Page::read(query.iter().copied())
            .and_then(|page| store.input_items("resp_a", &page).unwrap())
            .map_err(|error| crate::testing::object_of(&error)["error"]["message"].take());
        match listed {
            Err(message) => message.as_str().unwrap().to_string(),
            Ok(list) => {
                assert_eq!(list["object"], "list");
                let data = list["data"].as_array().unwrap();
                assert_eq!(data.first().map_or(&Value::Null, |item| &item["id"]), &list["first_id"]);
                assert_eq!(data.last().map_or(&Value::Null, |item| &item["id"]), &list["last_id"]);
                format!("{} {} {} {}", data.len(), list["first_id"], list["last_id"], list["has_more"]).replace('"', "")
            }
        }
    };
    for (query, expected) in [
        (&[][..], "20 msg_a_24 msg_a_5 true"),
        (&[("order", "asc"), ("include", "x")], "20 msg_a_0 msg_a_19 true"),
        (&[("order", "asc"), ("after", "msg_a_19")], "5 msg_a_20 msg_a_24 false"),
        (&[("order", "desc"), ("after", "msg_a_3"), ("limit", "3")], "3 msg_a_2 msg_a_0 false"),
        (&[("limit", "2"), ("after", "msg_a_3")], "2 msg_a_2 msg_a_1 true"),
        (&[("after", "msg_a_0")], "0 null null false"),
        (&[("limit", "100")], "25 msg_a_24 msg_a_0 false"),
        (&[("after", "7")], "the response was given no item `7`"),
        (&[("limit", "101")], "`limit` must be a whole number from 1 to 100"),
        (&[("limit", "0")], "`limit` must be a whole number from 1 to 100"),
        (&[("limit", "many")], "`limit` must be a whole number from 1 to 100"),
        (&[("order", "up")], "`order` must be asc or desc"),
    ] {
        assert_eq!(page(query), expected, "{query:?}");
    }
    assert!(store.input_items("resp_b", &Page::read([]).unwrap()).is_none());
}

#[test]
fn a_journal_brings_back_what_was_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("responses.jsonl");
    let limits = StoreLimits { responses: 3, bytes: 1 << 20 };
    let open = || Responses::open(limits, &path).unwrap();
    let names = ["a", "b", "c", "d", "e"];
    let all = |store: &Responses| names.map(|name| said(store, name));
    let store = open();
    for (name, before) in [("a", None), ("b", Some("a")), ("c", Some("b")), ("d", None)] {
        put(&store, name, before);
    }
    store.delete("resp_b").unwrap().unwrap();
    put(&store, "e", Some("c"));
    let expected = all(&store);
    assert_eq!(expected[4].as_deref(), Some("a? a! b? b! c? c! e? e!"));
    assert_eq!(expected.each_ref().map(Option::is_some), [false, false, true, true, true]);
    drop(store);
    // A crash cut the next line short; it was never promised.
    let lines = std::fs::read(&path).unwrap();
    std::fs::write(&path, [&lines[..], b"{\"delete\":{\"id\":\"resp_c"].concat()).unwrap();
    for _ in 0..3 {
        let store = open();
        assert_eq!(all(&store), expected);
        assert_eq!(store.get("resp_d").unwrap()["output"], json!([text("msg_d_1", "d!")]));
    }
    // What is broken before its end is not taken for something else.
    std::fs::write(&path, b"{\"delete\":1}\n{}\n").unwrap();
    let error = Responses::open(limits, &path).unwrap_err().to_string();
    assert!(error.contains("responses.jsonl:1: "), "{error}");
}
