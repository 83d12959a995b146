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
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use poste_sys::fork::Life;
use poste_sys::interrupt;
use poste_sys::sysv::{self, Letter, Queue};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use crate::error::Error;
use crate::limits::HELPER_STACK;

/// The thread's name, for who looks at a process's threads.
const NAME: &str = "poste-sysv";

/// How long to wait between two calls to come back: one may have come just before the thread began
/// to wait.
const CALL_AGAIN: Duration = Duration::from_millis(1);

/// The thread, and what is said between it and its receiver.
#[derive(Debug)]
pub(super) struct Helper {
    shared: Arc<Shared>,
    /// `None` only while it ends.
    thread: Option<JoinHandle<()>>,
    life: Life,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Readable when the queue is to be looked at.
    ready: OwnedFd,
}

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

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the descriptor say whether something is there.
    fn show(&self, state: &mut State, is_there: bool) {
        if state.is_rung != is_there {
            let mut count = [0; 8];
            let done = match is_there {
                true => rustix::io::write(&self.ready, &1_u64.to_ne_bytes()),
                false => rustix::io::read(&self.ready, &mut count),
            };
            debug_assert!(done == Ok(8), "an eventfd of ours takes and gives eight bytes");
            state.is_rung = is_there;
        }
    }
}

impl Helper {
    /// Starts the thread; it rests.
    ///
    /// # Errors
    /// What the system said.
    pub(super) fn start(queue: Queue, wanted: isize) -> Result<Helper, Error> {
        let system = |errno: Errno| Error::system(errno, "the thread that waits on the queue");
        let ready = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(system)?;
        let state = State {
            phase: Phase::Resting,
            is_called: false,
            is_rung: false,
            taken: VecDeque::new(),
        };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let shared = Arc::new(Shared { state, changed, ready });
        let theirs = Arc::clone(&shared);
        let thread = Builder::new()
            .name(NAME.to_owned())
            .stack_size(HELPER_STACK)
            .spawn(move || serve(&theirs, queue, wanted))
            .map_err(|error| system(Errno::from_io_error(&error).unwrap_or(Errno::AGAIN)))?;
        Ok(Helper { shared, thread: Some(thread), life: Life::this() })
    }

    /// Whether the thread is this process's: it doesn't go with a fork.
    pub(super) fn is_ours(&self) -> bool {
        self.life.lasts()
    }

    /// Readable when the queue is to be looked at.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.shared.ready.as_fd()
    }

    /// Calls the thread back, and takes over what it took.
    pub(super) fn call_back(&self, taken: &mut VecDeque<isize>) {
        let mut state = self.shared.lock();
        state.is_called = true;
        while state.phase == Phase::Waiting {
            if let Some(thread) = &self.thread {
                // Whether it arrived shows in what the thread does.
                let _ = interrupt::interrupt(thread);
            }
            let waited = self.shared.changed.wait_timeout(state, CALL_AGAIN);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.is_called = false;
        taken.append(&mut state.taken);
    }

    /// Something is there: the thread has nothing to do.
    pub(super) fn ring(&self) {
        let mut state = self.shared.lock();
        self.shared.show(&mut state, true);
    }

    /// Nothing is there: the thread waits until something is.
    pub(super) fn wait_for_more(&self) {
        let mut state = self.shared.lock();
        self.shared.show(&mut state, false);
        state.phase = Phase::Waiting;
        self.shared.changed.notify_all();
    }

    /// Ends the thread; what it took last is handed over.
    pub(super) fn end(self, taken: &mut VecDeque<isize>) {
        if self.life.lasts() {
            self.call_back(taken);
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        if !self.life.lasts() {
            // Nobody has this number here.
            std::mem::forget(thread);
            return;
        }
        self.thread = Some(thread);
        self.call_back(&mut VecDeque::new());
        self.shared.lock().phase = Phase::Over;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has ended too.
            let _ = thread.join();
        }
    }
}

/// What the thread does.
fn serve(shared: &Shared, queue: Queue, wanted: isize) {
    interrupt::only_interrupts();
    let mut nothing = Letter::new(0);
    let mut state = shared.lock();
    loop {
        match state.phase {
            Phase::Over => return,
            Phase::Resting => {
                state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
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
                shared.show(&mut state, true);
            }
            // A message that stays there; or the queue is gone, which the receiver will be told.
            Err(_) => shared.show(&mut state, true),
        }
        state.phase = Phase::Resting;
        shared.changed.notify_all();
    }
}
