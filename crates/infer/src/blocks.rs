//! The pool of blocks that keys and values lie in: which are free, who shares which, and which full blocks can be found
//! again by what they hold. Knows numbers of blocks and digests; no tensors.

use narthex_base::Digest;
use std::collections::HashMap;

/// No block.
const NONE: u32 = u32::MAX;

/// Blocks with reference counts. Those that nobody uses form a queue, oldest first; a block in it may still hold what a
/// later sequence asks for, until it is taken for something else.
#[derive(Debug)]
pub struct BlockPool {
    blocks: Vec<Block>,
    /// The ends of the queue of free blocks, linked both ways so that any block leaves it at once.
    first: u32,
    last: u32,
    free: usize,
    /// Content -> block.
    known: HashMap<Digest, u32>,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    references: u32,
    content: Option<Digest>,
    /// How often it was taken.
    taken: u64,
    previous: u32,
    next: u32,
}

impl BlockPool {
    /// All free and empty.
    ///
    /// # Panics
    /// If there are 2^32 or more.
    pub fn new(count: usize) -> Self {
        assert!((count as u64) < u64::from(NONE), "blocks are numbered in 32 bits");
        let mut pool = Self { blocks: vec![], first: NONE, last: NONE, free: 0, known: HashMap::new() };
        for number in 0..count as u32 {
            pool.blocks.push(Block { references: 0, content: None, taken: 0, previous: NONE, next: NONE });
            pool.append(number);
        }
        pool
    }

    /// Blocks in all.
    pub fn total(&self) -> usize {
        self.blocks.len()
    }

    /// Blocks that nobody uses.
    pub fn free(&self) -> usize {
        self.free
    }

    /// Takes the block that has been free for longest; what it held is forgotten.
    pub fn take(&mut self) -> Option<u32> {
        let number = self.first;
        if number == NONE {
            return None;
        }
        self.unlink(number);
        let block = &mut self.blocks[number as usize];
        block.references = 1;
        block.taken += 1;
        if let Some(content) = block.content.take() {
            self.known.remove(&content);
        }
        Some(number)
    }

    /// How often a block was taken: as long as this stays, nobody began to write it anew.
    pub fn taken(&self, number: u32) -> u64 {
        self.blocks[number as usize].taken
    }

    /// The block that holds this, and whether it is free.
    pub fn find(&self, content: &Digest) -> Option<(u32, bool)> {
        self.known.get(content).map(|number| (*number, self.blocks[*number as usize].references == 0))
    }

    /// Uses a block that [`BlockPool::find`] found.
    pub fn share(&mut self, number: u32) {
        if self.blocks[number as usize].references == 0 {
            self.unlink(number);
        }
        self.blocks[number as usize].references += 1;
    }

    /// Gives a block back. The last to do so frees it.
    ///
    /// # Panics
    /// If nobody uses it.
    pub fn release(&mut self, number: u32) {
        let block = &mut self.blocks[number as usize];
        block.references = block.references.checked_sub(1).expect("only blocks in use are given back");
        if block.references == 0 {
            // What cannot be found again is taken first.
            if block.content.is_some() { self.append(number) } else { self.prepend(number) }
        }
    }

    /// Says what a block in use holds from now on. Another block with the same content stays the one that is found.
    pub fn remember(&mut self, number: u32, content: Digest) {
        if let std::collections::hash_map::Entry::Vacant(entry) = self.known.entry(content) {
            entry.insert(number);
            self.blocks[number as usize].content = Some(content);
        }
    }

    /// Forgets what all blocks hold.
    pub fn forget(&mut self) {
        self.known.clear();
        self.blocks.iter_mut().for_each(|block| block.content = None);
    }

    fn append(&mut self, number: u32) {
        let last = std::mem::replace(&mut self.last, number);
        let block = &mut self.blocks[number as usize];
        (block.previous, block.next) = (last, NONE);
        if last == NONE {
            self.first = number
        } else {
            self.blocks[last as usize].next = number
        }
        self.free += 1;
    }

    fn prepend(&mut self, number: u32) {
        let first = std::mem::replace(&mut self.first, number);
        let block = &mut self.blocks[number as usize];
        (block.previous, block.next) = (NONE, first);
        if first == NONE {
            self.last = number
        } else {
            self.blocks[first as usize].previous = number
        }
        self.free += 1;
    }

    fn unlink(&mut self, number: u32) {
        let Block { previous, next, .. } = self.blocks[number as usize];
        if previous == NONE {
            self.first = next
        } else {
            self.blocks[previous as usize].next = next
        }
        if next == NONE {
            self.last = previous
        } else {
            self.blocks[next as usize].previous = previous
        }
        self.free -= 1;
    }

    /// Whether it is known what a block holds.
    #[cfg(test)]
    pub(crate) fn is_known(&self, number: u32) -> bool {
        self.blocks[number as usize].content.is_some()
    }

    /// Panics unless the queue holds exactly the blocks without users, and content and blocks name each other.
    #[cfg(test)]
    pub(crate) fn check(&self, references: &HashMap<u32, u32>) {
        for (number, block) in self.blocks.iter().enumerate() {
            assert_eq!(block.references, references.get(&(number as u32)).copied().unwrap_or(0), "block {number}");
        }
        let (mut number, mut before, mut count) = (self.first, NONE, 0);
        while number != NONE {
            let block = &self.blocks[number as usize];
            assert_eq!((block.references, block.previous), (0, before), "block {number} in the queue");
            (before, number, count) = (number, block.next, count + 1);
        }
        assert_eq!((before, count), (self.last, self.free), "the queue's end and length");
        assert_eq!(self.free + references.len(), self.blocks.len(), "free and used blocks are all blocks");
        for (content, number) in &self.known {
            assert_eq!(self.blocks[*number as usize].content.as_ref(), Some(content), "block {number}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    #[test]
    fn what_was_freed_first_is_taken_first_but_empty_blocks_before() {
        let mut pool = BlockPool::new(4);
        let taken: Vec<u32> = (0..4).map(|_| pool.take().unwrap()).collect();
        assert_eq!((taken, pool.take(), pool.free()), (vec![0, 1, 2, 3], None, 0));
        pool.remember(1, content("b"));
        pool.remember(2, content("c"));
        [2, 1, 3, 0].into_iter().for_each(|number| pool.release(number));
        assert_eq!(pool.find(&content("b")), Some((1, true)));
        assert_eq!([pool.take(), pool.take(), pool.take()], [Some(0), Some(3), Some(2)]);
        assert_eq!(pool.find(&content("c")), None);
        pool.share(1);
        assert_eq!((pool.find(&content("b")), pool.free()), (Some((1, false)), 0));
    }

    #[test]
    fn shared_blocks_are_freed_by_the_last() {
        let mut pool = BlockPool::new(1);
        let number = pool.take().unwrap();
        pool.remember(number, content("a"));
        pool.share(number);
        pool.release(number);
        assert_eq!(pool.free(), 0);
        pool.release(number);
        assert_eq!(pool.free(), 1);
        pool.share(number);
        pool.forget();
        assert_eq!(pool.find(&content("a")), None);
        pool.release(number);
        pool.check(&HashMap::new());
    }
}
