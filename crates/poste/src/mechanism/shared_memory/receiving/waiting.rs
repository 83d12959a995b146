//! Waiting for a message: looking again while that pays, then sleeping; and who sees to the dead.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use poste_sys::atomic::Ordering;

use super::{Found, Receiving};
use crate::error::Error;
use crate::limits::RECOVER_EVERY;
use crate::mechanism::shared_memory::participants::{Proof, Whose};
use crate::mechanism::shared_memory::spinner::{Spinner, here};
use crate::mechanism::shared_memory::taking::Seat;
use crate::mechanism::shared_memory::watcher::Watch;
use crate::options::Spin;
use crate::ring::wake::{self, Set};
use crate::wait::Wait;

/// So many looks in vain, some milliseconds of them, are worth a look at the clock.
const LOOKS: u32 = 1 << 16;

impl Receiving {
    /// Takes the next message, waiting for it; `None` when the wait is over.
    #[cold]
    pub(super) fn wait(&mut self, wait: Wait) -> Result<Option<Found>, Error> {
        let wait = wait.begin();
        self.free_orphans();
        if wait == Wait::Not {
            return self.look_for_dead();
        }
        let seat = Arc::clone(&self.seat);
        let mut spinner = std::mem::replace(&mut self.spinner, Spinner::new(Spin::Never));
        let last = self.lanes.get(self.turn);
        let last = last.map(|known| known.reader.lane().processor().load(Ordering::Relaxed));
        let mut looks = 0_u32;
        // Who spins for ever is never told to look after the dead.
        let look = || {
            looks = looks.wrapping_add(1);
            match self.take()? {
                None if looks % LOOKS == 0 => self.look_for_dead(),
                found => Ok(found),
            }
        };
        let done = match spinner.spin(wait, || last == Some(here()), look) {
            Ok(None) => {
                let since = spinner.falls_asleep();
                let slept = self.sleep(&seat, wait);
                spinner.slept(since);
                slept
            }
            done => done,
        };
        self.spinner = spinner;
        done
    }

    /// Sleeps until there is a message to take.
    pub(super) fn sleep(&mut self, seat: &Seat, wait: Wait) -> Result<Option<Found>, Error> {
        let (mailbox, place) = (&seat.mailbox, seat.place);
        let header = mailbox.header();
        self.drowsiness.begin(mailbox, place);
        loop {
            let epoch = mailbox.epoch();
            let watch = match &mut self.watch {
                Some(watch) => watch,
                None => self.watch.insert(Watch::new(mailbox, place)?),
            };
            let mut vigil = watch.vigil(mailbox);
            let mut sleeps = false;
            let slept = wait.sleep(wake::word(header, place), vigil.slice(), || {
                // Who was chosen is announced no more, and what it was chosen for is mostly there.
                if std::mem::replace(&mut sleeps, true) && !Set::Asleep.holds(header, place) {
                    if let Some(found) = self.take()? {
                        return Ok(Some(ControlFlow::Break(found)));
                    }
                }
                // Announced before each look: who chose this one has taken the announcement away.
                Set::Asleep.enter(header, place);
                if let Some(proof) = vigil.is_due() {
                    mailbox.look_after(place, proof)?;
                    self.epoch = None;
                }
                match self.take()? {
                    Some(found) => Ok(Some(ControlFlow::Break(found))),
                    // Who came meanwhile is to be watched too.
                    None if mailbox.epoch() != epoch => Ok(Some(ControlFlow::Continue(()))),
                    None => Ok(None),
                }
            });
            let chosen = !(Set::Asleep.holds(header, place) && Set::Asleep.leave(header, place));
            let is_over = || wait.left().is_some_and(|left| left.is_zero());
            let done = match slept {
                // However often the table changes, the wait ends when it is over.
                Ok(Some(ControlFlow::Continue(()))) if !is_over() => continue,
                Ok(Some(ControlFlow::Break(found))) => Ok(Some(found)),
                // Also when its time is over, who was chosen takes what it was chosen for.
                Ok(_) if chosen => self.take(),
                Ok(_) => return Ok(None),
                Err(error) => Err(error),
            };
            // Who was chosen and leaves more behind than it takes passes it on. What was found is known
            // by its lane's index, which must stay.
            let passes_on = match &done {
                Ok(Some(_)) => self.find_in_known().is_ok_and(|more| more.is_some()),
                Ok(None) => false,
                Err(_) => chosen,
            };
            if passes_on {
                mailbox.notify();
            }
            return done;
        }
    }

    /// Frees the lanes of senders that are gone, where all is done.
    pub(super) fn free_orphans(&mut self) {
        for known in &self.lanes {
            if known.orphan && known.reader.lane().is_drained() {
                self.seat.mailbox.free_orphan(&known.taking.file);
            }
        }
    }

    /// Who never sleeps sees itself to those of whom no watcher tells, now and then.
    pub(super) fn look_for_dead(&mut self) -> Result<Option<Found>, Error> {
        if self.recovered.elapsed() < RECOVER_EVERY {
            return Ok(None);
        }
        self.recovered = Instant::now();
        match self.seat.mailbox.recover(Whose::Others(self.seat.place), Proof::Lock) {
            0 => Ok(None),
            _ => self.take(),
        }
    }
}
