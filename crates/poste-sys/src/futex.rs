//! Sleeping on a word of shared memory, and waking who sleeps there. Never PRIVATE: the word lies in
//! memory that several processes map. Under loom the kernel's part is a model too.
//!
//! Source: futex(2). The timeout of FUTEX_WAIT counts on the monotonic clock.

#[cfg(not(poste_loom))]
use std::time::Duration;

#[cfg(not(poste_loom))]
use rustix::io::Errno;

#[cfg(not(poste_loom))]
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

/// Wakes the one that sleeps on the word, if somebody does.
#[cfg(not(poste_loom))]
pub fn wake(word: &AtomicU32) {
    // A word that is mapped can always be woken on; how many slept is of no interest.
    let _ = rustix::thread::futex::wake(word, rustix::thread::futex::Flags::empty(), 1);
}

#[cfg(poste_loom)]
pub use model::{wait, wake};

/// The kernel's part in a model: it looks at the word and queues the sleeper under one lock, and a
/// wake-up is for one word.
#[cfg(poste_loom)]
mod model {
    use std::time::Duration;

    use loom::sync::{Condvar, Mutex};
    use rustix::io::Errno;

    use crate::atomic::{AtomicU32, Ordering};

    loom::lazy_static! {
        static ref SLEEPERS: (Mutex<Vec<usize>>, Condvar) = (Mutex::new(Vec::new()), Condvar::new());
    }

    /// As the kernel's, but it returns only when it is woken.
    ///
    /// # Errors
    /// None.
    pub fn wait(word: &AtomicU32, value: u32, _time: Option<Duration>) -> Result<(), Errno> {
        let me = std::ptr::from_ref(word).addr();
        let mut sleepers = SLEEPERS.0.lock().expect("no model's thread panics here");
        if word.load(Ordering::SeqCst) != value {
            return Ok(());
        }
        sleepers.push(me);
        while sleepers.contains(&me) {
            sleepers = SLEEPERS.1.wait(sleepers).expect("no model's thread panics here");
        }
        Ok(())
    }

    /// As the kernel's.
    pub fn wake(word: &AtomicU32) {
        let it = std::ptr::from_ref(word).addr();
        SLEEPERS.0.lock().expect("no model's thread panics here").retain(|sleeper| *sleeper != it);
        SLEEPERS.1.notify_all();
    }
}
