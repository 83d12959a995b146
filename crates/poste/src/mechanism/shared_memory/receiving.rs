//! The receiving end of a mailbox: all its lanes.

mod ringing;
mod waiting;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use poste_sys::atomic::Ordering;
use rustix::event::PollFlags;

use super::bell::{self, Bell};
use super::drowsiness::Drowsiness;
use super::lane_file;
use super::mailbox::{Mailbox, no_room};
use super::participants::myself;
use super::sending::refuse_check;
use super::spinner::Spinner;
use super::taking::{Known, Seat, not_ours};
use super::traits;
use super::watcher::Watch;
use crate::capabilities::Peers;
use crate::error::{Error, Kind};
use crate::limits::{CLAIMED_MAX, LANE_STREAK, LEND_ABOVE};
use crate::mechanism::{
    Arrival, Linger, News, Opened, Opening, Pollable, RecvEnd, Settle, Settler,
};
use crate::ring::layout::{Part, Place, Word, participant};
use crate::wait::{Halt, Wait};

pub(super) fn open(opening: &Opening<'_>) -> Result<Opened<dyn RecvEnd>, Error> {
    refuse_check(opening.options)?;
    let mailbox = Mailbox::open(opening.address, opening.options)?;
    let traits = traits(&mailbox);
    let place = mailbox.attach_receiver()?;
    let end = Box::new(Receiving {
        raw: opening.options.is_raw(),
        lanes: Vec::new(),
        epoch: None,
        beside: Vec::new(),
        turn: 0,
        streak: 0,
        batch: 0,
        claimed: VecDeque::new(),
        current: 0,
        body: Vec::new(),
        lent: None,
        spinner: Spinner::new(opening.options.spin),
        drowsiness: Drowsiness::new(&mailbox, place),
        watch: None,
        bell: None,
        is_rung: false,
        was_busy: false,
        parked: None,
        is_lingering: false,
        recovered: Instant::now(),
        seat: Arc::new(Seat { mailbox, place }),
    });
    Ok(Opened { end, traits, address: opening.address.clone() })
}

struct Receiving {
    /// It takes raw messages too.
    raw: bool,
    seat: Arc<Seat>,
    lanes: Vec<Known>,
    /// As of which change of the table the lanes are known.
    epoch: Option<u64>,
    /// The other receivers as of then: their places, and the states of those.
    beside: Vec<(usize, u64)>,
    /// The lane to look at first.
    turn: usize,
    /// How many messages in a row that lane has had.
    streak: u32,
    /// How many messages the next `recv` may claim at once, with the one that it hands out.
    batch: usize,
    /// Messages that are claimed and not handed out yet: they go before everything else. While there
    /// are any the lanes stay as they are.
    claimed: VecDeque<Run>,
    /// The lane of the message taken last, which stays there until the next is received.
    current: usize,
    /// The body of the message taken last, where it was copied.
    body: Vec<u8>,
    /// Where it lies, where it was not.
    lent: Option<Place>,
    spinner: Spinner,
    drowsiness: Drowsiness,
    watch: Option<Watch>,
    bell: Option<Bell>,
    /// It was rung here, and not silenced since.
    is_rung: bool,
    /// The last look found something: the next may be soon.
    was_busy: bool,
    /// Since when a caller that doesn't wait here waits elsewhere.
    parked: Option<Instant>,
    /// Its caller looks before it waits: the bell may be rung though nothing is left, as that look
    /// finds out. For others it is quiet as soon as the last message is taken.
    is_lingering: bool,
    /// When the dead were last seen to.
    recovered: Instant,
}

/// A message that was found: the index of its lane, its number, its word.
type Found = (usize, u64, Word);

/// Messages that were claimed: so many in a row of one lane, from this number on.
struct Run {
    lane: usize,
    number: u64,
    count: u64,
}

impl Receiving {
    /// Sees to it that the lanes are those of the table.
    #[inline]
    fn know_lanes(&mut self) -> Result<(), Error> {
        let epoch = self.seat.mailbox.epoch();
        if self.epoch == Some(epoch) {
            return Ok(());
        }
        self.look_at_table(epoch)
    }

    #[cold]
    fn look_at_table(&mut self, epoch: u64) -> Result<(), Error> {
        let mailbox = &self.seat.mailbox;
        if mailbox.is_removed() {
            return Err(Error::new(Kind::Removed, ""));
        }
        let mut lanes: Vec<Known> = Vec::new();
        for (place, part) in mailbox.parts() {
            if !matches!(part, Part::Sender | Part::Orphan) {
                continue;
            }
            let number = lane_file::number_of(mailbox, place);
            let known = self.lanes.iter().position(|known| {
                (known.taking.file.place, known.taking.file.number) == (place, number)
            });
            let mut known = match known {
                Some(index) => self.lanes.swap_remove(index),
                None => match lane_file::open(mailbox, place) {
                    Ok(file) => Known::new(file, &self.seat),
                    Err(error) if error.is_want() => {
                        lanes.append(&mut self.lanes);
                        (self.lanes, self.epoch) = (lanes, None);
                        return Err(error);
                    }
                    // It is gone by now, or broken: the next change tells.
                    Err(_) => continue,
                },
            };
            known.orphan = part == Part::Orphan;
            lanes.push(known);
        }
        self.lanes = lanes;
        self.turn = self.turn.min(self.lanes.len().saturating_sub(1));
        self.epoch = Some(epoch);
        self.watch_receivers();
        Ok(())
    }

    /// Where other processes receive too, this one is told of their deaths however seldom it sleeps:
    /// what they had comes again at once, and no look costs more for it.
    fn watch_receivers(&mut self) {
        let mailbox = &self.seat.mailbox;
        let state = |place| mailbox.field(place, participant::STATE).load(Ordering::Relaxed);
        let receivers = mailbox.parts().filter(|(_, part)| *part == Part::Receiver);
        let beside: Vec<(usize, u64)> = receivers
            .filter(|(place, _)| *place != self.seat.place)
            .map(|(place, _)| (place, state(place)))
            .collect();
        if beside == self.beside {
            return;
        }
        self.beside = beside;
        let me = myself().pid;
        if self.beside.iter().all(|(place, _)| mailbox.owner(*place).pid == me) {
            return;
        }
        let watch = match &mut self.watch {
            Some(watch) => watch,
            None => match Watch::new(mailbox, self.seat.place) {
                Ok(watch) => self.watch.insert(watch),
                // Who sleeps says so; who only looks sees to the dead itself.
                Err(_) => return,
            },
        };
        watch.receivers(mailbox);
    }

    /// The most urgent message that is ready, of all lanes; not taken yet.
    #[inline]
    fn find(&mut self) -> Result<Option<Found>, Error> {
        self.know_lanes()?;
        self.find_in_known()
    }

    /// As [`Receiving::find`], in the lanes as they are known: their indices stay what they are.
    #[inline(always)]
    fn find_in_known(&mut self) -> Result<Option<Found>, Error> {
        let mut urgent = 0;
        for known in &mut self.lanes {
            known.urgent = known.reader.urgent();
            urgent |= known.urgent;
        }
        // Whatever a peer writes there: 31 priorities above 0.
        let mut left = urgent & 0xffff_fffe;
        while left != 0 {
            let priority = 63 - left.leading_zeros();
            left &= !(1 << priority);
            let may = |known: &Known| known.urgent & (1 << priority) != 0;
            if let Some(found) = self.find_priority(priority as u8, may)? {
                return Ok(Some(found));
            }
        }
        self.find_priority(0, |_| true)
    }

    #[inline]
    fn find_priority(
        &mut self,
        priority: u8,
        may: impl Fn(&Known) -> bool,
    ) -> Result<Option<Found>, Error> {
        let count = self.lanes.len();
        for step in 0..count {
            let mut index = self.turn + step;
            if index >= count {
                index -= count;
            }
            let known = &mut self.lanes[index];
            if known.broken || !may(known) {
                continue;
            }
            match known.reader.find(priority) {
                Ok(None) => {}
                Ok(Some((number, word))) => return Ok(Some((index, number, word))),
                Err(fault) => {
                    known.broken = true;
                    return Err(Error::new(Kind::Corrupt, fault));
                }
            }
        }
        Ok(None)
    }

    /// Takes the next message, if one is ready.
    #[inline(always)]
    fn take(&mut self) -> Result<Option<Found>, Error> {
        let receiver = self.seat.place as u16;
        while let Some(found) = self.find()? {
            let (index, number, word) = found;
            let known = &self.lanes[index];
            // The body's line travels from the sender's processor while the descriptor is claimed.
            let file = &known.taking.file;
            file.bodies.soon(file.lane.place(number).offset);
            if known.reader.lane().take(number, word, receiver) {
                self.pass_turn(index);
                if self.batch > 1 {
                    self.claim_more(word.priority(), self.batch - 1);
                }
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// After a message of a lane was taken: that one is looked at first again, where the next one
    /// likely is, but not for ever. A sender that never lets its lane run dry must not keep away what
    /// others sent, or what comes again.
    #[inline(always)]
    fn pass_turn(&mut self, index: usize) {
        let is_same = self.turn == index;
        self.streak = if is_same { self.streak + 1 } else { 0 };
        self.turn = index;
        if self.streak >= LANE_STREAK {
            (self.turn, self.streak) = (index + 1, 0);
        }
    }

    /// Claims further messages of the priority that is the most urgent now: of each lane its share,
    /// each lane in one pass.
    #[cold]
    fn claim_more(&mut self, priority: u8, most: usize) {
        let receiver = self.seat.place as u16;
        let (count, mut left) = (self.lanes.len(), most);
        for step in 0..count {
            let lane = (self.turn + step) % count;
            let known = &mut self.lanes[lane];
            if known.broken || left == 0 {
                continue;
            }
            let (claimed, file) = (&mut self.claimed, &known.taking.file);
            let share = left.div_ceil(count - step);
            let taken = |number| {
                file.bodies.soon(file.lane.place(number).offset);
                left -= 1;
                match claimed.back_mut() {
                    Some(run) if (run.lane, run.number + run.count) == (lane, number) => {
                        run.count += 1;
                    }
                    _ => claimed.push_back(Run { lane, number, count: 1 }),
                }
            };
            // A lane that can't be read shows so when it is looked at next.
            let _ = known.reader.claim(priority, receiver, share, taken);
        }
    }

    /// The next of what was claimed before.
    #[inline]
    fn next_claimed(&mut self) -> Option<Result<Found, Error>> {
        let run = self.claimed.front_mut()?;
        let (lane, number) = (run.lane, run.number);
        run.number += 1;
        run.count -= 1;
        if run.count == 0 {
            self.claimed.pop_front();
        }
        let word = self.lanes[lane].reader.lane().look(number);
        let ours = word.filter(|word| word.is_taken_by(self.seat.place as u16));
        Some(ours.map(|word| (lane, number, word)).ok_or_else(not_ours))
    }

    /// Fills in what was taken.
    #[inline(always)]
    fn deliver(&mut self, found: Found, arrival: &mut Arrival) -> Result<(), Error> {
        let (lane, number, word) = found;
        self.current = lane;
        let taking = &self.lanes[lane].taking;
        let file = &taking.file;
        let place = file.lane.place(number);
        (arrival.sequence, arrival.sender) = file.lane.origin(number);
        self.body.clear();
        self.lent = None;
        let is_there = if place.size <= LEND_ABOVE {
            file.bodies.copy_out(place.offset, place.size, &mut self.body)
        } else {
            self.lent = Some(place);
            file.bodies.slice(place.offset, place.size).is_some()
        };
        if !is_there || (word.is_raw() && !self.raw) {
            // It is no message; that it is done is all that can be said of it.
            let _ = taking.settle(number, Settle::Done);
            self.lent = None;
            let detail = match is_there {
                true => "the message was sent raw",
                false => "a message's body lies outside of its lane",
            };
            return Err(Error::new(Kind::Corrupt, detail)
                .with_hint("receive raw messages raw (--raw, Options::raw)"));
        }
        arrival.news = News::Piece;
        arrival.token = number;
        arrival.size = place.size;
        arrival.priority = Some(u16::from(word.priority()));
        arrival.deliveries = u32::from(word.deliveries());
        Ok(())
    }
}

impl RecvEnd for Receiving {
    #[inline]
    fn recv(&mut self, arrival: &mut Arrival, wait: Wait) -> Result<(), Error> {
        self.seat.mailbox.check_life()?;
        arrival.reset();
        let found = match self.next_claimed() {
            Some(found) => found,
            None => {
                let found = match self.take() {
                    Ok(None) => self.wait(wait),
                    found => found,
                };
                found.and_then(|found| found.ok_or_else(|| Halt::Later.receiving(wait)))
            }
        };
        let done = found.and_then(|found| self.deliver(found, arrival));
        self.batch = 0;
        self.was_busy = done.is_ok();
        if self.bell.is_none() && done.is_ok() {
            self.drowsiness.took(&self.seat.mailbox, self.seat.place);
        }
        if let Some(since) = self.parked.take_if(|_| done.is_ok()) {
            self.spinner.slept(Some(since));
        }
        if self.bell.is_some() {
            if done.is_ok() && (self.is_lingering || !self.is_empty()) {
                self.keep_bell();
            } else {
                self.arm_bell();
            }
        }
        done
    }

    fn linger(&mut self) -> Linger {
        self.is_lingering = true;
        if !self.was_busy {
            return Linger::Over;
        }
        if !self.is_empty() {
            self.spinner.found();
            return Linger::Found;
        }
        let beside = self.is_beside();
        if self.spinner.step(beside) {
            return Linger::Again;
        }
        self.was_busy = false;
        self.parked = self.spinner.falls_asleep();
        Linger::Over
    }

    #[inline]
    fn bytes(&self, arrival: &Arrival) -> &[u8] {
        match &self.lent {
            None => &self.body[..arrival.size.min(self.body.len())],
            Some(place) => {
                let bodies = &self.lanes[self.current].taking.file.bodies;
                bodies.slice(place.offset, place.size).unwrap_or(&[])
            }
        }
    }

    #[inline]
    fn settler(&self) -> Option<Arc<dyn Settler>> {
        let taking = &self.lanes.get(self.current)?.taking;
        Some(Arc::clone(taking) as Arc<dyn Settler>)
    }

    #[inline]
    fn settle(&mut self, token: u64, how: Settle) -> Result<(), Error> {
        self.lanes[self.current].taking.settle(token, how)
    }

    fn pollable(&mut self) -> Result<Pollable<'_>, Error> {
        self.seat.mailbox.check_life()?;
        let seat = Arc::clone(&self.seat);
        let watch = match &mut self.watch {
            Some(watch) => watch,
            None => self.watch.insert(Watch::new(&seat.mailbox, seat.place)?),
        };
        watch.everybody(&seat.mailbox);
        if self.claimed.is_empty() {
            // Nothing is lent now, so the lanes may change. What goes wrong the next receive says.
            let _ = self.know_lanes();
        }
        if self.bell.is_none() {
            let made = bell::hang_up(&seat.mailbox, seat.place);
            self.bell = Some(made.map_err(no_room)?);
            seat.mailbox.field(seat.place, participant::BELL).store(1, Ordering::SeqCst);
            self.arm_bell();
        } else if std::mem::take(&mut self.is_lingering) && self.is_empty() {
            self.arm_bell();
        }
        match &self.bell {
            Some(bell) => Ok(Pollable { descriptor: bell.descriptor(), events: PollFlags::IN }),
            None => unreachable!("it was just made"),
        }
    }

    fn batch(&mut self, messages: usize) {
        self.batch = messages.min(CLAIMED_MAX);
    }

    fn peers(&self) -> Peers {
        self.seat.mailbox.peers(Part::Sender)
    }
}
