//! A generator that answers from a script instead of a model: for tests and for work on the
//! page. Knows no text; its log-probabilities are made up, but always the same.

use crate::{
    Adapter, EngineStats, FinishReason, Generates, Output, Request, Sink, StatsReader, SubmitError, Takes, Ticket,
    TokenLogprobs,
};
use narthex_base::Error;
use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// Answers under way at once; further ones are refused.
const RUNNING_MAX: usize = 64;
/// Tokens of a context unless set otherwise.
const CONTEXT_DEFAULT: usize = 4096;

type Script = dyn Fn(&Request) -> Vec<Output> + Send + Sync;

/// A generator that plays a script.
pub struct Scripted {
    script: Arc<Script>,
    delay: Duration,
    context: usize,
    refusal: Option<SubmitError>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    requests: Vec<Request>,
    running: usize,
    prompt_tokens: usize,
    generation_tokens: usize,
    finished_stop: usize,
    finished_length: usize,
    finished_abort: usize,
}

impl Scripted {
    /// Answers each request with what `script` gives, at once. [`say`] makes it of token ids.
    pub fn new(script: impl Fn(&Request) -> Vec<Output> + Send + Sync + 'static) -> Self {
        let state = Arc::default();
        Self { script: Arc::new(script), delay: Duration::ZERO, context: CONTEXT_DEFAULT, refusal: None, state }
    }

    /// Waits so long before each output.
    pub fn delay(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Has a context of so many tokens.
    pub fn with_context(self, context: usize) -> Self {
        Self { context, ..self }
    }

    /// Refuses all requests.
    pub fn refuse(self, error: SubmitError) -> Self {
        Self { refusal: Some(error), ..self }
    }

    /// The requests taken so far.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.state).requests.clone()
    }
}

/// The outputs that an engine would give if its model chose these tokens and then a stop token.
pub fn say(request: &Request, tokens: &[u32]) -> Vec<Output> {
    let scores = |id: u32, count: usize| TokenLogprobs {
        logprob: -0.5,
        rank: 1,
        top: (0..count as u32).map(|rank| (id.wrapping_add(rank), -0.5 - rank as f32)).collect(),
    };
    let mut outputs = Vec::new();
    if let Some(count) = request.prompt_logprobs {
        let rest = request.prompt[1..].iter().map(|id| Some(scores(*id, count)));
        outputs.push(Output::Prompt([None].into_iter().chain(rest).collect()));
    }
    let said = &tokens[..tokens.len().min(request.max_tokens)];
    outputs.extend(
        said.iter().map(|id| Output::Token { id: *id, logprobs: request.logprobs.map(|count| scores(*id, count)) }),
    );
    let complete = said.len() == tokens.len() && said.len() < request.max_tokens;
    if let (true, Some(id)) = (complete, request.stop_tokens.first().copied()) {
        outputs.push(Output::StopToken { id, logprobs: request.logprobs.map(|count| scores(id, count)) });
    }
    outputs.push(Output::Finished(if complete { FinishReason::Stop } else { FinishReason::Length }));
    outputs
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Takes<Request, Sink> for Scripted {
    fn submit(&self, request: Request, mut sink: Sink) -> Result<Ticket, SubmitError> {
        if let Some(error) = &self.refusal {
            return Err(error.clone());
        }
        let (prompt, context) = (request.prompt.len(), self.context);
        if prompt == 0 {
            return Err(SubmitError::EmptyPrompt);
        }
        if prompt + usize::from(request.max_tokens > 0) > context {
            return Err(SubmitError::TooLong { prompt, context });
        }
        let mut state = lock(&self.state);
        if state.running == RUNNING_MAX {
            return Err(SubmitError::QueueFull);
        }
        state.running += 1;
        state.prompt_tokens += prompt;
        state.requests.push(request.clone());
        let (script, delay, state) = (self.script.clone(), self.delay, self.state.clone());
        thread::spawn(move || {
            for output in script(&request) {
                thread::sleep(delay);
                let mut state = lock(&state);
                match &output {
                    Output::Token { .. } | Output::StopToken { .. } => state.generation_tokens += 1,
                    Output::Finished(FinishReason::Stop) => state.finished_stop += 1,
                    Output::Finished(FinishReason::Length) => state.finished_length += 1,
                    Output::Admitted { .. } | Output::Prompt(_) | Output::Failed(_) => {}
                }
                if !sink(output) {
                    state.finished_abort += 1;
                    break;
                }
            }
            lock(&state).running -= 1;
        });
        Ok(Ticket::idle())
    }

    fn stats_reader(&self) -> StatsReader {
        let state = self.state.clone();
        Arc::new(move || {
            let state = lock(&state);
            EngineStats {
                requests_running: state.running as _,
                requests_waiting: 0,
                prompt_tokens_total: state.prompt_tokens as _,
                generation_tokens_total: state.generation_tokens as _,
                finished_stop_total: state.finished_stop as _,
                finished_length_total: state.finished_length as _,
                finished_abort_total: state.finished_abort as _,
                ..EngineStats::default()
            }
        })
    }

    fn context(&self) -> usize {
        self.context
    }
}

impl Generates for Scripted {
    fn adapter(&self, folder: &Path) -> narthex_base::Result<Arc<Adapter>> {
        Err(Error::input("a script takes no adapters").at(folder.display(), None))
    }
}
