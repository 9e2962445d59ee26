//! A world over a communicator. Each trained parameter is cut into ranges at fixed places, and each range is added by
//! one rank, in the order of ranks; at the end of a step everybody gets what everybody has added. So each gradient
//! travels once in a round and the sums once in a step. Knows neither sockets nor networks.

use super::{
    Gathering, Layout, Part, Pieces, Sums, World,
    communicator::{Communicator, Message, Operation, Pending, Segment, Traffic},
    garbled,
};
use crate::gradients::{NamedGradients, flat_tensor};
use burn::tensor::Tensor;
use narthex_base::{Error, Result};
use narthex_kernels::{HostValues, profile::timed};
use narthex_model::cpu;
use rayon::prelude::*;
use std::{ops::Range, sync::Arc};

/// Values between two places where a parameter may be cut.
const CUT: usize = 16_384;

/// Values that are shared together, where many are.
const TOGETHER: usize = 1 << 22;

/// Values of a sum that stay at hand while they are added to.
const ADDED_TOGETHER: usize = 1 << 13;

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
        let message = Message::new(serde_json::to_vec(&own).expect("texts serialize"));
        let found = communicator.exchange(Operation::Meet, vec![message; communicator.size()])?;
        for (rank, message) in found.iter().enumerate() {
            let theirs: Vec<(String, String)> = serde_json::from_slice(message.bytes())
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

    fn engine(&self) -> String {
        self.communicator.engine()
    }

    fn traffic(&self) -> Traffic {
        self.communicator.traffic()
    }

    fn all(&self, own: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        let found = self.communicator.exchange(Operation::Gather, vec![Message::new(own); self.size()])?;
        Ok(found.iter().map(|message| message.bytes().to_vec()).collect())
    }

    fn tell(&self, words: Vec<u8>) -> Result<Vec<u8>> {
        let message = Message::new(if self.rank() == 0 { words } else { vec![] });
        let found = self.communicator.exchange(Operation::Tell, vec![message; self.size()])?;
        Ok(found[0].bytes().to_vec())
    }

    fn sums<'a>(&'a self, layout: &'a Layout) -> Box<dyn Sums + 'a> {
        Box::new(Shares { ranks: self, layout, own: vec![None; layout.len()], coming: None })
    }

    fn range(&self, part: &Part, rank: usize) -> Range<usize> {
        range(part, rank, self.size())
    }

    fn begin_share(&self, parts: Vec<Part>, own: Pieces) -> Result<Gathering> {
        let message = timed("weights taken", 0.0, || own_values(&parts, own));
        let pending = self.communicator.begin(Operation::Share, vec![message; self.size()])?;
        Ok(Gathering::Coming(pending, parts))
    }

    fn finish_share(&self, gathering: Gathering) -> Result<Pieces> {
        let (pending, parts) = match gathering {
            Gathering::There(pieces) => return Ok(pieces),
            Gathering::Coming(pending, parts) => (pending, parts),
        };
        let found = timed("waiting for weights", 0.0, || self.communicator.finish(pending))?;
        timed("weights put together", 0.0, || self.whole(found, &parts))
    }

    fn share(&self, parts: &[Part], mut own: Pieces) -> Result<Pieces> {
        // A few parameters at a time, and the next ones on their way.
        let (mut whole, mut coming, mut start) = (Vec::with_capacity(parts.len()), None, 0);
        while start < parts.len() {
            let (mut count, mut values) = (0, 0);
            while start + count < parts.len() && values < TOGETHER {
                values += parts[start + count].len;
                count += 1;
            }
            let pieces = own[start..start + count].iter_mut().map(Option::take).collect();
            let begun = self.begin_share(parts[start..start + count].to_vec(), pieces)?;
            if let Some(before) = coming.replace(begun) {
                whole.extend(self.finish_share(before)?);
            }
            start += count;
        }
        if let Some(last) = coming {
            whole.extend(self.finish_share(last)?);
        }
        Ok(whole)
    }

    fn collect(&self, parts: Vec<Part>, own: Pieces) -> Result<Option<Pieces>> {
        let message = own_values(&parts, own);
        let to = |rank: usize| if rank == 0 { message.clone() } else { Message::default() };
        let found = self.communicator.exchange(Operation::Collect, (0..self.size()).map(to).collect())?;
        (self.rank() == 0).then(|| self.whole(found, &parts)).transpose()
    }

    fn abort(&self, why: &str) {
        self.communicator.abort(why);
    }
}

/// The range of a parameter that a rank adds. Small ones, and those that one rank has whole, go round.
fn range(part: &Part, rank: usize, size: usize) -> Range<usize> {
    let (rank, blocks) = ((rank + part.turn) % size, part.len.div_ceil(CUT));
    if part.whole {
        return if rank + 1 == size { 0..part.len } else { part.len..part.len };
    }
    let border = |rank: usize| (blocks * rank / size * CUT).min(part.len);
    border(rank)..border(rank + 1)
}

/// The values of a parameter as they are sent.
struct Sent {
    bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
    len: usize,
    /// Bytes of a value.
    width: usize,
}

impl Sent {
    /// In all their digits, from where they lie.
    fn exact(tensor: Tensor<1>) -> Self {
        let values = HostValues::of(tensor);
        Self { len: values.len(), bytes: Arc::new(values), width: size_of::<f32>() }
    }

    fn new(part: &Part, tensor: Tensor<1>) -> Self {
        if !part.rounded {
            return Self::exact(tensor);
        }
        let values = HostValues::of(tensor);
        let mut bytes = vec![0; width(part) * values.len()];
        bytes.as_chunks_mut().0.iter_mut().zip(&*values).for_each(|(to, value)| *to = rounded(*value).to_le_bytes());
        Self { len: values.len(), bytes: Arc::new(bytes), width: width(part) }
    }
}

/// Bytes of a value of a parameter, where weights are sent.
fn width(part: &Part) -> usize {
    if part.rounded { size_of::<u16>() } else { size_of::<f32>() }
}

/// The bits of a value rounded to bf16 as the kernels round it: ties to even, subnormal values to zero.
fn rounded(value: f32) -> u16 {
    let bits = value.to_bits();
    let nearest = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
    let kept = match value {
        _ if value.is_nan() => bits | 0x0040_0000,
        _ if value.abs() < f32::MIN_POSITIVE => bits & 0x8000_0000,
        _ => nearest,
    };
    (kept >> 16) as u16
}

/// A message of this rank's ranges of weights.
fn own_values(parts: &[Part], own: Pieces) -> Message {
    let sent = parts.par_iter().zip(own).map(|(part, tensor)| tensor.map(|tensor| Sent::new(part, tensor)));
    packed(&sent.collect::<Vec<_>>(), |_, len| 0..len)
}

/// A message of a range of each parameter: first for each whether it has values, then those.
fn packed(pieces: &[Option<Sent>], range: impl Fn(usize, usize) -> Range<usize>) -> Message {
    let (mut flags, mut segments) = (Vec::with_capacity(pieces.len()), vec![]);
    for (number, piece) in pieces.iter().enumerate() {
        let found = piece.as_ref().map(|sent| (sent, range(number, sent.len)));
        let found = found.filter(|(_, range)| !range.is_empty());
        flags.push(u8::from(found.is_some()));
        segments.extend(found.map(|(Sent { bytes, width, .. }, range)| {
            Segment::new(bytes.clone(), width * range.start..width * range.end)
        }));
    }
    let flags = Segment::new(Arc::new(flags), 0..pieces.len());
    Message::of(std::iter::once(flags).chain(segments).collect())
}

/// Bytes as values.
fn numbers(bytes: &[u8]) -> impl ExactSizeIterator<Item = f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes))
}

/// The same of rounded ones.
fn rounded_numbers(bytes: &[u8]) -> impl ExactSizeIterator<Item = f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16))
}

/// What a message of a rank holds of each parameter; `sizes` says how many bytes those of each are, if it has any.
fn unpacked(message: &Message, from: usize, sizes: impl ExactSizeIterator<Item = usize>) -> Result<Vec<Option<&[u8]>>> {
    let mut segments = message.segments();
    let mut left: &[u8] = &[];
    // Segments end where parameters do.
    let mut take = |bytes: usize| {
        if left.is_empty() {
            left = segments.next().unwrap_or_default();
        }
        let (taken, rest) = left.split_at_checked(bytes).ok_or_else(|| garbled(from))?;
        left = rest;
        Ok::<_, Error>(taken)
    };
    let flags = take(sizes.len())?;
    let found = flags.iter().zip(sizes).map(|(flag, size)| (*flag == 1).then(|| take(size)).transpose());
    let found = found.collect::<Result<Vec<_>>>()?;
    if left.is_empty() && segments.next().is_none() { Ok(found) } else { Err(garbled(from)) }
}

impl<C: Communicator> Ranks<C> {
    /// Parameters from the ranges that every rank has sent.
    fn whole(&self, found: Vec<Message>, parts: &[Part]) -> Result<Pieces> {
        let mut pieces = Vec::with_capacity(found.len());
        for (rank, message) in found.iter().enumerate() {
            pieces.push(unpacked(message, rank, parts.iter().map(|part| width(part) * self.range(part, rank).len()))?);
        }
        let whole = parts.par_iter().enumerate().map(|(number, part)| {
            let mut found: Vec<(usize, &[u8])> = vec![];
            for (rank, pieces) in pieces.iter().enumerate() {
                found.extend(pieces[number].map(|bytes| (self.range(part, rank).start, bytes)));
            }
            if found.is_empty() {
                return None;
            }
            found.sort_by_key(|(start, _)| *start);
            let mut values: Vec<f32> = Vec::with_capacity(part.len);
            for (start, bytes) in found {
                values.resize(start, 0.0);
                match part.rounded {
                    true => values.extend(rounded_numbers(bytes)),
                    false => values.extend(numbers(bytes)),
                }
            }
            values.resize(part.len, 0.0);
            Some(flat_tensor(values, &cpu()))
        });
        Ok(whole.collect())
    }
}

/// The sums of this rank's ranges.
struct Shares<'a, C> {
    ranks: &'a Ranks<C>,
    layout: &'a Layout,
    /// Of each parameter the values of this rank's range, once there was a gradient.
    own: Vec<Option<Vec<f32>>>,
    /// What is on its way, of which parameters.
    coming: Option<(Pending, Vec<usize>)>,
}

impl<C: Communicator> Shares<'_, C> {
    /// Adds what has come.
    fn take_in(&mut self) -> Result<()> {
        let Some((pending, numbers)) = self.coming.take() else { return Ok(()) };
        let Self { ranks, layout, own: sums, .. } = self;
        let found = timed("waiting for gradients", 0.0, || ranks.communicator.finish(pending))?;
        let mut parts = vec![];
        for (rank, message) in found.iter().enumerate().filter(|(_, message)| !message.is_empty()) {
            let sizes =
                numbers.iter().map(|number| size_of::<f32>() * ranks.range(&layout[*number], ranks.rank()).len());
            parts.push(unpacked(message, rank, sizes)?);
        }
        timed("sums of gradients", 0.0, || {
            for (place, number) in numbers.iter().enumerate() {
                let parts: Vec<&[u8]> = parts.iter().filter_map(|parts| parts[place]).collect();
                if let Some((first, others)) = parts.split_first() {
                    match &mut sums[*number] {
                        Some(sum) => add(sum, &parts),
                        empty => add(empty.insert(self::numbers(first).collect()), others),
                    }
                }
            }
        });
        Ok(())
    }
}

/// Adds values to a sum, one after the other.
fn add(sum: &mut [f32], parts: &[&[u8]]) {
    // Block by block, so that the sum is read and written once.
    sum.par_chunks_mut(ADDED_TOGETHER).enumerate().for_each(|(block, sum)| {
        for part in parts {
            let part = &part[4 * block * ADDED_TOGETHER..][..4 * sum.len()];
            sum.iter_mut().zip(numbers(part)).for_each(|(sum, value)| *sum += value);
        }
    });
}

impl<C: Communicator> Sums for Shares<'_, C> {
    fn add(&mut self, numbers: &[usize], own: Option<NamedGradients>) -> Result<()> {
        let Self { ranks, layout, .. } = self;
        let messages = match own {
            None => vec![Message::default(); ranks.size()],
            Some(mut own) => {
                let sent = |number: &usize| own.remove(&layout[*number].name).map(Sent::exact);
                let sent: Vec<_> = timed("gradients taken", 0.0, || numbers.iter().map(sent).collect());
                let of = |rank| packed(&sent, |number, _| ranks.range(&layout[numbers[number]], rank));
                (0..ranks.size()).map(of).collect()
            }
        };
        let pending = ranks.communicator.begin(Operation::Reduce, messages)?;
        // What came before has arrived in the meantime.
        self.take_in()?;
        self.coming = Some((pending, numbers.to_vec()));
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Pieces> {
        self.take_in()?;
        let own = self.own.into_iter().map(|values| values.map(|values| flat_tensor(values, &cpu()))).collect();
        self.ranks.share(self.layout, own)
    }

    fn finish_own(mut self: Box<Self>) -> Result<Pieces> {
        self.take_in()?;
        let tensor = |values| -> Tensor<1> { flat_tensor(values, &cpu()) };
        Ok(self.own.into_iter().map(|values| values.map(tensor)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_rounded_as_in_products() {
        for (value, bits) in [
            (0.0, 0x0000),
            (-0.0, 0x8000),
            (1.0, 0x3f80),
            (-1.5, 0xbfc0),
            // Halfway between two: to the even one, and away from it as soon as there is more.
            (1.0 + 1.0 / 256.0, 0x3f80),
            (1.0 + 3.0 / 256.0, 0x3f82),
            (1.0 + 1.0 / 256.0 + f32::EPSILON, 0x3f81),
            (f32::MAX, 0x7f80),
            (f32::INFINITY, 0x7f80),
            (f32::NEG_INFINITY, 0xff80),
            (f32::NAN, 0x7fc0),
            // Subnormal: also where it is nearer to the smallest normal one than to zero.
            (f32::from_bits(0x007f_ffff), 0x0000),
            (f32::from_bits(0x8000_0001), 0x8000),
            (f32::MIN_POSITIVE, 0x0080),
        ] {
            assert_eq!(rounded(value), bits, "{value:e}");
        }
    }

    #[test]
    fn ranges_cover_every_value_once() {
        for size in 1..6 {
            for (turn, len) in [0, 1, 5, CUT - 1, CUT, CUT + 1, 3 * CUT, 7 * CUT + 9].into_iter().enumerate() {
                let part = Part { name: String::new(), len, whole: turn == 3, rounded: false, turn };
                let mut ranges: Vec<Range<usize>> = (0..size).map(|rank| range(&part, rank, size)).collect();
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
