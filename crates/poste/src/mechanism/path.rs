//! Objects in the file system: placing a new one so that it replaces nothing, and taking one away.
//!
//! Sources: rename(2) (RENAME_NOREPLACE), chmod(2), unlink(2).

use std::ffi::OsStr;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Stat, StatxFlags, makedev, statx,
};
use rustix::io::Errno;

use crate::address::Address;
use crate::error::{Error, Kind};
use crate::name::claim::Object;

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
/// gives it its name, which must be free.
///
/// # Errors
/// `NameInUse` where something is there; what `make` and the system said.
pub(crate) fn place(
    path: &Path,
    mode: u32,
    make: impl Fn(&Path) -> Result<(), Errno>,
) -> Result<(), Error> {
    let system = |errno: Errno| Error::system(errno, "");
    let hidden = beside(path);
    make(&hidden).map_err(system)?;
    let placed = rustix::fs::chmod(&hidden, Mode::from_raw_mode(mode))
        .and_then(|()| rename_new(&hidden, path));
    if let Err(errno) = placed {
        // Nobody else knows this name; what cannot be taken away is no worse than what failed.
        let _ = rustix::fs::unlink(&hidden);
        return Err(system(errno));
    }
    Ok(())
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

/// A name that nobody else takes, in the same directory.
fn beside(path: &Path) -> PathBuf {
    let name = format!(".poste-{:016x}", crate::sequence::draw());
    path.parent().map_or_else(|| PathBuf::from(&name), |directory| directory.join(&name))
}

/// What stands at a path, no link followed: its type, and what names it for ever. The number of an
/// object that is gone is used again; with the time it was made it isn't the same.
pub(crate) fn look(path: &Path) -> Result<(FileType, Object), Errno> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let found = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, wanted)?;
    let born =
        i128::from(found.stx_btime.tv_sec) * 1_000_000_000 + i128::from(found.stx_btime.tv_nsec);
    let object = Object {
        device: makedev(found.stx_dev_major, found.stx_dev_minor),
        inode: found.stx_ino,
        born: if found.stx_mask & StatxFlags::BTIME.bits() == 0 { 0 } else { born },
    };
    Ok((FileType::from_raw_mode(found.stx_mode.into()), object))
}

/// The key of a path's claim: the same for every way to write the path.
pub(crate) fn key(path: &Path) -> Result<String, Error> {
    let io = |error: std::io::Error| {
        let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        Error::system(errno, "the directory")
    };
    let absolute = std::path::absolute(path).map_err(io)?;
    let name =
        absolute.file_name().ok_or_else(|| Error::new(Kind::Invalid, "a path is missing"))?;
    let directory = absolute.parent().unwrap_or(Path::new("/"));
    let directory = std::fs::canonicalize(directory).map_err(io)?;
    Ok(format!("path:{}", directory.join(name).as_os_str().as_bytes().escape_ascii()))
}

/// Takes away what was proved to be left by the dead. It is moved aside first, so that nothing that
/// took its place meanwhile goes with it.
pub(crate) fn take_away(path: &Path, proved: Object) -> Result<(), Error> {
    let system = |errno: Errno| Error::system(errno, "");
    let aside = beside(path);
    match rustix::fs::rename(path, &aside) {
        Ok(()) => {}
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(system(errno)),
    }
    let (_, moved) = look(&aside).map_err(system)?;
    if moved == proved {
        return rustix::fs::unlink(&aside).map_err(system);
    }
    // Somebody was faster: it goes back where it was.
    rename_new(&aside, path).map_err(system)?;
    Err(Error::new(Kind::NameInUse { owner: None }, "another program has just taken the name"))
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

/// The error of an object that is not there.
pub(crate) fn missing(errno: Errno, what: &str) -> Error {
    match errno {
        Errno::NOENT => Error::system(errno, format!("no such {what}")),
        _ => Error::system(errno, ""),
    }
}
