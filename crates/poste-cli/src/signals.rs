//! SIGINT, SIGTERM and SIGHUP: what has to go is taken away, then the program ends.
//!
//! One thread waits for them, because the main one may be in any blocking call. What was received
//! is written before the program waits again, so that little is lost. SIGKILL can't be caught; what
//! it leaves, `gc` finds. What must not end between two steps has signals noted, and a command that
//! runs under a permit gets them instead of poste.

use std::sync::{Mutex, MutexGuard, PoisonError};

use poste::{Address, Error};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::exit::{self, Stop};

/// What is to be taken away when a signal ends the program.
static LEFT: Mutex<Vec<Left>> = Mutex::new(Vec::new());

/// Something that is to be taken away.
#[derive(Debug)]
enum Left {
    /// The socket that an end of ours made there, if it is still that one.
    Made(Address),
    /// Whatever has the name: its removal was asked for.
    Named(Address),
}

/// What becomes of a signal.
#[derive(Debug)]
enum Fate {
    /// It ends the program.
    Ends,
    /// It is noted: the last one that came.
    Noted(Option<i32>),
    /// A command gets it.
    Passed(Pid),
}

/// What becomes of the next signal.
static FATE: Mutex<Fate> = Mutex::new(Fate::Ends);

/// What else is to be done then.
static ACTIONS: Mutex<Vec<Action>> = Mutex::new(Vec::new());

type Action = Box<dyn FnOnce() + Send>;

/// Starts the thread that waits for signals.
pub(crate) fn watch() -> Result<(), Stop> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(|error| {
        // It takes a few descriptors: where there are none left, the hint says so.
        let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        Error::system(errno, "").on("watch for", &"signals")
    })?;
    let watch = move || {
        for signal in signals.forever() {
            let mut fate = fate();
            match &mut *fate {
                // The lock stays taken: nobody begins anything any more.
                Fate::Ends => end(signal),
                Fate::Noted(noted) => *noted = Some(signal),
                Fate::Passed(command) => pass(signal, *command),
            }
        }
    };
    match std::thread::Builder::new().name("signals".to_owned()).spawn(watch) {
        Ok(_) => Ok(()),
        Err(error) => {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::AGAIN);
            Err(Error::system(errno, "no thread can be made").on("watch for", &"signals").into())
        }
    }
}

/// From now on the socket that an end of ours made there, or is about to make, goes when a signal ends
/// the program; not another that has its name by then. To be said before it is opened: a signal may
/// come as soon as the name is there.
pub(crate) fn remove_made_at_end(address: &Address) {
    left().push(Left::Made(address.clone()));
}

/// From now on what has this name goes when a signal ends the program.
pub(crate) fn remove_named_at_end(address: &Address) {
    left().push(Left::Named(address.clone()));
}

fn left() -> MutexGuard<'static, Vec<Left>> {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The objects went, or are not ours any more: a later signal must not touch what has their names.
pub(crate) fn forget_all() {
    left().clear();
}

/// From now on signals are noted, for [`noted`] and [`pass_to`].
pub(crate) fn note() {
    *fate() = Fate::Noted(None);
}

/// The signal that came since, if one did.
pub(crate) fn noted() -> Option<i32> {
    match &*fate() {
        Fate::Noted(noted) => *noted,
        Fate::Ends | Fate::Passed(_) => None,
    }
}

/// From now on a command gets the signals, and the one that was noted.
pub(crate) fn pass_to(command: Pid) {
    let mut fate = fate();
    if let Fate::Noted(Some(signal)) = *fate {
        pass(signal, command);
    }
    *fate = Fate::Passed(command);
}

fn fate() -> MutexGuard<'static, Fate> {
    FATE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pass(signal: i32, command: Pid) {
    if signal == SIGINT && is_foreground() {
        // The terminal has sent it to the command too.
        return;
    }
    if let Some(signal) = Signal::from_named_raw(signal) {
        // It may have ended already.
        let _ = kill_process(command, signal);
    }
}

/// Whether this process group is the one that its terminal sends signals to.
fn is_foreground() -> bool {
    // proc_pid_stat(5): after the name come the state, ppid, pgrp, session, tty_nr and tpgid.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or("").split_ascii_whitespace().collect();
    fields.get(5).is_some_and(|foreground| fields.get(2) == Some(foreground))
}

/// When a signal ends the program this is done first; what was added last comes first.
pub(crate) fn at_end(action: impl FnOnce() + Send + 'static) {
    ACTIONS.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(action));
}

/// Ends the program as a signal does.
pub(crate) fn end(signal: i32) -> ! {
    for object in std::mem::take(&mut *left()) {
        // It may be gone already; nothing could be done about another reason here.
        let _ = match object {
            Left::Made(address) => poste::remove_own(address.to_string()).map(drop),
            Left::Named(address) => poste::remove(address.to_string()),
        };
    }
    let actions = std::mem::take(&mut *ACTIONS.lock().unwrap_or_else(PoisonError::into_inner));
    actions.into_iter().rev().for_each(|action| action());
    let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
    if signal != SIGINT {
        exit::say(&format!("ended by {name}"), "start it again when it is wanted");
    }
    std::process::exit(128 + signal);
}
