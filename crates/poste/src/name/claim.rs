//! Claiming a name: atomic, never from the living, and from the dead only with proof.
//!
//! The claim of an object is a file in the runtime directory, named after the object. It holds a lock
//! that the kernel drops with its owner, and says who that is and what it made. Free lock or gone
//! process: either proves the owner dead. Two who take over at once exclude each other by a second
//! lock (flock, which knows nothing of the first) and put a file of their own in the old one's place.
//! Sources: fcntl(2) ("Open file description locks"), flock(2), rename(2).

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use poste_sys::lock;
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use super::owner::Owner;
use super::runtime;
use crate::address::Address;
use crate::error::{Error, Kind};
use crate::wait::{Halt, Wait};

/// The part of the runtime directory that holds the claims.
const CLAIMS: &str = "claims";

/// What the name of a claim begins with while it is put in the place of another; claims begin with
/// a number.
const FRESH: &str = ".fresh-";

/// How long taking over may take: it is a few system calls of another process.
const TURN: Wait = Wait::For(Duration::from_secs(5));

/// How often the other one is asked for its turn.
const TURN_PAUSE: Duration = Duration::from_millis(1);

/// The largest claim that is read: an address, and a few numbers.
const CLAIM_MAX: usize = 64 << 10;

/// An object in a file system, named for as long as it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Object {
    /// The file system.
    pub(crate) device: u64,
    /// Its number there, which another object may have later.
    pub(crate) inode: u64,
}

impl Object {
    /// Reads the two numbers.
    pub(crate) fn parse(text: &str) -> Option<Object> {
        let (device, inode) = text.split_once(' ')?;
        Some(Object { device: device.parse().ok()?, inode: inode.parse().ok()? })
    }
}

/// What a claim says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Whose it is.
    pub(crate) owner: Owner,
    /// What is claimed, as an address.
    pub(crate) address: String,
    /// What its owner made there.
    pub(crate) object: Option<Object>,
    /// When that was made, in nanoseconds, since its number may be used again; 0: not known.
    pub(crate) born: i128,
    /// Where what the dead had left was moved to be taken away.
    pub(crate) aside: Option<PathBuf>,
}

/// A name that is ours until this is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    file: File,
    path: PathBuf,
    record: Record,
    /// What the owner before, proved dead, had made under this name.
    left: Option<Object>,
    /// Where somebody who died over it had moved that.
    left_aside: Option<PathBuf>,
    /// The process that claimed it: a forked child gives nothing back.
    pid: u32,
}

impl Claim {
    /// Claims what an address names; `key` is the same for every way to write it.
    ///
    /// # Errors
    /// `NameInUse` with the owner, where it lives.
    pub(crate) fn take(key: &str, address: &str) -> Result<Claim, Error> {
        let path = runtime::part(CLAIMS)?.join(file_name(key));
        let record = Record {
            owner: Owner::myself(),
            address: address.to_owned(),
            object: None,
            born: 0,
            aside: None,
        };
        // Each turn of the loop is lost only to another who took or gave back the same name.
        for _ in 0..1000 {
            let file = open(&path)?;
            match lock::try_lock(file.as_fd()) {
                Ok(()) => {}
                Err(Errno::AGAIN | Errno::ACCESS) => match take_over(&path, file, &record)? {
                    Some(claim) => return Ok(claim),
                    None => continue,
                },
                Err(errno) => return Err(system(errno, &path)),
            }
            if !is_at(&file, &path) {
                continue;
            }
            return Claim::follow(read(&file), file, path, record);
        }
        Err(Error::new(Kind::NameInUse { owner: None }, "others claim the name all the time"))
    }

    /// Writes a claim in the place of the one of a dead owner; what that one had made stays noted
    /// until it is taken away.
    fn follow(
        before: Option<Record>,
        file: File,
        path: PathBuf,
        record: Record,
    ) -> Result<Claim, Error> {
        let (left, born, aside) =
            before.map_or((None, 0, None), |before| (before.object, before.born, before.aside));
        let record = Record { object: left, born, aside: aside.clone(), ..record };
        let claim = Claim { file, path, record, left, left_aside: aside, pid: std::process::id() };
        claim.write()?;
        Ok(claim)
    }

    /// What the dead owner before had made under this name, if anything.
    #[must_use]
    pub(crate) fn left(&self) -> Option<Object> {
        self.left
    }

    /// When the object that is noted was made.
    #[must_use]
    pub(crate) fn born(&self) -> i128 {
        self.record.born
    }

    /// Where that had been moved by somebody who died over taking it away.
    #[must_use]
    pub(crate) fn left_aside(&self) -> Option<&Path> {
        self.left_aside.as_deref()
    }

    /// Notes what was made under the name.
    ///
    /// # Errors
    /// What the system said; nobody could prove later that it is ours.
    pub(crate) fn note(&mut self, object: Object, born: i128) -> Result<(), Error> {
        (self.record.object, self.record.aside) = (Some(object), None);
        self.record.born = born;
        (self.left, self.left_aside) = (None, None);
        self.write()
    }

    /// Notes where an object is moved that is to be taken away, before that is done.
    ///
    /// # Errors
    /// What the system said; nobody could find it later.
    pub(crate) fn note_aside(&mut self, object: Object, aside: &Path) -> Result<(), Error> {
        (self.record.object, self.record.aside) = (Some(object), Some(aside.to_owned()));
        self.write()
    }

    /// Whether this process claimed it, and not the one that it was forked from.
    #[must_use]
    pub(crate) fn is_mine(&self) -> bool {
        self.pid == std::process::id()
    }

    fn write(&self) -> Result<(), Error> {
        write(&self.file, &self.record, &self.path)
    }
}

/// The new text lies over the old one before that is cut: there is always a whole record.
fn write(file: &File, record: &Record, path: &Path) -> Result<(), Error> {
    let text = record.to_text();
    let done = file.write_all_at(text.as_bytes(), 0).and_then(|()| file.set_len(text.len() as u64));
    done.map_err(|error| system(Errno::from_io_error(&error).unwrap_or(Errno::IO), path))
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.is_mine() && is_at(&self.file, &self.path) {
            // The name first, then the lock: who opens the file in between finds it gone.
            let _ = rustix::fs::unlink(&self.path);
        }
    }
}

/// Who holds a name that is claimed, if a living process does.
///
/// # Errors
/// What the system said.
pub(crate) fn holder(key: &str) -> Result<Option<Owner>, Error> {
    let Some(directory) = runtime::existing_part(CLAIMS)? else { return Ok(None) };
    let path = directory.join(file_name(key));
    let Ok(file) = open_with(&path, OFlags::empty()) else { return Ok(None) };
    let is_held = lock::is_locked(file.as_fd()).map_err(|errno| system(errno, &path))?;
    let owner = read(&file).map(|record| record.owner);
    Ok(owner.filter(|owner| is_held && !owner.is_gone()))
}

/// A name that this very process has claimed: the claim's file, and what it says.
///
/// # Errors
/// What the system said of the directory.
pub(crate) fn own(key: &str) -> Result<Option<(PathBuf, Record)>, Error> {
    let Some(directory) = runtime::existing_part(CLAIMS)? else { return Ok(None) };
    let path = directory.join(file_name(key));
    let Ok(file) = open_with(&path, OFlags::empty()) else { return Ok(None) };
    let record = read(&file).filter(|record| record.owner == Owner::myself());
    Ok(record.map(|record| (path, record)))
}

/// The lock is held: takes over if its owner is gone all the same (a forked child has the lock).
/// `None`: somebody else was faster; look again.
fn take_over(path: &Path, held: File, record: &Record) -> Result<Option<Claim>, Error> {
    match is_gone(&held, path) {
        Some(true) => {}
        Some(false) => return Err(in_use(&held)),
        None => return Ok(None),
    }
    let turn = TURN.retry(TURN_PAUSE, |_| flock(&held, FlockOperation::NonBlockingLockExclusive));
    match turn {
        Ok(()) => {}
        Err(Halt::Later) => return Err(in_use(&held)),
        Err(Halt::System(errno)) => return Err(system(errno, path)),
    }
    if !is_at(&held, path) {
        return Ok(None);
    }
    let fresh_path = path.with_file_name(format!("{FRESH}{:016x}", crate::sequence::draw()));
    let file = create(&fresh_path)?;
    match lock::try_lock(file.as_fd()) {
        Ok(()) => {}
        // gc took it for a dead one's; it takes it away.
        Err(Errno::AGAIN | Errno::ACCESS) => return Ok(None),
        Err(errno) => return Err(system(errno, &fresh_path)),
    }
    let mut claim = Claim::follow(read(&held), file, fresh_path.clone(), record.clone())?;
    match rustix::fs::rename(&fresh_path, path) {
        Ok(()) => {}
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(system(errno, path)),
    }
    claim.path = path.to_owned();
    Ok(Some(claim))
}

/// Whether the one who wrote the claim is gone. One who is just writing it is there. `None`: the
/// claim itself is gone.
fn is_gone(held: &File, path: &Path) -> Option<bool> {
    for _ in 0..50 {
        match read(held) {
            Some(record) => return Some(record.owner.is_gone()),
            None if !is_at(held, path) => return None,
            None => std::thread::sleep(TURN_PAUSE),
        }
    }
    Some(false)
}

fn in_use(held: &File) -> Error {
    let owner = read(held).map(|record| record.owner);
    let text = owner.as_ref().map(Owner::describe);
    let detail = match &text {
        Some(text) => format!("the name is in use by {text}"),
        None => "the name is in use".to_owned(),
    };
    Error::new(Kind::NameInUse { owner: text }, detail)
        .with_hint("choose another name, or end the program that has it")
}

/// Opens the file of a claim, and makes it where it is absent; never through a link.
fn open(path: &Path) -> Result<File, Error> {
    open_with(path, OFlags::CREATE)
}

fn create(path: &Path) -> Result<File, Error> {
    open_with(path, OFlags::CREATE | OFlags::EXCL)
}

fn open_with(path: &Path, how: OFlags) -> Result<File, Error> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | how;
    let file = rustix::fs::openat(CWD, path, flags, Mode::RUSR | Mode::WUSR)
        .map_err(|errno| system(errno, path))?;
    check_owner(&file, path)?;
    Ok(File::from(file))
}

/// A lock file that another user made proves nothing.
fn check_owner(file: &OwnedFd, path: &Path) -> Result<(), Error> {
    let stat = rustix::fs::fstat(file).map_err(|errno| system(errno, path))?;
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        let detail = format!("the lock {} belongs to user {}", path.display(), stat.st_uid);
        return Err(Error::new(Kind::Permission, detail)
            .with_hint("set POSTE_DIR to a directory of your own, with mode 0700"));
    }
    Ok(())
}

/// Whether a path still leads to an open file.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    match (rustix::fs::fstat(file), rustix::fs::lstat(path)) {
        (Ok(open), Ok(there)) => (open.st_dev, open.st_ino) == (there.st_dev, there.st_ino),
        _ => false,
    }
}

fn read(file: &File) -> Option<Record> {
    let mut bytes = vec![0; CLAIM_MAX];
    let count = file.read_at(&mut bytes, 0).ok()?;
    Record::parse(std::str::from_utf8(&bytes[..count]).ok()?)
}

fn system(errno: Errno, path: &Path) -> Error {
    runtime::system(errno, format!("the lock {}", path.display()))
}

/// The file of a claim: a number that tells keys apart, and what a person recognises.
pub(crate) fn file_name(key: &str) -> String {
    let mut name = String::new();
    for byte in key.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        name.push(if plain { byte.into() } else { '_' });
    }
    // File names have at most 255 bytes; the end of a path says most.
    let tail = name.len().saturating_sub(150);
    format!("{:016x}-{}", number(key.as_bytes()), &name[tail..])
}

/// FNV-1a, 64 bits: the names of files must stay the same from one version to the next.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |state, byte| {
        (state ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

impl Record {
    fn to_text(&self) -> String {
        let mut text = format!("poste 1\nowner {}\naddress {}\n", self.owner, self.address);
        if let Some(object) = self.object {
            let _ = writeln!(text, "object {} {}\nborn {}", object.device, object.inode, self.born);
        }
        if let Some(aside) = &self.aside {
            let _ = writeln!(text, "aside {}", path_to_text(aside));
        }
        // The last line says that it is whole.
        text.push_str("end\n");
        text
    }

    fn parse(text: &str) -> Option<Record> {
        // What stands behind the end is left of a longer record.
        let (text, _) = text.split_once("\nend\n")?;
        let mut lines = text.lines();
        if lines.next() != Some("poste 1") {
            return None;
        }
        let (mut owner, mut address, mut object, mut aside) = (None, None, None, None);
        let mut born = 0;
        for line in lines {
            match line.split_once(' ') {
                Some(("owner", value)) => owner = Some(Owner::parse(value)?),
                Some(("address", value)) => address = Some(value.to_owned()),
                Some(("object", value)) => object = Some(Object::parse(value)?),
                Some(("born", value)) => born = value.parse().ok()?,
                Some(("aside", value)) => aside = Some(path_from_text(value)?),
                _ => {}
            }
        }
        Some(Record { owner: owner?, address: address?, object, born, aside })
    }
}

/// A path on one line, whatever its bytes: as addresses spell it.
pub(crate) fn path_to_text(path: &Path) -> String {
    let address = Address::new("path", path.as_os_str().as_bytes());
    address.map_or_else(|_| String::new(), |address| address.to_string())
}

/// Reads what [`path_to_text`] wrote.
pub(crate) fn path_from_text(text: &str) -> Option<PathBuf> {
    let address = Address::parse(text).ok()?;
    Some(PathBuf::from(OsStr::from_bytes(address.rest())))
}

/// A claim as it stands in the runtime directory.
#[derive(Debug)]
pub(crate) struct Standing {
    /// Its file.
    pub(crate) path: PathBuf,
    /// What it says; nothing where its writer died over it.
    pub(crate) record: Option<Record>,
    /// Why its owner is dead, in words; `None`: it may live.
    pub(crate) proof: Option<String>,
}

/// Every claim in the runtime directory, files of half-made ones included.
///
/// # Errors
/// What the system said of the directory; single files that can't be opened are passed over.
pub(crate) fn all() -> Result<Vec<Standing>, Error> {
    let Some(directory) = runtime::existing_part(CLAIMS)? else { return Ok(Vec::new()) };
    let entries = std::fs::read_dir(&directory)
        .map_err(|error| system(Errno::from_io_error(&error).unwrap_or(Errno::IO), &directory))?;
    let mut claims: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let path = entry.path();
            let file = open_with(&path, OFlags::empty()).ok()?;
            let record = read(&file);
            let is_free = lock::is_locked(file.as_fd()) == Ok(false);
            let proof = proof(record.as_ref(), is_free);
            Some(Standing { path, record, proof })
        })
        .collect();
    claims.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(claims)
}

/// Why the owner of a claim is dead, if that is proved.
fn proof(record: Option<&Record>, is_free: bool) -> Option<String> {
    match record.map(|record| (record.owner.pid, record.owner.is_gone())) {
        Some((pid, true)) => Some(format!("its owner, process {pid}, is gone")),
        Some((pid, false)) if is_free => {
            Some(format!("its owner, process {pid}, has given its lock up"))
        }
        None if is_free => Some("nobody holds its lock".to_owned()),
        _ => None,
    }
}

/// The claim of a dead owner, held so that nobody takes it over while what was left is taken away.
#[derive(Debug)]
pub(crate) struct Seized {
    file: File,
    path: PathBuf,
    record: Option<Record>,
}

impl Seized {
    /// Seizes the claim in a file, if its owner is still dead; `None`: there is nothing to take.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn new(path: &Path) -> Result<Option<Seized>, Error> {
        let file = match open_with(path, OFlags::empty()) {
            Ok(file) => file,
            Err(error) if error.is(&Kind::NotFound) => return Ok(None),
            Err(error) => return Err(error),
        };
        // Who takes a claim over waits for this lock, and looks again when it has it.
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(None);
        }
        // Where the other lock is free, nobody new gets that one either.
        let is_free = lock::try_lock(file.as_fd()).is_ok();
        let record = read(&file);
        let is_dead = is_at(&file, path) && proof(record.as_ref(), is_free).is_some();
        Ok(is_dead.then(|| Seized { file, path: path.to_owned(), record }))
    }

    /// Seizes the claim of a key, if there is one and its owner is dead.
    pub(crate) fn of(key: &str) -> Result<Option<Seized>, Error> {
        match runtime::existing_part(CLAIMS)? {
            Some(directory) => Seized::new(&directory.join(file_name(key))),
            None => Ok(None),
        }
    }

    /// What it says.
    #[must_use]
    pub(crate) fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// Notes where what was left is moved to be taken away.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn note_aside(&mut self, aside: &Path) -> Result<(), Error> {
        match &mut self.record {
            Some(record) => {
                record.aside = Some(aside.to_owned());
                write(&self.file, record, &self.path)
            }
            None => Ok(()),
        }
    }

    /// Takes the claim itself away.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn take_away(self) -> Result<(), Error> {
        rustix::fs::unlink(&self.path).map_err(|errno| system(errno, &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back_only_whole() {
        let record = Record {
            owner: Owner::myself(),
            address: "unix:/a b".to_owned(),
            object: Some(Object { device: 1, inode: 2 }),
            born: -3,
            aside: Some(PathBuf::from("/a\nb")),
        };
        let text = record.to_text();
        assert_eq!(Record::parse(&text), Some(record));
        for end in 0..text.len() {
            assert_eq!(Record::parse(&text[..end]), None, "{end}");
        }
        // What a longer one left behind the end means nothing.
        let longer = format!("{text}owner nobody\nend\n");
        assert_eq!(Record::parse(&longer), Record::parse(&text));
    }

    #[test]
    fn files_are_told_apart_and_short_enough() {
        let long = "/a".repeat(2000);
        assert!(file_name(&long).len() < 200);
        assert_ne!(file_name("/a/b"), file_name("/a_b"));
    }
}
