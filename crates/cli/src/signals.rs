//! Ctrl-C: the first one asks the work to save and stop, a second one quits at once. SIGHUP: a server looks for a new model.

use narthex_base::{Error, Result};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, channel},
    },
    time::{Duration, Instant},
};

/// A second signal this soon is the same one: `timeout` and terminals send it to the process and to its group.
const SAME_SIGNAL: Duration = Duration::from_millis(300);

/// The exit code after an interrupt.
const INTERRUPTED: i32 = 130;

/// A flag that the first SIGINT or SIGTERM raises; a second one ends the process.
pub fn interrupt_flag() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let cannot = |error| Error::internal("cannot listen for signals").cause(error);
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(cannot)?;
    let raised = flag.clone();
    let listen = move || {
        let mut first: Option<Instant> = None;
        for _ in signals.forever() {
            match first {
                None => {
                    first = Some(Instant::now());
                    raised.store(true, Ordering::Relaxed);
                    noteln!("stopping at the next safe point; Ctrl-C again quits at once");
                }
                Some(then) if then.elapsed() > SAME_SIGNAL => std::process::exit(INTERRUPTED),
                Some(_) => {}
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(listen).map_err(cannot)?;
    Ok(flag)
}

/// Yields once for each SIGHUP, which no longer ends the process.
pub fn hangups() -> Result<Receiver<()>> {
    let cannot = |error| Error::internal("cannot listen for signals").cause(error);
    let mut signals = Signals::new([SIGHUP]).map_err(cannot)?;
    let (sender, receiver) = channel();
    let listen = move || signals.forever().take_while(|_| sender.send(()).is_ok()).for_each(drop);
    std::thread::Builder::new().name("hangups".into()).spawn(listen).map_err(cannot)?;
    Ok(receiver)
}
