//! The sending end of a mailbox: its lane.

use poste_sys::atomic::{Ordering, fence};
use rustix::event::PollFlags;

use super::barrier;
use super::bell::{self, Bell};
use super::lane_file::{self, LaneFile};
use super::mailbox::{Mailbox, no_room};
use super::spinner::{Spinner, here};
use super::traits;
use super::watcher::Watch;
use crate::capabilities::Peers;
use crate::error::{Error, Kind};
use crate::limits::{HELD_MAX, PRIORITY_MAX};
use crate::mechanism::{Frame, Opened, Opening, Pollable, SendEnd};
use crate::options::Options;
use crate::ring::layout::{Part, Place, participant};
use crate::ring::producer::{self, Obstacle, Producer};
use crate::ring::wake;
use crate::wait::{Halt, Wait};

pub(super) fn open(opening: &Opening<'_>) -> Result<Opened<dyn SendEnd>, Error> {
    refuse_check(opening.options)?;
    let mailbox = Mailbox::open(opening.address, opening.options)?;
    let traits = traits(&mailbox);
    let end = Box::new(Sending::new(mailbox, opening.options)?);
    Ok(Opened { end, traits, address: opening.address.clone() })
}

/// There are no envelopes to carry a check of the body.
pub(super) fn refuse_check(options: &Options) -> Result<(), Error> {
    if options.check {
        return Err(Error::new(Kind::NotSupported, "what lies in shared memory is on no wire")
            .with_hint("leave out check"));
    }
    Ok(())
}

struct Sending {
    mailbox: Mailbox,
    place: usize,
    /// The number of its lane, as its file's name has it.
    lane_number: u64,
    producer: Producer,
    /// How far the lane may grow, in bytes of bodies.
    size_max: usize,
    /// What that is a multiple of.
    page: usize,
    /// Its capacity was asked for: it grows until it holds as many.
    sized: bool,
    /// Its messages are marked as raw.
    raw: bool,
    spinner: Spinner,
    watch: Option<Watch>,
    bell: Option<Bell>,
    /// It was rung here, and not silenced since.
    is_rung: bool,
    /// The size for which there was no room last.
    refused: usize,
    /// How often it has published.
    published: u32,
    /// This process takes part in the barriers of others, and need make none itself.
    takes_part: bool,
}

/// Where it runs a sender says once in so many times, and asks what it may leave out; asking costs as
/// much as sending.
const PROCESSOR_EVERY: u32 = 16;

impl Sending {
    fn new(mailbox: Mailbox, options: &Options) -> Result<Sending, Error> {
        barrier::take_part();
        let (place, file) = mailbox.attach_sender()?;
        let LaneFile { lane, bodies, number: lane_number, .. } = file;
        let terms = mailbox.terms();
        let capacity = terms.capacity.unwrap_or(lane.slots());
        let producer = Producer::resume(lane, bodies, capacity)
            .map_err(|fault| Error::new(Kind::Corrupt, fault))?;
        Ok(Sending {
            size_max: lane_file::bodies_max(&mailbox),
            page: lane_file::page(&mailbox),
            sized: terms.capacity.is_some(),
            mailbox,
            place,
            lane_number,
            producer,
            raw: options.is_raw(),
            spinner: Spinner::new(options.spin),
            watch: None,
            bell: None,
            is_rung: false,
            refused: 0,
            published: 0,
            takes_part: false,
        })
    }

    /// Room for a body, waited for: its offset.
    #[inline]
    fn room(&mut self, size: usize, wait: Wait) -> Result<usize, Error> {
        self.mailbox.check_life()?;
        if self.mailbox.is_removed() {
            return Err(Error::new(Kind::Removed, ""));
        }
        match self.producer.room_for(size) {
            Ok(offset) => Ok(offset),
            Err(obstacle) => self.wait_for_room(size, obstacle, wait),
        }
    }

    #[cold]
    fn wait_for_room(
        &mut self,
        size: usize,
        mut obstacle: Obstacle,
        wait: Wait,
    ) -> Result<usize, Error> {
        let wait = wait.begin();
        // What is held back can't be taken, so it would never make room.
        self.publish();
        let mut looks = 0;
        loop {
            if let Obstacle::Bodies(need) = obstacle {
                self.grow(need)?;
            }
            match self.producer.room_for(size) {
                Ok(offset) => return Ok(offset),
                Err(again) => obstacle = again,
            }
            // Whatever a peer makes the words say, it is over when the wait is.
            let is_over = looks > 0 && wait.left().is_some_and(|left| left.is_zero());
            if is_over || !self.wait_once(obstacle, wait)? {
                self.refused = size;
                self.show_room();
                return Err(Halt::Later.sending(wait));
            }
            looks += 1;
            if self.mailbox.is_removed() {
                return Err(Error::new(Kind::Removed, ""));
            }
            if !self.mailbox.is_lane_of(self.place, self.lane_number) {
                return Err(Error::new(Kind::Corrupt, "somebody took this sender's place away"));
            }
        }
    }

    /// Makes the lane larger where a message needs it, or where the capacity was asked for.
    fn grow(&mut self, need: usize) -> Result<(), Error> {
        let size = self.producer.size();
        let wish = if need * 4 > size {
            need * 4
        } else if self.sized {
            size * 2
        } else {
            return Ok(());
        };
        let wish = wish.next_multiple_of(self.page).min(self.size_max);
        if wish <= size {
            return Ok(());
        }
        match self.producer.grow(wish) {
            // It goes as well when others are done.
            Err(_) if need <= size => {}
            done => done.map_err(|errno| lane_file::no_memory(&self.mailbox, errno))?,
        }
        Ok(())
    }

    /// Waits until something changes that may make room: whether it did within the wait.
    fn wait_once(&mut self, obstacle: Obstacle, wait: Wait) -> Result<bool, Error> {
        let Some(number) = self.producer.to_wait_for(obstacle) else { return Ok(true) };
        if wait == Wait::Not {
            return Ok(false);
        }
        let (mailbox, producer) = (&self.mailbox, &self.producer);
        let near = producer.to_look_for(number);
        // Also who spins for ever sees that the mailbox is taken away.
        let since = mailbox.epoch();
        let came = || Ok((producer.came(near) || mailbox.epoch() != since).then_some(()));
        let spun = self.spinner.spin(wait, || false, came)?;
        if spun.is_some() {
            return Ok(true);
        }
        let watch = match &mut self.watch {
            Some(watch) => watch,
            None => self.watch.insert(Watch::new(&self.mailbox, self.place)?),
        };
        let since = self.spinner.falls_asleep();
        let epoch = self.mailbox.epoch();
        let mut vigil = watch.vigil(&self.mailbox);
        let (mailbox, place) = (&self.mailbox, self.place);
        producer.want(number);
        let slept = wait.sleep(wake::word(mailbox.header(), place), vigil.slice(), || {
            if let Some(proof) = vigil.is_due() {
                mailbox.look_after(place, proof)?;
                producer.check().map_err(|fault| Error::new(Kind::Corrupt, fault))?;
            }
            // Who came meanwhile is to be watched too.
            let changed = mailbox.epoch() != epoch;
            Ok((changed || producer.came(number)).then_some(()))
        });
        producer.want_nothing();
        self.spinner.slept(since);
        Ok(slept?.is_some())
    }

    /// Writes the descriptor of a message whose body is in place.
    #[inline]
    fn write(&mut self, place: Place, frame: &Frame<'_>) {
        let priority = frame.priority.min(PRIORITY_MAX) as u8;
        let kind = producer::Kind { priority, raw: self.raw };
        self.producer.write(place, kind, frame.sequence, frame.sender);
        if !frame.more || self.producer.held() >= HELD_MAX {
            self.publish();
        }
    }

    /// Publishes what is held back, and wakes who waits for it.
    #[inline]
    fn publish(&mut self) {
        if self.producer.held() == 0 {
            return;
        }
        if self.published % PROCESSOR_EVERY == 0 {
            self.producer.lane().processor().store(here(), Ordering::Relaxed);
            self.takes_part = self.takes_part || barrier::takes_part();
        }
        self.published = self.published.wrapping_add(1);
        self.producer.publish();
        if !self.takes_part || !wake::is_everybody_awake(self.mailbox.header()) {
            fence(Ordering::SeqCst);
            self.mailbox.notify();
        }
    }

    /// Makes the bell say whether there is room for what was refused last.
    #[cold]
    fn show_room(&mut self) {
        let Some(bell) = &self.bell else { return };
        bell.silence();
        self.is_rung = match self.producer.room_for(self.refused) {
            Ok(_) => true,
            Err(obstacle) => self.producer.to_wait_for(obstacle).is_none_or(|number| {
                self.producer.want(number);
                self.producer.came(number)
            }),
        };
        if self.is_rung {
            bell.ring();
        }
    }
}

impl SendEnd for Sending {
    #[inline]
    fn send(&mut self, frame: &Frame<'_>, wait: Wait) -> Result<usize, Error> {
        let size = frame.body.len();
        let offset = self.room(size, wait)?;
        match self.producer.body(offset, size) {
            Some(body) => body.copy_from_slice(frame.body),
            None => {
                return Err(Error::new(Kind::Corrupt, "the lane's file is shorter than it was"));
            }
        }
        self.write(Place { offset, size }, frame);
        if !self.is_rung {
            if let Some(bell) = &self.bell {
                // That the room is used up is found out by the next one, which silences it.
                self.refused = size;
                bell.ring();
                self.is_rung = true;
            }
        }
        Ok(size)
    }

    fn pollable(&mut self) -> Result<Pollable<'_>, Error> {
        self.mailbox.check_life()?;
        if self.bell.is_none() {
            let made = bell::hang_up(&self.mailbox, self.place);
            self.bell = Some(made.map_err(no_room)?);
            self.mailbox.field(self.place, participant::BELL).store(1, Ordering::SeqCst);
            self.show_room();
        }
        let watch = match &mut self.watch {
            Some(watch) => watch,
            None => self.watch.insert(Watch::new(&self.mailbox, self.place)?),
        };
        watch.everybody(&self.mailbox);
        match &self.bell {
            Some(bell) => Ok(Pollable { descriptor: bell.descriptor(), events: PollFlags::IN }),
            None => unreachable!("it was just made"),
        }
    }

    fn flush(&mut self, _wait: Wait) -> Result<(), Error> {
        self.mailbox.check_life()?;
        self.publish();
        Ok(())
    }

    fn loan(&mut self, size: usize, wait: Wait) -> Result<(), Error> {
        let offset = self.room(size, wait)?;
        self.producer.lend(Place { offset, size });
        Ok(())
    }

    fn lent(&self) -> &[u8] {
        self.producer.lent()
    }

    fn lent_mut(&mut self) -> &mut [u8] {
        self.producer.lent_mut()
    }

    fn send_loan(&mut self, size: usize, frame: &Frame<'_>) -> Result<(), Error> {
        self.mailbox.check_life()?;
        let Some(place) = self.producer.take_lent(size) else {
            return Err(Error::new(Kind::NotSupported, "nothing of that size was lent"));
        };
        self.write(place, frame);
        Ok(())
    }

    fn peers(&self) -> Peers {
        self.mailbox.peers(Part::Receiver)
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if self.mailbox.is_ours() {
            self.publish();
            let drained = self.producer.is_drained();
            self.mailbox.detach_sender(self.place, drained);
        }
    }
}
