//! Masks what is personal or secret in all that a run keeps: what people write, what models answer, what tools give
//! back. Masked is masked for good: nothing here can be undone, and nothing is looked up. Knows forms of texts and of
//! messages; no run and no store.

mod find;
mod masker;
mod near;
mod numbers;
#[cfg(test)]
mod tests;
mod veil;
mod words;

pub use find::Redact;
pub use masker::Masker;
pub(crate) use veil::Veil;
