//! Which life of the process this is: a forked child has another than its parent, and finds out
//! without a system call, from a word that the kernel wipes on fork.
//!
//! Source: madvise(2), MADV_WIPEONFORK (Linux 4.14).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The lives counted in this process and its ancestors.
static LIVES: AtomicU64 = AtomicU64::new(0);

/// The word that is wiped.
static WORD: OnceLock<Option<&'static AtomicU64>> = OnceLock::new();

/// The number of this life: the same as long as no fork lies between. Where the kernel can't wipe a
/// word it is the process's number.
#[must_use]
#[inline]
pub fn life() -> u64 {
    let Some(word) = WORD.get_or_init(page) else {
        return u64::from(std::process::id());
    };
    match word.load(Ordering::Acquire) {
        0 => begin(word),
        life => life,
    }
}

/// A life, remembered: cheaper to compare with than [`life`].
#[derive(Clone, Copy, Debug)]
pub struct Life {
    word: Option<&'static AtomicU64>,
    life: u64,
}

impl Life {
    /// This one.
    #[must_use]
    pub fn this() -> Life {
        let life = life();
        Life { word: WORD.get().copied().flatten(), life }
    }

    /// Whether it is still the same.
    #[must_use]
    #[inline]
    pub fn lasts(&self) -> bool {
        match self.word {
            Some(word) => word.load(Ordering::Relaxed) == self.life,
            None => life() == self.life,
        }
    }
}

/// Two threads may begin at once: the first one's number holds.
#[cold]
fn begin(word: &AtomicU64) -> u64 {
    let life = LIVES.fetch_add(1, Ordering::Relaxed) + 1;
    match word.compare_exchange(0, life, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => life,
        Err(life) => life,
    }
}

fn page() -> Option<&'static AtomicU64> {
    let size = rustix::param::page_size();
    // SAFETY: a new private mapping at an address of the kernel's choice touches no memory of ours.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the advice concerns the page just mapped, which nobody knows of yet.
    if unsafe { libc::madvise(start, size, libc::MADV_WIPEONFORK) } != 0 {
        return None;
    }
    // SAFETY: the page is aligned, zeroed, never unmapped, and only ever reached as this atomic.
    Some(unsafe { &*start.cast::<AtomicU64>() })
}

#[cfg(test)]
mod tests {
    /// In a process of its own: only one with no other threads may fork.
    #[test]
    fn a_forked_child_has_another_life() {
        const ALONE: &str = "POSTE_SYS_FORKS";
        if std::env::var_os(ALONE).is_none() {
            let name = "fork::tests::a_forked_child_has_another_life";
            let mut again = std::process::Command::new(std::env::current_exe().unwrap());
            again.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(ALONE, "1");
            let done = again.output().unwrap();
            let said = String::from_utf8_lossy(&done.stdout);
            assert!(done.status.success() && said.contains("1 passed"), "{done:?}");
            return;
        }
        let (life, number) = (super::Life::this(), super::life());
        let in_child = || {
            let (other, lasts) = (super::life(), life.lasts());
            let own = super::Life::this();
            // A grandchild's is another again.
            let nested = crate::testing::in_a_forked_child(|| i32::from(own.lasts()));
            i32::from(lasts || other == number || !own.lasts() || nested != 0)
        };
        assert_eq!(crate::testing::in_a_forked_child(in_child), 0);
        assert!(life.lasts() && super::life() == number, "the parent's goes on");
    }

    #[test]
    fn a_life_lasts() {
        assert_ne!(super::life(), 0);
        assert_eq!(super::life(), super::life());
    }
}
