//! A model in front of which knowledge is looked up: every question of a person is asked of it first, and what is
//! found stands before the question. So answers rest on sources with models that call no tools well, and name them
//! with models that cite nothing. A [`Model`] around a [`Model`]: the loop sees calls of tools like others, which the
//! policy judges.

use crate::model::{Delta, Ended, Model, ModelAnswer, ModelFailure, ModelRequest};
use futures::future::BoxFuture;
use narthex_base::chat::{FunctionCall, Message, MessageContent, Role, ToolCall, ToolKind};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};

/// How the tool is named that looks something up in knowledge: `retrieve.handbook`.
pub const RETRIEVE: &str = "retrieve.";

/// Bytes of a question that are looked up.
const QUESTION_BYTES_MAX: usize = 4 << 10;
/// Sources that are named below an answer that names none.
const SOURCES_MAX: usize = 10;

/// Asks knowledge before it asks a model.
pub(crate) struct LooksUp {
    model: Arc<dyn Model>,
    /// The tools that are called for every question.
    first: BTreeSet<String>,
    /// Those of them that the model may call too.
    offered: BTreeSet<String>,
}

impl LooksUp {
    pub(crate) fn new(model: Arc<dyn Model>, first: BTreeSet<String>, offered: BTreeSet<String>) -> Self {
        Self { model, first, offered }
    }

    /// The calls that a request asks for before the model is asked: those of its tools that are asked first, if a
    /// person has spoken last.
    fn calls(&self, request: &ModelRequest) -> Option<ModelAnswer> {
        let said = request.conversation.messages.last().filter(|message| message.role == Role::User)?;
        let question = said.text();
        let question = question[..question.floor_char_boundary(QUESTION_BYTES_MAX)].trim();
        if question.is_empty() {
            return None;
        }
        let names = request.conversation.tools.iter().filter_map(name_of).filter(|name| self.first.contains(*name));
        let mut message = Message::new(Role::Assistant, "");
        message.content = MessageContent::Nothing;
        message.tool_calls = names.map(|name| call(name, question)).collect();
        let calls = !message.tool_calls.is_empty();
        calls.then_some(ModelAnswer { message, tokens_in: 0, tokens_out: 0, ended: Ended::Calls })
    }

    /// The request as the model sees it: what was looked up stands before the question.
    fn shown(&self, mut request: ModelRequest) -> ModelRequest {
        let is_hidden = |name: &str| self.first.contains(name) && !self.offered.contains(name);
        request.conversation.tools.retain(|tool| !name_of(tool).is_some_and(is_hidden));
        let mut messages: Vec<Message> = Vec::with_capacity(request.conversation.messages.len());
        let mut hidden = BTreeSet::new();
        for message in std::mem::take(&mut request.conversation.messages) {
            let calls = &message.tool_calls;
            if !calls.is_empty() && calls.iter().all(|call| is_hidden(&call.function.name)) {
                hidden.extend(calls.iter().map(|call| call.id.clone()));
                continue;
            }
            let answers = message.tool_call_id.as_ref().is_some_and(|id| hidden.contains(id));
            match messages.iter_mut().rfind(|message| message.role == Role::User) {
                Some(question) if answers => {
                    let text = format!("{}\n\n{}", message.text().trim_end(), question.text());
                    question.content = MessageContent::Text(text);
                }
                _ => messages.push(message),
            }
        }
        request.conversation.messages = messages;
        request
    }
}

fn name_of(tool: &Value) -> Option<&str> {
    tool["function"]["name"].as_str()
}

fn call(name: &str, question: &str) -> ToolCall {
    let function = FunctionCall { name: name.into(), arguments: json!({"question": question}).to_string() };
    ToolCall { id: String::new(), kind: ToolKind::Function, function }
}

impl Model for LooksUp {
    fn name(&self) -> &str {
        self.model.name()
    }

    fn answer(
        &self,
        request: ModelRequest,
        said: Arc<dyn Fn(Delta) + Send + Sync>,
    ) -> BoxFuture<'static, Result<ModelAnswer, ModelFailure>> {
        if let Some(calls) = self.calls(&request) {
            return Box::pin(std::future::ready(Ok(calls)));
        }
        let sources = sources(&request.conversation.messages, &self.first);
        let is_free = request.wish.form.is_none();
        let answer = self.model.answer(self.shown(request), said.clone());
        Box::pin(async move {
            let mut answer = answer.await?;
            if is_free
                && answer.message.tool_calls.is_empty()
                && let Some(below) = below(&answer.message.text(), &sources)
            {
                said(Delta::Text(below.clone()));
                answer.message.content = MessageContent::Text(answer.message.text().trim_end().to_string() + &below);
            }
            Ok(answer)
        })
    }
}

/// What was found since a person spoke last: the lines `[1] docs/guide.md:3-9`, which stand at the edge of a result.
fn sources(messages: &[Message], tools: &BTreeSet<String>) -> Vec<String> {
    let begin = messages.iter().rposition(|message| message.role == Role::User).unwrap_or(0);
    let is_found = |message: &&Message| message.name.as_ref().is_some_and(|name| tools.contains(name));
    let mut found = Vec::new();
    for result in messages[begin..].iter().filter(is_found) {
        for line in result.text().lines() {
            let number = line.strip_prefix('[').and_then(|rest| rest.split_once("] "));
            if number.is_some_and(|(number, _)| number.parse::<usize>().is_ok()) {
                found.push(line.to_string());
            }
        }
    }
    found
}

/// What is written below an answer: the sources that it cites by number, or, if it cites none, those that were looked
/// up. Nothing where there are none, or all that it cites stands in it by name.
fn below(answer: &str, sources: &[String]) -> Option<String> {
    let named = |source: &&String| source.split(' ').nth(1).is_some_and(|file| answer.contains(file));
    if sources.is_empty() || sources.iter().any(|source| named(&source)) {
        return None;
    }
    let number = |source: &&String| source.split_once(' ').is_some_and(|(number, _)| answer.contains(number));
    let cited: Vec<&String> = sources.iter().filter(number).collect();
    let (word, listed) = match cited.is_empty() {
        true => ("Looked up", sources.iter().take(SOURCES_MAX).collect()),
        false => ("Sources", cited),
    };
    let lines: String = listed.iter().map(|source| format!("\n{source}")).collect();
    Some(format!("\n\n{word}:{lines}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::Wish,
        scripted::{Scripted, say},
    };
    use narthex_base::chat::Conversation;
    use std::sync::Mutex;

    const FOUND: &str =
        "[1] docs/a.md:3-4 (CC-BY-4.0)\n    Boil it.\n    [2] not a source\n\n[2] docs/b.md:7\n    Let it cool.";

    fn tool(name: &str) -> Value {
        json!({"type": "function", "function": {"name": name, "parameters": {}}})
    }

    fn request(messages: Vec<Message>, tools: &[&str]) -> ModelRequest {
        let tools = tools.iter().map(|name| tool(name)).collect();
        ModelRequest { conversation: Conversation { messages, tools }, wish: Wish::default() }
    }

    fn looks_up(offered: bool, answer: &'static str) -> (LooksUp, Arc<Scripted>) {
        let model = Arc::new(Scripted::new("m", move |_| Ok(say(answer))));
        let first = BTreeSet::from(["retrieve.book".to_string()]);
        (LooksUp::new(model.clone(), first.clone(), if offered { first } else { BTreeSet::new() }), model)
    }

    /// The answer to a question of which something was found, and what was said on the way.
    async fn answered(offered: bool, answer: &'static str) -> (String, String, ModelRequest) {
        let (model, script) = looks_up(offered, answer);
        let question = Message::new(Role::User, "How long?");
        let asked = model.answer(request(vec![question.clone()], &["retrieve.book", "todo"]), Arc::new(|_| ()));
        let mut called = asked.await.unwrap().message;
        assert_eq!(called.tool_calls.len(), 1, "only what is asked first is called");
        assert_eq!(called.tool_calls[0].function.arguments, r#"{"question":"How long?"}"#);
        assert!(script.requests().is_empty());
        called.tool_calls[0].id = "c1".into();
        let mut found = Message::new(Role::Tool, FOUND);
        (found.tool_call_id, found.name) = (Some("c1".into()), Some("retrieve.book".into()));
        let told = Arc::new(Mutex::new(String::new()));
        let sink = told.clone();
        let said = move |delta| {
            if let Delta::Text(text) = delta {
                *sink.lock().unwrap() += &text;
            }
        };
        let messages = vec![question, called, found];
        let answer = model.answer(request(messages, &["retrieve.book", "todo"]), Arc::new(said)).await.unwrap();
        let told = told.lock().unwrap().clone();
        (answer.message.text().into_owned(), told, script.requests().remove(0))
    }

    #[tokio::test]
    async fn what_is_found_stands_before_the_question() {
        let (_, _, seen) = answered(false, "x").await;
        let texts: Vec<String> = seen.conversation.messages.iter().map(|message| message.text().into_owned()).collect();
        assert_eq!(texts, [format!("{FOUND}\n\nHow long?")]);
        assert_eq!(seen.conversation.tools, [tool("todo")]);
        // A model that may look things up itself sees the call.
        let (_, _, seen) = answered(true, "x").await;
        assert_eq!((seen.conversation.messages.len(), seen.conversation.tools.len()), (3, 2));
    }

    #[tokio::test]
    async fn answers_name_their_sources() {
        for (answer, expected) in [
            ("An hour.", "An hour.\n\nLooked up:\n[1] docs/a.md:3-4 (CC-BY-4.0)\n[2] docs/b.md:7"),
            ("An hour [2].", "An hour [2].\n\nSources:\n[2] docs/b.md:7"),
            ("An hour (docs/b.md:7).", "An hour (docs/b.md:7)."),
        ] {
            let (text, told, _) = answered(false, answer).await;
            assert_eq!((text.as_str(), told.as_str()), (expected, expected));
        }
    }

    #[tokio::test]
    async fn what_is_no_question_goes_on() {
        let (model, script) = looks_up(false, "x");
        for (messages, tools) in [
            (vec![Message::new(Role::User, "sum up")], vec![]),
            (vec![Message::new(Role::User, "  ")], vec!["retrieve.book"]),
            (vec![Message::new(Role::Assistant, "a")], vec!["retrieve.book"]),
        ] {
            let answer = model.answer(request(messages, &tools), Arc::new(|_| ())).await.unwrap();
            assert_eq!(answer.message.text(), "x");
        }
        assert_eq!(script.requests().len(), 3);
    }
}
