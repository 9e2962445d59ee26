//! A graph that leads to the nearest of many vectors (Malkov and Yashunin, "Efficient and robust approximate nearest
//! neighbor search using hierarchical navigable small world graphs", 2016). The same vectors give the same graph,
//! whatever the number of threads: points are taken in batches, each of a batch is looked up in the graph before the
//! batch, and then each point that gets links is seen to once. Knows neither texts nor what the vectors stand for.
//!
//! The file: 64 bytes of header, then the numbers, all little-endian: `NXGRAPH1`, count, entry, lowest links, upper
//! links (u32 each), words that follow (u64), BLAKE3 of what follows (32 bytes); then the level of each point (u32),
//! its links on the lowest level, and for the points above it those of each further level. `u32::MAX` is no link.

use crate::{
    scored::{Best, Scored},
    vectors::{Rows, dot},
};
use narthex_base::{
    Error, Result,
    random::{Permutation, Stream},
};
use rayon::prelude::*;
use std::{collections::BinaryHeap, fs::File, io::Write, path::Path};

const MAGIC: &[u8; 8] = b"NXGRAPH1";
const HEADER_BYTES: usize = 64;

/// Links of a point on each upper level, and twice as many on the lowest (the paper's M and M_max0).
const LINKS: usize = 16;
const LOWEST_LINKS: usize = 2 * LINKS;
/// Candidates that are kept while a point is looked up to be linked (the paper's efConstruction).
const BUILD_CANDIDATES: usize = 128;
/// Candidates that are kept at least while a question is looked up (the paper's ef).
const SEARCH_CANDIDATES: usize = 200;
/// Levels at most: 16^8 points would be needed for one more.
const LEVEL_MAX: u32 = 8;
/// Points that are looked up side by side at most, and the least part of the graph that they may be.
const BATCH: usize = 512;
const BATCH_PART: usize = 16;

const SEED: u64 = 0;
const NONE: u32 = u32::MAX;

/// Points and their links.
#[derive(Debug, PartialEq)]
pub(crate) struct Graph {
    levels: Vec<u32>,
    lowest: Vec<u32>,
    upper: Vec<u32>,
    /// Where a point's upper links begin.
    upper_at: Vec<usize>,
    entry: u32,
}

impl Graph {
    fn empty(levels: Vec<u32>) -> Self {
        let mut upper_at = Vec::with_capacity(levels.len());
        let mut at = 0;
        for level in &levels {
            upper_at.push(at);
            at += *level as usize * LINKS;
        }
        Self { lowest: vec![NONE; levels.len() * LOWEST_LINKS], upper: vec![NONE; at], upper_at, levels, entry: 0 }
    }

    /// Links these vectors. `done` hears how many are linked so far.
    ///
    /// # Errors
    /// What `done` gives.
    pub(crate) fn build(rows: Rows, done: &dyn Fn(u32) -> Result<()>) -> Result<Self> {
        let count = rows.count();
        let stream = Stream::new(SEED, "graph levels");
        let scale = 1.0 / (LINKS as f64).ln();
        let level = |id: u32| ((-(1.0 - stream.uniform_f64(id.into())).ln() * scale) as u32).min(LEVEL_MAX);
        let mut graph = Self::empty((0..count).map(level).collect());
        if count == 0 {
            return Ok(graph);
        }
        // Neighbours in the text are neighbours in space: taken in order, a batch would be all of one kind.
        let order = Permutation::new(Stream::new(SEED, "graph order"), count.into());
        let order: Vec<u32> = (0..count).map(|at| order.get(at.into()) as u32).collect();
        graph.entry = order[0];
        let mut linked = 1;
        while linked < order.len() {
            let batch = (linked / BATCH_PART).clamp(1, BATCH).min(order.len() - linked);
            let batch = &order[linked..linked + batch];
            let found: Vec<Vec<Vec<u32>>> = batch.par_iter().map(|id| graph.neighbours(rows, *id)).collect();
            graph.link(rows, batch, &found);
            linked += batch.len();
            done(linked as u32)?;
        }
        Ok(graph)
    }

    fn links(&self, id: u32, level: u32) -> &[u32] {
        match level {
            0 => &self.lowest[id as usize * LOWEST_LINKS..][..LOWEST_LINKS],
            _ => &self.upper[self.upper_at[id as usize] + (level as usize - 1) * LINKS..][..LINKS],
        }
    }

    fn links_mut(&mut self, id: u32, level: u32) -> &mut [u32] {
        match level {
            0 => &mut self.lowest[id as usize * LOWEST_LINKS..][..LOWEST_LINKS],
            _ => &mut self.upper[self.upper_at[id as usize] + (level as usize - 1) * LINKS..][..LINKS],
        }
    }

    fn linked(&self, id: u32, level: u32) -> impl Iterator<Item = u32> + '_ {
        self.links(id, level).iter().copied().take_while(|link| *link != NONE)
    }

    /// Whom a new point is to be linked with, level by level from the lowest.
    fn neighbours(&self, rows: Rows, id: u32) -> Vec<Vec<u32>> {
        let vector = rows.get(id);
        let level = self.levels[id as usize];
        let top = self.levels[self.entry as usize];
        let mut near = vec![self.scored(rows, vector, self.entry)];
        for level in (level + 1..=top).rev() {
            near = self.walk(rows, vector, &near, 1, level);
        }
        let mut found = Vec::new();
        for level in (0..=level.min(top)).rev() {
            near = self.walk(rows, vector, &near, BUILD_CANDIDATES, level);
            found.push(choose(rows, &near, LINKS));
        }
        found.reverse();
        found
    }

    /// Links a batch, and back. Each point that is linked to is seen to once, whatever thread does it.
    fn link(&mut self, rows: Rows, batch: &[u32], found: &[Vec<Vec<u32>>]) {
        let mut back: Vec<(u32, u32, u32)> = Vec::new();
        for (id, found) in batch.iter().zip(found) {
            for (level, neighbours) in (0..).zip(found) {
                self.links_mut(*id, level)[..neighbours.len()].copy_from_slice(neighbours);
                back.extend(neighbours.iter().map(|to| (level, *to, *id)));
            }
            if self.levels[*id as usize] > self.levels[self.entry as usize] {
                self.entry = *id;
            }
        }
        back.sort_unstable();
        let points: Vec<&[(u32, u32, u32)]> = back.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)).collect();
        let graph = &*self;
        let kept: Vec<Vec<u32>> = points.par_iter().map(|links| graph.kept(rows, links)).collect();
        for (links, kept) in points.iter().zip(kept) {
            let (level, point, _) = links[0];
            let links = self.links_mut(point, level);
            links.fill(NONE);
            links[..kept.len()].copy_from_slice(&kept);
        }
    }

    /// The links of a point with new ones (level, point, from); of too many, those that lead in different directions.
    fn kept(&self, rows: Rows, new: &[(u32, u32, u32)]) -> Vec<u32> {
        let (level, point, _) = new[0];
        let all: Vec<u32> = self.linked(point, level).chain(new.iter().map(|(_, _, from)| *from)).collect();
        let room = self.links(point, level).len();
        if all.len() <= room {
            return all;
        }
        let vector = rows.get(point);
        let mut all: Vec<Scored> = all.into_iter().map(|id| self.scored(rows, vector, id)).collect();
        all.sort_by(|a, b| b.cmp(a));
        choose(rows, &all, room)
    }

    fn scored(&self, rows: Rows, vector: &[f32], id: u32) -> Scored {
        Scored { score: dot(vector, rows.get(id)), id }
    }

    /// The nearest that links lead to from these, the nearest first.
    fn walk(&self, rows: Rows, vector: &[f32], from: &[Scored], limit: usize, level: u32) -> Vec<Scored> {
        let mut seen = vec![0_u64; self.levels.len().div_ceil(64)];
        let mut see = |id: u32| {
            let (word, bit) = (id as usize / 64, 1 << (id % 64));
            let known = seen[word] & bit != 0;
            seen[word] |= bit;
            !known
        };
        let mut best = Best::new(limit);
        let mut open = BinaryHeap::new();
        for scored in from {
            if see(scored.id) {
                best.push(*scored);
                open.push(*scored);
            }
        }
        while let Some(next) = open.pop() {
            if best.bar().is_some_and(|bar| next < bar) {
                break;
            }
            for id in self.linked(next.id, level) {
                if see(id) {
                    let scored = self.scored(rows, vector, id);
                    if best.bar().is_none_or(|bar| scored > bar) {
                        best.push(scored);
                        open.push(scored);
                    }
                }
            }
        }
        best.into_sorted()
    }

    /// The nearest to a question, the nearest first. Some may be missed.
    pub(crate) fn nearest(&self, rows: Rows, question: &[f32], limit: usize) -> Vec<Scored> {
        if self.levels.is_empty() {
            return vec![];
        }
        let mut near = vec![self.scored(rows, question, self.entry)];
        for level in (1..=self.levels[self.entry as usize]).rev() {
            near = self.walk(rows, question, &near, 1, level);
        }
        let mut near = self.walk(rows, question, &near, SEARCH_CANDIDATES.max(2 * limit), 0);
        near.truncate(limit);
        near
    }

    /// Writes the file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let fail = |error| Error::io("cannot write", path, error);
        let words: Vec<u32> = [&self.levels[..], &self.lowest, &self.upper].concat();
        let body: &[u8] = bytemuck::cast_slice(&words);
        let mut header = MAGIC.to_vec();
        for word in [self.levels.len() as u32, self.entry, LOWEST_LINKS as u32, LINKS as u32] {
            header.extend_from_slice(&word.to_le_bytes());
        }
        header.extend_from_slice(&(words.len() as u64).to_le_bytes());
        header.extend_from_slice(blake3::hash(body).as_bytes());
        let mut file = File::create(path).map_err(fail)?;
        file.write_all(&header).and_then(|()| file.write_all(body)).and_then(|()| file.sync_all()).map_err(fail)
    }

    /// Reads the file of a graph over this many points.
    ///
    /// # Errors
    /// If it cannot be read, or is not what was written.
    pub(crate) fn open(path: &Path, count: u32) -> Result<Self> {
        let broken = |why: &str| {
            Error::input(format!("the file of the graph {why}"))
                .at(path.display(), None)
                .help("make the knowledge anew")
        };
        let bytes = std::fs::read(path).map_err(|error| Error::io("cannot read", path, error))?;
        if bytes.len() < HEADER_BYTES || &bytes[..8] != MAGIC {
            return Err(broken("is none"));
        }
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        if [u32_at(8), u32_at(16), u32_at(20)] != [count, LOWEST_LINKS as u32, LINKS as u32] {
            return Err(broken("belongs to other vectors or another version"));
        }
        let body = &bytes[HEADER_BYTES..];
        if blake3::hash(body).as_bytes()[..] != bytes[32..HEADER_BYTES] {
            return Err(broken("is damaged: its digest does not match"));
        }
        let words: Vec<u32> = body.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        let points = count as usize;
        let levels = words.get(..points).unwrap_or_default();
        if levels.len() != points || levels.iter().any(|level| *level > LEVEL_MAX) {
            return Err(broken("is cut short"));
        }
        let mut graph = Self::empty(levels.to_vec());
        let links = &words[points..];
        let entry = u32_at(12);
        // A link beyond the last point would be a panic later: each is looked at.
        let sound = links.iter().all(|link| *link < count || *link == NONE) && (entry < count || count == 0);
        if links.len() != graph.lowest.len() + graph.upper.len() || !sound {
            return Err(broken("is cut short"));
        }
        let (lowest, upper) = links.split_at(graph.lowest.len());
        graph.lowest.copy_from_slice(lowest);
        graph.upper.copy_from_slice(upper);
        graph.entry = entry;
        // An upper link leads to a point of that level, or its links would be read from somebody else's.
        let level_holds = |id: u32| {
            (1..=graph.levels[id as usize])
                .all(|level| graph.linked(id, level).all(|to| graph.levels[to as usize] >= level))
        };
        if !(0..count).all(level_holds) {
            return Err(broken("has links that lead nowhere"));
        }
        Ok(graph)
    }
}

/// Of candidates, the nearest first, those that lead in different directions: one is left out if it is nearer to one
/// that was chosen than to the point (the paper's algorithm 4). What room is left is filled with the nearest of the
/// others.
fn choose(rows: Rows, candidates: &[Scored], room: usize) -> Vec<u32> {
    let mut chosen: Vec<u32> = Vec::with_capacity(room);
    let mut others = Vec::new();
    for candidate in candidates {
        if chosen.len() == room {
            break;
        }
        let vector = rows.get(candidate.id);
        match chosen.iter().all(|id| dot(vector, rows.get(*id)) < candidate.score) {
            true => chosen.push(candidate.id),
            false => others.push(candidate.id),
        }
    }
    let free = room - chosen.len();
    chosen.extend(others.into_iter().take(free));
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::normalize;

    /// Points in clouds, as texts are.
    fn clouds(count: u32, width: usize) -> Vec<f32> {
        let stream = Stream::new(5, "clouds");
        let mut numbers = Vec::new();
        for id in 0..u64::from(count) {
            let centre = stream.at(id % 20);
            let own = stream.at(1000 + id);
            let start = numbers.len();
            numbers.extend((0..width as u64).map(|at| centre.normal(at) + 0.5 * own.normal(at)));
            normalize(&mut numbers[start..], width).unwrap();
        }
        numbers
    }

    #[test]
    fn finds_nearly_all_that_a_full_scan_finds() {
        let numbers = clouds(1500, 16);
        let rows = Rows { numbers: &numbers, width: 16 };
        let graph = Graph::build(rows, &|_| Ok(())).unwrap();
        let mut hits = 0;
        for id in 0..50 {
            let question = rows.get(id * 29);
            let exact = rows.nearest(question, 10, std::slice::from_ref(&(0..1500)));
            let found = graph.nearest(rows, question, 10);
            assert_eq!(found[0].id, id * 29);
            hits += exact.iter().filter(|scored| found.contains(scored)).count();
        }
        assert!(hits >= 490, "{hits} of 500");
    }

    #[test]
    fn threads_do_not_change_it() {
        let numbers = clouds(700, 8);
        let rows = Rows { numbers: &numbers, width: 8 };
        let graph = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| Graph::build(rows, &|_| Ok(())).unwrap())
        };
        assert_eq!(graph(1), graph(3));
    }

    #[test]
    fn files_are_read_back_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("graph");
        for count in [0, 1, 300] {
            let numbers = clouds(count, 8);
            let graph = Graph::build(Rows { numbers: &numbers, width: 8 }, &|_| Ok(())).unwrap();
            graph.write(&path).unwrap();
            assert_eq!(Graph::open(&path, count).unwrap(), graph);
        }
        let sound = std::fs::read(&path).unwrap();
        let resigned = |mut bytes: Vec<u8>| {
            let digest = blake3::hash(&bytes[HEADER_BYTES..]);
            bytes[32..HEADER_BYTES].copy_from_slice(digest.as_bytes());
            bytes
        };
        let changed = |change: fn(&mut Vec<u8>)| {
            let mut bytes = sound.clone();
            change(&mut bytes);
            bytes
        };
        for (bytes, expected) in [
            (changed(|bytes| bytes.truncate(9)), "is none"),
            (changed(|bytes| bytes[8] ^= 1), "other vectors"),
            (changed(|bytes| bytes[100] ^= 1), "digest does not match"),
            (resigned(changed(|bytes| bytes.truncate(2000))), "cut short"),
            (resigned(changed(|bytes| bytes[HEADER_BYTES] = 99)), "cut short"),
            (resigned(changed(|bytes| bytes[HEADER_BYTES + 1201] = 200)), "cut short"),
            (changed(|bytes| bytes[15] = 1), "cut short"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let error = Graph::open(&path, 300).err().unwrap();
            assert!(error.what().contains(expected), "{error}, not {expected}");
        }
    }
}
