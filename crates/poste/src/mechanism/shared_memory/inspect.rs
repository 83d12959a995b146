//! A look at mailboxes from outside: nothing is taken, nobody is disturbed.

use poste_sys::atomic::Ordering;

use super::folder;
use super::lane_file;
use super::mailbox::Mailbox;
use super::participants::Proof;
use crate::address::Address;
use crate::error::Error;
use crate::name::runtime;
use crate::object::{Detail, Holder, Listing, Object, State};
use crate::options::Options;
use crate::ring::layout::Part;
use crate::survey::{Survey, age_of_file, holder};

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

/// The mailboxes of this user.
pub(super) fn list(survey: &Survey) -> Listing {
    let mut listing = Listing::none();
    let part = match runtime::existing_part(folder::PART) {
        Ok(Some(part)) => part,
        Ok(None) => return listing,
        Err(error) => {
            listing.miss(error.to_string());
            return listing;
        }
    };
    for entry in std::fs::read_dir(part).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
        let Ok(address) = Address::new("shm", name) else { continue };
        let mut object = Object::new("shm", address);
        let mode = rustix::fs::stat(entry.path().join(folder::HEADER)).ok();
        object.mode = mode.map(|stat| stat.st_mode & 0o777);
        object.age = age_of_file(&entry.path().join(folder::HEADER));
        survey.owned(&mut object, rustix::process::geteuid().as_raw());
        match inspect(&object.address) {
            Ok(inspection) => inspection.describe(&mut object),
            Err(error) => listing.miss(error.to_string()),
        }
        listing.objects.push(object);
    }
    listing
}

impl Inspection {
    /// Fills in what an object shows.
    fn describe(&self, object: &mut Object) {
        let sum = |of: fn(&Lane) -> u64| self.lanes.iter().map(of).sum::<u64>();
        let senders = self.lanes.iter().filter_map(|lane| lane.sender.as_ref());
        let all = senders.map(|one| (one, "send"));
        let all: Vec<_> = all.chain(self.receivers.iter().map(|one| (one, "receive"))).collect();
        let living = all.iter().filter(|(one, _)| !one.dead);
        let mut holders: Vec<_> = living.map(|(one, end)| one.holder(end)).collect();
        holders.sort();
        object.depth = Some(sum(|lane| lane.ready));
        object.capacity = self.capacity;
        object.message_size = u64::try_from(self.message_size).ok();
        object.alive = Some(!holders.is_empty());
        object.state = Some(if holders.is_empty() { State::Unused } else { State::Alive });
        let dead = (all.len() - holders.len()) as u64;
        object.holders = Some(holders);
        let mut say = |name, value| object.details.push((name, Detail::Number(value)));
        say("lanes", self.lanes.len() as u64);
        say("memory", sum(|lane| lane.bytes as u64));
        say("taken", sum(|lane| lane.taken));
        say("redelivered", sum(|lane| lane.redelivered));
        say("set_aside", self.aside as u64);
        say("dead", dead);
    }
}

impl Participant {
    fn holder(&self, end: &'static str) -> Holder {
        holder(self.pid, end)
    }
}
