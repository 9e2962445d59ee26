//! What constraints allow in the rows of a step, computed on a thread of its own while the model runs. Knows no logits.

use crate::{
    constraint::{Allowed, ConstraintState},
    scheduler::SequenceId,
};
use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

/// A constraint on its way: out with the guesses of a step, back with what it allows.
pub(crate) struct Task {
    pub(crate) id: SequenceId,
    pub(crate) state: Box<dyn ConstraintState>,
    pub(crate) guesses: Vec<u32>,
}

/// A constraint that came back. One that panicked did not.
pub(crate) struct Found {
    pub(crate) state: Option<Box<dyn ConstraintState>>,
    pub(crate) allowed: Result<Vec<Allowed>, String>,
}

/// The thread; it starts with the first constraint.
#[derive(Default)]
pub(crate) struct Masks {
    tasks: Option<Sender<(Vec<Task>, Answers)>>,
}

type Answers = Sender<HashMap<SequenceId, Found>>;

/// What a step waits for.
pub(crate) enum Pending {
    /// No sequence of it has a constraint.
    Nothing,
    /// The thread computes it.
    There(Receiver<HashMap<SequenceId, Found>>),
    /// There is no thread: it was computed at once.
    Here(HashMap<SequenceId, Found>),
}

impl Masks {
    /// Begins with what a step needs.
    pub(crate) fn begin(&mut self, tasks: Vec<Task>) -> Pending {
        if tasks.is_empty() {
            return Pending::Nothing;
        }
        if self.tasks.is_none() {
            let (sender, incoming) = channel::<(Vec<Task>, Answers)>();
            let work = move || {
                for (tasks, answers) in incoming {
                    // Nobody waits any more if the step failed.
                    _ = answers.send(compute(tasks));
                }
            };
            self.tasks = thread::Builder::new().name("masks".into()).spawn(work).ok().map(|_| sender);
        }
        let (answers, found) = channel();
        match &self.tasks {
            None => Pending::Here(compute(tasks)),
            Some(thread) => match thread.send((tasks, answers)) {
                Ok(()) => Pending::There(found),
                Err(unsent) => Pending::Here(compute(unsent.0.0)),
            },
        }
    }
}

impl Pending {
    /// Waits for it.
    pub(crate) fn wait(self) -> HashMap<SequenceId, Found> {
        match self {
            Pending::Nothing => HashMap::new(),
            Pending::There(found) => found.recv().unwrap_or_default(),
            Pending::Here(found) => found,
        }
    }
}

fn compute(tasks: Vec<Task>) -> HashMap<SequenceId, Found> {
    let found = tasks.into_iter().map(|Task { id, mut state, guesses }| {
        let found = match catch_unwind(AssertUnwindSafe(|| state.allowed(&guesses))) {
            Ok(allowed) => Found { state: Some(state), allowed },
            Err(_) => Found { state: None, allowed: Err("the constraint failed; this is a bug in narthex".into()) },
        };
        (id, found)
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constraint::TokenSet;

    /// Allows 7, and panics or fails at a guess of 1 or 2.
    struct Fussy;

    impl ConstraintState for Fussy {
        fn allowed(&mut self, guesses: &[u32]) -> Result<Vec<Allowed>, String> {
            match guesses {
                [1] => panic!("as the test wants it"),
                [2] => Err("no".into()),
                _ => Ok(vec![Allowed::Only { tokens: TokenSet::of(8, &[7]), end: false }]),
            }
        }

        fn push(&mut self, _: u32) -> Result<(), String> {
            Ok(())
        }

        fn forced(&self) -> Option<u32> {
            None
        }

        fn is_complete(&self) -> bool {
            false
        }
    }

    #[test]
    fn each_comes_back_with_its_own() {
        let mut masks = Masks::default();
        assert!(masks.begin(vec![]).wait().is_empty());
        for _ in 0..2 {
            let task = |id: SequenceId| Task { id, state: Box::new(Fussy), guesses: vec![id as u32] };
            let mut found = masks.begin(vec![task(0), task(1), task(2)]).wait();
            let mut outcome = |id| {
                let Found { state, allowed } = found.remove(&id).unwrap();
                (state.is_some(), allowed.map(|allowed| allowed.len()))
            };
            assert_eq!(outcome(0), (true, Ok(1)));
            assert_eq!(outcome(2), (true, Err("no".into())));
            assert!(matches!(outcome(1), (false, Err(_))));
        }
    }
}
