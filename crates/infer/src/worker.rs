//! The engine's own thread: takes requests in, runs steps, samples, hands tokens out. All that it knows of a sequence's
//! place is what the scheduler says.

use crate::{
    FinishReason, NewSequence, Output, PagedContext, Request, Sampled, Scheduler, SequenceId, Sink, Work,
    asked::{Answer, Asked, Wanted},
    constraint::ConstraintState,
    guesser::Guesser,
    masks::{Found, Masks, Pending, Task},
    speculation::{Candidate, Record},
    stats::{STEP_TOKENS_BOUNDS, Shared},
};
use burn::tensor::{Int, Tensor, TensorData};
use narthex_kernels::{KvLayer, PagedBatch, team::map};
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
    /// What the output must be; with the masks' thread while a step runs.
    constraint: Option<Box<dyn ConstraintState>>,
    /// What came first, until it is handed out.
    early: Vec<u32>,
    sink: Sink,
    ticket: u64,
    admitted: bool,
    prompt_read: bool,
    /// What became of its guesses.
    record: Record,
}

impl Job {
    /// A request in an engine whose sequences have so many tokens at most. What must come first whatever the model says
    /// stands behind the prompt from the beginning.
    pub(crate) fn new(request: Request, sink: Sink, ticket: u64, context: usize) -> Self {
        let room = request.max_tokens.min(context - request.prompt.len());
        let mut constraint = request.constraint.as_ref().map(|constraint| constraint.begin());
        let (mut asked, mut early) = (Asked::new(request), vec![]);
        if let Some(state) = &mut constraint
            && asked.request.logprobs.is_none()
            && asked.scores.is_none()
        {
            // The last one is left to be chosen, so that the sequence ends where all others do.
            while early.len() + 1 < room
                && !state.is_complete()
                && let Some(id) = state.forced()
                && state.push(id).is_ok()
            {
                asked.history.push(id);
                early.push(id);
            }
        }
        let record = Record::default();
        Self { asked, constraint, early, sink, ticket, admitted: false, prompt_read: false, record }
    }
}

/// What a step gave: of which sequence, at which of its positions.
type Answers = Vec<(SequenceId, usize, Answer)>;

/// Rows of a step whose logits are wanted: one, or that of a sequence's last token and those of its guesses.
struct Rows {
    first: i32,
    count: usize,
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
    guesser: Option<Guesser>,
    masks: Masks,
}

impl Worker {
    pub(crate) fn new(
        model: Decoder,
        layers: Vec<KvLayer>,
        scheduler: Scheduler,
        context: usize,
        shared: Arc<Shared>,
        guesser: Option<Guesser>,
    ) -> Self {
        let (places, jobs, tickets) = (model.position_cache(), HashMap::new(), HashMap::new());
        let masks = Masks::default();
        Self { model, layers, places, scheduler, context, shared, jobs, tickets, guesser, masks }
    }

    /// Until every handle is gone and every sequence has ended.
    pub(crate) fn run(mut self, incoming: &Receiver<Message>) {
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
                let Request { prompt, priority, cache_salt, prompt_logprobs, adapter, .. } = &job.asked.request;
                // What one adapter makes of a prompt is nobody else's.
                let salt = match (adapter, cache_salt) {
                    (None, salt) => salt.clone(),
                    (Some(adapter), salt) => {
                        Some(format!("adapter {}\0{}", adapter.number(), salt.as_deref().unwrap_or_default()))
                    }
                };
                let id = self.scheduler.add(NewSequence {
                    tokens: prompt.iter().chain(&job.early).copied().collect(),
                    priority: *priority,
                    salt,
                    compute_all: prompt_logprobs.is_some(),
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
        self.propose();
        let mut step = self.scheduler.step().to_vec();
        if step.is_empty() {
            return;
        }
        for Work { id, first, .. } in &step {
            let job = self.jobs.get_mut(id).expect("a step is made of sequences in hand");
            if !std::mem::replace(&mut job.admitted, true) {
                // Whether anybody listens shows at the first token.
                (job.sink)(Output::Admitted { cached: (*first).min(job.asked.request.prompt.len()) });
                let early = std::mem::take(&mut job.early);
                self.shared.update(|stats| stats.generation_tokens_total += early.len() as u64);
                early.into_iter().for_each(|id| _ = (job.sink)(Output::Token { id, logprobs: None }));
            }
        }
        if catch_unwind(AssertUnwindSafe(|| self.guess(&mut step))).is_err() {
            return self.fail(&step);
        }
        let tokens: usize = step.iter().map(Work::rows).sum();
        self.shared.update(|stats| {
            stats.steps_total += 1;
            stats.step_tokens_total += tokens as u64;
            stats.steps_by_tokens[STEP_TOKENS_BOUNDS.partition_point(|bound| *bound < tokens as u64)] += 1;
        });
        let constrained = self.constrained(&step);
        let pending = self.masks.begin(constrained);
        match catch_unwind(AssertUnwindSafe(|| self.compute(&step, pending))) {
            Ok((answers, failed)) => {
                failed.into_iter().for_each(|(id, why)| self.give_up(id, why));
                self.apply(&step, answers);
            }
            Err(_) => self.fail(&step),
        }
    }

    /// Asks for room for guesses in the next step, where they pay.
    fn propose(&mut self) {
        let Some(guesser) = &mut self.guesser else { return };
        let outlook = self.scheduler.outlook();
        let (mut ids, mut candidates) = (vec![], vec![]);
        for id in self.scheduler.generating() {
            let Job { asked, record, .. } = &self.jobs[&id];
            let (tokens, likelihood) = (self.scheduler.tokens(id), record.likelihood());
            let most = guesser.tokens.min(asked.room(tokens.len(), guesser.context.min(self.context)));
            let most = guesser.look(id, tokens, Candidate { likelihood, most }, outlook);
            ids.push(id);
            candidates.push(Candidate { likelihood, most });
        }
        for (id, count) in ids.into_iter().zip(guesser.allot(&candidates, outlook)) {
            if count > 0 {
                self.scheduler.propose(id, count);
            }
        }
    }

    /// Fills the proposed positions of a step with guesses.
    fn guess(&mut self, step: &mut [Work]) {
        let Some(guesser) = &mut self.guesser else { return };
        let proposed = step.iter().filter(|work| work.proposed > 0);
        let wanted: Vec<_> = proposed.map(|work| (work.id, work.proposed, &self.jobs[&work.id].asked)).collect();
        let guesses = guesser.guess(&wanted, &self.scheduler);
        let mut counts: HashMap<_, _> = guesses.iter().map(|(id, tokens)| (*id, tokens.len())).collect();
        guesses.into_iter().for_each(|(id, tokens)| self.scheduler.guess(id, tokens));
        step.iter_mut().for_each(|work| work.proposed = counts.remove(&work.id).unwrap_or(0));
    }

    /// The constraints of the sequences that get a token in this step, taken out of their jobs.
    fn constrained(&mut self, step: &[Work]) -> Vec<Task> {
        let mut tasks = vec![];
        for Work { id, end, .. } in step.iter().copied() {
            let job = self.jobs.get_mut(&id).expect("a step is made of sequences in hand");
            if end == self.scheduler.tokens(id).len()
                && job.asked.request.max_tokens > 0
                && let Some(state) = job.constraint.take()
            {
                tasks.push(Task { id, state, guesses: self.scheduler.guesses(id).to_vec() });
            }
        }
        tasks
    }

    /// Gives the constraints back, with what they allow in this step. Returns the sequences that cannot go on, and why.
    fn returned(&mut self, found: HashMap<SequenceId, Found>) -> Vec<(SequenceId, String)> {
        let mut failed = vec![];
        for (id, Found { state, allowed }) in found {
            let job = self.jobs.get_mut(&id).expect("constraints belong to sequences in hand");
            job.constraint = state;
            match allowed {
                Ok(allowed) => job.asked.allowed = allowed,
                Err(why) => failed.push((id, why)),
            }
        }
        failed
    }

    /// Runs the model over a step and answers the rows that somebody asks about, in their order.
    fn compute(&mut self, step: &[Work], pending: Pending) -> (Answers, Vec<(SequenceId, String)>) {
        let (mut ids, mut positions, mut batch) = (Vec::new(), Vec::new(), PagedBatch::default());
        let (mut asking, mut adapters) = (Vec::new(), Vec::new());
        for work in step.iter().copied() {
            let Work { id, first, end, proposed } = work;
            let (tokens, asked) = (self.scheduler.tokens(id), &self.jobs[&id].asked);
            for position in first..end {
                if let Some(wanted) = asked.wants(position, tokens.len()) {
                    let count = if position + 1 == tokens.len() { 1 + proposed } else { 1 };
                    asking.push(Rows { first: ids.len() as i32, count, id, position, wanted });
                }
                ids.push(tokens[position] as i32);
                positions.push(position);
            }
            ids.extend(self.scheduler.guesses(id).iter().map(|token| *token as i32));
            positions.extend(end..end + proposed);
            let first_row = batch.rows();
            batch.push(first, work.rows(), self.scheduler.blocks(id));
            if let Some(adapter) = &asked.request.adapter {
                adapters.push((first_row..batch.rows(), adapter.clone()));
            }
        }
        let device = self.model.device();
        let places = self.places.rows(&positions, &device);
        let count = ids.len();
        let tokens = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, count]), &device);
        let mut context = PagedContext::new(&self.layers, batch, adapters);
        let hidden = self.model.hidden(tokens, &places, &mut context, &mut Dropout::none());
        drop(context);
        let failed = self.returned(pending.wait());
        let mut answers = Vec::with_capacity(asking.len());
        let mut left = asking.as_slice();
        while let Some(first) = left.first() {
            let mut sum = first.count;
            let more = left[1..].iter().take_while(|rows| {
                sum += rows.count;
                sum <= LOGIT_ROWS
            });
            let (some, rest) = left.split_at(1 + more.count());
            left = rest;
            let indices: Vec<i32> = some.iter().flat_map(|rows| rows.first..rows.first + rows.count as i32).collect();
            let hidden = if indices.len() == count {
                hidden.clone()
            } else {
                let len = indices.len();
                hidden.clone().select(0, Tensor::from_data(TensorData::new(indices, [len]), &device))
            };
            let logits = self.model.logits(hidden).into_data();
            let mut logits = logits.as_slice::<f32>().expect("logits are f32");
            let width = self.model.config().vocab_size;
            let mut tasks = Vec::with_capacity(some.len());
            for Rows { count, id, wanted, .. } in some {
                let (own, others) = logits.split_at(count * width);
                logits = others;
                let guesses = if *count > 1 { self.scheduler.guesses(*id) } else { &[] };
                tasks.push((&self.jobs[id].asked, own, *wanted, guesses));
            }
            let found = map(tasks.len(), |i| {
                let (asked, logits, wanted, guesses) = tasks[i];
                asked.answer(logits, width, wanted, guesses)
            });
            answers.extend(some.iter().zip(found).map(|(rows, answer)| (rows.id, rows.position, answer)));
        }
        (answers, failed)
    }

    /// Hands out what a step gave.
    fn apply(&mut self, step: &[Work], answers: Answers) {
        let mut sampled = HashMap::new();
        for (id, position, answer) in answers {
            // Who cannot go on has ended already.
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            job.asked.allowed.clear();
            if let (Some(scores), Some(found)) = (&mut job.asked.scores, answer.scores) {
                scores[position + 1] = Some(found);
            }
            if !answer.sampled.is_empty() {
                sampled.insert(id, answer.sampled);
            }
        }
        for Work { id, end, proposed, .. } in step.iter().copied() {
            let Some(job) = self.jobs.get_mut(&id) else { continue };
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
            } else if job.constraint.as_ref().is_some_and(|state| state.is_complete()) {
                self.finish(id, FinishReason::Stop);
            } else if let Some(tokens) = sampled.remove(&id) {
                self.accept_all(id, tokens, proposed);
            }
        }
    }

    /// Hands out what a step gave of one sequence: a token, and one more for each guess that was right.
    fn accept_all(&mut self, id: SequenceId, tokens: Vec<Sampled>, guessed: usize) {
        let right =
            self.scheduler.guesses(id).iter().zip(&tokens).take_while(|(guess, token)| **guess == token.id).count();
        if guessed > 0 {
            self.shared.update(|stats| stats.guessed(guessed, right));
        }
        if self.guesser.is_some() {
            self.jobs.get_mut(&id).expect("tokens are for sequences in hand").record.add(guessed, right);
        }
        for token in tokens {
            if !self.accept(id, token) {
                return;
            }
        }
        if let Some(guesser) = &mut self.guesser {
            // The last token is not computed yet.
            guesser.keep(self.scheduler.blocks(id), self.scheduler.tokens(id).len() - 1);
        }
        self.accept_forced(id);
    }

    /// Hands out what must come next whatever the model says: the next step reads all of it at once. Where somebody
    /// wants to know how likely each token was, they come one by one.
    fn accept_forced(&mut self, id: SequenceId) {
        loop {
            let Job { asked, constraint, .. } = self.jobs.get(&id).expect("a sequence that goes on is in hand");
            let Some(state) = constraint.as_ref().filter(|_| asked.request.logprobs.is_none()) else { return };
            let Some(forced) = state.forced() else { return };
            if !self.accept(id, Sampled { id: forced, logprobs: None }) {
                return;
            }
        }
    }

    /// Hands out a sampled token. Returns whether the sequence goes on.
    fn accept(&mut self, id: SequenceId, sampled: Sampled) -> bool {
        let job = self.jobs.get_mut(&id).expect("tokens are for sequences in hand");
        let (Asked { request, history, .. }, constraint) = (&mut job.asked, &mut job.constraint);
        self.shared.update(|stats| stats.generation_tokens_total += 1);
        if request.stop_tokens.contains(&sampled.id) {
            match (job.sink)(Output::StopToken { id: sampled.id, logprobs: sampled.logprobs }) {
                true => self.finish(id, FinishReason::Stop),
                false => self.abort(id),
            }
            return false;
        }
        history.push(sampled.id);
        self.scheduler.push(id, sampled.id);
        let full = history.sampled() >= request.max_tokens as u64 || self.scheduler.tokens(id).len() >= self.context;
        let followed = constraint.as_mut().map_or(Ok(false), |state| {
            state.push(sampled.id)?;
            Ok(state.is_complete())
        });
        if !(job.sink)(Output::Token { id: sampled.id, logprobs: sampled.logprobs }) {
            self.abort(id);
            return false;
        }
        match followed {
            Err(why) => self.give_up(id, why),
            Ok(true) => self.finish(id, FinishReason::Stop),
            Ok(false) if full => self.finish(id, FinishReason::Length),
            Ok(false) => {}
        }
        self.jobs.contains_key(&id)
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

    /// A sequence cannot go on as its constraint wants it.
    fn give_up(&mut self, id: SequenceId, why: String) {
        let mut job = self.end(id);
        self.shared.update(|stats| stats.finished_abort_total += 1);
        self.publish();
        (job.sink)(Output::Failed(why));
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
