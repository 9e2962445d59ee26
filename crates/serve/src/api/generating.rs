//! A generation on behalf of a request: handed to the engine, counted for `/metrics`, and told to whoever watches the
//! exchange. Knows no wire format.

use super::{ability, head::Head, parameters::Parameters, refusal::unanswered};
use crate::{app::App, metrics::Metrics};
use narthex_answer::{Ended, Generation, Life, Watcher};
use narthex_http::{ApiError, Exchange, GenerationRecord};
use narthex_infer::Request;
use std::{sync::Arc, time::Duration};

/// What the sequences are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Chat,
    Completion,
}

impl Operation {
    /// The request's field that the prompt is made of.
    pub fn prompt_field(self) -> &'static str {
        match self {
            Operation::Chat => "messages",
            Operation::Completion => "prompt",
        }
    }

    /// As OpenTelemetry names it.
    fn name(self) -> &'static str {
        match self {
            Operation::Chat => "chat",
            Operation::Completion => "text_completion",
        }
    }
}

/// Hands the sequences to the engine: for each prompt as many as there are choices.
pub(crate) fn start(
    app: &App,
    exchange: Arc<Exchange>,
    operation: Operation,
    head: &Head,
    parameters: &Parameters,
    requests: Vec<Request>,
) -> Result<Generation, ApiError> {
    let text = ability::text(&app.model)?;
    let tokens_max = requests.iter().map(|request| request.max_tokens).max().unwrap_or(0);
    app.serving.metrics().began(parameters.n, tokens_max);
    exchange.generates(record(operation, head, parameters, &requests));
    let watch = Watch { metrics: app.serving.metrics().clone(), exchange };
    let generation = Generation::start(&text.model, requests, &parameters.reading, watch);
    generation.map_err(|error| unanswered(error, &app.model.id, operation.prompt_field()))
}

/// Who counts for the metrics and tells the exchange.
struct Watch {
    metrics: Arc<Metrics>,
    exchange: Arc<Exchange>,
}

impl Watch {
    /// At once: who watches the exchange may see it end before we do.
    fn tell(&self) {
        self.exchange.update(|record| {
            record.completion_tokens += 1;
            // From the request on, reading and tokenizing it included.
            record.first_token_s.get_or_insert(self.exchange.begun.elapsed().as_secs_f64());
        });
    }
}

impl Watcher for Watch {
    fn first_token(&mut self, after: Duration) {
        self.metrics.first_token(after);
        self.tell();
    }

    fn next_token(&mut self, after: Duration) {
        self.metrics.next_token(after);
        self.tell();
    }

    fn ended(&mut self, ended: Ended, life: &Life) {
        self.metrics.ended(ended, life);
        let word = match ended {
            Ended::Stop => "stop",
            Ended::Length => "length",
            Ended::Abort => return,
        };
        self.exchange.update(|record| record.finish_reasons.push(word));
    }
}

fn record(operation: Operation, head: &Head, parameters: &Parameters, requests: &[Request]) -> GenerationRecord {
    let sampling = &parameters.sampling;
    GenerationRecord {
        operation: operation.name(),
        model: head.model.clone(),
        response_id: head.id.clone(),
        temperature: sampling.temperature,
        top_p: sampling.top_p,
        top_k: sampling.top_k,
        frequency_penalty: sampling.frequency_penalty,
        presence_penalty: sampling.presence_penalty,
        seed: sampling.seed,
        max_tokens: requests.iter().map(|request| request.max_tokens).max().unwrap_or(0),
        choices: parameters.n,
        stream: parameters.stream,
        prompt_tokens: requests.iter().map(|request| request.prompt.len()).sum::<usize>() / parameters.n,
        ..GenerationRecord::default()
    }
}
