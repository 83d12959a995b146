//! The bells of a mailbox: one for each participant whose descriptor is asked for.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;

use super::folder::unlink;
use super::mailbox::Mailbox;
use crate::error::is_want;
use crate::mechanism::bell;
pub(crate) use crate::mechanism::bell::Bell;

/// The bells of others that one handle has rung, kept open: opening and closing cost more than the
/// ringing. They hold as long as the table of participants stays as it is.
#[derive(Debug, Default)]
pub(crate) struct Bells(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    epoch: u64,
    bells: Vec<(usize, OwnedFd)>,
}

fn name(place: usize) -> String {
    format!("bell.{place}")
}

/// Takes the bell of a place away; one that isn't there is fine.
pub(crate) fn remove(mailbox: &Mailbox, place: usize) {
    unlink(mailbox, &name(place));
}

/// Rings the bell of a place: whether it could; else this process has no descriptor left for it. One
/// that isn't there belongs to nobody any more.
pub(crate) fn ring(mailbox: &Mailbox, place: usize) -> bool {
    // A panic of another thread leaves the list whole.
    let mut open = mailbox.bells.0.lock().unwrap_or_else(PoisonError::into_inner);
    // Read after the place was chosen: whoever has it now came before it announced itself.
    let epoch = mailbox.epoch();
    if open.epoch != epoch {
        *open = Open { epoch, bells: Vec::new() };
    }
    match open.bells.iter().find(|(known, _)| *known == place) {
        Some((_, fifo)) => bell::ring_open(fifo),
        None => match bell::open(mailbox.folder(), &name(place)) {
            Ok(fifo) => {
                bell::ring_open(&fifo);
                open.bells.push((place, fifo));
            }
            Err(errno) => return !is_want(errno),
        },
    }
    true
}

/// Hangs up the bell of a place.
pub(crate) fn hang_up(mailbox: &Mailbox, place: usize) -> Result<Bell, Errno> {
    remove(mailbox, place);
    Bell::hang_up(mailbox.folder(), &name(place))
}
