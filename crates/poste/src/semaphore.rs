//! POSIX semaphores, named or in a memory, for programs that use them directly.
//!
//! The functions are libc's own on C's `sem_t`, so that any C program can be at the other end. A
//! named one is the file that sem_open would open (`/dev/shm/sem.NAME`); poste opens it itself,
//! because sem_open looks at no size before it maps, and narrows a mode by the umask. All clocks
//! are monotonic. A semaphore knows no owner: a permit taken by a process that is killed is lost,
//! and only a `Permit` leaves a proof of it.
//! Sources: sem_overview(7), sem_open(3), sem_wait(3), sem_post(3), sem_getvalue(3).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use poste_sys::segment::{Segment, page_size};
use poste_sys::semaphore::{self as sys, VALUE_MAX};
use rustix::fs::{OFlags, Stat};
use rustix::io::Errno;

use crate::error::{Error, Kind};
use crate::mechanism::path;
use crate::memory::Memory;
use crate::name::claim::Object;
use crate::name::shm_file::{ShmName, Sort, reserve};
use crate::wait::{Halt, Patience, Wait};

/// The permission bits of what is made unless asked otherwise.
const MODE: u32 = 0o600;

/// A POSIX semaphore: a number of permits that processes take and give.
///
/// Any thread may use it. Names have their slash or do without; a named semaphore stays until
/// [`Semaphore::remove`]. The value is at most SEM_VALUE_MAX, 2,147,483,647.
///
/// ```
/// use poste::{Kind, Memory, Semaphore};
/// # fn main() -> Result<(), poste::Error> {
/// # let name = &format!("poste-doc-semaphore-{}", std::process::id());
/// let mutex = Semaphore::create(name, 1)?; // sem_open(name, O_CREAT | O_EXCL, 0600, 1)
/// mutex.wait()?;
/// assert_eq!(Semaphore::open(name)?.try_wait().unwrap_err().kind(), Kind::Empty);
/// mutex.post()?;
/// assert_eq!(mutex.value(), 1);
/// Semaphore::remove(name)?;
///
/// let memory = Memory::create(name, 64)?;
/// let filled = Semaphore::init_at(&memory, 8, 0)?; // sem_init(memory + 8, 1, 0)
/// Semaphore::open_at(&memory, 8)?.post()?; // another process, as a rule
/// filled.wait_timeout(std::time::Duration::from_secs(1))?;
/// Memory::remove(name)?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Semaphore {
    semaphore: sys::Semaphore,
    label: String,
    /// The file of a named one.
    object: Option<NamedFile>,
}

/// The file of a named semaphore: another one may have its number later, but wasn't born with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NamedFile {
    /// Which file it is.
    pub(crate) object: Object,
    /// When it was made, in nanoseconds; 0 where the file system doesn't say.
    pub(crate) born: i128,
}

impl Semaphore {
    /// How many bytes one takes in a memory: C's `sizeof(sem_t)`.
    pub const SIZE: usize = sys::SIZE;

    /// What its offset in a memory is a multiple of: C's `alignof(sem_t)`.
    pub const ALIGN: usize = sys::ALIGN;

    /// Makes a named semaphore with mode 0600, which must not be there yet.
    ///
    /// # Errors
    /// As [`Semaphore::create_with`].
    pub fn create(name: impl AsRef<str>, value: u32) -> Result<Semaphore, Error> {
        Semaphore::create_with(name, value, MODE)
    }

    /// Makes a named semaphore, which must not be there yet. The mode is exactly this one, whatever
    /// the umask says; who may not read and write can't use it.
    ///
    /// # Errors
    /// `NameInUse`: open what is there, or take another name. `Limit` where /dev/shm is full.
    /// `Invalid` for a name, value or mode that is none.
    pub fn create_with(name: impl AsRef<str>, value: u32, mode: u32) -> Result<Semaphore, Error> {
        let on = |error: Error| error.on("create the semaphore", &name.as_ref());
        let name = ShmName::parse(Sort::Semaphore, name.as_ref()).map_err(on)?;
        let on = |error: Error| error.on("create the semaphore", &name);
        let fill = |file: BorrowedFd<'_>| {
            let segment = Segment::map(file, 0, sys::SIZE).map_err(refused)?;
            init(segment, 0, value)
        };
        let (file, semaphore) = name.create(sys::SIZE, mode, fill).map_err(on)?;
        let stat = rustix::fs::fstat(&file).map_err(|errno| on(refused(errno)))?;
        let object = Some(named_file(&file, &stat));
        Ok(Semaphore { semaphore, label: name.to_string(), object })
    }

    /// Opens a named semaphore that is there.
    ///
    /// # Errors
    /// `NotFound`, `Permission`; `Mismatch` where the name belongs to something of another size.
    pub fn open(name: impl AsRef<str>) -> Result<Semaphore, Error> {
        let on = |error: Error| error.on("open the semaphore", &name.as_ref());
        let name = ShmName::parse(Sort::Semaphore, name.as_ref()).map_err(on)?;
        let on = |error: Error| error.on("open the semaphore", &name);
        let (file, stat) = name.open(OFlags::RDWR).map_err(on)?;
        if stat.st_size != sys::SIZE as i64 {
            let size = stat.st_size;
            let detail = format!("a semaphore has {} bytes, and this has {size}", sys::SIZE);
            return Err(on(Error::new(Kind::Mismatch, detail)
                .with_hint("a program of another word size made it; choose another name")));
        }
        let semaphore = map(file.as_fd(), 0)
            .and_then(|(segment, offset)| sys::Semaphore::at(segment, offset).map_err(refused));
        let semaphore = semaphore.map_err(on)?;
        let object = Some(named_file(&file, &stat));
        Ok(Semaphore { semaphore, label: name.to_string(), object })
    }

    /// Takes the name away; who has the semaphore open keeps it.
    ///
    /// # Errors
    /// `NotFound`, `Permission`.
    pub fn remove(name: impl AsRef<str>) -> Result<(), Error> {
        let on = |error: Error| error.on("remove the semaphore", &name.as_ref());
        let name = ShmName::parse(Sort::Semaphore, name.as_ref()).map_err(on)?;
        name.remove().map_err(|error| error.on("remove the semaphore", &name))
    }

    /// The semaphore that somebody has made (sem_init, shared between processes) in a memory at this
    /// offset, a multiple of [`Semaphore::ALIGN`]. What isn't one can't be told from one.
    ///
    /// It is worked on in place: a peer that makes the memory shorter while this is in use ends this
    /// process (SIGBUS), so share it only with programs that are trusted with that.
    ///
    /// # Errors
    /// `Mismatch` where the memory ends before it; `Invalid` where it would not be aligned;
    /// `Permission` where the memory may only be read.
    pub fn open_at(memory: &Memory, offset: usize) -> Result<Semaphore, Error> {
        Semaphore::within(memory, offset, |segment, offset| {
            sys::Semaphore::at(segment, offset).map_err(refused)
        })
    }

    /// Makes a semaphore in a memory at this offset, for every process (sem_init). What was there is
    /// gone; who waits for it is not woken.
    ///
    /// # Errors
    /// As [`Semaphore::open_at`]; `Invalid` for a value beyond SEM_VALUE_MAX.
    pub fn init_at(memory: &Memory, offset: usize, value: u32) -> Result<Semaphore, Error> {
        Semaphore::within(memory, offset, |segment, offset| init(segment, offset, value))
    }

    fn within(
        memory: &Memory,
        offset: usize,
        place: impl FnOnce(Segment, usize) -> Result<sys::Semaphore, Error>,
    ) -> Result<Semaphore, Error> {
        let label = format!("at byte {offset} of the memory {}", memory.name());
        let on = |error: Error| error.on("use the semaphore", &label);
        let size = memory.size()?;
        if offset % sys::ALIGN != 0 {
            let detail = format!("a semaphore's offset is a multiple of {}", sys::ALIGN);
            return Err(on(Error::new(Kind::Invalid, detail).with_hint("as offsetof(…) in C")));
        }
        if offset.checked_add(sys::SIZE).is_none_or(|end| end > size) {
            let detail = format!("a semaphore has {} bytes, the memory {size}", sys::SIZE);
            return Err(on(Error::new(Kind::Mismatch, detail)
                .with_hint("its maker may not be done yet, or means another structure")));
        }
        let placed = map(memory.file().as_fd(), offset)
            .and_then(|(segment, offset)| place(segment, offset))
            .map_err(on)?;
        Ok(Semaphore { semaphore: placed, label, object: None })
    }

    /// Takes a permit, waiting for one as long as it takes (sem_wait).
    ///
    /// # Errors
    /// None but what the system says; a signal doesn't end it.
    pub fn wait(&self) -> Result<(), Error> {
        self.wait_with(Wait::Forever)
    }

    /// Takes a permit if one is there (sem_trywait).
    ///
    /// # Errors
    /// `Empty` where none is.
    pub fn try_wait(&self) -> Result<(), Error> {
        self.wait_with(Wait::Not)
    }

    /// Takes a permit, waiting for one at most so long (sem_clockwait, CLOCK_MONOTONIC).
    ///
    /// # Errors
    /// `TimedOut`.
    pub fn wait_timeout(&self, time: Duration) -> Result<(), Error> {
        self.wait_with(Wait::For(time))
    }

    /// Takes a permit, waiting for one until this moment (sem_clockwait, CLOCK_MONOTONIC). When it
    /// is over, a permit that is there is still taken.
    ///
    /// # Errors
    /// `TimedOut`.
    pub fn wait_deadline(&self, end: Instant) -> Result<(), Error> {
        self.wait_with(Wait::Until(end))
    }

    /// Takes a permit; the other forms come down to this.
    ///
    /// # Errors
    /// `Empty` where there is none and it may not wait; `TimedOut`.
    pub fn wait_with(&self, wait: Wait) -> Result<(), Error> {
        let taken = wait.clocked(|patience| match patience {
            Patience::Now => self.semaphore.try_wait(),
            Patience::Until(moment) => self.semaphore.wait_until(moment),
            Patience::Forever => self.semaphore.wait(),
        });
        taken.map_err(|halt| {
            let error = match (halt, wait) {
                (Halt::Later, Wait::Not) => Error::new(Kind::Empty, "its value is 0"),
                (Halt::Later, _) => Error::new(Kind::TimedOut, "its value stayed 0"),
                (Halt::System(errno), _) => Error::system(errno, ""),
            };
            error
                .with_hint("who holds it gives it back with post; who was killed never does")
                .on("wait for the semaphore", &self.label)
        })
    }

    /// Gives a permit (sem_post), and wakes one who waits.
    ///
    /// # Errors
    /// `Limit` where the value is SEM_VALUE_MAX already.
    pub fn post(&self) -> Result<(), Error> {
        self.semaphore.post().map_err(|errno| {
            let error = Error::system(errno, "");
            let error = match errno {
                Errno::OVERFLOW => error.as_kind(Kind::Limit {
                    name: "SEM_VALUE_MAX",
                    value: VALUE_MAX.into(),
                    raise_with: "nothing raises it; take permits first".to_owned(),
                }),
                _ => error,
            };
            error.on("post the semaphore", &self.label)
        })
    }

    /// How many permits there are; others may change that at any time (sem_getvalue).
    #[must_use]
    pub fn value(&self) -> u32 {
        self.semaphore.value().unwrap_or(0)
    }

    /// What it is called.
    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// The file of a named one.
    pub(crate) fn object(&self) -> Option<NamedFile> {
        self.object
    }
}

/// Maps the pages that hold a semaphore: the mapping, and the offset in it. Their memory is taken
/// now, as who made the file may not have done that.
fn map(file: BorrowedFd<'_>, offset: usize) -> Result<(Segment, usize), Error> {
    let within = offset % page_size();
    reserve(file, offset, sys::SIZE).map_err(|error| match error.errno() {
        Some(errno) if errno == Errno::BADF.raw_os_error() => {
            Error::new(Kind::Permission, "its memory may only be read")
                .with_hint("run it as the owner, or let the owner give it a wider mode")
        }
        _ => error,
    })?;
    let start = (offset - within) as u64;
    let segment = Segment::map(file, start, within + sys::SIZE).map_err(refused)?;
    Ok((segment, within))
}

fn init(segment: Segment, offset: usize, value: u32) -> Result<sys::Semaphore, Error> {
    sys::Semaphore::init(segment, offset, value).map_err(|errno| match errno {
        Errno::INVAL => {
            Error::new(Kind::Invalid, format!("a semaphore's value is at most {VALUE_MAX}"))
                .with_hint("most have 0 or 1")
        }
        _ => refused(errno),
    })
}

fn refused(errno: Errno) -> Error {
    match errno {
        Errno::NXIO => Error::new(Kind::Mismatch, "it was made shorter meanwhile")
            .with_hint("the program that made it knows why"),
        _ => Error::system(errno, ""),
    }
}

fn named_file(file: &OwnedFd, stat: &Stat) -> NamedFile {
    NamedFile { object: path::object(stat), born: path::born_open(file) }
}
