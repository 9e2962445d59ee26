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

use crate::gradients::{NamedGradients, flat_values};
use narthex_base::{Error, Result};
use std::ops::Range;

/// The parameters that are trained, in the order in which all ranks count them.
pub type Layout = [Part];

/// A parameter that is trained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// How many values it has.
    pub len: usize,
    /// Whether one rank has all of it, since its values are not updated one by one.
    pub whole: bool,
}

/// Of each parameter of a layout the values of a range, or none where there are none.
pub type Pieces = Vec<Option<Vec<f32>>>;

/// One of the processes, and how it talks to the others. All ranks must make the same calls in the same order.
pub trait World: Sync {
    /// The number of this process, from 0. Rank 0 writes what the run writes.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// What every rank says, in the order of ranks.
    ///
    /// # Errors
    /// If another process cannot be reached, or has parted from the common path.
    fn all(&self, own: Vec<u8>) -> Result<Vec<Vec<u8>>>;

    /// A number of every rank, in the order of ranks.
    ///
    /// # Errors
    /// As [`World::all`].
    fn gather(&self, own: f64) -> Result<Vec<f64>> {
        let number = |(rank, message): (usize, Vec<u8>)| {
            let bytes: [u8; 8] = message.try_into().map_err(|_| garbled(rank))?;
            Ok(f64::from_le_bytes(bytes))
        };
        self.all(own.to_le_bytes().to_vec())?.into_iter().enumerate().map(number).collect()
    }

    /// What rank 0 says, at every rank; what others pass is not looked at.
    ///
    /// # Errors
    /// As [`World::all`].
    fn tell(&self, words: Vec<u8>) -> Result<Vec<u8>>;

    /// Begins the sum of a step's gradients.
    fn sums<'a>(&'a self, layout: &'a Layout) -> Box<dyn Sums + 'a>;

    /// The values of a parameter, by its number in a layout, that a rank adds and, where states are sharded, has.
    fn range(&self, layout: &Layout, number: usize, rank: usize) -> Range<usize>;

    /// The parameters whole, of which every rank gives its ranges.
    ///
    /// # Errors
    /// As [`World::all`].
    fn share(&self, layout: &Layout, own: Pieces) -> Result<Pieces>;

    /// Tells the others that this process has failed, and why, so that they need not wait for it.
    fn abort(&self, why: &str);
}

/// The sum of the gradients of a step.
pub trait Sums {
    /// Adds the gradients of a round onto the sum of the rounds before, in the order of ranks. A rank without gradients
    /// in this round is skipped.
    ///
    /// # Errors
    /// As [`World::all`].
    fn add_round(&mut self, own: Option<NamedGradients>) -> Result<()>;

    /// The sum, the same at every rank.
    ///
    /// # Errors
    /// As [`World::all`].
    fn finish(self: Box<Self>) -> Result<NamedGradients>;

    /// The same, of which this rank gets its ranges alone.
    ///
    /// # Errors
    /// As [`World::all`].
    fn finish_own(self: Box<Self>) -> Result<Pieces>;
}

fn garbled(rank: usize) -> Error {
    Error::internal(format!("rank {rank} sent a message of another form"))
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
    fn all(&self, own: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        Ok(vec![own])
    }
    fn tell(&self, words: Vec<u8>) -> Result<Vec<u8>> {
        Ok(words)
    }
    fn sums<'a>(&'a self, layout: &'a Layout) -> Box<dyn Sums + 'a> {
        Box::new(Whole { layout, sum: NamedGradients::default() })
    }
    fn range(&self, layout: &Layout, number: usize, _: usize) -> Range<usize> {
        0..layout[number].len
    }
    fn share(&self, _: &Layout, own: Pieces) -> Result<Pieces> {
        Ok(own)
    }
    fn abort(&self, _: &str) {}
}

/// The sums of one process.
struct Whole<'a> {
    layout: &'a Layout,
    sum: NamedGradients,
}

impl Sums for Whole<'_> {
    fn add_round(&mut self, own: Option<NamedGradients>) -> Result<()> {
        own.into_iter().for_each(|own| self.sum.add(own));
        Ok(())
    }
    fn finish(self: Box<Self>) -> Result<NamedGradients> {
        Ok(self.sum)
    }
    fn finish_own(mut self: Box<Self>) -> Result<Pieces> {
        let parts = self.layout.iter();
        Ok(parts.map(|part| self.sum.remove(&part.name).map(|gradient| flat_values(&gradient))).collect())
    }
}
