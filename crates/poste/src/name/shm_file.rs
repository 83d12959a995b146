//! The files of POSIX shared memory: opening them, placing new ones, taking them away.
//!
//! Memories are `/dev/shm/NAME`, named semaphores `/dev/shm/sem.NAME`: what shm_open and sem_open of
//! the C library use. A new file has no name until it has its mode, its memory and what it starts
//! with, and is then given one that must be free: nobody sees it half made, or more open than asked
//! for, and whoever is killed on the way leaves nothing.
//! Sources: shm_overview(7), sem_overview(7), open(2) (O_TMPFILE), linkat(2), fallocate(2).

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use poste_sys::segment;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::{Error, Kind};

/// Where the C library keeps them.
const FOLDER: &str = "/dev/shm";

/// The longest name of a file: NAME_MAX.
const FILE_NAME_MAX: usize = 255;

/// What the C library puts before a semaphore's name.
const SEMAPHORE: &str = "sem.";

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    /// Memory to read and write.
    Memory,
    /// A semaphore and nothing else.
    Semaphore,
}

impl Sort {
    /// What it is called, in errors and on the command line.
    fn word(self) -> &'static str {
        match self {
            Sort::Memory => "memory",
            Sort::Semaphore => "semaphore",
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Sort::Memory => "",
            Sort::Semaphore => SEMAPHORE,
        }
    }

    /// The command that makes one.
    fn maker(self, name: &ShmName) -> String {
        match self {
            Sort::Memory => format!("create it: poste memory write {name} TEXT"),
            Sort::Semaphore => format!("create it: poste semaphore create {name}"),
        }
    }
}

/// The name of such a file, without the slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShmName {
    sort: Sort,
    name: String,
}

impl fmt::Display for ShmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.name)
    }
}

impl ShmName {
    /// Reads a name, with the slash at its front or without.
    ///
    /// # Errors
    /// `Invalid`.
    pub(crate) fn parse(sort: Sort, text: &str) -> Result<ShmName, Error> {
        let name = text.strip_prefix('/').unwrap_or(text);
        let length_max = FILE_NAME_MAX - sort.prefix().len();
        let reason = match name {
            "" | "." | ".." => "it is no name".to_owned(),
            _ if name.contains('/') => "only its front may have a slash".to_owned(),
            _ if name.contains('\0') => "it holds a zero byte".to_owned(),
            _ if name.len() > length_max => format!("it has more than {length_max} bytes"),
            _ => return Ok(ShmName { sort, name: name.to_owned() }),
        };
        let detail = format!("{text:?} names no {}: {reason}", sort.word());
        Err(Error::new(Kind::Invalid, detail).with_hint("as in /jobs, or jobs"))
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("{FOLDER}/{}{}", self.sort.prefix(), self.name))
    }

    /// Opens the file, which must be a plain one and no link.
    ///
    /// # Errors
    /// `NotFound`, `Permission`, `Mismatch`.
    pub(crate) fn open(&self, access: OFlags) -> Result<(OwnedFd, Stat), Error> {
        let flags = access | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = match rustix::fs::openat(CWD, self.path(), flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => return Err(self.another_thing()),
            Err(errno) => return Err(self.explain(errno)),
        };
        let stat = rustix::fs::fstat(&file).map_err(|errno| self.explain(errno))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok((file, stat)),
            _ => Err(self.another_thing()),
        }
    }

    /// Makes the file, of this size and with this mode: `fill` writes what it starts with.
    ///
    /// # Errors
    /// `NameInUse`; `Limit` where the file system is full; `Invalid` for a mode that is none.
    pub(crate) fn create<T>(
        &self,
        size: usize,
        mode: u32,
        fill: impl FnOnce(BorrowedFd<'_>) -> Result<T, Error>,
    ) -> Result<(OwnedFd, T), Error> {
        if mode > 0o777 {
            return Err(Error::new(Kind::Invalid, format!("{mode:o} is no mode"))
                .with_hint("permission bits are octal, as in 0600"));
        }
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let file = rustix::fs::openat(CWD, FOLDER, flags, Mode::empty()).map_err(unmounted)?;
        reserve(file.as_fd(), 0, size)?;
        let filled = fill(file.as_fd())?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))
            .and_then(|()| self.give(&file))
            .map_err(|errno| self.explain(errno))?;
        Ok((file, filled))
    }

    /// Gives the file its name.
    fn give(&self, file: &OwnedFd) -> Result<(), Errno> {
        let itself = format!("/proc/self/fd/{}", file.as_raw_fd());
        match rustix::fs::linkat(CWD, itself, CWD, self.path(), AtFlags::SYMLINK_FOLLOW) {
            // Without /proc the kernel wants rights, or (from 6.10) that the opener asks.
            Err(Errno::NOENT) => {
                rustix::fs::linkat(file, "", CWD, self.path(), AtFlags::EMPTY_PATH)
            }
            done => done,
        }
    }

    /// Takes the name away.
    ///
    /// # Errors
    /// `NotFound`, `Permission`.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        rustix::fs::unlink(self.path()).map_err(|errno| self.explain(errno))
    }

    fn another_thing(&self) -> Error {
        let detail = format!("{} is no {}", self.path().display(), self.sort.word());
        Error::new(Kind::Mismatch, detail).with_hint("choose another name")
    }

    fn explain(&self, errno: Errno) -> Error {
        let word = self.sort.word();
        match errno {
            Errno::NOENT => {
                Error::system(errno, format!("no such {word}")).with_hint(self.sort.maker(self))
            }
            Errno::EXIST => Error::system(errno, "").with_hint(format!(
                "use what is there, take another name, or if nobody needs it: \
                 poste {word} remove {self}"
            )),
            Errno::ACCESS | Errno::PERM => Error::system(errno, "")
                .with_hint("run it as the owner, or let the owner give it a wider mode"),
            _ => Error::system(errno, ""),
        }
    }
}

/// Takes the memory for a part of a file now, and makes the file as long as that needs.
///
/// # Errors
/// `Limit` where the file system is full.
pub(crate) fn reserve(file: BorrowedFd<'_>, offset: usize, size: usize) -> Result<(), Error> {
    segment::reserve(file, offset as u64, size as u64).map_err(|errno| full(errno, file, size))
}

/// The error of a file system that could not take `size` bytes more.
pub(crate) fn full(errno: Errno, file: BorrowedFd<'_>, size: usize) -> Error {
    let error = Error::system(errno, "");
    let Ok(system) = rustix::fs::fstatvfs(file) else { return error };
    if errno != Errno::NOSPC {
        return error;
    }
    let value = system.f_blocks.saturating_mul(system.f_frsize);
    let enough = value.saturating_add(size as u64).div_ceil(1 << 20).saturating_mul(2);
    error.as_kind(Kind::Limit {
        name: "size of /dev/shm",
        value,
        raise_with: format!("mount -o remount,size={enough}M /dev/shm"),
    })
}

fn unmounted(errno: Errno) -> Error {
    let error = Error::system(errno, FOLDER);
    match errno {
        Errno::NOENT | Errno::NOTDIR => {
            error.as_kind(Kind::System).with_hint("mount -t tmpfs tmpfs /dev/shm")
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_word_with_or_without_its_slash() {
        for text in ["/x", "x"] {
            let name = ShmName::parse(Sort::Semaphore, text).unwrap();
            assert_eq!((name.to_string().as_str(), name.path()), ("/x", "/dev/shm/sem.x".into()));
        }
        for text in ["", "/", "//x", "a/b", ".", "/..", "a\0b", &"x".repeat(252)] {
            let error = ShmName::parse(Sort::Semaphore, text).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{text:?}");
        }
        assert!(ShmName::parse(Sort::Memory, &"x".repeat(255)).is_ok());
    }

    #[test]
    fn a_new_file_has_the_mode_asked_for_and_replaces_nothing() {
        let text = format!("poste-place-{}", std::process::id());
        let name = ShmName::parse(Sort::Memory, &text).unwrap();
        let make = |mode| name.create(10, mode, |_| Ok(()));
        make(0o666).unwrap();
        let (_file, stat) = name.open(OFlags::RDWR).unwrap();
        assert_eq!((stat.st_mode & 0o7777, stat.st_size), (0o666, 10));
        assert!(matches!(make(0o600).unwrap_err().kind(), Kind::NameInUse { .. }));
        assert_eq!(make(0o1000).unwrap_err().kind(), Kind::Invalid);
        name.remove().unwrap();
        assert_eq!(name.remove().unwrap_err().kind(), Kind::NotFound);
    }

    #[test]
    fn a_link_and_a_directory_are_no_memory() {
        let text = format!("poste-link-{}", std::process::id());
        let name = ShmName::parse(Sort::Memory, &text).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", name.path()).unwrap();
        assert_eq!(name.open(OFlags::RDWR).unwrap_err().kind(), Kind::Mismatch);
        name.remove().unwrap();
        std::fs::create_dir(name.path()).unwrap();
        assert_eq!(name.open(OFlags::RDWR).unwrap_err().kind(), Kind::Mismatch);
        assert_eq!(name.open(OFlags::RDONLY).unwrap_err().kind(), Kind::Mismatch);
        std::fs::remove_dir(name.path()).unwrap();
    }
}
