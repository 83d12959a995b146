//! A look at a mailbox from outside: nothing is taken, nobody is disturbed.

use super::lane_file;
use super::mailbox::{Mailbox, Proof};
use crate::address::Address;
use crate::error::Error;
use crate::options::Options;
use crate::ring::layout::Part;
use poste_sys::atomic::Ordering;

/// What a mailbox is and holds, at one moment. The figures are read one after the other while others
/// work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The largest message, in bytes.
    pub message_size: usize,
    /// How many messages a lane holds; `None`: what it has room for.
    pub capacity: Option<u64>,
    /// The deliveries after which a message is set aside; `None`: it never is.
    pub deliveries: Option<u8>,
    /// The senders, each with its lane.
    pub lanes: Vec<Lane>,
    /// The receivers.
    pub receivers: Vec<Participant>,
    /// How many messages were set aside.
    pub aside: usize,
}

/// Who takes part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Participant {
    /// Its process, as it said itself.
    pub pid: u32,
    /// It is proved dead and not buried yet.
    pub dead: bool,
}

/// A lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Its sender; `None`: it is gone.
    pub sender: Option<Participant>,
    /// Messages that wait.
    pub ready: u64,
    /// Messages that receivers have and did not end.
    pub taken: u64,
    /// How often messages came again.
    pub redelivered: u64,
    /// The size of its bodies' memory, in bytes.
    pub bytes: usize,
}

/// Looks at a mailbox.
///
/// # Errors
/// `NotFound`; `Corrupt` and `Mismatch` where its files can't be used.
pub fn inspect(address: &Address) -> Result<Inspection, Error> {
    let mailbox = Mailbox::open(address, &Options::new())?;
    let terms = mailbox.terms();
    let mut inspection = Inspection {
        message_size: terms.message_size,
        capacity: terms.capacity,
        deliveries: terms.deliveries,
        lanes: Vec::new(),
        receivers: Vec::new(),
        aside: mailbox.files("aside."),
    };
    for (place, part) in mailbox.parts() {
        let participant = || Participant {
            pid: mailbox.owner(place).pid,
            dead: mailbox.is_dead(place, Proof::Process),
        };
        if part == Part::Receiver {
            inspection.receivers.push(participant());
            continue;
        }
        // One that can't be opened is being made, or taken away.
        let Ok(file) = lane_file::open(&mailbox, place) else { continue };
        let (ready, taken) = file.lane.depth();
        inspection.lanes.push(Lane {
            sender: (part == Part::Sender).then(participant),
            ready,
            taken,
            redelivered: file.lane.redelivered().load(Ordering::Relaxed),
            bytes: file.bodies.backed(),
        });
    }
    Ok(inspection)
}
