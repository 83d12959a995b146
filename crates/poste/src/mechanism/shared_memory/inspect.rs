//! A look at mailboxes from outside: nothing is taken, nobody is disturbed; and whom of their
//! participants the kernel proves dead.

use std::path::PathBuf;

use poste_sys::atomic::Ordering;
use poste_sys::mapping::HUGE_PAGE;

use super::folder;
use super::lane_file::{self, LaneFile};
use super::mailbox::Mailbox;
use super::participants::{Proof, Whose};
use crate::address::Address;
use crate::error::{Error, Kind};
use crate::name::runtime;
use crate::object::{Detail, Listing, Object, State};
use crate::options::Options;
use crate::ring::layout::{Part, State as Step, header};
use crate::ring::wake::Set;
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
    /// The size of the pages that the bodies of its lanes lie on, in bytes, where those are huge.
    pub huge_pages: Option<usize>,
    /// The senders, each with its lane.
    pub lanes: Vec<Lane>,
    /// The receivers.
    pub receivers: Vec<Participant>,
    /// How often messages came again, those of lanes that are gone too.
    pub redelivered: u64,
    /// How many messages were set aside.
    pub aside: usize,
    /// The mailbox's folder, where the files of those lie: `aside.*`.
    pub folder: PathBuf,
}

/// Who takes part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Participant {
    /// Its process, as it said itself.
    pub pid: u32,
    /// It is proved dead and not buried yet.
    pub dead: bool,
    /// It sleeps, or its descriptor is polled: a receiver until a message comes, a sender until
    /// there is room.
    pub waits: bool,
    /// The messages that a receiver has and did not end.
    pub taken: u64,
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
    /// The size of the messages that wait, in bytes.
    pub bytes: u64,
    /// The size of its bodies' memory, in bytes.
    pub memory: usize,
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
        huge_pages: terms.huge_pages.then_some(HUGE_PAGE),
        lanes: Vec::new(),
        receivers: Vec::new(),
        redelivered: mailbox.header().word(header::REDELIVERED).load(Ordering::Relaxed),
        aside: mailbox.files("aside."),
        folder: folder::path(address)?,
    };
    let mut receivers = Vec::new();
    let mut files = Vec::new();
    for (place, part) in mailbox.parts() {
        if part == Part::Receiver {
            let header = mailbox.header();
            let waits = Set::Asleep.holds(header, place) || Set::Armed.holds(header, place);
            receivers.push((place, participant(&mailbox, place, waits)));
            continue;
        }
        // One that can't be opened is being made, or taken away.
        let Ok(file) = lane_file::open(&mailbox, place) else { continue };
        let waits = file.lane.wanted().load(Ordering::Relaxed) != 0;
        let sender = (part == Part::Sender).then(|| participant(&mailbox, place, waits));
        inspection.lanes.push(Lane { sender, ..measure(&file, terms.message_size) });
        files.push(file);
    }
    for (place, mut receiver) in receivers {
        let has = |file: &LaneFile| file.lane.taken_by(place as u16).len() as u64;
        receiver.taken = files.iter().map(has).sum();
        inspection.receivers.push(receiver);
    }
    Ok(inspection)
}

fn participant(mailbox: &Mailbox, place: usize, waits: bool) -> Participant {
    let dead = mailbox.is_dead(place, Proof::Process);
    Participant { pid: mailbox.owner(place).pid, dead, waits: waits && !dead, taken: 0 }
}

/// What lies in a lane.
fn measure(file: &LaneFile, message_size: usize) -> Lane {
    let lane = &file.lane;
    let (ready, taken) = lane.depth();
    let is_ready =
        |number: &u64| lane.look(*number).is_some_and(|word| word.state() == Step::Ready);
    // Another message may lie there by now; no size is more than a message's.
    let size = |number| lane.place(number).size.min(message_size) as u64;
    Lane {
        sender: None,
        ready,
        taken,
        redelivered: lane.redelivered().load(Ordering::Relaxed),
        bytes: lane.published().filter(is_ready).map(size).sum(),
        memory: file.bodies.backed(),
    }
}

/// The mailboxes that have dead participants, each with a proof for each of them.
///
/// # Errors
/// `Permission` where the runtime directory can't be trusted.
pub(crate) fn dead() -> Result<Vec<(Address, String)>, Error> {
    let mut dead = Vec::new();
    for address in addresses()? {
        // Of one that can't be looked at nothing is proved.
        let Ok(seen) = inspect(&address) else { continue };
        let senders = seen.lanes.iter().filter_map(|lane| lane.sender.as_ref());
        let senders = senders.map(|one| (one, "sent to it"));
        let receivers = seen.receivers.iter().map(|one| (one, "received from it"));
        for (one, what) in senders.chain(receivers).filter(|(one, _)| one.dead) {
            let mut proof = format!("process {}, which {what}, is gone", one.pid);
            if one.taken > 0 {
                proof += &format!("; the {} messages that it had come again", one.taken);
            }
            dead.push((address.clone(), proof));
        }
    }
    Ok(dead)
}

/// Buries the dead participants of a mailbox, where it is still there.
///
/// # Errors
/// As [`inspect`], but for `NotFound`.
pub(crate) fn bury(address: &Address) -> Result<(), Error> {
    match Mailbox::open(address, &Options::new()) {
        Ok(mailbox) => {
            mailbox.recover(Whose::All, Proof::Process);
            Ok(())
        }
        Err(error) if error.is(&Kind::NotFound) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The addresses of this user's mailboxes.
fn addresses() -> Result<Vec<Address>, Error> {
    let Some(part) = runtime::existing_part(folder::PART)? else { return Ok(Vec::new()) };
    let entries = std::fs::read_dir(part).into_iter().flatten().flatten();
    let address = |entry: std::fs::DirEntry| {
        let name = entry.file_name();
        let name = name.to_str().filter(|name| !name.starts_with('.'))?;
        Address::new("shm", name).ok()
    };
    Ok(entries.filter_map(address).collect())
}

/// The mailboxes of this user.
pub(super) fn list(survey: &Survey) -> Listing {
    let mut listing = Listing::none();
    let addresses = match addresses() {
        Ok(addresses) => addresses,
        Err(error) => {
            listing.miss(error.to_string());
            return listing;
        }
    };
    for address in addresses {
        let Ok(header) = folder::path(&address).map(|path| path.join(folder::HEADER)) else {
            continue;
        };
        let mut object = Object::new("shm", address);
        let mode = rustix::fs::stat(&header).ok();
        object.mode = mode.map(|stat| stat.st_mode & 0o777);
        object.age = age_of_file(&header);
        survey.owned(&mut object, rustix::process::geteuid().as_raw());
        match inspect(&object.address) {
            Ok(inspection) => inspection.describe(&mut object),
            Err(error) if error.is(&Kind::NotFound) => continue,
            Err(error) => listing.miss(error.on("look at", &object.address).to_string()),
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
        let count =
            |is: fn(&Participant) -> bool| all.iter().filter(|(one, _)| is(one)).count() as u64;
        let living = all.iter().filter(|(one, _)| !one.dead);
        let mut holders: Vec<_> = living.map(|(one, end)| holder(one.pid, end)).collect();
        holders.sort();
        object.depth = Some(sum(|lane| lane.ready));
        object.capacity = self.capacity;
        object.bytes = Some(sum(|lane| lane.bytes));
        object.message_size = u64::try_from(self.message_size).ok();
        object.alive = Some(!holders.is_empty());
        object.state = Some(if holders.is_empty() { State::Unused } else { State::Alive });
        object.holders = Some(holders);
        let mut say = |name, value| object.details.push((name, Detail::Number(value)));
        say("taken", sum(|lane| lane.taken));
        say("redelivered", self.redelivered);
        say("set_aside", self.aside as u64);
        if let Some(deliveries) = self.deliveries {
            say("deliveries", u64::from(deliveries));
        }
        if let Some(size) = self.huge_pages {
            say("huge_pages", size as u64);
        }
        say("waiting", count(|one| one.waits));
        say("dead", count(|one| one.dead));
        say("memory", sum(|lane| lane.memory as u64));
        if self.aside > 0 {
            let folder = self.folder.display().to_string();
            object.details.push(("set_aside_in", Detail::Text(folder)));
        }
        let lanes = self.lanes.iter().map(Lane::row).collect();
        object.details.push(("lanes", Detail::Rows(lanes)));
        let receivers = self.receivers.iter().map(Participant::row).collect();
        object.details.push(("receivers", Detail::Rows(receivers)));
    }
}

impl Lane {
    fn row(&self) -> Vec<(&'static str, Detail)> {
        let mut row = match &self.sender {
            Some(sender) => vec![
                ("sender", Detail::Number(sender.pid.into())),
                ("state", Detail::Text(sender.state().to_owned())),
            ],
            None => vec![("state", Detail::Text("sender gone".to_owned()))],
        };
        row.extend([
            ("depth", Detail::Number(self.ready)),
            ("bytes", Detail::Number(self.bytes)),
            ("taken", Detail::Number(self.taken)),
            ("redelivered", Detail::Number(self.redelivered)),
            ("memory", Detail::Number(self.memory as u64)),
        ]);
        row
    }
}

impl Participant {
    fn row(&self) -> Vec<(&'static str, Detail)> {
        vec![
            ("receiver", Detail::Number(self.pid.into())),
            ("state", Detail::Text(self.state().to_owned())),
            ("taken", Detail::Number(self.taken)),
        ]
    }

    fn state(&self) -> &'static str {
        match (self.dead, self.waits) {
            (true, _) => "dead",
            (_, true) => "waiting",
            _ => "alive",
        }
    }
}
