//! What was done and seen, over all trials; how long it may take, and where chance begins.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Counts, added up over the trials; nothing is published with them.
#[derive(Debug)]
pub(crate) struct Tally {
    steps: AtomicUsize,
    copies: AtomicUsize,
    kills: AtomicUsize,
    half_made: AtomicUsize,
    faults: AtomicUsize,
    /// How long it took after a kill until what the dead one had came to one that slept.
    times: Mutex<Vec<Duration>>,
}

/// What all trials have done together.
pub(crate) static ALL: Tally = Tally::new();

impl Tally {
    pub(crate) const fn new() -> Tally {
        Tally {
            steps: AtomicUsize::new(0),
            copies: AtomicUsize::new(0),
            kills: AtomicUsize::new(0),
            half_made: AtomicUsize::new(0),
            faults: AtomicUsize::new(0),
            times: Mutex::new(Vec::new()),
        }
    }

    /// Takes note of boundaries that were stepped over, and of copies that were checked.
    pub(crate) fn count(&self, steps: usize, copies: usize, half_made: usize) {
        self.steps.fetch_add(steps, Relaxed);
        self.copies.fetch_add(copies, Relaxed);
        self.half_made.fetch_max(half_made, Relaxed);
    }

    pub(crate) fn count_kills(&self, kills: usize) {
        self.kills.fetch_add(kills, Relaxed);
    }

    pub(crate) fn count_fault(&self) {
        self.faults.fetch_add(1, Relaxed);
    }

    pub(crate) fn note_time(&self, time: Duration) {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).push(time);
    }

    pub(crate) fn print(&self) {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.sort();
        if let (Some(half), Some(most)) =
            (times.get(times.len() / 2), times.get(times.len() * 99 / 100))
        {
            println!(
                "sweep: {} times what a dead one had came to one that slept, within {half:.1?} (half \
                 of them) and {most:.1?} (99 of 100)",
                times.len()
            );
        }
        let says = |count: &AtomicUsize| count.load(Relaxed);
        println!(
            "sweep: {} boundaries stepped, {} copies checked, {} kills, {} faults; at most {} \
             half-made files at a time",
            says(&self.steps),
            says(&self.copies),
            says(&self.kills),
            says(&self.faults),
            says(&self.half_made),
        );
    }
}

/// Whether the full forms are asked for.
pub(crate) fn is_long() -> bool {
    static LONG: OnceLock<bool> = OnceLock::new();
    let asked = || std::env::var_os("POSTE_LONG").is_some_and(|v| !v.is_empty() && v != "0");
    *LONG.get_or_init(asked)
}

/// Where all random choices of this run begin.
pub(crate) fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| match std::env::var("POSTE_SEED") {
        Ok(text) => text.parse().expect("POSTE_SEED is a whole number"),
        Err(_) => {
            let time = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
            time.as_nanos() as u64 % 1_000_000_007
        }
    })
}

/// Random numbers that repeat by their seed.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(name: &str) -> Dice {
        let add = |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte));
        Dice(name.bytes().fold(seed(), add) | 1)
    }

    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % sides
    }
}
