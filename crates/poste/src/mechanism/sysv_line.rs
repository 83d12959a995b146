//! The line of a System V queue in the table of bells: words in memory that all processes of the user
//! map, from which a sender finds out whether a receiver wants to be rung, and a receiver whether it
//! may rest. Queues that share a line wake each other for nothing, which is harmless.
//!
//! ```text
//! bells/lines         a file of 2048 lines, little-endian, one for each queue by its number
//!     0  armed u32    not 0: a receiver is quiet and wants to be rung; each arming is a new number
//!     4  turn u32     who begins to send is counted in one of two counts: that of its lowest bit
//!     8  sending u32  twice: how many are between the first look at `armed` and the last (low
//!                     half), and how often the count was begun anew (high half)
//! ```
//!
//! A sender counts itself in, rings if `armed`, sends, rings again if `armed`, counts itself out. A
//! receiver that finds nothing silences its bell, arms, looks again; if somebody is sending then, it
//! looks once more after a while. So wherever a sender is killed, a receiver either was rung before the
//! message was there and looks until nobody sends, or finds it.
//!
//! The killed stay in a count. When a turn has lasted for long enough, whoever is in the count of the
//! turn before has been at it for longer than that: it is begun anew, and takes those of the next turn.
//! So nobody is forgotten who has just begun.
//!
//! What nobody may be told of is a message of a sender that was killed right when it had sent, before
//! its second ring, and that was forgotten before: it was at this one send for longer than a turn (it
//! was stopped; or it waited for room, while a receiver of another queue with this line ended turns),
//! or just then another queue with this line was removed.
//!
//! Sources: futex(7), for the arming; the two counts are those of sleepable read-copy-update (McKenney,
//! "Sleepable RCU", 2006).

use std::os::fd::AsFd as _;
use std::path::Path;

use poste_sys::atomic::{AtomicU32, Ordering, fence, fence_after_exchange};
use poste_sys::mapping::{Access, Mapping, reserve};
use poste_sys::sysv::Queue;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::name::registry;

/// The file of the lines.
const TABLE: &str = "lines";

/// How many there are: more than queues are polled at once, and few pages.
const LINES: usize = 2048;

/// What one takes of the file.
const SIZE: usize = 16;

/// The low half of a `sending`.
const COUNT: u32 = 0xffff;

/// One queue's line. All loads and stores are sequentially consistent: of a sender's "I send; who is
/// armed?" and a receiver's "I am armed; who sends?" at least one sees the other.
#[derive(Debug)]
pub(super) struct Line {
    table: Mapping,
    number: usize,
}

/// Who began to send: in which count, and which beginning of it.
pub(super) struct Begun<'a> {
    count: &'a AtomicU32,
    beginning: u32,
}

impl Line {
    /// Finds a queue's line in the folder of the bells; the table is made where it is absent.
    ///
    /// # Errors
    /// What the system said.
    pub(super) fn of(queue: Queue, part: &Path) -> Result<Line, Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(CWD, part.join(TABLE), flags, Mode::RUSR | Mode::WUSR)?;
        // The same for whoever does it, and nothing where it was done.
        if rustix::fs::fstat(&file)?.st_size < (LINES * SIZE) as i64 {
            reserve(file.as_fd(), LINES * SIZE)?;
        }
        let table = Mapping::new(file, 0, LINES * SIZE, Access::Write)?;
        let mixed = (registry::space() ^ (queue.number() as u64).rotate_left(32))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Ok(Line { table, number: (mixed >> 32) as usize % LINES })
    }

    /// The folder of its bells, in that of all.
    pub(super) fn folder(&self) -> String {
        format!("{:03x}", self.number)
    }

    fn word(&self, at: usize) -> &AtomicU32 {
        self.table.half(self.number * SIZE + at)
    }

    fn armed(&self) -> &AtomicU32 {
        self.word(0)
    }

    fn turn_word(&self) -> &AtomicU32 {
        self.word(4)
    }

    /// The count of those who began to send in a turn.
    fn sending(&self, turn: u32) -> &AtomicU32 {
        self.word(8 + 4 * (turn as usize & 1))
    }

    /// Somebody begins to send, and looks next who is armed.
    #[inline]
    pub(super) fn begin(&self) -> Begun<'_> {
        let count = self.sending(self.turn());
        let beginning = count.fetch_add(1, Ordering::SeqCst) & !COUNT;
        fence_after_exchange();
        Begun { count, beginning }
    }

    /// Lets `ring_all` ring every bell of the line, where somebody wants to be rung; it says whether it
    /// could.
    #[inline]
    pub(super) fn ring(&self, ring_all: impl FnOnce() -> bool) {
        let armed = self.armed().load(Ordering::SeqCst);
        if armed != 0 && ring_all() {
            // Whoever has armed since then wants to be rung by the next one.
            let _ = self.armed().compare_exchange(armed, 0, Ordering::SeqCst, Ordering::SeqCst);
        }
    }

    /// A receiver wants to be rung: with a number that isn't 0 and is new each time, so that a sender
    /// who has rung doesn't disarm who armed since. It looks at the queue next.
    pub(super) fn arm(&self, number: u32) {
        self.armed().store(number, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Whether anybody is counted as sending.
    pub(super) fn is_sending(&self) -> bool {
        // Whoever counts itself in behind this look finds the receiver armed.
        [0, 1].iter().any(|turn| self.sending(*turn).load(Ordering::SeqCst) & COUNT > 0)
    }

    /// Which turn it is.
    #[inline]
    pub(super) fn turn(&self) -> u32 {
        self.turn_word().load(Ordering::SeqCst)
    }

    /// Ends a turn that has lasted for long enough, if it still is that one: those who are counted in
    /// the one before are forgotten, and their count is the next one's.
    pub(super) fn end_turn(&self, turn: u32) {
        let order = Ordering::SeqCst;
        let count = self.sending(turn.wrapping_add(1));
        let before = count.load(order);
        // Read before the turn, and changed with every turn: so what is counted in the next turn, which
        // another receiver has let begin meanwhile, stays.
        if self.turn() == turn && count.compare_exchange(before, anew(before), order, order).is_ok()
        {
            let _ = self.turn_word().compare_exchange(turn, turn.wrapping_add(1), order, order);
        }
    }

    /// Counts nobody as sending.
    pub(super) fn forget_all(&self) {
        for turn in [0, 1] {
            let order = Ordering::SeqCst;
            let _ = self.sending(turn).fetch_update(order, order, |count| Some(anew(count)));
        }
    }
}

/// A count that is begun anew: those whom it held don't count themselves out of it.
fn anew(count: u32) -> u32 {
    (count & !COUNT).wrapping_add(COUNT + 1)
}

impl Begun<'_> {
    /// Counts the sender out, unless the count was begun anew meanwhile.
    #[inline]
    pub(super) fn end(self) {
        let out = |now: u32| (now & !COUNT == self.beginning && now & COUNT > 0).then(|| now - 1);
        let _ = self.count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, out);
    }
}

#[cfg(all(test, not(poste_loom)))]
mod tests {
    use super::*;

    #[test]
    fn who_has_just_begun_to_send_is_not_forgotten_with_the_killed() {
        let folder = std::env::temp_dir().join(format!("poste-line-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let line = Line::of(Queue::of_number(7), &folder).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let is_counted = |turn| line.sending(turn).load(Ordering::SeqCst) & COUNT > 0;
        // One is killed.
        let killed = line.turn();
        let _killed = line.begin();
        line.end_turn(killed);
        assert_eq!(line.turn(), killed.wrapping_add(1));
        assert!(is_counted(killed), "it may be alive, as it may have begun just now");
        let alive = line.begin();
        // The same again, by another receiver that was slower.
        line.end_turn(killed);
        assert!(is_counted(killed), "once for a turn");
        line.end_turn(line.turn());
        assert!(!is_counted(killed), "it is forgotten");
        assert!(line.is_sending(), "who sends just now is not");
        alive.end();
        assert!(!line.is_sending());
        // One that is slower than two turns and is forgotten doesn't count out another.
        let slow = line.begin();
        line.end_turn(line.turn());
        line.end_turn(line.turn());
        assert!(!line.is_sending());
        let _another = line.begin();
        slow.end();
        assert!(line.is_sending());
    }
}

/// The line under loom, as ring/model.rs has the rings: a killed sender is a thread that ends where it
/// is killed.
#[cfg(all(test, poste_loom))]
mod model {
    use std::sync::Arc;

    use loom::sync::Mutex;
    use loom::thread;

    use super::*;

    /// What the kernel keeps: calls of its own, one after the other.
    #[derive(Default)]
    struct Kernel {
        is_message_there: bool,
        is_bell_rung: bool,
    }

    /// Where a sender is killed.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Killed {
        BeforeSending,
        AfterSending,
        AfterRinging,
        Never,
    }

    fn send(line: &Line, kernel: &Mutex<Kernel>, killed: Killed) {
        let ring = || {
            line.ring(|| {
                kernel.lock().unwrap().is_bell_rung = true;
                true
            });
        };
        let begun = line.begin();
        ring();
        if killed == Killed::BeforeSending {
            return;
        }
        kernel.lock().unwrap().is_message_there = true;
        if killed == Killed::AfterSending {
            return;
        }
        fence(Ordering::SeqCst);
        ring();
        if killed != Killed::AfterRinging {
            begun.end();
        }
    }

    /// Whether a receiver that finds nothing looks again by itself; `None` where it found something.
    fn look(line: &Line, kernel: &Mutex<Kernel>, arming: u32) -> Option<bool> {
        kernel.lock().unwrap().is_bell_rung = false;
        line.arm(arming);
        let is_there = kernel.lock().unwrap().is_message_there;
        (!is_there).then(|| line.is_sending())
    }

    /// One was killed before; its count is begun anew while another one sends.
    #[test]
    fn what_lies_in_the_queue_is_found_or_told_or_looked_for() {
        for killed in
            [Killed::BeforeSending, Killed::AfterSending, Killed::AfterRinging, Killed::Never]
        {
            let mut builder = loom::model::Builder::new();
            builder.preemption_bound = Some(3);
            builder.check(move || {
                let table = Mapping::model(&[], &[0, 4, 8, 12], usize::MAX);
                let line = Arc::new(Line { table, number: 0 });
                let kernel = Arc::new(Mutex::new(Kernel::default()));
                let _killed = line.begin();
                line.end_turn(0);
                let sender = {
                    let (line, kernel) = (Arc::clone(&line), Arc::clone(&kernel));
                    thread::spawn(move || send(&line, &kernel, killed))
                };
                let mut last = look(&line, &kernel, 1);
                if last == Some(true) {
                    // It was told by its timer, and the turn has lasted for long enough.
                    line.end_turn(1);
                    last = look(&line, &kernel, 3);
                }
                sender.join().unwrap();
                let kernel = kernel.lock().unwrap();
                let is_known = last != Some(false) || kernel.is_bell_rung;
                assert!(is_known || !kernel.is_message_there, "killed: {killed:?}");
            });
        }
    }
}
