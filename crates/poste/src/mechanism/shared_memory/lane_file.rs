//! A lane's file: made, gone on with, opened by receivers, taken away.
//!
//! A new one is built under another name, its bytes reserved, and renamed when it is whole. Its
//! number is in its name, so that a lane that took an old one's place is never mistaken for it.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use poste_sys::atomic::Ordering;
use poste_sys::mapping::{Access, HUGE_PAGE, Mapping, Pages, reserve};
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
    (mailbox.terms().message_size * 4).max(LANE_SIZE).next_multiple_of(page(mailbox))
}

/// What the places and sizes of bodies in a lane's file are multiples of.
pub(super) fn page(mailbox: &Mailbox) -> usize {
    if mailbox.terms().huge_pages { HUGE_PAGE } else { 4096 }
}

/// What the bodies of this mailbox's lanes lie on.
fn pages(mailbox: &Mailbox) -> Pages {
    if mailbox.terms().huge_pages { Pages::Huge } else { Pages::Small }
}

/// Where the bodies begin in a lane's file. Before huge pages there is a hole, which takes no memory.
fn bodies_at(mailbox: &Mailbox, slots: u64) -> usize {
    Lane::control_size(slots).next_multiple_of(page(mailbox))
}

/// Refuses huge pages where this file system, or this kernel, has none.
pub(super) fn try_huge_pages(folder: BorrowedFd<'_>) -> Result<(), Error> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let nameless = rustix::fs::openat(folder, ".", flags, Mode::RUSR | Mode::WUSR);
    nameless
        .and_then(|file| Mapping::on(Pages::Huge, file, 0, HUGE_PAGE, Access::Write))
        .and_then(|map| map.extend(HUGE_PAGE))
        .map_err(no_huge_pages)
}

/// The error of a lane's memory that could not be had.
pub(super) fn no_memory(mailbox: &Mailbox, errno: Errno) -> Error {
    match pages(mailbox) {
        Pages::Small => no_room(errno),
        Pages::Huge => no_huge_pages(errno),
    }
}

/// The error of huge pages that could not be had.
pub(crate) fn no_huge_pages(errno: Errno) -> Error {
    match errno {
        Errno::INVAL | Errno::OPNOTSUPP => {
            Error::system(errno, "the kernel makes no huge pages of this memory").with_hint(
                "it takes Linux 6.1, a runtime directory in memory (tmpfs), and not deny in \
                 /sys/kernel/mm/transparent_hugepage/shmem_enabled; or leave out huge-pages",
            )
        }
        Errno::NOMEM | Errno::AGAIN | Errno::BUSY => {
            Error::system(errno, "no huge page is free: 2 MiB of memory in one piece").with_hint(
                "free memory, put it together (as root: echo 1 > /proc/sys/vm/compact_memory), or \
                 leave out huge-pages",
            )
        }
        _ => no_room(errno),
    }
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
    let begin = bodies_at(mailbox, slots);
    let part = |pages, at, size| {
        let copy = rustix::io::fcntl_dupfd_cloexec(&file, 3)?;
        Mapping::on(pages, copy, at, size, Access::Write)
    };
    let reserved = match pages(mailbox) {
        Pages::Small => reserve(file.as_fd(), (control * 2).max(LANE_SIZE)),
        Pages::Huge => reserve(file.as_fd(), control)
            .and_then(|()| part(Pages::Huge, begin, HUGE_PAGE)?.extend(HUGE_PAGE)),
    };
    let made = reserved
        .and_then(|()| {
            let words = part(Pages::Small, 0, control)?;
            Lane::format(&words, slots, begin, mailbox.instance());
            let to = name(place, number);
            rustix::fs::renameat(mailbox.folder(), &half_made, mailbox.folder(), to)
        })
        .map_err(|errno| no_memory(mailbox, errno));
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
    // Whoever made it grow may have been killed before all of it lay there.
    file.bodies.settle().map_err(no_huge_pages)?;
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
    if !fits || says(lane::BODIES) != bodies_at(mailbox, slots) as u64 {
        return Err(corrupt("a lane's sizes don't fit together"));
    }
    let control = Lane::control_size(slots);
    let copy = rustix::io::fcntl_dupfd_cloexec(&file, 3).map_err(system)?;
    let words = Mapping::new(copy, 0, control, Access::Write).map_err(system)?;
    let begin = bodies_at(mailbox, slots);
    let bodies = Mapping::on(pages(mailbox), file, begin, bodies_max(mailbox), access);
    let bodies = bodies.map_err(system)?;
    let lane = Lane::over(words, slots).map_err(corrupt)?;
    Ok(LaneFile { lane: Arc::new(lane), bodies, number, place })
}

fn corrupt(detail: &'static str) -> Error {
    Error::new(Kind::Corrupt, detail).with_hint("remove it and make it anew: poste remove shm:NAME")
}
