//! Waiting for many things at once, of any kind: ends of any mechanisms, timers, other descriptors.
//!
//! One epoll descriptor, one timerfd for all timers (made with the first), one eventfd to wake who
//! waits. What joins is a [`Waitable`]: it gives one descriptor that is polled for reading, and that
//! is all that the set knows of it. Later kinds (calls, watches, pulses) join in the same way.
//!
//! Sources: epoll(7), timerfd_create(2), eventfd(2).

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use poste_sys::sysctl;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use crate::error::{Error, Kind};
use crate::mechanism::timer::Timer;
use crate::receiver::Receiver;
use crate::sender::Sender;
use crate::wait::{Halt, Wait};

/// What a [`WaitSet`] can wait for: it has one level-triggered descriptor, to be polled for reading.
pub trait Waitable {
    /// The descriptor; the same one as long as the value lives.
    ///
    /// # Errors
    /// `NotSupported` where it has none; what the system said.
    fn pollable(&mut self) -> Result<BorrowedFd<'_>, Error>;
}

impl Waitable for Receiver {
    fn pollable(&mut self) -> Result<BorrowedFd<'_>, Error> {
        Receiver::pollable(self)
    }
}

impl Waitable for Sender {
    fn pollable(&mut self) -> Result<BorrowedFd<'_>, Error> {
        Sender::pollable(self)
    }
}

/// A set waits in a set. The kernel lets epolls stand in one another five deep (epoll_ctl(2)), of which
/// an end takes up to two: sets and other loops may be three deep together. What goes beyond that, or
/// in a circle, is refused as `Invalid` when it is added.
impl Waitable for WaitSet {
    fn pollable(&mut self) -> Result<BorrowedFd<'_>, Error> {
        Ok(WaitSet::pollable(self))
    }
}

/// Waits for many things at once: receivers and senders of any mechanisms, timers, descriptors.
///
/// Each entry has a key of the caller's choice, and [`WaitSet::wait`] tells the keys of those that
/// are ready: a receiver that has a message, or whose other end is gone; a sender that may send. The
/// set does not hold the ends. What is ready is told again until something is done about it
/// (level-triggered), and it may be told in vain: receive with `try_recv`, and take `Empty` for an
/// answer. No entry is starved: they are told in turn, at most 64 and the timers that are due at a
/// time. A set may be shared by threads, and changed while one of them waits.
///
/// ```
/// use std::time::{Duration, Instant};
/// use poste::{Receiver, Sender, Wait, WaitSet};
/// # fn main() -> Result<(), poste::Error> {
/// # let (id, tmp) = (std::process::id(), std::env::temp_dir());
/// # let (queue, log) = (format!("sysv:{:#x}", id | 0x6000_0000), format!("fifo:{}/ws-{id}", tmp.display()));
/// const ORDERS: u64 = 0;
/// const LOG: u64 = 1;
/// const TICK: u64 = 2;
///
/// let mut orders = Receiver::create(&queue)?; // any address: sysv:0x4d2, unix:/run/shop, …
/// let mut log = Receiver::create(&log)?;
/// let set = WaitSet::new()?;
/// set.add(ORDERS, &mut orders)?;
/// set.add(LOG, &mut log)?;
/// set.add_timer(TICK, Instant::now() + Duration::from_millis(20))?;
///
/// Sender::open(&queue)?.send("a pound of tea")?;
/// let (mut taken, mut ready) = (Vec::new(), Vec::new());
/// loop {
///     set.wait(&mut ready, Wait::Forever)?;
///     for key in &ready {
///         match *key {
///             ORDERS => taken.extend(orders.try_recv().map(|order| order.to_vec())),
///             LOG => drop(log.try_recv()),
///             _ => {
///                 assert_eq!(taken, [b"a pound of tea"]);
/// #               poste::remove(&queue)?;
/// #               poste::remove(log.address().to_string())?;
///                 return Ok(());
///             }
///         }
///     }
/// }
/// # }
/// ```
///
/// Take an end out before it is dropped; one that was dropped in the set is told no more, and keeps
/// its key and a descriptor until it is taken out. A forked child shares the parent's set and must not
/// use it. Source: epoll(7).
pub struct WaitSet {
    epoll: OwnedFd,
    /// Readable when somebody wants who waits to return.
    wake: OwnedFd,
    state: Mutex<State>,
}

/// The entries, by key and by what epoll knows them by.
#[derive(Debug)]
struct State {
    entries: HashMap<u64, Entry>,
    /// What epoll knows of: a number that is never used again, so that what it told of an entry
    /// that is gone isn't taken for the next one's.
    keys: HashMap<u64, u64>,
    next: u64,
    /// The timers in order, and which of equal ones was first.
    timers: BTreeMap<(Instant, u64), u64>,
    /// Made with the first timer.
    timer: Option<Timer>,
}

#[derive(Debug)]
enum Entry {
    /// A copy, so that it stays what it is until it is taken out.
    Descriptor {
        number: u64,
        copy: OwnedFd,
    },
    Timer {
        at: (Instant, u64),
        every: Option<Duration>,
    },
}

/// What epoll knows the eventfd by, and the timerfd.
const WAKE: u64 = 0;
const TIMER: u64 = 1;

impl WaitSet {
    /// An empty set.
    ///
    /// # Errors
    /// `Limit` where this process may open no more descriptors.
    pub fn new() -> Result<WaitSet, Error> {
        let make = || {
            let epoll = epoll::create(CreateFlags::CLOEXEC)?;
            let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            epoll::add(&epoll, &wake, EventData::new_u64(WAKE), EventFlags::IN)?;
            Ok((epoll, wake))
        };
        let (epoll, wake) = make().map_err(system)?;
        let state = State {
            entries: HashMap::new(),
            keys: HashMap::new(),
            next: TIMER + 1,
            timers: BTreeMap::new(),
            timer: None,
        };
        Ok(WaitSet { epoll, wake, state: Mutex::new(state) })
    }

    /// Adds an end, or whatever else is [`Waitable`].
    ///
    /// # Errors
    /// `Invalid` where the key is in the set already, or where it is a set and too many stand in one
    /// another, or in a circle; `Limit` where the system has no room for more;
    /// `NotSupported` where it has no descriptor.
    pub fn add<W: Waitable + ?Sized>(&self, key: u64, end: &mut W) -> Result<(), Error> {
        self.add_readable(key, end.pollable()?)
    }

    /// Adds a descriptor: a child's, a socket of another library's. It is told while it can be read,
    /// or while its other side is gone. A file is always ready.
    ///
    /// # Errors
    /// As [`WaitSet::add`].
    pub fn add_readable(&self, key: u64, descriptor: impl AsFd) -> Result<(), Error> {
        self.add_descriptor(key, descriptor.as_fd(), EventFlags::IN)
    }

    /// Adds a descriptor that is told while it can be written. The same one may be there for reading
    /// too, under another key.
    ///
    /// # Errors
    /// As [`WaitSet::add`].
    pub fn add_writable(&self, key: u64, descriptor: impl AsFd) -> Result<(), Error> {
        self.add_descriptor(key, descriptor.as_fd(), EventFlags::OUT)
    }

    fn add_descriptor(
        &self,
        key: u64,
        descriptor: BorrowedFd<'_>,
        events: EventFlags,
    ) -> Result<(), Error> {
        let mut state = self.lock();
        state.check_free(key)?;
        let number = state.next;
        let data = EventData::new_u64(number);
        let add = || {
            let copy = fcntl_dupfd_cloexec(descriptor, 3)?;
            match epoll::add(&self.epoll, &copy, data, events) {
                // A file is always ready, and epoll doesn't take it; this stands in for it.
                Err(Errno::PERM) => {
                    let always = eventfd(1, EventfdFlags::CLOEXEC)?;
                    epoll::add(&self.epoll, &always, data, EventFlags::IN).map(|()| always)
                }
                added => added.map(|()| copy),
            }
        };
        let copy = add().map_err(system)?;
        state.next += 1;
        state.keys.insert(number, key);
        state.entries.insert(key, Entry::Descriptor { number, copy });
        Ok(())
    }

    /// Adds a timer that is told once, at a moment of the monotonic clock or soon after, and leaves
    /// the set then.
    ///
    /// # Errors
    /// As [`WaitSet::add`].
    pub fn add_timer(&self, key: u64, at: Instant) -> Result<(), Error> {
        self.add_any_timer(key, at, None)
    }

    /// Adds a timer that is told each time so much time has passed, from now on. What passed while
    /// nobody waited is told once, and the rhythm stays.
    ///
    /// # Errors
    /// As [`WaitSet::add`]; `Invalid` where the time is zero, or beyond what the clock can say.
    pub fn add_interval(&self, key: u64, every: Duration) -> Result<(), Error> {
        let first = Instant::now().checked_add(every).filter(|_| !every.is_zero());
        let first = first.ok_or_else(|| {
            on(Error::new(Kind::Invalid, format!("no timer has an interval of {every:?}"))
                .with_hint("give a time above zero that a clock can say"))
        })?;
        self.add_any_timer(key, first, Some(every))
    }

    fn add_any_timer(&self, key: u64, at: Instant, every: Option<Duration>) -> Result<(), Error> {
        let mut state = self.lock();
        state.check_free(key)?;
        if state.timer.is_none() {
            let make = || {
                let timer = Timer::new()?;
                epoll::add(&self.epoll, &timer, EventData::new_u64(TIMER), EventFlags::IN)?;
                Ok(timer)
            };
            state.timer = Some(make().map_err(system)?);
        }
        let at = (at, state.next);
        state.next += 1;
        state.timers.insert(at, key);
        state.entries.insert(key, Entry::Timer { at, every });
        state.set_timer();
        Ok(())
    }

    /// Takes an entry out: whether it was there. A [`WaitSet::wait`] that returns later doesn't tell
    /// it any more.
    pub fn remove(&self, key: u64) -> bool {
        let mut state = self.lock();
        match state.entries.remove(&key) {
            None => false,
            Some(Entry::Descriptor { number, copy }) => {
                state.keys.remove(&number);
                // Before it is closed: a forked child may hold a copy.
                let _ = epoll::delete(&self.epoll, &copy);
                true
            }
            Some(Entry::Timer { at, .. }) => {
                state.timers.remove(&at);
                state.set_timer();
                true
            }
        }
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until an entry is ready, and puts the keys of those that are into `ready`, in the place
    /// of what it held. After [`WaitSet::wake`] there may be none. Where several threads wait, each
    /// may be told the same; a timer is told to one of them.
    ///
    /// # Errors
    /// `Empty` or `TimedOut` where nothing was ready within `wait`.
    pub fn wait(&self, ready: &mut Vec<u64>, wait: Wait) -> Result<(), Error> {
        let wait = wait.begin();
        ready.clear();
        loop {
            let waited = wait.events(self.epoll.as_fd(), ready);
            if let Err(halt) = waited {
                ready.clear();
                return Err(on(halt.receiving(wait)));
            }
            if self.translate(ready) {
                return Ok(());
            }
            // Woken for nothing, again and again.
            if matches!(wait, Wait::Until(end) if Instant::now() >= end) {
                return Err(on(Halt::Later.receiving(wait)));
            }
        }
    }

    /// Makes the thread that waits return, or the next one that would: with whatever is ready.
    pub fn wake(&self) {
        // It is full only where it was called 2⁶⁴ times; then it is readable too.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// A descriptor that is readable while something in the set is ready: for another loop to poll.
    #[must_use]
    pub fn pollable(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// What epoll told becomes the keys of those that are there: whether there is something to tell.
    fn translate(&self, told: &mut Vec<u64>) -> bool {
        let mut is_woken = false;
        let mut state = self.lock();
        told.retain_mut(|number| match *number {
            WAKE => {
                is_woken = true;
                false
            }
            // Timers are looked at in any case: they don't wait for their turn among the others.
            TIMER => false,
            known => state.keys.get(&known).map(|key| *number = *key).is_some(),
        });
        state.tell_timers(told);
        drop(state);
        // Another thread may have read it first.
        let was_woken = is_woken && rustix::io::read(&self.wake, &mut [0; 8]).is_ok();
        was_woken || !told.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check_free(&self, key: u64) -> Result<(), Error> {
        match self.entries.contains_key(&key) {
            true => Err(on(Error::new(Kind::Invalid, format!("it has the key {key} already"))
                .with_hint("take that entry out first, or choose another key"))),
            false => Ok(()),
        }
    }

    /// Adds the timers that are due.
    fn tell_timers(&mut self, told: &mut Vec<u64>) {
        if self.timer.is_none() {
            return;
        }
        let now = Instant::now();
        while let Some(first) = self.timers.first_entry().filter(|first| first.key().0 <= now) {
            let (at, number) = *first.key();
            let key = first.remove();
            told.push(key);
            let every = match self.entries.get(&key) {
                Some(Entry::Timer { every: Some(every), .. }) => *every,
                _ => {
                    self.entries.remove(&key);
                    continue;
                }
            };
            match next(at, every, now) {
                None => drop(self.entries.remove(&key)),
                Some(at) => {
                    let at = (at, number);
                    self.timers.insert(at, key);
                    self.entries.insert(key, Entry::Timer { at, every: Some(every) });
                }
            }
        }
        self.set_timer();
    }

    /// Sets the clock to the first timer; without one it stays quiet.
    fn set_timer(&self) {
        let Some(timer) = &self.timer else { return };
        match self.timers.first_key_value() {
            None => timer.stop(),
            Some(((at, _), _)) => timer.set(at.saturating_duration_since(Instant::now())),
        }
    }
}

/// The first moment of a rhythm that is yet to come; `None` beyond what the clock can say.
fn next(at: Instant, every: Duration, now: Instant) -> Option<Instant> {
    let next = at.checked_add(every)?;
    if next > now {
        return Some(next);
    }
    let missed = now.duration_since(at).as_nanos() / every.as_nanos();
    match u32::try_from(missed) {
        Ok(missed) => at.checked_add(every.checked_mul(missed.checked_add(1)?)?),
        // Billions of them passed: the rhythm begins anew.
        Err(_) => now.checked_add(every),
    }
}

fn system(errno: Errno) -> Error {
    let error = match errno {
        Errno::NOSPC => {
            let name = "fs.epoll.max_user_watches";
            let value = sysctl::read(name).unwrap_or(0);
            let raise_with = format!("sysctl -w {name}={}", value.saturating_mul(2));
            Error::system(errno, "").as_kind(Kind::Limit { name, value, raise_with })
        }
        // Of what is given to epoll it refuses only its own kind in these ways.
        Errno::LOOP | Errno::INVAL => {
            Error::system(errno, "sets stand in one another in a circle or too deep")
                .as_kind(Kind::Invalid)
                .with_hint("add the entries of the inner sets to one set: three deep is the most")
        }
        _ => Error::system(errno, ""),
    };
    on(error)
}

fn on(error: Error) -> Error {
    error.on("wait for", &"what is in a set")
}

impl fmt::Debug for WaitSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitSet").field("entries", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Else one that is told at this moment could still be taken for it, and the set would grow.
    #[test]
    fn what_was_removed_is_forgotten() {
        let set = WaitSet::new().unwrap();
        for key in 0..3 {
            set.add_readable(key, eventfd(1, EventfdFlags::CLOEXEC).unwrap()).unwrap();
            set.add_timer(key + 10, Instant::now()).unwrap();
        }
        let numbers: Vec<u64> = set.lock().keys.keys().copied().collect();
        assert!((0..3).all(|key| set.remove(key) && set.remove(key + 10)));
        let state = set.lock();
        assert!(state.entries.is_empty() && state.keys.is_empty() && state.timers.is_empty());
        drop(state);
        // What epoll told before is nobody's now, also where the key is used again.
        set.add_readable(0, eventfd(0, EventfdFlags::CLOEXEC).unwrap()).unwrap();
        let mut told = numbers;
        assert!(!set.translate(&mut told), "{told:?}");
    }

    #[test]
    fn one_that_is_woken_for_nothing_waits_no_longer_than_it_was_told() {
        let set = WaitSet::new().unwrap();
        let always = eventfd(1, EventfdFlags::CLOEXEC).unwrap();
        epoll::add(&set.epoll, &always, EventData::new_u64(u64::MAX), EventFlags::IN).unwrap();
        let mut ready = Vec::new();
        let error = set.wait(&mut ready, Wait::For(Duration::from_millis(20))).unwrap_err();
        assert_eq!((error.kind(), ready.len()), (Kind::TimedOut, 0));
    }

    /// When the timer with a key is due.
    fn due(set: &WaitSet, key: u64) -> Instant {
        match set.lock().entries[&key] {
            Entry::Timer { at, .. } => at.0,
            Entry::Descriptor { .. } => unreachable!("it is a timer"),
        }
    }

    #[test]
    fn an_interval_that_is_told_late_keeps_its_rhythm() {
        let (set, every) = (WaitSet::new().unwrap(), Duration::from_millis(10));
        set.add_interval(1, every).unwrap();
        let first = due(&set, 1);
        for _ in 0..3 {
            std::thread::sleep(every * 5 / 2);
            set.wait(&mut Vec::new(), Wait::Forever).unwrap();
            assert_eq!((due(&set, 1) - first).as_nanos() % every.as_nanos(), 0);
        }
    }

    proptest! {
        #[test]
        fn a_rhythm_goes_on_as_it_began(every in 1_u64..10_000_000, late in 0_u64..100_000_000_000) {
            let at = Instant::now();
            let (every, now) = (Duration::from_nanos(every), at + Duration::from_nanos(late));
            let next = next(at, every, now).unwrap();
            prop_assert!(next > now && next - now <= every);
            prop_assert_eq!((next - at).as_nanos() % every.as_nanos(), 0);
        }
    }
}
