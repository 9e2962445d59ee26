//! `POST /v1/completions` (<https://platform.openai.com/docs/api-reference/completions>).

use super::{
    ability,
    chunks::Chunks,
    generating::{self, Operation},
    head::Head,
    logprobs::{CompletionLogprobs, PromptLogprobs},
    parameters::Parameters,
    refusal::unanswered,
    usage::Usage,
};
use crate::{
    Limits, Served,
    app::{Addressed, App},
};
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use narthex_answer::{Ending, Generation, Piece, Scored, Whole};
use narthex_http::{ApiError, Exchange, Fields, event_stream};
use narthex_infer::{Request, TokenLogprobs};
use narthex_text::{TextStream, Tokenizer};
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;

/// What OpenAI documents as the default of `max_tokens`.
const MAX_TOKENS_DEFAULT: usize = 16;

/// A request that has been read and understood.
struct Call {
    parameters: Parameters,
    prompts: Vec<Prompt>,
    requests: Vec<Request>,
    /// Prompts are part of the answer.
    echo: bool,
    /// The scores of prompts are.
    scores_prompt: bool,
}

/// A prompt as text and as tokens.
#[derive(Clone)]
struct Prompt {
    text: String,
    ids: Vec<u32>,
}

#[derive(Serialize)]
pub(crate) struct Completion {
    #[serde(flatten)]
    head: Head,
    choices: Vec<Choice>,
    usage: Usage,
}

#[derive(Serialize)]
struct Chunk<'a> {
    #[serde(flatten)]
    head: &'a Head,
    choices: Vec<Choice>,
    /// Absent unless asked for; then `null` in all chunks but the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
}

#[derive(Serialize)]
struct Choice {
    text: String,
    index: usize,
    logprobs: Option<CompletionLogprobs>,
    finish_reason: Option<&'static str>,
    /// What ended it, if the request named it.
    stop_reason: Value,
    /// Absent unless asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Vec<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<Vec<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<PromptLogprobs>,
}

/// Continues prompts.
pub(crate) async fn create(Addressed { app, exchange, fields }: Addressed) -> Result<Response, ApiError> {
    let continuation = Continuation::begin(app, exchange, fields).await?;
    if continuation.streams() {
        return Ok(event_stream(async move |mut events| continuation.stream(&mut events).await));
    }
    Ok(Json(continuation.whole().await?).into_response())
}

/// Prompts that the engine has taken.
pub(crate) struct Continuation {
    app: App,
    head: Head,
    generation: Generation,
    call: Call,
    /// What a search begins with: a request for each choice.
    searched: Vec<Request>,
}

impl Continuation {
    /// Reads a request and hands it to the engine.
    pub async fn begin(app: App, exchange: Arc<Exchange>, fields: Fields) -> Result<Self, ApiError> {
        let (model, limits) = (app.model.clone(), app.shared.limits.clone());
        // Long prompts take a while to tokenize; other answers go on meanwhile.
        let call = tokio::task::spawn_blocking(move || read(fields, &model, &limits)).await;
        let mut call = call.map_err(|error| ApiError::internal(error.to_string()))??;
        let head = Head::new(
            "cmpl",
            "text_completion",
            &app.model,
            &call.parameters.model,
            call.parameters.request_id.as_deref(),
        );
        let requests = std::mem::take(&mut call.requests);
        // A search asks the engine by itself.
        let (requests, searched) =
            if call.parameters.beams.is_some() { (vec![], requests) } else { (requests, vec![]) };
        let generation = generating::start(&app, exchange, Operation::Completion, &head, &call.parameters, requests)?;
        Ok(Self { app, head, generation, call, searched })
    }

    /// Whether the answer is wanted piece by piece.
    pub fn streams(&self) -> bool {
        self.call.parameters.stream
    }

    /// The whole answer.
    pub async fn whole(self) -> Result<Completion, ApiError> {
        let Self { app, head, mut generation, call, searched } = self;
        let broken = |error| unanswered(error, &app.model.id, "prompt");
        let mut wholes = generation.wholes().await.map_err(broken)?;
        let mut usage = call.usage(&generation);
        if let Some(search) = call.parameters.beams {
            let text = &ability::text(&app.model)?.model;
            for request in searched.iter().step_by(call.parameters.n) {
                wholes.extend(search.run(text, request).await.map_err(broken)?.0);
            }
            let written = wholes.iter().map(|whole| whole.ids.len()).sum();
            usage = Usage::new(call.prompts.iter().map(|prompt| prompt.ids.len()).sum(), written);
        }
        let tokenizer = app.model.ability.tokenizer();
        let choices = wholes.into_iter().enumerate().map(|(index, whole)| call.choice(tokenizer, index, whole));
        let choices = choices.collect::<Result<_, _>>()?;
        Ok(Completion { head, choices, usage })
    }

    /// The answer piece by piece.
    pub async fn stream(self, chunks: &mut impl Chunks) -> Result<(), ApiError> {
        let Self { app, head, generation, call, .. } = self;
        stream(app, head, generation, call, chunks).await
    }
}

impl Call {
    fn prompt(&self, index: usize) -> &Prompt {
        &self.prompts[index / self.parameters.n]
    }

    /// Characters before the answer in a choice's text.
    fn echo_chars(&self, index: usize) -> usize {
        if self.echo { self.prompt(index).text.chars().count() } else { 0 }
    }

    /// A prompt counts once, however many choices continue it.
    fn usage(&self, generation: &Generation) -> Usage {
        let prompt_tokens = self.prompts.iter().map(|prompt| prompt.ids.len()).sum();
        let cached = (0..self.prompts.len()).map(|prompt| generation.cached_tokens(prompt * self.parameters.n)).sum();
        Usage::new(prompt_tokens, generation.completion_tokens()).with_cached(cached)
    }

    fn choice(&self, tokenizer: &Tokenizer, index: usize, whole: Whole) -> Result<Choice, ApiError> {
        let mut text = if self.echo { self.prompt(index).text.clone() } else { String::new() };
        text += &whole.text;
        let mut logprobs = self.parameters.logprobs.map(|_| CompletionLogprobs::default());
        if let Some(logprobs) = &mut logprobs {
            if self.echo {
                push_prompt(logprobs, (tokenizer, self.named()), &self.prompt(index).ids, &whole.prompt)?;
            }
            push_answer(logprobs, (tokenizer, self.named()), &whole.scored, self.echo_chars(index));
        }
        let (parameters, ids) = (&self.parameters, &self.prompt(index).ids);
        Ok(Choice {
            text,
            index,
            logprobs,
            finish_reason: Some(whole.ending.reason.as_str()),
            stop_reason: parameters.stop_reason(&whole.ending),
            token_ids: parameters.token_ids.beside.then_some(whole.ids),
            prompt_token_ids: parameters.token_ids.beside.then(|| ids.clone()),
            prompt_logprobs: self.scores_prompt.then(|| PromptLogprobs::new(tokenizer, ids, &whole.prompt)),
        })
    }

    /// Whether tokens are named by their ids.
    fn named(&self) -> bool {
        self.parameters.token_ids.named
    }
}

fn push_answer(
    logprobs: &mut CompletionLogprobs,
    tokenizer: (&Tokenizer, bool),
    scored: &[Scored],
    before_chars: usize,
) {
    for token in scored {
        logprobs.push(tokenizer, token.id, Some(&token.logprobs), before_chars + token.start_chars);
    }
}

fn push_prompt(
    logprobs: &mut CompletionLogprobs,
    (tokenizer, named): (&Tokenizer, bool),
    ids: &[u32],
    scores: &[Option<TokenLogprobs>],
) -> Result<(), ApiError> {
    let mut stream = TextStream::new(tokenizer, true);
    let mut offset_chars = 0;
    for (index, id) in ids.iter().enumerate() {
        logprobs.push((tokenizer, named), *id, scores.get(index).and_then(Option::as_ref), offset_chars);
        let text = stream.push(*id).map_err(|error| ApiError::internal(error.what()))?;
        offset_chars += text.map_or(0, |text| text.chars().count());
    }
    Ok(())
}

async fn stream(
    app: App,
    head: Head,
    mut generation: Generation,
    call: Call,
    events: &mut impl Chunks,
) -> Result<(), ApiError> {
    let wanted = call.parameters.logprobs.is_some();
    let beside = call.parameters.token_ids.beside;
    // Which choices have said something: the first piece of each names the prompt's tokens.
    let mut begun = vec![false; call.prompts.len() * call.parameters.n];
    let mut chunk = |generation: &Generation, index: usize, text, logprobs, ids: Vec<u32>, ending: Option<&Ending>| {
        let first = !std::mem::replace(&mut begun[index], true);
        let choice = Choice {
            text,
            index,
            logprobs,
            finish_reason: ending.map(|ending| ending.reason.as_str()),
            stop_reason: ending.map_or(Value::Null, |ending| call.parameters.stop_reason(ending)),
            token_ids: beside.then_some(ids),
            prompt_token_ids: (beside && first).then(|| call.prompt(index).ids.clone()),
            prompt_logprobs: None,
        };
        let usage = call.parameters.usage.each.then(|| call.usage(generation));
        Chunk { head: &head, choices: vec![choice], usage: call.parameters.usage.last.then_some(usage) }
    };
    if call.echo && !wanted {
        for index in 0..call.prompts.len() * call.parameters.n {
            let text = call.prompt(index).text.clone();
            events.send(&chunk(&generation, index, text, None, vec![], None)).await?;
        }
    }
    let tokenizer = app.model.ability.tokenizer();
    let named = (tokenizer, call.named());
    let broken = |error| unanswered(error, &app.model.id, "prompt");
    while let Some((index, piece)) = generation.next().await.map_err(broken)? {
        let mut logprobs = wanted.then(CompletionLogprobs::default);
        match piece {
            Piece::Prompt(scores) => {
                if let Some(logprobs) = &mut logprobs {
                    push_prompt(logprobs, named, &call.prompt(index).ids, &scores)?;
                }
                let text = call.prompt(index).text.clone();
                events.send(&chunk(&generation, index, text, logprobs, vec![], None)).await?;
            }
            Piece::Text(text, scored, ids) => {
                if let Some(logprobs) = &mut logprobs {
                    push_answer(logprobs, named, &scored, call.echo_chars(index));
                }
                events.send(&chunk(&generation, index, text, logprobs, ids, None)).await?;
            }
            Piece::Mark(_) => {}
            Piece::End(ending) => {
                events.send(&chunk(&generation, index, String::new(), None, vec![], Some(&ending))).await?;
            }
        }
    }
    if call.parameters.usage.last {
        let usage = Some(Some(call.usage(&generation)));
        events.send(&Chunk { head: &head, choices: vec![], usage }).await?;
    }
    Ok(())
}

fn read(mut fields: Fields, model: &Served, limits: &Limits) -> Result<Call, ApiError> {
    let mut parameters = Parameters::read(&mut fields, model, limits)?;
    if let Some(best_of) = fields.integer("best_of", 1..=i64::MAX)?
        && best_of != parameters.n as i64
    {
        return Err(
            ApiError::field("best_of", "`best_of` other than `n` is not supported yet").code("unsupported_parameter")
        );
    }
    let echo = fields.flag("echo")?.unwrap_or(false);
    let logprobs = fields.integer("logprobs", 0..=limits.logprobs_max as i64)?.map(|count| count as usize);
    parameters.logprobs = logprobs;
    let max_tokens = fields.integer("max_tokens", 0..=i64::MAX)?;
    let asked_tokens = max_tokens.map(|tokens| usize::try_from(tokens).unwrap_or(usize::MAX));
    parameters.check_tokens(asked_tokens)?;
    parameters.check_beams()?;
    let special = fields.flag("add_special_tokens")?.unwrap_or(true);
    let max_tokens = max_tokens.map_or(MAX_TOKENS_DEFAULT, |tokens| usize::try_from(tokens).unwrap_or(usize::MAX));
    let value = fields.take("prompt").ok_or_else(|| fields.missing("prompt"))?;
    if fields.has("max_completion_tokens") {
        return Err(ApiError::field("max_completion_tokens", "use `max_tokens` here"));
    }
    fields.unsupported("suffix", &[Value::String(String::new())])?;
    fields.finish()?;

    let text = ability::text(model)?;
    let constraint = parameters.constraint(&text.model)?;
    let prompts = read_prompts(value, &text.model.tokenizer, special)?;
    let kept = |prompt: Prompt| Prompt { ids: parameters.kept(prompt.ids), ..prompt };
    let prompts: Vec<Prompt> = prompts.into_iter().map(kept).collect();
    if prompts.len() * parameters.n > limits.sequences_max {
        let message = format!("prompts times `n` may be {} at most", limits.sequences_max);
        return Err(ApiError::field("prompt", message));
    }
    let mut requests = Vec::with_capacity(prompts.len() * parameters.n);
    for prompt in &prompts {
        let context = text.model.engine.context();
        let room = context.saturating_sub(prompt.ids.len());
        if room == 0 && max_tokens > 0 {
            let count = prompt.ids.len();
            let message =
                format!("the prompt is too long: it has {count} tokens, but the model's context holds {context}");
            return Err(ApiError::field("prompt", message).code("context_length_exceeded"));
        }
        let request = parameters.request(&text.model, prompt.ids.clone(), max_tokens.min(room));
        let scores = request.prompt_logprobs.or(logprobs.filter(|_| echo));
        let request = Request { prompt_logprobs: scores, constraint: constraint.clone(), ..request };
        requests.extend(parameters.requests(requests.len(), &request));
    }
    let scores_prompt = parameters.prompt_logprobs.is_some();
    Ok(Call { parameters, prompts, requests, echo, scores_prompt })
}

/// A string, a list of strings, token ids, or a list of lists of token ids.
fn read_prompts(value: Value, tokenizer: &Tokenizer, special: bool) -> Result<Vec<Prompt>, ApiError> {
    let wrong = || {
        let message = "`prompt` must be a string, a list of strings, a list of token ids, or a list of such lists";
        ApiError::field("prompt", message)
    };
    match value {
        Value::String(text) => Ok(vec![encoded(text, tokenizer, special)?]),
        Value::Array(list) if list.is_empty() => Err(ApiError::field("prompt", "`prompt` must not be empty")),
        Value::Array(list) if list[0].is_number() => Ok(vec![decoded(&list, tokenizer)?.ok_or_else(wrong)?]),
        Value::Array(list) => list
            .into_iter()
            .map(|entry| match entry {
                Value::String(text) => encoded(text, tokenizer, special),
                Value::Array(ids) => decoded(&ids, tokenizer)?.ok_or_else(wrong),
                _ => Err(wrong()),
            })
            .collect(),
        _ => Err(wrong()),
    }
}

fn encoded(text: String, tokenizer: &Tokenizer, special: bool) -> Result<Prompt, ApiError> {
    let ids = tokenizer.encode(&text, special).map_err(|error| ApiError::field("prompt", error.what()))?;
    Ok(Prompt { text, ids })
}

fn decoded(list: &[Value], tokenizer: &Tokenizer) -> Result<Option<Prompt>, ApiError> {
    let ids: Option<Vec<u32>> = list.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())).collect();
    let Some(ids) = ids else { return Ok(None) };
    let text = tokenizer.decode(&ids, true).map_err(|error| ApiError::field("prompt", error.what()))?;
    Ok(Some(Prompt { text, ids }))
}

#[cfg(test)]
mod tests {
    use crate::testing::{self, answer, byte_tokens, describe, post};
    use narthex_infer::scripted::{Scripted, say};
    use serde_json::{Value, json};
    use std::sync::Arc;

    const PATH: &str = "/v1/completions";

    fn request(more: Value) -> Value {
        let mut body = json!({"model": "m", "prompt": "ab"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    }

    fn texts(reply: &Value) -> Vec<&str> {
        reply["choices"].as_array().unwrap().iter().map(|choice| choice["text"].as_str().unwrap()).collect()
    }

    #[tokio::test]
    async fn continues_a_prompt() {
        let reply = post(&testing::router(answer("cd")), PATH, &request(json!({}))).await.json(200);
        assert_eq!(
            reply,
            json!({
                "id": "cmpl-…", "object": "text_completion", "created": 0, "model": "m",
                "system_fingerprint": "fp_0123456789ab",
                "choices": [{"text": "cd", "index": 0, "logprobs": null, "finish_reason": "stop", "stop_reason": null}],
                "usage": {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5, "prompt_tokens_details": {"cached_tokens": 0}},
            })
        );
        let long = "x".repeat(30);
        let reply = post(&testing::router(answer(&long)), PATH, &request(json!({}))).await.json(200);
        assert_eq!((texts(&reply)[0].len(), &reply["choices"][0]["finish_reason"]), (16, &json!("length")));
        let reply =
            post(&testing::router(answer(&"x".repeat(99))), PATH, &request(json!({"max_tokens": 99}))).await.json(200);
        assert_eq!(
            reply["usage"],
            json!({"prompt_tokens": 2, "completion_tokens": 62, "total_tokens": 64, "prompt_tokens_details": {"cached_tokens": 0}})
        );
    }

    #[tokio::test]
    async fn prompts_in_all_their_forms() {
        let generator = Arc::new(Scripted::new(|request: &narthex_infer::Request| {
            let mut tokens = request.prompt.clone();
            tokens.extend(byte_tokens(request.sampling.seed.to_string().as_bytes()));
            say(request, &tokens)
        }));
        let router = testing::router_of(generator);
        let ids = |text: &str| byte_tokens(text.as_bytes());
        for (prompt, n, expected, prompt_tokens) in [
            (json!("one"), 1, vec!["one5"], 3),
            (json!(["one", "two"]), 1, vec!["one5", "two6"], 6),
            (json!(ids("one")), 2, vec!["one5", "one6"], 3),
            (json!([ids("a"), ids("b")]), 2, vec!["a5", "a6", "b7", "b8"], 2),
        ] {
            let body = request(json!({"prompt": prompt, "n": n, "best_of": n, "seed": 5}));
            let reply = post(&router, PATH, &body).await.json(200);
            assert_eq!(texts(&reply), expected);
            assert_eq!(reply["usage"]["prompt_tokens"], prompt_tokens);
        }
    }

    #[tokio::test]
    async fn echo_with_scores() {
        let router = testing::router(answer("éd"));
        let reply = post(&router, PATH, &request(json!({"echo": true}))).await.json(200);
        assert_eq!(texts(&reply), ["abéd"]);
        let more = json!({"echo": true, "logprobs": 2});
        let reply = post(&router, PATH, &request(more)).await.json(200);
        let scores = json!({
            "tokens": ["a", "b", "bytes:\\xc3", "bytes:\\xa9", "d", "<|im_end|>"],
            "token_logprobs": [null, -0.5, -0.5, -0.5, -0.5, -0.5],
            "top_logprobs": [
                null, {"b": -0.5, "c": -1.5}, {"bytes:\\xc3": -0.5, "bytes:\\xc4": -1.5},
                {"bytes:\\xa9": -0.5, "bytes:\\xaa": -1.5}, {"d": -0.5, "e": -1.5},
                {"<|im_end|>": -0.5, "!": -1.5},
            ],
            "text_offset": [0, 1, 2, 2, 3, 4],
        });
        assert_eq!(reply["choices"][0]["logprobs"], scores);
        let reply =
            post(&router, PATH, &request(json!({"echo": true, "logprobs": 0, "max_tokens": 0}))).await.json(200);
        assert_eq!(
            reply["choices"][0],
            json!({
                "text": "ab", "index": 0, "finish_reason": "length", "stop_reason": null,
                "logprobs": {
                    "tokens": ["a", "b"], "token_logprobs": [null, -0.5], "top_logprobs": [null, {"b": -0.5}],
                    "text_offset": [0, 1],
                },
            })
        );
        assert_eq!(reply["usage"]["completion_tokens"], 0);
    }

    #[tokio::test]
    async fn streams() {
        let router = testing::router(answer("cé"));
        let body =
            request(json!({"stream": true, "echo": true, "logprobs": 0, "stream_options": {"include_usage": true}}));
        let events = post(&router, PATH, &body).await.events();
        let seen: Vec<Value> = events
            .iter()
            .map(|event| {
                let choice = &event["choices"][0];
                json!([
                    choice["text"],
                    choice["logprobs"]["text_offset"],
                    choice["finish_reason"],
                    event["usage"]["total_tokens"]
                ])
            })
            .collect();
        assert_eq!(
            json!(seen),
            json!([
                ["ab", [0, 1], null, null],
                ["c", [2], null, null],
                ["é", [3, 3], null, null],
                ["", [4], null, null],
                ["", null, "stop", null],
                [null, null, null, 6],
            ])
        );
        assert_eq!(events[0]["object"], "text_completion");
        let events = post(&router, PATH, &request(json!({"stream": true, "echo": true}))).await.events();
        let text: String = events.iter().map(|event| event["choices"][0]["text"].as_str().unwrap()).collect();
        assert_eq!(text, "abcé");
    }

    #[tokio::test]
    async fn refusals_name_the_field() {
        let router = testing::router(answer("x"));
        let forms =
            "prompt: `prompt` must be a string, a list of strings, a list of token ids, or a list of such lists"
                .to_string();
        for (more, expected) in [
            (json!({"prompt": null}), "prompt: the field `prompt` is missing".to_string()),
            (json!({"prompt": []}), "prompt: `prompt` must not be empty".into()),
            (json!({"prompt": {}}), forms.clone()),
            (json!({"prompt": [1, "x"]}), forms.clone()),
            (json!({"prompt": ["x", 1]}), forms.clone()),
            (json!({"prompt": [-1]}), forms),
            (json!({"prompt": ""}), "prompt: the prompt has no tokens".into()),
            (
                json!({"prompt": "x".repeat(64)}),
                "prompt: the prompt is too long: it has 64 tokens, but the model's context holds 64".into(),
            ),
            (
                json!({"prompt": "x".repeat(65), "max_tokens": 0}),
                "prompt: the prompt is too long: it has 65 tokens, but the model's context holds 64".into(),
            ),
            (json!({"prompt": vec!["x"; 65], "n": 2}), "prompt: prompts times `n` may be 128 at most".into()),
            (json!({"best_of": 2}), "best_of: `best_of` other than `n` is not supported yet".into()),
            (json!({"suffix": "x"}), "suffix: `suffix` is not supported yet: leave it out".into()),
            (json!({"logprobs": true}), "logprobs: `logprobs` must be a whole number from 0 to 20".into()),
            (json!({"max_completion_tokens": 2}), "max_completion_tokens: use `max_tokens` here".into()),
        ] {
            let error = post(&router, PATH, &request(more)).await.json(400);
            assert_eq!(describe(&error), expected);
        }
    }

    #[tokio::test]
    async fn a_search_gives_the_likeliest_answers() {
        // Whatever came before, `a` is likelier than `b`, and both than the end.
        let tokens = [byte_tokens(b"a")[0], byte_tokens(b"b")[0]];
        let script = move |_: &narthex_infer::Request| {
            let top = vec![(tokens[0], 0.5f32.ln()), (tokens[1], 0.3f32.ln()), (2, 0.2f32.ln())];
            let logprobs = narthex_infer::TokenLogprobs { logprob: top[0].1, rank: 1, top };
            let token = narthex_infer::Output::Token { id: tokens[0], logprobs: Some(logprobs) };
            vec![token, narthex_infer::Output::Finished(narthex_infer::FinishReason::Length)]
        };
        let router = testing::router(script);
        let search = json!({"use_beam_search": true, "n": 2, "max_tokens": 2, "length_penalty": 0});
        let reply = post(&router, PATH, &request(search.clone())).await.json(200);
        assert_eq!(texts(&reply), ["aa", ""]);
        assert_eq!(
            (&reply["choices"][1]["finish_reason"], &reply["usage"]["completion_tokens"]),
            (&json!("stop"), &json!(3))
        );
        let mut chat = search.clone();
        chat["messages"] = json!([{"role": "user", "content": "x"}]);
        let reply = post(&router, "/v1/chat/completions", &chat).await.json(200);
        assert_eq!(reply["choices"][0]["message"]["content"], "aa");
        for more in [json!({"stream": true}), json!({"n": 17}), json!({"logprobs": 1}), json!({"stop": "a"})] {
            let mut body = search.clone();
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            post(&router, PATH, &request(body)).await.json(400);
        }
    }
}
