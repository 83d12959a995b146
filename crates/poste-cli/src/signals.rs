//! SIGINT, SIGTERM and SIGHUP: what has to go is taken away, then the program ends.
//!
//! One thread waits for them, because the main one may be in any blocking call. What was received
//! is written before the program waits again, so that little is lost. SIGKILL can't be caught; what
//! it leaves, `gc` finds.

use std::sync::{Mutex, PoisonError};

use poste::Address;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::exit::{self, Code, Failure, Stop};

/// What is to be taken away when a signal ends the program.
static LEFT: Mutex<Vec<Address>> = Mutex::new(Vec::new());

/// What else is to be done then.
static ACTIONS: Mutex<Vec<Action>> = Mutex::new(Vec::new());

type Action = Box<dyn FnOnce() + Send>;

/// Starts the thread that waits for signals.
pub(crate) fn watch() -> Result<(), Stop> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(|error| {
        Failure::new(Code::Failed, format!("cannot watch for signals: {error}"), "try again")
    })?;
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            end(signal);
        }
    });
    Ok(())
}

/// From now on this object goes when a signal ends the program.
pub(crate) fn remove_at_end(address: &Address) {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner).push(address.clone());
}

/// The objects went, or are not ours any more: a later signal must not touch what has their names.
pub(crate) fn forget_all() {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

/// When a signal ends the program this is done first; what was added last comes first.
pub(crate) fn at_end(action: impl FnOnce() + Send + 'static) {
    ACTIONS.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(action));
}

fn end(signal: i32) -> ! {
    let left = std::mem::take(&mut *LEFT.lock().unwrap_or_else(PoisonError::into_inner));
    for address in &left {
        // It may be gone already; nothing could be done about another reason here.
        let _ = poste::remove(address.to_string());
    }
    let actions = std::mem::take(&mut *ACTIONS.lock().unwrap_or_else(PoisonError::into_inner));
    actions.into_iter().rev().for_each(|action| action());
    let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
    if signal != SIGINT {
        exit::say(&format!("ended by {name}"), "start it again when it is wanted");
    }
    std::process::exit(128 + signal);
}
