//! FIFOs as objects: made, opened without waiting, removed, and listed: those that poste made and
//! those that somebody has open. Nobody is told of a look at one.
//!
//! Sources: fifo(7), mkfifo(3), open(2) (ENXIO), pidfd_getfd(2).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, mkfifoat};
use rustix::io::Errno;
use rustix::pipe::fcntl_getpipe_size;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::fifo_turns::reader_key;
use super::{Opening, path};
use crate::address::Address;
use crate::error::{Error, Kind};
use crate::name::claim::Seized;
use crate::name::descriptors::{Opened as Descriptor, What};
use crate::name::registry;
use crate::object::{Listing, Object};
use crate::options::Create;
use crate::survey::{Survey, age_of_file, end_of, since};

pub(super) fn remove(address: &Address) -> Result<(), Error> {
    let path = path::of(address)?;
    path::remove(path, FileType::Fifo, "FIFO")?;
    if let Ok(key) = path::key(path) {
        registry::forget(&key);
        // A dead receiver's lock goes with its FIFO; one that can't be read is gc's.
        if let Ok(Some(seized)) = Seized::of(&reader_key(&key)) {
            seized.take_away()?;
        }
    }
    Ok(())
}

/// The address as it is listed.
pub(super) fn place(address: &Address) -> Result<Address, Error> {
    check(path::of(address)?, address)?;
    path::absolute_address(address, path::of(address)?)
}

/// The FIFOs that poste made, and those that somebody has open.
pub(super) fn list(survey: &Survey) -> Listing {
    let mut listing = Listing::none();
    let mut places = BTreeMap::new();
    for (entry, record) in survey.recorded("fifo") {
        let place = PathBuf::from(OsStr::from_bytes(record.address.rest()));
        match rustix::fs::lstat(&place) {
            Ok(stat) if path::is_still(&place, &stat, record.object, record.born) => {
                places.insert(place, Some(record.made));
            }
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) if entry.maker.is_none() => {
                listing.gone.push(entry.clone());
            }
            _ => {}
        }
    }
    for (what, opened) in survey.descriptors.all() {
        let (What::Fifo(object), Some(first)) = (what, opened.first()) else { continue };
        let is_it = |stat| path::object(&stat) == object;
        if rustix::fs::lstat(&first.path).is_ok_and(is_it) {
            places.entry(first.path.clone()).or_insert(None);
        }
    }
    let wanted = survey.wanted("fifo").map(|address| OsStr::from_bytes(address.rest()));
    if let Some(wanted) = wanted {
        places.entry(PathBuf::from(wanted)).or_insert(None);
    }
    for (place, made) in places {
        let object = look(survey, &place, made, &mut listing);
        listing.objects.extend(object);
    }
    listing
}

fn look(survey: &Survey, place: &Path, made: Option<u64>, listing: &mut Listing) -> Option<Object> {
    let stat = rustix::fs::lstat(place).ok()?;
    path::expect(&stat, FileType::Fifo, "FIFO").ok()?;
    let mut object = Object::new("fifo", Address::new("fifo", place.as_os_str().as_bytes()).ok()?);
    object.mode = Some(stat.st_mode & 0o777);
    survey.owned(&mut object, stat.st_uid);
    object.age = made.and_then(since).or_else(|| age_of_file(place));
    let what = What::Fifo(path::object(&stat));
    let inside = survey.descriptors.of(what).iter().find_map(|opened| look_inside(opened, &stat));
    (object.bytes, object.capacity) = inside.unzip();
    let holders = survey.holders(what, end_of);
    survey.held(&mut object, holders, listing);
    Some(object)
}

/// How many bytes lie in a FIFO, and for how many there is room. Opening it would tell its users
/// that somebody came: a copy of a descriptor that is open already tells nobody.
fn look_inside(opened: &Descriptor, stat: &Stat) -> Option<(u64, u64)> {
    let pid = rustix::process::Pid::from_raw(opened.pid as i32)?;
    let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let copy = pidfd_getfd(&process, opened.number as i32, PidfdGetfdFlags::empty()).ok()?;
    let is_it = path::object(&rustix::fs::fstat(&copy).ok()?) == path::object(stat);
    let size = fcntl_getpipe_size(&copy).ok()?;
    is_it.then(|| Some((rustix::io::ioctl_fionread(&copy).ok()?, size as u64)))?
}

pub(super) fn make(opening: &Opening<'_>) -> Result<(), Error> {
    path::place(opening.address, opening.options.mode_or_default(), |name| {
        mkfifoat(CWD, name, Mode::RUSR | Mode::WUSR)
    })
}

/// Makes the FIFO where that is asked for; what is there is used if it is one.
pub(super) fn ensure<'a>(opening: &'a Opening<'_>) -> Result<&'a Path, Error> {
    let path = path::of(opening.address)?;
    path::refuse_planted(path, opening.options.create != Create::No)?;
    match opening.options.create {
        Create::No => {}
        Create::New => make(opening)?,
        Create::IfAbsent => match make(opening) {
            Err(error) if error.errno() == Some(Errno::EXIST.raw_os_error()) => {}
            done => done?,
        },
    }
    Ok(path)
}

/// Opens the FIFO without waiting for the other side; `ENXIO` where a reader is missing.
pub(super) fn open(path: &Path, access: OFlags) -> Result<OwnedFd, Errno> {
    let flags = access | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let descriptor = rustix::fs::open(path, flags, Mode::empty())?;
    // What was checked may have been replaced since: nothing is written into what is no FIFO.
    let stat = rustix::fs::fstat(&descriptor)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Fifo {
        return Err(Errno::NOENT);
    }
    // This description is ours alone; plain calls on it wait from now on.
    let flags = rustix::fs::fcntl_getfl(&descriptor)?;
    rustix::fs::fcntl_setfl(&descriptor, flags - OFlags::NONBLOCK)?;
    Ok(descriptor)
}

/// Makes sure of what was just opened: the path leads to it, and through no link that a stranger has
/// planted. What was looked at before it was opened may have been another.
///
/// # Errors
/// `Permission` for what was planted, `Removed` where something else has the path by now.
pub(super) fn confirm(path: &Path, opened: impl AsFd, create: Create) -> Result<(), Error> {
    path::refuse_planted(path, create != Create::No)?;
    let ours = rustix::fs::fstat(opened).map_err(|errno| Error::system(errno, ""))?;
    match rustix::fs::stat(path) {
        Ok(there) if path::object(&there) == path::object(&ours) => Ok(()),
        Ok(_) | Err(Errno::NOENT) => {
            Err(Error::new(Kind::Removed, "the FIFO was replaced while it was opened")
                .with_hint("see who does that, and try again"))
        }
        Err(errno) => Err(Error::system(errno, "")),
    }
}

/// Refuses what is no FIFO before it is opened: opening a device may do things.
pub(super) fn check(path: &Path, address: &Address) -> Result<(), Error> {
    let stat = rustix::fs::stat(path).map_err(|errno| {
        let error = path::missing(errno, "FIFO");
        match errno {
            Errno::NOENT => error.with_hint(format!("make it: poste create {}", address.bare())),
            _ => error,
        }
    })?;
    path::expect(&stat, FileType::Fifo, "FIFO")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, lchown, symlink};

    /// As where somebody swaps what has the path between the look and the open.
    #[test]
    fn what_was_opened_is_what_the_path_leads_to() {
        let test = "what_was_opened_is_what_the_path_leads_to";
        let folder = std::env::temp_dir().join(format!("poste-confirm-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o1777)).unwrap();
        let (one, other, link) = (folder.join("one"), folder.join("other"), folder.join("link"));
        for path in [&one, &other] {
            mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR).unwrap();
        }
        symlink(&one, &link).unwrap();
        let opened = open(&one, OFlags::RDONLY).unwrap();
        let kind =
            |path: &Path, create| confirm(path, &opened, create).err().map(|error| error.kind());
        for create in [Create::No, Create::IfAbsent] {
            assert_eq!(kind(&one, create), None);
            assert_eq!(kind(&link, create), None, "one's own link is followed");
            assert_eq!(kind(&other, create), Some(Kind::Removed));
            assert_eq!(kind(&folder.join("none"), create), Some(Kind::Removed));
        }
        match lchown(&link, Some(65_534), Some(65_534)) {
            Ok(()) => assert_eq!(kind(&link, Create::No), Some(Kind::Permission)),
            Err(_) => poste_sys::testing::skip(test, "only root can give a link away"),
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
