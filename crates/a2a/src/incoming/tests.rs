//! Messages of callers: what is taken, what is refused, and what answers what.

use super::*;

fn message(parts: Vec<Part>) -> Message {
    Message { message_id: "m".into(), ..Message::new(Role::User, parts) }
}

/// Reads one part where images and sounds are taken.
fn check_part(part: Part, expected: Result<Value, ()>) {
    let modes = ["text/plain", "application/json", "image/png", "audio/wav", "text/csv"].map(String::from);
    let read = said(&message(vec![part.clone()]), &modes);
    let read = read.map(|said| serde_json::to_value(said.content).unwrap());
    match (read, expected) {
        (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{part:?}"),
        (Err(error), Err(())) => assert_eq!(error.code, a2a::error_code::CONTENT_TYPE_NOT_SUPPORTED, "{part:?}"),
        (found, _) => panic!("{part:?}: {found:?}"),
    }
}

#[test]
fn parts_are_of_a_type_that_is_taken() {
    let (csv, png) = (b"a,b".to_vec(), vec![0; 2]);
    check_part(Part::text("hi"), Ok(json!("hi")));
    check_part(Part::text("hi").with_media_type("text/plain; charset=utf-8"), Ok(json!("hi")));
    check_part(Part::text("hi").with_media_type("TEXT/PLAIN"), Ok(json!("hi")));
    check_part(Part::text("hi").with_media_type("text/html"), Err(()));
    check_part(Part::data(json!({"a": 1})), Ok(json!("{\"a\":1}")));
    check_part(Part::data(json!({"a": 1})).with_media_type("application/x-bard"), Err(()));
    check_part(Part::raw(csv.clone()).with_media_type("text/csv"), Ok(json!("a,b")));
    check_part(Part::raw(csv.clone()), Err(()));
    check_part(Part::raw(vec![0xff]).with_media_type("text/csv"), Err(()));
    check_part(Part::raw(csv).with_media_type("application/pdf"), Err(()));
    let image = |url: &str| Ok(json!([{"type": "image_url", "image_url": {"url": url}}]));
    check_part(Part::raw(png).with_media_type("image/png"), image("data:image/png;base64,AAA="));
    check_part(Part::url("https://example.com/a.png").with_media_type("image/png"), image("https://example.com/a.png"));
    check_part(Part::url("https://example.com/a.csv").with_media_type("text/csv"), Err(()));
    check_part(Part::url("https://example.com/a"), Err(()));
    let sound = json!([{"type": "input_audio", "input_audio": {"data": "AQ==", "format": "wav"}}]);
    check_part(Part::raw(vec![1]).with_media_type("audio/wav"), Ok(sound));
}

#[test]
fn messages_have_bounds() {
    let long = "x".repeat(ID_BYTES_MAX + 1);
    for (message, expected) in [
        (message(vec![Part::text("a")]), true),
        (message(vec![]), false),
        (message(vec![Part::text("a"); PARTS_MAX + 1]), false),
        (Message { role: Role::Agent, ..message(vec![Part::text("a")]) }, false),
        (Message { role: Role::Unspecified, ..message(vec![Part::text("a")]) }, false),
        (Message { message_id: long.clone(), ..message(vec![Part::text("a")]) }, false),
        (Message { context_id: Some(long.clone()), ..message(vec![Part::text("a")]) }, false),
        (Message { task_id: Some(long), ..message(vec![Part::text("a")]) }, false),
    ] {
        assert_eq!(check(&message).is_ok(), expected, "{message:?}");
    }
}

#[test]
fn the_same_id_with_other_words_is_another_message() {
    let first = message(vec![Part::text("a")]);
    assert_eq!(content(&first), content(&first.clone()));
    for other in [message(vec![Part::text("b")]), Message { context_id: Some("c".into()), ..first.clone() }] {
        assert_ne!(content(&first), content(&other));
    }
}

fn waiting(id: &str, is_call: bool, form: Option<Value>) -> Interrupt {
    let call = is_call.then(|| ("mail.send".to_string(), json!({"to": "a"})));
    Interrupt { id: id.into(), question: "?".into(), call, form, expires_ms: 9 }
}

/// Answers what waits; a text that stands for an error begins with `!`.
fn check_answer(interrupts: &[Interrupt], parts: Vec<Part>, expected: Result<(&str, Answer), &str>) {
    match (answer(interrupts, &message(parts.clone()), "ann", true), expected) {
        (Ok((id, answer)), Ok(expected)) => assert_eq!((id.as_str(), answer), expected),
        (Err(error), Err(why)) => assert!(error.message.contains(why), "{error:?}"),
        (found, expected) => panic!("{parts:?}: {found:?} instead of {expected:?}"),
    }
}

#[test]
fn calls_are_approved_by_plain_words_only() {
    let call = [waiting("i", true, None)];
    let by = || "ann".to_string();
    let refused = |why: &str| Ok(("i", Answer::Refuse { by: by(), why: why.into() }));
    for word in ["approve", " Approve. ", "yes", "YES!", "approved"] {
        check_answer(&call, vec![Part::text(word)], Ok(("i", Answer::Approve { by: by() })));
    }
    check_answer(&call, vec![Part::text("no")], refused("no reason was given"));
    check_answer(&call, vec![Part::text("Refuse: too late")], refused("too late"));
    for words in ["approve it and more", "approve: all", "ok then", "", "yes, but to b@example.com", "do not approve"] {
        check_answer(&call, vec![Part::text(words)], Err("`approve`"));
    }
    let data = |data: Value| vec![Part::data(data)];
    check_answer(&call, data(json!({"answer": "approve", "by": "eve"})), Ok(("i", Answer::Approve { by: by() })));
    check_answer(&call, data(json!({"interrupt": "i", "answer": "refuse", "why": "w"})), refused("w"));
    let edited = Answer::Edit { by: by(), arguments: Map::from_iter([("to".to_string(), json!("b"))]) };
    check_answer(&call, data(json!({"answer": "edit", "arguments": {"to": "b"}})), Ok(("i", edited)));
    check_answer(&call, data(json!({"answer": "edit"})), Err("arguments"));
    check_answer(&call, data(json!({"answer": "say", "value": 1})), Err("a call waits"));
    check_answer(&call, data(json!({"interrupt": "j", "answer": "approve"})), Err("does not wait"));
    // Data of another kind is no approval.
    check_answer(&call, data(json!({"approved": true})), Err("`approve`"));
    assert!(answer(&call, &message(vec![Part::text("yes")]), "ann", false).is_err(), "not by callers");
}

#[test]
fn what_is_asked_may_be_said_in_words_or_as_data() {
    let plain = [waiting("i", false, None)];
    let form = [waiting("i", false, Some(json!({"type": "object"})))];
    let said = |value: Value| Ok(("i", Answer::Say { value }));
    check_answer(&plain, vec![Part::text("blue")], said(json!("blue")));
    check_answer(&plain, vec![Part::text("{\"a\": 1}")], said(json!("{\"a\": 1}")));
    check_answer(&form, vec![Part::text("{\"a\": 1}")], said(json!({"a": 1})));
    check_answer(&form, vec![Part::text("blue")], said(json!("blue")));
    check_answer(&form, vec![Part::data(json!({"a": 1}))], said(json!({"a": 1})));
    check_answer(&form, vec![Part::data(json!({"interrupt": "i", "value": 2}))], said(json!(2)));
    check_answer(&form, vec![Part::data(json!({"interrupt": "i"}))], Err("`value`"));
    check_answer(&form, vec![Part::data(json!({"answer": "approve"}))], Err("no call waits"));
    let both = [waiting("i", true, None), waiting("j", false, None)];
    check_answer(&both, vec![Part::text("yes")], Err("i, j"));
    check_answer(
        &both,
        vec![Part::data(json!({"interrupt": "j", "value": 2}))],
        Ok(("j", Answer::Say { value: json!(2) })),
    );
}
