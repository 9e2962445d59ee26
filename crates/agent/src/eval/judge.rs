//! Whether a run did what was expected of it, and if not, the first thing that it did not do. Pure.

use super::{
    seen::Seen,
    task::{AnswerExpected, CallExpected, Expected, StatusExpected, compiled, is_among},
};
use crate::{agents::RunStatus, schema::Schema};
use serde_json::{Map, Value};

/// Characters of an answer that are quoted.
const QUOTED_CHARS_MAX: usize = 200;

/// Judges what is seen of a run.
///
/// # Errors
/// The first thing that is not as expected.
pub fn judge(seen: &Seen, expected: &Expected) -> Result<(), String> {
    status(seen, expected.status)?;
    calls(seen, expected)?;
    if let Some(tool) = seen.ran.iter().find(|tool| is_among(tool, &expected.never)) {
        return Err(format!("the tool `{tool}` was run, and never may be"));
    }
    if let Some(answer_expected) = &expected.answer {
        answer(seen, answer_expected)?;
    }
    let limits = expected.limits.unwrap_or_default();
    for (what, used, limit) in [
        ("model_calls", u64::from(seen.model_calls), limits.model_calls.map(u64::from)),
        ("tool_calls", u64::from(seen.tool_calls), limits.tool_calls.map(u64::from)),
        ("tokens", seen.tokens_in + seen.tokens_out, limits.tokens),
    ] {
        if let Some(limit) = limit.filter(|limit| used > *limit) {
            return Err(format!("it used {used} `{what}`, and {limit} are the limit"));
        }
    }
    Ok(())
}

fn status(seen: &Seen, expected: StatusExpected) -> Result<(), String> {
    let found = match (seen.status, expected) {
        (RunStatus::Done, StatusExpected::Done)
        | (RunStatus::Waiting, StatusExpected::Waits)
        | (RunStatus::Failed, StatusExpected::Failed)
        | (RunStatus::Limited, StatusExpected::Limited) => return Ok(()),
        (RunStatus::Done, _) => "it gave its answer".into(),
        (RunStatus::Waiting, _) => {
            return Err(format!(
                "it waits for approval of `{}`: name the tool in `approve` or `refuse`, or expect `status = \"waits\"`",
                seen.waits.join("`, `")
            ));
        }
        (RunStatus::Running, _) => "it has not ended".into(),
        (RunStatus::Failed, _) => "it failed".to_string(),
        (RunStatus::Limited, _) => "it came to a limit".into(),
        (RunStatus::Cancelled, _) => "it was cancelled".into(),
    };
    let word = serde_json::to_value(expected).ok().and_then(|word| word.as_str().map(str::to_string));
    let reason = seen.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    Err(format!("`{}` was expected, and {found}{reason}", word.unwrap_or_default()))
}

fn calls(seen: &Seen, expected: &Expected) -> Result<(), String> {
    let mut left: Vec<&(String, Map<String, Value>)> = seen.asked.iter().collect();
    let mut from = 0;
    for call in &expected.calls {
        let place = left.iter().skip(from).position(|asked| fits(asked, call)).map(|place| from + place);
        let Some(place) = place else { return Err(missing(seen, call)) };
        left.remove(place);
        from = if expected.any_order { 0 } else { place };
    }
    match left.first() {
        Some((tool, arguments)) if expected.no_others => {
            Err(format!("`{tool}` was asked for with {}, and no others may be", Value::Object(arguments.clone())))
        }
        _ => Ok(()),
    }
}

fn fits((tool, arguments): &(String, Map<String, Value>), call: &CallExpected) -> bool {
    *tool == call.tool && call.arguments.iter().all(|(name, value)| arguments.get(name) == Some(value))
}

fn missing(seen: &Seen, call: &CallExpected) -> String {
    let tool = &call.tool;
    let with = if call.arguments.is_empty() {
        String::new()
    } else {
        format!(" with {}", Value::Object(call.arguments.clone()))
    };
    let others: Vec<String> = seen
        .asked
        .iter()
        .filter(|(asked, _)| asked == tool)
        .map(|(_, arguments)| Value::Object(arguments.clone()).to_string())
        .collect();
    if seen.asked.iter().any(|asked| fits(asked, call)) {
        format!("`{tool}`{with} was asked for, but not so often, or not in the order of `calls`")
    } else if others.is_empty() {
        format!("`{tool}`{with} was never asked for")
    } else {
        format!("`{tool}`{with} was never asked for; it was with {}", quoted(&others.join(", ")))
    }
}

fn answer(seen: &Seen, expected: &AnswerExpected) -> Result<(), String> {
    let text = match &seen.output {
        Some(output) => output.to_string(),
        None => seen.answer.clone(),
    };
    let it_is = || format!("the answer is {:?}", quoted(&text));
    if let Some(equals) = expected.equals.as_ref().filter(|equals| equals.trim() != text.trim()) {
        return Err(format!("{}, and {equals:?} was expected", it_is()));
    }
    if let Some(word) = expected.contains.iter().find(|word| !text.contains(word.as_str())) {
        return Err(format!("{}, and {word:?} is not in it", it_is()));
    }
    if let Some(word) = expected.lacks.iter().find(|word| text.contains(word.as_str())) {
        return Err(format!("{}, and {word:?} is in it", it_is()));
    }
    if let Some(regex) = &expected.regex {
        let found = compiled(regex).map_err(|error| format!("`regex` cannot be read: {error}"))?.is_match(&text);
        if !found {
            return Err(format!("{}, and the expression {regex:?} finds nothing in it", it_is()));
        }
    }
    if expected.json.is_none() && expected.schema.is_none() {
        return Ok(());
    }
    let data = match &seen.output {
        Some(output) => output.clone(),
        None => serde_json::from_str(text.trim()).map_err(|error| format!("{}, which is no JSON: {error}", it_is()))?,
    };
    if let Some(json) = expected.json.as_ref().filter(|json| **json != data) {
        return Err(format!("{}, and {json} was expected", it_is()));
    }
    match &expected.schema {
        Some(schema) => Schema::compile(schema)?.check(&data).map_err(|why| format!("{}: {why}", it_is())),
        None => Ok(()),
    }
}

fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn seen() -> Seen {
        let asked = |tool: &str, arguments: Value| (tool.to_string(), arguments.as_object().cloned().unwrap());
        Seen {
            status: RunStatus::Done,
            reason: None,
            answer: " Lunch is at {\"hour\": 12} \n".into(),
            output: None,
            asked: vec![
                asked("read", json!({"path": "a", "n": 1})),
                asked("write", json!({})),
                asked("read", json!({"path": "b"})),
            ],
            ran: ["read".to_string(), "mail.send".to_string()].into(),
            waits: vec!["write".into()],
            model_calls: 3,
            tool_calls: 3,
            tokens_in: 90,
            tokens_out: 10,
            messages: vec![],
        }
    }

    /// The complaint's part, or nothing where all is as expected.
    fn check(seen: &Seen, expected: Value, complaint: Option<&str>) {
        let read: Expected = serde_json::from_value(expected.clone()).unwrap();
        match (judge(seen, &read), complaint) {
            (Ok(()), None) => {}
            (Err(why), Some(part)) => assert!(why.contains(part), "{expected}: {why}"),
            (result, _) => panic!("{expected}: {result:?}"),
        }
    }

    #[test]
    fn ends() {
        let stands = |status| Seen { status, reason: Some("because".into()), ..seen() };
        check(&seen(), json!({}), None);
        check(&seen(), json!({"status": "failed"}), Some("`failed` was expected, and it gave its answer"));
        check(&stands(RunStatus::Failed), json!({}), Some("`done` was expected, and it failed: because"));
        check(&stands(RunStatus::Failed), json!({"status": "failed"}), None);
        check(&stands(RunStatus::Limited), json!({"status": "limited"}), None);
        check(&stands(RunStatus::Limited), json!({}), Some("came to a limit: because"));
        check(&stands(RunStatus::Waiting), json!({"status": "waits"}), None);
        check(&stands(RunStatus::Waiting), json!({}), Some("waits for approval of `write`"));
        check(&stands(RunStatus::Running), json!({}), Some("has not ended"));
        check(&stands(RunStatus::Cancelled), json!({}), Some("was cancelled"));
    }

    #[test]
    fn answers() {
        check(&seen(), json!({"answer": {"equals": "Lunch is at {\"hour\": 12}"}}), None);
        check(&seen(), json!({"answer": {"equals": "Lunch"}}), Some("\"Lunch\" was expected"));
        check(&seen(), json!({"answer": {"contains": ["Lunch", "12"], "lacks": ["13"]}}), None);
        check(&seen(), json!({"answer": {"contains": ["Lunch", "13"]}}), Some("\"13\" is not in it"));
        check(&seen(), json!({"answer": {"lacks": ["12"]}}), Some("\"12\" is in it"));
        check(&seen(), json!({"answer": {"regex": "at .*1[0-9]"}}), None);
        check(&seen(), json!({"answer": {"regex": "^Lunch"}}), Some("finds nothing"));
        check(&seen(), json!({"answer": {"json": {"hour": 12}}}), Some("is no JSON"));
        let data = Seen { answer: "{\"b\":[1], \"a\":\"x\"}".into(), ..seen() };
        check(&data, json!({"answer": {"json": {"a": "x", "b": [1]}}}), None);
        check(&data, json!({"answer": {"json": {"a": "x"}}}), Some("was expected"));
        check(&data, json!({"answer": {"schema": {"required": ["a"]}}}), None);
        check(&data, json!({"answer": {"schema": {"required": ["c"]}}}), Some("c"));
        let output = Seen { output: Some(json!({"n": 1})), ..seen() };
        check(&output, json!({"answer": {"json": {"n": 1}, "equals": "{\"n\":1}"}}), None);
        let long = Seen { answer: "é".repeat(1000), ..seen() };
        check(&long, json!({"answer": {"equals": ""}}), Some("é…\""));
    }

    #[test]
    fn calls_and_limits() {
        let read = |path: &str| json!({"tool": "read", "arguments": {"path": path}});
        check(&seen(), json!({"calls": [read("a"), read("b")]}), None);
        check(&seen(), json!({"calls": [read("b"), read("a")]}), Some("not in the order"));
        check(&seen(), json!({"calls": [read("b"), read("a")], "any_order": true}), None);
        check(&seen(), json!({"calls": [read("a"), read("a")]}), Some("not in the order"));
        check(&seen(), json!({"calls": [read("c")]}), Some("was never asked for; it was with {"));
        check(&seen(), json!({"calls": [{"tool": "list"}]}), Some("`list` was never asked for"));
        check(&seen(), json!({"calls": [read("a")], "no_others": true}), Some("`write` was asked for"));
        let all = json!([{"tool": "read"}, {"tool": "write"}, {"tool": "read"}]);
        check(&seen(), json!({"calls": all, "no_others": true}), None);
        check(&seen(), json!({"calls": [{"tool": "read"}, {"tool": "read"}, {"tool": "read"}]}), Some("order"));
        check(&seen(), json!({"never": ["write", "mail"]}), None);
        check(&seen(), json!({"never": ["write", "mail.*"]}), Some("`mail.send` was run"));
        check(&seen(), json!({"limits": {"model_calls": 3, "tool_calls": 3, "tokens": 100}}), None);
        check(&seen(), json!({"limits": {"tokens": 99}}), Some("100 `tokens`, and 99"));
        check(&seen(), json!({"limits": {"model_calls": 2}}), Some("3 `model_calls`"));
    }
}
