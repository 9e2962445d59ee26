//! A few threads that stay close at hand for many short pieces of parallel work in a row, as the steps of a model that
//! answers are. A helper looks for work a while before it sleeps, since waking it takes longer than many an operator;
//! every thread takes the next task when it is done with one, so that one which the system holds up delays its own task
//! only.
//!
//! Inside [`Team::enter`] all kernels run on the team instead of rayon's threads. What they compute is the same.

use std::{
    any::Any,
    cell::{Cell, UnsafeCell},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How long a helper looks for work before it sleeps.
const LOOKING: Duration = Duration::from_micros(1000);

/// Looks between two glances at the clock, and offers of the processor to others.
const LOOKS: usize = 200;

/// A task for each index below `count`: a closure behind a pointer.
#[derive(Clone, Copy)]
struct Work {
    run: unsafe fn(*const (), usize),
    closure: *const (),
    count: usize,
}

struct Shared {
    /// Written only while `open` is false and `inside` is 0; read only between entering and leaving.
    work: UnsafeCell<Work>,
    /// Whether there is work to enter.
    open: AtomicBool,
    /// The next task that nobody has taken.
    next: AtomicUsize,
    /// Helpers that have entered and not left.
    inside: AtomicUsize,
    /// Helpers that sleep, or are about to.
    asleep: AtomicUsize,
    stopped: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `work` is guarded as its comment says: the leader closes and waits for `inside` to be 0 before it writes, and
// a helper raises `inside` before it looks at `open`, both in one total order, so that one of them always sees the
// other.
unsafe impl Sync for Shared {}
// SAFETY: the closure behind the pointer is shared between threads only as `Sync`, which `Team::run` demands.
unsafe impl Send for Shared {}

/// Threads that work for the one that has entered.
pub struct Team {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
}

thread_local! {
    /// The team that this thread leads at the moment.
    static LEADS: Cell<*const Team> = const { Cell::new(std::ptr::null()) };
    /// Whether this thread is inside a task: work within work is done by the thread itself.
    static WORKS: Cell<bool> = const { Cell::new(false) };
}

impl Team {
    /// `threads` threads together with the one that enters; all processors if 0. With `pinned`, each helper stays on a
    /// processor of its own, where the system allows that.
    ///
    /// # Errors
    /// If the system gives the process no more threads.
    pub fn new(threads: usize, pinned: bool) -> std::io::Result<Self> {
        let threads = if threads == 0 { thread::available_parallelism().map_or(1, usize::from) } else { threads };
        unsafe fn nothing(_: *const (), _: usize) {}
        let shared = Arc::new(Shared {
            work: UnsafeCell::new(Work { run: nothing, closure: std::ptr::null(), count: 0 }),
            open: AtomicBool::new(false),
            next: AtomicUsize::new(0),
            inside: AtomicUsize::new(0),
            asleep: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let mut team = Self { shared: shared.clone(), helpers: vec![] };
        for number in 1..threads {
            let shared = shared.clone();
            let helper = thread::Builder::new().name(format!("kernels-{number}")).spawn(move || {
                if pinned {
                    pin(number);
                }
                help(&shared);
            })?;
            team.helpers.push(helper);
        }
        Ok(team)
    }

    /// Threads, the leader counted.
    pub fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Runs `work`, whose kernels run on this team.
    pub fn enter<R>(&self, work: impl FnOnce() -> R) -> R {
        struct Leave(*const Team);
        impl Drop for Leave {
            fn drop(&mut self) {
                LEADS.set(self.0);
            }
        }
        let _leave = Leave(LEADS.replace(self));
        work()
    }

    /// Runs `task` for 0..count. Only the leader calls this, and never from within a task.
    fn run<F: Fn(usize) + Sync>(&self, count: usize, task: &F) {
        unsafe fn call<F: Fn(usize)>(closure: *const (), index: usize) {
            // SAFETY: the pointer is to the `F` that `run` borrows until every helper has left.
            unsafe { (*closure.cast::<F>())(index) }
        }
        /// Closes the work and waits for the helpers, even if a task of the leader panics.
        struct Close<'a>(&'a Shared);
        impl Drop for Close<'_> {
            fn drop(&mut self) {
                self.0.next.store(usize::MAX / 2, Ordering::Relaxed);
                self.0.open.store(false, Ordering::SeqCst);
                let mut looks = 0;
                while self.0.inside.load(Ordering::SeqCst) > 0 {
                    pause(&mut looks);
                }
            }
        }
        let shared = &*self.shared;
        // SAFETY: the work before is closed and nobody is inside.
        unsafe {
            *shared.work.get() = Work { run: call::<F>, closure: std::ptr::from_ref(task).cast(), count };
        }
        shared.next.store(0, Ordering::Relaxed);
        shared.open.store(true, Ordering::SeqCst);
        let close = Close(shared);
        if shared.asleep.load(Ordering::SeqCst) > 0 {
            self.helpers.iter().for_each(|helper| helper.thread().unpark());
        }
        let working = Working::begin();
        loop {
            let index = shared.next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                break;
            }
            task(index);
        }
        drop(working);
        drop(close);
        if let Some(panic) = shared.panic.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take() {
            resume_unwind(panic);
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        for helper in self.helpers.drain(..) {
            helper.thread().unpark();
            // A helper catches what its tasks throw.
            let _ = helper.join();
        }
    }
}

/// Marks this thread as being inside a task.
struct Working;

impl Working {
    fn begin() -> Self {
        WORKS.set(true);
        Self
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        WORKS.set(false);
    }
}

/// Waits a moment; now and then offers the processor to others.
fn pause(looks: &mut usize) {
    *looks += 1;
    if looks.is_multiple_of(LOOKS) { thread::yield_now() } else { std::hint::spin_loop() }
}

/// The life of a helper.
fn help(shared: &Shared) {
    let (mut looks, mut since) = (0, Instant::now());
    while !shared.stopped.load(Ordering::Relaxed) {
        if shared.open.load(Ordering::Relaxed) && work_once(shared) {
            (looks, since) = (0, Instant::now());
            continue;
        }
        pause(&mut looks);
        if looks.is_multiple_of(LOOKS) && since.elapsed() > LOOKING {
            shared.asleep.fetch_add(1, Ordering::SeqCst);
            // Whoever opens work from here on sees that this one sleeps; a wake-up that comes before is kept.
            if !shared.open.load(Ordering::SeqCst) && !shared.stopped.load(Ordering::SeqCst) {
                thread::park();
            }
            shared.asleep.fetch_sub(1, Ordering::SeqCst);
            since = Instant::now();
        }
    }
}

/// Enters, takes tasks until there are none, leaves. Returns whether there were any.
fn work_once(shared: &Shared) -> bool {
    let mut some = false;
    shared.inside.fetch_add(1, Ordering::SeqCst);
    if shared.open.load(Ordering::SeqCst) {
        // SAFETY: entered while open, so the leader waits before it changes the work or gives up the closure.
        let Work { run, closure, count } = unsafe { *shared.work.get() };
        let _working = Working::begin();
        loop {
            let index = shared.next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                break;
            }
            some = true;
            // SAFETY: as above; the index is below the count.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| unsafe { run(closure, index) })) {
                *shared.panic.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(panic);
            }
        }
    }
    shared.inside.fetch_sub(1, Ordering::SeqCst);
    some
}

#[cfg(target_os = "linux")]
fn pin(processor: usize) {
    // SAFETY: a set of bits on the stack, for this thread only; where the system refuses, the thread stays free.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(processor % libc::CPU_SETSIZE as usize, &mut set);
        libc::sched_setaffinity(0, std::mem::size_of::<libc::cpu_set_t>(), &set);
    }
}

#[cfg(not(target_os = "linux"))]
fn pin(_processor: usize) {}

/// Runs `task` for 0..count on the team that this thread leads. Returns whether it leads one, or is at work for one.
pub(crate) fn run_here<F: Fn(usize) + Sync>(count: usize, task: &F) -> bool {
    if WORKS.get() {
        (0..count).for_each(task);
        return true;
    }
    // SAFETY: the pointer is to a team whose `enter` is on this thread's stack.
    match unsafe { LEADS.get().as_ref() } {
        Some(team) => {
            team.run(count, task);
            true
        }
        None => false,
    }
}

/// Threads of the team that this thread leads.
pub(crate) fn threads_here() -> Option<usize> {
    // SAFETY: as above.
    unsafe { LEADS.get().as_ref() }.map(Team::threads)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::parallel::{for_each, map};

    #[test]
    fn every_task_runs_once() {
        for threads in 1..5 {
            let team = Team::new(threads, threads == 2).unwrap();
            assert_eq!(team.threads(), threads);
            team.enter(|| {
                for round in 0..if cfg!(miri) { 3 } else { 2000 } {
                    let counts: Vec<AtomicUsize> = (0..round % 40).map(|_| AtomicUsize::new(0)).collect();
                    for_each(counts.len(), |i| {
                        counts[i].fetch_add(1, Ordering::Relaxed);
                        // Work within work.
                        for_each(2, |_| {
                            counts[i].fetch_add(10, Ordering::Relaxed);
                        });
                    });
                    assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 21));
                    if round % 500 == 0 {
                        // Helpers fall asleep.
                        thread::sleep(3 * LOOKING);
                    }
                }
            });
        }
    }

    #[test]
    fn results_come_in_order() {
        let team = Team::new(3, false).unwrap();
        let squares = |n| map(n, |i| i * i);
        assert_eq!(team.enter(|| squares(100)), squares(100));
    }

    #[test]
    fn a_panic_of_any_thread_reaches_the_leader_and_the_team_goes_on() {
        let team = Team::new(3, false).unwrap();
        team.enter(|| {
            for bad in 0..50 {
                let outcome = catch_unwind(AssertUnwindSafe(|| for_each(50, |i| assert_ne!(i, bad, "task {bad}"))));
                assert!(outcome.is_err());
                assert_eq!(map(9, |i| i).len(), 9);
            }
        });
    }

    #[test]
    fn threads_are_those_of_the_team_inside_only() {
        let team = Team::new(3, false).unwrap();
        assert_eq!((threads_here(), team.enter(threads_here), threads_here()), (None, Some(3), None));
    }
}
