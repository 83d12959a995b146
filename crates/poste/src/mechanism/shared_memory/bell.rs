//! The bells of a mailbox: one for each participant whose descriptor is asked for.

use rustix::io::Errno;

use super::folder::unlink;
use super::mailbox::Mailbox;
pub(crate) use crate::mechanism::bell::Bell;

fn name(place: usize) -> String {
    format!("bell.{place}")
}

/// Takes the bell of a place away; one that isn't there is fine.
pub(crate) fn remove(mailbox: &Mailbox, place: usize) {
    unlink(mailbox, &name(place));
}

/// Rings the bell of a place. One that isn't there belongs to nobody any more.
pub(crate) fn ring(mailbox: &Mailbox, place: usize) {
    let _ = crate::mechanism::bell::ring(mailbox.folder(), &name(place));
}

/// Hangs up the bell of a place.
pub(crate) fn hang_up(mailbox: &Mailbox, place: usize) -> Result<Bell, Errno> {
    remove(mailbox, place);
    Bell::hang_up(mailbox.folder(), &name(place))
}
