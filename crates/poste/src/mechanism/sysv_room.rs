//! What a sender to a System V queue is polled by: whether there is room.
//!
//! Nothing tells when a message was taken out, whoever took it. While the queue is full, and only
//! then, a thread looks again and again, with pauses as a timed send has them. It is started when
//! the queue is full for the first time, and lives as long as its sender.
//!
//! Sources: msgctl(2) (IPC_STAT), msgop(2) (when there is room).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use poste_sys::fork::Life;
use poste_sys::interrupt;
use poste_sys::sysv::{self, Queue};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use crate::error::Error;
use crate::limits::{HELPER_STACK, PAUSE_MAX, PAUSE_MIN};

/// The thread's name.
const NAME: &str = "poste-sysv-room";

/// Readable while there is room.
#[derive(Debug)]
pub(super) struct Room {
    queue: Queue,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    life: Life,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    ready: OwnedFd,
}

#[derive(Debug)]
struct State {
    /// For so many bytes there was no room.
    wanted: Option<usize>,
    is_over: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self, state: &mut State) {
        if state.wanted.take().is_some() {
            // It was silenced, so it holds 0.
            let _ = rustix::io::write(&self.ready, &1_u64.to_ne_bytes());
        }
    }
}

/// Whether there is room for a message of so many bytes. Who can't ask finds out by sending.
fn is_room(queue: Queue, size: usize) -> bool {
    sysv::status(queue).map_or(true, |status| {
        status.bytes + size <= status.capacity && status.depth < status.capacity
    })
}

impl Room {
    /// For a queue; readable unless it has no room for a message of one byte.
    ///
    /// # Errors
    /// What the system said.
    pub(super) fn new(queue: Queue) -> Result<Room, Error> {
        let ready = eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| Error::system(errno, ""))?;
        let state = Mutex::new(State { wanted: None, is_over: false });
        let shared = Arc::new(Shared { state, changed: Condvar::new(), ready });
        let mut room = Room { queue, shared, thread: None, life: Life::this() };
        if !is_room(queue, 1) {
            room.want(1)?;
        }
        Ok(room)
    }

    /// Whether the thread is this process's: it doesn't go with a fork.
    pub(super) fn is_ours(&self) -> bool {
        self.life.lasts()
    }

    /// Readable while there is room.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.shared.ready.as_fd()
    }

    /// There was no room for a message of so many bytes.
    ///
    /// # Errors
    /// The thread could not be started.
    pub(super) fn want(&mut self, size: usize) -> Result<(), Error> {
        if self.thread.is_none() {
            let (theirs, queue) = (Arc::clone(&self.shared), self.queue);
            let thread = Builder::new()
                .name(NAME.to_owned())
                .stack_size(HELPER_STACK)
                .spawn(move || serve(&theirs, queue))
                .map_err(|error| {
                    let errno = Errno::from_io_error(&error).unwrap_or(Errno::AGAIN);
                    Error::system(errno, "the thread that looks for room in the queue")
                })?;
            self.thread = Some(thread);
        }
        let mut state = self.shared.lock();
        if state.wanted.replace(size).is_none() {
            // It holds 1 unless it wants something.
            let _ = rustix::io::read(&self.shared.ready, &mut [0; 8]);
        }
        self.shared.changed.notify_all();
        Ok(())
    }

    /// A message went: there was room.
    #[inline]
    pub(super) fn went(&self) {
        let mut state = self.shared.lock();
        self.shared.ring(&mut state);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if !self.life.lasts() {
            // Nobody has the thread's number here.
            std::mem::forget(self.thread.take());
            return;
        }
        self.shared.lock().is_over = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has ended too.
            let _ = thread.join();
        }
    }
}

/// What the thread does: looks while room is wanted, and else waits to be told.
fn serve(shared: &Shared, queue: Queue) {
    interrupt::only_interrupts();
    let mut pause = PAUSE_MIN;
    let mut state = shared.lock();
    while !state.is_over {
        let Some(wanted) = state.wanted else {
            pause = PAUSE_MIN;
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        let waited = shared.changed.wait_timeout(state, pause);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        pause = (pause * 2).min(PAUSE_MAX);
        if state.wanted == Some(wanted) && is_room(queue, wanted) {
            shared.ring(&mut state);
        }
    }
}
