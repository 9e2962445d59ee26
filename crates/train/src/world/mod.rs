//! The processes that train one network together: who has which micro-batch, and in which order their gradients are
//! added. Knows neither networks nor objectives.
//!
//! Micro-batch `i` of a step is worked on by rank `i mod size`; the micro-batches of a round, one for each rank, are
//! added onto the running sum in the order of ranks. So the sum is taken in the order of micro-batches whatever the
//! size, and the size is no part of a model's recipe.

mod communicator;
mod ranks;
mod sockets;
mod threads;

pub use communicator::{Communicator, Operation};
pub use ranks::Ranks;
pub use sockets::Sockets;
pub use threads::Threads;

use crate::gradients::NamedGradients;
use narthex_base::Result;

/// A parameter that is trained, and how many values it has, in the order in which all ranks count them.
pub type Layout = [(String, usize)];

/// One of the processes, and how it talks to the others. All ranks must make the same calls in the same order.
pub trait World: Sync {
    /// The number of this process, from 0. Rank 0 writes what the run writes.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// A number of every rank, in the order of ranks.
    ///
    /// # Errors
    /// If another process cannot be reached, or has parted from the common path.
    fn gather(&self, own: f64) -> Result<Vec<f64>>;

    /// What rank 0 says, at every rank; what others pass is not looked at.
    ///
    /// # Errors
    /// As [`World::gather`].
    fn tell(&self, words: Vec<u8>) -> Result<Vec<u8>>;

    /// Begins the sum of a step's gradients.
    fn sums<'a>(&'a self, layout: &'a Layout) -> Box<dyn Sums + 'a>;

    /// Tells the others that this process has failed, and why, so that they need not wait for it.
    fn abort(&self, why: &str);
}

/// The sum of the gradients of a step.
pub trait Sums {
    /// Adds the gradients of a round onto the sum of the rounds before, in the order of ranks. A rank without gradients
    /// in this round is skipped.
    ///
    /// # Errors
    /// As [`World::gather`].
    fn add_round(&mut self, own: Option<NamedGradients>) -> Result<()>;

    /// The sum, the same at every rank.
    ///
    /// # Errors
    /// As [`World::gather`].
    fn finish(self: Box<Self>) -> Result<NamedGradients>;
}

/// The world of one process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl World for Alone {
    fn rank(&self) -> usize {
        0
    }
    fn size(&self) -> usize {
        1
    }
    fn gather(&self, own: f64) -> Result<Vec<f64>> {
        Ok(vec![own])
    }
    fn tell(&self, words: Vec<u8>) -> Result<Vec<u8>> {
        Ok(words)
    }
    fn sums<'a>(&'a self, _: &'a Layout) -> Box<dyn Sums + 'a> {
        Box::new(NamedGradients::default())
    }
    fn abort(&self, _: &str) {}
}

impl Sums for NamedGradients {
    fn add_round(&mut self, own: Option<NamedGradients>) -> Result<()> {
        own.into_iter().for_each(|own| self.add(own));
        Ok(())
    }
    fn finish(self: Box<Self>) -> Result<NamedGradients> {
        Ok(*self)
    }
}
