//! What a constraint does not allow never comes, whatever runs beside it and however tokens are guessed; and what must
//! come costs no step.

use super::*;
use crate::{Allowed, Constraint, ConstraintState, Speculation, SpeculationMethod, TokenSet};

/// Places in a row, each with the tokens that may stand there; the end may come behind the last, or where it is empty.
#[derive(Clone, Debug)]
struct Places(Vec<Vec<u32>>);

impl Constraint for Places {
    fn begin(&self) -> Box<dyn ConstraintState> {
        Box::new(At { places: self.0.clone(), place: 0 })
    }
}

struct At {
    places: Vec<Vec<u32>>,
    place: usize,
}

impl ConstraintState for At {
    fn allowed(&mut self, guesses: &[u32]) -> Result<Vec<Allowed>, String> {
        let at = |place: usize| {
            let tokens = self.places.get(place).map(Vec::as_slice).unwrap_or_default();
            Allowed::Only { tokens: TokenSet::of(40, tokens), end: tokens.is_empty() }
        };
        let mut all = vec![at(self.place)];
        for (i, guess) in guesses.iter().enumerate() {
            if !self.places.get(self.place + i).is_some_and(|tokens| tokens.contains(guess)) {
                break;
            }
            all.push(at(self.place + i + 1));
        }
        Ok(all)
    }

    fn push(&mut self, id: u32) -> Result<(), String> {
        match self.places.get(self.place) {
            Some(tokens) if tokens.contains(&id) => self.place += 1,
            _ => return Err(format!("{id} is not allowed at {}", self.place)),
        }
        Ok(())
    }

    fn forced(&self) -> Option<u32> {
        match self.places.get(self.place).map(Vec::as_slice) {
            Some([only]) => Some(*only),
            _ => None,
        }
    }

    fn is_complete(&self) -> bool {
        self.place >= self.places.len()
    }
}

/// Three that must come, one of three, two that must come, one of all, one of two.
fn places() -> Places {
    Places(vec![vec![7], vec![8], vec![9], vec![3, 5, 11], vec![20], vec![21], (0..40).collect(), vec![1, 2]])
}

fn held(max_tokens: usize) -> Request {
    Request { constraint: Some(Arc::new(places())), ..request(&[4, 9, 2], max_tokens) }
}

/// What an engine gives for a request, and in how many steps.
fn run(options: EngineOptions, request: Request) -> (Vec<u32>, FinishReason, u64) {
    let engine = Engine::start(model(), options).unwrap();
    let (tokens, reason) = engine.generate(request).unwrap();
    (tokens, reason.unwrap(), engine.stats().steps_total)
}

fn follows(tokens: &[u32]) {
    for (token, place) in tokens.iter().zip(places().0) {
        assert!(place.contains(token), "{tokens:?}");
    }
}

#[test]
fn what_is_not_allowed_never_comes() {
    let (tokens, reason, steps) = run(EngineOptions::default(), held(30));
    follows(&tokens);
    assert_eq!((tokens.len(), reason), (8, FinishReason::Stop));
    // Of eight tokens three are chosen, each in a step.
    assert_eq!(steps, 3);
    for sampling in (0..20).map(|seed| Sampling { seed, temperature: 1.5, ..Sampling::default() }) {
        let (tokens, reason, _) = run(EngineOptions::default(), Request { sampling, ..held(30) });
        follows(&tokens);
        assert_eq!((tokens.len(), reason), (8, FinishReason::Stop));
    }
}

#[test]
fn nothing_beside_it_changes_a_byte() {
    let (expected, ..) = run(EngineOptions::default(), held(30));
    // With scores, each token has its step.
    let scored = Request { logprobs: Some(2), ..held(30) };
    let (tokens, _, steps) = run(EngineOptions::default(), scored);
    assert_eq!((tokens, steps), (expected.clone(), 8));
    for tokens in [1, 4] {
        for method in [SpeculationMethod::Ngram { max: 3, min: 1 }, SpeculationMethod::Draft(Box::new(model()))] {
            let speculation = Some(Speculation { method, tokens });
            let (found, reason, _) = run(EngineOptions { speculation, ..EngineOptions::default() }, held(30));
            assert_eq!((found, reason), (expected.clone(), FinishReason::Stop));
        }
    }
    // Beside others, some of them held too.
    let engine = Engine::start(model(), EngineOptions::default()).unwrap();
    let threads: Vec<_> = (0..8)
        .map(|i| {
            let engine = engine.clone();
            let asked = if i % 2 == 0 { held(30) } else { request(&[i, 3], 20) };
            thread::spawn(move || (i, engine.generate(asked).unwrap().0))
        })
        .collect();
    for thread in threads {
        let (i, tokens) = thread.join().unwrap();
        assert!(i % 2 == 1 || tokens == expected, "{i}: {tokens:?}");
    }
}

#[test]
fn limits_and_ends_hold_beside_it() {
    for max_tokens in 1..8 {
        let (tokens, reason, _) = run(EngineOptions::default(), held(max_tokens));
        follows(&tokens);
        assert_eq!((tokens.len(), reason), (max_tokens, FinishReason::Length));
    }
    // What ends a sequence may only come where the constraint lets it end, even if it is wished for.
    let sampling = Sampling { logit_bias: vec![(33, 100.0)], temperature: 0.0, ..Sampling::default() };
    let open = Places(vec![vec![1, 2], vec![1, 2], vec![]]);
    let stopped = Request {
        stop_tokens: vec![33],
        sampling: sampling.clone(),
        constraint: Some(Arc::new(open)),
        ..request(&[4, 9, 2], 30)
    };
    let (tokens, reason, _) = run(EngineOptions::default(), stopped);
    assert_eq!((tokens.len(), reason), (2, FinishReason::Stop));
    // Only some tokens are wished for, and none of them is allowed: what must be goes over it.
    let wished = Sampling { allowed: vec![30, 5], temperature: 0.0, ..Sampling::default() };
    let (tokens, ..) = run(EngineOptions::default(), Request { sampling: wished, ..held(30) });
    follows(&tokens);
    assert_eq!(tokens[3], 5);
}

/// Fails behind its first token.
#[derive(Debug)]
struct Failing;

impl Constraint for Failing {
    fn begin(&self) -> Box<dyn ConstraintState> {
        Box::new(Broken(0))
    }
}

struct Broken(usize);

impl ConstraintState for Broken {
    fn allowed(&mut self, _: &[u32]) -> Result<Vec<Allowed>, String> {
        if self.0 > 0 { Err("it is lost".into()) } else { Ok(vec![Allowed::Anything]) }
    }

    fn push(&mut self, _: u32) -> Result<(), String> {
        self.0 += 1;
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
fn who_cannot_go_on_ends_alone() {
    let engine = Engine::start(model(), EngineOptions::default()).unwrap();
    let failing = Request { constraint: Some(Arc::new(Failing)), ..request(&[4, 9, 2], 30) };
    let beside = {
        let engine = engine.clone();
        thread::spawn(move || engine.generate(request(&[5, 3], 20)).unwrap())
    };
    let (tokens, outcome) = engine.generate(failing).unwrap();
    assert_eq!((tokens.len(), outcome), (1, Err("it is lost".into())));
    assert_eq!(beside.join().unwrap().0.len(), 20);
    assert_eq!(engine.generate(held(30)).unwrap().0.len(), 8);
}
