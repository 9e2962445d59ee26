//! What a run waits for, told to clients whose API has no word for it, and their answers. Knows no other API's forms.

use narthex_agent::{Answer, Interrupt, RunStatus, RunView};
use narthex_http::{ApiError, Fields};
use serde_json::{Value, json};

/// Answers of one request at most.
pub(crate) const ANSWERS_MAX: usize = 1_000;

/// The object `narthex` of an answer: which run, how it stands, what it waits for.
pub(crate) fn standing(view: &RunView) -> Value {
    json!({
        "run": view.id, "thread": view.thread, "status": view.status, "reason": view.reason,
        "interrupts": view.interrupts,
    })
}

/// What a person reads where a run waits: what for, and how to answer. Empty if it waits for nothing.
pub(crate) fn words(view: &RunView) -> String {
    if view.status != RunStatus::Waiting || view.interrupts.is_empty() {
        return String::new();
    }
    let mut text = format!("The run {} waits for an answer.\n", view.id);
    for Interrupt { id, question, call, form, .. } in &view.interrupts {
        text.push_str(&format!("- {id}: {question}\n"));
        if let Some((tool, arguments)) = call {
            text.push_str(&format!("  {tool} {arguments}\n"));
        }
        let answers = match (call, form) {
            (Some(_), None) => r#""approve": true, "edit": {…} or "refuse": "why""#,
            (Some(_), Some(_)) => r#""approve": true, "refuse": "why" or "say": …"#,
            (None, _) => r#""say": …"#,
        };
        text.push_str(&format!(
            "  Answer with POST /agents/runs/{}/answers {{\"interrupt\": \"{id}\", {answers}}}\n",
            view.id
        ));
    }
    text.trim_end().to_string()
}

/// Reads `{interrupt, approve | edit | refuse | say, by}`: the interrupt and the answer.
///
/// # Errors
/// If it is none of them, or several.
pub(crate) fn answer(
    mut fields: Fields,
    approver: impl FnOnce(Option<String>) -> String,
) -> Result<(String, Answer), ApiError> {
    const KINDS: &str = "answer with one of `approve`: true, `edit`: {…}, `refuse`: \"why\", `say`: …";
    let Some(interrupt) = fields.string("interrupt")? else { return Err(fields.missing("interrupt")) };
    let by = approver(fields.string("by")?);
    let approve = fields.flag("approve")?;
    let edit = fields.take("edit");
    let refuse = fields.take("refuse");
    let say = fields.take("say");
    let answer = match (approve, edit, refuse, say) {
        (Some(true), None, None, None) => Answer::Approve { by },
        (None | Some(true), Some(Value::Object(arguments)), None, None) => Answer::Edit { by, arguments },
        (None, None, Some(Value::String(why)), None) => Answer::Refuse { by, why },
        (None, None, Some(Value::Bool(true)), None) | (Some(false), None, None, None) => {
            Answer::Refuse { by, why: String::new() }
        }
        (Some(false), None, Some(Value::String(why)), None) => Answer::Refuse { by, why },
        (None, None, None, Some(value)) => Answer::Say { value },
        _ => return Err(ApiError::invalid(KINDS)),
    };
    fields.finish()?;
    Ok((interrupt, answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_one_of_four() {
        let check = |body: Value, expected: Option<Value>| {
            let Value::Object(map) = body.clone() else { panic!("{body}") };
            let read = answer(Fields::new(map, String::new()), |by| by.unwrap_or("me".into()));
            let shown = read.map(|(interrupt, answer)| json!([interrupt, answer])).ok();
            assert_eq!(shown, expected, "{body}");
        };
        let is = |answer: Value| Some(json!(["i", answer]));
        check(json!({"interrupt": "i", "approve": true}), is(json!({"type": "approve", "by": "me"})));
        check(json!({"interrupt": "i", "approve": true, "by": "x"}), is(json!({"type": "approve", "by": "x"})));
        let edit = json!({"type": "edit", "by": "me", "arguments": {"a": 1}});
        check(json!({"interrupt": "i", "edit": {"a": 1}}), is(edit));
        let refuse = |why: &str| is(json!({"type": "refuse", "by": "me", "why": why}));
        check(json!({"interrupt": "i", "refuse": "no"}), refuse("no"));
        check(json!({"interrupt": "i", "approve": false, "refuse": "no"}), refuse("no"));
        check(json!({"interrupt": "i", "approve": false}), refuse(""));
        check(json!({"interrupt": "i", "say": 3}), is(json!({"type": "say", "value": 3})));
        for wrong in [
            json!({"approve": true}),
            json!({"interrupt": "i"}),
            json!({"interrupt": 1, "approve": true}),
            json!({"interrupt": "i", "approve": "yes"}),
            json!({"interrupt": "i", "approve": true, "refuse": "no"}),
            json!({"interrupt": "i", "edit": "x"}),
            json!({"interrupt": "i", "edit": {}, "say": 1}),
            json!({"interrupt": "i", "approve": true, "colour": 1}),
        ] {
            check(wrong, None);
        }
    }
}
