//! The atomics of shared memory: those of std, or loom's where a model is run
//! (`RUSTFLAGS="--cfg poste_loom"`), so that the models check the very code that ships.

#[cfg(poste_loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(poste_loom))]
pub use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Stores with release, and orders the store before every load that follows, as a fence would.
///
/// A swap is the cheapest full barrier where a store is due anyhow. loom models fences, and takes
/// sequentially consistent operations for weaker ones; so there it is a store and a fence.
#[inline]
pub fn store_fenced(word: &AtomicU64, value: u64) {
    #[cfg(not(poste_loom))]
    word.swap(value, Ordering::SeqCst);
    #[cfg(poste_loom)]
    word.store(value, Ordering::Release);
    fence_after_exchange();
}

/// Sets bits, with a full barrier after it.
#[inline]
pub fn set_fenced(word: &AtomicU64, bits: u64) {
    word.fetch_or(bits, Ordering::SeqCst);
    fence_after_exchange();
}

/// What lacks to a full barrier after a sequentially consistent exchange: nothing on x86, where each
/// is one; elsewhere what follows could be read before the exchange is to be seen.
#[inline]
pub fn fence_after_exchange() {
    if cfg!(poste_loom) || !cfg!(any(target_arch = "x86_64", target_arch = "x86")) {
        fence(Ordering::SeqCst);
    } else {
        std::sync::atomic::compiler_fence(Ordering::SeqCst);
    }
}

/// The cheap half of a barrier whose other half another thread makes for this one, by membarrier(2): it
/// only keeps the compiler from moving things across. A model has no such calls; there it is whole.
#[inline]
pub fn light_fence() {
    #[cfg(not(poste_loom))]
    std::sync::atomic::compiler_fence(Ordering::SeqCst);
    #[cfg(poste_loom)]
    fence(Ordering::SeqCst);
}

/// One turn of a loop that spins.
#[inline]
pub fn pause() {
    #[cfg(poste_loom)]
    loom::thread::yield_now();
    #[cfg(not(poste_loom))]
    std::hint::spin_loop();
}

/// Exchanges a value for another if it stands there, with a full barrier after it: whether it stood.
#[inline]
pub fn exchange_fenced(word: &AtomicU64, current: u64, new: u64) -> bool {
    let done = word.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst).is_ok();
    fence_after_exchange();
    done
}
