//! A world over a communicator. Each trained parameter is cut into ranges at fixed places, and each range is added by
//! one rank, in the order of ranks; at the end of a step everybody gets what everybody has added. So each gradient
//! travels once in a round and the sums once in a step. Knows neither sockets nor networks.

use super::{
    Layout, Part, Pieces, Sums, World,
    communicator::{Communicator, Operation},
    garbled,
};
use crate::gradients::{NamedGradients, flat_tensor, flat_values};
use narthex_base::{Error, Result};
use narthex_model::cpu;
use std::ops::Range;

/// Values between two places where a parameter may be cut.
const CUT: usize = 16_384;

/// Several ranks over a communicator.
pub struct Ranks<C> {
    communicator: C,
}

impl<C: Communicator> Ranks<C> {
    /// The world of these ranks, if all of them run the same: `identity` says what, each part with its name.
    ///
    /// # Errors
    /// If a rank cannot be reached, or runs something else: rank and part are named.
    pub fn meet(communicator: C, identity: &[(&str, String)]) -> Result<Self> {
        let own: Vec<(String, String)> = identity.iter().map(|(name, part)| (name.to_string(), part.clone())).collect();
        let message = serde_json::to_vec(&own).expect("texts serialize");
        let found = communicator.exchange(Operation::Meet, vec![message; communicator.size()])?;
        for (rank, message) in found.iter().enumerate() {
            let theirs: Vec<(String, String)> = serde_json::from_slice(message)
                .map_err(|error| Error::input(format!("rank {rank} does not say what it runs")).cause(error))?;
            if let Some(((name, ours), (_, theirs))) = own.iter().zip(&theirs).find(|(own, theirs)| own != theirs) {
                return Err(Error::input(format!("rank {rank} has another {name} than rank {}", communicator.rank()))
                    .cause(format!("{theirs}, not {ours}"))
                    .help("start all ranks with the same program, project and settings"));
            }
        }
        Ok(Self { communicator })
    }

    /// What moves the bytes.
    pub fn communicator(&self) -> &C {
        &self.communicator
    }
}

impl<C: Communicator> World for Ranks<C> {
    fn rank(&self) -> usize {
        self.communicator.rank()
    }

    fn size(&self) -> usize {
        self.communicator.size()
    }

    fn all(&self, own: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        self.communicator.exchange(Operation::Gather, vec![own; self.size()])
    }

    fn tell(&self, words: Vec<u8>) -> Result<Vec<u8>> {
        let message = if self.rank() == 0 { words } else { vec![] };
        let mut found = self.communicator.exchange(Operation::Tell, vec![message; self.size()])?;
        Ok(found.swap_remove(0))
    }

    fn sums<'a>(&'a self, layout: &'a Layout) -> Box<dyn Sums + 'a> {
        Box::new(Shares { ranks: self, layout, own: vec![None; layout.len()] })
    }

    fn range(&self, layout: &Layout, number: usize, rank: usize) -> Range<usize> {
        range(number, &layout[number], rank, self.size())
    }

    fn share(&self, layout: &Layout, own: Pieces) -> Result<Pieces> {
        let message = self.pack(layout, self.rank(), |number, _| own[number].as_deref());
        drop(own);
        let found = self.communicator.exchange(Operation::Share, vec![message; self.size()])?;
        let mut whole: Pieces = vec![None; layout.len()];
        for (rank, message) in found.iter().enumerate() {
            self.unpack(layout, message, (rank, rank), |number, part| {
                let range = self.range(layout, number, rank);
                let values = whole[number].get_or_insert_with(|| vec![0.0; layout[number].len]);
                values[range].iter_mut().zip(part).for_each(|(value, part)| *value = part);
            })?;
        }
        Ok(whole)
    }

    fn abort(&self, why: &str) {
        self.communicator.abort(why);
    }
}

/// The range of a parameter, by its number, that a rank adds. Small ones, and those that one rank has whole, go round.
fn range(number: usize, part: &Part, rank: usize, size: usize) -> Range<usize> {
    let (rank, blocks) = ((rank + number) % size, part.len.div_ceil(CUT));
    if part.whole {
        return if rank + 1 == size { 0..part.len } else { part.len..part.len };
    }
    let border = |rank: usize| (blocks * rank / size * CUT).min(part.len);
    border(rank)..border(rank + 1)
}

impl<C: Communicator> Ranks<C> {
    /// The ranges of a rank as bytes: for each parameter whether it has values, and then those.
    fn pack<'v>(&self, layout: &Layout, rank: usize, of: impl Fn(usize, Range<usize>) -> Option<&'v [f32]>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in 0..layout.len() {
            let values = of(number, self.range(layout, number, rank)).unwrap_or_default();
            bytes.push(u8::from(!values.is_empty()));
            let at = bytes.len();
            bytes.resize(at + 4 * values.len(), 0);
            bytes[at..]
                .chunks_exact_mut(4)
                .zip(values)
                .for_each(|(to, value)| to.copy_from_slice(&value.to_le_bytes()));
        }
        bytes
    }

    /// Gives the values that a message of one rank holds of the ranges of another.
    fn unpack(
        &self,
        layout: &Layout,
        message: &[u8],
        (from, of): (usize, usize),
        mut give: impl FnMut(usize, &mut dyn ExactSizeIterator<Item = f32>),
    ) -> Result<()> {
        let mut left = message;
        for number in 0..layout.len() {
            let (flag, rest) = left.split_first().ok_or_else(|| garbled(from))?;
            left = rest;
            if *flag == 1 {
                let bytes = 4 * self.range(layout, number, of).len();
                let (values, rest) = left.split_at_checked(bytes).ok_or_else(|| garbled(from))?;
                left = rest;
                give(number, &mut values.chunks_exact(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]])));
            }
        }
        if left.is_empty() { Ok(()) } else { Err(garbled(from)) }
    }
}

/// The sums that this rank takes.
struct Shares<'a, C> {
    ranks: &'a Ranks<C>,
    layout: &'a Layout,
    /// Of each parameter the values of this rank's range, once there was a gradient.
    own: Pieces,
}

impl<C: Communicator> Sums for Shares<'_, C> {
    fn add_round(&mut self, own: Option<NamedGradients>) -> Result<()> {
        let Self { ranks, layout, own: sums } = self;
        let has_worked = own.is_some();
        let mut own = own.unwrap_or_default();
        let values: Pieces =
            layout.iter().map(|part| own.remove(&part.name).map(|gradient| flat_values(&gradient))).collect();
        let messages = (0..ranks.size()).map(|rank| match has_worked {
            false => vec![],
            true => ranks.pack(layout, rank, |number, range| values[number].as_ref().map(|values| &values[range])),
        });
        let found = ranks.communicator.exchange(Operation::Reduce, messages.collect())?;
        drop(values);
        for (rank, message) in found.iter().enumerate().filter(|(_, message)| !message.is_empty()) {
            ranks.unpack(layout, message, (rank, ranks.rank()), |number, part| match &mut sums[number] {
                Some(sum) => sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part),
                empty => *empty = Some(part.collect()),
            })?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<NamedGradients> {
        let whole = self.ranks.share(self.layout, self.own)?;
        let mut sum = NamedGradients::default();
        for (part, values) in self.layout.iter().zip(whole) {
            values.into_iter().for_each(|values| sum.insert(&part.name, flat_tensor(values, &cpu())));
        }
        Ok(sum)
    }

    fn finish_own(self: Box<Self>) -> Result<Pieces> {
        Ok(self.own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_every_value_once() {
        for size in 1..6 {
            for (number, len) in [0, 1, 5, CUT - 1, CUT, CUT + 1, 3 * CUT, 7 * CUT + 9].into_iter().enumerate() {
                let part = Part { name: String::new(), len, whole: number == 3 };
                let mut ranges: Vec<Range<usize>> = (0..size).map(|rank| range(number, &part, rank, size)).collect();
                ranges.sort_by_key(|range| (range.start, range.end));
                assert!(ranges.iter().all(|range| range.start.is_multiple_of(CUT) || range.start == len));
                let ends = ranges.iter().fold(0, |at, range| {
                    assert_eq!(range.start.min(len), at.min(range.start), "{len} over {size}: {ranges:?}");
                    range.end.max(at)
                });
                assert_eq!(ends, len);
                assert_eq!(ranges.iter().map(Range::len).sum::<usize>(), len);
            }
        }
    }
}
