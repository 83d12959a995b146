//! A full barrier between two sides that only one of them pays for.
//!
//! A sender that has stored a message must not look who sleeps before the message is to be seen;
//! between the two belongs a full barrier, which costs as much as the rest of sending. So the seldom
//! side makes it for both: membarrier(2) runs one on every processor where a process that takes part
//! is running. Taking part is said once by a process; where it has several threads the kernel takes
//! milliseconds for that, so a thread sees to it, and until then senders make their own barriers.
//!
//! Sources: membarrier(2), MEMBARRIER_CMD_GLOBAL_EXPEDITED (Linux 4.16).

use std::sync::atomic::{AtomicU64, Ordering, fence};

use rustix::thread::{MembarrierCommand, MembarrierQuery, membarrier, membarrier_query};

/// The thread's name, for who looks at a process's threads in these milliseconds.
const NAME: &str = "poste-barrier";

/// The life of this process in which it was last asked to take part.
static ASKED: AtomicU64 = AtomicU64::new(0);

/// The life of this process in which it takes part.
static TAKES_PART: AtomicU64 = AtomicU64::new(0);

/// Whether processes here can be made to run barriers.
pub(super) fn is_possible() -> bool {
    let both = MembarrierQuery::GLOBAL_EXPEDITED | MembarrierQuery::REGISTER_GLOBAL_EXPEDITED;
    membarrier_query().contains(both)
}

/// Makes this process take part, now or soon; [`takes_part`] says when.
pub(super) fn take_part() {
    let life = poste_sys::fork::life();
    if ASKED.swap(life, Ordering::Relaxed) == life || !is_possible() {
        return;
    }
    if is_alone() {
        register(life);
        return;
    }
    let register = move || {
        poste_sys::interrupt::only_interrupts();
        register(life);
    };
    // Without the thread, senders here go on making barriers of their own.
    let _ = std::thread::Builder::new().name(NAME.to_owned()).spawn(register);
}

fn register(life: u64) {
    if membarrier(MembarrierCommand::RegisterGlobalExpedited).is_ok() {
        TAKES_PART.store(life, Ordering::Release);
    }
}

/// Whether this is the only thread: with others the kernel waits until each has been elsewhere.
fn is_alone() -> bool {
    // A directory has two links and one for each that lies in it: proc(5).
    rustix::fs::stat("/proc/self/task").is_ok_and(|stat| stat.st_nlink == 3)
}

/// Whether every thread of this process runs the barriers of others.
pub(super) fn takes_part() -> bool {
    TAKES_PART.load(Ordering::Acquire) == poste_sys::fork::life()
}

/// A full barrier here, and in every process that takes part.
pub(super) fn everywhere() {
    fence(Ordering::SeqCst);
    // Asked for only where it is possible; it takes 0.5 us, and 12 where somebody runs.
    let done = membarrier(MembarrierCommand::GlobalExpedited);
    debug_assert!(done.is_ok(), "{done:?}: where it is offered it is made");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_takes_part_soon() {
        if !is_possible() {
            let why = "this kernel makes no barriers in other processes";
            return poste_sys::testing::skip("a_process_with_threads_takes_part_soon", why);
        }
        // The test program has several threads.
        take_part();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !takes_part() {
            assert!(std::time::Instant::now() < end, "the kernel never said yes");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        everywhere();
    }
}
