//! Who takes part in a mailbox, who of them is dead, and what is done about it.
//!
//! A participant is a handle. It has a place in the table, and a lock on one byte of the header file
//! which dies with it. It is dead when that lock is free, or when its process is gone (a forked child
//! may keep the lock of its dead parent). Whoever changes what a place is holds that place's *door*,
//! another byte: so two never bury, or take over, the same one. Source: fcntl(2).

use std::sync::{Mutex, MutexGuard, PoisonError};

use poste_sys::atomic::{AtomicU64, Ordering};
use poste_sys::lock::{is_byte_locked, try_lock_byte, unlock_byte};

use super::lane_file::{self, LaneFile};
use super::mailbox::Mailbox;
use super::{aside, bell};
use crate::capabilities::Peers;
use crate::error::{Error, Kind};
use crate::name::owner::Owner;
use crate::ring::layout::{PARTICIPANTS, Part, header, participant, participant_at};
use crate::ring::wake::Set;

/// Where the bytes that are doors begin.
const DOORS: u32 = 4096;

/// What shows that a participant is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// Its lock is free: one system call.
    Lock,
    /// Its lock is free, or its process is gone: /proc is read.
    Process,
}

/// Of whom it is asked whether they are dead, which takes a system call each, or several.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Whose<'a> {
    /// Of everybody, by one that has no place.
    All,
    /// Of everybody but the caller, in its place: one's own lock never shows.
    Others(usize),
    /// Of these processes.
    Of(&'a [u64]),
}

impl Mailbox {
    pub(crate) fn field(&self, place: usize, field: usize) -> &AtomicU64 {
        self.header().word(participant_at(place) + field)
    }

    /// What a place of the table is. Acquire pairs with the release of who made it so.
    pub(crate) fn part(&self, place: usize) -> Part {
        Part::of(self.field(place, participant::STATE).load(Ordering::Acquire))
    }

    /// The places of the table that are in use.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (usize, Part)> {
        (0..PARTICIPANTS)
            .map(|place| (place, self.part(place)))
            .filter(|(_, part)| !matches!(part, Part::Free | Part::Unknown))
    }

    /// How many senders or receivers there are, or were.
    pub(crate) fn peers(&self, part: Part) -> Peers {
        let count = self.parts().filter(|(_, other)| *other == part).count();
        match (count, self.ever(part).load(Ordering::Relaxed)) {
            (0, 0) => Peers::NobodyYet,
            (0, _) => Peers::AllGone,
            (count, _) => Peers::Present(count),
        }
    }

    /// How many of them there were ever.
    fn ever(&self, part: Part) -> &AtomicU64 {
        let at = if part == Part::Sender { header::SENDERS } else { header::RECEIVERS };
        self.header().word(at)
    }

    /// Who has a place, as it said itself.
    pub(crate) fn owner(&self, place: usize) -> Owner {
        let says = |field| self.field(place, field).load(Ordering::Relaxed);
        Owner {
            pid: u32::try_from(says(participant::PROCESS)).unwrap_or(0),
            start: says(participant::START),
            boot: String::new(),
            namespace: says(participant::NAMESPACE),
        }
    }

    /// Makes a place another part, and lets everybody know. To be done behind its door.
    fn become_part(&self, place: usize, part: Part) {
        let state = self.field(place, participant::STATE);
        state.store(part.after(state.load(Ordering::Relaxed)), Ordering::Release);
        self.changed();
    }

    /// Behind the door of a place; it closes when the value is dropped, or its process is.
    fn door(&self, place: usize) -> Option<Door<'_>> {
        let mut held = self.doors().held();
        // The kernel lets one opening in twice; two threads may share it (the watcher's).
        if held[place / 64] & (1 << (place % 64)) != 0 {
            return None;
        }
        try_lock_byte(self.header().file(), DOORS + place as u32).ok()?;
        held[place / 64] |= 1 << (place % 64);
        Some(Door { mailbox: self, place })
    }

    /// Takes a place as a receiver.
    pub(crate) fn attach_receiver(&self) -> Result<usize, Error> {
        self.recover(Whose::All, Proof::Lock);
        self.attach(Part::Free, |place| self.take(place, Part::Receiver)).map(|(place, ())| place)
    }

    /// Takes a place as a sender, with its lane: an orphan's first, so that a row of short-lived
    /// senders has one lane between them.
    pub(crate) fn attach_sender(&self) -> Result<(usize, LaneFile), Error> {
        self.recover(Whose::All, Proof::Lock);
        let adopted = self.attach(Part::Orphan, |place| {
            let lane = lane_file::adopt(self, place)?;
            self.take(place, Part::Sender)?;
            Ok(lane)
        });
        match adopted {
            Err(error) if matches!(error.kind(), Kind::Limit { .. }) => {}
            done => return done,
        }
        self.attach(Part::Free, |place| {
            let lane = lane_file::make(self, place)?;
            self.take(place, Part::Sender)?;
            Ok(lane)
        })
    }

    /// Tries the places that are `from` one after the other, each behind its door and with its lock.
    fn attach<T>(
        &self,
        from: Part,
        take: impl Fn(usize) -> Result<T, Error>,
    ) -> Result<(usize, T), Error> {
        let mut broken = None;
        for place in 0..PARTICIPANTS {
            if self.part(place) != from {
                continue;
            }
            let Some(_door) = self.door(place) else { continue };
            // A forked child may still hold the lock of one that is long gone.
            let free = || try_lock_byte(self.header().file(), place as u32).is_ok();
            if self.part(place) != from || !free() {
                continue;
            }
            match take(place) {
                Ok(taken) => {
                    self.changed();
                    self.wake_all();
                    return Ok((place, taken));
                }
                Err(error) => {
                    self.unlock(place);
                    if !error.is(&Kind::Corrupt) {
                        return Err(error);
                    }
                    // A lane that can't be gone on with is left as it is.
                    broken = Some(error);
                }
            }
        }
        let raise_with = "close some of its senders and receivers".to_owned();
        let full = Kind::Limit {
            name: "senders and receivers of a mailbox",
            value: PARTICIPANTS as u64,
            raise_with,
        };
        Err(broken.unwrap_or_else(|| Error::new(full.clone(), "")).as_kind(full))
    }

    fn take(&self, place: usize, part: Part) -> Result<(), Error> {
        let me = myself();
        let set = |field, value| self.field(place, field).store(value, Ordering::Relaxed);
        set(participant::PROCESS, u64::from(me.pid));
        set(participant::START, me.start);
        set(participant::NAMESPACE, me.namespace);
        set(participant::PROCESSOR, 0);
        set(participant::BELL, 0);
        for of in [Set::Asleep, Set::Armed, Set::Drowsy] {
            of.leave(self.header(), place);
        }
        self.ever(part).fetch_add(1, Ordering::Relaxed);
        self.become_part(place, part);
        Ok(())
    }

    fn unlock(&self, place: usize) {
        // A lock that can't be given back is given back when the file is closed, soon.
        let _ = unlock_byte(self.header().file(), place as u32);
    }

    /// Gives a receiver's place back, with what it has not ended. What this process can't reach is
    /// left to who comes next, as of one that is dead.
    pub(crate) fn detach_receiver(&self, place: usize) {
        let _door = self.wait_for_door(place);
        let is_all = self.bury_receiver(place);
        self.wake_all();
        if is_all {
            self.become_part(place, Part::Free);
        }
        self.unlock(place);
    }

    /// Gives a sender's place back; its lane stays while something lies there.
    pub(crate) fn detach_sender(&self, place: usize, drained: bool) {
        let door = self.wait_for_door(place);
        self.field(place, participant::BELL).store(0, Ordering::Relaxed);
        bell::remove(self, place);
        match door {
            Some(_) if drained => self.free(place),
            // Files are taken away behind the door only; an orphan's is, by who comes next.
            _ => self.become_part(place, Part::Orphan),
        }
        self.unlock(place);
    }

    /// A door that another holds opens soon: whoever has it does a few steps, or dies.
    fn wait_for_door(&self, place: usize) -> Option<Door<'_>> {
        for _ in 0..1000 {
            if let Some(door) = self.door(place) {
                return Some(door);
            }
            std::thread::sleep(crate::limits::PAUSE_MIN);
        }
        None
    }

    /// Frees the lane of a sender that is gone, if all in it is done.
    pub(crate) fn free_orphan(&self, file: &LaneFile) {
        let place = file.place;
        let Some(_door) = self.door(place) else { return };
        // The place may have another lane by now.
        let is_it = lane_file::number_of(self, place) == file.number;
        if is_it && self.part(place) == Part::Orphan && file.lane.is_drained() {
            self.free(place);
        }
    }

    /// Makes a sender's or an orphan's place nobody's and takes its lane away. To be done behind its
    /// door. Whoever is killed between the two leaves litter that [`Mailbox::recover`] finds.
    fn free(&self, place: usize) {
        self.become_part(place, Part::Free);
        lane_file::unlink(self, place);
    }

    /// Whether the participant in a place is dead. One's own lock never shows: not to be asked of
    /// oneself.
    pub(crate) fn is_dead(&self, place: usize, proof: Proof) -> bool {
        match is_byte_locked(self.header().file(), place as u32) {
            Ok(false) => true,
            _ => proof == Proof::Process && self.owner(place).is_gone(),
        }
    }

    /// Whether one of those is dead and not buried.
    pub(crate) fn has_dead(&self, whose: Whose<'_>) -> bool {
        self.parts().any(|(place, part)| {
            matches!(part, Part::Sender | Part::Receiver)
                && self.is_of(place, whose)
                && self.is_dead(place, Proof::Process)
        })
    }

    fn is_of(&self, place: usize, whose: Whose<'_>) -> bool {
        match whose {
            Whose::All => true,
            Whose::Others(myself) => place != myself,
            Whose::Of(processes) => processes.contains(&u64::from(self.owner(place).pid)),
        }
    }

    /// Buries the dead: what a receiver had taken is ready again, a sender's lane is an orphan or, with
    /// nothing in it, gone. Takes away what was half done too. Says how many dead there were.
    pub(crate) fn recover(&self, whose: Whose<'_>, proof: Proof) -> usize {
        let mut count = 0;
        for place in 0..PARTICIPANTS {
            let part = self.part(place);
            let is_somebody = matches!(part, Part::Sender | Part::Receiver);
            if is_somebody && self.is_of(place, whose) && self.is_dead(place, proof) {
                count += usize::from(self.bury(place, part, proof));
            }
            if self.is_littered(place) {
                self.sweep(place);
            }
        }
        count
    }

    /// What a sleeper looks at by itself now and then, since nobody need tell it: a handle lost by
    /// exec(2) leaves its process alive, and a word that slipped may keep a wake-up away.
    ///
    /// # Errors
    /// `Removed` where the mailbox is gone, whatever its header says.
    pub(crate) fn look_after(&self, myself: usize, proof: Proof) -> Result<(), Error> {
        self.recover(Whose::Others(myself), proof);
        self.check_files()
    }

    /// Whether a place is a sender's with this lane.
    pub(crate) fn is_lane_of(&self, place: usize, number: u64) -> bool {
        self.part(place) == Part::Sender && lane_file::number_of(self, place) == number
    }

    /// Whether files of a lane may lie there though the place has none.
    fn is_littered(&self, place: usize) -> bool {
        lane_file::has_litter(self, place)
            && !matches!(self.part(place), Part::Sender | Part::Orphan)
    }

    /// Takes such files away, unless somebody is about to make a lane there.
    fn sweep(&self, place: usize) {
        let Some(_door) = self.door(place) else { return };
        if self.is_littered(place) {
            lane_file::unlink(self, place);
        }
    }

    /// Buries the one in a place, if it still is that one and nobody else does. Everybody is woken
    /// before the place changes, which alone says that there is something to do: whoever is killed
    /// before that leaves it to the next, and whoever is killed after has woken them.
    fn bury(&self, place: usize, part: Part, proof: Proof) -> bool {
        let Some(_door) = self.door(place) else { return false };
        if self.part(place) != part || !self.is_dead(place, proof) {
            return false;
        }
        if part == Part::Receiver {
            let is_all = self.bury_receiver(place);
            self.wake_all();
            if is_all {
                self.become_part(place, Part::Free);
            }
            return true;
        }
        bell::remove(self, place);
        // It may have chosen a sleeper, and not woken it.
        self.wake_all();
        self.become_part(place, Part::Orphan);
        if lane_file::open(self, place).is_ok_and(|file| file.lane.is_drained()) {
            self.free(place);
        }
        true
    }

    /// Undoes what a receiver that is gone, or going, has begun: whether all of it, else this process
    /// has no descriptor or memory left to reach a lane, and it is to be done again.
    fn bury_receiver(&self, place: usize) -> bool {
        let mut is_all = true;
        for of in [Set::Asleep, Set::Armed, Set::Drowsy] {
            of.leave(self.header(), place);
        }
        for (lane_place, part) in self.parts() {
            if !matches!(part, Part::Sender | Part::Orphan) {
                continue;
            }
            match lane_file::open(self, lane_place) {
                Ok(file) => {
                    aside::take_back(self, &file, place as u16);
                    if part == Part::Orphan {
                        self.free_orphan(&file);
                    }
                }
                Err(error) if error.is_want() => is_all = false,
                // Nobody could have taken a message from it.
                Err(_) => {}
            }
        }
        bell::remove(self, place);
        is_all
    }
}

/// A place's door, held.
struct Door<'a> {
    mailbox: &'a Mailbox,
    place: usize,
}

impl Drop for Door<'_> {
    fn drop(&mut self) {
        let mut held = self.mailbox.doors().held();
        // It opens at the latest when the file is closed.
        let _ = unlock_byte(self.mailbox.header().file(), DOORS + self.place as u32);
        held[self.place / 64] &= !(1 << (self.place % 64));
    }
}

/// The doors that are held through one opening of a mailbox: one bit for each place.
#[derive(Debug, Default)]
pub(super) struct Doors(Mutex<[u64; PARTICIPANTS / 64]>);

impl Doors {
    fn held(&self) -> MutexGuard<'_, [u64; PARTICIPANTS / 64]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// This process, looked up once in its life.
pub(crate) fn myself() -> Owner {
    static MYSELF: Mutex<Option<(u64, Owner)>> = Mutex::new(None);
    let life = poste_sys::fork::life();
    let mut known = MYSELF.lock().unwrap_or_else(PoisonError::into_inner);
    match &*known {
        Some((of, owner)) if *of == life => owner.clone(),
        _ => known.insert((life, Owner::myself())).1.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;
    use crate::mechanism::shared_memory::folder;
    use crate::options::Options;

    /// One opening's locks don't exclude its own threads: the watcher's is used by two at once, and
    /// each buried the same dead sender, the second one on top of a new sender.
    #[test]
    fn a_door_is_held_once_also_by_two_threads_of_one_opening() {
        let name = format!("shm:test-doors-{}", std::process::id());
        let address = Address::parse(&name).unwrap();
        let mailbox = Mailbox::open(&address, &Options::new().create()).unwrap();
        let door = mailbox.door(200).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(mailbox.door(200).is_none()));
        });
        assert!(mailbox.reopen().unwrap().door(200).is_none());
        assert!(mailbox.door(201).is_some());
        drop(door);
        assert!(mailbox.door(200).is_some());
        folder::remove(&address).unwrap();
    }
}
