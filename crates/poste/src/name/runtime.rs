//! The runtime directory: where this user's locks and records are, the same for every process.
//!
//! `$POSTE_DIR`, else `$XDG_RUNTIME_DIR/poste` (if that is ours), else `/run/user/UID/poste`, else
//! `/dev/shm/poste-UID`. It is a directory of ours, no link, and nobody else may enter it.
//! Sources: XDG Base Directory Specification, tmpfs(5).

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::error::{Error, Kind};

/// Where the runtime directory is, whether it is there or not.
#[must_use]
pub(crate) fn path() -> PathBuf {
    let uid = geteuid().as_raw();
    if let Some(directory) = set("POSTE_DIR") {
        return directory;
    }
    // One that isn't absolute is invalid, says the specification.
    let xdg = set("XDG_RUNTIME_DIR").filter(|directory| directory.is_absolute());
    if let Some(directory) = xdg.filter(|directory| is_ours(directory)) {
        return directory.join("poste");
    }
    let of_user = PathBuf::from(format!("/run/user/{uid}"));
    if is_ours(&of_user) {
        return of_user.join("poste");
    }
    PathBuf::from(format!("/dev/shm/poste-{uid}"))
}

fn set(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value: &OsString| !value.is_empty()).map(PathBuf::from)
}

fn is_ours(directory: &Path) -> bool {
    rustix::fs::stat(directory).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::Directory
            && stat.st_uid == geteuid().as_raw()
    })
}

/// A part of the runtime directory, made where it is absent: its path.
///
/// # Errors
/// `Permission` where somebody else owns what is there, or may enter it, or it is a link.
pub(crate) fn part(name: &str) -> Result<PathBuf, Error> {
    let directory = absolute()?;
    ensure(&directory)?;
    let part = directory.join(name);
    ensure(&part)?;
    Ok(part)
}

/// A part of the runtime directory that may be absent: nothing is made.
///
/// # Errors
/// As [`part`].
pub(crate) fn existing_part(name: &str) -> Result<Option<PathBuf>, Error> {
    let directory = absolute()?;
    for directory in [&directory, &directory.join(name)] {
        match open(directory) {
            Ok(opened) => check(&opened, directory)?,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(explain(errno, directory)),
        }
    }
    Ok(Some(directory.join(name)))
}

/// A relative one would be another after chdir(2), and for other processes.
fn absolute() -> Result<PathBuf, Error> {
    let directory = path();
    match directory.is_absolute() {
        true => Ok(directory),
        false => Err(refuse(format!("POSTE_DIR is relative: {}", directory.display()))
            .as_kind(Kind::Invalid)),
    }
}

fn ensure(directory: &Path) -> Result<(), Error> {
    match rustix::fs::mkdir(directory, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(explain(errno, directory)),
    }
    let opened = open(directory).map_err(|errno| explain(errno, directory))?;
    check(&opened, directory)
}

/// Opens it without following a link.
fn open(directory: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, directory, flags, Mode::empty())
}

fn check(opened: &OwnedFd, directory: &Path) -> Result<(), Error> {
    let stat = rustix::fs::fstat(opened).map_err(|errno| explain(errno, directory))?;
    let shown = directory.display();
    if stat.st_uid != geteuid().as_raw() {
        let detail = format!("the runtime directory {shown} belongs to user {}", stat.st_uid);
        return Err(refuse(detail));
    }
    if stat.st_mode & 0o077 != 0 {
        let detail = format!("others may enter the runtime directory {shown}");
        return Err(refuse(detail).with_hint(format!("chmod 0700 {shown}")));
    }
    Ok(())
}

/// The error of a file in the runtime directory.
pub(crate) fn system(errno: Errno, detail: String) -> Error {
    let error = Error::system(errno, detail);
    match errno {
        Errno::NOSPC | Errno::DQUOT => error.with_hint(
            "make room there, or set POSTE_DIR to a directory of your own elsewhere, with mode 0700",
        ),
        _ => error,
    }
}

fn refuse(detail: String) -> Error {
    Error::new(Kind::Permission, detail)
        .with_hint("set POSTE_DIR to a directory of your own, with mode 0700")
}

fn explain(errno: Errno, directory: &Path) -> Error {
    let shown = directory.display();
    match errno {
        Errno::LOOP | Errno::NOTDIR => {
            refuse(format!("the runtime directory {shown} is a link or no directory"))
        }
        // Another directory wouldn't mend it.
        Errno::MFILE | Errno::NFILE => Error::system(errno, ""),
        _ => Error::system(errno, format!("the runtime directory {shown}"))
            .with_hint("set POSTE_DIR to a directory of your own, with mode 0700"),
    }
}
