//! One of several constraints: what any of those allows that still can hold.

use narthex_infer::{Allowed, Constraint, ConstraintState, TokenSet};
use std::sync::Arc;

/// An answer of one form or another.
#[derive(Clone, Debug)]
pub struct Either(pub Vec<Arc<dyn Constraint>>);

impl Constraint for Either {
    fn begin(&self) -> Box<dyn ConstraintState> {
        Box::new(Open { states: self.0.iter().map(|constraint| constraint.begin()).collect() })
    }
}

struct Open {
    /// Those that still can hold, at least one.
    states: Vec<Box<dyn ConstraintState>>,
}

/// What one of two allows.
fn union(a: Allowed, b: Allowed) -> Allowed {
    match (a, b) {
        (Allowed::Only { mut tokens, end }, Allowed::Only { tokens: others, end: other }) => {
            tokens.unite(&others);
            Allowed::Only { tokens, end: end || other }
        }
        _ => Allowed::Anything,
    }
}

impl ConstraintState for Open {
    fn allowed(&mut self, guesses: &[u32]) -> Result<Vec<Allowed>, String> {
        if let [only] = self.states.as_mut_slice() {
            return only.allowed(guesses);
        }
        let mut all: Option<Allowed> = None;
        for state in &mut self.states {
            let now = state.allowed(&[])?.into_iter().next().ok_or("a constraint says nothing")?;
            all = Some(match all {
                Some(before) => union(before, now),
                None => now,
            });
        }
        Ok(vec![all.unwrap_or(Allowed::Only { tokens: TokenSet::new(0), end: true })])
    }

    fn push(&mut self, id: u32) -> Result<(), String> {
        if let [only] = self.states.as_mut_slice() {
            return only.push(id);
        }
        let fits = |state: &mut Box<dyn ConstraintState>| {
            let allowed = state.allowed(&[]).ok().and_then(|allowed| allowed.into_iter().next());
            let fits = match allowed {
                Some(Allowed::Only { tokens, .. }) => tokens.contains(id),
                Some(Allowed::Anything) => true,
                None => false,
            };
            fits && state.push(id).is_ok()
        };
        self.states.retain_mut(fits);
        if self.states.is_empty() { Err("none of the forms allows this token".into()) } else { Ok(()) }
    }

    fn forced(&self) -> Option<u32> {
        let first = self.states.first()?.forced()?;
        self.states.iter().all(|state| state.forced() == Some(first)).then_some(first)
    }

    fn is_complete(&self) -> bool {
        self.states.iter().all(|state| state.is_complete())
    }
}
