//! Claiming a name: atomic, never from the living, and from the dead only with proof.
//!
//! The claim of an object is a file in the runtime directory, named after the object. It holds a lock
//! that the kernel drops with its owner, and says who that is and what it made. Free lock or gone
//! process: either proves the owner dead. Two who take over at once exclude each other by a second
//! lock (flock, which knows nothing of the first) and put a file of their own in the old one's place.
//! Sources: fcntl(2) ("Open file description locks"), flock(2), rename(2).

use std::fmt::Write as _;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use poste_sys::lock;
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use super::owner::Owner;
use super::runtime;
use crate::error::{Error, Kind};
use crate::wait::{Halt, Wait};

/// The part of the runtime directory that holds the claims.
const CLAIMS: &str = "claims";

/// How long taking over may take: it is a few system calls of another process.
const TURN: Wait = Wait::For(Duration::from_secs(5));

/// How often the other one is asked for its turn.
const TURN_PAUSE: Duration = Duration::from_millis(1);

/// The largest claim that is read: an address, and a few numbers.
const CLAIM_MAX: usize = 64 << 10;

/// An object in a file system, named for as long as it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    /// The file system.
    pub(crate) device: u64,
    /// Its number there, which another object may have later.
    pub(crate) inode: u64,
    /// When it was made, in nanoseconds; 0 where the file system doesn't say.
    pub(crate) born: i128,
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
}

/// A name that is ours until this is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    file: File,
    path: PathBuf,
    record: Record,
    /// What the owner before, proved dead, had made under this name.
    left: Option<Object>,
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
        let record = Record { owner: Owner::myself(), address: address.to_owned(), object: None };
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
            let left = read(&file).and_then(|before| before.object);
            let claim = Claim { file, path, record, left, pid: std::process::id() };
            claim.write()?;
            return Ok(claim);
        }
        Err(Error::new(Kind::NameInUse { owner: None }, "others claim the name all the time"))
    }

    /// What the dead owner before had made under this name, if anything.
    #[must_use]
    pub(crate) fn left(&self) -> Option<Object> {
        self.left
    }

    /// Notes what was made under the name.
    ///
    /// # Errors
    /// What the system said; nobody could prove later that it is ours.
    pub(crate) fn note(&mut self, object: Object) -> Result<(), Error> {
        self.record.object = Some(object);
        self.left = None;
        self.write()
    }

    /// Whether this process claimed it, and not the one that it was forked from.
    #[must_use]
    pub(crate) fn is_mine(&self) -> bool {
        self.pid == std::process::id()
    }

    fn write(&self) -> Result<(), Error> {
        let text = self.record.to_text();
        let done = self.file.set_len(0).and_then(|()| self.file.write_all_at(text.as_bytes(), 0));
        done.map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            system(errno, &self.path)
        })
    }
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

/// The lock is held: takes over if its owner is gone all the same (a forked child has the lock).
/// `None`: somebody else was faster; look again.
fn take_over(path: &Path, held: File, record: &Record) -> Result<Option<Claim>, Error> {
    if !is_gone(&held, path)? {
        return Err(in_use(&held));
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
    let left = read(&held).and_then(|before| before.object);
    let fresh_path = path.with_extension(format!("{:016x}", crate::sequence::draw()));
    let file = create(&fresh_path)?;
    lock::try_lock(file.as_fd()).map_err(|errno| system(errno, &fresh_path))?;
    let mut claim = Claim {
        file,
        path: fresh_path.clone(),
        record: Record { object: left, ..record.clone() },
        left,
        pid: std::process::id(),
    };
    claim.write()?;
    rustix::fs::rename(&fresh_path, path).map_err(|errno| system(errno, path))?;
    claim.path = path.to_owned();
    Ok(Some(claim))
}

/// Whether the one who wrote the claim is gone. One who is just writing it is there.
fn is_gone(held: &File, path: &Path) -> Result<bool, Error> {
    for _ in 0..50 {
        match read(held) {
            Some(record) => return Ok(record.owner.is_gone()),
            None if !is_at(held, path) => return Ok(false),
            None => std::thread::sleep(TURN_PAUSE),
        }
    }
    Ok(false)
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
fn is_at(file: &File, path: &Path) -> bool {
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
    Error::system(errno, format!("the lock {}", path.display()))
}

/// The file of a claim: a number that tells keys apart, and what a person recognises.
fn file_name(key: &str) -> String {
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
            let Object { device, inode, born } = object;
            let _ = writeln!(text, "object {device} {inode} {born}");
        }
        // The last line says that it is whole.
        text.push_str("end\n");
        text
    }

    fn parse(text: &str) -> Option<Record> {
        let mut lines = text.lines();
        if lines.next() != Some("poste 1") || !text.ends_with("\nend\n") {
            return None;
        }
        let (mut owner, mut address, mut object) = (None, None, None);
        for line in lines {
            match line.split_once(' ') {
                Some(("owner", value)) => owner = Some(Owner::parse(value)?),
                Some(("address", value)) => address = Some(value.to_owned()),
                Some(("object", value)) => {
                    let mut numbers = value.split(' ');
                    object = Some(Object {
                        device: numbers.next()?.parse().ok()?,
                        inode: numbers.next()?.parse().ok()?,
                        born: numbers.next()?.parse().ok()?,
                    });
                }
                _ => {}
            }
        }
        Some(Record { owner: owner?, address: address?, object })
    }
}

/// What stands in the runtime directory: each claim with whether its owner is proved dead.
///
/// # Errors
/// What the system said of the directory; single files that can't be read are passed over.
pub(crate) fn all() -> Result<Vec<(PathBuf, Record, bool)>, Error> {
    let Some(directory) = runtime::existing_part(CLAIMS)? else { return Ok(Vec::new()) };
    let mut claims = Vec::new();
    let entries = std::fs::read_dir(&directory)
        .map_err(|error| system(Errno::from_io_error(&error).unwrap_or(Errno::IO), &directory))?;
    for entry in entries.flatten() {
        let Ok(file) = open_with(&entry.path(), OFlags::empty()) else { continue };
        let Some(record) = read(&file) else { continue };
        let is_dead = lock::is_locked(file.as_fd()) == Ok(false) || record.owner.is_gone();
        claims.push((entry.path(), record, is_dead));
    }
    Ok(claims)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back_only_whole() {
        let record = Record {
            owner: Owner::myself(),
            address: "unix:/a b".to_owned(),
            object: Some(Object { device: 1, inode: 2, born: 3 }),
        };
        let text = record.to_text();
        assert_eq!(Record::parse(&text), Some(record));
        for end in 0..text.len() {
            assert_eq!(Record::parse(&text[..end]), None, "{end}");
        }
    }

    #[test]
    fn files_are_told_apart_and_short_enough() {
        let long = "/a".repeat(2000);
        assert!(file_name(&long).len() < 200);
        assert_ne!(file_name("/a/b"), file_name("/a_b"));
    }
}
