//! The engine's own thread: takes requests in, runs steps, samples, hands tokens out. All that it knows of a sequence's
//! place is what the scheduler says.

use crate::{
    FinishReason, History, NewSequence, Output, PagedContext, Request, Sampled, Scheduler, SequenceId, Sink,
    TokenLogprobs, Work,
    sampling::{sample, token_logprobs},
    stats::{STEP_TOKENS_BOUNDS, Shared},
};
use burn::tensor::{Int, Tensor, TensorData};
use narthex_kernels::{
    KvLayer, PagedBatch,
    team::{Team, map},
};
use narthex_model::{Decoder, Dropout, PositionCache};
use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc::Receiver},
};

/// Rows whose logits are there at a time: a row has as many as the vocabulary.
const LOGIT_ROWS: usize = 64;

/// What a handle says to the worker.
pub(crate) enum Message {
    /// A new request.
    Submit(Box<Job>),
    /// Nobody wants the request with this ticket any more.
    Cancel(u64),
}

/// A request in hand.
pub(crate) struct Job {
    asked: Asked,
    sink: Sink,
    ticket: u64,
    admitted: bool,
    prompt_read: bool,
}

/// What answering rows of logits needs of a request.
struct Asked {
    request: Request,
    history: History,
    /// The scores of the prompt, until they are handed out.
    scores: Option<Vec<Option<TokenLogprobs>>>,
}

impl Job {
    pub(crate) fn new(request: Request, sink: Sink, ticket: u64) -> Self {
        let scores = request.prompt_logprobs.then(|| vec![None; request.prompt.len()]);
        let asked = Asked { history: History::new(&request.prompt), request, scores };
        Self { asked, sink, ticket, admitted: false, prompt_read: false }
    }
}

impl Asked {
    /// What a row of logits is for, if anything.
    fn wants(&self, position: usize, len: usize) -> Option<Wanted> {
        let scored = (self.scores.is_some() && position + 1 < self.request.prompt.len())
            .then(|| self.request.prompt[position + 1]);
        let sampled = position + 1 == len && self.request.max_tokens > 0;
        (scored.is_some() || sampled).then_some(Wanted { scored, sampled })
    }

    fn answer(&self, logits: &[f32], wanted: Wanted) -> Answer {
        let Request { sampling, stop_tokens, min_tokens, logprobs, .. } = &self.request;
        let early = self.history.sampled() < *min_tokens as u64;
        let forbidden: &[u32] = if early { stop_tokens } else { &[] };
        Answer {
            scores: wanted.scored.map(|id| token_logprobs(logits, id, logprobs.unwrap_or(0))),
            sampled: wanted.sampled.then(|| sample(logits, sampling, &self.history, forbidden, *logprobs)),
        }
    }
}

#[derive(Clone, Copy)]
struct Wanted {
    scored: Option<u32>,
    sampled: bool,
}

struct Answer {
    scores: Option<TokenLogprobs>,
    sampled: Option<Sampled>,
}

/// A row of a step whose logits are wanted.
struct Row {
    row: i32,
    id: SequenceId,
    position: usize,
    wanted: Wanted,
}

pub(crate) struct Worker {
    model: Decoder,
    layers: Vec<KvLayer>,
    places: PositionCache,
    scheduler: Scheduler,
    context: usize,
    shared: Arc<Shared>,
    jobs: HashMap<SequenceId, Job>,
    tickets: HashMap<u64, SequenceId>,
}

impl Worker {
    pub(crate) fn new(
        model: Decoder,
        layers: Vec<KvLayer>,
        scheduler: Scheduler,
        context: usize,
        shared: Arc<Shared>,
    ) -> Self {
        let places = model.position_cache();
        Self { model, layers, places, scheduler, context, shared, jobs: HashMap::new(), tickets: HashMap::new() }
    }

    /// Until every handle is gone and every sequence has ended.
    pub(crate) fn run(mut self, incoming: &Receiver<Message>, team: &Team) {
        team.enter(|| self.work(incoming));
    }

    fn work(&mut self, incoming: &Receiver<Message>) {
        loop {
            if self.jobs.is_empty() {
                match incoming.recv() {
                    Ok(message) => self.take(message),
                    Err(_) => return,
                }
            }
            incoming.try_iter().for_each(|message| self.take(message));
            self.step();
            self.publish();
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Submit(job) => {
                let Request { prompt, priority, cache_salt, prompt_logprobs, .. } = &job.asked.request;
                let id = self.scheduler.add(NewSequence {
                    tokens: prompt.clone(),
                    priority: *priority,
                    salt: cache_salt.clone(),
                    compute_all: *prompt_logprobs,
                });
                self.tickets.insert(job.ticket, id);
                self.jobs.insert(id, *job);
                self.publish();
                self.shared.taken();
            }
            Message::Cancel(ticket) => {
                if let Some(id) = self.tickets.get(&ticket).copied() {
                    self.end(id);
                    self.shared.update(|stats| stats.finished_abort_total += 1);
                    self.publish();
                }
            }
        }
    }

    fn publish(&self) {
        let (pool, counters) = (self.scheduler.pool(), self.scheduler.counters());
        self.shared.update(|stats| {
            stats.requests_running = self.scheduler.running() as u64;
            stats.requests_waiting = self.scheduler.waiting() as u64;
            stats.preemptions_total = counters.preemptions;
            stats.prefix_cache_queries_total = counters.cache_queries;
            stats.prefix_cache_hits_total = counters.cache_hits;
            stats.kv_blocks_used = (pool.total() - pool.free()) as u64;
        });
    }

    fn step(&mut self) {
        let step = self.scheduler.step().to_vec();
        if step.is_empty() {
            return;
        }
        for Work { id, .. } in &step {
            let job = self.jobs.get_mut(id).expect("a step is made of sequences in hand");
            if !std::mem::replace(&mut job.admitted, true) {
                // Whether anybody listens shows at the first token.
                (job.sink)(Output::Admitted);
            }
        }
        let tokens: usize = step.iter().map(|work| work.end - work.first).sum();
        self.shared.update(|stats| {
            stats.steps_total += 1;
            stats.step_tokens_total += tokens as u64;
            stats.steps_by_tokens[STEP_TOKENS_BOUNDS.partition_point(|bound| *bound < tokens as u64)] += 1;
        });
        match catch_unwind(AssertUnwindSafe(|| self.compute(&step))) {
            Ok(answers) => self.apply(&step, answers),
            Err(_) => self.fail(&step),
        }
    }

    /// Runs the model over a step and answers the rows that somebody asks about, in their order.
    fn compute(&mut self, step: &[Work]) -> Vec<(SequenceId, usize, Answer)> {
        let (mut ids, mut positions, mut batch) = (Vec::new(), Vec::new(), PagedBatch::default());
        let mut rows = Vec::new();
        for Work { id, first, end } in step.iter().copied() {
            let (tokens, asked) = (self.scheduler.tokens(id), &self.jobs[&id].asked);
            for position in first..end {
                if let Some(wanted) = asked.wants(position, tokens.len()) {
                    rows.push(Row { row: ids.len() as i32, id, position, wanted });
                }
                ids.push(tokens[position] as i32);
                positions.push(position);
            }
            batch.push(first, end - first, self.scheduler.blocks(id));
        }
        let device = self.model.device();
        let places = self.places.rows(&positions, &device);
        let count = ids.len();
        let tokens = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, count]), &device);
        let mut context = PagedContext::new(&self.layers, batch);
        let hidden = self.model.hidden(tokens, &places, &mut context, &mut Dropout::none());
        let mut answers = Vec::with_capacity(rows.len());
        for rows in rows.chunks(LOGIT_ROWS) {
            let hidden = if rows.len() == count {
                hidden.clone()
            } else {
                let indices: Vec<i32> = rows.iter().map(|row| row.row).collect();
                hidden.clone().select(0, Tensor::from_data(TensorData::new(indices, [rows.len()]), &device))
            };
            let logits = self.model.logits(hidden).into_data();
            let logits = logits.as_slice::<f32>().expect("logits are f32");
            let asked: Vec<&Asked> = rows.iter().map(|row| &self.jobs[&row.id].asked).collect();
            let width = self.model.config().vocab_size;
            let found = map(rows.len(), |i| asked[i].answer(&logits[i * width..(i + 1) * width], rows[i].wanted));
            answers.extend(rows.iter().zip(found).map(|(row, answer)| (row.id, row.position, answer)));
        }
        answers
    }

    /// Hands out what a step gave.
    fn apply(&mut self, step: &[Work], answers: Vec<(SequenceId, usize, Answer)>) {
        let mut sampled = HashMap::new();
        for (id, position, answer) in answers {
            let job = self.jobs.get_mut(&id).expect("answers are for sequences in hand");
            if let (Some(scores), Some(found)) = (&mut job.asked.scores, answer.scores) {
                scores[position + 1] = Some(found);
            }
            if let Some(token) = answer.sampled {
                sampled.insert(id, token);
            }
        }
        for Work { id, end, .. } in step.iter().copied() {
            let job = self.jobs.get_mut(&id).expect("a step is made of sequences in hand");
            if end < job.asked.request.prompt.len() {
                continue;
            }
            if !std::mem::replace(&mut job.prompt_read, true) {
                let read = job.asked.request.prompt.len() as u64;
                self.shared.update(|stats| stats.prompt_tokens_total += read);
            }
            if let Some(scores) = job.asked.scores.take()
                && !(job.sink)(Output::Prompt(scores))
            {
                self.abort(id);
            } else if job.asked.request.max_tokens == 0 {
                self.finish(id, FinishReason::Length);
            } else if let Some(token) = sampled.remove(&id) {
                self.accept(id, token);
            }
        }
    }

    /// Hands out a sampled token.
    fn accept(&mut self, id: SequenceId, sampled: Sampled) {
        let job = self.jobs.get_mut(&id).expect("tokens are for sequences in hand");
        let Asked { request, history, .. } = &mut job.asked;
        self.shared.update(|stats| stats.generation_tokens_total += 1);
        if request.stop_tokens.contains(&sampled.id) {
            return match (job.sink)(Output::StopToken { id: sampled.id, logprobs: sampled.logprobs }) {
                true => self.finish(id, FinishReason::Stop),
                false => self.abort(id),
            };
        }
        history.push(sampled.id);
        self.scheduler.push(id, sampled.id);
        let full = history.sampled() >= request.max_tokens as u64 || self.scheduler.tokens(id).len() >= self.context;
        if !(job.sink)(Output::Token { id: sampled.id, logprobs: sampled.logprobs }) {
            self.abort(id);
        } else if full {
            self.finish(id, FinishReason::Length);
        }
    }

    fn finish(&mut self, id: SequenceId, reason: FinishReason) {
        self.shared.update(|stats| match reason {
            FinishReason::Stop => stats.finished_stop_total += 1,
            FinishReason::Length => stats.finished_length_total += 1,
        });
        let mut job = self.end(id);
        // The gauges no longer show it when its reader learns of the end.
        self.publish();
        (job.sink)(Output::Finished(reason));
    }

    fn abort(&mut self, id: SequenceId) {
        self.end(id);
        self.shared.update(|stats| stats.finished_abort_total += 1);
    }

    fn end(&mut self, id: SequenceId) -> Job {
        self.scheduler.remove(id);
        let job = self.jobs.remove(&id).expect("a sequence ends once");
        self.tickets.remove(&job.ticket);
        job
    }

    /// A step panicked: its sequences end, the engine goes on.
    fn fail(&mut self, step: &[Work]) {
        // Blocks may hold anything now.
        self.scheduler.forget();
        for Work { id, .. } in step {
            let mut job = self.end(*id);
            self.shared.update(|stats| stats.finished_abort_total += 1);
            (job.sink)(Output::Failed("the model could not process this sequence; this is a bug in narthex".into()));
        }
    }
}
