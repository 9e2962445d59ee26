//! A text on its way through the rules, taken apart once for all of them.

use crate::{python, tokens};
use std::cell::OnceCell;

/// A text and, once a rule asks for them, its words.
#[derive(Debug)]
pub struct Document<'a> {
    /// The text.
    pub text: &'a str,
    words: OnceCell<Vec<&'a str>>,
    length: OnceCell<usize>,
}

impl<'a> Document<'a> {
    /// Nothing is taken apart yet.
    pub fn new(text: &'a str) -> Self {
        Self { text, words: OnceCell::new(), length: OnceCell::new() }
    }

    /// Its words.
    pub fn words(&self) -> &[&'a str] {
        self.words.get_or_init(|| tokens::words(self.text))
    }

    /// Its code points.
    pub fn length(&self) -> usize {
        *self.length.get_or_init(|| python::length(self.text))
    }
}
