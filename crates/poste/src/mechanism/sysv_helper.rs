//! The thread that waits on a System V queue for a receiver that is polled, where senders may be no
//! poste's, and so ring no bell.
//!
//! It waits in msgrcv(2) with room for nothing: a message with a body ends that with E2BIG and stays
//! in the queue. One without a body is taken; it is nothing but its type, which is handed on. The
//! thread waits only while the receiver is quiet: before each receive it is called back, so that no
//! message is taken out of turn. It lives as long as its receiver.
//!
//! Sources: msgop(2), eventfd(2).

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use poste_sys::interrupt;
use poste_sys::sysv::{self, Letter, Queue};
use rustix::io::Errno;

use super::sysv_thread::{Aside, Shared};
use crate::error::Error;

/// The thread's name, for who looks at a process's threads.
const NAME: &str = "poste-sysv";

/// How long to wait between two calls to come back: one may have come just before the thread began
/// to wait.
const CALL_AGAIN: Duration = Duration::from_millis(1);

/// The thread, and what is said between it and its receiver.
#[derive(Debug)]
pub(super) struct Helper(Aside<State>);

#[derive(Debug)]
struct State {
    phase: Phase,
    /// The receiver calls: it wants to look itself.
    is_called: bool,
    is_rung: bool,
    /// The types of the empty messages that were taken.
    taken: VecDeque<isize>,
}

/// Resting → Waiting (the receiver) → Resting (the thread); → Over (the receiver).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The receiver looks itself.
    Resting,
    /// The thread waits in the kernel, or is about to.
    Waiting,
    /// The receiver is gone.
    Over,
}

impl State {
    /// Makes the descriptor say whether something is there.
    fn show(&mut self, shared: &Shared<State>, is_there: bool) {
        if self.is_rung != is_there {
            if is_there {
                shared.ring()
            } else {
                shared.silence()
            }
            self.is_rung = is_there;
        }
    }
}

impl Helper {
    /// Starts the thread; it rests.
    ///
    /// # Errors
    /// What the system said.
    pub(super) fn start(queue: Queue, wanted: isize) -> Result<Helper, Error> {
        let state = State {
            phase: Phase::Resting,
            is_called: false,
            is_rung: false,
            taken: VecDeque::new(),
        };
        let mut aside = Aside::new(state, false)?;
        let serve = move |shared: &Shared<State>| serve(shared, queue, wanted);
        aside.start(NAME, "the thread that waits on the queue", serve)?;
        Ok(Helper(aside))
    }

    /// Whether the thread is this process's: it doesn't go with a fork.
    pub(super) fn is_ours(&self) -> bool {
        self.0.is_ours()
    }

    /// Readable when the queue is to be looked at.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.descriptor()
    }

    /// Calls the thread back, and takes over what it took.
    pub(super) fn call_back(&self, taken: &mut VecDeque<isize>) {
        let shared = self.0.shared();
        let mut state = shared.lock();
        state.is_called = true;
        while state.phase == Phase::Waiting {
            if let Some(thread) = self.0.thread() {
                // Whether it arrived shows in what the thread does.
                let _ = interrupt::interrupt(thread);
            }
            state = shared.wait_for(state, CALL_AGAIN);
        }
        state.is_called = false;
        taken.append(&mut state.taken);
    }

    /// Something is there: the thread has nothing to do.
    pub(super) fn ring(&self) {
        self.0.shared().lock().show(self.0.shared(), true);
    }

    /// Nothing is there: the thread waits until something is.
    pub(super) fn wait_for_more(&self) {
        let mut state = self.0.shared().lock();
        state.show(self.0.shared(), false);
        state.phase = Phase::Waiting;
        self.0.shared().changed();
    }

    /// Ends the thread; what it took last is handed over.
    pub(super) fn end(self, taken: &mut VecDeque<isize>) {
        if self.is_ours() {
            self.call_back(taken);
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if self.is_ours() {
            self.call_back(&mut VecDeque::new());
        }
        self.0.end(|state| state.phase = Phase::Over);
    }
}

/// What the thread does.
fn serve(shared: &Shared<State>, queue: Queue, wanted: isize) {
    let mut nothing = Letter::new(0);
    let mut state = shared.lock();
    loop {
        match state.phase {
            Phase::Over => return,
            Phase::Resting => {
                state = shared.wait(state);
                continue;
            }
            Phase::Waiting => drop(state),
        }
        let found = sysv::receive(queue, &mut nothing, wanted, true);
        state = shared.lock();
        match found {
            Err(Errno::INTR) if !state.is_called => continue,
            Err(Errno::INTR) => {}
            Ok(()) => {
                state.taken.push_back(nothing.message_type() as isize);
                state.show(shared, true);
            }
            // A message that stays there; or the queue is gone, which the receiver will be told.
            Err(_) => state.show(shared, true),
        }
        state.phase = Phase::Resting;
        shared.changed();
    }
}
