//! What the syntaxes' tests share. An answer is written with its marker tokens between « and »; what was seen as
//! texts and `name#id{arguments}`, joined by `|`.

use super::{CallReader, CallSyntax, Seen, Tool, Wanted};
use llguidance::{
    Matcher, ParserFactory,
    api::TopLevelGrammar,
    toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie},
};
use serde_json::{Map, Value, json};
use std::sync::Arc;

enum Piece {
    Text(String),
    Marker(String),
}

fn pieces(answer: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (place, part) in answer.split('«').enumerate() {
        let (marker, text) = if place == 0 { ("", part) } else { part.split_once('»').expect("a closing »") };
        if !marker.is_empty() {
            pieces.push(Piece::Marker(marker.to_string()));
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text.to_string()));
        }
    }
    pieces
}

fn join(list: &mut Vec<Seen>, more: Vec<Seen>) {
    for seen in more {
        match (list.last_mut(), seen) {
            (Some(Seen::Text(text)), Seen::Text(more)) => text.push_str(&more),
            (Some(Seen::Arguments(text)), Seen::Arguments(more)) => text.push_str(&more),
            (_, seen) => list.push(seen),
        }
    }
}

fn shown(list: &[Seen]) -> String {
    let mut shown = String::new();
    for seen in list {
        if !shown.is_empty() && !matches!(seen, Seen::Arguments(_)) {
            shown.push('|');
        }
        match seen {
            Seen::Text(text) | Seen::Arguments(text) => shown.push_str(text),
            Seen::Call { name, id } => {
                shown.push_str(name);
                if let Some(id) = id {
                    shown += &format!("#{id}");
                }
            }
        }
    }
    shown
}

fn read(mut reader: Box<dyn CallReader>, tokens: Option<&[&str]>, answer: &str, size: usize) -> Vec<Seen> {
    let mut seen = Vec::new();
    for piece in pieces(answer) {
        match piece {
            Piece::Marker(marker) if tokens.is_none_or(|tokens| tokens.contains(&marker.as_str())) => {
                join(&mut seen, reader.token(&marker));
            }
            Piece::Text(text) | Piece::Marker(text) => {
                let chars: Vec<char> = text.chars().collect();
                for piece in chars.chunks(size) {
                    join(&mut seen, reader.text(&piece.iter().collect::<String>()));
                }
            }
        }
    }
    join(&mut seen, reader.finish());
    seen
}

/// With all markers as tokens.
pub(crate) fn check(syntax: &dyn CallSyntax, answer: &str, expected: &str) {
    check_with(syntax, None, answer, expected);
}

/// With these markers as tokens, whatever the answer has as text.
pub(crate) fn check_plain(syntax: &dyn CallSyntax, tokens: &[&str], answer: &str, expected: &str) {
    check_with(syntax, Some(tokens), answer, expected);
}

/// With these markers as tokens, or all.
pub(crate) fn check_with(syntax: &dyn CallSyntax, tokens: Option<&[&str]>, answer: &str, expected: &str) {
    let token = |marker: &str| tokens.is_none_or(|tokens| tokens.contains(&marker)).then_some(7);
    for size in 1..=answer.chars().count().max(1) {
        let reader = syntax.reader(&tools(), &token, false);
        assert_eq!(shown(&read(reader, tokens, answer, size)), expected, "{answer} in pieces of {size}");
    }
}

/// What comes out at once after each piece, all markers being tokens, joined by ` + `.
pub(crate) fn check_live(syntax: &dyn CallSyntax, sure: bool, parts: &[&str], expected: &str) {
    let mut reader = syntax.reader(&tools(), &|_| Some(7), sure);
    let mut live = Vec::new();
    for part in parts {
        let mut seen = Vec::new();
        for piece in pieces(part) {
            match piece {
                Piece::Marker(marker) => join(&mut seen, reader.token(&marker)),
                Piece::Text(text) => join(&mut seen, reader.text(&text)),
            }
        }
        live.push(shown(&seen));
    }
    live.push(shown(&reader.finish()));
    assert_eq!(live.join(" + "), expected, "{parts:?}");
}

/// Tools of all kinds of schemas.
pub(crate) fn tools() -> Vec<Tool> {
    let tool = |name: &str, parameters: Value| Tool { name: name.to_string(), parameters, strict: true };
    vec![
        tool(
            "get_weather",
            json!({
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "days": {"type": "integer"},
                    "unit": {"enum": ["celsius", "fahrenheit"]},
                    "tags": {"type": "array", "items": {"type": "string"}},
                },
                "required": ["city"],
                "additionalProperties": false,
            }),
        ),
        tool("ping", json!({"type": "object", "properties": {}, "additionalProperties": false})),
        tool("free", json!({})),
        tool(
            "deep",
            json!({
                "$defs": {"point": {
                    "type": "object",
                    "properties": {"x": {"type": "number"}, "y": {"type": "number"}},
                    "required": ["x", "y"],
                    "additionalProperties": false,
                }},
                "type": "object",
                "properties": {
                    "at": {"$ref": "#/$defs/point"},
                    "path": {"type": "array", "items": {"$ref": "#/$defs/point"}},
                    "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                    "on": {"type": "boolean"},
                    "level": {"enum": [1, 2, null]},
                    "more": {"type": "object"},
                },
                "additionalProperties": false,
            }),
        ),
    ]
}

/// Tokens that reach over the borders within a call.
const LONG: [&str; 12] = ["\": ", "{\"", "\"}", "}}", "}\n", ", \"", "\n</", ">\n", "()", "=\"", "\")", ")]"];

/// A tokenizer of bytes, these tokens, the end of an answer and some longer words.
struct Bytes {
    factory: ParserFactory,
    tokens: Vec<String>,
}

impl Bytes {
    fn new(tokens: &[&str]) -> Self {
        let mut words: Vec<Vec<u8>> = (0..=255u8).map(|byte| vec![byte]).collect();
        let tokens: Vec<String> = tokens.iter().map(|token| token.to_string()).collect();
        words.extend(tokens.iter().map(|token| [b"\xff", token.as_bytes()].concat()));
        words.push(b"\xff<|end|>".to_vec());
        words.extend(LONG.map(|word| word.as_bytes().to_vec()));
        let size = words.len() as u32;
        let info = TokRxInfo::new(size, 256 + tokens.len() as u32);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, &words)));
        let mut factory = ParserFactory::new_simple(&env).expect("a factory");
        factory.quiet();
        Self { factory, tokens }
    }

    fn token(&self, marker: &str) -> Option<u32> {
        self.tokens.iter().position(|token| token == marker).map(|place| 256 + place as u32)
    }

    fn end(&self) -> u32 {
        256 + self.tokens.len() as u32
    }

    fn matcher(&self, grammar: &str) -> Matcher {
        let parser = self.factory.create_parser(TopLevelGrammar::from_lark(grammar.to_string()));
        let matcher = Matcher::new(parser);
        assert!(!matcher.is_error(), "{:?}\n{grammar}", matcher.get_error());
        matcher
    }

    fn ids(&self, answer: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        for piece in pieces(answer) {
            match piece {
                Piece::Marker(marker) if self.token(&marker).is_some() => ids.extend(self.token(&marker)),
                Piece::Text(text) | Piece::Marker(text) => ids.extend(text.bytes().map(u32::from)),
            }
        }
        ids
    }

    fn accepts(&self, grammar: &str, answer: &str) -> Result<(), String> {
        let mut matcher = self.matcher(grammar);
        let ids = self.ids(answer);
        let taken = matcher.validate_tokens(&ids).unwrap_or(0);
        if taken < ids.len() {
            let bytes: Vec<u8> = ids[..taken].iter().map(|id| u8::try_from(*id).unwrap_or(b'?')).collect();
            return Err(format!("refused behind {}", String::from_utf8_lossy(&bytes)));
        }
        matcher.consume_tokens(&ids).map_err(|error| error.to_string())?;
        match matcher.is_accepting() {
            Ok(true) => Ok(()),
            _ => Err("may not end".to_string()),
        }
    }
}

/// With all markers as tokens.
pub(crate) fn check_grammar(syntax: &dyn CallSyntax, right: &[&str], wrong: &[&str]) {
    check_grammar_with(syntax, syntax.markers(), right, wrong);
}

/// With all markers as tokens, and with none.
pub(crate) fn check_grammar_twice(syntax: &dyn CallSyntax, right: &[&str], wrong: &[&str]) {
    check_grammar(syntax, right, wrong);
    check_grammar_with(syntax, &[], right, wrong);
}

/// With these markers as tokens: what is right is let through and read, what is wrong isn't, and whatever is let
/// through is read as calls.
pub(crate) fn check_grammar_with(syntax: &dyn CallSyntax, tokens: &[&str], right: &[&str], wrong: &[&str]) {
    let bytes = Bytes::new(tokens);
    let (tools, token) = (tools(), |marker: &str| bytes.token(marker));
    for (least, parallel) in [(0, true), (0, false), (1, true), (1, false)] {
        let grammar = syntax.grammar(&tools, Wanted { least, parallel }, &token);
        for answer in right {
            let one = calls(&read(syntax.reader(&tools, &token, true), Some(tokens), answer, 1)).len() == 1;
            let accepted = bytes.accepts(&grammar, answer);
            assert_eq!(accepted.is_ok(), one || parallel, "{least} {parallel} {answer}: {accepted:?}\n{grammar}");
            // What is given out at once is the same as what is given out when it is complete.
            let sure = shown(&read(syntax.reader(&tools, &token, true), Some(tokens), answer, 1));
            let whole = shown(&read(syntax.reader(&tools, &token, false), Some(tokens), answer, 1000));
            assert_eq!(sure, whole, "{answer}");
            check_cuts(syntax, &bytes, answer, &sure);
            check_damage(syntax, &bytes, answer);
        }
        for answer in wrong {
            assert!(bytes.accepts(&grammar, answer).is_err(), "{least} {parallel} {answer}\n{grammar}");
        }
        for text in ["Hello, how are you?", ""] {
            assert_eq!(bytes.accepts(&grammar, text).is_ok(), least == 0, "{least} {text}\n{grammar}");
        }
        walk(syntax, &bytes, &grammar, Wanted { least, parallel });
    }
}

/// Wherever the answer is cut, what came out is the beginning of what comes out of all.
fn check_cuts(syntax: &dyn CallSyntax, bytes: &Bytes, answer: &str, whole: &str) {
    let (tools, token) = (tools(), |marker: &str| bytes.token(marker));
    let tokens: Vec<&str> = bytes.tokens.iter().map(String::as_str).collect();
    let cuts = answer.char_indices().map(|(place, _)| place).skip(1);
    let inside = |cut: &usize| answer[..*cut].matches('«').count() > answer[..*cut].matches('»').count();
    for cut in cuts.filter(|cut| !inside(cut)) {
        let seen = read(syntax.reader(&tools, &token, true), Some(&tokens), &answer[..cut], 1);
        let text = seen.iter().any(|seen| matches!(seen, Seen::Text(_)));
        // An opening that is no token may still be text when it is cut.
        let opening = tokens.is_empty() && calls(&seen).is_empty();
        assert!(whole.starts_with(&shown(&seen)) && !text || opening, "{:?} gives {seen:?}", &answer[..cut]);
    }
}

/// An answer with scratches: it reads the same in any pieces, and arguments are sound whatever happens.
fn check_damage(syntax: &dyn CallSyntax, bytes: &Bytes, answer: &str) {
    let (tools, token) = (tools(), |marker: &str| bytes.token(marker));
    let tokens: Vec<&str> = bytes.tokens.iter().map(String::as_str).collect();
    let mut state = answer.len() as u64;
    let mut next = move |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    let symbols: Vec<String> = pieces(answer)
        .into_iter()
        .flat_map(|piece| match piece {
            Piece::Text(text) => text.chars().map(String::from).collect(),
            Piece::Marker(marker) => vec![format!("«{marker}»")],
        })
        .collect();
    for _ in 0..30 {
        let mut symbols = symbols.clone();
        for _ in 0..1 + next(3) {
            let place = next(symbols.len());
            let other = symbols[next(symbols.len())].clone();
            match next(4) {
                0 => drop(symbols.remove(place)),
                1 => symbols[place] = other,
                2 => symbols.insert(place, other),
                _ => symbols.truncate(place.max(1)),
            }
            if symbols.is_empty() {
                symbols.push("x".to_string());
            }
        }
        let answer = symbols.concat();
        let seen = read(syntax.reader(&tools, &token, false), Some(&tokens), &answer, 1);
        for size in [2, 5, 1000] {
            let other = read(syntax.reader(&tools, &token, false), Some(&tokens), &answer, size);
            assert_eq!(other, seen, "{answer} in pieces of {size}");
        }
        for (_, arguments) in calls(&seen) {
            assert!(serde_json::from_str::<Map<String, Value>>(arguments).is_ok(), "{answer} {arguments}");
        }
        if calls(&seen).is_empty() && tokens.is_empty() {
            assert_eq!(shown(&seen), answer.replace(['«', '»'], ""));
        }
        read(syntax.reader(&tools, &token, true), Some(&tokens), &answer, 1);
    }
}

fn calls(seen: &[Seen]) -> Vec<(&str, &str)> {
    let mut calls = Vec::new();
    for seen in seen {
        match seen {
            Seen::Call { name, .. } => calls.push((name.as_str(), "")),
            Seen::Arguments(text) => calls.last_mut().expect("a call").1 = text,
            Seen::Text(_) => {}
        }
    }
    calls
}

/// Answers at random within the grammar.
fn walk(syntax: &dyn CallSyntax, bytes: &Bytes, grammar: &str, wanted: Wanted) {
    let (tools, token) = (tools(), |marker: &str| bytes.token(marker));
    let mut state = 88172645463325252u64;
    let mut next = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % below
    };
    let mut closers: Vec<String> = syntax.markers().iter().map(|marker| marker.to_string()).collect();
    closers.extend(["</parameter>", "\n</parameter>", "\"", "}", "]", ")", "'"].map(String::from));
    let matcher = bytes.matcher(grammar);
    let (mut finished, mut called) = (0, 0);
    for _ in 0..40 {
        let mut matcher = matcher.deep_clone();
        let mut ids: Vec<u32> = Vec::new();
        let mut ended = false;
        while ids.len() < 500 {
            if next(8) == 0 {
                let closer = &closers[next(closers.len())];
                let more = match bytes.token(closer) {
                    Some(id) => vec![id],
                    None => closer.bytes().map(u32::from).collect(),
                };
                if matcher.validate_tokens(&more).unwrap() == more.len() {
                    matcher.consume_tokens(&more).unwrap();
                    ids.extend(more);
                    continue;
                }
            }
            let mask = matcher.compute_mask_or_eos().unwrap();
            let mut allowed: Vec<u32> =
                (0..=bytes.end() + LONG.len() as u32).filter(|id| mask.is_allowed(*id)).collect();
            assert!(!allowed.is_empty(), "nothing may follow {ids:?}\n{grammar}");
            let printable: Vec<u32> =
                allowed.iter().copied().filter(|id| (32..127).contains(id) || *id >= 256).collect();
            if !printable.is_empty() && next(20) > 0 {
                allowed = printable;
            }
            let id = allowed[next(allowed.len())];
            if id == bytes.end() {
                ended = true;
                break;
            }
            matcher.consume_token(id).unwrap();
            ids.push(id);
        }
        let (mut answer, mut text) = (String::new(), Vec::new());
        for id in &ids {
            match u8::try_from(*id) {
                Ok(byte) => text.push(byte),
                Err(_) if *id > bytes.end() => text.extend(LONG[(*id - bytes.end()) as usize - 1].bytes()),
                Err(_) => {
                    answer += &String::from_utf8_lossy(&std::mem::take(&mut text));
                    answer += &format!("«{}»", bytes.tokens[*id as usize - 256]);
                }
            }
        }
        answer += &String::from_utf8_lossy(&text);
        if !ended || answer.contains('\u{fffd}') {
            continue;
        }
        finished += 1;
        let tokens: Vec<&str> = bytes.tokens.iter().map(String::as_str).collect();
        let seen = read(syntax.reader(&tools, &token, true), Some(&tokens), &answer, 1);
        let found = calls(&seen);
        called += found.len();
        assert!(wanted.least == 0 || !found.is_empty(), "{answer:?} {seen:?}\n{grammar}");
        assert!(wanted.parallel || found.len() <= 1, "{answer:?} {seen:?}\n{grammar}");
        assert!(wanted.least == 0 || !seen.iter().any(|seen| matches!(seen, Seen::Text(_))), "{answer:?} {seen:?}");
        let mut whole = true;
        for (name, arguments) in found {
            assert!(tools.iter().any(|tool| tool.name == name), "{name} {answer:?}");
            match serde_json::from_str::<Map<String, Value>>(arguments) {
                Ok(_) => {}
                // JSON's grammar has them: half a surrogate pair, and numbers beyond all bounds.
                Err(error)
                    if arguments.to_lowercase().contains("\\ud") || error.to_string().contains("out of range") =>
                {
                    whole = false;
                }
                Err(error) => panic!("{error}: {arguments:?} {answer:?}\n{grammar}"),
            }
        }
        if whole {
            let kept = read(syntax.reader(&tools, &token, false), Some(&tokens), &answer, 3);
            assert_eq!(shown(&kept), shown(&seen), "{answer:?}");
        }
    }
    assert!(finished >= 10, "only {finished} answers came to an end\n{grammar}");
    assert!(called >= 3 || wanted.least == 0, "{called}");
}

/// Answers made of scraps of all syntaxes, most of them broken.
#[test]
fn any_answer_reads_the_same_in_any_pieces() {
    let scraps = [
        "{\"name\": \"f\", \"arguments\": {\"a\": 1}}",
        "{\"name\": \"f\"",
        "[",
        "]",
        "{",
        "}",
        ", ",
        " ",
        "\n",
        "f",
        "(a=1)",
        "a:1",
        "call:f{",
        "functions.f:0",
        "<function=f>",
        "</function>",
        "<parameter=a>",
        "</parameter>",
        "\"",
        "'x'",
        "12",
        "<invoke name=\"f\">",
        "</invoke>",
        "functools",
        "text",
        "[f(a='x')]",
        "f()",
        "null",
        "function",
        "```json\n",
        "```",
        ";",
    ];
    let mut state = 42u64;
    let mut next = move |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    let mut called = 0;
    for name in super::names() {
        let syntax = super::by_name(name).expect("a syntax");
        let markers = syntax.markers();
        for round in 0..400 {
            let mut answer = String::new();
            for _ in 0..1 + next(12) {
                if !markers.is_empty() && next(3) == 0 {
                    answer += &format!("«{}»", markers[next(markers.len())]);
                } else {
                    answer += scraps[next(scraps.len())];
                }
            }
            let tokens = if round % 2 == 0 { markers } else { &[] };
            let token = |marker: &str| tokens.contains(&marker).then_some(1);
            let reader = || syntax.reader(&tools(), &token, false);
            let seen = read(reader(), Some(tokens), &answer, 1);
            for size in [2, 3, 1000] {
                assert_eq!(read(reader(), Some(tokens), &answer, size), seen, "{name} {answer}");
            }
            for (_, arguments) in calls(&seen) {
                assert!(serde_json::from_str::<Map<String, Value>>(arguments).is_ok(), "{name} {answer} {arguments}");
                called += 1;
            }
            if tokens.is_empty() && calls(&seen).is_empty() {
                let text = shown(&seen);
                assert_eq!(text, answer.replace(['«', '»'], ""), "{name}");
            }
            // An answer that is called sure and isn't must do no harm.
            read(syntax.reader(&tools(), &token, true), Some(tokens), &answer, 1);
        }
    }
    assert!(called > 30, "{called}");
}

/// Many tools with many parameters stay within the limits of grammars.
#[test]
fn many_tools_compile() {
    let kinds = [
        json!({"type": "string"}),
        json!({"type": "integer"}),
        json!({"type": ["boolean", "null"]}),
        json!({"type": "array", "items": {"type": "object", "properties": {"x": {"type": "number"}}}}),
    ];
    let tools: Vec<Tool> = (0..20)
        .map(|tool| {
            let properties: Map<String, Value> =
                (0..12).map(|place| (format!("p{place}"), kinds[(tool + place) % kinds.len()].clone())).collect();
            let parameters = json!({"type": "object", "properties": properties, "required": ["p3"]});
            Tool { name: format!("tool_{tool}"), parameters, strict: true }
        })
        .collect();
    for name in super::names() {
        let syntax = super::by_name(name).expect("a syntax");
        let bytes = Bytes::new(syntax.markers());
        let grammar = syntax.grammar(&tools, Wanted { least: 0, parallel: true }, &|marker| bytes.token(marker));
        let mut matcher = bytes.matcher(&grammar);
        assert!(matcher.compute_mask().is_ok(), "{name}");
    }
}
