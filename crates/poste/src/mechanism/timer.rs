//! A timer as a descriptor: for an end that must look again though nothing tells it to.
//!
//! Source: timerfd_create(2). It counts on the monotonic clock.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use crate::wait::timespec;

/// Readable from the moment on that it was set to, until it is set anew or stopped.
#[derive(Debug)]
pub(crate) struct Timer(OwnedFd);

impl Timer {
    /// One that is stopped.
    ///
    /// # Errors
    /// Where the system has no room for it.
    pub(crate) fn new() -> Result<Timer, Errno> {
        timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC).map(Timer)
    }

    /// Sets it to fire once, after this time.
    pub(crate) fn set(&self, after: Duration) {
        // Zero would stop it.
        self.settle(after.max(Duration::from_nanos(1)));
    }

    /// Makes it quiet.
    pub(crate) fn stop(&self) {
        self.settle(Duration::ZERO);
    }

    fn settle(&self, after: Duration) {
        let zero = timespec(Duration::ZERO);
        let setting = Itimerspec { it_interval: zero, it_value: timespec(after) };
        let set = timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &setting);
        debug_assert!(set.is_ok(), "a timer of ours takes any time: {set:?}");
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
