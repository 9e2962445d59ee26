//! Questions to a client as the wire has them, and what comes back: nothing is believed that does not fit the
//! question. Knows both revisions' forms, which are the same here.
#![expect(deprecated, reason = "the newest revision still has sampling and roots, and the older one needs them")]

use crate::offer::{Ability, Answered, Question, Refusal};
use narthex_agent::Schema;
use rmcp::{
    ErrorData, RoleServer,
    model::{
        ClientCapabilities, CreateMessageRequest, CreateMessageRequestParams, ElicitRequest, ElicitRequestParams,
        ElicitationCapability, FormElicitationCapability, InputRequest, InputRequests, ListRootsRequest,
        SamplingMessage, ServerRequest,
    },
    service::{Peer, PeerRequestOptions, RequestContext},
};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

/// What the client of a request can be asked for.
pub(crate) fn abilities(context: &RequestContext<RoleServer>) -> Vec<Ability> {
    let Some(capabilities) = context.client_capabilities() else { return vec![] };
    let mut abilities = vec![];
    // A client that names no mode means forms; one that names only the other mode does not.
    if capabilities.elicitation.is_some_and(|modes| modes.form.is_some() || modes.url.is_none()) {
        abilities.push(Ability::Form);
    }
    if capabilities.sampling.is_some() {
        abilities.push(Ability::Sample);
    }
    if capabilities.roots.is_some() {
        abilities.push(Ability::Roots);
    }
    abilities
}

/// That a client lacks something, as the wire says it.
pub(crate) fn lacks(ability: Ability) -> ErrorData {
    let mut needed = ClientCapabilities::default();
    match ability {
        Ability::Form => {
            needed.elicitation = Some(ElicitationCapability::new().with_form(FormElicitationCapability::new()));
        }
        Ability::Sample => needed.sampling = Some(Default::default()),
        Ability::Roots => needed.roots = Some(Default::default()),
    }
    ErrorData::missing_required_client_capability(needed)
}

/// A question as the wire has it.
///
/// # Errors
/// If a form has more than plain fields: a mistake of whoever asks.
pub(crate) fn request(question: &Question) -> Result<InputRequest, Refusal> {
    Ok(match question {
        Question::Form { message, schema } => {
            let requested_schema = serde_json::from_value(schema.clone()).map_err(|error| {
                Refusal::Failed(format!("the form of a question has more than plain fields: {error}"))
            })?;
            let params =
                ElicitRequestParams::FormElicitationParams { meta: None, message: message.clone(), requested_schema };
            InputRequest::Elicitation(ElicitRequest::new(params))
        }
        Question::Sample { text, tokens_max } => {
            let params = CreateMessageRequestParams::new(vec![SamplingMessage::user_text(text)], *tokens_max);
            InputRequest::CreateMessage(CreateMessageRequest::new(params))
        }
        Question::Roots => InputRequest::ListRoots(ListRootsRequest::default()),
    })
}

/// Questions as the wire has them.
pub(crate) fn requests(questions: &BTreeMap<String, Question>) -> Result<InputRequests, Refusal> {
    questions.iter().map(|(name, question)| Ok((name.clone(), request(question)?))).collect()
}

/// What was answered to all of these questions, or nothing if an answer is missing or is none to its question.
pub(crate) fn answers(
    questions: &BTreeMap<String, Question>,
    given: &BTreeMap<String, Value>,
) -> Option<BTreeMap<String, Answered>> {
    questions.iter().map(|(name, question)| Some((name.clone(), answered(question, given.get(name)?)?))).collect()
}

/// What a value says to a question, if it says anything.
pub(crate) fn answered(question: &Question, given: &Value) -> Option<Answered> {
    match question {
        Question::Form { schema, .. } => match given.get("action")?.as_str()? {
            "accept" => {
                let content = given.get("content").cloned().unwrap_or_else(|| Value::Object(Default::default()));
                let fits = Schema::compile(schema).is_ok_and(|schema| schema.check(&content).is_ok());
                match content {
                    Value::Object(fields) if fits => Some(Answered::Filled(fields)),
                    _ => None,
                }
            }
            "decline" => Some(Answered::Declined),
            "cancel" => Some(Answered::Dismissed),
            _ => None,
        },
        Question::Sample { .. } => {
            let content = given.get("content")?;
            let blocks = content.as_array().map_or_else(|| vec![content], |blocks| blocks.iter().collect());
            let texts: Option<Vec<&str>> = blocks.iter().map(|block| block.get("text")?.as_str()).collect();
            Some(Answered::Sampled(texts?.join("\n")))
        }
        Question::Roots => {
            let roots = given.get("roots")?.as_array()?;
            let uris: Option<Vec<String>> =
                roots.iter().map(|root| Some(root.get("uri")?.as_str()?.to_string())).collect();
            Some(Answered::Roots(uris?))
        }
    }
}

/// Asks a client of an older revision while its request waits, and returns what it answered.
///
/// # Errors
/// If it does not answer in time, or refuses to.
pub(crate) async fn ask(
    peer: &Peer<RoleServer>,
    questions: &BTreeMap<String, Question>,
    answer_s: u64,
) -> Result<BTreeMap<String, Value>, ErrorData> {
    let mut given = BTreeMap::new();
    for (name, question) in questions {
        let request = match request(question).map_err(failed)? {
            InputRequest::Elicitation(request) => ServerRequest::ElicitRequest(request),
            InputRequest::CreateMessage(request) => ServerRequest::CreateMessageRequest(request),
            InputRequest::ListRoots(request) => ServerRequest::ListRootsRequest(request),
            _ => continue,
        };
        let options = PeerRequestOptions::with_timeout(Duration::from_secs(answer_s));
        let unanswered = |error: rmcp::ServiceError| {
            ErrorData::internal_error(format!("the client did not answer what it was asked: {error}"), None)
        };
        let handle = peer.send_request_with_option(request, options).await.map_err(unanswered)?;
        let result = handle.await_response().await.map_err(unanswered)?;
        given.insert(name.clone(), serde_json::to_value(result).unwrap_or_default());
    }
    Ok(given)
}

/// A refusal as the wire says it.
pub(crate) fn failed(refusal: Refusal) -> ErrorData {
    match refusal {
        Refusal::Unknown(what) | Refusal::Input(what) => ErrorData::invalid_params(what, None),
        Refusal::Needs(ability) => lacks(ability),
        Refusal::Failed(what) => ErrorData::internal_error(what, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_fits_is_an_answer() {
        let schema = json!({"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]});
        let form = Question::Form { message: "?".into(), schema };
        let sample = Question::Sample { text: "?".into(), tokens_max: 10 };
        let filled = |fields: Value| Some(Answered::Filled(fields.as_object().unwrap().clone()));
        let check = |question: &Question, given: Value, expected: Option<Answered>| {
            assert_eq!(answered(question, &given), expected, "{given}");
        };
        check(&form, json!({"action": "accept", "content": {"name": "ann"}}), filled(json!({"name": "ann"})));
        check(&form, json!({"action": "accept", "content": {"name": 1}}), None);
        check(&form, json!({"action": "accept", "content": {}}), None);
        check(&form, json!({"action": "accept"}), None);
        check(&form, json!({"action": "accept", "content": [1]}), None);
        check(&form, json!({"action": "decline"}), Some(Answered::Declined));
        check(&form, json!({"action": "cancel"}), Some(Answered::Dismissed));
        check(&form, json!({"action": "yes"}), None);
        check(&form, json!({"content": {"name": "ann"}}), None);
        check(&form, json!(12345), None);
        check(&form, Value::Null, None);
        let text = json!({"type": "text", "text": "Paris"});
        check(&sample, json!({"role": "assistant", "content": text}), Some(Answered::Sampled("Paris".into())));
        check(&sample, json!({"content": [text, text]}), Some(Answered::Sampled("Paris\nParis".into())));
        check(&sample, json!({"content": {"type": "image", "data": ""}}), None);
        check(&sample, json!({}), None);
        let roots = json!({"roots": [{"uri": "file:///a", "name": "a"}]});
        check(&Question::Roots, roots, Some(Answered::Roots(vec!["file:///a".into()])));
        check(&Question::Roots, json!({"roots": [{"name": "a"}]}), None);
        check(&Question::Roots, json!({"roots": 1}), None);
    }
}
