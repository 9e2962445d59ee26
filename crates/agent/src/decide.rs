//! A person's answer as an event: is the question still open, does the answer fit it, are edited arguments allowed.
//! Pure.

use crate::{
    agents::{AgentError, Answer},
    event::{Decision, Event, JudgedCall, Verdict},
    state::{CallState, Phase, State},
};
use serde_json::{Map, Value};

/// Bytes of an approver's name at most.
const BY_BYTES_MAX: usize = 256;

/// The event that an answer makes.
///
/// # Errors
/// [`AgentError::Unknown`] if there never was such a question, [`AgentError::Refused`] if it is not open any more or
/// the edited call is denied, [`AgentError::Input`] if the answer does not fit the question.
pub fn decide(
    state: &State,
    question: &str,
    answer: &Answer,
    now_ms: u64,
    judge: impl FnOnce(&JudgedCall, Map<String, Value>) -> JudgedCall,
) -> Result<Event, AgentError> {
    if state.settled.iter().any(|settled| settled == question) {
        return Err(AgentError::Refused(format!("the question `{question}` was answered already, or has lapsed")));
    }
    let open = |call: &&CallState| {
        matches!(call.phase, Phase::Asking { .. } | Phase::Unknown) && state.question_id(call) == question
    };
    let Some(call) = state.calls.iter().find(open) else {
        return Err(AgentError::Unknown(format!("the run asks no question `{question}`")));
    };
    if state.outcome.is_some() {
        return Err(AgentError::Ended("the run has ended: it asks nothing any more".into()));
    }
    if state.lapsed(now_ms).is_some() && matches!(call.phase, Phase::Asking { expires_ms } if expires_ms <= now_ms) {
        return Err(AgentError::Refused(format!("the question `{question}` has lapsed")));
    }
    let decision = match answer {
        Answer::Approve { by } => Decision::Approve { by: named(by)? },
        Answer::Refuse { by, why } => Decision::Refuse { by: named(by)?, why: why.clone() },
        Answer::Edit { by, arguments } => {
            if call.phase == Phase::Unknown {
                let what = "nobody knows whether the call took effect: approve, say its result, or refuse";
                return Err(AgentError::Input(what.into()));
            }
            let edited = judge(&call.judged, arguments.clone());
            match edited.verdict.clone() {
                Verdict::Deny { why } => {
                    return Err(AgentError::Refused(format!("the edited call is denied by {why}")));
                }
                Verdict::Wrong { why } => return Err(AgentError::Input(why)),
                Verdict::Allow | Verdict::Ask => Decision::Edit { by: named(by)?, call: Box::new(edited) },
            }
        }
        Answer::Say { value } => Decision::Given { text: given(call, value)? },
    };
    Ok(Event::Decided { call: call.judged.id.clone(), binding: state.binding(call), decision })
}

fn named(by: &str) -> Result<String, AgentError> {
    if by.trim().is_empty() || by.len() > BY_BYTES_MAX {
        return Err(AgentError::Input(format!("say who answers in `by`, in 1 to {BY_BYTES_MAX} bytes")));
    }
    Ok(by.to_string())
}

fn given(call: &CallState, value: &Value) -> Result<String, AgentError> {
    if call.phase != Phase::Unknown {
        let what = "the question is whether the call may be made: answer with `approve`, `edit` or `refuse`";
        return Err(AgentError::Input(what.into()));
    }
    match value.as_object().and_then(|fields| fields.get("result")) {
        Some(Value::String(text)) => Ok(text.clone()),
        _ => Err(AgentError::Input("give the result as `{\"result\": \"…\"}`".into())),
    }
}
