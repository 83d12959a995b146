//! Messages that were handed out too often: each goes into a file of its own, out of everybody's
//! way. Its name says which message it is, so that doing it twice leaves one.

use std::os::fd::AsFd;

use poste_sys::atomic::Ordering;
use poste_sys::lock::try_lock;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::folder::unlink;
use super::lane_file::LaneFile;
use super::mailbox::Mailbox;
use crate::ring::claim::Wanted;
use crate::ring::layout::header;

/// Gives back what a receiver has taken of a lane and not ended; the receiver is gone, or going.
pub(crate) fn take_back(mailbox: &Mailbox, file: &LaneFile, receiver: u16) {
    for number in file.lane.taken_by(receiver) {
        give_back(mailbox, file, number, receiver);
    }
    // Also where there was none: who began this before may have died before it said so.
    file.lane.rewind();
}

/// Gives one message back, or sets it aside where it was handed out as often as it may be: whether
/// it was the receiver's.
pub(crate) fn give_back(mailbox: &Mailbox, file: &LaneFile, number: u64, receiver: u16) -> bool {
    let limit = mailbox.terms().deliveries;
    let last = |deliveries: u8| limit.is_some_and(|limit| deliveries.saturating_add(1) >= limit);
    let word = file.lane.look(number);
    if word.is_some_and(|word| last(word.deliveries())) && set_aside(mailbox, file, number).is_ok()
    {
        let wanted = file.lane.finish(number, receiver);
        if wanted.is_some() {
            file.lane.count_aside();
        }
        if wanted == Some(Wanted::Yes) {
            mailbox.notify_sender(file.place);
        }
        return wanted.is_some();
    }
    let was_its = file.lane.give_back(number, receiver);
    if was_its {
        // Lanes come and go with their own counts; this one is for people.
        mailbox.header().word(header::REDELIVERED).fetch_add(1, Ordering::Relaxed);
    }
    was_its
}

/// Writes a message's body into its file. Where that fails the message comes again instead. Who is
/// killed meanwhile leaves a file with a dot before its name, which whoever does it again goes on
/// with: its lock is free.
fn set_aside(mailbox: &Mailbox, file: &LaneFile, number: u64) -> Result<(), Errno> {
    let place = file.lane.place(number);
    let body = file.bodies.slice(place.offset, place.size).ok_or(Errno::IO)?;
    let name = format!("aside.{}.{}.{number}", file.place, file.number);
    let half_made = format!(".{name}");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let to = rustix::fs::openat(mailbox.folder(), &half_made, flags, mode)?;
    try_lock(to.as_fd())?;
    // Who had the lock before may have finished it.
    let there = rustix::fs::statat(mailbox.folder(), &half_made, AtFlags::SYMLINK_NOFOLLOW)?;
    if there.st_ino != rustix::fs::fstat(&to)?.st_ino {
        return Err(Errno::AGAIN);
    }
    let done = rustix::fs::ftruncate(&to, 0)
        .and_then(|()| write_all(to.as_fd(), body))
        .and_then(|()| rustix::fs::renameat(mailbox.folder(), &half_made, mailbox.folder(), &name));
    if done.is_err() {
        unlink(mailbox, &half_made);
    }
    done
}

fn write_all(to: std::os::fd::BorrowedFd<'_>, mut body: &[u8]) -> Result<(), Errno> {
    while !body.is_empty() {
        match rustix::io::write(to, body) {
            Ok(count) => body = &body[count..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
