//! A conversation on its way to the engine: its prompt, what the answer must be, and how the answer is to be taken
//! apart. Knows no wire format of answers.

use super::{
    ability,
    messages::read_messages,
    parameters::{Parameters, not_a_form},
    refusal::unanswered,
    tools::{AskedTools, Choice, read_tools},
};
use crate::{Limits, Served};
use narthex_answer::{ChatPrompt, Either, Form, Part, Parts, Spacing, TextModel, Thinking, Thoughts, prepared_schema};
use narthex_base::{Message, Role};
use narthex_http::{ApiError, Fields, entropy};
use narthex_infer::{Constraint, Request};
use narthex_text::{
    ChatInput,
    calls::{self, CallSyntax, Tool, Wanted},
    thought_marks,
};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// A conversation that has been read and understood.
pub(crate) struct Conversing {
    pub parameters: Parameters,
    pub requests: Vec<Request>,
    pub prompt: Vec<u32>,
    /// How its answers are taken apart.
    pub dissection: Dissection,
    /// What stands before each answer.
    pub echo: String,
}

/// How answers are taken apart.
pub(crate) struct Dissection {
    thinking: Option<Thinking>,
    calls: Option<Calls>,
    /// Whether thoughts are part of the answer.
    shows_thoughts: bool,
    /// Tokens of the model that are marks, by their spelling.
    model: TextModel,
}

struct Calls {
    syntax: &'static dyn CallSyntax,
    tools: Vec<Tool>,
    /// Whether the grammar sees to it that calls are whole.
    sure: bool,
    named: bool,
}

/// The part of a request that says how its conversation is rendered.
pub(crate) struct Rendering {
    messages: Vec<Message>,
    documents: Vec<Value>,
    add_generation_prompt: bool,
    continues: bool,
    special: bool,
    others: Map<String, Value>,
}

impl Rendering {
    /// Reads what chat completions and tokenizing share.
    pub fn read(fields: &mut Fields, limits: &Limits) -> Result<Self, ApiError> {
        let messages = read_messages(fields, limits)?;
        let continues = fields.flag("continue_final_message")?.unwrap_or(false);
        let add_generation_prompt = fields.flag("add_generation_prompt")?;
        if continues && add_generation_prompt == Some(true) {
            let message = "`continue_final_message` and `add_generation_prompt` exclude each other: set one";
            return Err(ApiError::field("continue_final_message", message));
        }
        let special = fields.flag("add_special_tokens")?.unwrap_or(false);
        let documents = match fields.take("documents") {
            None => vec![],
            Some(Value::Array(list)) if list.iter().all(Value::is_object) => list,
            Some(_) => return Err(ApiError::field("documents", "`documents` must be a list of objects")),
        };
        fields.unsupported("chat_template", &[])?;
        let mut others = match fields.take("chat_template_kwargs") {
            None => Map::new(),
            Some(Value::Object(map)) => map,
            Some(_) => return Err(ApiError::field("chat_template_kwargs", "`chat_template_kwargs` must be an object")),
        };
        if let Some(effort) = fields.string("reasoning_effort")? {
            if effort == "none" {
                others.entry("enable_thinking").or_insert(Value::Bool(false));
            }
            others.entry("reasoning_effort").or_insert(effort.into());
        }
        let add_generation_prompt = add_generation_prompt.unwrap_or(!continues);
        Ok(Self { messages, documents, add_generation_prompt, continues, special, others })
    }

    /// Whether the tokenizer adds what it puts around a text.
    pub fn adds_special(&self) -> bool {
        self.special
    }

    /// The conversation as the model reads it, with these tools.
    pub fn prompt(&self, model: &TextModel, tools: &[Value]) -> Result<ChatPrompt, narthex_answer::AnswerError> {
        let template = model.template.as_ref();
        let knows_tools = template.is_some_and(|template| calls::of_template(template.source()).is_some());
        let called = self.messages.iter().any(|message| message.role == Role::Tool || !message.tool_calls.is_empty());
        let listed = (!knows_tools && (called || !tools.is_empty())).then(|| with_list(&self.messages, tools));
        let input = ChatInput {
            messages: listed.as_deref().unwrap_or(&self.messages),
            tools: if knows_tools { tools } else { &[] },
            documents: &self.documents,
            add_generation_prompt: self.add_generation_prompt,
            others: Some(&self.others),
        };
        model.chat_text(&input, self.continues, self.special)
    }
}

/// The messages with a list of the tools, for templates that know none: calls and results become text.
fn with_list(messages: &[Message], tools: &[Value]) -> Vec<Message> {
    let functions: Vec<String> = tools.iter().map(|tool| tool.get("function").unwrap_or(tool).to_string()).collect();
    let list = format!(
        "You can call these tools:\n{}\n\nTo call them, answer with a JSON list and nothing else:\n\
         [{{\"name\": \"the tool's name\", \"arguments\": {{…}}}}]",
        functions.join("\n")
    );
    let mut with = Vec::with_capacity(messages.len() + 1);
    let mut rest = messages;
    match messages.split_first() {
        _ if tools.is_empty() => {}
        Some((first, others)) if first.role == Role::System => {
            with.push(Message::new(Role::System, format!("{}\n\n{list}", first.text())));
            rest = others;
        }
        _ => with.push(Message::new(Role::System, list)),
    }
    with.extend(rest.iter().map(|message| match message.role {
        Role::Assistant if !message.tool_calls.is_empty() => {
            let calls = message.tool_calls.iter().map(|call| {
                let arguments = serde_json::from_str(&call.function.arguments).unwrap_or_else(|_| json!({}));
                json!({"name": call.function.name, "arguments": arguments})
            });
            Message::new(Role::Assistant, Value::Array(calls.collect()).to_string())
        }
        Role::Tool => Message::new(Role::User, format!("The tool says: {}", message.text())),
        _ => message.clone(),
    }));
    with
}

impl Conversing {
    /// Reads a request to chat completions.
    pub fn read(mut fields: Fields, model: &Served, limits: &Limits) -> Result<Self, ApiError> {
        let mut parameters = Parameters::read(&mut fields, model, limits)?;
        parameters.logprobs = read_logprobs(&mut fields, limits)?;
        let max_tokens = read_max_tokens(&mut fields)?;
        parameters.check_tokens(max_tokens)?;
        parameters.check_beams()?;
        let rendering = Rendering::read(&mut fields, limits)?;
        let asked = read_tools(&mut fields, limits)?;
        if parameters.beams.is_some() && asked.is_some() {
            return Err(ApiError::field("tools", "`tools` and `use_beam_search` exclude each other"));
        }
        let shows_thoughts = fields.flag("include_reasoning")?.unwrap_or(true);
        let budget = fields.integer("thinking_token_budget", 0..=i64::MAX)?;
        let budget = budget.map(|tokens| usize::try_from(tokens).unwrap_or(usize::MAX));
        let echoes = fields.flag("echo")?.unwrap_or(false);
        refuse_unsupported(&mut fields)?;
        fields.finish()?;

        let ability = ability::text(model)?;
        let text = &ability.model;
        let broken = |error| unanswered(error, &model.id, "messages");
        let shown = asked.as_ref().map_or(&[][..], |asked| &asked.shown);
        let prompt = rendering.prompt(text, shown).map_err(broken)?;
        let thinking = expected_thoughts(text, &prompt.text, &rendering);
        let constraint = parameters.constraint(text)?;
        let (calls, constraint) = match asked {
            Some(asked) => {
                if parameters.form.is_some() && matches!(asked.choice, Choice::Named(_)) {
                    let message = "`tool_choice` names a tool, so the answer cannot have another form too";
                    return Err(ApiError::field("tool_choice", message));
                }
                let (calls, constraint) = constrained_calls(asked, constraint, text, ability.call_parser.as_deref())?;
                (Some(calls), constraint)
            }
            None => (None, constraint),
        };
        parameters.reading.marks = calls.is_some() || thinking.as_ref().is_some_and(|thinking| thinking.as_marks);
        let thinking = thinking.map(|thinking| Thinking {
            as_marks: thinking.as_marks && (parameters.reading.skip_special || calls.is_some()),
            ..thinking
        });
        if calls.is_none() && !parameters.reading.skip_special {
            parameters.reading.marks = false;
        }
        let constraint = behind_thoughts(text, thinking.as_ref().filter(|_| shows_thoughts), budget, constraint);
        let ids = parameters.kept(prompt.ids);
        let (tokens, context) = (ids.len(), text.engine.context());
        if tokens >= context {
            return Err(broken(narthex_answer::AnswerError::Full { tokens, context }));
        }
        let room = context - tokens;
        let request = parameters.request(text, ids.clone(), max_tokens.map_or(room, |most| most.min(room)));
        let requests = parameters.requests(0, &Request { constraint, ..request });
        let echo = rendering.messages.last().filter(|last| echoes && last.role == Role::Assistant);
        let echo = echo.map(|last| last.text().into_owned()).unwrap_or_default();
        let dissection = Dissection { thinking, calls, shows_thoughts, model: text.clone() };
        Ok(Self { parameters, requests, prompt: ids, dissection, echo })
    }
}

impl Dissection {
    /// For a new answer.
    pub fn parts(&self) -> Parts {
        let tokenizer = &self.model.tokenizer;
        let token = |mark: &str| tokenizer.token_id(mark).filter(|id| tokenizer.is_mark(*id));
        let reader = self.calls.as_ref().map(|calls| calls.syntax.reader(&calls.tools, &token, calls.sure));
        Parts::new(self.thinking.clone(), reader)
    }

    /// What of the parts is part of the answer.
    pub fn shown(&self, parts: Vec<Part>) -> impl Iterator<Item = Part> {
        let shows = self.shows_thoughts;
        parts.into_iter().filter(move |part| shows || !matches!(part, Part::Reasoning(_)))
    }

    /// A name for a call to which the model gave none.
    pub fn new_call_id(&self) -> String {
        self.calls.as_ref().map(|calls| calls.syntax.new_id(entropy())).unwrap_or_default()
    }

    /// Whether the request named the tool that is called.
    pub fn is_named(&self) -> bool {
        self.calls.as_ref().is_some_and(|calls| calls.named)
    }
}

/// The thoughts that may come first, by the template and by how the prompt ends.
fn expected_thoughts(model: &TextModel, prompt: &str, rendering: &Rendering) -> Option<Thinking> {
    let (open, close) = thought_marks(model.template.as_ref()?.source())?;
    if rendering.continues || !rendering.add_generation_prompt {
        return None;
    }
    let end = prompt.trim_end();
    if end.ends_with(close) {
        return None;
    }
    let is_mark = |mark: &str| model.tokenizer.token_id(mark).is_some_and(|id| model.tokenizer.is_mark(id));
    let as_marks = is_mark(open) && is_mark(close);
    Some(Thinking { open: open.into(), close: close.into(), begun: end.ends_with(open), as_marks })
}

/// A constraint that begins when the thoughts have ended.
fn behind_thoughts(
    model: &TextModel,
    thinking: Option<&Thinking>,
    budget: Option<usize>,
    constraint: Option<Arc<dyn Constraint>>,
) -> Option<Arc<dyn Constraint>> {
    let Some(thinking) = thinking.filter(|_| constraint.is_some() || budget.is_some()) else { return constraint };
    let marks = (thinking.open.as_str(), thinking.close.as_str());
    let budget = budget.unwrap_or(usize::MAX);
    Some(Arc::new(Thoughts::new(&model.tokenizer, marks, thinking.begun, budget, constraint)))
}

/// How calls are read, and the constraint that makes them whole; beside the form that was asked for, if the model may
/// answer in it instead.
fn constrained_calls(
    asked: AskedTools,
    form: Option<Arc<dyn Constraint>>,
    model: &TextModel,
    parser: Option<&str>,
) -> Result<(Calls, Option<Arc<dyn Constraint>>), ApiError> {
    let source = model.template.as_ref().map_or("", |template| template.source());
    let found = match parser {
        Some(name) => calls::by_name(name),
        None => calls::of_template(source).or_else(|| calls::by_name("json")),
    };
    let syntax = found.ok_or_else(|| ApiError::internal("there is no such way of writing calls"))?;
    let mut tools = asked.tools;
    for (at, tool) in tools.iter_mut().enumerate() {
        let field = format!("tools[{at}].function.parameters");
        let honoured = prepared_schema(&tool.parameters, &Spacing::default()).and_then(|mut prepared| {
            model.constraints.of(&Form::Schema(tool.parameters.clone(), Spacing::default()))?;
            if let Value::Object(map) = &mut prepared {
                map.shift_remove("x-guidance");
            }
            Ok(prepared)
        });
        match honoured {
            Ok(prepared) => tool.parameters = prepared,
            Err(error) if tool.strict => return Err(not_a_form(&field, &error)),
            // The arguments are an object at least.
            Err(error) if error.what().contains("supported") => tool.parameters = json!({"type": "object"}),
            Err(error) => return Err(not_a_form(&field, &error)),
        }
    }
    let tokenizer = &model.tokenizer;
    let token = |mark: &str| tokenizer.token_id(mark).filter(|id| tokenizer.is_mark(*id));
    let grammar = |wanted| {
        let lark = syntax.grammar(&tools, wanted, &token);
        model.constraints.of(&Form::Lark(lark))
    };
    let named = matches!(asked.choice, Choice::Named(_));
    let parallel = asked.parallel && !named;
    let made = match (&asked.choice, &form) {
        (Choice::Auto, None) => grammar(Wanted { least: 0, parallel }),
        _ => grammar(Wanted { least: 1, parallel }),
    };
    let (constraint, sure): (Option<Arc<dyn Constraint>>, bool) = match (made, asked.choice, form) {
        (Ok(made), Choice::Auto, Some(form)) => (Some(Arc::new(Either(vec![made, form]))), true),
        (Ok(made), ..) => (Some(made), true),
        // Too much for one grammar: what the model writes is read as far as it can be.
        (Err(_), Choice::Auto, form) => (form, false),
        (Err(error), ..) => return Err(not_a_form("tools", &error)),
    };
    Ok((Calls { syntax, tools, sure, named }, constraint))
}

fn read_logprobs(fields: &mut Fields, limits: &Limits) -> Result<Option<usize>, ApiError> {
    let wanted = fields.flag("logprobs")?.unwrap_or(false);
    match (fields.integer("top_logprobs", 0..=limits.logprobs_max as i64)?, wanted) {
        (Some(0), false) => Ok(None),
        (Some(_), false) => Err(ApiError::field("top_logprobs", "`top_logprobs` needs `logprobs` to be true")),
        (top, true) => Ok(Some(top.unwrap_or(0) as usize)),
        (None, false) => Ok(None),
    }
}

fn read_max_tokens(fields: &mut Fields) -> Result<Option<usize>, ApiError> {
    let old = fields.integer("max_tokens", 1..=i64::MAX)?;
    let new = fields.integer("max_completion_tokens", 1..=i64::MAX)?;
    if old.is_some() && new.is_some() && old != new {
        let message = "`max_tokens` and `max_completion_tokens` differ: set the latter only";
        return Err(ApiError::field("max_tokens", message));
    }
    Ok(new.or(old).map(|tokens| usize::try_from(tokens).unwrap_or(usize::MAX)))
}

/// Fields that would change the answer if we could honour them.
fn refuse_unsupported(fields: &mut Fields) -> Result<(), ApiError> {
    fields.unsupported("modalities", &[json!(["text"])])?;
    fields.unsupported("best_of", &[json!(1)])?;
    for field in ["audio", "web_search_options", "moderation", "mm_processor_kwargs"] {
        fields.unsupported(field, &[])?;
    }
    // A guess at the answer and a wish for its length: neither changes what may come.
    fields.take("prediction");
    fields.take("verbosity");
    Ok(())
}

#[cfg(test)]
mod tests;
