//! A completion in llama-server's form: one object, a list of several, or a stream of pieces. Knows nothing of
//! requests.

use super::{
    error,
    prompt::{Prompt, Tokens},
    settings::Settings,
};
use crate::dialects::{Event, clock::Spent, completion::Used, passing::Ignored};
use narthex_http::ApiError;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// vLLM's spelling of tokens by their ids, which the request asks for.
const ID_PREFIX: &str = "token_id:";

/// Makes the answer to one request.
pub struct Answering {
    model: String,
    settings: Settings,
    ignored: Ignored,
    prompts: Vec<ShownPrompt>,
    choices: Vec<Choice>,
    used: Used,
}

struct ShownPrompt {
    text: String,
    /// Tokens, where there are several prompts; the usage tells those of a single one.
    count: usize,
}

/// What is known of one choice so far.
#[derive(Clone)]
struct Choice {
    text: String,
    ids: Vec<u32>,
    scored: usize,
    probabilities: Vec<Value>,
    stop_type: &'static str,
    stopping_word: String,
}

impl Answering {
    pub(super) fn new(
        model: String,
        prompts: Vec<Prompt>,
        settings: Settings,
        ignored: Ignored,
        tokens: &dyn Tokens,
    ) -> Result<Self, ApiError> {
        let is_single = prompts.len() == 1;
        let shown = |prompt: &Prompt| {
            let count = if is_single { 0 } else { prompt.ids(tokens)?.len() };
            Ok(ShownPrompt { text: prompt.text(tokens), count })
        };
        let prompts = prompts.iter().map(shown).collect::<Result<Vec<_>, ApiError>>()?;
        Ok(Self { model, settings, ignored, prompts, choices: vec![], used: Used::default() })
    }

    /// Makes room for what was asked for, which our endpoint has checked by the time it answers.
    fn prepare(&mut self) {
        let choice = Choice {
            text: String::new(),
            ids: vec![],
            scored: 0,
            probabilities: vec![],
            stop_type: "none",
            stopping_word: String::new(),
        };
        self.choices.resize(self.prompts.len() * self.settings.n, choice);
    }

    /// Whether the answer is a stream.
    pub fn streams(&self) -> bool {
        self.settings.stream
    }

    /// The request's fields that nobody knows, and those that change nothing here.
    pub fn ignored(&self) -> &Ignored {
        &self.ignored
    }

    /// The answer from a whole completion: a list if there are several choices.
    pub fn whole(mut self, completion: &Value, tokens: &dyn Tokens, spent: &Spent) -> Value {
        self.prepare();
        self.used = Used::of(completion).unwrap_or_default();
        for choice in completion["choices"].as_array().map_or(&[][..], Vec::as_slice) {
            self.collect(choice, tokens);
        }
        let mut finals: Vec<Value> = (0..self.choices.len()).map(|index| self.last(index, spent)).collect();
        if finals.len() == 1 { finals.remove(0) } else { finals.into() }
    }

    /// What a stream begins with.
    pub fn begin(&mut self) -> Vec<Event> {
        vec![]
    }

    /// What one chunk brings.
    pub fn piece(&mut self, chunk: &Value, tokens: &dyn Tokens) -> Vec<Event> {
        self.prepare();
        self.used = Used::of(chunk).unwrap_or(self.used);
        let choices = chunk["choices"].as_array().map_or(&[][..], Vec::as_slice);
        choices.iter().filter_map(|choice| self.collect(choice, tokens)).map(Event::plain).collect()
    }

    /// After the last chunk.
    pub fn end(&mut self, spent: &Spent) -> Vec<Event> {
        self.prepare();
        (0..self.choices.len()).map(|index| Event::plain(self.last(index, spent))).collect()
    }

    /// The stream failed: an OpenAI error object.
    pub fn broken(&mut self, object: &Value) -> Vec<Event> {
        vec![Event::plain(error(500, object))]
    }

    /// Keeps what a choice says. Returns the piece of a stream that shows it, if there is anything to show.
    fn collect(&mut self, choice: &Value, tokens: &dyn Tokens) -> Option<Value> {
        let index = choice["index"].as_u64().unwrap_or(0) as usize;
        let text = choice["text"].as_str().unwrap_or("");
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids: Vec<u32> = choice["token_ids"].as_array().map_or(vec![], |list| list.iter().filter_map(id).collect());
        let probabilities = probabilities(&choice["logprobs"], tokens);
        let known = self.choices.get_mut(index)?;
        known.text += text;
        known.ids.extend(&ids);
        known.scored += probabilities.len();
        if let Some(finish) = choice["finish_reason"].as_str() {
            let word = choice["stop_reason"].as_str().filter(|_| finish != "length");
            known.stopping_word = word.unwrap_or("").into();
            known.stop_type = match (finish, word) {
                ("length", _) => "limit",
                (_, Some(_)) => "word",
                _ => "eos",
            };
        }
        let mut piece = Map::new();
        let is_empty = text.is_empty() && ids.is_empty() && probabilities.is_empty();
        piece.insert("index".into(), index.into());
        piece.insert("content".into(), text.into());
        piece.insert("tokens".into(), ids.into());
        piece.insert("stop".into(), false.into());
        piece.insert("tokens_predicted".into(), known.count().into());
        if !probabilities.is_empty() {
            piece.insert("completion_probabilities".into(), probabilities.clone().into());
        }
        if !self.settings.stream {
            known.probabilities.extend(probabilities);
        }
        (!is_empty).then_some(piece.into())
    }

    /// The object that ends a choice: all of it, or, in a stream, all but its text.
    fn last(&self, index: usize, spent: &Spent) -> Value {
        let (choice, prompt) = (&self.choices[index], &self.prompts[index / self.settings.n]);
        let is_single = self.choices.len() == 1;
        let read = if self.prompts.len() == 1 { self.used.prompt } else { prompt.count as u64 };
        let written = if is_single && self.used.answer > 0 { self.used.answer } else { choice.count() as u64 };
        let cached = if self.prompts.len() == 1 { self.used.cached } else { 0 };
        let is_whole = !self.settings.stream;
        let ids = if is_whole && self.settings.return_tokens { &choice.ids[..] } else { &[] };
        let mut last = Map::new();
        last.insert("index".into(), index.into());
        last.insert("content".into(), if is_whole { choice.text.as_str() } else { "" }.into());
        last.insert("tokens".into(), ids.into());
        last.insert("id_slot".into(), 0.into());
        last.insert("stop".into(), true.into());
        last.insert("model".into(), self.model.clone().into());
        last.insert("tokens_predicted".into(), written.into());
        last.insert("tokens_evaluated".into(), read.into());
        last.insert("generation_settings".into(), self.settings.shown.clone().into());
        last.insert("prompt".into(), prompt.text.clone().into());
        last.insert("has_new_line".into(), choice.text.contains('\n').into());
        // Prompts that are too long are refused, and answers end with the context.
        last.insert("truncated".into(), false.into());
        last.insert("stop_type".into(), choice.stop_type.into());
        last.insert("stopping_word".into(), choice.stopping_word.clone().into());
        last.insert("tokens_cached".into(), cached.into());
        last.insert("timings".into(), timings(read, cached, written, spent));
        if !choice.probabilities.is_empty() {
            last.insert("completion_probabilities".into(), choice.probabilities.clone().into());
        }
        picked(last, &self.settings.response_fields)
    }
}

impl Choice {
    /// Tokens, as far as the completion told them.
    fn count(&self) -> usize {
        self.ids.len().max(self.scored)
    }
}

fn timings(read: u64, cached: u64, written: u64, spent: &Spent) -> Value {
    let read = read - cached.min(read);
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let part = |whole: f64, count: f64| if count > 0.0 { whole / count } else { 0.0 };
    let (prompt_ms, answer_ms) = (milliseconds(spent.prompt), milliseconds(spent.answer));
    json!({
        "cache_n": cached,
        "prompt_n": read,
        "prompt_ms": prompt_ms,
        "prompt_per_token_ms": part(prompt_ms, read as f64),
        "prompt_per_second": part(read as f64 * 1e3, prompt_ms),
        "predicted_n": written,
        "predicted_ms": answer_ms,
        "predicted_per_token_ms": part(answer_ms, written as f64),
        "predicted_per_second": part(written as f64 * 1e3, answer_ms),
    })
}

/// `completion_probabilities` of a completion's four lists.
fn probabilities(logprobs: &Value, tokens: &dyn Tokens) -> Vec<Value> {
    let list = |field: &str| logprobs[field].as_array().map_or(&[][..], Vec::as_slice);
    let (names, scores, tops) = (list("tokens"), list("token_logprobs"), list("top_logprobs"));
    let entry = |(place, name): (usize, &Value)| {
        let mut entry = token(name.as_str().unwrap_or(""), scores.get(place).unwrap_or(&Value::Null), tokens);
        let top = tops.get(place).and_then(Value::as_object);
        let top = top.map_or(vec![], |top| top.iter().map(|(name, score)| token(name, score, tokens).into()).collect());
        entry.insert("top_logprobs".into(), Value::Array(top));
        entry.into()
    };
    names.iter().enumerate().map(entry).collect()
}

/// A token with its score. One that is not spelled by its id has none.
fn token(name: &str, score: &Value, tokens: &dyn Tokens) -> Map<String, Value> {
    let id: Option<u32> = name.strip_prefix(ID_PREFIX).and_then(|id| id.parse().ok());
    let bytes = id.map_or_else(|| name.as_bytes().to_vec(), |id| tokens.bytes(id));
    // A character that is not whole yet shows nothing.
    let text = match std::str::from_utf8(&bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or(""),
    };
    let mut entry = Map::new();
    entry.insert("id".into(), id.into());
    entry.insert("token".into(), text.into());
    entry.insert("bytes".into(), bytes.clone().into());
    entry.insert("logprob".into(), score.clone());
    entry
}

/// The fields that were asked for, under the names that were asked for; `a/b` is within `a`.
fn picked(whole: Map<String, Value>, names: &[String]) -> Value {
    let whole = Value::Object(whole);
    if names.is_empty() {
        return whole;
    }
    let find = |name: &String| {
        let found = name.split('/').try_fold(&whole, |value, part| value.get(part))?;
        Some((name.clone(), found.clone()))
    };
    Value::Object(names.iter().filter_map(find).collect())
}
