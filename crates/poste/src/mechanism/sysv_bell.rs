//! How a sender of a System V queue wakes a receiver that is polled: the kernel has no descriptor
//! for a queue, so the receiver hangs up a bell in the runtime directory, and whoever sends rings.
//!
//! A sender finds out whether anybody wants to be rung from a word in memory that all processes of
//! the user map: the queue's line in the table of bells. Queues that share a line wake each other
//! for nothing, which is harmless.
//!
//! ```text
//! bells/lines         a file of 2048 lines, little-endian, one for each queue by its number
//!     0  armed u32    not 0: a receiver is quiet and wants to be rung; each arming is a new number
//!     4  turn u32     who begins to send is counted in one of two counts: that of its lowest bit
//!     8  sending u32  twice: how many are between the first look at `armed` and the last (low
//!                     half), and how often the count was begun anew (high half)
//! bells/LINE/NAME     the bells of a line: each receiver's FIFO
//! ```
//!
//! A sender counts itself in, rings if `armed`, sends, rings again if `armed`, counts itself out. A
//! receiver that finds nothing silences its bell, arms, looks again; if somebody is sending then, a
//! timer makes it look once more. So wherever a sender is killed, a receiver either was rung before
//! the message was there and looks until nobody sends, or finds it.
//!
//! The killed stay in a count. After a turn has lasted for [`BELL_PATIENCE`], whoever is in the count
//! of the turn before has been at it for longer than that: it is begun anew, and takes those of the
//! next turn. Nobody who has just begun is ever forgotten so. Sources: futex(7), for the bell; the two
//! counts are those of sleepable read-copy-update (McKenney, "Sleepable RCU", 2006).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use poste_sys::atomic::{AtomicU32, Ordering, fence};
use poste_sys::fork::Life;
use poste_sys::mapping::{Access, Mapping, reserve};
use poste_sys::sysv::Queue;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::bell::{self, Bell};
use super::timer::Timer;
use crate::error::{Error, Kind};
use crate::limits::{BELL_PATIENCE, PAUSE_MAX, PAUSE_MIN};
use crate::name::owner::Owner;
use crate::name::{registry, runtime};

/// The part of the runtime directory that holds the bells.
const BELLS: &str = "bells";

/// How many lines the table has: more than queues are polled at once, and few pages.
const LINES: usize = 2048;

/// The file of the lines, and what one takes of it.
const TABLE: &str = "lines";
const LINE_SIZE: usize = 16;

/// The low half of a `sending`.
const COUNT: u32 = 0xffff;

/// One queue's line of the table.
#[derive(Debug)]
pub(super) struct Line {
    table: Mapping,
    number: usize,
    folder: PathBuf,
}

impl Line {
    /// Finds a queue's line; the table is made where it is absent.
    fn of(queue: Queue) -> Result<Line, Error> {
        let part = runtime::part(BELLS)?;
        let system = |errno: Errno| Error::system(errno, "the bells of System V queues");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = rustix::fs::openat(CWD, part.join(TABLE), flags, mode).map_err(system)?;
        // The same for whoever does it, and nothing where it was done.
        if rustix::fs::fstat(&file).map_err(system)?.st_size < (LINES * LINE_SIZE) as i64 {
            reserve(file.as_fd(), LINES * LINE_SIZE).map_err(system)?;
        }
        let table = Mapping::new(file, 0, LINES * LINE_SIZE, Access::Write).map_err(system)?;
        let mixed = (registry::space() ^ (queue.number() as u64).rotate_left(32))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let number = (mixed >> 32) as usize % LINES;
        Ok(Line { table, number, folder: part.join(format!("{number:03x}")) })
    }

    fn word(&self, at: usize) -> &AtomicU32 {
        self.table.half(self.number * LINE_SIZE + at)
    }

    fn armed(&self) -> &AtomicU32 {
        self.word(0)
    }

    fn turn(&self) -> &AtomicU32 {
        self.word(4)
    }

    /// The count of those who began to send in a turn.
    fn sending(&self, turn: u32) -> &AtomicU32 {
        self.word(8 + 4 * (turn as usize & 1))
    }

    /// Whether anybody is counted as sending.
    fn is_sending(&self) -> bool {
        // Whoever counts itself in behind this look finds the receiver armed.
        [0, 1].iter().any(|turn| self.sending(*turn).load(Ordering::SeqCst) & COUNT > 0)
    }

    /// Ends a turn, if it still is that one: those who are counted in the one before are forgotten,
    /// and their count is the next one's.
    fn end_turn(&self, turn: u32) {
        let order = Ordering::SeqCst;
        let count = self.sending(turn.wrapping_add(1));
        let before = count.load(order);
        // Read before the turn, and changed with every turn: so a count that another receiver has
        // begun anew meanwhile stays as it is.
        if self.turn().load(order) == turn
            && count.compare_exchange(before, anew(before), order, order).is_ok()
        {
            let _ = self.turn().compare_exchange(turn, turn.wrapping_add(1), order, order);
        }
    }

    /// Counts nobody as sending.
    fn forget_all(&self) {
        for turn in [0, 1] {
            let order = Ordering::SeqCst;
            let _ = self.sending(turn).fetch_update(order, order, |count| Some(anew(count)));
        }
    }

    /// Rings every bell of the line, where somebody wants to be rung.
    fn ring(&self) {
        // SeqCst, as everything here: of a sender's "I send; who is armed?" and a receiver's "I am
        // armed; who sends?" at least one sees the other.
        let armed = self.armed().load(Ordering::SeqCst);
        if armed != 0 {
            self.ring_all();
            // Whoever has armed since then wants to be rung by the next one.
            let _ = self.armed().compare_exchange(armed, 0, Ordering::SeqCst, Ordering::SeqCst);
        }
    }

    #[cold]
    fn ring_all(&self) {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(folder) = rustix::fs::openat(CWD, &self.folder, flags, Mode::empty()) else {
            return;
        };
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
            if bell::ring(folder.as_fd(), name) == Err(Errno::NXIO) {
                // It was open before it got its name: its owner is dead.
                let _ = rustix::fs::unlinkat(&folder, name, rustix::fs::AtFlags::empty());
            }
        }
    }
}

/// A count that is begun anew: those whom it held don't count themselves out of it.
fn anew(count: u32) -> u32 {
    (count & !COUNT).wrapping_add(COUNT + 1)
}

/// What a sender rings with.
#[derive(Debug)]
pub(super) struct Ringer(Option<Line>);

impl Ringer {
    /// For a queue. Without a runtime directory of its own a process has no receiver that a bell
    /// could wake, and none is rung.
    ///
    /// # Errors
    /// What the system said where it can do no more just now.
    pub(super) fn new(queue: Queue) -> Result<Ringer, Error> {
        match Line::of(queue) {
            Ok(line) => Ok(Ringer(Some(line))),
            Err(error) if is_full(&error) => Err(error),
            Err(_) => Ok(Ringer(None)),
        }
    }

    /// Sends, and sees to it that those who want to know look.
    #[inline]
    pub(super) fn around<T>(&self, send: impl FnOnce() -> T) -> T {
        let Some(line) = &self.0 else { return send() };
        let count = line.sending(line.turn().load(Ordering::SeqCst));
        let begun = count.fetch_add(1, Ordering::SeqCst) & !COUNT;
        line.ring();
        let sent = send();
        fence(Ordering::SeqCst);
        line.ring();
        // Counted out, unless the count was begun anew meanwhile.
        let _ = count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| {
            (now & !COUNT == begun && now & COUNT > 0).then(|| now - 1)
        });
        sent
    }
}

/// Wakes everybody who is polled on a queue: it is gone. Senders that were killed are counted no more:
/// else the next queue with this line would be looked at for nothing. One that sends to another queue
/// of the line just now rings all the same.
pub(super) fn tell_removed(queue: Queue) {
    if let Ok(line) = Line::of(queue) {
        line.forget_all();
        line.ring_all();
    }
}

/// The machine can do no more just now; else there is no runtime directory to be used.
fn is_full(error: &Error) -> bool {
    let errno = error.errno().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOSPC))
        || matches!(error.kind(), Kind::Limit { .. })
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
        let line = Line::of(queue)?;
        let (bell, path) = hang_up(&line.folder).map_err(system)?;
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
        // A new number each time, so that a sender who has rung doesn't disarm who armed since;
        // odd, so never 0.
        self.arming = self.arming.wrapping_add(2);
        self.line.armed().store(self.arming, Ordering::SeqCst);
        fence(Ordering::SeqCst);
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
        let turn = self.line.turn().load(Ordering::SeqCst);
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
        let line = Line::of(queue).unwrap();
        assert!(!line.is_sending());
        line.sending(0).fetch_add(1, Ordering::SeqCst);
        assert!(line.is_sending());
        drop(receiver);
        crate::remove(&address).unwrap();
        assert!(!line.is_sending());
    }

    /// Who sends when the killed are forgotten is counted on, also where that takes a turn or two.
    #[test]
    fn who_has_just_begun_to_send_is_not_forgotten_with_the_killed() {
        let key = 0x7074_0000 | (std::process::id() as i32 & 0xffff);
        let address = format!("sysv:{key}");
        let _receiver = Receiver::create(&address).unwrap();
        let queue = poste_sys::sysv::open(key, 0).unwrap();
        let line = Line::of(queue).unwrap();
        let turn = || line.turn().load(Ordering::SeqCst);
        let is_counted = |turn| line.sending(turn).load(Ordering::SeqCst) & COUNT > 0;
        // One is killed.
        let killed = turn();
        line.sending(killed).fetch_add(1, Ordering::SeqCst);
        line.end_turn(killed);
        assert_eq!(turn(), killed.wrapping_add(1));
        assert!(is_counted(killed), "it may be alive, as it may have begun just now");
        Ringer(Some(Line::of(queue).unwrap())).around(|| {
            // The same again, by another receiver that was slower.
            line.end_turn(killed);
            assert!(is_counted(killed), "once for a turn");
            line.end_turn(turn());
            assert!(!is_counted(killed), "it is forgotten");
            assert!(is_counted(killed.wrapping_add(1)), "who sends just now is not");
        });
        assert!(!line.is_sending(), "who ends is counted out");
        // One that is slower than a turn and is forgotten doesn't count out another.
        Ringer(Some(Line::of(queue).unwrap())).around(|| {
            line.end_turn(turn());
            line.end_turn(turn());
            assert!(!line.is_sending());
            line.sending(turn()).fetch_add(1, Ordering::SeqCst);
        });
        assert!(line.is_sending());
        crate::remove(&address).unwrap();
    }
}
