//! Forms at a tokenizer's vocabulary: what it costs to compile one, and a mask in a state that is new and in one that
//! is known; and whether schemas let pass what they should. Knows no model and no server.
//!
//! `cargo run --release -p narthex-answer --example forms -- FOLDER [ROUNDS]` measures four forms, FOLDER being one
//! with a `tokenizer.json`. `… -- FOLDER DATA EVERY [LIST]` takes every so manieth file of MaskBench's `data`
//! (guidance-ai/jsonschemabench), each with a schema and with values that fit it or not; with LIST, outcomes that are
//! not as the file has them are listed.

use narthex_answer::{Constraints, Form, Spacing};
use narthex_base::{Error, Result};
use narthex_infer::{Allowed, Constraint};
use narthex_text::Tokenizer;
use serde_json::{Value, json, ser::Formatter};
use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    time::Instant,
};

/// JSON as Python's `json.dumps` writes it, which is how answers are written.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}

fn written(value: &Value) -> String {
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, Spaced);
    serde::Serialize::serialize(value, &mut serializer)
        .map(|()| String::from_utf8_lossy(&out).into())
        .unwrap_or_default()
}

/// What takes longer to compile is listed.
const SLOW_US: f64 = 100e3;

/// Microseconds of each kind.
#[derive(Default)]
struct Times {
    compile: Vec<f64>,
    begin: Vec<f64>,
    new: Vec<f64>,
    known: Vec<f64>,
    push: Vec<f64>,
}

impl Times {
    fn show(&mut self, name: &str) {
        let shown = |times: &mut Vec<f64>| {
            times.sort_by(f64::total_cmp);
            let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
            format!("{:9.1} {:9.1}", at(0.5), at(0.99))
        };
        println!(
            "{name:22} {} {} {} {} {}  {} masks",
            shown(&mut self.compile),
            shown(&mut self.new),
            shown(&mut self.known),
            shown(&mut self.push),
            shown(&mut self.begin),
            self.known.len(),
        );
    }
}

fn timed<T>(times: &mut Vec<f64>, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = work();
    times.push(begun.elapsed().as_secs_f64() * 1e6);
    done
}

/// Whether a constraint lets these tokens pass, and the end behind them. Masks where one token must come are not timed:
/// nothing is computed for them.
fn passes(constraint: &dyn Constraint, ids: &[u32], new: bool, times: &mut Times) -> Result<bool> {
    let failed = |why: String| Error::input("no mask").cause(why);
    let mut state = timed(&mut times.begin, || constraint.begin());
    for id in ids {
        let forced = state.forced().is_some();
        let begun = Instant::now();
        let allowed = state.allowed(&[]).map_err(failed)?;
        if !forced {
            let taken = if new { &mut times.new } else { &mut times.known };
            taken.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        match allowed.first() {
            Some(Allowed::Only { tokens, .. }) if !tokens.contains(*id) => return Ok(false),
            _ => timed(&mut times.push, || state.push(*id)).map_err(failed)?,
        }
    }
    Ok(match state.allowed(&[]).map_err(failed)?.first() {
        Some(Allowed::Only { end, .. }) => *end,
        _ => true,
    })
}

fn forms() -> Vec<(&'static str, Value, Value)> {
    let person = json!({
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 5}},
        "required": ["name", "age", "tags"],
    });
    let dated = json!({
        "type": "object",
        "properties": {"id": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4,8}$"}, "at": {"type": "string", "format": "date-time"},
            "mail": {"type": "string", "format": "email"}},
        "required": ["id", "at", "mail"],
    });
    let tool = |i: usize| {
        let arguments = json!({
            "type": "object",
            "properties": {"query": {"type": "string"}, "limit": {"type": "integer", "minimum": 1, "maximum": 100},
                format!("kind{i}"): {"enum": ["news", "papers", "code", "images"]}},
            "required": ["query", "limit"],
        });
        json!({
            "type": "object",
            "properties": {"name": {"const": format!("search_{i}")}, "arguments": arguments},
            "required": ["name", "arguments"],
        })
    };
    let tools = json!({"anyOf": (0..20).map(tool).collect::<Vec<Value>>()});
    let list = json!({
        "type": "array",
        "items": {"type": "object", "properties": {"title": {"type": "string", "minLength": 3, "maxLength": 80},
            "price": {"type": "number", "minimum": 0}}, "required": ["title", "price"]},
    });
    vec![
        (
            "person",
            person,
            json!({"name": "Zo\u{eb} van der Berg", "age": 42, "tags": ["painter", "lives in Utrecht", "42 years"]}),
        ),
        (
            "pattern, date-time",
            dated,
            json!({"id": "QXZ-104233", "at": "2026-11-30T18:25:40.125+01:00", "mail": "zoe.berg@mail.example.org"}),
        ),
        (
            "20 tools",
            tools,
            json!({"name": "search_13", "arguments": {"query": "who painted the night watch?", "limit": 25, "kind13": "papers"}}),
        ),
        (
            "list",
            list,
            json!([{"title": "Fields of wheat, evening", "price": 1250.5}, {"title": "Untitled (12)", "price": 80}]),
        ),
    ]
}

fn measure(constraints: &Constraints, tokenizer: &Tokenizer, rounds: usize) -> Result<()> {
    println!(
        "{:22} {:>19} {:>19} {:>19} {:>19} {:>19}",
        "p50 p99 in us", "compile", "mask, new state", "mask, known state", "push", "begin"
    );
    for (name, schema, value) in forms() {
        let ids = tokenizer.encode(&written(&value), false)?;
        let mut times = Times::default();
        for round in 0..rounds {
            // Another description is another form: it is compiled anew, with states of its own.
            let mut schema = schema.clone();
            schema["description"] = json!(format!("round {round}"));
            let form = Form::Schema(schema, Spacing::default());
            let constraint = timed(&mut times.compile, || constraints.of(&form))?;
            for new in [true, false, false] {
                if !passes(&*constraint, &ids, new, &mut times)? {
                    return Err(Error::internal(format!("`{name}` does not let its value pass")));
                }
            }
        }
        times.show(name);
    }
    Ok(())
}

fn data(constraints: &Constraints, tokenizer: &Tokenizer, folder: &Path, every: usize, list: bool) -> Result<()> {
    let unread = |path: &Path| {
        let path = path.display().to_string();
        move |error: io::Error| Error::io("cannot read", path, error)
    };
    let entries = fs::read_dir(folder).map_err(unread(folder))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    files.sort();
    let (mut times, mut compiled, mut refused, mut failed) = (Times::default(), 0, 0, 0);
    // Values that fit or not, and are let pass or not.
    let mut counts = [[0; 2]; 2];
    for path in files.iter().step_by(every.max(1)) {
        let text = fs::read_to_string(path).map_err(unread(path))?;
        let file: Value = serde_json::from_str(&text).map_err(|error| Error::input("not JSON").cause(error))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let form = Form::Schema(file["schema"].clone(), Spacing::default());
        let begun = Instant::now();
        let made = constraints.of(&form);
        let taken = begun.elapsed().as_secs_f64() * 1e6;
        let constraint = match made {
            Ok(constraint) => constraint,
            Err(error) => {
                refused += 1;
                if list {
                    println!("{name}: refused in {:.0} ms: {}", taken / 1e3, error.what());
                }
                continue;
            }
        };
        compiled += 1;
        times.compile.push(taken);
        if list && taken > SLOW_US {
            println!("{name}: compiled in {:.0} ms", taken / 1e3);
        }
        for test in file["tests"].as_array().into_iter().flatten() {
            let text = written(&test["data"]);
            let ids = tokenizer.encode(&text, false)?;
            let fits = test["valid"] == json!(true);
            let passed = match passes(&*constraint, &ids, true, &mut times) {
                Ok(passed) => passed,
                Err(error) => {
                    failed += 1;
                    println!("{name}: fails in the midst: {}", error.causes().join(": "));
                    continue;
                }
            };
            passes(&*constraint, &ids, false, &mut times)?;
            counts[usize::from(fits)][usize::from(passed)] += 1;
            if list && fits != passed {
                println!(
                    "{name}: {} {text}",
                    if fits { "refused though it fits:" } else { "let pass though it does not fit:" }
                );
            }
        }
    }
    println!("{} schemas: {compiled} compiled, {refused} refused; {failed} values failed", compiled + refused);
    let [[invalid_refused, invalid_passed], [valid_refused, valid_passed]] = counts;
    println!("values that fit: {valid_passed} let pass, {valid_refused} refused");
    println!("values that do not fit: {invalid_refused} refused, {invalid_passed} let pass");
    times.show("all");
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let folder =
        arguments.first().ok_or_else(|| Error::input("which tokenizer? FOLDER [ROUNDS | DATA EVERY [LIST]]"))?;
    let tokenizer = Tokenizer::read(Path::new(folder))?;
    let constraints = Constraints::new(&tokenizer);
    let begun = Instant::now();
    constraints.of(&Form::object())?;
    println!("{} tokens, tables in {:.2} s", tokenizer.vocab_size(), begun.elapsed().as_secs_f64());
    let number = |at: usize| arguments.get(at).and_then(|text| text.parse().ok());
    match arguments.get(1).filter(|_| number(1).is_none()) {
        Some(place) => data(&constraints, &tokenizer, Path::new(place), number(2).unwrap_or(1), arguments.len() > 3),
        None => measure(&constraints, &tokenizer, number(1).unwrap_or(50)),
    }
}
