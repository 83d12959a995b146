//! The oracle of the kills at random: a file that all processes map, in which each says what it
//! does, before and after each step. Who judges takes part in nothing.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use poste_sys::atomic::{AtomicU64, Ordering::SeqCst};
use poste_sys::mapping::{Access, Mapping, reserve};

pub(crate) const SENDERS: usize = 4;
pub(crate) const RECEIVERS: usize = 3;

/// How many messages a sender may send in a round.
pub(crate) const MESSAGES: u64 = 1 << 20;

const MARKED: u64 = 1 << 16;
const ENDED: u64 = 1 << 32;
const COMMITTED: u64 = 1 << 48;

/// How long coming again took, counted by tenths of milliseconds.
const TIMES: usize = 1000;

/// How many deaths are remembered until what they had comes again.
const DEATHS: usize = 64;

/// ```text
///    0  stop: 1 the senders, 2 the receivers    8  lives    16  faults    24  deliveries    32  deaths
///   64  for each sender, 8 bytes: how far it began
///  128  for each receiver, 8 bytes: what it has in its hands, plus 1
///  256  for each death, 16 bytes: what the dead had in its hands, plus 1 | when it was killed, ns
/// 4096  the times
///  16K  for each message, 8 bytes: how often it came unmarked | marked (from bit 16) | ended (32) |
///       its sender came to know that it was sent (48)
/// ```
pub(crate) struct Oracle(Mapping);

/// A message: its sender and its number.
pub(crate) type Which = (usize, u64);

impl Oracle {
    const TIMES_AT: usize = 4096;
    const MESSAGES_AT: usize = 16 << 10;
    const SIZE: usize = Oracle::MESSAGES_AT + SENDERS * MESSAGES as usize * 8;

    pub(crate) fn new(path: &Path) -> Oracle {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let file = OwnedFd::from(file.expect("the oracle's file"));
        reserve(file.as_fd(), Oracle::SIZE).expect("memory for the oracle");
        Oracle(Mapping::new(file, 0, Oracle::SIZE, Access::Write).expect("the oracle is mapped"))
    }

    pub(crate) fn stop(&self) -> &AtomicU64 {
        self.0.word(0)
    }

    pub(crate) fn lives(&self) -> &AtomicU64 {
        self.0.word(8)
    }

    pub(crate) fn faults(&self) -> &AtomicU64 {
        self.0.word(16)
    }

    /// How often anything came to anybody.
    pub(crate) fn deliveries(&self) -> &AtomicU64 {
        self.0.word(24)
    }

    pub(crate) fn begun(&self, sender: usize) -> &AtomicU64 {
        self.0.word(64 + sender * 8)
    }

    fn hand(&self, receiver: usize) -> &AtomicU64 {
        self.0.word(128 + receiver * 8)
    }

    fn message(&self, (sender, number): Which) -> &AtomicU64 {
        let index = sender * MESSAGES as usize + number as usize;
        self.0.word(Oracle::MESSAGES_AT + index * 8)
    }

    fn key((sender, number): Which) -> u64 {
        sender as u64 * MESSAGES + number + 1
    }

    /// Says that something went wrong.
    pub(crate) fn fault(&self, what: &str) {
        eprintln!("FAULT: {what}");
        self.faults().fetch_add(1, SeqCst);
    }

    /// A sender knows that it was sent.
    pub(crate) fn committed(&self, which: Which) {
        self.message(which).fetch_add(COMMITTED, SeqCst);
    }

    /// It came to a receiver, which has it in its hands now.
    pub(crate) fn came(&self, which: Which, is_marked: bool, receiver: usize) {
        self.deliveries().fetch_add(1, SeqCst);
        self.message(which).fetch_add(if is_marked { MARKED } else { 1 }, SeqCst);
        if let Some(hand) = (receiver < RECEIVERS).then(|| self.hand(receiver)) {
            hand.store(Oracle::key(which), SeqCst);
        }
        if is_marked {
            self.note_time(which);
        }
    }

    /// It was ended.
    pub(crate) fn ended(&self, which: Which) {
        self.message(which).fetch_add(ENDED, SeqCst);
    }

    /// The receiver has it in its hands no more.
    pub(crate) fn let_go(&self, receiver: usize) {
        self.hand(receiver).store(0, SeqCst);
    }

    /// What a receiver that stands still has in its hands: which, and how often it came marked.
    pub(crate) fn held(&self, receiver: usize) -> Option<(u64, u64)> {
        let key = self.hand(receiver).load(SeqCst).checked_sub(1)?;
        let which = ((key / MESSAGES) as usize, key % MESSAGES);
        Some((key, self.message(which).load(SeqCst) / MARKED % (ENDED / MARKED)))
    }

    /// A receiver is killed.
    pub(crate) fn died(&self, receiver: usize) {
        let key = self.hand(receiver).swap(0, SeqCst);
        if key != 0 {
            let death = self.0.word(32).fetch_add(1, SeqCst) as usize % DEATHS;
            self.0.word(256 + death * 16 + 8).store(now(), SeqCst);
            self.0.word(256 + death * 16).store(key, SeqCst);
        }
    }

    /// What a dead one had has come again.
    fn note_time(&self, which: Which) {
        let key = Oracle::key(which);
        for death in 0..DEATHS {
            let word = self.0.word(256 + death * 16);
            if word.load(SeqCst) == key && word.compare_exchange(key, 0, SeqCst, SeqCst).is_ok() {
                let since = now().saturating_sub(self.0.word(256 + death * 16 + 8).load(SeqCst));
                let tenth = (since / 100_000).min(TIMES as u64 - 1) as usize;
                self.0.word(Oracle::TIMES_AT + tenth * 8).fetch_add(1, SeqCst);
            }
        }
    }

    /// Adds up how often coming again took how many tenths of a millisecond.
    pub(crate) fn add_times(&self, to: &mut Vec<u64>) {
        to.resize(TIMES, 0);
        for (index, count) in to.iter_mut().enumerate() {
            *count += self.0.word(Oracle::TIMES_AT + index * 8).load(SeqCst);
        }
    }

    /// Says what is wrong, or how many messages were committed and how often one came again.
    pub(crate) fn judge(&self) -> Result<(u64, u64), String> {
        let faults = self.faults().load(SeqCst);
        if faults > 0 {
            return Err(format!("{faults} faults, see above"));
        }
        let (mut total, mut again) = (0, 0);
        for sender in 0..SENDERS {
            for number in 0..self.begun(sender).load(SeqCst) {
                let word = self.message((sender, number)).load(SeqCst);
                let (unmarked, marked) = (word % MARKED, word / MARKED % (ENDED / MARKED));
                let (ended, committed) = (word / ENDED % (COMMITTED / ENDED), word / COMMITTED);
                let fault = match () {
                    () if unmarked > 1 => "came twice unmarked",
                    () if ended > 1 => "was ended twice",
                    () if unmarked + marked == 0 && committed > 0 => "is lost",
                    () => "",
                };
                if !fault.is_empty() {
                    return Err(format!("message {number} of sender {sender} {fault}"));
                }
                again += marked;
                total += committed;
            }
        }
        Ok((total, again))
    }
}

/// The monotonic clock, in nanoseconds.
fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// So many of a hundred took no longer, in milliseconds.
pub(crate) fn percentile(times: &[u64], percent: u64) -> f64 {
    let all: u64 = times.iter().sum();
    let mut left = (all * percent).div_ceil(100);
    let found = times.iter().position(|count| {
        left = left.saturating_sub(*count);
        left == 0
    });
    (found.unwrap_or(0) + 1) as f64 / 10.0
}
