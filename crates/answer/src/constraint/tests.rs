//! Forms over a vocabulary of single bytes: what a sequence may become is tried byte by byte.

use super::*;
use narthex_base::random::Stream;
use narthex_infer::{Allowed, ConstraintState};

/// One token per byte, and two special tokens before them.
fn tokenizer() -> Tokenizer {
    let special = ["<|end|>", "<think>", "</think>"];
    Tokenizer::train_bpe(std::iter::empty(), 256 + special.len(), &special).unwrap()
}

fn tokens(text: &str) -> Vec<u32> {
    tokenizer().encode(text, false).unwrap()
}

/// How much of a text a state takes, and whether it may end there.
fn taken(state: &mut dyn ConstraintState, text: &str) -> (usize, bool) {
    for (at, id) in tokens(text).into_iter().enumerate() {
        match state.allowed(&[]).unwrap().remove(0) {
            Allowed::Only { tokens, .. } if !tokens.contains(id) => return (at, false),
            _ => state.push(id).unwrap(),
        }
    }
    let end = match state.allowed(&[]).unwrap().remove(0) {
        Allowed::Anything => true,
        Allowed::Only { end, .. } => end,
    };
    (text.len(), end)
}

fn check(form: &Form, good: &[&str], bad: &[&str]) {
    let constraint = Constraints::new(&tokenizer()).of(form).unwrap();
    for text in good {
        assert_eq!(taken(&mut *constraint.begin(), text), (text.len(), true), "{form:?}: {text}");
    }
    for text in bad {
        let (length, end) = taken(&mut *constraint.begin(), text);
        assert!(length < text.len() || !end, "{form:?}: {text}");
    }
}

fn schema(schema: Value) -> Form {
    Form::Schema(schema, Spacing::default())
}

#[test]
fn forms_let_nothing_else_pass() {
    let person = json!({
        "type": "object",
        "properties": {"name": {"type": "string", "minLength": 1}, "age": {"type": "integer", "minimum": 0, "maximum": 150}},
        "required": ["name", "age"],
    });
    check(
        &schema(person.clone()),
        &["{\"name\": \"Zo\u{eb}\", \"age\": 7}", "{\"name\": \"a\\\"b\", \"age\": 150}"],
        &[
            "{\"name\": \"\", \"age\": 7}",
            "{\"name\": \"a\", \"age\": 151}",
            "{\"name\": \"a\"}",
            "{\"name\":\"a\", \"age\": 7}",
            "7",
        ],
    );
    let tight = Spacing { none: true, ..Spacing::default() };
    check(&Form::Schema(person.clone(), tight), &["{\"name\":\"a\",\"age\":7}"], &["{\"name\": \"a\",\"age\":7}"]);
    let free = Spacing { pattern: Some("[ \\n]{0,3}".into()), ..Spacing::default() };
    check(&Form::Schema(person, free), &["{\"name\":\"a\" ,\n\"age\": 7}"], &["{    \"name\":\"a\",\"age\":7}"]);
    check(&Form::object(), &["{}", "{\"a\": [1, {\"b\": null}]}"], &["[]", "{\"a\": 1", "null"]);
    check(&Form::Regex("[a-c]+x?".into()), &["abc", "ax"], &["x", "axx", "abd"]);
    let choices = ["yes", "no", "yes and no", "\"quoted\"\n"].map(String::from).to_vec();
    check(&Form::Choice(choices.clone()), &["yes", "no", "yes and no", "\"quoted\"\n"], &["y", "yes and", "none"]);
    check(&Form::Grammar("start: \"a\" num\nnum: /[0-9]+/".into()), &["a1", "a12"], &["a", "b1"]);
    check(
        &Form::Grammar("root ::= item (\", \" item)*\nitem ::= [a-z]+ \"=\" [0-9]{1,3}".into()),
        &["a=1", "ab=12, c=345"],
        &["a=", "a=1234", "a=1,b=2"],
    );
}

/// As many as there may be, all of which may come next.
#[test]
fn choices_may_be_many() {
    let choices: Vec<String> = (0..CHOICES_MAX).map(|i| format!("x{i}")).collect();
    check(&Form::Choice(choices), &["x0", "x17", "x4095"], &["x", "x4096", "x00"]);
}

/// The engine calls itself for each property, and threads of a server have small stacks.
#[test]
fn many_properties_need_no_large_stack() {
    let names: Vec<String> = (0..10_000).map(|i| format!("{i:x}")).collect();
    let properties: serde_json::Map<String, Value> = names.iter().map(|name| (name.clone(), json!({}))).collect();
    let form = schema(json!({"type": "object", "properties": properties, "required": names}));
    let compiled = || Constraints::new(&tokenizer()).of(&form).map(drop);
    std::thread::scope(|scope| scope.spawn(compiled).join().unwrap()).unwrap();
}

#[test]
fn formats_are_what_they_say() {
    let format = |name: &str| schema(json!({"type": "string", "format": name}));
    let long = format!("\"{}a\"", "a.".repeat(126));
    let longer = format!("\"{}aa\"", "a.".repeat(126));
    for (name, good, bad) in [
        (
            "date",
            vec!["\"2024-02-29\"", "\"2000-02-29\"", "\"0004-02-29\"", "\"2026-12-31\""],
            vec!["\"2023-02-29\"", "\"1900-02-29\"", "\"0000-01-01\"", "\"2026-04-31\"", "\"2026-1-1\""],
        ),
        (
            "time",
            vec!["\"23:59:59Z\"", "\"00:00:00.125+01:00\""],
            vec!["\"23:59:60Z\"", "\"24:00:00Z\"", "\"12:00:00\""],
        ),
        ("date-time", vec!["\"2024-02-29T12:00:00Z\""], vec!["\"2023-02-29T12:00:00Z\"", "\"2024-02-29T12:00:60Z\""]),
        ("hostname", vec!["\"a.example\"", &long], vec![&longer, "\"-a\""]),
    ] {
        check(&format(name), &good, &bad);
    }
    let both = schema(json!({"type": "string", "format": "date", "pattern": "^20"}));
    check(&both, &["\"2024-02-29\""], &["\"1999-01-01\"", "\"2023-02-29\"", "\"20\""]);
}

#[test]
fn of_a_choice_one_branch_fits() {
    let (text, number) = (json!({"type": "string"}), json!({"type": "integer"}));
    let object = |names: &[&str]| {
        let properties: serde_json::Map<String, Value> =
            names.iter().map(|name| (name.to_string(), number.clone())).collect();
        json!({"type": "object", "properties": properties, "required": names})
    };
    let choice =
        |a: Value, b: Value| schema(json!({"$defs": {"text": text, "object": object(&["a"])}, "oneOf": [a, b]}));
    let referred = |name: &str| json!({"$ref": format!("#/$defs/{name}")});
    check(&choice(json!({"type": "null"}), referred("text")), &["null", "\"a\""], &["1", "nul"]);
    check(&choice(referred("object"), object(&["b"])), &["{\"a\": 1}", "{\"b\": 1}"], &["{\"a\": 1, \"b\": 1}", "{}"]);
    let error = Constraints::new(&tokenizer()).of(&choice(object(&["a"]), object(&["a", "b"]))).unwrap_err();
    assert!(error.what().starts_with("the keyword `oneOf` is only supported"), "{error}");
}

#[test]
fn what_is_no_form_is_refused_with_its_reason() {
    let constraints = Constraints::new(&tokenizer());
    for (form, expected) in [
        (schema(json!({"not": {"type": "string"}})), "the keyword `not` is not supported"),
        (schema(json!({"type": "text"})), "Invalid type: text"),
        (
            schema(json!({"properties": {"a": {"oneOf": [{"type": "string"}, {"type": "string", "minLength": 2}]}}})),
            "the keyword `oneOf` is only supported where no value can fit two of its branches at `/properties/a`",
        ),
        (
            schema(json!({"properties": {"a": {"type": "integer", "multipleOf": 999_983}}})),
            "the keyword `multipleOf` is not supported with so large a number at `/properties/a`",
        ),
        (
            schema(json!({"type": "string", "pattern": "a(?=b)"})),
            "the keyword `pattern` is not supported with what looks around",
        ),
        (
            Form::Grammar(format!("start: A\nA: {}", vec!["/a.{2}b/"; 20].join(" & "))),
            "the operator `&` of more than 12 expressions is not supported",
        ),
        (schema(json!({"enum": []})), ""),
        (schema(json!({"type": "integer", "minimum": 5, "maximum": 3})), ""),
        (schema(json!(false)), ""),
        (Form::Regex("(".into()), ""),
        (Form::Regex("a(?=b)".into()), ""),
        (Form::Choice(vec![]), "there must be from 1 to 4096 choices"),
        (Form::Choice(vec![String::new()]), "a choice must not be empty"),
        (Form::Grammar("start: nowhere".into()), ""),
        (Form::Grammar("root ::= (".into()), "line 1 of the grammar: `)` is expected, not the end"),
        (Form::Regex("x".repeat(FORM_BYTES_MAX)), "it is too large"),
    ] {
        let error = constraints.of(&form).expect_err(&format!("{form:?}"));
        assert!(error.what().starts_with(expected) && !error.what().is_empty(), "{form:?}: {error}");
    }
}

#[test]
fn compiled_forms_are_kept() {
    let constraints = Constraints::new(&tokenizer());
    let form = |i: usize| Form::Regex(format!("a{{{}}}", i + 1));
    let first = constraints.of(&form(0)).unwrap();
    assert!(Arc::ptr_eq(&first, &constraints.of(&form(0)).unwrap()));
    (1..=KEPT_MAX).for_each(|i| {
        constraints.of(&form(i)).unwrap();
        // It is asked for all the time, so others make room.
        constraints.of(&form(0)).unwrap();
    });
    assert!(Arc::ptr_eq(&first, &constraints.of(&form(0)).unwrap()));
    assert_eq!(constraints.kept.lock().unwrap().len(), KEPT_MAX);
}

#[test]
fn what_must_come_is_known_beforehand() {
    let form =
        schema(json!({"type": "object", "properties": {"colour": {"enum": ["red", "green"]}}, "required": ["colour"]}));
    let constraint = Constraints::new(&tokenizer()).of(&form).unwrap();
    let mut state = constraint.begin();
    let mut written = vec![];
    for step in [None, Some("r")] {
        if let Some(chosen) = step {
            let id = tokens(chosen)[0];
            state.push(id).unwrap();
            written.push(id);
        }
        while let Some(id) = state.forced() {
            assert_eq!(
                state.allowed(&[]).unwrap(),
                [Allowed::Only { tokens: narthex_infer::TokenSet::of(259, &[id]), end: false }]
            );
            state.push(id).unwrap();
            written.push(id);
        }
    }
    assert_eq!(tokenizer().decode(&written, true).unwrap(), "{\"colour\": \"red\"}");
    assert!(state.is_complete());
}

/// Guesses are judged as if they had been chosen one by one, and leave no trace.
#[test]
fn guesses_leave_no_trace() {
    let constraint = Constraints::new(&tokenizer()).of(&Form::Regex("[ab]{1,3}c?".into())).unwrap();
    for guesses in ["", "a", "abb", "abc", "abbbb", "x", "ax"] {
        let mut state = constraint.begin();
        let before = state.allowed(&[]).unwrap();
        let found = state.allowed(&tokens(guesses)).unwrap();
        assert_eq!(state.allowed(&[]).unwrap(), before);
        let mut plain = constraint.begin();
        let mut expected = plain.allowed(&[]).unwrap();
        for id in tokens(guesses) {
            let Allowed::Only { tokens, .. } = expected.last().unwrap() else { panic!("a regex restricts") };
            if !tokens.contains(id) {
                break;
            }
            plain.push(id).unwrap();
            expected.extend(plain.allowed(&[]).unwrap());
        }
        assert_eq!(found, expected, "{guesses}");
    }
}

#[test]
fn thoughts_come_first() {
    let constraints = Constraints::new(&tokenizer());
    let number = constraints.of(&Form::Regex("[0-9]+".into())).unwrap();
    let thoughts = |begun, budget, then| Thoughts::new(&tokenizer(), ("<think>", "</think>"), begun, budget, then);
    let end = |text: &str, thoughts: Thoughts| taken(&mut *thoughts.begin(), text);
    let ids = |text: &str| tokens(text).len();
    for (begun, text, length, may_end) in [
        (true, "well{x}</think>12", ids("well{x}</think>12"), true),
        (true, "12", 2, false),
        (false, "12", 2, true),
        (false, "<think>x</think>12", ids("<think>x</think>12"), true),
        (false, "x", 0, false),
        (true, "x</think>y", ids("x</think>"), false),
    ] {
        let found = end(text, thoughts(begun, 100, Some(number.clone())));
        let expected = if length == ids(text) { (text.len(), may_end) } else { (length, may_end) };
        assert_eq!(found, expected, "{text}");
    }
    // Three tokens of thoughts, then they are ended.
    let mut state = thoughts(true, 3, Some(number)).begin();
    tokens("abc").into_iter().for_each(|id| state.push(id).unwrap());
    let mut closing = vec![];
    while let Some(id) = state.forced() {
        state.push(id).unwrap();
        closing.push(id);
    }
    assert_eq!(closing, tokens("\n</think>\n\n"));
    assert_eq!(taken(&mut *state, "4"), (1, true));
    // Without a form the end is free.
    assert_eq!(end("abc", thoughts(true, 3, None)), (3, false), "the closing comes next");
    assert_eq!(end("ab", thoughts(true, 3, None)), (2, true));
}

/// Random walks through a schema end in what the schema takes.
#[test]
fn whatever_is_drawn_is_valid() {
    let form = schema(json!({
        "type": "object",
        "properties": {"kind": {"enum": ["a", "b"]}, "items": {"type": "array", "items": {"type": "integer"}, "maxItems": 3}},
        "required": ["kind", "items"],
    }));
    let constraint = Constraints::new(&tokenizer()).of(&form).unwrap();
    let random = Stream::new(3, "walk");
    for walk in 0..50 {
        let (mut state, mut written) = (constraint.begin(), vec![]);
        while !state.is_complete() && written.len() < 200 {
            let Allowed::Only { tokens, end } = state.allowed(&[]).unwrap().remove(0) else { panic!("it restricts") };
            let choices: Vec<u32> = (0..259).filter(|id| tokens.contains(*id)).collect();
            if choices.is_empty() {
                assert!(end);
                break;
            }
            let id = choices[random.below(walk * 1000 + written.len() as u64, choices.len() as u64) as usize];
            state.push(id).unwrap();
            written.push(id);
        }
        if !state.is_complete() {
            continue;
        }
        let text = tokenizer().decode(&written, true).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert!(["a", "b"].contains(&value["kind"].as_str().unwrap()), "{text}");
        assert!(value["items"].as_array().unwrap().iter().all(Value::is_number), "{text}");
    }
}

#[test]
fn tags_stand_in_free_text() {
    let tag = |begin: &str, schema| Tag { begin: begin.into(), schema, end: "</f>".into() };
    let object = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]});
    let tags = vec![tag("<f=x>", object), tag("<f=y>", json!({"enum": ["q"]})), tag("[", json!({"type": "boolean"}))];
    let wanted = Tags { tags, triggers: vec!["<f=".into(), "[".into()], at_least_one: false, stop_after_first: false };
    let (one, two) = ("<f=x>{\"a\": 1}</f>", "[true</f>");
    let bad = ["<f=x>{\"a\": \"b\"}</f>", "a <f=z>", "a <f=y>\"r\"</f>", "[null</f>"];
    let mixed = format!("a {one} b\n{two} c");
    check(&Form::Tags(wanted.clone()), &["", "plain < text", one, &mixed], &bad);
    let must = Tags { at_least_one: true, ..wanted.clone() };
    check(&Form::Tags(must.clone()), &[one, &mixed], &["", "plain"]);
    let once = Tags { stop_after_first: true, ..must };
    check(&Form::Tags(once), &[one, "a [false</f>"], &["", &mixed]);
    let constraints = Constraints::new(&tokenizer());
    for (wrong, expected) in [
        (Tags { triggers: vec!["<f=".into()], ..wanted.clone() }, "no trigger begins the tag `[`"),
        (Tags { triggers: vec!["<f=".into(), "[".into(), "(".into()], ..wanted.clone() }, "`(` begins no tag"),
        (Tags { tags: vec![], ..wanted.clone() }, "from 1 to 128 tags"),
        (Tags { tags: vec![tag("[", json!({"not": {}}))], triggers: vec!["[".into()], ..wanted }, "not"),
    ] {
        let error = constraints.of(&Form::Tags(wrong)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
