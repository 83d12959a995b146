//! Which processor the calling thread runs on. Source: sched_getcpu(3).

/// The number of the processor; `None` where the system doesn't say. It may be another by now.
#[must_use]
#[inline]
pub fn current() -> Option<u32> {
    // SAFETY: the call takes nothing and changes nothing.
    u32::try_from(unsafe { libc::sched_getcpu() }).ok()
}
