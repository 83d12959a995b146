//! Looking again for a while before sleeping, as long as that pays.
//!
//! Waking a processor that has halted costs 50 µs and more, looking again for 20 µs costs 20; but
//! only where the other side runs meanwhile. So: not where it ran last on this processor; no longer
//! than [`SPIN_TIME`]; and where it was in vain, less and less often. A yield now and then lets the
//! other side run where both share a processor after all; one that takes long shows that others
//! want the processor, and then sleeping is better.

use std::time::Instant;

use crate::error::Error;
use crate::limits::{SPIN_SKIP_MAX, SPIN_TIME, YIELD_EVERY, YIELD_LONG};
use crate::options::Spin;
use crate::wait::Wait;

/// The processor that this runs on, plus 1, as a lane's word says it; 0 where that can't be told.
pub(super) fn here() -> u64 {
    poste_sys::cpu::current().map_or(0, |here| u64::from(here) + 1)
}

/// What one end has learned about looking again.
#[derive(Debug)]
pub(crate) struct Spinner {
    mode: Spin,
    /// How often in a row it was in vain.
    misses: u32,
    /// So many waits go to sleep at once.
    skip: u32,
    /// Since when it looks again step by step, and how many steps it has made.
    stepping: Option<(Instant, u32)>,
}

impl Spinner {
    pub(crate) fn new(mode: Spin) -> Spinner {
        Spinner { mode, misses: 0, skip: 0, stepping: None }
    }

    /// Looks again and again as long as it pays; `None`: sleep. `beside` says whether the other side
    /// ran last on this processor.
    pub(crate) fn spin<T>(
        &mut self,
        wait: Wait,
        beside: impl Fn() -> bool,
        mut look: impl FnMut() -> Result<Option<T>, Error>,
    ) -> Result<Option<T>, Error> {
        match self.mode {
            Spin::Never => return Ok(None),
            Spin::Always => return always(wait, look),
            Spin::WhileItPays if self.skip > 0 => {
                self.skip -= 1;
                return Ok(None);
            }
            Spin::WhileItPays if beside() => return Ok(None),
            Spin::WhileItPays => {}
        }
        let start = Instant::now();
        let mut now = start;
        while now.duration_since(start) < SPIN_TIME {
            for _ in 0..YIELD_EVERY {
                if let Some(found) = look()? {
                    self.misses = 0;
                    return Ok(Some(found));
                }
                poste_sys::atomic::pause();
            }
            let before = Instant::now();
            std::thread::yield_now();
            now = Instant::now();
            if now.duration_since(before) > YIELD_LONG {
                self.skip = SPIN_SKIP_MAX;
                return look();
            }
        }
        self.missed();
        Ok(None)
    }

    fn missed(&mut self) {
        self.misses = (self.misses + 1).min(SPIN_SKIP_MAX.ilog2());
        self.skip = (1 << self.misses) - 1;
    }

    /// As [`Spinner::spin`] for one who looks by itself, and has other things to do in between:
    /// whether to look once more. Where the other side ran last on this processor it is let run.
    pub(crate) fn step(&mut self, beside: bool) -> bool {
        let (start, steps) = match (self.mode, self.stepping) {
            (Spin::Never, _) => return false,
            (_, Some(stepping)) => stepping,
            (Spin::WhileItPays, None) if self.skip > 0 => {
                self.skip -= 1;
                return false;
            }
            (_, None) => (Instant::now(), 0),
        };
        self.stepping = Some((start, steps.wrapping_add(1)));
        if beside || steps % YIELD_EVERY == YIELD_EVERY - 1 {
            std::thread::yield_now();
            if self.mode == Spin::WhileItPays && steps > 0 && start.elapsed() > SPIN_TIME {
                self.stepping = None;
                self.missed();
                return false;
            }
        }
        true
    }

    /// Looking again step by step has found something.
    pub(crate) fn found(&mut self) {
        if self.stepping.take().is_some() {
            self.misses = 0;
        }
    }

    /// The time, if that of a sleep which begins now is of interest.
    pub(crate) fn falls_asleep(&self) -> Option<Instant> {
        (self.skip > 0).then(Instant::now)
    }

    /// Takes note of since when it slept: a sleep not longer than waking up takes would have been
    /// spared by looking again.
    pub(crate) fn slept(&mut self, since: Option<Instant>) {
        if since.is_some_and(|since| since.elapsed() < SPIN_TIME * 4) {
            self.skip /= 2;
        }
    }
}

/// Looks until the wait is over.
fn always<T>(
    wait: Wait,
    mut look: impl FnMut() -> Result<Option<T>, Error>,
) -> Result<Option<T>, Error> {
    loop {
        for _ in 0..YIELD_EVERY * 8 {
            if let Some(found) = look()? {
                return Ok(Some(found));
            }
            poste_sys::atomic::pause();
        }
        if wait.left().is_some_and(|left| left.is_zero()) {
            return Ok(None);
        }
        std::thread::yield_now();
    }
}
