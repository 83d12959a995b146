//! Permits of named semaphores that leave a proof behind when who holds them is killed.
//!
//! A semaphore knows no owner. A [`Permit`] is taken together with a record, a small file in the
//! runtime directory: it names the semaphore and the process, and has a lock that the kernel drops
//! with it. The record gets its name after the permit was taken, and loses it before the permit is
//! given back. So a record that stands there proves at least one permit; killed between the two steps,
//! a microsecond, a process leaves a lost permit that nothing proves, and never a proof of one that
//! was not lost: a mutex is never opened twice. Who takes permits without records is not known here.
//! Sources: sem_overview(7), open(2) (O_TMPFILE), linkat(2), fcntl(2), prctl(2) (PR_SET_PDEATHSIG).

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use poste_sys::{child, lock};
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use crate::error::{Error, Kind};
use crate::name::claim::{self, Object};
use crate::name::owner::Owner;
use crate::name::runtime;
use crate::semaphore::{NamedFile, Semaphore};
use crate::wait::{Halt, Wait};

/// The part of the runtime directory that holds the records.
const PERMITS: &str = "permits";

/// How long killing a command and what it started may take, before it counts as one that stays.
const DYING: Wait = Wait::For(Duration::from_millis(200));

/// How often it is looked whether that is done.
const DYING_PAUSE: Duration = Duration::from_millis(1);

/// How long giving one back waits for another who does, which is a few system calls.
const TURN: Wait = Wait::For(Duration::from_secs(5));

/// How often that one is looked for.
const TURN_PAUSE: Duration = Duration::from_millis(1);

/// The largest record that is read: a name and a few numbers.
const RECORD_MAX: usize = 4 << 10;

/// A permit of a named semaphore, given back when this is dropped, and proved lost when this process
/// is killed: [`lost_permits`] finds it then.
///
/// ```
/// use poste::{Permit, Semaphore, Wait};
/// # fn main() -> Result<(), poste::Error> {
/// # let name = &format!("poste-doc-permit-{}", std::process::id());
/// let lock = Semaphore::create(name, 1)?;
/// let permit = Permit::take(&lock, Wait::Forever)?;
/// assert_eq!(lock.value(), 0);
/// assert!(poste::lost_permits()?.iter().all(|lost| lost.semaphore() != format!("/{name}")));
/// permit.give_back()?;
/// assert_eq!(lock.value(), 1);
/// Semaphore::remove(name)?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Permit<'a> {
    semaphore: &'a Semaphore,
    record: File,
    path: PathBuf,
    /// The process that took it: a forked child gives nothing back.
    pid: u32,
    /// It was given back, or tried to.
    is_given: bool,
}

impl<'a> Permit<'a> {
    /// Takes a permit, waiting for one as long as `wait` says.
    ///
    /// # Errors
    /// As [`Semaphore::wait_with`]; `NotSupported` for a semaphore in a memory, which has no name to
    /// be found by. What the system said of the record: the permit was given back then.
    pub fn take(semaphore: &'a Semaphore, wait: Wait) -> Result<Permit<'a>, Error> {
        let on = |error: Error| error.on("take a permit of", &semaphore.label());
        let file = semaphore.object().ok_or_else(|| {
            on(Error::new(Kind::NotSupported, "only a named semaphore can be found again")
                .with_hint("use Semaphore::wait and post"))
        })?;
        if semaphore.label().contains(char::is_control) {
            return Err(on(Error::new(Kind::NotSupported, "its name has control characters")
                .with_hint("use Semaphore::wait and post, or a name of letters")));
        }
        let directory = runtime::part(PERMITS).map_err(on)?;
        let path = directory.join(format!("{:016x}", crate::sequence::draw()));
        let note = Note {
            semaphore: semaphore.label().to_owned(),
            file,
            owner: Owner::myself(),
            command: None,
        };
        let record = prepare(&directory, &note).map_err(on)?;
        semaphore.wait_with(wait)?;
        if let Err(errno) = show(&record, &path) {
            semaphore.post()?;
            return Err(on(system(errno, &path)));
        }
        Ok(Permit { semaphore, record, path, pid: std::process::id(), is_given: false })
    }

    /// Gives it back (sem_post).
    ///
    /// # Errors
    /// As [`Semaphore::post`].
    pub fn give_back(mut self) -> Result<(), Error> {
        self.end()
    }

    /// Starts a command that works under this permit: with all that it starts it dies (SIGKILL) with
    /// the calling thread, and the permit counts as lost only when they are gone too. What stays then
    /// is a program of another user (set-user-ID), and the permit with it. The child is the command's
    /// guard, a process between that ends as the command does and passes signals on to it.
    ///
    /// # Errors
    /// Those of [`Command::spawn`]; what the system said of the record: the command was ended then.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        child::die_with_parent(command);
        let mut child = command.spawn()?;
        // One that has ended already works no more under it.
        let Some(owner) = Owner::of(child.id()) else { return Ok(child) };
        // One write at the end of one small file: a reader sees all of it or nothing.
        let more = format!("command {owner}\nend\n");
        let noted = self
            .record
            .metadata()
            .and_then(|meta| self.record.write_all_at(more.as_bytes(), meta.len()));
        if let Err(error) = noted {
            // It may have ended by itself; then there is nothing to end or to wait for.
            let _ = child.kill();
            let _ = child.wait();
            return Err(error);
        }
        Ok(child)
    }

    fn end(&mut self) -> Result<(), Error> {
        if self.is_given || self.pid != std::process::id() {
            return Ok(());
        }
        self.is_given = true;
        match rustix::fs::unlink(&self.path) {
            // Nobody gives back for the living; a record that is gone went with its directory.
            Ok(()) | Err(Errno::NOENT) => {}
            // It can't go, so it must not prove anything any more.
            Err(errno) => self.record.set_len(0).map_err(|_| system(errno, &self.path))?,
        }
        self.semaphore.post()
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        // What can't be given back is proved by its record, which stays in that case.
        let _ = self.end();
    }
}

/// A permit that was taken by a process that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostPermit {
    path: PathBuf,
    note: Note,
    is_there: bool,
}

impl LostPermit {
    /// The semaphore's name, with its slash.
    #[must_use]
    pub fn semaphore(&self) -> &str {
        &self.note.semaphore
    }

    /// Whether the semaphore is still there; if it isn't, giving back only clears the record away.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.is_there
    }

    /// What proves that it is lost, in words.
    #[must_use]
    pub fn proof(&self) -> String {
        let pid = self.note.owner.pid;
        match self.is_there {
            true => format!("process {pid} took it and is gone"),
            false => format!("process {pid} took it and is gone, and so is the semaphore"),
        }
    }

    /// Gives it back (sem_post), once, whoever else tries that at the same time.
    ///
    /// # Errors
    /// `NotFound` where somebody else gave it back meanwhile; `TimedOut` where somebody is about it for
    /// more than 5 seconds; as [`Semaphore::open`] and
    /// [`Semaphore::post`].
    pub fn give_back(&self) -> Result<(), Error> {
        let on = |error: Error| error.on("give back a permit of", &self.note.semaphore);
        let file = open(&self.path).map_err(|errno| on(system(errno, &self.path)))?;
        // One at a time; the lock of the record itself may still be held by a child of the dead.
        TURN.retry(TURN_PAUSE, |_| flock(&file, FlockOperation::NonBlockingLockExclusive))
            .map_err(|halt| match halt {
                Halt::System(errno) => on(system(errno, &self.path)),
                Halt::Later => on(Error::new(Kind::TimedOut, "another program is at its record")
                    .with_hint("see who holds it: lsof and the path of the record")),
            })?;
        let is_ours = claim::is_at(&file, &self.path) && read(&file).as_ref() == Some(&self.note);
        if !is_ours || !is_lost(&file, &self.note) {
            return Err(on(Error::new(Kind::NotFound, "another program gave it back just now")
                .with_hint("nothing is left to be done")));
        }
        let semaphore = self.note.open().map_err(on)?;
        rustix::fs::unlink(&self.path).map_err(|errno| on(system(errno, &self.path)))?;
        semaphore.map_or(Ok(()), |semaphore| semaphore.post()).map_err(on)
    }
}

/// The permits that this user's processes took with a record and can never give back: they are gone.
///
/// # Errors
/// What the system said of the runtime directory; single records that can't be read prove nothing.
pub fn lost_permits() -> Result<Vec<LostPermit>, Error> {
    let Some(directory) = runtime::existing_part(PERMITS)? else { return Ok(Vec::new()) };
    let entries = std::fs::read_dir(&directory)
        .map_err(|error| system(Errno::from_io_error(&error).unwrap_or(Errno::IO), &directory))?;
    let mut lost = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(file) = open(&path) else { continue };
        let Some(note) = read(&file).filter(|note| is_lost(&file, note)) else { continue };
        // A semaphore that can't be opened is there; giving back will say why it fails.
        let is_there = !matches!(note.open(), Ok(None));
        lost.push(LostPermit { path, note, is_there });
    }
    Ok(lost)
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Note {
    /// The semaphore's name.
    semaphore: String,
    /// Its file: another one of the same name has other permits.
    file: NamedFile,
    /// Who took the permit.
    owner: Owner,
    /// The command that works under it.
    command: Option<Owner>,
}

impl Note {
    /// The semaphore, if it is still the same.
    fn open(&self) -> Result<Option<Semaphore>, Error> {
        match Semaphore::open(&self.semaphore) {
            Ok(semaphore) if semaphore.object() == Some(self.file) => Ok(Some(semaphore)),
            Ok(_) => Ok(None),
            Err(error) if error.is(&Kind::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn to_text(&self) -> String {
        let NamedFile { object: Object { device, inode }, born } = self.file;
        let mut text = format!("poste 1\nowner {}\nobject {device} {inode}\n", self.owner);
        // Writing to a string never fails; `take` refuses names of several lines.
        let _ = writeln!(text, "born {born}\nsemaphore {}", self.semaphore);
        // The last line says that it is whole.
        text.push_str("end\n");
        text
    }

    fn parse(text: &str) -> Option<Note> {
        let mut lines = text.lines();
        if lines.next() != Some("poste 1") || !text.ends_with("\nend\n") {
            return None;
        }
        let (mut semaphore, mut object, mut owner, mut command) = (None, None, None, None);
        let mut born = 0;
        for line in lines {
            match line.split_once(' ') {
                Some(("semaphore", value)) => semaphore = Some(value.to_owned()),
                Some(("owner", value)) => owner = Some(Owner::parse(value)?),
                Some(("command", value)) => command = Some(Owner::parse(value)?),
                Some(("object", value)) => object = Some(Object::parse(value)?),
                Some(("born", value)) => born = value.parse().ok()?,
                _ => {}
            }
        }
        let file = NamedFile { object: object?, born };
        Some(Note { semaphore: semaphore?, file, owner: owner?, command })
    }
}

/// A free lock or a process that is gone: either proves the owner dead. Its command outlives it by
/// the moments in which it is killed, which are waited for.
fn is_lost(file: &File, note: &Note) -> bool {
    let is_dead = lock::is_locked(file.as_fd()) == Ok(false) || note.owner.is_gone();
    is_dead && note.command.as_ref().is_none_or(ends_soon)
}

fn ends_soon(command: &Owner) -> bool {
    let look = |_| if command.is_gone() { Ok(()) } else { Err(Errno::AGAIN) };
    DYING.retry(DYING_PAUSE, look).is_ok()
}

/// Writes a record that has no name yet, and takes its lock: who is killed now leaves nothing.
fn prepare(directory: &Path, note: &Note) -> Result<File, Error> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(CWD, directory, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => File::from(file),
        Err(errno @ (Errno::OPNOTSUPP | Errno::ISDIR)) => {
            return Err(system(errno, directory)
                .with_hint("set POSTE_DIR to a directory on a tmpfs, with mode 0700"));
        }
        Err(errno) => return Err(system(errno, directory)),
    };
    lock::try_lock(file.as_fd()).map_err(|errno| system(errno, directory))?;
    file.write_all_at(note.to_text().as_bytes(), 0)
        .map_err(|error| system(Errno::from_io_error(&error).unwrap_or(Errno::IO), directory))?;
    Ok(file)
}

/// Gives a record its name.
fn show(record: &File, path: &Path) -> Result<(), Errno> {
    let itself = format!("/proc/self/fd/{}", record.as_raw_fd());
    rustix::fs::linkat(CWD, itself, CWD, path, AtFlags::SYMLINK_FOLLOW)
}

fn open(path: &Path) -> Result<File, Errno> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = File::from(rustix::fs::openat(CWD, path, flags, Mode::empty())?);
    // The directory lets nobody else in; a record that another user made proves nothing all the same.
    let is_ours = rustix::fs::fstat(&file)?.st_uid == rustix::process::geteuid().as_raw();
    if is_ours { Ok(file) } else { Err(Errno::PERM) }
}

fn read(file: &File) -> Option<Note> {
    let mut bytes = vec![0; RECORD_MAX];
    let count = file.read_at(&mut bytes, 0).ok()?;
    Note::parse(std::str::from_utf8(&bytes[..count]).ok()?)
}

fn system(errno: Errno, path: &Path) -> Error {
    runtime::system(errno, format!("the record {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note() -> Note {
        Note {
            semaphore: "/a b".to_owned(),
            file: NamedFile { object: Object { device: 1, inode: 2 }, born: -3 },
            owner: Owner::myself(),
            command: None,
        }
    }

    #[test]
    fn a_record_is_read_back_only_whole() {
        let note = note();
        let text = note.to_text();
        assert_eq!(Note::parse(&text), Some(note.clone()));
        for end in 0..text.len() {
            assert_eq!(Note::parse(&text[..end]), None, "{end}");
        }
        let command = Some(Owner::myself());
        let more = format!("{text}command {}\nend\n", Owner::myself());
        assert_eq!(Note::parse(&more), Some(Note { command, ..note }));
    }

    #[test]
    fn a_permit_is_lost_when_its_process_and_its_command_are_gone() {
        let name = format!("poste-lost-{}", std::process::id());
        let semaphore = Semaphore::create(&name, 1).unwrap();
        let permit = Permit::take(&semaphore, Wait::Not).unwrap();
        assert_eq!(Permit::take(&semaphore, Wait::Not).unwrap_err().kind(), Kind::Empty);
        let label = format!("/{name}");
        let mine = || {
            let mut all = lost_permits().unwrap();
            all.retain(|lost| lost.semaphore() == label);
            all
        };
        assert_eq!(mine(), []);
        let mut command = permit.spawn(Command::new("sleep").arg("30")).unwrap();
        // As if this process were gone: its lock is free, and nobody gives anything back.
        lock::unlock(permit.record.as_fd()).unwrap();
        assert_eq!(mine(), [], "the command still works under it");
        command.kill().unwrap();
        command.wait().unwrap();
        let lost = mine();
        assert_eq!(lost.len(), 1);
        assert!(lost[0].is_there() && lost[0].proof().contains("is gone"));
        lost[0].give_back().unwrap();
        assert_eq!(semaphore.value(), 1);
        assert_eq!(lost[0].give_back().unwrap_err().kind(), Kind::NotFound);
        assert_eq!((mine(), semaphore.value()), (vec![], 1));
        std::mem::forget(permit);
        Semaphore::remove(&name).unwrap();
    }

    /// The number of a file may be used again; the moment when it was made may not.
    #[test]
    fn a_record_of_another_file_with_the_same_number_gives_nothing() {
        let name = format!("poste-number-{}", std::process::id());
        let semaphore = Semaphore::create(&name, 1).unwrap();
        let file = semaphore.object().unwrap();
        let note = Note { semaphore: format!("/{name}"), file, ..note() };
        assert!(note.open().unwrap().is_some());
        let earlier = NamedFile { born: file.born - 1, ..file };
        assert!(Note { file: earlier, ..note }.open().unwrap().is_none());
        Semaphore::remove(&name).unwrap();
    }

    #[test]
    fn a_record_of_another_semaphore_of_the_same_name_gives_nothing() {
        let name = format!("poste-other-{}", std::process::id());
        let first = Semaphore::create(&name, 1).unwrap();
        let permit = Permit::take(&first, Wait::Not).unwrap();
        Semaphore::remove(&name).unwrap();
        let second = Semaphore::create(&name, 1).unwrap();
        lock::unlock(permit.record.as_fd()).unwrap();
        let all = lost_permits().unwrap();
        let lost = all.iter().find(|lost| lost.semaphore() == format!("/{name}")).unwrap();
        assert!(!lost.is_there());
        lost.give_back().unwrap();
        assert_eq!(second.value(), 1);
        std::mem::forget(permit);
        Semaphore::remove(&name).unwrap();
    }
}
