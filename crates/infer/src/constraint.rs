//! What a sequence may become: which tokens may come next, as a function of those before. Token ids only: what they
//! mean and who computes it, others know.

use std::fmt;

/// A set of token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSet {
    /// A bit for each id, the lowest first.
    words: Vec<u32>,
}

impl TokenSet {
    /// The empty set over so many ids.
    pub fn new(vocabulary: usize) -> Self {
        Self { words: vec![0; vocabulary.div_ceil(u32::BITS as usize)] }
    }

    /// The set of a bit for each id, the lowest first.
    pub fn from_words(words: Vec<u32>) -> Self {
        Self { words }
    }

    /// The set of these ids.
    pub fn of(vocabulary: usize, ids: &[u32]) -> Self {
        let mut set = Self::new(vocabulary);
        ids.iter().for_each(|id| set.insert(*id));
        set
    }

    /// Adds an id, if it is one of those that the set is over.
    pub fn insert(&mut self, id: u32) {
        if let Some(word) = self.words.get_mut((id / u32::BITS) as usize) {
            *word |= 1 << (id % u32::BITS);
        }
    }

    /// Takes an id away.
    pub fn remove(&mut self, id: u32) {
        if let Some(word) = self.words.get_mut((id / u32::BITS) as usize) {
            *word &= !(1 << (id % u32::BITS));
        }
    }

    /// Whether an id is in it.
    pub fn contains(&self, id: u32) -> bool {
        self.words.get((id / u32::BITS) as usize).is_some_and(|word| word >> (id % u32::BITS) & 1 == 1)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Adds what is in the other set.
    pub fn unite(&mut self, other: &Self) {
        self.words.resize(self.words.len().max(other.words.len()), 0);
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word |= other);
    }

    /// Keeps what is in the other set too.
    pub fn intersect(&mut self, other: &Self) {
        for (i, word) in self.words.iter_mut().enumerate() {
            *word &= other.words.get(i).copied().unwrap_or(0);
        }
    }

    /// Gives all other ids a logit of no probability.
    pub(crate) fn keep(&self, logits: &mut [f32]) {
        for (i, chunk) in logits.chunks_mut(u32::BITS as usize).enumerate() {
            match self.words.get(i).copied().unwrap_or(0) {
                u32::MAX => {}
                0 => chunk.fill(f32::NEG_INFINITY),
                word => {
                    for (bit, logit) in chunk.iter_mut().enumerate() {
                        if word >> bit & 1 == 0 {
                            *logit = f32::NEG_INFINITY;
                        }
                    }
                }
            }
        }
    }
}

/// What may come next.
#[derive(Clone, Debug, PartialEq)]
pub enum Allowed {
    /// Anything, the end too.
    Anything,
    /// One of these, or the end if `end` says so: the tokens that end a sequence are its request's.
    Only {
        /// The tokens.
        tokens: TokenSet,
        /// Whether the sequence may end here.
        end: bool,
    },
}

/// What a sequence may become. What it allows depends on nothing but the tokens that were sampled.
pub trait Constraint: fmt::Debug + Send + Sync {
    /// The state of a sequence of which nothing has been sampled yet.
    fn begin(&self) -> Box<dyn ConstraintState>;
}

/// A constraint behind the tokens sampled so far.
pub trait ConstraintState: Send {
    /// What may come next, and what behind each of these guesses, as far as they are allowed themselves: at least one
    /// entry. The state stays as it is.
    ///
    /// # Errors
    /// If it cannot be computed: the sequence cannot go on.
    fn allowed(&mut self, guesses: &[u32]) -> Result<Vec<Allowed>, String>;

    /// A token was chosen; never one that ends the sequence.
    ///
    /// # Errors
    /// If it is not allowed, or what follows cannot be computed.
    fn push(&mut self, id: u32) -> Result<(), String>;

    /// The token that comes next whatever the model says, if only one may: [`ConstraintState::allowed`] says the same.
    fn forced(&self) -> Option<u32>;

    /// Whether nothing may come but the end.
    fn is_complete(&self) -> bool;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_what_was_put_in() {
        for vocabulary in [1, 31, 32, 33, 64, 100] {
            let mut set = TokenSet::new(vocabulary);
            assert!(set.is_empty());
            let ids: Vec<u32> = (0..vocabulary as u32).filter(|id| id % 3 == 0).collect();
            ids.iter().for_each(|id| set.insert(*id));
            assert_eq!(set, TokenSet::of(vocabulary, &ids));
            set.insert(1 << 20);
            let found: Vec<u32> = (0..200).filter(|id| set.contains(*id)).collect();
            assert_eq!(found, ids);
            let mut logits = vec![1.0; vocabulary];
            set.keep(&mut logits);
            let kept: Vec<u32> = (0..vocabulary as u32).filter(|id| logits[*id as usize] == 1.0).collect();
            assert_eq!(kept, ids);
            assert!(logits.iter().all(|logit| *logit == 1.0 || *logit == f32::NEG_INFINITY));
            set.intersect(&TokenSet::of(vocabulary, &[0, 1]));
            assert_eq!(set, TokenSet::of(vocabulary, &[0]));
            set.unite(&TokenSet::of(vocabulary, &ids));
            assert_eq!(set, TokenSet::of(vocabulary, &ids));
            ids.iter().for_each(|id| set.remove(*id));
            assert!(set.is_empty());
        }
    }
}
