//! The processes that train one network together: who has which micro-batch, and in which order their gradients are
//! added. Knows neither networks nor objectives.
//!
//! Micro-batch `i` of a step is worked on by rank `i mod size`; the micro-batches of a round, one for each rank, are
//! added onto the running sum in the order of ranks. So the sum is taken in the order of micro-batches whatever the
//! size, and the size is no part of a model's recipe.

mod communicator;
mod mesh;
mod mpi;
mod ranks;
mod sockets;
mod threads;

pub use communicator::{Communicator, Message, Operation, Pending, Segment, Traffic};
pub use mesh::Mesh;
pub use mpi::{MpiFamily, mpi};
pub use ranks::Ranks;
pub use sockets::{Seat, sockets, tcp};
pub use threads::threads;

use crate::gradients::NamedGradients;
use burn::tensor::Tensor;
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
    /// Whether ranks may send each other its values rounded to bf16, as every use rounds them.
    pub rounded: bool,
    /// Its place in the round of ranks: whoever begins with one parameter ends with another.
    pub turn: usize,
}

/// Of each of some parameters the values of a range, or none where there are none.
pub type Pieces = Vec<Option<Tensor<1>>>;

/// Parameters that are being put together.
pub enum Gathering {
    /// They are there.
    There(Pieces),
    /// The ranges of the other ranks are on their way.
    Coming(Pending, Vec<Part>),
}

/// One of the processes, and how it talks to the others. All ranks must make the same calls in the same order.
pub trait World: Sync {
    /// The number of this process, from 0. Rank 0 writes what the run writes.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// What moves the bytes between them, for people.
    fn engine(&self) -> String;

    /// What has gone to the others so far.
    fn traffic(&self) -> Traffic;

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

    /// The values of a parameter that a rank adds and, where states are sharded, has.
    fn range(&self, part: &Part, rank: usize) -> Range<usize>;

    /// Begins to put together parameters of which every rank has its ranges.
    ///
    /// # Errors
    /// As [`World::all`].
    fn begin_share(&self, parts: Vec<Part>, own: Pieces) -> Result<Gathering>;

    /// The parameters whole.
    ///
    /// # Errors
    /// As [`World::all`].
    fn finish_share(&self, gathering: Gathering) -> Result<Pieces>;

    /// Both at once.
    ///
    /// # Errors
    /// As [`World::all`].
    fn share(&self, parts: &[Part], own: Pieces) -> Result<Pieces> {
        self.finish_share(self.begin_share(parts.to_vec(), own)?)
    }

    /// The same for rank 0 alone.
    ///
    /// # Errors
    /// As [`World::all`].
    fn collect(&self, parts: Vec<Part>, own: Pieces) -> Result<Option<Pieces>>;

    /// Tells the others that this process has failed, and why, so that they need not wait for it.
    fn abort(&self, why: &str);
}

/// The sum of the gradients of a step.
pub trait Sums {
    /// Adds the gradients of a round, of the parameters of these numbers, onto the sum of the rounds before, in the
    /// order of ranks. A rank without gradients in this round is skipped.
    ///
    /// # Errors
    /// As [`World::all`].
    fn add(&mut self, numbers: &[usize], own: Option<NamedGradients>) -> Result<()>;

    /// The sums, the same at every rank.
    ///
    /// # Errors
    /// As [`World::all`].
    fn finish(self: Box<Self>) -> Result<Pieces>;

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
    fn engine(&self) -> String {
        "one process".into()
    }
    fn traffic(&self) -> Traffic {
        Traffic::default()
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
    fn range(&self, part: &Part, _: usize) -> Range<usize> {
        0..part.len
    }
    fn begin_share(&self, _: Vec<Part>, own: Pieces) -> Result<Gathering> {
        Ok(Gathering::There(own))
    }
    fn finish_share(&self, gathering: Gathering) -> Result<Pieces> {
        match gathering {
            Gathering::There(pieces) => Ok(pieces),
            Gathering::Coming(..) => Err(Error::internal("one process waits for others")),
        }
    }
    fn collect(&self, _: Vec<Part>, own: Pieces) -> Result<Option<Pieces>> {
        Ok(Some(own))
    }
    fn abort(&self, _: &str) {}
}

/// The sums of one process.
struct Whole<'a> {
    layout: &'a Layout,
    sum: NamedGradients,
}

impl Sums for Whole<'_> {
    fn add(&mut self, _: &[usize], own: Option<NamedGradients>) -> Result<()> {
        own.into_iter().for_each(|own| self.sum.add(own));
        Ok(())
    }
    fn finish(mut self: Box<Self>) -> Result<Pieces> {
        Ok(self.layout.iter().map(|part| self.sum.remove(&part.name)).collect())
    }
    fn finish_own(self: Box<Self>) -> Result<Pieces> {
        self.finish()
    }
}
