//! What a run waits for, in the form of LangChain's human-in-the-loop middleware, and the decisions of people.
//!
//! All calls that wait are one interrupt, `{"action_requests": […], "review_configs": […]}`, resumed by
//! `{"decisions": […]}` with a decision for each in their order. A question for data is an interrupt of its own,
//! `{"question", "form"}`, resumed by the data. With several, `resume` is an object of interrupts' ids.

use crate::uuid::uuid_of;
use narthex_agent::{Answer, Interrupt, RunView};
use narthex_http::ApiError;
use serde_json::{Map, Value, json};

/// An interrupt as LangGraph has it, and those of ours that it stands for.
#[derive(Debug, PartialEq)]
pub(super) struct Shown {
    pub id: String,
    value: Value,
    ours: Vec<Interrupt>,
    /// Whether it is about calls.
    is_calls: bool,
}

/// What a run waits for.
pub(super) fn shown(run: &str, interrupts: &[Interrupt]) -> Vec<Shown> {
    let id = |ids: &[Interrupt]| {
        let ids: Vec<&str> = ids.iter().map(|interrupt| interrupt.id.as_str()).collect();
        // LangGraph's have 32 digits, by which its own clients know an object of ids.
        uuid_of("interrupt", &format!("{run}\0{}", ids.join("\0"))).replace('-', "")
    };
    let (calls, forms): (Vec<Interrupt>, Vec<Interrupt>) =
        interrupts.iter().cloned().partition(|interrupt| interrupt.call.is_some());
    let mut shown = vec![];
    if !calls.is_empty() {
        shown.push(Shown { id: id(&calls), value: request(run, &calls), ours: calls, is_calls: true });
    }
    for form in forms {
        let value =
            json!({"question": form.question, "form": form.form, "narthex": {"run": run, "interrupts": [form]}});
        let ours = vec![form];
        shown.push(Shown { id: id(&ours), value, ours, is_calls: false });
    }
    shown
}

/// As clients read them.
pub(super) fn written(shown: &[Shown]) -> Value {
    shown.iter().map(|shown| json!({"value": shown.value, "id": shown.id})).collect()
}

fn request(run: &str, calls: &[Interrupt]) -> Value {
    let action = |interrupt: &Interrupt| {
        let (tool, arguments) = interrupt.call.as_ref()?;
        Some(json!({"name": tool, "args": arguments, "description": interrupt.question}))
    };
    let review = |interrupt: &Interrupt| {
        let (tool, _) = interrupt.call.as_ref()?;
        let allowed: &[&str] =
            if interrupt.form.is_some() { &["approve", "reject", "respond"] } else { &["approve", "edit", "reject"] };
        Some(json!({"action_name": tool, "allowed_decisions": allowed}))
    };
    json!({
        "action_requests": calls.iter().filter_map(action).collect::<Vec<_>>(),
        "review_configs": calls.iter().filter_map(review).collect::<Vec<_>>(),
        "narthex": {"run": run, "interrupts": calls},
    })
}

/// The answers that `resume` gives, each with our interrupt's id.
///
/// # Errors
/// If it does not fit what the run waits for.
pub(super) fn answers(view: &RunView, resume: &Value, by: &str) -> Result<Vec<(String, Answer)>, ApiError> {
    let waiting = shown(&view.id, &view.interrupts);
    if waiting.is_empty() {
        return Err(wrong(format!("the run {} waits for nothing", view.id)));
    }
    if let Some(map) = resume.as_object().filter(|map| !map.is_empty())
        && map.keys().all(|id| waiting.iter().any(|shown| shown.id == *id))
    {
        let answers = waiting.iter().filter_map(|shown| Some((shown, map.get(&shown.id)?)));
        return answers.map(|(shown, value)| answer(shown, value, by)).collect::<Result<Vec<_>, _>>().map(concat);
    }
    match waiting.as_slice() {
        [only] => answer(only, resume, by),
        several => {
            let ids: Vec<&str> = several.iter().map(|shown| shown.id.as_str()).collect();
            let what = "is waited for by several interrupts: give an object with their ids";
            Err(wrong(format!("`command.resume` {what}: {}", ids.join(", "))))
        }
    }
}

fn concat(lists: Vec<Vec<(String, Answer)>>) -> Vec<(String, Answer)> {
    lists.into_iter().flatten().collect()
}

fn wrong(what: String) -> ApiError {
    ApiError::field("command.resume", what)
}

fn answer(shown: &Shown, value: &Value, by: &str) -> Result<Vec<(String, Answer)>, ApiError> {
    if !shown.is_calls {
        return Ok(shown.ours.iter().map(|ours| (ours.id.clone(), Answer::Say { value: value.clone() })).collect());
    }
    let Some(decisions) = value["decisions"].as_array() else {
        return Err(wrong("resume with `{\"decisions\": [{\"type\": \"approve\"}]}`: approve, edit or reject".into()));
    };
    if decisions.len() != shown.ours.len() {
        let (given, waiting) = (decisions.len(), shown.ours.len());
        return Err(wrong(format!(
            "{waiting} calls wait, and {given} decisions are given: one for each, in their order"
        )));
    }
    let decide = |(ours, decision): (&Interrupt, &Value)| Ok((ours.id.clone(), decided(ours, decision, by)?));
    shown.ours.iter().zip(decisions).map(decide).collect()
}

fn decided(interrupt: &Interrupt, decision: &Value, by: &str) -> Result<Answer, ApiError> {
    let by = by.to_string();
    let text = |field: &str| decision[field].as_str().unwrap_or_default().to_string();
    match decision["type"].as_str().unwrap_or_default() {
        "approve" => Ok(Answer::Approve { by }),
        "reject" => Ok(Answer::Refuse { by, why: text("message") }),
        "respond" if interrupt.form.is_some() => Ok(Answer::Say { value: json!({"result": text("message")}) }),
        "edit" => {
            let edited = &decision["edited_action"];
            let tool = interrupt.call.as_ref().map_or("", |(tool, _)| tool.as_str());
            if edited["name"].as_str().is_some_and(|name| name != tool) {
                return Err(wrong(format!("an edited call stays one of `{tool}`: reject it to have another one made")));
            }
            match &edited["args"] {
                Value::Object(arguments) => Ok(Answer::Edit { by, arguments: Map::clone(arguments) }),
                _ => Err(wrong("`edited_action.args` must be an object: the arguments instead".into())),
            }
        }
        "respond" => {
            Err(wrong("a call that waits for approval is not answered for the tool: approve, edit or reject".into()))
        }
        other => Err(wrong(format!("`{other}` is no decision: approve, edit or reject"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{call_interrupt, form_interrupt, view};

    #[test]
    fn decisions_become_answers() {
        let check = |interrupts: Vec<Interrupt>, resume: Value, expected: Result<Value, &str>| {
            let mut view = view("r");
            view.interrupts = interrupts;
            match answers(&view, &resume, "me") {
                Ok(answers) => assert_eq!(Ok(json!(answers)), expected, "{resume}"),
                Err(error) => {
                    let told = serde_json::to_value(error.object()).unwrap()["error"]["message"].clone();
                    let told = told.as_str().unwrap();
                    assert!(expected.is_err_and(|expected| told.contains(expected)), "{resume}: {told}");
                }
            }
        };
        let one = || vec![call_interrupt("i", "send", json!({"to": "a"}))];
        let two = || vec![call_interrupt("i", "send", json!({})), call_interrupt("k", "drop", json!({}))];
        let approve = json!({"type": "approve", "by": "me"});
        check(one(), json!({"decisions": [{"type": "approve"}]}), Ok(json!([["i", approve]])));
        let edited = json!({"type": "edit", "edited_action": {"name": "send", "args": {"to": "b"}}});
        let edit = json!({"type": "edit", "by": "me", "arguments": {"to": "b"}});
        check(one(), json!({"decisions": [edited]}), Ok(json!([["i", edit]])));
        let reject = json!({"decisions": [{"type": "approve"}, {"type": "reject", "message": "no"}]});
        let refuse = json!({"type": "refuse", "by": "me", "why": "no"});
        check(two(), reject.clone(), Ok(json!([["i", approve], ["k", refuse]])));
        let id = &shown("r", &two())[0].id;
        check(two(), json!({id: reject}), Ok(json!([["i", approve], ["k", refuse]])));
        let say = json!({"type": "say", "value": {"colour": "red"}});
        check(vec![form_interrupt("f")], json!({"colour": "red"}), Ok(json!([["f", say]])));
        check(vec![], json!({"decisions": []}), Err("waits for nothing"));
        check(two(), json!({"decisions": [{"type": "approve"}]}), Err("2 calls wait, and 1 decisions are given"));
        check(one(), json!("yes"), Err("resume with `{\"decisions\""));
        check(one(), json!({"decisions": [{"type": "maybe"}]}), Err("`maybe` is no decision"));
        check(one(), json!({"decisions": [{"type": "respond", "message": "x"}]}), Err("not answered for the tool"));
        let other = json!({"type": "edit", "edited_action": {"name": "drop", "args": {}}});
        check(one(), json!({"decisions": [other]}), Err("stays one of `send`"));
        let mixed = vec![call_interrupt("i", "send", json!({})), form_interrupt("f")];
        check(mixed, json!({"decisions": [{"type": "approve"}]}), Err("several interrupts"));
    }
}
