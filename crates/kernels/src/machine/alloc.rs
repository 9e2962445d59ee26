//! An allocator that keeps large blocks for the next time.
//!
//! A training step allocates and frees the same few hundred megabytes over and over. The system's
//! allocator gives each block back to the kernel, which clears every page anew: 18 % of a step of
//! Burn's CPU backend. Here blocks of 128 KiB and more go to free lists by size class and come back
//! as they are; small ones go to the system's allocator. Blocks of 1 MiB and more lie on huge pages from end to end,
//! those of one class side by side: reading weights and panels in order is up to half as fast again as on small ones.
//! What exceeds a limit goes back to the system, sizes that nobody has asked for in a while first: a server's steps
//! have a different number of rows each time. Use it in a binary:
//!
//! ```
//! #[global_allocator]
//! static ALLOCATOR: narthex_kernels::alloc::Retaining = narthex_kernels::alloc::Retaining;
//! # fn main() { assert_eq!(vec![1.5f32; 1 << 20].iter().sum::<f32>(), 1.5 * (1 << 20) as f32); }
//! ```

use std::{
    alloc::{GlobalAlloc, Layout, System},
    ptr::null_mut,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering},
};

/// Blocks below this go to the system's allocator.
const RETAINED_MIN: usize = 128 << 10;

/// Free bytes kept at most unless [`keep_at_most`] says otherwise.
pub const FREE_MAX: usize = 4 << 30;

/// Size classes in each power of two: a block is at most an eighth larger than asked for.
const CLASSES_PER_DOUBLING: usize = 8;

/// log2 of `RETAINED_MIN`.
const MIN_LOG2: usize = 17;

/// Powers of two with classes of their own, up to 128 GiB. Larger blocks go to the system's allocator.
const DOUBLINGS: usize = 20;

const CLASSES: usize = CLASSES_PER_DOUBLING * DOUBLINGS;

/// Blocks of 2 MiB and more are advised to lie on pages of this size.
const HUGE_PAGE: usize = 2 << 20;

/// Blocks of these sizes are no whole number of huge pages; they are cut from regions that are.
const CUT: std::ops::Range<usize> = 1 << 20..16 << 20;

/// Whether the system has huge pages, and takes back a part of what it gave.
const REGIONS: bool = cfg!(all(target_os = "linux", not(miri)));

/// The alignment that every retained block has.
const ALIGNMENT: usize = 4096;

/// The allocator. See the module's documentation.
pub struct Retaining;

/// The free blocks of one class: a list whose links lie in the blocks.
struct FreeList {
    locked: AtomicBool,
    head: AtomicPtr<u8>,
    /// When a block of this class was last asked for, counted in such requests of all classes.
    asked: AtomicUsize,
}

/// Blocks of one class that nobody has used yet, side by side.
struct Region {
    locked: AtomicBool,
    next: AtomicPtr<u8>,
    left: AtomicUsize,
}

static FREE: [FreeList; CLASSES] = [const { FreeList::new() }; CLASSES];

/// Blocks of regions whose memory went back to the system, all but their first page.
static HOLLOW: [FreeList; CLASSES] = [const { FreeList::new() }; CLASSES];

static REGION: [Region; CLASSES] = [const { Region::new() }; CLASSES];

static FREE_BYTES: AtomicUsize = AtomicUsize::new(0);

static FREE_BYTES_MAX: AtomicUsize = AtomicUsize::new(FREE_MAX);

/// Requests so far.
static ASKED: AtomicUsize = AtomicUsize::new(0);

impl FreeList {
    const fn new() -> Self {
        Self { locked: AtomicBool::new(false), head: AtomicPtr::new(null_mut()), asked: AtomicUsize::new(0) }
    }

    fn is_empty(&self) -> bool {
        self.head.load(Ordering::Relaxed).is_null()
    }

    fn with<R>(&self, work: impl FnOnce(&AtomicPtr<u8>) -> R) -> R {
        while_locked(&self.locked, || work(&self.head))
    }

    fn pop(&self) -> *mut u8 {
        self.with(|head| {
            let block = head.load(Ordering::Relaxed);
            if !block.is_null() {
                // SAFETY: a block in the list holds the link to the next one in its first word, and nobody uses it.
                head.store(unsafe { block.cast::<*mut u8>().read() }, Ordering::Relaxed);
            }
            block
        })
    }

    /// # Safety
    /// `block` is a block of this class that nobody uses any more.
    unsafe fn push(&self, block: *mut u8) {
        self.with(|head| {
            // SAFETY: the block is ours, large enough for a pointer and aligned to a page.
            unsafe { block.cast::<*mut u8>().write(head.load(Ordering::Relaxed)) };
            head.store(block, Ordering::Relaxed);
        });
    }
}

impl Region {
    const fn new() -> Self {
        Self { locked: AtomicBool::new(false), next: AtomicPtr::new(null_mut()), left: AtomicUsize::new(0) }
    }

    /// A block of `size` bytes that nobody has used yet; null if the system has no more memory.
    fn cut(&self, size: usize) -> *mut u8 {
        while_locked(&self.locked, || {
            if self.left.load(Ordering::Relaxed) == 0 {
                // As many blocks as fill huge pages.
                let count = 1usize << HUGE_PAGE.trailing_zeros().saturating_sub(size.trailing_zeros());
                let region = huge(count * size);
                if region.is_null() {
                    return region;
                }
                self.next.store(region, Ordering::Relaxed);
                self.left.store(count, Ordering::Relaxed);
            }
            let block = self.next.load(Ordering::Relaxed);
            self.next.store(block.wrapping_add(size), Ordering::Relaxed);
            self.left.fetch_sub(1, Ordering::Relaxed);
            block
        })
    }
}

/// Runs `work`, which is short, while nobody else holds the lock.
fn while_locked<R>(locked: &AtomicBool, work: impl FnOnce() -> R) -> R {
    while locked.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
        std::hint::spin_loop();
    }
    let result = work();
    locked.store(false, Ordering::Release);
    result
}

/// The class of a size and the size of its blocks; none if the block is not one to retain.
fn class(layout: Layout) -> Option<(usize, usize)> {
    let size = layout.size();
    if size < RETAINED_MIN || layout.align() > ALIGNMENT {
        return None;
    }
    // 2^log2 < size <= 2^(log2 + 1), the smallest size counting to the first doubling.
    let log2 = ((size - 1).ilog2() as usize).max(MIN_LOG2);
    let step = (1 << log2) / CLASSES_PER_DOUBLING;
    let above = size.saturating_sub(1 << log2).div_ceil(step).max(1);
    let index = (log2 - MIN_LOG2) * CLASSES_PER_DOUBLING + above - 1;
    (index < CLASSES).then_some((index, (1 << log2) + above * step))
}

/// How a block of this size is asked of the system.
fn system_layout(size: usize) -> Layout {
    let alignment = if size >= HUGE_PAGE { HUGE_PAGE } else { ALIGNMENT };
    // SAFETY: a power of two, and a size far below the limit (128 GiB).
    unsafe { Layout::from_size_align_unchecked(size, alignment) }
}

/// Memory of the system's, advised to lie on huge pages; null if there is none left.
fn huge(size: usize) -> *mut u8 {
    // SAFETY: the size is not zero.
    let block = note(unsafe { System.alloc(system_layout(size)) });
    #[cfg(all(target_os = "linux", not(miri)))]
    if !block.is_null() && size >= HUGE_PAGE {
        // SAFETY: advice about memory that is ours; where it is not taken, nothing changes.
        unsafe { libc::madvise(block.cast(), size, libc::MADV_HUGEPAGE) };
    }
    block
}

/// Whether blocks of this size are cut from regions.
fn is_cut(size: usize) -> bool {
    REGIONS && CUT.contains(&size)
}

/// The size of the blocks of a class.
fn block_size(index: usize) -> usize {
    let (log2, above) = (MIN_LOG2 + index / CLASSES_PER_DOUBLING, index % CLASSES_PER_DOUBLING + 1);
    (1 << log2) + above * ((1 << log2) / CLASSES_PER_DOUBLING)
}

/// Gives a free block of a class back to the system. Returns whether there was one.
fn release_one(index: usize) -> bool {
    let block = FREE[index].pop();
    if block.is_null() {
        return false;
    }
    let size = block_size(index);
    FREE_BYTES.fetch_sub(size, Ordering::Relaxed);
    if is_cut(size) {
        // SAFETY: nobody uses the block, which is more than a page; without the advice it only stays in memory. The
        // first page holds the link.
        unsafe {
            #[cfg(target_os = "linux")]
            libc::madvise(block.add(ALIGNMENT).cast(), size - ALIGNMENT, libc::MADV_DONTNEED);
            HOLLOW[index].push(block);
        }
        return true;
    }
    // SAFETY: the block came from the system with this layout, and nobody uses it.
    unsafe { System.dealloc(block, system_layout(size)) };
    true
}

/// What is written when the system has no more memory, from [`explain_exhaustion`] on.
static EXHAUSTED: AtomicPtr<&'static str> = AtomicPtr::new(null_mut());

/// Whether the system has refused a block.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// From now on, a process that goes down because the system has no more memory writes `message` to stderr and ends with
/// exit code 1, instead of being aborted.
#[cfg(unix)]
pub fn explain_exhaustion(message: &'static &'static str) {
    extern "C" fn aborted(_: libc::c_int) {
        let message = EXHAUSTED.load(Ordering::Relaxed);
        if REFUSED.load(Ordering::Relaxed) && !message.is_null() {
            // SAFETY: the pointer is that of a static; both calls may be made in a handler of signals.
            unsafe {
                let message: &str = *message;
                libc::write(libc::STDERR_FILENO, message.as_ptr().cast(), message.len());
                libc::_exit(1);
            }
        }
        // SAFETY: what would have happened without a handler.
        unsafe { libc::signal(libc::SIGABRT, libc::SIG_DFL) };
    }
    EXHAUSTED.store(std::ptr::from_ref(message).cast_mut(), Ordering::Relaxed);
    // SAFETY: the handler does nothing that a handler must not do.
    unsafe { libc::signal(libc::SIGABRT, aborted as *const () as libc::sighandler_t) };
}

/// Systems without signals abort.
#[cfg(not(unix))]
pub fn explain_exhaustion(_: &'static &'static str) {}

/// Remembers that the system refused a block.
fn note(block: *mut u8) -> *mut u8 {
    if block.is_null() {
        REFUSED.store(true, Ordering::Relaxed);
    }
    block
}

/// Gives all free blocks back to the system, and what the system's allocator holds free of small ones.
pub fn release() {
    (0..CLASSES).for_each(|index| while release_one(index) {});
    #[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
    // SAFETY: gives pages back that hold nothing.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Keeps at most so many free bytes from now on.
pub fn keep_at_most(bytes: usize) {
    FREE_BYTES_MAX.store(bytes, Ordering::Relaxed);
    // glibc would otherwise come to keep large blocks on its heap too, where they cannot be given back one by one.
    #[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
    // SAFETY: sets a number.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, RETAINED_MIN as libc::c_int);
    }
    trim();
}

/// Gives blocks back until no more are free than may be, those of classes first that were not asked for in a while.
fn trim() {
    while FREE_BYTES.load(Ordering::Relaxed) > FREE_BYTES_MAX.load(Ordering::Relaxed) {
        let filled = (0..CLASSES).filter(|index| !FREE[*index].is_empty());
        let Some(oldest) = filled.min_by_key(|index| FREE[*index].asked.load(Ordering::Relaxed)) else { return };
        release_one(oldest);
    }
}

/// Bytes in free blocks at the moment.
pub fn free_bytes() -> usize {
    FREE_BYTES.load(Ordering::Relaxed)
}

// SAFETY: a retained block is a block of the system's allocator, or a part of one, of at least the size and alignment
// asked for; it is in the hands of one owner or in one list, never both.
unsafe impl GlobalAlloc for Retaining {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some((index, size)) = class(layout) else {
            // SAFETY: the caller's promise about the layout.
            return note(unsafe { System.alloc(layout) });
        };
        FREE[index].asked.store(ASKED.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        let kept = FREE[index].pop();
        if !kept.is_null() {
            FREE_BYTES.fetch_sub(size, Ordering::Relaxed);
            return kept;
        }
        if !is_cut(size) {
            return huge(size);
        }
        let hollow = HOLLOW[index].pop();
        if hollow.is_null() { REGION[index].cut(size) } else { hollow }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some((index, size)) = class(layout) else {
            // SAFETY: blocks of such layouts come from the system.
            return unsafe { System.dealloc(block, layout) };
        };
        // Before it can be taken again, so that the sum is never too small.
        let free = FREE_BYTES.fetch_add(size, Ordering::Relaxed) + size;
        // SAFETY: the caller gives the block up; its class follows from the layout that it was asked with.
        unsafe { FREE[index].push(block) }
        if free > FREE_BYTES_MAX.load(Ordering::Relaxed) {
            trim();
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the new size is one that a layout can have.
        let new = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        match (class(layout), class(new)) {
            // SAFETY: both come from the system.
            (None, None) => note(unsafe { System.realloc(block, layout, new_size) }),
            (Some((old, _)), Some((same, _))) if old == same => block,
            // SAFETY: a fresh block that holds the smaller of both sizes; the old one is given up.
            _ => unsafe {
                let moved = self.alloc(new);
                if !moved.is_null() {
                    block.copy_to_nonoverlapping(moved, layout.size().min(new_size));
                    self.dealloc(block, layout);
                }
                moved
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 16).unwrap()
    }

    #[test]
    fn classes_hold_their_sizes_with_little_to_spare() {
        assert_eq!(class(layout(RETAINED_MIN - 1)), None);
        assert_eq!(class(Layout::from_size_align(1 << 20, 8192).unwrap()), None);
        let mut last = 0;
        for size in (RETAINED_MIN..1 << 26).step_by(4091).chain([1 << 30, (1 << 30) + 1, 1 << 36]) {
            let (index, block) = class(layout(size)).unwrap();
            assert!(block >= size && block <= size + size / 8 + RETAINED_MIN / 8, "{size} in {block}");
            assert!(index >= last);
            assert_eq!(block, block_size(index));
            last = index;
        }
    }

    #[test]
    fn blocks_come_back_and_are_released() {
        let layout = layout(3 << 20);
        // SAFETY: blocks are used within their size and freed once with the layout that they were asked with.
        unsafe {
            let first = Retaining.alloc(layout);
            first.write_bytes(7, 3 << 20);
            Retaining.dealloc(first, layout);
            assert!(free_bytes() >= 3 << 20);
            let again = Retaining.alloc(layout);
            assert_eq!(again, first, "the block is kept");
            assert_eq!(again.add((3 << 20) - 1).read(), 7, "and not cleared");
            let grown = Retaining.realloc(again, layout, 9 << 20);
            assert_eq!(grown.add((3 << 20) - 1).read(), 7, "growing copies");
            Retaining.dealloc(grown, self::layout(9 << 20));
        }
        release();
        assert_eq!(free_bytes(), 0);
        // Of three sizes, the one not asked for in the longest time goes.
        let sizes = [5 << 20, 6 << 20, 7 << 20].map(self::layout);
        // SAFETY: as above.
        unsafe {
            let blocks = sizes.map(|layout| Retaining.alloc(layout));
            for (block, layout) in blocks.into_iter().zip(sizes) {
                Retaining.dealloc(block, layout);
            }
            let again = Retaining.alloc(sizes[0]);
            assert_eq!(again, blocks[0]);
            Retaining.dealloc(again, sizes[0]);
        }
        keep_at_most(13 << 20);
        let kept = sizes.map(|layout| !FREE[class(layout).unwrap().0].is_empty());
        assert_eq!((kept, free_bytes()), ([true, false, true], 12 << 20));
        release();
        keep_at_most(FREE_MAX);

        // Blocks of a region have their own memory, and give it back one by one.
        let size = 11 << 20;
        let layout = self::layout(size);
        // SAFETY: as above.
        unsafe {
            let blocks: Vec<*mut u8> = (0..5).map(|_| Retaining.alloc(layout)).collect();
            for (number, block) in blocks.iter().enumerate() {
                block.write_bytes(number as u8 + 1, size);
            }
            for (number, block) in blocks.iter().enumerate() {
                let bytes = std::slice::from_raw_parts(*block, size);
                assert!(bytes.iter().all(|byte| *byte == number as u8 + 1), "block {number} has its own memory");
                Retaining.dealloc(*block, layout);
            }
            let index = class(layout).unwrap().0;
            while release_one(index) {}
            let mut again: Vec<*mut u8> = (0..5).map(|_| Retaining.alloc(layout)).collect();
            if REGIONS {
                let empty =
                    |block: &*mut u8| std::slice::from_raw_parts(*block, size)[ALIGNMENT..].iter().all(|b| *b == 0);
                assert!(again.iter().all(empty), "the memory had gone back");
                again.sort();
                let mut blocks = blocks.clone();
                blocks.sort();
                assert_eq!(again, blocks, "and the addresses are used again");
            }
            again.into_iter().for_each(|block| Retaining.dealloc(block, layout));
            while release_one(index) {}
        }
    }
}
