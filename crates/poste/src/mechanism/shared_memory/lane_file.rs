//! A lane's file: made, gone on with, opened by receivers, taken away.
//!
//! A new one is built under another name, its bytes reserved, and renamed when it is whole. Its
//! number is in its name, so that a lane that took an old one's place is never mistaken for it.

use std::os::fd::AsFd;
use std::sync::Arc;

use poste_sys::atomic::Ordering;
use poste_sys::mapping::{Access, Mapping, reserve};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::folder::unlink as unlink_file;
use super::mailbox::{Mailbox, no_room};
use crate::error::{Error, Kind};
use crate::limits::{LANE_DESCRIPTORS, LANE_SIZE, MAILBOX_CAPACITY_MAX};
use crate::ring::lane::Lane;
use crate::ring::layout::{LANE_MAGIC, lane, participant};

/// A lane, opened.
#[derive(Debug)]
pub(crate) struct LaneFile {
    pub(crate) lane: Arc<Lane>,
    pub(crate) bodies: Mapping,
    /// The lane's number, as its file's name has it.
    pub(crate) number: u64,
    /// The place of its sender.
    pub(crate) place: usize,
}

/// How many bytes of bodies a lane of this mailbox may come to.
pub(crate) fn bodies_max(mailbox: &Mailbox) -> usize {
    (mailbox.terms().message_size * 4).max(LANE_SIZE).next_multiple_of(4096)
}

/// How many descriptors a lane of this mailbox has.
fn slots(mailbox: &Mailbox) -> u64 {
    mailbox.terms().capacity.unwrap_or(LANE_DESCRIPTORS).next_power_of_two().max(16)
}

fn name(place: usize, number: u64) -> String {
    format!("lane.{place}.{number}")
}

fn half_made(place: usize) -> String {
    format!(".lane.{place}")
}

fn number(mailbox: &Mailbox, place: usize) -> u64 {
    mailbox.field(place, participant::LANE).load(Ordering::Acquire)
}

/// Makes a lane for a place that has none. To be done behind its door.
pub(crate) fn make(mailbox: &Mailbox, place: usize) -> Result<LaneFile, Error> {
    // Who had the place before may have been killed before it took its files away.
    if has_litter(mailbox, place) {
        unlink(mailbox, place);
    }
    let number = number(mailbox, place).wrapping_add(1);
    let half_made = half_made(place);
    // Before the first file is there: whoever is killed from here on leaves word of it.
    mailbox.field(place, participant::LITTER).store(1, Ordering::Release);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let file = rustix::fs::openat(mailbox.folder(), &half_made, flags, mode).map_err(no_room)?;
    let slots = slots(mailbox);
    let control = Lane::control_size(slots);
    let size = (control * 2).max(LANE_SIZE);
    let made = reserve(file.as_fd(), size)
        .and_then(|()| {
            let copy = rustix::io::fcntl_dupfd_cloexec(&file, 3)?;
            let map = Mapping::new(copy, 0, control, Access::Write)?;
            Lane::format(&map, slots, mailbox.instance());
            let to = name(place, number);
            rustix::fs::renameat(mailbox.folder(), &half_made, mailbox.folder(), to)
        })
        .map_err(no_room);
    if let Err(error) = made {
        unlink(mailbox, place);
        return Err(error);
    }
    // Release: who sees the number finds the file.
    mailbox.field(place, participant::LANE).store(number, Ordering::Release);
    map(mailbox, place, number, Access::Write)
}

/// Opens the lane of a place to go on sending in it. To be done behind its door.
pub(crate) fn adopt(mailbox: &Mailbox, place: usize) -> Result<LaneFile, Error> {
    let file = map(mailbox, place, number(mailbox, place), Access::Write)?;
    file.lane.check(file.bodies.backed()).map_err(corrupt)?;
    Ok(file)
}

/// Opens the lane of a place to receive from it.
pub(crate) fn open(mailbox: &Mailbox, place: usize) -> Result<LaneFile, Error> {
    map(mailbox, place, number(mailbox, place), Access::Read)
}

/// The number of the lane that a place has now.
pub(crate) fn number_of(mailbox: &Mailbox, place: usize) -> u64 {
    number(mailbox, place)
}

/// Whether files of a lane may lie there, for a place that is nobody's lane: whose maker or whose
/// last user was killed before it took them away.
pub(crate) fn has_litter(mailbox: &Mailbox, place: usize) -> bool {
    mailbox.field(place, participant::LITTER).load(Ordering::Acquire) != 0
}

/// Takes away what there is of a lane's files of a place that is nobody's lane any more. To be done
/// behind its door; may be cut short anywhere and done again. Who has the file open keeps it.
pub(crate) fn unlink(mailbox: &Mailbox, place: usize) {
    let number = number(mailbox, place);
    unlink_file(mailbox, &half_made(place));
    unlink_file(mailbox, &name(place, number));
    // It had its name already, and was not yet told of.
    unlink_file(mailbox, &name(place, number.wrapping_add(1)));
    mailbox.field(place, participant::LITTER).store(0, Ordering::Release);
}

fn map(mailbox: &Mailbox, place: usize, number: u64, access: Access) -> Result<LaneFile, Error> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let system = |errno: Errno| match errno {
        Errno::NOENT => corrupt("a lane's file is missing"),
        _ => Error::system(errno, "a lane's file"),
    };
    let file = rustix::fs::openat(mailbox.folder(), name(place, number), flags, Mode::empty())
        .map_err(system)?;
    let mut page = [0; 40];
    let read = rustix::io::pread(&file, &mut page, 0).map_err(system)?;
    let says = |at: usize| {
        page.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_ne_bytes)
    };
    if read < page.len() || says(lane::MAGIC) != LANE_MAGIC {
        return Err(corrupt("a lane's file is no lane"));
    }
    if [says(lane::INSTANCE), says(lane::INSTANCE + 8)] != mailbox.instance() {
        return Err(corrupt("a lane is another mailbox's"));
    }
    let slots = says(lane::SLOTS);
    let fits = slots.is_power_of_two() && slots <= MAILBOX_CAPACITY_MAX.next_power_of_two() as u64;
    if !fits || says(lane::BODIES) != Lane::control_size(slots) as u64 {
        return Err(corrupt("a lane's sizes don't fit together"));
    }
    let control = Lane::control_size(slots);
    let copy = rustix::io::fcntl_dupfd_cloexec(&file, 3).map_err(system)?;
    let words = Mapping::new(copy, 0, control, Access::Write).map_err(system)?;
    let bodies = Mapping::new(file, control, bodies_max(mailbox), access).map_err(system)?;
    let lane = Lane::over(words, slots).map_err(corrupt)?;
    Ok(LaneFile { lane: Arc::new(lane), bodies, number, place })
}

fn corrupt(detail: &'static str) -> Error {
    Error::new(Kind::Corrupt, detail).with_hint("remove it and make it anew: poste remove shm:NAME")
}
