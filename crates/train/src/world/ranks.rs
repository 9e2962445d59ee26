//! A world over a communicator. Each trained parameter is cut into ranges at fixed places, and each range is added by
//! one rank, in the order of ranks; at the end of a step everybody gets what everybody has added. So each gradient
//! travels once in a round and the sums once in a step. Knows neither sockets nor networks.

use super::{
    Layout, Sums, World,
    communicator::{Communicator, Operation},
};
use crate::{
    gradients::NamedGradients,
    optimizer::{flat_tensor, flat_values},
};
use narthex_base::{Error, Result};
use narthex_model::cpu;
use std::{collections::HashMap, ops::Range};

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

    fn gather(&self, own: f64) -> Result<Vec<f64>> {
        let message = own.to_le_bytes().to_vec();
        let found = self.communicator.exchange(Operation::Gather, vec![message; self.size()])?;
        let number = |(rank, message): (usize, Vec<u8>)| {
            let bytes: [u8; 8] = message.try_into().map_err(|_| garbled(rank))?;
            Ok(f64::from_le_bytes(bytes))
        };
        found.into_iter().enumerate().map(number).collect()
    }

    fn tell(&self, words: Vec<u8>) -> Result<Vec<u8>> {
        let message = if self.rank() == 0 { words } else { vec![] };
        let mut found = self.communicator.exchange(Operation::Tell, vec![message; self.size()])?;
        Ok(found.swap_remove(0))
    }

    fn sums<'a>(&'a self, layout: &'a Layout) -> Box<dyn Sums + 'a> {
        Box::new(Shares { ranks: self, layout, own: vec![None; layout.len()] })
    }

    fn abort(&self, why: &str) {
        self.communicator.abort(why);
    }
}

fn garbled(rank: usize) -> Error {
    Error::internal(format!("rank {rank} sent a message of another form"))
}

/// The range of the parameter of this number and length that a rank adds. Small ones go round.
fn range(parameter: usize, len: usize, rank: usize, size: usize) -> Range<usize> {
    let (rank, blocks) = ((rank + parameter) % size, len.div_ceil(CUT));
    let border = |rank: usize| (blocks * rank / size * CUT).min(len);
    border(rank)..border(rank + 1)
}

/// The sums that this rank takes.
struct Shares<'a, C> {
    ranks: &'a Ranks<C>,
    layout: &'a Layout,
    /// Of each parameter the values of this rank's range, once there was a gradient.
    own: Vec<Option<Vec<f32>>>,
}

impl<C: Communicator> Shares<'_, C> {
    fn range(&self, parameter: usize, rank: usize) -> Range<usize> {
        range(parameter, self.layout[parameter].1, rank, self.ranks.size())
    }

    /// The ranges of a rank as bytes: for each parameter whether it has values, and then those.
    fn pack(&self, rank: usize, of: impl Fn(usize, Range<usize>) -> Option<Vec<f32>>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for parameter in 0..self.layout.len() {
            let range = self.range(parameter, rank);
            match of(parameter, range).filter(|values| !values.is_empty()) {
                None => bytes.push(0),
                Some(values) => {
                    bytes.push(1);
                    values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
                }
            }
        }
        bytes
    }

    /// Gives the values of a rank's ranges that a message of `from` holds.
    fn unpack(&self, message: &[u8], from: usize, rank: usize, mut give: impl FnMut(usize, Vec<f32>)) -> Result<()> {
        let mut left = message;
        for parameter in 0..self.layout.len() {
            let (flag, rest) = left.split_first().ok_or_else(|| garbled(from))?;
            left = rest;
            if *flag == 1 {
                let bytes = 4 * self.range(parameter, rank).len();
                let (values, rest) = left.split_at_checked(bytes).ok_or_else(|| garbled(from))?;
                left = rest;
                let numbers = values.chunks_exact(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]]));
                give(parameter, numbers.collect());
            }
        }
        if left.is_empty() { Ok(()) } else { Err(garbled(from)) }
    }
}

impl<C: Communicator> Sums for Shares<'_, C> {
    fn add_round(&mut self, own: Option<NamedGradients>) -> Result<()> {
        let has_worked = own.is_some();
        let mut values: HashMap<usize, Vec<f32>> = HashMap::new();
        if let Some(mut own) = own {
            for (number, (name, _)) in self.layout.iter().enumerate() {
                own.remove(name).map(|gradient| values.insert(number, flat_values(&gradient)));
            }
        }
        let messages = (0..self.ranks.size()).map(|rank| match has_worked {
            false => vec![],
            true => self.pack(rank, |number, range| values.get(&number).map(|values| values[range].to_vec())),
        });
        let found = self.ranks.communicator.exchange(Operation::Reduce, messages.collect())?;
        drop(values);
        let mut sums = std::mem::take(&mut self.own);
        for (rank, message) in found.iter().enumerate().filter(|(_, message)| !message.is_empty()) {
            self.unpack(message, rank, self.ranks.rank(), |number, part| match &mut sums[number] {
                Some(sum) => sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part),
                empty => *empty = Some(part),
            })?;
        }
        self.own = sums;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<NamedGradients> {
        let message = self.pack(self.ranks.rank(), |number, _| self.own[number].clone());
        let found = self.ranks.communicator.exchange(Operation::Share, vec![message; self.ranks.size()])?;
        let mut whole: Vec<Option<Vec<f32>>> = vec![None; self.layout.len()];
        for (rank, message) in found.iter().enumerate() {
            self.unpack(message, rank, rank, |number, part| {
                let len = self.layout[number].1;
                whole[number].get_or_insert_with(|| vec![0.0; len])[self.range(number, rank)].copy_from_slice(&part);
            })?;
        }
        let mut sum = NamedGradients::default();
        for ((name, _), values) in self.layout.iter().zip(whole) {
            values.into_iter().for_each(|values| sum.insert(name, flat_tensor(values, &cpu())));
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_every_value_once() {
        for size in 1..6 {
            for (number, len) in [0, 1, 5, CUT - 1, CUT, CUT + 1, 3 * CUT, 7 * CUT + 9].into_iter().enumerate() {
                let mut ranges: Vec<Range<usize>> = (0..size).map(|rank| range(number, len, rank, size)).collect();
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
