//! Files of others: one program of tests, so that it is linked once.

mod gguf;
mod hostile;
mod made;
mod pickle;
