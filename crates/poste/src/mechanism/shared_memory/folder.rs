//! The folder that a mailbox is, and where it lies: its name, made whole or not at all, taken away.
//!
//! A new one is built under a name that begins with a dot, and so does one on its way out; such a
//! name is nobody's address. Who builds it, or takes it away, holds a lock on the folder itself that
//! dies with the process: a folder with such a name and a free lock is what a dead process left.
//! Sources: rename(2), flock(2), openat(2).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use poste_sys::atomic::Ordering;
use poste_sys::mapping::{Access, Mapping, reserve};
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::lane_file;
use super::mailbox::{Mailbox, Terms, boot_words, no_room};
use super::participants::myself;
use crate::address::Address;
use crate::error::{Error, Kind};
use crate::limits::MAILBOX_TRIES;
use crate::name::runtime;
use crate::options::Options;
use crate::ring::layout::{HEADER_SIZE, MAGIC, VERSION, header};

/// The header's file in a mailbox's folder.
pub(super) const HEADER: &str = "header";

/// The part of the runtime directory that mailboxes lie in.
pub(super) const PART: &str = "shm";

/// Where the folder of a mailbox is, or would be.
pub(super) fn path(address: &Address) -> Result<PathBuf, Error> {
    let name = name(address)?;
    match runtime::existing_part(PART)? {
        Some(part) => Ok(part.join(name)),
        None => Err(not_opened(Errno::NOENT)),
    }
}

/// The error of opening the folder.
pub(super) fn not_opened(errno: Errno) -> Error {
    match errno {
        Errno::NOENT => Error::system(errno, "no such mailbox")
            .with_hint("create it: poste create shm:NAME, or add --create"),
        _ => Error::system(errno, "the mailbox's folder"),
    }
}

/// The error with a hint that names the mailbox.
pub(super) fn named(error: Error, address: &Address) -> Error {
    let address = address.bare();
    match error.kind() {
        Kind::NotFound => {
            error.with_hint(format!("create it: poste create {address}, or add --create"))
        }
        Kind::Corrupt | Kind::Mismatch => {
            error.with_hint(format!("remove it and make it anew: poste remove {address}"))
        }
        _ => error,
    }
}

/// The address as it is listed.
pub(crate) fn place(address: &Address) -> Result<Address, Error> {
    name(address).map(|_| address.bare())
}

fn name(address: &Address) -> Result<&str, Error> {
    let fits = |name: &&str| {
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        (1..=200).contains(&name.len()) && !name.starts_with(['.', '-']) && name.bytes().all(fine)
    };
    address.text().filter(fits).ok_or_else(|| {
        Error::new(
            Kind::Invalid,
            "a mailbox's name is 1 to 200 letters, digits, dots, hyphens and underscores, \
             and begins with neither dot nor hyphen",
        )
        .with_hint("as in shm:jobs")
    })
}

/// Makes a mailbox, which must not be there yet.
pub(crate) fn create(address: &Address, options: &Options) -> Result<(), Error> {
    if options.mode_or_default() & 0o077 != 0 {
        return Err(Error::new(Kind::NotSupported, "a mailbox is for one user")
            .with_hint("leave the mode out, or give 0600; between users there are sockets"));
    }
    let terms = Terms::of(options)?;
    let path = runtime::part(PART)?.join(name(address)?);
    let draft = Draft::begin(&path)?;
    let folder = draft.folder.as_fd();
    let has_pages = if terms.huge_pages { lane_file::try_huge_pages(folder) } else { Ok(()) };
    let made = has_pages.and_then(|()| write_header(folder, terms)).and_then(|()| {
        rustix::fs::renameat_with(CWD, &draft.path, CWD, &path, RenameFlags::NOREPLACE)
            .map_err(no_room)
    });
    if made.is_err() {
        // What can't be taken away now is litter.
        let _ = draft.take_away();
    }
    made
}

/// A folder with a name that is nobody's address, and the lock that says somebody is at it.
struct Draft {
    path: PathBuf,
    folder: OwnedFd,
}

impl Draft {
    /// Makes a new folder beside where it is to stand.
    fn begin(path: &Path) -> Result<Draft, Error> {
        for _ in 0..MAILBOX_TRIES {
            let hidden = hidden(path);
            rustix::fs::mkdir(&hidden, Mode::RWXU).map_err(no_room)?;
            if let Some(draft) = Draft::seize(hidden.clone()).map_err(no_room)? {
                return Ok(draft);
            }
            // Who looks for what the dead left was faster than our lock: it has it, or takes it
            // away as soon as it looks again.
            let _ = rustix::fs::rmdir(&hidden);
        }
        Err(Error::new(Kind::Failed, "others take it away again and again"))
    }

    /// Takes the lock of a folder; nothing where another has it, or the folder is gone.
    fn seize(path: PathBuf) -> Result<Option<Draft>, Errno> {
        let folder = match open(&path) {
            Err(Errno::NOENT) => return Ok(None),
            folder => folder?,
        };
        match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Ok(None),
            done => done?,
        }
        // It may have been taken away, or have got its name, between opening and locking.
        Ok(is_at(folder.as_fd(), &path).then_some(Draft { path, folder }))
    }

    /// Takes the folder away with all that is in it. Two may do so at once, and who is killed
    /// meanwhile leaves what is left to who looks next: its name says what it is.
    fn take_away(&self) -> Result<(), Error> {
        let files = rustix::fs::Dir::read_from(&self.folder).into_iter().flatten().flatten();
        for file in files {
            // The folder itself and its parent are refused; what else is, shows below.
            let _ = rustix::fs::unlinkat(&self.folder, file.file_name(), AtFlags::empty());
        }
        match rustix::fs::rmdir(&self.path) {
            Err(errno) if errno != Errno::NOENT => Err(Error::system(errno, "its folder")),
            _ => Ok(()),
        }
    }
}

/// A new name that begins with a dot, beside this one.
fn hidden(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{:016x}", crate::sequence::draw()))
}

/// Opens the folder of a mailbox, following no link.
pub(super) fn open(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// Whether this very folder stands there.
fn is_at(folder: BorrowedFd<'_>, path: &Path) -> bool {
    let (Ok(it), Ok(there)) = (rustix::fs::fstat(folder), rustix::fs::lstat(path)) else {
        return false;
    };
    (it.st_dev, it.st_ino) == (there.st_dev, there.st_ino)
}

fn write_header(folder: BorrowedFd<'_>, terms: Terms) -> Result<(), Error> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let file = rustix::fs::openat(folder, HEADER, flags, mode).map_err(no_room)?;
    reserve(file.as_fd(), HEADER_SIZE).map_err(no_room)?;
    let map = Mapping::new(file, 0, HEADER_SIZE, Access::Write).map_err(no_room)?;
    let set = |at, value: u64| map.word(at).store(value, Ordering::Relaxed);
    set(header::VERSION, VERSION);
    set(header::PAGE, rustix::param::page_size() as u64);
    set(header::INSTANCE, crate::sequence::draw());
    set(header::INSTANCE + 8, crate::sequence::draw());
    let boot = boot_words(&myself().boot);
    set(header::BOOT, boot[0]);
    set(header::BOOT + 8, boot[1]);
    set(header::MESSAGE_SIZE, terms.message_size as u64);
    set(header::CAPACITY, terms.capacity.unwrap_or(0));
    set(header::DELIVERIES, terms.deliveries.map_or(0, u64::from));
    set(header::HUGE_PAGES, u64::from(terms.huge_pages));
    set(header::MAGIC, MAGIC);
    Ok(())
}

/// Takes a mailbox away: who has it open is told so.
pub(crate) fn remove(address: &Address) -> Result<(), Error> {
    take_away(address).map_err(|error| named(error, address))
}

fn take_away(address: &Address) -> Result<(), Error> {
    let path = path(address)?;
    let folder = open(&path).map_err(not_opened)?;
    let same = rustix::io::fcntl_dupfd_cloexec(&folder, 3);
    match same.map_err(|errno| Error::system(errno, "")).and_then(Mailbox::in_folder) {
        // Marked before it loses its name: who is killed between leaves a mailbox that says so.
        Ok(mailbox) => {
            mailbox.mark_removed();
            mailbox.wake_all();
        }
        Err(error) if error.is(&Kind::Corrupt) || error.is(&Kind::Mismatch) => {}
        Err(error) if error.is(&Kind::Removed) => {}
        Err(error) => return Err(error),
    }
    sweep(&path, &folder)
}

/// Takes this very folder and its files away; it loses its name first.
///
/// # Errors
/// `NotFound` where it had lost its name already.
pub(super) fn sweep(path: &Path, folder: &OwnedFd) -> Result<(), Error> {
    let system = |errno: Errno| Error::system(errno, "");
    // Of two who take it away one has the lock; it is for who looks whether both are dead.
    let _ = rustix::fs::flock(folder, FlockOperation::NonBlockingLockExclusive);
    let gone = hidden(path);
    rustix::fs::rename(path, &gone).map_err(system)?;
    if !is_at(folder.as_fd(), &gone) {
        // Another took it away meanwhile, and what stood there now is somebody's new one: back.
        let back = rustix::fs::renameat_with(CWD, &gone, CWD, path, RenameFlags::NOREPLACE);
        return back.and(Err(Errno::NOENT)).map_err(not_opened);
    }
    let folder = rustix::io::fcntl_dupfd_cloexec(folder, 3).map_err(system)?;
    Draft { path: gone, folder }.take_away()
}

/// The folders whose makers, or removers, are dead: what [`take_litter`] would take away.
pub(crate) fn litter() -> Result<Vec<PathBuf>, Error> {
    let Some(part) = runtime::existing_part(PART)? else { return Ok(Vec::new()) };
    let entries = std::fs::read_dir(part).into_iter().flatten().flatten();
    let hidden = entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"."));
    let is_left = |path: &PathBuf| matches!(Draft::seize(path.clone()), Ok(Some(_)));
    Ok(hidden.map(|entry| entry.path()).filter(is_left).collect())
}

/// Takes a folder away that [`litter`] named, unless somebody is at it now.
pub(crate) fn take_litter(path: &Path) -> Result<(), Error> {
    match Draft::seize(path.to_owned()).map_err(|errno| Error::system(errno, ""))? {
        Some(draft) => draft.take_away(),
        None => Ok(()),
    }
}

/// Unlinks a file of a mailbox's folder; one that isn't there is fine.
pub(crate) fn unlink(mailbox: &Mailbox, name: &str) {
    // What can't be taken away goes with the folder.
    let _ = rustix::fs::unlinkat(mailbox.folder(), name, AtFlags::empty());
}
