//! What chat completions answers, whole and in pieces: one and the same, however it is cut.

use super::{
    conversing::Dissection,
    head::Head,
    logprobs::{ChatLogprobs, PromptLogprobs},
    parameters::Parameters,
    usage::Usage,
};
use crate::Served;
use narthex_answer::{Ending, Part, Parts, Piece, Scored};
use narthex_infer::FinishReason;
use serde::Serialize;
use serde_json::Value;

/// A whole answer.
#[derive(Serialize)]
pub(crate) struct Completion {
    #[serde(flatten)]
    pub head: Head,
    pub choices: Vec<Choice>,
    pub usage: Usage,
    /// Absent unless asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_logprobs: Option<PromptLogprobs>,
    /// The same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_token_ids: Option<Vec<u32>>,
}

#[derive(Serialize)]
pub(crate) struct Choice {
    index: usize,
    message: AnswerMessage,
    logprobs: Option<ChatLogprobs>,
    finish_reason: &'static str,
    stop_reason: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Vec<u32>>,
}

#[derive(Serialize)]
struct AnswerMessage {
    role: &'static str,
    content: Option<String>,
    refusal: Option<()>,
    /// What the model thought, under both names that clients look for.
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall>,
}

#[derive(Serialize)]
struct ToolCall {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    function: Function,
}

#[derive(Serialize)]
struct Function {
    name: String,
    arguments: String,
}

/// A piece of an answer.
#[derive(Serialize)]
pub(crate) struct Chunk<'a> {
    #[serde(flatten)]
    pub head: &'a Head,
    pub choices: Vec<ChunkChoice>,
    /// Absent unless asked for; then `null` in all chunks but the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<Usage>>,
    /// In the first chunk, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_token_ids: Option<Vec<u32>>,
}

#[derive(Serialize)]
pub(crate) struct ChunkChoice {
    pub index: usize,
    pub delta: Delta,
    pub logprobs: Option<ChatLogprobs>,
    pub finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_ids: Option<Vec<u32>>,
}

/// What a piece adds to a message.
#[derive(Clone, Default, PartialEq, Serialize)]
pub(crate) struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<CallDelta>,
}

#[derive(Clone, PartialEq, Serialize)]
struct CallDelta {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    function: FunctionDelta,
}

#[derive(Clone, PartialEq, Serialize)]
struct FunctionDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    arguments: String,
}

impl Delta {
    /// The first one, with what stands before the answer.
    pub fn begin(echo: String) -> Self {
        Self { role: Some("assistant"), ..Self::text(echo) }
    }

    fn text(content: String) -> Self {
        Self { content: Some(content), ..Self::default() }
    }
}

/// An answer on its way.
pub(crate) struct Answer<'a> {
    index: usize,
    served: &'a Served,
    dissection: &'a Dissection,
    parameters: &'a Parameters,
    parts: Parts,
    calls: usize,
    /// Tokens of which no piece has told yet.
    scored: Vec<Scored>,
    ids: Vec<u32>,
    /// Tokens of thoughts.
    pub reasoning_tokens: usize,
}

impl<'a> Answer<'a> {
    pub fn new(index: usize, served: &'a Served, dissection: &'a Dissection, parameters: &'a Parameters) -> Self {
        let parts = dissection.parts();
        Self {
            index,
            served,
            dissection,
            parameters,
            parts,
            calls: 0,
            scored: vec![],
            ids: vec![],
            reasoning_tokens: 0,
        }
    }

    /// The choices of chunks for what a generation yields.
    pub fn take(&mut self, piece: Piece) -> Vec<ChunkChoice> {
        let mut deltas = vec![];
        let mut ended = None;
        match piece {
            Piece::Prompt(_) => {}
            Piece::Text(text, scored, ids) => {
                if self.parts.thinks() {
                    self.reasoning_tokens += ids.len();
                }
                self.scored.extend(scored);
                self.ids.extend(ids);
                let parts = self.parts.text(&text);
                deltas = self.deltas(parts);
            }
            Piece::Mark(mark) => {
                let parts = self.parts.mark(&mark);
                deltas = self.deltas(parts);
            }
            Piece::End(ending) => {
                let parts = self.parts.finish();
                deltas = self.deltas(parts);
                ended = Some(ending);
            }
        }
        let mut choices: Vec<ChunkChoice> = deltas.into_iter().map(|delta| self.choice(delta, None)).collect();
        if let Some(ending) = ended {
            choices.push(self.choice(Delta::default(), Some(ending)));
        }
        choices
    }

    fn choice(&mut self, delta: Delta, ending: Option<Ending>) -> ChunkChoice {
        let scored = std::mem::take(&mut self.scored);
        let ids = std::mem::take(&mut self.ids);
        let scored = scored.iter().map(|scored| (scored.id, &scored.logprobs));
        let (tokenizer, named) = (self.served.ability.tokenizer(), self.parameters.token_ids.named);
        let wanted = self.parameters.logprobs.is_some() && scored.len() > 0;
        ChunkChoice {
            index: self.index,
            delta,
            logprobs: wanted.then(|| ChatLogprobs::new(tokenizer, named, scored)),
            finish_reason: ending.as_ref().map(|ending| self.finish_reason(ending)),
            stop_reason: ending.as_ref().map(|ending| self.parameters.stop_reason(ending)),
            token_ids: self.parameters.token_ids.beside.then_some(ids),
        }
    }

    fn finish_reason(&self, ending: &Ending) -> &'static str {
        match ending.reason {
            FinishReason::Stop if self.calls > 0 && !self.dissection.is_named() => "tool_calls",
            reason => reason.as_str(),
        }
    }

    fn deltas(&mut self, parts: Vec<Part>) -> Vec<Delta> {
        let mut deltas: Vec<Delta> = vec![];
        for part in self.dissection.shown(parts) {
            let delta = match part {
                Part::Reasoning(text) => {
                    Delta { reasoning_content: Some(text.clone()), reasoning: Some(text), ..Delta::default() }
                }
                Part::Text(text) => Delta::text(text),
                Part::Call { name, id } => {
                    self.calls += 1;
                    let function = FunctionDelta { name: Some(name), arguments: String::new() };
                    let id = Some(id.unwrap_or_else(|| self.dissection.new_call_id()));
                    Delta { tool_calls: vec![self.call(id, Some("function"), function)], ..Delta::default() }
                }
                Part::Arguments(arguments) => {
                    let function = FunctionDelta { name: None, arguments };
                    Delta { tool_calls: vec![self.call(None, None, function)], ..Delta::default() }
                }
            };
            deltas.push(delta);
        }
        deltas
    }

    fn call(&self, id: Option<String>, kind: Option<&'static str>, function: FunctionDelta) -> CallDelta {
        CallDelta { index: self.calls.saturating_sub(1), id, kind, function }
    }
}

/// Chunks' choices put together again.
pub(crate) struct Gathered {
    message: AnswerMessage,
    logprobs: Option<ChatLogprobs>,
    token_ids: Option<Vec<u32>>,
    finish_reason: &'static str,
    stop_reason: Value,
}

impl Gathered {
    /// Nothing yet but what stands before the answer.
    pub fn new(echo: &str, parameters: &Parameters) -> Self {
        let message = AnswerMessage {
            role: "assistant",
            content: Some(echo.to_string()),
            refusal: None,
            reasoning_content: None,
            reasoning: None,
            tool_calls: vec![],
        };
        let logprobs = parameters.logprobs.map(|_| ChatLogprobs::default());
        let token_ids = parameters.token_ids.beside.then(Vec::new);
        Self { message, logprobs, token_ids, finish_reason: "stop", stop_reason: Value::Null }
    }

    pub fn take(&mut self, choice: ChunkChoice) {
        let Delta { content, reasoning_content, tool_calls, .. } = choice.delta;
        let message = &mut self.message;
        let append = |to: &mut Option<String>, text: Option<String>| {
            if let Some(text) = text {
                to.get_or_insert_default().push_str(&text);
            }
        };
        append(&mut message.content, content);
        append(&mut message.reasoning_content, reasoning_content.clone());
        append(&mut message.reasoning, reasoning_content);
        for call in tool_calls {
            if let Some(name) = call.function.name {
                let function = Function { name, arguments: String::new() };
                message.tool_calls.push(ToolCall { id: call.id.unwrap_or_default(), kind: "function", function });
            }
            if let Some(last) = message.tool_calls.last_mut() {
                last.function.arguments += &call.function.arguments;
            }
        }
        if let (Some(all), Some(some)) = (&mut self.logprobs, choice.logprobs) {
            all.extend(some);
        }
        if let (Some(all), Some(some)) = (&mut self.token_ids, choice.token_ids) {
            all.extend(some);
        }
        self.finish_reason = choice.finish_reason.unwrap_or(self.finish_reason);
        if let Some(reason) = choice.stop_reason {
            self.stop_reason = reason;
        }
    }

    pub fn choice(mut self, index: usize) -> Choice {
        // Who only calls tools says nothing.
        if !self.message.tool_calls.is_empty() && self.message.content.as_deref() == Some("") {
            self.message.content = None;
        }
        Choice {
            index,
            message: self.message,
            logprobs: self.logprobs,
            finish_reason: self.finish_reason,
            stop_reason: self.stop_reason,
            token_ids: self.token_ids,
        }
    }
}
