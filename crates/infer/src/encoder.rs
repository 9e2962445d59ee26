//! The engine of an encoder: a thread that owns the model and computes what waits, several requests in one pass.
//!
//! A pass takes sequences in the order of arrival up to a budget of tokens. They run without padding, so that there is
//! nothing to gain from sorting them by length, and what a sequence yields does not depend on its company.

use crate::{EngineStats, STEP_TOKENS_BOUNDS, StatsReader, SubmitError, Takes, Ticket, handle::Handle, stats::Shared};
use narthex_base::Result;
use narthex_kernels::team::Team;
use narthex_model::{EncoderInput, EncoderModel, EncoderTask};
use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, channel},
    },
};

/// Something that turns token sequences into vectors or scores: [`EncoderEngine`], or a script in tests.
pub trait Encodes: Takes<Vec<EncoderInput>, EncoderSink> {
    /// What the model is for.
    fn task(&self) -> EncoderTask;

    /// Values that a sequence yields.
    fn dimension(&self) -> usize;
}

/// Limits of an encoder's engine.
#[derive(Clone, Debug)]
pub struct EncoderOptions {
    /// Tokens that a pass computes at most, of all sequences together; a longer sequence runs alone.
    pub step_tokens_max: usize,
    /// Tokens that wait at most.
    pub waiting_tokens_max: usize,
    /// Threads that compute; all processors if 0.
    pub threads: usize,
    /// Whether each stays on a processor of its own.
    pub pinned: bool,
}

impl Default for EncoderOptions {
    fn default() -> Self {
        Self { step_tokens_max: 1024, waiting_tokens_max: 1 << 22, threads: 0, pinned: false }
    }
}

/// Receives what a request's sequences yield, in their order, or why there is nothing; from the engine's thread, so
/// that it must not block.
pub type EncoderSink = Box<dyn FnOnce(Result<Vec<Vec<f32>>, String>) + Send>;

struct Job {
    inputs: Vec<EncoderInput>,
    outputs: Vec<Vec<f32>>,
    /// Sequences that have been handed to a pass.
    begun: usize,
    wanted: Arc<AtomicBool>,
    sink: EncoderSink,
}

/// A handle on the engine; cheap to clone. The engine ends with its last handle, after the requests in hand.
#[derive(Clone)]
pub struct EncoderEngine {
    handle: Handle<Job>,
    waiting_tokens: Arc<AtomicUsize>,
    waiting_tokens_max: usize,
    task: EncoderTask,
    vocab_size: usize,
    context: usize,
    dimension: usize,
}

impl EncoderEngine {
    /// Moves the model into a thread.
    ///
    /// # Errors
    /// If the system gives the process no more threads.
    pub fn start(model: EncoderModel, options: &EncoderOptions) -> Result<Self> {
        let (shared, waiting_tokens) = (Arc::new(Shared::default()), Arc::new(AtomicUsize::new(0)));
        let (task, vocab_size, context, dimension) =
            (model.task(), model.vocab_size(), model.context(), model.dimension());
        let worker = Worker {
            model,
            step_tokens_max: options.step_tokens_max.max(1),
            shared: shared.clone(),
            waiting_tokens: waiting_tokens.clone(),
            jobs: VecDeque::new(),
        };
        let team = Team::new(options.threads, options.pinned);
        let handle = Handle::start("encoder", team, shared, move |incoming| worker.run(incoming))?;
        let waiting_tokens_max = options.waiting_tokens_max;
        Ok(Self { handle, waiting_tokens, waiting_tokens_max, task, vocab_size, context, dimension })
    }

    /// Queues sequences that belong together.
    ///
    /// # Errors
    /// If one is empty or too long or has an unknown id, or too many tokens wait.
    pub fn submit(&self, inputs: Vec<EncoderInput>, sink: EncoderSink) -> Result<Ticket, SubmitError> {
        let mut tokens = 0;
        for input in &inputs {
            if input.ids.is_empty() {
                return Err(SubmitError::EmptyPrompt);
            }
            if let Some(id) = input.ids.iter().find(|id| **id as usize >= self.vocab_size) {
                return Err(SubmitError::UnknownToken(*id));
            }
            if input.ids.len() > self.context {
                return Err(SubmitError::TooLong { prompt: input.ids.len(), context: self.context });
            }
            tokens += input.ids.len();
        }
        let before = self.waiting_tokens.fetch_add(tokens, Ordering::Relaxed);
        let taken = if before > 0 && before + tokens > self.waiting_tokens_max {
            Err(SubmitError::QueueFull)
        } else {
            let wanted = Arc::new(AtomicBool::new(true));
            let job = Job { inputs, outputs: vec![], begun: 0, wanted: wanted.clone(), sink };
            let sent = self.handle.request(job);
            sent.map(|()| Ticket::new(move || wanted.store(false, Ordering::Relaxed)))
        };
        if taken.is_err() {
            self.waiting_tokens.fetch_sub(tokens, Ordering::Relaxed);
        }
        taken
    }

    /// Runs sequences to the end.
    ///
    /// # Errors
    /// As [`EncoderEngine::submit`]; the inner one if the model failed.
    pub fn run(&self, inputs: Vec<EncoderInput>) -> Result<Result<Vec<Vec<f32>>, String>, SubmitError> {
        let (sender, results) = channel();
        let _ticket = self.submit(inputs, Box::new(move |outcome| _ = sender.send(outcome)))?;
        results.recv().map_err(|_| SubmitError::Stopped)
    }

    /// Counters as of now. Requests count as sequences.
    pub fn stats(&self) -> EngineStats {
        self.handle.shared.stats()
    }

    /// What the model is for.
    pub fn task(&self) -> EncoderTask {
        self.task
    }

    /// Tokens in the model's vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Tokens that a sequence may have.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Values that a sequence yields.
    pub fn dimension(&self) -> usize {
        self.dimension
    }
}

impl Takes<Vec<EncoderInput>, EncoderSink> for EncoderEngine {
    fn submit(&self, inputs: Vec<EncoderInput>, sink: EncoderSink) -> Result<Ticket, SubmitError> {
        EncoderEngine::submit(self, inputs, sink)
    }

    fn stats_reader(&self) -> StatsReader {
        self.handle.stats_reader()
    }

    fn context(&self) -> usize {
        self.context
    }
}

impl Encodes for EncoderEngine {
    fn task(&self) -> EncoderTask {
        self.task
    }

    fn dimension(&self) -> usize {
        self.dimension
    }
}

/// The first values of a vector with the length 1 again (Kusupati et al., "Matryoshka representation learning", 2022).
/// Each value is divided in double precision and rounded once, so that whoever shortens gets the same bytes.
pub fn shortened(mut vector: Vec<f32>, dimensions: usize) -> Vec<f32> {
    if dimensions < vector.len() {
        vector.truncate(dimensions);
        let length = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt().max(1e-12);
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
    vector
}

struct Worker {
    model: EncoderModel,
    step_tokens_max: usize,
    shared: Arc<Shared>,
    waiting_tokens: Arc<AtomicUsize>,
    jobs: VecDeque<Job>,
}

impl Worker {
    fn run(mut self, incoming: &Receiver<Job>) {
        loop {
            if self.jobs.is_empty() {
                let Ok(job) = incoming.recv() else { return };
                self.take(job);
            }
            while let Ok(job) = incoming.try_recv() {
                self.take(job);
            }
            self.step();
        }
    }

    fn take(&mut self, job: Job) {
        self.shared.taken();
        self.jobs.push_back(job);
        self.publish();
    }

    fn publish(&self) {
        let running = self.jobs.len() as u64;
        self.shared.update(|stats| stats.requests_running = running);
    }

    /// Computes what fits into a pass, and ends the requests that are complete.
    fn step(&mut self) {
        self.drop_unwanted();
        let mut places = Vec::new();
        let mut tokens = 0;
        'full: for (number, job) in self.jobs.iter_mut().enumerate() {
            while let Some(input) = job.inputs.get(job.begun) {
                if tokens > 0 && tokens + input.ids.len() > self.step_tokens_max {
                    break 'full;
                }
                tokens += input.ids.len();
                places.push((number, job.begun));
                job.begun += 1;
            }
        }
        self.waiting_tokens.fetch_sub(tokens, Ordering::Relaxed);
        let inputs: Vec<&EncoderInput> = places.iter().map(|(job, at)| &self.jobs[*job].inputs[*at]).collect();
        let found = catch_unwind(AssertUnwindSafe(|| self.model.run(&inputs)));
        if tokens > 0 {
            self.shared.update(|stats| {
                stats.steps_total += 1;
                stats.step_tokens_total += tokens as u64;
                stats.prompt_tokens_total += tokens as u64;
                stats.steps_by_tokens[STEP_TOKENS_BOUNDS.partition_point(|bound| *bound < tokens as u64)] += 1;
            });
        }
        match found {
            Ok(outputs) => {
                for ((job, _), output) in places.iter().zip(outputs) {
                    self.jobs[*job].outputs.push(output);
                }
            }
            Err(_) => {
                let failed = places.last().map_or(0, |(job, _)| job + 1);
                for job in self.jobs.drain(..failed) {
                    let left: usize = job.inputs[job.begun..].iter().map(|input| input.ids.len()).sum();
                    self.waiting_tokens.fetch_sub(left, Ordering::Relaxed);
                    self.shared.update(|stats| stats.finished_abort_total += 1);
                    (job.sink)(Err("the model could not process this; this is a bug in narthex".into()));
                }
            }
        }
        while self.jobs.front().is_some_and(|job| job.outputs.len() == job.inputs.len()) {
            let job = self.jobs.pop_front().expect("checked above");
            self.shared.update(|stats| stats.finished_stop_total += 1);
            // The gauges no longer show it when its reader learns of the end.
            self.publish();
            (job.sink)(Ok(job.outputs));
        }
        self.publish();
    }

    fn drop_unwanted(&mut self) {
        let (waiting, shared) = (&self.waiting_tokens, &self.shared);
        self.jobs.retain(|job| {
            let wanted = job.wanted.load(Ordering::Relaxed);
            if !wanted {
                let left: usize = job.inputs[job.begun..].iter().map(|input| input.ids.len()).sum();
                waiting.fetch_sub(left, Ordering::Relaxed);
                shared.update(|stats| stats.finished_abort_total += 1);
            }
            wanted
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{path::Path, thread};

    fn model(name: &str) -> EncoderModel {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden").join(name);
        EncoderModel::read(&folder, None).unwrap()
    }

    fn input(len: usize, first: u32) -> EncoderInput {
        EncoderInput { ids: (0..len as u32).map(|i| 4 + (first + i) % 40).collect(), types: vec![] }
    }

    #[test]
    fn what_a_sequence_yields_does_not_depend_on_its_company() {
        let alone = model("encoder-bert");
        for step_tokens_max in [1, 20, 1000] {
            let options = EncoderOptions { step_tokens_max, threads: 2, ..EncoderOptions::default() };
            let engine = EncoderEngine::start(model("encoder-bert"), &options).unwrap();
            assert_eq!((engine.dimension(), engine.context(), engine.vocab_size()), (16, 40, 48));
            let requests: Vec<Vec<EncoderInput>> =
                (0..6).map(|r| (0..r).map(|i| input(1 + (7 * r + 3 * i) % 30, (r * i) as u32)).collect()).collect();
            let threads: Vec<_> = requests
                .clone()
                .into_iter()
                .map(|inputs| {
                    let engine = engine.clone();
                    thread::spawn(move || engine.run(inputs).unwrap().unwrap())
                })
                .collect();
            for (thread, inputs) in threads.into_iter().zip(&requests) {
                let expected: Vec<Vec<f32>> = inputs.iter().flat_map(|input| alone.run(&[input])).collect();
                assert_eq!(thread.join().unwrap(), expected);
            }
            let stats = engine.stats();
            let tokens: usize = requests.iter().flatten().map(|input| input.ids.len()).sum();
            assert_eq!((stats.step_tokens_total, stats.finished_stop_total), (tokens as u64, 6));
            assert_eq!((stats.requests_running, stats.requests_waiting), (0, 0));
            assert_eq!(engine.waiting_tokens.load(Ordering::Relaxed), 0);
            if step_tokens_max == 1 {
                assert_eq!(stats.steps_total, 15, "each sequence alone");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let options = EncoderOptions { waiting_tokens_max: 50, threads: 1, ..EncoderOptions::default() };
        let engine = EncoderEngine::start(model("encoder-bert"), &options).unwrap();
        let refused = |inputs| engine.run(inputs).unwrap_err();
        assert_eq!(refused(vec![input(3, 0), EncoderInput::default()]), SubmitError::EmptyPrompt);
        assert_eq!(refused(vec![EncoderInput { ids: vec![48], types: vec![] }]), SubmitError::UnknownToken(48));
        assert_eq!(refused(vec![input(41, 0)]), SubmitError::TooLong { prompt: 41, context: 40 });
        engine.waiting_tokens.store(30, Ordering::Relaxed);
        assert_eq!(refused(vec![input(21, 0)]), SubmitError::QueueFull);
        engine.waiting_tokens.store(0, Ordering::Relaxed);
        // More than may wait, but nothing does.
        assert_eq!(engine.run(vec![input(30, 0), input(30, 1)]).unwrap().unwrap().len(), 2);
    }

    #[test]
    fn a_dropped_ticket_ends_its_request() {
        let engine = EncoderEngine::start(model("encoder-bert"), &EncoderOptions::default()).unwrap();
        let (sender, results) = channel();
        // Keeps the engine busy until the next request is dropped.
        let (hold, held) = channel::<()>();
        let first = engine.submit(vec![input(5, 0)], Box::new(move |_| _ = held.recv())).unwrap();
        let second = engine.submit(vec![input(5, 0)], Box::new(move |outcome| _ = sender.send(outcome))).unwrap();
        let third = engine.clone();
        drop(second);
        drop(hold);
        third.run(vec![input(2, 0)]).unwrap().unwrap();
        // Either it had begun together with the first, or it never ran.
        let computed = results.try_recv().is_ok();
        assert_eq!(engine.stats().finished_abort_total, u64::from(!computed));
        drop(first);
    }

    #[test]
    fn cut_vectors_are_divided_once() {
        for (vector, dimensions, expected) in [
            (vec![3.0, 4.0, 12.0], 2, vec![0.6, 0.8]),
            (vec![3.0, 4.0, 12.0], 3, vec![3.0, 4.0, 12.0]),
            (vec![0.0, 0.0, 1.0], 2, vec![0.0, 0.0]),
            // 1 / sqrt(3) in single precision, where a factor rounded to single precision and multiplied gives
            // 1.7320508.
            (vec![3.0, 3.0, 3.0, 1.0], 3, vec![0.577_350_26; 3]),
        ] {
            assert_eq!(shortened(vector.clone(), dimensions), expected, "{vector:?} to {dimensions}");
        }
        // Against the quotient of exact numbers, rounded once.
        let vector: Vec<f32> = (1..=64).map(|i| (i as f32 * 0.37).sin()).collect();
        let length = vector[..16].iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let exact: Vec<f32> = vector[..16].iter().map(|x| (f64::from(*x) / length) as f32).collect();
        assert_eq!(shortened(vector, 16), exact);
    }
}
