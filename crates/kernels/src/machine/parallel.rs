//! Work split over threads by rows and columns, never over a sum: what a task computes does not
//! depend on which thread runs it, nor on how many there are.

use super::team;
use rayon::prelude::*;
use std::{cell::RefCell, ops::Range, sync::OnceLock};

/// Threads at hand.
pub(crate) fn threads() -> usize {
    team::threads_here().unwrap_or_else(rayon::current_num_threads)
}

/// Runs `task` for 0..count.
pub(crate) fn for_each(count: usize, task: impl Fn(usize) + Send + Sync) {
    match count {
        0 => {}
        1 => task(0),
        _ if team::run_here(count, &task) => {}
        _ => (0..count).into_par_iter().with_max_len(1).for_each(task),
    }
}

/// Runs `task` for blocks of at most `block` indices of 0..len.
pub(crate) fn for_blocks(len: usize, block: usize, task: impl Fn(Range<usize>) + Send + Sync) {
    for_each(len.div_ceil(block), |i| task(i * block..len.min((i + 1) * block)));
}

/// `f` of 0..count, in order: computed by the team that this thread leads, else by rayon's threads.
pub fn map<R: Send + Sync>(count: usize, f: impl Fn(usize) -> R + Send + Sync) -> Vec<R> {
    let results: Vec<OnceLock<R>> = (0..count).map(|_| OnceLock::new()).collect();
    for_each(count, |index| {
        let _ = results[index].set(f(index));
    });
    results.into_iter().map(|result| result.into_inner().expect("every task ran")).collect()
}

/// The sum over blocks of fixed size, added in the order of the blocks.
pub(crate) fn sum_blocks(len: usize, block: usize, part: impl Fn(Range<usize>) -> f64 + Send + Sync) -> f64 {
    let blocks = len.div_ceil(block);
    let parts = map(blocks, |i| part(i * block..len.min((i + 1) * block)));
    parts.iter().sum()
}

/// A read-only array shared between tasks.
#[derive(Clone, Copy)]
pub(crate) struct Shared(*const f32);

/// An array that tasks write to, each in places of its own.
#[derive(Clone, Copy)]
pub(crate) struct SharedMut(*mut f32);

// SAFETY: tasks only read through it while the borrow that it was made from is held by the caller.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}
// SAFETY: each kernel says which places a task writes; no two tasks share one.
unsafe impl Send for SharedMut {}
// SAFETY: as above.
unsafe impl Sync for SharedMut {}

impl Shared {
    pub(crate) fn new(values: &[f32]) -> Self {
        Self(values.as_ptr())
    }

    /// The same array as one that is written, for kernels that work in place.
    pub(crate) fn of(values: SharedMut) -> Self {
        Self(values.0)
    }

    /// Where value `offset` is; the caller answers for its being inside.
    #[inline(always)]
    pub(crate) fn at(self, offset: usize) -> *const f32 {
        self.0.wrapping_add(offset)
    }
}

impl SharedMut {
    pub(crate) fn new(values: &mut [f32]) -> Self {
        Self(values.as_mut_ptr())
    }

    /// Where value `offset` is; the caller answers for its being inside.
    #[inline(always)]
    pub(crate) fn at(self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }

    /// A part as a slice.
    ///
    /// # Safety
    /// The range must be inside, and no other task may touch it while the slice lives.
    #[inline(always)]
    pub(crate) unsafe fn slice<'a>(self, range: Range<usize>) -> &'a mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.at(range.start), range.len()) }
    }
}

/// Values for the caller to fill: their content is whatever the memory held.
pub(crate) fn uninitialised(len: usize) -> Vec<f32> {
    // In tests a value that nobody wrote must show; Miri notices by itself.
    if cfg!(all(test, not(miri))) {
        return vec![f32::NAN; len];
    }
    let mut values = Vec::with_capacity(len);
    // SAFETY: every bit pattern is an f32, the capacity is there, and each kernel writes all of what it asks for
    // before anything reads it (tests see NaN here).
    #[allow(clippy::uninit_vec)]
    unsafe {
        values.set_len(len);
    }
    values
}

thread_local! {
    /// Scratch buffers of this thread that nobody uses at the moment.
    static SCRATCH: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Scratch buffers that a thread keeps.
const SCRATCH_MAX: usize = 4;

/// Lends a scratch buffer of at least `len` values, aligned to 64 bytes, kept by the thread for the next time. Calls
/// may nest, and rayon may run another task of ours inside `work`: each gets a buffer of its own.
pub(crate) fn with_scratch<R>(len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    const ALIGNMENT: usize = 16;
    let needed = len + ALIGNMENT;
    let mut buffer = SCRATCH.with_borrow_mut(|kept| {
        // The smallest that is large enough; else the smallest of all makes room for a larger one.
        let smallest = |enough: usize| {
            let fitting = kept.iter().enumerate().filter(|(_, buffer)| buffer.len() >= enough);
            fitting.min_by_key(|(_, buffer)| buffer.len()).map(|(i, _)| i)
        };
        let chosen = smallest(needed).or_else(|| if kept.len() < SCRATCH_MAX { None } else { smallest(0) });
        chosen.map(|i| kept.swap_remove(i)).unwrap_or_default()
    });
    if buffer.len() < needed {
        buffer = vec![0.0; needed];
    }
    if cfg!(test) {
        buffer.fill(f32::NAN);
    }
    let start = buffer.as_ptr().align_offset(64).min(ALIGNMENT);
    let result = work(&mut buffer[start..start + len]);
    SCRATCH.with_borrow_mut(|kept| {
        if kept.len() < SCRATCH_MAX {
            kept.push(buffer);
        }
    });
    result
}
