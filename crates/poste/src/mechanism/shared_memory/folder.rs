//! The folder that a mailbox is, and where it lies: its name, made whole or not at all, taken away.
//!
//! A new one is built under a name that begins with a dot, and so does one on its way out; such a
//! name is nobody's address. Sources: rename(2), openat(2).

use std::path::{Path, PathBuf};

use std::os::fd::AsFd;

use poste_sys::atomic::Ordering;
use poste_sys::mapping::{Access, Mapping, reserve};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::mailbox::{Mailbox, Terms, boot_words, no_room};
use super::participants::myself;
use crate::address::Address;
use crate::error::{Error, Kind};
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
        None => Err(not_there(Errno::NOENT)),
    }
}

pub(super) fn not_there(errno: Errno) -> Error {
    Error::system(errno, "no such mailbox")
        .with_hint("create it: poste create shm:NAME, or --create")
}

/// The address as it is listed.
pub(crate) fn place(address: &Address) -> Result<Address, Error> {
    name(address).map(|_| address.bare())
}

fn name(address: &Address) -> Result<&str, Error> {
    let fits = |name: &&str| {
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        (1..=200).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(fine)
    };
    address.text().filter(fits).ok_or_else(|| {
        Error::new(
            Kind::Invalid,
            "a mailbox's name is 1 to 200 letters, digits, dots, hyphens and underscores, \
             and begins with no dot",
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
    let there = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let half_made = path.with_file_name(format!(".{there}.{:016x}", crate::sequence::draw()));
    let system = |errno: Errno| no_room(errno);
    rustix::fs::mkdir(&half_made, Mode::RWXU).map_err(system)?;
    let made = write_header(&half_made, terms).and_then(|()| {
        rustix::fs::renameat_with(CWD, &half_made, CWD, &path, RenameFlags::NOREPLACE)
            .map_err(system)
    });
    if made.is_err() {
        // What can't be taken away now is left for `gc`: its name says that it is half made.
        let _ = rustix::fs::unlink(half_made.join(HEADER));
        let _ = rustix::fs::rmdir(&half_made);
    }
    made
}

fn write_header(folder: &Path, terms: Terms) -> Result<(), Error> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let file = rustix::fs::open(folder.join(HEADER), flags, mode).map_err(no_room)?;
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
    set(header::MAGIC, MAGIC);
    Ok(())
}

/// Takes a mailbox away: who has it open is told so.
pub(crate) fn remove(address: &Address) -> Result<(), Error> {
    let path = path(address)?;
    match Mailbox::open_folder(&path) {
        // Marked before it loses its name: who is killed between leaves a mailbox that says so.
        Ok(mailbox) => {
            mailbox.mark_removed();
            mailbox.wake_all();
        }
        Err(error) if error.is(&Kind::Corrupt) || error.is(&Kind::Mismatch) => {}
        Err(error) if error.is(&Kind::Removed) => {}
        Err(error) => return Err(error),
    }
    sweep(&path)
}

/// Takes a folder and its files away; it loses its name first.
pub(super) fn sweep(path: &Path) -> Result<(), Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let gone = path.with_file_name(format!(".{name}.{:016x}", crate::sequence::draw()));
    let system = |errno: Errno| Error::system(errno, "");
    rustix::fs::rename(path, &gone).map_err(system)?;
    std::fs::remove_dir_all(&gone).map_err(|error| {
        Error::system(Errno::from_io_error(&error).unwrap_or(Errno::IO), "its files")
    })
}

/// Unlinks a file of a mailbox's folder; one that isn't there is fine.
pub(crate) fn unlink(mailbox: &Mailbox, name: &str) {
    // What can't be taken away goes with the folder.
    let _ = rustix::fs::unlinkat(mailbox.folder(), name, AtFlags::empty());
}
