//! Mailboxes in shared memory: the fastest channel, and the one that survives `kill -9`.
//!
//! A mailbox is a folder in the runtime directory: a header file, and a file for the lane of each
//! sender. What its bytes mean is in ring/; this folder makes the files, sleeps and wakes. Messages
//! are queued whoever dies; one that was taken and not ended comes again when its receiver is gone.
//! Priority, sequence and sender stand in the descriptor, so there is no envelope, and raw and
//! enveloped are the same. One thread for the process is started with the first sleeper (watcher.rs).
//!
//! Sources: mmap(2), futex(2), fcntl(2) on open file description locks, shm_overview(7).

use crate::capabilities::{Capabilities, Identity, Priorities, Redelivers, Unit};
use crate::limits::{LANE_DESCRIPTORS, PRIORITY_MAX};
use crate::mechanism::{EndTraits, Mechanism};

mod aside;
mod barrier;
mod bell;
mod drowsiness;
pub(crate) mod folder;
pub mod inspect;
mod lane_file;
mod mailbox;
mod participants;
mod receiving;
mod sending;
mod spinner;
mod taking;
mod waking;
mod watcher;

/// Shared memory.
pub static MECHANISM: Mechanism = Mechanism {
    scheme: "shm",
    title: "shared-memory mailbox",
    example: "shm:jobs",
    capabilities: Capabilities {
        raw_boundaries: true,
        raw_empty: true,
        pieces: false,
        many_receivers: true,
        priorities: Priorities::Native(PRIORITY_MAX),
        identity: Identity::Unknown,
        one_user: true,
        survives_its_users: true,
        capacity: Some(Unit::Messages),
        redelivers: Redelivers::Always,
        ..Capabilities::PLAIN
    },
    settings: &["capacity", "message-size", "mode", "spin", "deliveries", "huge-pages"],
    create: |opening| folder::create(opening.address, opening.options),
    open_sender: sending::open,
    open_receiver: receiving::open,
    remove: folder::remove,
    list: inspect::list,
    place: folder::place,
    limits: &["RLIMIT_NOFILE"],
};

/// What an end of a mailbox can do.
fn traits(mailbox: &mailbox::Mailbox) -> EndTraits {
    let terms = mailbox.terms();
    EndTraits {
        piece_size: terms.message_size,
        pieces: false,
        gather: 0,
        message_size: Some(terms.message_size),
        capacity: usize::try_from(terms.capacity.unwrap_or(LANE_DESCRIPTORS)).ok(),
        priority_max: PRIORITY_MAX,
        introduces: false,
        reliable: true,
        bare: true,
    }
}
