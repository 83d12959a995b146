//! Sleeping on a word of shared memory, and waking who sleeps there. Never PRIVATE: the word lies in
//! memory that several processes map. Under loom a sleeper looks again and again.
//!
//! Source: futex(2). The timeout of FUTEX_WAIT counts on the monotonic clock.

use std::time::Duration;

use rustix::io::Errno;

use crate::atomic::AtomicU32;

/// Sleeps while the word has this value, at most so long. Returns at once where it has another;
/// may return for no reason.
///
/// # Errors
/// `ETIMEDOUT`; other errors are no news to who looks again.
#[cfg(not(poste_loom))]
pub fn wait(word: &AtomicU32, value: u32, time: Option<Duration>) -> Result<(), Errno> {
    use rustix::thread::futex::{Flags, Timespec, wait};
    let time = time.map(|time| Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    });
    match wait(word, Flags::empty(), value, time.as_ref()) {
        Err(Errno::AGAIN | Errno::INTR) => Ok(()),
        done => done,
    }
}

/// As above, in a model: it ends only when the word changes.
///
/// # Errors
/// None.
#[cfg(poste_loom)]
pub fn wait(word: &AtomicU32, value: u32, _time: Option<Duration>) -> Result<(), Errno> {
    while word.load(crate::atomic::Ordering::SeqCst) == value {
        loom::thread::yield_now();
    }
    Ok(())
}

/// Wakes the one that sleeps on the word, if somebody does.
pub fn wake(word: &AtomicU32) {
    // A word that is mapped can always be woken on; how many slept is of no interest.
    #[cfg(not(poste_loom))]
    let _ = rustix::thread::futex::wake(word, rustix::thread::futex::Flags::empty(), 1);
    #[cfg(poste_loom)]
    let _ = word;
}
