//! The processes that train one network together: who has which micro-batch, and in which order their gradients are
//! added. Knows neither networks nor objectives.
//!
//! Micro-batch `i` of a step is worked on by rank `i mod size`; the micro-batches of a round, one for each rank, are
//! added onto the running sum in the order of ranks. So the sum is taken in the order of micro-batches whatever the
//! size, and the size is no part of a model's recipe.

use crate::gradients::NamedGradients;
use narthex_base::Result;

/// One of the processes, and how it talks to the others. All ranks must make the same calls in the same order.
pub trait World: Sync {
    /// The number of this process, from 0. Rank 0 writes what the run writes.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// A number of every rank, in the order of ranks.
    ///
    /// # Errors
    /// If another process cannot be reached.
    fn gather(&self, own: f64) -> Result<Vec<f64>>;

    /// Adds the gradients of a round onto the sum of the rounds before, in the order of ranks. A rank without gradients
    /// in this round is skipped.
    ///
    /// # Errors
    /// If another process cannot be reached.
    fn add_round(&self, sum: &mut NamedGradients, own: Option<NamedGradients>) -> Result<()>;
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
    fn add_round(&self, sum: &mut NamedGradients, own: Option<NamedGradients>) -> Result<()> {
        if let Some(own) = own {
            sum.add(own);
        }
        Ok(())
    }
}
