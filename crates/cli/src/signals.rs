//! Ctrl-C: the first one asks the work to save and stop, the second one quits at once.

use narthex_base::{Error, Result};
use std::sync::{Arc, atomic::AtomicBool};

/// A flag that the first SIGINT or SIGTERM raises; the second ends the process with code 130.
pub fn interrupt_flag() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The order matters: the conditional exit looks at the flag before it is raised.
        signal_hook::flag::register_conditional_shutdown(signal, 130, flag.clone())
            .and_then(|_| signal_hook::flag::register(signal, flag.clone()))
            .map_err(|error| Error::internal("cannot listen for signals").cause(error))?;
    }
    Ok(flag)
}
