//! What the dead have left: found with its proof, and taken away under its own lock.
//!
//! Garbage is what poste made and a dead owner can't take away any more: sockets, locks, half-made
//! objects, bells, records of what is gone, permits of semaphores that are lost, and the places of a
//! mailbox's dead. Queues, FIFOs and mailboxes are none, whoever has died: they stay with their
//! messages. What other programs left is
//! none either: nothing proves that it is.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::address::Address;
use crate::error::{Error, Kind};
use crate::mechanism::shared_memory::{folder, inspect};
use crate::mechanism::{ALL, path, sysv_bell};
use crate::name::claim::{self, Object, Record, Seized};
use crate::name::registry::{self, Entry};
use crate::name::unix_diag;
use crate::objects;
use crate::permit::{self, LostPermit};
use crate::survey::Survey;

/// Something that a dead process of poste left.
#[derive(Debug)]
pub struct Garbage {
    /// What it is: an address, `semaphore:` and a name, or the path of a lock that says no more.
    pub address: String,
    /// Why nobody needs it any more, in words.
    pub proof: String,
    left: Left,
}

#[derive(Debug)]
enum Left {
    /// A claim, and the socket that its owner made.
    Claim(PathBuf),
    /// The record of an object that was being made, and as much of it as there is.
    Draft(Entry),
    /// The record of an object that is gone.
    Record(Entry),
    /// A bell that a receiver of a System V queue was to be woken by.
    Bell(sysv_bell::Left),
    /// The folder of a mailbox that was being made, or taken away.
    Folder(PathBuf),
    /// A permit of a semaphore, which its taker can't give back any more.
    Permit(LostPermit),
    /// A place among a mailbox's senders or receivers, and what that one had taken.
    Participant(Address),
}

/// What this user's dead have left behind. Nothing is taken away yet.
///
/// ```
/// # fn main() -> Result<(), poste::Error> {
/// for garbage in poste::garbage()? {
///     println!("{}: {}", garbage.address, garbage.proof);
/// }
/// # Ok(()) }
/// ```
///
/// # Errors
/// `Permission` where the runtime directory can't be trusted; what the system said.
pub fn garbage() -> Result<Vec<Garbage>, Error> {
    objects::check_proc()?;
    let mut garbage: Vec<_> = claim::all()?.into_iter().filter_map(of_claim).collect();
    garbage.extend(registry::all().into_iter().filter_map(of_draft));
    let gone = objects::look(&Survey::new(None), ALL).gone;
    garbage.extend(gone.into_iter().filter_map(of_record));
    garbage.extend(folder::litter()?.into_iter().map(of_folder));
    garbage.extend(permit::lost_permits()?.into_iter().map(of_permit));
    garbage.extend(sysv_bell::left().into_iter().map(of_bell));
    garbage.extend(inspect::dead()?.into_iter().map(of_participant));
    Ok(garbage)
}

impl Garbage {
    /// Takes it away, or gives it back if it is a permit, if it still is what it was; what came to
    /// life meanwhile stays.
    ///
    /// # Errors
    /// What the system said.
    pub fn take_away(self) -> Result<(), Error> {
        let done = match &self.left {
            Left::Claim(file) => take_claim(file),
            Left::Draft(entry) => take_draft(entry),
            // Somebody may have put a new record in its place: that one stays.
            Left::Record(entry) => path::take_away(&entry.path, entry.file, |_| Ok(())),
            Left::Bell(bell) => {
                bell.take_away();
                Ok(())
            }
            Left::Folder(folder) => folder::take_litter(folder),
            Left::Permit(permit) => match permit.give_back() {
                // Somebody else was faster.
                Err(error) if error.is(&Kind::NotFound) => Ok(()),
                done => done,
            },
            Left::Participant(mailbox) => inspect::bury(mailbox),
        };
        done.map_err(|error| error.on("take away", &self.address))
    }
}

/// Takes away the socket that this process made at an address, and nothing that has its place by
/// now: for a program that ends on a signal, where no end can be dropped any more. Says whether it
/// was there.
///
/// ```
/// # fn main() -> Result<(), poste::Error> {
/// # let path = std::env::temp_dir().join(format!("poste-doc-own-{}", std::process::id()));
/// # let address = format!("unix:{}", path.display());
/// let receiver = poste::Receiver::create(&address)?;
/// // A handler of SIGTERM, in a thread of its own:
/// assert!(poste::remove_own(receiver.address().to_string())?);
/// assert!(!poste::remove_own(receiver.address().to_string())?);
/// # Ok(()) }
/// ```
///
/// # Errors
/// `Invalid` for what is no address; what the system said.
pub fn remove_own(address: impl AsRef<str>) -> Result<bool, Error> {
    let on = |error: Error| error.on("remove", &address.as_ref());
    let address = Address::parse(address.as_ref()).map_err(on)?;
    take_own(&address).map_err(on)
}

fn take_own(address: &Address) -> Result<bool, Error> {
    let place = path::of(address)?;
    let Some((file, record)) = claim::own(&path::key(place)?)? else { return Ok(false) };
    if record.address != path::absolute_address(address, place)?.to_string() {
        return Ok(false);
    }
    let gone = |path: &Path| match rustix::fs::unlink(path) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(Error::system(errno, "")),
    };
    let was_there = stands(&record).map_or(Ok(false), |(place, _)| gone(&place))?;
    // The name first, as in giving it back.
    gone(&file)?;
    Ok(was_there)
}

fn of_claim(claim: claim::Standing) -> Option<Garbage> {
    let mut proof = claim.proof?;
    let address = match &claim.record {
        Some(record) if is_open(record) => return None,
        Some(record) => {
            proof += match stands(record) {
                Some(_) => ", and nobody has the socket open",
                None => "; only its lock is left",
            };
            record.address.clone()
        }
        None => claim.path.display().to_string(),
    };
    Some(Garbage { address, proof, left: Left::Claim(claim.path) })
}

/// Where a claim's address is in the file system.
fn place_of(record: &Record) -> Option<PathBuf> {
    let address = Address::parse(&record.address).ok()?;
    Some(PathBuf::from(OsStr::from_bytes(address.rest())))
}

/// The socket that the owner of a claim made, where it still stands.
fn stands(record: &Record) -> Option<(PathBuf, Object)> {
    let (place, object) = (place_of(record)?, record.object?);
    let stat = rustix::fs::lstat(&place).ok()?;
    let is_it = FileType::from_raw_mode(stat.st_mode) == FileType::Socket
        && path::is_still(&place, &stat, Some(object), record.born);
    is_it.then_some((place, object))
}

/// Whether somebody still has the socket: a child that its dead owner forked may serve it.
fn is_open(record: &Record) -> bool {
    let Some((place, object)) = stands(record) else { return false };
    // Where the kernel can't be asked it is nobody's to take.
    unix_diag::sockets()
        .map_or(true, |sockets| sockets.iter().any(|socket| socket.may_be_at(&place, object)))
}

/// Takes a claim away with what its owner made; nobody gets the name meanwhile.
fn take_claim(file: &Path) -> Result<(), Error> {
    let Some(mut seized) = Seized::new(file)? else { return Ok(()) };
    if let Some(record) = seized.record().cloned() {
        if is_open(&record) {
            return Ok(());
        }
        if let (Some(aside), Some(place), Some(object)) =
            (&record.aside, place_of(&record), record.object)
        {
            path::finish_aside(aside, &place, object)?;
        }
        if let Some((place, object)) = stands(&record) {
            path::take_away(&place, object, |aside| seized.note_aside(aside))?;
        }
    }
    seized.take_away()
}

fn of_draft(entry: Entry) -> Option<Garbage> {
    let owner = entry.maker.as_ref().filter(|owner| owner.is_gone())?;
    let mut proof = format!("process {}, which was making it, is gone", owner.pid);
    let address = match &entry.record {
        // It was made after all, but for its record.
        Some(record) if has_its_name(record) => return None,
        Some(record) => record.address.to_string(),
        None => entry.path.display().to_string(),
    };
    if half_of(&entry).is_none() {
        proof += "; only its record is left";
    }
    Some(Garbage { address, proof, left: Left::Draft(entry) })
}

fn has_its_name(record: &registry::Record) -> bool {
    let place = Path::new(OsStr::from_bytes(record.address.rest()));
    rustix::fs::lstat(place)
        .is_ok_and(|stat| path::is_still(place, &stat, record.object, record.born))
}

/// The half-made object of a draft, where there is one: under a name that only its maker knew.
fn half_of(entry: &Entry) -> Option<(PathBuf, Object)> {
    let record = entry.record.as_ref()?;
    let half = record.half.clone().filter(|half| path::is_hidden(half))?;
    let there = path::object(&rustix::fs::lstat(&half).ok()?);
    (record.object.is_none() || record.object == Some(there)).then_some((half, there))
}

fn take_draft(entry: &Entry) -> Result<(), Error> {
    if let Some((half, _)) = half_of(entry) {
        rustix::fs::unlink(half).map_err(|errno| Error::system(errno, ""))?;
    }
    path::take_away(&entry.path, entry.file, |_| Ok(()))
}

fn of_bell(bell: sysv_bell::Left) -> Garbage {
    let address = bell.path().display().to_string();
    Garbage { address, proof: bell.proof.clone(), left: Left::Bell(bell) }
}

fn of_folder(folder: PathBuf) -> Garbage {
    let proof =
        "a mailbox that was being made, or taken away; the lock of who did is free".to_owned();
    Garbage { address: folder.display().to_string(), proof, left: Left::Folder(folder) }
}

fn of_permit(permit: LostPermit) -> Garbage {
    // Semaphores have no addresses; this says what it is.
    let address = format!("semaphore:{}", permit.semaphore());
    Garbage { address, proof: permit.proof(), left: Left::Permit(permit) }
}

fn of_participant((mailbox, proof): (Address, String)) -> Garbage {
    Garbage { address: mailbox.to_string(), proof, left: Left::Participant(mailbox) }
}

fn of_record(entry: Entry) -> Option<Garbage> {
    if entry.maker.is_some() {
        // A draft is garbage only when its maker is dead.
        return None;
    }
    let address = entry.record.as_ref()?.address.to_string();
    let proof = "no such object is there any more; only its record is left".to_owned();
    Some(Garbage { address, proof, left: Left::Record(entry) })
}
