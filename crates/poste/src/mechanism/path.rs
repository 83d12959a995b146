//! Objects in the file system: placing a new one so that it replaces nothing, and taking one away.
//!
//! Sources: rename(2) (RENAME_NOREPLACE), chmod(2), unlink(2).

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Stat, Statx, StatxFlags, statx,
};
use rustix::io::Errno;

use crate::address::Address;
use crate::error::{Error, Kind};
use crate::name::claim::Object;
use crate::name::registry::Draft;

/// The path that an address names.
pub(crate) fn of(address: &Address) -> Result<&Path, Error> {
    let bytes = address.rest();
    if bytes.is_empty() {
        return Err(Error::new(Kind::Invalid, "a path is missing")
            .with_hint(format!("as in {}:/run/user/1000/x", address.scheme())));
    }
    if bytes.contains(&0) {
        return Err(Error::new(Kind::Invalid, "a path has no zero byte"));
    }
    Ok(Path::new(OsStr::from_bytes(bytes)))
}

/// Makes an object under a name of its own in the same directory, sets its mode, and only then
/// gives it its name, which must be free. The registry knows of it from the first moment.
///
/// # Errors
/// `NameInUse` where something is there; what `make` and the system said.
pub(crate) fn place(
    address: &Address,
    mode: u32,
    make: impl Fn(&Path) -> Result<(), Errno>,
) -> Result<(), Error> {
    let system = |errno: Errno| Error::system(errno, "");
    let path = of(address)?;
    let hidden = beside(path);
    let mut draft = draft(address, path, &hidden);
    make(&hidden).map_err(system)?;
    if let (Some(draft), Ok(stat)) = (&mut draft, rustix::fs::lstat(&hidden)) {
        draft.note(object(&stat), born(&hidden));
    }
    let placed = rustix::fs::chmod(&hidden, Mode::from_raw_mode(mode))
        .and_then(|()| rename_new(&hidden, path));
    if let Err(errno) = placed {
        // Nobody else knows this name; what cannot be taken away is no worse than what failed.
        let _ = rustix::fs::unlink(&hidden);
        return Err(system(errno));
    }
    if let Some(draft) = draft {
        draft.place();
    }
    Ok(())
}

/// The record of what is to be made, where one can be written.
fn draft(address: &Address, path: &Path, hidden: &Path) -> Option<Draft> {
    let hidden = canonical(hidden).ok()?;
    Draft::begin(&key(path).ok()?, &absolute_address(address, path).ok()?, Some(&hidden))
}

fn rename_new(from: &Path, to: &Path) -> Result<(), Errno> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system without it: a second name replaces nothing either.
        Err(Errno::INVAL | Errno::NOSYS) => {
            rustix::fs::link(from, to)?;
            rustix::fs::unlink(from)
        }
        done => done,
    }
}

/// What names begin with that nobody is meant to see.
const HIDDEN: &str = ".poste-";

/// Whether it is a name that only its maker knew.
pub(crate) fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_bytes().starts_with(HIDDEN.as_bytes()))
}

/// A name that nobody else takes, in the same directory.
fn beside(path: &Path) -> PathBuf {
    let name = format!("{HIDDEN}{:016x}", crate::sequence::draw());
    path.parent().map_or_else(|| PathBuf::from(&name), |directory| directory.join(&name))
}

/// What stands at a path, named for as long as it is there.
pub(crate) fn object(stat: &Stat) -> Object {
    Object { device: stat.st_dev, inode: stat.st_ino }
}

/// When what stands at a path was made, in nanoseconds; 0 where the file system doesn't say. With
/// it an object is told from the next one that has its number.
pub(crate) fn born(path: &Path) -> i128 {
    birth(statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BTIME))
}

/// The same of an open file.
pub(crate) fn born_open(file: impl AsFd) -> i128 {
    birth(statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::BTIME))
}

fn birth(found: Result<Statx, Errno>) -> i128 {
    match found {
        Ok(found) if found.stx_mask & StatxFlags::BTIME.bits() != 0 => {
            let time = found.stx_btime;
            i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
        }
        _ => 0,
    }
}

/// Whether what stands at a path is still the object that a record names, which was born then, and
/// not one that has its number by now.
pub(crate) fn is_still(path: &Path, stat: &Stat, recorded: Option<Object>, then: i128) -> bool {
    recorded == Some(object(stat)) && born(path) == then
}

/// The key of a path's claim: the same for every way to write the path.
pub(crate) fn key(path: &Path) -> Result<String, Error> {
    Ok(format!("path:{}", canonical(path)?.as_os_str().as_bytes().escape_ascii()))
}

/// The path from the root, its directory without links; what it names may be absent.
pub(crate) fn canonical(path: &Path) -> Result<PathBuf, Error> {
    let io = |error: std::io::Error| {
        let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        Error::system(errno, "the directory")
    };
    let absolute = std::path::absolute(path).map_err(io)?;
    let name =
        absolute.file_name().ok_or_else(|| Error::new(Kind::Invalid, "a path is missing"))?;
    let directory = absolute.parent().unwrap_or(Path::new("/"));
    Ok(std::fs::canonicalize(directory).map_err(io)?.join(name))
}

/// An address with its path from the root, and without options.
pub(crate) fn absolute_address(address: &Address, path: &Path) -> Result<Address, Error> {
    Ok(address.bare().with_rest(canonical(path)?.into_os_string().into_vec()))
}

/// Takes away what was proved to be left by the dead. It is moved aside first, so that nothing that
/// took its place meanwhile goes with it; `note` is told where, before that is done.
pub(crate) fn take_away(
    path: &Path,
    proved: Object,
    note: impl FnOnce(&Path) -> Result<(), Error>,
) -> Result<(), Error> {
    let aside = canonical(&beside(path))?;
    note(&aside)?;
    match rustix::fs::rename(path, &aside) {
        Ok(()) => {}
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(Error::system(errno, "")),
    }
    if finish_aside(&aside, path, proved)? {
        return Ok(());
    }
    Err(Error::new(Kind::NameInUse { owner: None }, "another program has just taken the name"))
}

/// Ends what [`take_away`] began: what was proved goes, anything else goes back where it was.
/// Whether it was what was proved, or nothing is there.
pub(crate) fn finish_aside(aside: &Path, path: &Path, proved: Object) -> Result<bool, Error> {
    let system = |errno: Errno| Error::system(errno, "");
    let moved = match rustix::fs::lstat(aside) {
        Err(Errno::NOENT) => return Ok(true),
        moved => moved.map_err(system)?,
    };
    if object(&moved) == proved {
        rustix::fs::unlink(aside).map_err(system)?;
        return Ok(true);
    }
    // Somebody was faster.
    rename_new(aside, path).map_err(system)?;
    Ok(false)
}

/// Takes an object of this type away.
///
/// # Errors
/// `NotFound`; `Mismatch` where it is something else.
pub(crate) fn remove(path: &Path, file_type: FileType, what: &str) -> Result<(), Error> {
    let stat = rustix::fs::lstat(path).map_err(|errno| missing(errno, what))?;
    expect(&stat, file_type, what)?;
    rustix::fs::unlink(path).map_err(|errno| Error::system(errno, ""))
}

/// Refuses what another user has planted in a directory where others may write: a link that leads
/// elsewhere, and, where an object of this user's is to be made, an object of theirs. The rules are
/// those of proc(5), `fs.protected_symlinks` and `fs.protected_fifos`, which a machine may lack.
///
/// # Errors
/// `Permission`, and what the system said.
pub(crate) fn refuse_planted(path: &Path, is_to_be_made: bool) -> Result<(), Error> {
    let system = |errno: Errno| Error::system(errno, "");
    let Ok(stat) = rustix::fs::lstat(path) else { return Ok(()) };
    let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
    let myself = rustix::process::geteuid().as_raw();
    if (!is_link && !is_to_be_made) || stat.st_uid == myself {
        return Ok(());
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = rustix::fs::stat(directory.unwrap_or(Path::new("."))).map_err(system)?;
    if directory.st_mode & 0o022 == 0 || directory.st_uid == stat.st_uid {
        return Ok(());
    }
    let what = if is_link { "a link" } else { "an object" };
    let detail = format!("it is {what} of user {}, where others may write", stat.st_uid);
    Err(Error::new(Kind::Permission, detail).with_hint(
        "choose a directory of your own; or, if it is to be trusted, open it where it is, without \
         create",
    ))
}

/// Sets the mode of an object that was just made, and of nothing that took its place.
///
/// # Errors
/// `NameInUse` where something else is there; what the system said.
pub(crate) fn set_mode(path: &Path, made: Object, mode: Mode) -> Result<(), Error> {
    let system = |errno: Errno| Error::system(errno, "");
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(system)?;
    let same = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
    let stat = rustix::fs::fstat(&opened).map_err(system)?;
    if (stat.st_dev, stat.st_ino) != (made.device, made.inode) {
        let detail = "another program has just taken the name";
        return Err(Error::new(Kind::NameInUse { owner: None }, detail));
    }
    rustix::fs::chmod(&same, mode).map_err(system)
}

/// Refuses an object of another type.
pub(crate) fn expect(stat: &Stat, file_type: FileType, what: &str) -> Result<(), Error> {
    if FileType::from_raw_mode(stat.st_mode) == file_type {
        return Ok(());
    }
    Err(Error::new(Kind::Mismatch, format!("what is there is no {what}"))
        .with_hint("choose another path; poste never replaces what it didn't make"))
}

/// What a socket is called in errors.
pub(crate) const SOCKET: &str = "socket";

/// The error of an object that is not there.
pub(crate) fn missing(errno: Errno, what: &str) -> Error {
    match errno {
        Errno::NOENT if what == SOCKET => Error::system(errno, "no such socket")
            .with_hint("a receiver makes it when it listens; create is for queues and FIFOs"),
        Errno::NOENT => Error::system(errno, format!("no such {what}")),
        _ => Error::system(errno, ""),
    }
}
