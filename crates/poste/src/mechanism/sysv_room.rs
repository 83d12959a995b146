//! What a sender to a System V queue is polled by: whether there is room.
//!
//! Nothing tells when a message was taken out, whoever took it. While the queue is full, and only
//! then, a thread looks again and again, with pauses as a timed send has them. It is started when
//! the queue is full for the first time, and lives as long as its sender.
//!
//! Sources: msgctl(2) (IPC_STAT), msgop(2) (when there is room).

use std::os::fd::BorrowedFd;

use poste_sys::sysv::{self, Queue};

use super::sysv_thread::{Aside, Shared};
use crate::error::Error;
use crate::limits::{PAUSE_MAX, PAUSE_MIN};

/// The thread's name.
const NAME: &str = "poste-sysv-room";

/// Readable while there is room.
#[derive(Debug)]
pub(super) struct Room {
    queue: Queue,
    aside: Aside<State>,
}

#[derive(Debug)]
struct State {
    /// For so many bytes there was no room.
    wanted: Option<usize>,
    is_over: bool,
}

impl State {
    /// There is room for what was wanted, if anything was.
    fn found(&mut self, shared: &Shared<State>) {
        if self.wanted.take().is_some() {
            // It was silenced.
            shared.ring();
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
        let aside = Aside::new(State { wanted: None, is_over: false }, true)?;
        let mut room = Room { queue, aside };
        if !is_room(queue, 1) {
            room.want(1)?;
        }
        Ok(room)
    }

    /// Whether the thread is this process's: it doesn't go with a fork.
    pub(super) fn is_ours(&self) -> bool {
        self.aside.is_ours()
    }

    /// Readable while there is room.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.aside.descriptor()
    }

    /// There was no room for a message of so many bytes.
    ///
    /// # Errors
    /// The thread could not be started.
    pub(super) fn want(&mut self, size: usize) -> Result<(), Error> {
        let queue = self.queue;
        let serve = move |shared: &Shared<State>| serve(shared, queue);
        self.aside.start(NAME, "the thread that looks for room in the queue", serve)?;
        let shared = self.aside.shared();
        let mut state = shared.lock();
        if state.wanted.replace(size).is_none() {
            // It is ready unless it wants something.
            shared.silence();
        }
        shared.changed();
        Ok(())
    }

    /// A message went: there was room.
    #[inline]
    pub(super) fn went(&self) {
        self.aside.shared().lock().found(self.aside.shared());
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.aside.end(|state| state.is_over = true);
    }
}

/// What the thread does: looks while room is wanted, and else waits to be told.
fn serve(shared: &Shared<State>, queue: Queue) {
    let mut pause = PAUSE_MIN;
    let mut state = shared.lock();
    while !state.is_over {
        let Some(wanted) = state.wanted else {
            pause = PAUSE_MIN;
            state = shared.wait(state);
            continue;
        };
        state = shared.wait_for(state, pause);
        pause = (pause * 2).min(PAUSE_MAX);
        if state.wanted == Some(wanted) && is_room(queue, wanted) {
            state.found(shared);
        }
    }
}
