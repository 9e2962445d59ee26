//! Near copies: which documents share most of their runs of words. MinHash with bands (Broder, 1997; Leskovec et al.,
//! "Mining of Massive Datasets", chapter 3) with datatrove's parameters, so that signatures and clusters are the same.
//! Knows texts by their number in the order of the input; what becomes of copies is decided elsewhere.

mod bands;
mod clusters;
mod random;
mod signature;

pub use bands::{Bands, BandsError};
pub use clusters::Clusters;
pub use signature::{Signature, Signer};
