//! How a sender of a System V queue wakes a receiver that is polled: the kernel has no descriptor
//! for a queue, so the receiver hangs up a bell in the runtime directory, and whoever sends rings.
//! Who rings when, and what a kill leaves, is in sysv_line.rs.
//!
//! ```text
//! bells/lines         the table of the lines
//! bells/LINE/NAME     the bells of a line: each receiver's FIFO
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use poste_sys::atomic::{Ordering, fence};
use poste_sys::fork::Life;
use poste_sys::sysv::Queue;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::bell::{self, Bell};
use super::sysv_line::Line;
use super::timer::Timer;
use crate::error::{Error, Kind, is_want};
use crate::limits::{BELL_PATIENCE, PAUSE_MAX, PAUSE_MIN};
use crate::name::owner::Owner;
use crate::name::runtime;

/// The part of the runtime directory that holds the bells.
const BELLS: &str = "bells";

/// The bells of a queue: its line, and the folder where they hang.
#[derive(Debug)]
struct Bells {
    line: Line,
    folder: PathBuf,
}

impl Bells {
    fn of(queue: Queue) -> Result<Bells, Error> {
        let part = runtime::part(BELLS)?;
        let line = Line::of(queue, &part)
            .map_err(|errno| Error::system(errno, "the bells of System V queues"))?;
        let folder = part.join(line.folder());
        Ok(Bells { line, folder })
    }

    /// Rings all.
    ///
    /// # Errors
    /// This process has no descriptor to ring with.
    fn ring_all(&self) -> Result<(), Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = match rustix::fs::openat(CWD, &self.folder, flags, Mode::empty()) {
            Err(errno) if is_want(errno) => return Err(errno),
            Err(_) => return Ok(()),
            Ok(folder) => folder,
        };
        let entries = match std::fs::read_dir(&self.folder) {
            Err(error) => match Errno::from_io_error(&error) {
                Some(errno) if is_want(errno) => return Err(errno),
                _ => return Ok(()),
            },
            Ok(entries) => entries,
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
            match bell::ring(folder.as_fd(), name) {
                // It was open before it got its name: its owner is dead.
                Err(Errno::NXIO) => {
                    let _ = rustix::fs::unlinkat(&folder, name, rustix::fs::AtFlags::empty());
                }
                Err(errno) if is_want(errno) => return Err(errno),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Descriptors that this process sets aside for ringing, as long as it has senders: a message that was
/// sent must be told also where all others are taken.
#[derive(Debug, Default)]
struct Reserve(Mutex<Vec<OwnedFd>>);

impl Reserve {
    /// A folder for its bells, the same for its names, and a bell.
    const COUNT: usize = 3;

    /// The one of this process.
    fn get() -> Arc<Reserve> {
        static HELD: Mutex<Weak<Reserve>> = Mutex::new(Weak::new());
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        let reserve = held.upgrade().unwrap_or_default();
        *held = Arc::downgrade(&reserve);
        drop(held);
        Reserve::fill(&mut reserve.0.lock().unwrap_or_else(PoisonError::into_inner));
        reserve
    }

    fn fill(aside: &mut Vec<OwnedFd>) {
        let one = || eventfd(0, EventfdFlags::CLOEXEC).ok();
        aside.extend(std::iter::from_fn(one).take(Reserve::COUNT - aside.len()));
    }

    /// Lets something be done with what is set aside. Another thread may take it meanwhile, for what
    /// it opens.
    fn opened<T>(&self, act: impl FnOnce() -> T) -> T {
        let mut aside = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        aside.clear();
        let done = act();
        Reserve::fill(&mut aside);
        done
    }
}

/// What a sender rings with.
#[derive(Debug)]
pub(super) struct Ringer(Option<(Bells, Arc<Reserve>)>);

impl Ringer {
    /// For a queue. Without a runtime directory of its own a process has no receiver that a bell
    /// could wake, and none is rung.
    ///
    /// # Errors
    /// What the system said where it can do no more just now.
    pub(super) fn new(queue: Queue) -> Result<Ringer, Error> {
        match Bells::of(queue) {
            Ok(bells) => Ok(Ringer(Some((bells, Reserve::get())))),
            Err(error) if is_full(&error) => Err(error),
            Err(_) => Ok(Ringer(None)),
        }
    }

    /// Sends, and sees to it that those who want to know look.
    #[inline]
    pub(super) fn around<T>(&self, send: impl FnOnce() -> T) -> T {
        let Some((Bells { line, .. }, _)) = &self.0 else { return send() };
        let begun = line.begin();
        line.ring(|| self.ring_all());
        let sent = send();
        fence(Ordering::SeqCst);
        line.ring(|| self.ring_all());
        begun.end();
        sent
    }

    /// Rings all: whether it could.
    #[cold]
    fn ring_all(&self) -> bool {
        let Some((bells, reserve)) = &self.0 else { return true };
        bells.ring_all().or_else(|_| reserve.opened(|| bells.ring_all())).is_ok()
    }
}

/// Wakes everybody who is polled on a queue: it is gone. Senders that were killed are counted no more:
/// else the next queue with this line would be looked at for nothing, for a second or two.
pub(super) fn tell_removed(queue: Queue) {
    if let Ok(ringer) = Ringer::new(queue) {
        if let Some((Bells { line, .. }, _)) = &ringer.0 {
            line.forget_all();
        }
        ringer.ring_all();
    }
}

/// The machine can do no more just now; else there is no runtime directory to be used.
fn is_full(error: &Error) -> bool {
    let errno = error.errno().map(Errno::from_raw_os_error);
    error.is_want() || errno == Some(Errno::NOSPC) || matches!(error.kind(), Kind::Limit { .. })
}

/// What a receiver knows that looks again because somebody is sending.
#[derive(Clone, Copy, Debug)]
struct Uneasy {
    /// Since when at least it has been this turn.
    turn: u32,
    since: Instant,
    /// Before the next look.
    pause: Duration,
}

/// A receiver's bell, and what it needs to be rung.
#[derive(Debug)]
pub(super) struct Listening {
    line: Line,
    bell: Bell,
    path: PathBuf,
    /// Over the bell and the timer.
    epoll: OwnedFd,
    /// Made when a sender was under way for the first time.
    timer: Option<Timer>,
    /// It was rung here, and not silenced since.
    is_rung: bool,
    /// Somebody was sending at the last look.
    uneasy: Option<Uneasy>,
    /// The number of the last arming.
    arming: u32,
    life: Life,
}

impl Listening {
    /// Hangs up a bell for a queue.
    ///
    /// # Errors
    /// Where the runtime directory can't be used, or the system has no more room.
    pub(super) fn new(queue: Queue) -> Result<Listening, Error> {
        let system = |errno: Errno| Error::system(errno, "the bell of a System V queue");
        let Bells { line, folder } = Bells::of(queue)?;
        let (bell, path) = hang_up(&folder).map_err(system)?;
        let make = || {
            let epoll = epoll::create(CreateFlags::CLOEXEC)?;
            epoll::add(&epoll, bell.descriptor(), EventData::new_u64(0), EventFlags::IN)?;
            Ok(epoll)
        };
        let epoll = make().map_err(system);
        let epoll = epoll.inspect_err(|_| take_down(&path))?;
        let life = Life::this();
        let arming = crate::sequence::draw() as u32 | 1;
        let (timer, is_rung, uneasy) = (None, false, None);
        Ok(Listening { line, bell, path, epoll, timer, is_rung, uneasy, arming, life })
    }

    /// Whether it is this process's: a forked child's copy is its parent's.
    pub(super) fn is_ours(&self) -> bool {
        self.life.lasts()
    }

    /// Readable when the queue is to be looked at.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Something is there.
    pub(super) fn ring(&mut self) {
        if !self.is_rung {
            self.bell.ring();
            self.is_rung = true;
        }
    }

    /// Quiet from now on, and to be rung by whoever sends. The caller looks once more.
    pub(super) fn arm(&mut self) {
        self.bell.silence();
        self.is_rung = false;
        // Odd, so never 0.
        self.arming = self.arming.wrapping_add(2);
        self.line.arm(self.arming);
    }

    /// Nothing was there after arming. If somebody is sending just now, who may be killed before
    /// ringing, a timer makes the receiver look again.
    pub(super) fn rest(&mut self) {
        if !self.line.is_sending() {
            if let (Some(_), Some(timer)) = (self.uneasy.take(), &self.timer) {
                timer.stop();
            }
            return;
        }
        let turn = self.line.turn();
        let begun = Uneasy { turn, since: Instant::now(), pause: PAUSE_MIN };
        let mut uneasy = match self.uneasy {
            Some(before) if before.turn == turn => before,
            Some(before) => Uneasy { pause: before.pause, ..begun },
            None => begun,
        };
        if uneasy.since.elapsed() > BELL_PATIENCE {
            // Nobody sends for so long while there is room: it was killed. If it is only stopped,
            // it rings when it goes on. The turn is another one now, as the next look will find.
            self.line.end_turn(turn);
        }
        let pause = uneasy.pause;
        uneasy.pause = (pause * 2).min(PAUSE_MAX);
        self.uneasy = Some(uneasy);
        if self.look_again_after(pause).is_err() {
            // Without a timer it looks again at once.
            self.ring();
        }
    }

    fn look_again_after(&mut self, pause: Duration) -> Result<(), Errno> {
        let timer = match self.timer.take() {
            Some(timer) => timer,
            None => {
                let timer = Timer::new()?;
                epoll::add(&self.epoll, &timer, EventData::new_u64(1), EventFlags::IN)?;
                timer
            }
        };
        self.timer.insert(timer).set(pause);
        Ok(())
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if self.life.lasts() {
            take_down(&self.path);
        }
    }
}

/// Hangs up a bell in a line's folder. It gets its name when it is open: a bell with a name that
/// nobody has open is a dead one's.
fn hang_up(folder: &Path) -> Result<(Bell, PathBuf), Errno> {
    let name = format!("{}-{:016x}", std::process::id(), crate::sequence::draw());
    let hidden = format!(".{name}");
    loop {
        match rustix::fs::mkdir(folder, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = match rustix::fs::openat(CWD, folder, flags, Mode::empty()) {
            // Whose bell was the last took the folder away.
            Err(Errno::NOENT) => continue,
            opened => opened?,
        };
        match Bell::hang_up(opened.as_fd(), &hidden) {
            Err(Errno::NOENT) => continue,
            bell => {
                let bell = bell?;
                let named = rustix::fs::renameat(&opened, &hidden, &opened, &name);
                named.inspect_err(|_| take_down(&folder.join(&hidden)))?;
                return Ok((bell, folder.join(name)));
            }
        }
    }
}

/// Takes a bell down, and its line's folder with the last one.
fn take_down(path: &Path) {
    // What can't be taken away is gc's.
    let _ = rustix::fs::unlink(path);
    if let Some(folder) = path.parent() {
        // Others hang there still.
        let _ = rustix::fs::rmdir(folder);
    }
}

/// A bell that its dead owner left hanging.
#[derive(Debug)]
pub(crate) struct Left {
    path: PathBuf,
    pub(crate) proof: String,
}

impl Left {
    /// Where it hangs.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes it down, if it still is what it was.
    pub(crate) fn take_away(&self) {
        if is_left(&self.path).is_some() {
            take_down(&self.path);
        }
    }
}

/// All bells that the dead have left.
pub(crate) fn left() -> Vec<Left> {
    let Ok(Some(part)) = runtime::existing_part(BELLS) else { return Vec::new() };
    let inside = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten();
    let bells = inside(&part).flat_map(|line| inside(&line.path()).collect::<Vec<_>>());
    bells
        .filter_map(|bell| {
            let (path, proof) = (bell.path(), is_left(&bell.path())?);
            Some(Left { path, proof })
        })
        .collect()
}

/// Why a bell is nobody's, if it is.
fn is_left(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let pid = name.trim_start_matches('.').split('-').next()?.parse().ok()?;
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty());
    if opened.err() != Some(Errno::NXIO) {
        return None;
    }
    // One that is being made isn't open yet; who makes it is alive.
    (!name.starts_with('.') || Owner::of(pid).is_none())
        .then(|| format!("no process has it open; process {pid} left it"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Receiver, Sender};

    /// The count that a killed sender leaves ends with its queue, and not with BELL_PATIENCE.
    #[test]
    fn a_killed_sender_is_counted_no_longer_than_its_queue_lives() {
        let key = 0x7073_0000 | (std::process::id() as i32 & 0xffff);
        let address = format!("sysv:{key}");
        let receiver = Receiver::create(&address).unwrap();
        Sender::open(&address).unwrap().send("x").unwrap();
        let queue = poste_sys::sysv::open(key, 0).unwrap();
        let line = Bells::of(queue).unwrap().line;
        let _killed = line.begin();
        assert!(line.is_sending());
        drop(receiver);
        crate::remove(&address).unwrap();
        assert!(!line.is_sending());
    }
}
