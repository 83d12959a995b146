//! A thread beside an end of a System V queue: what is said between the two, and the descriptor by
//! which the end is polled. It ends with its end; in a forked child there is none.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use poste_sys::fork::Life;
use poste_sys::interrupt;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use crate::error::Error;
use crate::limits::HELPER_STACK;

/// The end's side.
#[derive(Debug)]
pub(super) struct Aside<S> {
    shared: Arc<Shared<S>>,
    /// `None` until it is started, and when it has ended.
    thread: Option<JoinHandle<()>>,
    life: Life,
}

/// What both sides reach.
#[derive(Debug)]
pub(super) struct Shared<S> {
    state: Mutex<S>,
    changed: Condvar,
    /// Readable when the end is ready: it holds 0 or 1.
    ready: OwnedFd,
}

impl<S> Shared<S> {
    pub(super) fn lock(&self) -> MutexGuard<'_, S> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the other side has changed something.
    pub(super) fn wait<'a>(&self, state: MutexGuard<'a, S>) -> MutexGuard<'a, S> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Shared::wait`], at most so long.
    pub(super) fn wait_for<'a>(
        &self,
        state: MutexGuard<'a, S>,
        time: Duration,
    ) -> MutexGuard<'a, S> {
        self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Lets the other side know of a change.
    pub(super) fn changed(&self) {
        self.changed.notify_all();
    }

    /// Makes the descriptor readable, which it is not.
    pub(super) fn ring(&self) {
        let done = rustix::io::write(&self.ready, &1_u64.to_ne_bytes());
        debug_assert!(done == Ok(8), "an eventfd of ours takes eight bytes");
    }

    /// Makes the descriptor quiet, which is readable.
    pub(super) fn silence(&self) {
        let done = rustix::io::read(&self.ready, &mut [0; 8]);
        debug_assert!(done == Ok(8), "an eventfd of ours gives eight bytes");
    }
}

impl<S: Send + 'static> Aside<S> {
    /// Without its thread; its descriptor says ready or not.
    ///
    /// # Errors
    /// What the system said.
    pub(super) fn new(state: S, is_ready: bool) -> Result<Aside<S>, Error> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let ready =
            eventfd(u32::from(is_ready), flags).map_err(|errno| Error::system(errno, ""))?;
        let shared = Shared { state: Mutex::new(state), changed: Condvar::new(), ready };
        Ok(Aside { shared: Arc::new(shared), thread: None, life: Life::this() })
    }

    /// Starts the thread, unless it runs: its name, for who looks at a process's threads, what it
    /// is for, and what it does. Signals of the program's are not for it.
    ///
    /// # Errors
    /// What the system said.
    pub(super) fn start(
        &mut self,
        name: &str,
        what: &'static str,
        serve: impl FnOnce(&Shared<S>) + Send + 'static,
    ) -> Result<(), Error> {
        if self.thread.is_some() {
            return Ok(());
        }
        let theirs = Arc::clone(&self.shared);
        let thread =
            Builder::new().name(name.to_owned()).stack_size(HELPER_STACK).spawn(move || {
                interrupt::only_interrupts();
                serve(&theirs);
            });
        let errno = |error| Errno::from_io_error(&error).unwrap_or(Errno::AGAIN);
        self.thread = Some(thread.map_err(|error| Error::system(errno(error), what))?);
        Ok(())
    }

    pub(super) fn shared(&self) -> &Shared<S> {
        &self.shared
    }

    /// The thread, to interrupt what it waits in.
    pub(super) fn thread(&self) -> Option<&JoinHandle<()>> {
        self.thread.as_ref()
    }

    /// Whether the thread is this process's: it doesn't go with a fork.
    pub(super) fn is_ours(&self) -> bool {
        self.life.lasts()
    }

    /// Readable when the end is ready.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.shared.ready.as_fd()
    }

    /// Tells the thread that it is over, and waits until it has ended.
    pub(super) fn end(&mut self, over: impl FnOnce(&mut S)) {
        let Some(thread) = self.thread.take() else { return };
        if !self.life.lasts() {
            // Nobody has this number here.
            std::mem::forget(thread);
            return;
        }
        over(&mut self.shared.lock());
        self.shared.changed();
        // A thread that panicked has ended too.
        let _ = thread.join();
    }
}
