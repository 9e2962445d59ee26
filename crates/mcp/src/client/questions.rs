//! What servers may ask of us, and who answers. By default nobody does, and servers are told so. Knows the wire's forms
//! of questions, and no server.
#![expect(deprecated, reason = "the newest revision still has sampling and roots, and older servers ask for them")]

use crate::offer::{Ability, Answered, Question};
use futures::future::BoxFuture;
use rmcp::model::{ClientCapabilities, ElicitRequestParams, InputRequest};
use serde_json::{Value, json};

/// Answers the questions of servers. The name of a server is the one it was configured by; its texts are a stranger's.
pub trait Questions: Send + Sync {
    /// What can be asked; servers are told this and nothing more.
    fn abilities(&self) -> Vec<Ability>;

    /// Answers a question. A form's answer must fit the form.
    fn answer(&self, server: &str, question: Question) -> BoxFuture<'static, Answered>;
}

/// Answers nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoQuestions;

impl Questions for NoQuestions {
    fn abilities(&self) -> Vec<Ability> {
        vec![]
    }

    fn answer(&self, _: &str, _: Question) -> BoxFuture<'static, Answered> {
        Box::pin(std::future::ready(Answered::Declined))
    }
}

/// What servers are told that we can do.
pub(super) fn capabilities(abilities: &[Ability]) -> ClientCapabilities {
    let mut capabilities = ClientCapabilities::default();
    if abilities.contains(&Ability::Form) {
        let form = rmcp::model::FormElicitationCapability::new().with_schema_validation(true);
        capabilities.elicitation = Some(rmcp::model::ElicitationCapability::new().with_form(form));
    }
    if abilities.contains(&Ability::Sample) {
        capabilities.sampling = Some(Default::default());
    }
    if abilities.contains(&Ability::Roots) {
        capabilities.roots = Some(Default::default());
    }
    capabilities
}

/// A server's question, if it is of a kind that we know: none whose address a person would have to open.
pub(super) fn question(request: &InputRequest) -> Option<Question> {
    match request {
        InputRequest::Elicitation(request) => match &request.params {
            ElicitRequestParams::FormElicitationParams { message, requested_schema, .. } => {
                let schema = serde_json::to_value(requested_schema).ok()?;
                Some(Question::Form { message: message.clone(), schema })
            }
            _ => None,
        },
        InputRequest::CreateMessage(request) => {
            let params = serde_json::to_value(&request.params).ok()?;
            Some(Question::Sample { text: spoken(&params), tokens_max: request.params.max_tokens })
        }
        InputRequest::ListRoots(_) => Some(Question::Roots),
        _ => None,
    }
}

/// The texts of a question to a model, one after the other.
fn spoken(params: &Value) -> String {
    let mut texts: Vec<&str> = params.get("systemPrompt").and_then(Value::as_str).into_iter().collect();
    for message in params.get("messages").and_then(Value::as_array).into_iter().flatten() {
        let content = message.get("content");
        let blocks = content
            .and_then(Value::as_array)
            .map_or_else(|| content.into_iter().collect(), |blocks| blocks.iter().collect::<Vec<_>>());
        texts.extend(blocks.iter().filter_map(|block| block.get("text").and_then(Value::as_str)));
    }
    texts.join("\n\n")
}

/// An answer as the wire has it: one that is none to its question is a refusal.
pub(super) fn written(question: &Question, answered: Answered) -> Value {
    match (question, answered) {
        (Question::Form { .. }, Answered::Filled(fields)) => json!({"action": "accept", "content": fields}),
        (Question::Form { .. }, Answered::Dismissed) => json!({"action": "cancel"}),
        (Question::Form { .. }, _) => json!({"action": "decline"}),
        (Question::Sample { .. }, Answered::Sampled(text)) => {
            let content = json!({"type": "text", "text": text});
            json!({"role": "assistant", "content": content, "model": "narthex", "stopReason": "endTurn"})
        }
        (Question::Roots, Answered::Roots(uris)) => {
            json!({"roots": uris.into_iter().map(|uri| json!({"uri": uri})).collect::<Vec<_>>()})
        }
        (Question::Roots, _) => json!({"roots": []}),
        (Question::Sample { .. }, _) => Value::Null,
    }
}
