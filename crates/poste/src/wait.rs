//! How long to wait, and the one place where EINTR, EAGAIN and the deadline meet.
//!
//! Every form of every call comes down to a [`Wait`]. All clocks are monotonic; nothing here reads
//! the wall clock. Sources: poll(2), clock_gettime(2), signal(7) ("Interruption of system calls").

use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use poste_sys::atomic::{AtomicU32, Ordering};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use crate::error::{Error, Kind};
use crate::limits::{EVENTS_AT_ONCE, PAUSE_MAX, PAUSE_MIN};

/// How long a call may wait.
///
/// ```
/// use poste::{Kind, Wait};
/// # fn main() -> Result<(), poste::Error> {
/// let (_sender, mut receiver) = poste::local()?;
/// assert_eq!(receiver.recv_wait(Wait::Not).unwrap_err().kind(), Kind::Empty);
/// let soon = Wait::For(std::time::Duration::from_millis(1));
/// assert_eq!(receiver.recv_wait(soon).unwrap_err().kind(), Kind::TimedOut);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    Not,
    /// At most so long, counted from the call. Zero is a time that is over: what is there is taken,
    /// and what isn't is `TimedOut`, not `Full` or `Empty` as with [`Wait::Not`].
    For(Duration),
    /// Until this moment.
    Until(Instant),
    /// As long as it takes.
    Forever,
}

/// How a call is to be made: so that the kernel waits in it, or so that it returns at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// The plain blocking call.
    Blocking,
    /// A call that says EAGAIN instead of waiting.
    Now,
}

/// Until when the kernel may wait within a call that takes a moment of the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// It says EAGAIN instead of waiting.
    Now,
    /// It says ETIMEDOUT after this moment.
    Until(Timespec),
    /// It waits as long as it takes.
    Forever,
}

/// Why a wait ended without the call having been made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// It would have had to wait longer than it may.
    Later,
    /// The system said no.
    System(Errno),
}

impl Wait {
    /// The same wait with its end fixed now, so that a call of several steps has one deadline.
    #[must_use]
    #[inline]
    pub fn begin(self) -> Wait {
        match self {
            // A deadline beyond what the clock can say is no deadline.
            Wait::For(time) => Instant::now().checked_add(time).map_or(Wait::Forever, Wait::Until),
            other => other,
        }
    }

    /// What is left: `None` is for ever, zero is over.
    pub fn left(self) -> Option<Duration> {
        match self.begin() {
            Wait::Not | Wait::For(_) => Some(Duration::ZERO),
            Wait::Until(end) => Some(end.saturating_duration_since(Instant::now())),
            Wait::Forever => None,
        }
    }

    /// Makes a system call on a descriptor, waiting for `events` as long as this wait allows.
    ///
    /// Waiting for ever is the plain blocking call; not waiting is one call that doesn't block. A
    /// deadline makes that call too, and polls before the next: who sends calls first, since a socket
    /// shows room only where much of it is free; who receives polls first, since mostly he waits.
    #[inline(always)]
    pub fn run<T>(
        self,
        descriptor: BorrowedFd<'_>,
        events: PollFlags,
        mut call: impl FnMut(Call) -> Result<T, Errno>,
    ) -> Result<T, Halt> {
        let (how, end) = match self.begin() {
            Wait::Forever => (Call::Blocking, None),
            Wait::Not | Wait::For(_) => (Call::Now, None),
            Wait::Until(end) => (Call::Now, Some(end)),
        };
        let mut pause = Duration::ZERO;
        let mut polls = events == PollFlags::IN;
        loop {
            if let Some(end) = end.filter(|_| polls) {
                // A deadline that is over still tries once: what is there is not withheld.
                poll_until(descriptor, events, Some(end))?;
            }
            match call(how) {
                Ok(value) => return Ok(value),
                Err(Errno::INTR) => {}
                // A blocking call says EAGAIN only where somebody set O_NONBLOCK on a description
                // that is shared with us: then waiting is ours to do.
                Err(Errno::AGAIN) if how == Call::Blocking => {
                    rest(&mut pause, None);
                    poll_until(descriptor, events, None)?;
                }
                Err(Errno::AGAIN) => match end {
                    Some(end) if Instant::now() < end => {
                        if polls {
                            rest(&mut pause, Some(end));
                        }
                        polls = true;
                    }
                    _ => return Err(Halt::Later),
                },
                Err(errno) => return Err(Halt::System(errno)),
            }
        }
    }

    /// Makes a system call where the kernel has no descriptor to wait on.
    ///
    /// Waiting for ever is the plain blocking call; a deadline makes the call again and again, with
    /// pauses that double from [`PAUSE_MIN`] to `pause_max`: what comes soon is noticed soon, and
    /// waiting long stays cheap.
    pub fn retry<T>(
        self,
        pause_max: Duration,
        mut call: impl FnMut(Call) -> Result<T, Errno>,
    ) -> Result<T, Halt> {
        let wait = self.begin();
        let how = if wait == Wait::Forever { Call::Blocking } else { Call::Now };
        let mut pause = PAUSE_MIN.min(pause_max);
        loop {
            match call(how) {
                Ok(value) => return Ok(value),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => match wait.left() {
                    Some(left) if left.is_zero() => return Err(Halt::Later),
                    left => {
                        std::thread::sleep(left.map_or(pause, |left| left.min(pause)));
                        pause = (pause * 2).min(pause_max);
                    }
                },
                Err(errno) => return Err(Halt::System(errno)),
            }
        }
    }

    /// Makes a system call that waits by itself, until a moment of the monotonic clock.
    pub(crate) fn clocked<T>(
        self,
        mut call: impl FnMut(Patience) -> Result<T, Errno>,
    ) -> Result<T, Halt> {
        let patience = match self.begin() {
            Wait::Forever => Patience::Forever,
            Wait::Until(end) => Patience::Until(moment(end)),
            Wait::Not | Wait::For(_) => Patience::Now,
        };
        loop {
            match call(patience) {
                Ok(value) => return Ok(value),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN | Errno::TIMEDOUT) => return Err(Halt::Later),
                Err(errno) => return Err(Halt::System(errno)),
            }
        }
    }

    /// Takes events from an epoll descriptor, waiting for the first within this wait: what each
    /// entry was registered with. There is at least one.
    pub fn events(self, epoll: BorrowedFd<'_>, entries: &mut Vec<u64>) -> Result<(), Halt> {
        let wait = self.begin();
        let mut room = [MaybeUninit::uninit(); EVENTS_AT_ONCE];
        loop {
            let left = wait.left().map(timespec);
            match rustix::event::epoll::wait(epoll, &mut room, left.as_ref()) {
                Ok(([], _)) => return Err(Halt::Later),
                Ok((events, _)) => {
                    entries.clear();
                    entries.extend(events.iter().map(|event| event.data.u64()));
                    return Ok(());
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Halt::System(errno)),
            }
        }
    }

    /// Sleeps on a word of shared memory until `look` finds something, within this wait; `None` when
    /// it is over. Who changes something stores 1 and wakes. With a `slice` it looks at least so
    /// often.
    pub(crate) fn sleep<T>(
        self,
        word: &AtomicU32,
        slice: Option<Duration>,
        mut look: impl FnMut() -> Result<Option<T>, Error>,
    ) -> Result<Option<T>, Error> {
        let wait = self.begin();
        loop {
            // Acquire: where this takes a 1 away, the look sees what was stored before it.
            word.swap(0, Ordering::Acquire);
            if let Some(found) = look()? {
                return Ok(Some(found));
            }
            let left = match (wait.left(), slice) {
                (Some(left), _) if left.is_zero() => return Ok(None),
                (Some(left), Some(slice)) => Some(left.min(slice)),
                (left, slice) => left.or(slice),
            };
            // Why it woke makes no difference: it looks again.
            let _ = poste_sys::futex::wait(word, 0, left);
        }
    }

    /// Waits until a descriptor shows one of `events`: whether it did within this wait.
    pub fn until_ready(self, descriptor: BorrowedFd<'_>, events: PollFlags) -> Result<bool, Halt> {
        match self.begin() {
            Wait::Forever => poll_until(descriptor, events, None),
            Wait::Until(end) => poll_until(descriptor, events, Some(end)),
            Wait::Not | Wait::For(_) => poll_until(descriptor, events, Some(Instant::now())),
        }
    }
}

/// Pauses, from the second time on, where poll says ready and the call says EAGAIN: what it waits for
/// isn't what the descriptor shows (the queue of a datagram's receiver), or others are quicker.
#[cold]
fn rest(pause: &mut Duration, end: Option<Instant>) {
    let left = end.map(|end| end.saturating_duration_since(Instant::now()));
    if !pause.is_zero() {
        std::thread::sleep(left.map_or(*pause, |left| left.min(*pause)));
    }
    *pause = (*pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
}

/// Polls one descriptor; an end in the past looks once. Says whether it is ready.
fn poll_until(
    descriptor: BorrowedFd<'_>,
    events: PollFlags,
    end: Option<Instant>,
) -> Result<bool, Halt> {
    loop {
        let left = end.map(|end| timespec(end.saturating_duration_since(Instant::now())));
        match poll(&mut [PollFd::from_borrowed_fd(descriptor, events)], left.as_ref()) {
            Ok(count) => return Ok(count > 0),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Halt::System(errno)),
        }
    }
}

/// A duration as the kernel takes it; what is too long for it is its longest.
pub(crate) fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    }
}

/// A moment as the monotonic clock of the kernel counts it; one that is over is now.
fn moment(end: Instant) -> Timespec {
    let now = clock_gettime(ClockId::Monotonic);
    let left = timespec(end.saturating_duration_since(Instant::now()));
    let nanoseconds = now.tv_nsec + left.tv_nsec;
    let seconds = now.tv_sec.saturating_add(left.tv_sec);
    Timespec {
        tv_sec: seconds.saturating_add(nanoseconds / 1_000_000_000),
        tv_nsec: nanoseconds % 1_000_000_000,
    }
}

impl Halt {
    /// The error of a sender that could not send.
    pub fn sending(self, wait: Wait) -> Error {
        self.error(wait, Kind::Full)
    }

    /// The error of a receiver to which nothing came.
    pub fn receiving(self, wait: Wait) -> Error {
        self.error(wait, Kind::Empty)
    }

    fn error(self, wait: Wait, at_once: Kind) -> Error {
        match self {
            Halt::Later if matches!(wait, Wait::Not) => Error::new(at_once, ""),
            Halt::Later => Error::new(Kind::TimedOut, ""),
            Halt::System(errno) => Error::system(errno, ""),
        }
    }
}

impl From<Errno> for Halt {
    fn from(errno: Errno) -> Halt {
        Halt::System(errno)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn the_longest_duration_is_for_ever() {
        assert_eq!(Wait::For(Duration::MAX).begin(), Wait::Forever);
        assert_eq!(Wait::Forever.left(), None);
    }

    #[test]
    fn a_call_that_is_interrupted_is_made_again() {
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        let mut left = 3;
        let done = Wait::Forever.run(reader.as_fd(), PollFlags::IN, |_| {
            left -= 1;
            if left == 0 { Ok(7) } else { Err(Errno::INTR) }
        });
        assert_eq!(done, Ok(7));
    }

    #[test]
    fn a_deadline_ends_the_wait() {
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        let time = Duration::from_millis(20);
        let start = Instant::now();
        let done = Wait::For(time).run(reader.as_fd(), PollFlags::IN, |how| {
            assert_eq!(how, Call::Now);
            Err::<(), _>(Errno::AGAIN)
        });
        assert_eq!(done, Err(Halt::Later));
        assert!(start.elapsed() >= time);
    }

    /// A socket may show room of its own while its peer has none: measured in calls, not in time.
    #[test]
    fn a_descriptor_that_is_ready_in_vain_is_not_asked_without_a_pause() {
        let (_reader, writer) = rustix::pipe::pipe().unwrap();
        let mut calls = 0;
        let time = Duration::from_millis(100);
        let done = Wait::For(time).run(writer.as_fd(), PollFlags::OUT, |_| {
            calls += 1;
            Err::<(), _>(Errno::AGAIN)
        });
        assert_eq!(done, Err(Halt::Later));
        assert!(calls < 30, "{calls} calls");
        // Where somebody else has set O_NONBLOCK, the same.
        let start = Instant::now();
        let mut calls = 0;
        let done = Wait::Forever.run(writer.as_fd(), PollFlags::OUT, |_| {
            calls += 1;
            if start.elapsed() < time { Err(Errno::AGAIN) } else { Ok(()) }
        });
        assert_eq!(done, Ok(()));
        assert!(calls < 30, "{calls} calls");
    }

    /// A Unix socket shows no room as long as a quarter of it is in use, and takes more at once.
    #[test]
    fn who_may_send_at_once_waits_for_no_descriptor_to_show_it() {
        let (writer, _reader) = std::os::unix::net::UnixStream::pair().unwrap();
        writer.set_nonblocking(true).unwrap();
        let body = [0; 4096];
        let time = Duration::from_secs(10);
        let shows = || poll_until(writer.as_fd(), PollFlags::OUT, Some(Instant::now())).unwrap();
        while shows() {
            rustix::io::write(&writer, &body).unwrap();
        }
        let start = Instant::now();
        let call = |_| rustix::io::write(&writer, &body);
        assert_eq!(Wait::For(time).run(writer.as_fd(), PollFlags::OUT, call), Ok(4096));
        assert!(start.elapsed() < time, "it waited for what was there");
    }

    #[test]
    fn a_deadline_in_the_past_tries_once() {
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        let end = Instant::now();
        assert_eq!(Wait::Until(end).run(reader.as_fd(), PollFlags::IN, |_| Ok(1)), Ok(1));
    }

    #[test]
    fn a_call_that_waits_by_itself_is_made_again_until_the_same_moment() {
        let mut moments = Vec::new();
        let done = Wait::For(Duration::from_secs(1)).clocked(|patience| {
            moments.push(patience);
            if moments.len() < 3 { Err(Errno::INTR) } else { Err::<(), _>(Errno::TIMEDOUT) }
        });
        assert_eq!(done, Err(Halt::Later));
        assert!(matches!(moments[0], Patience::Until(_)) && moments[1..] == [moments[0]; 2]);
        let far = moment(Instant::now() + Duration::from_nanos(999_999_999));
        assert!((0..1_000_000_000).contains(&far.tv_nsec));
        assert!(far.tv_sec - clock_gettime(ClockId::Monotonic).tv_sec <= 1);
    }

    #[test]
    fn a_call_without_a_descriptor_is_made_again_until_the_deadline() {
        let time = Duration::from_millis(20);
        let start = Instant::now();
        let mut calls = 0;
        let done = Wait::For(time).retry(Duration::from_millis(2), |how| {
            assert_eq!(how, Call::Now);
            calls += 1;
            Err::<(), _>(Errno::AGAIN)
        });
        assert_eq!(done, Err(Halt::Later));
        assert!(start.elapsed() >= time);
        assert!((2..30).contains(&calls), "{calls} calls");

        let mut left = 3;
        let done = Wait::Forever.retry(Duration::ZERO, |how| {
            assert_eq!(how, Call::Blocking);
            left -= 1;
            if left == 0 { Ok(7) } else { Err(Errno::INTR) }
        });
        assert_eq!(done, Ok(7));
    }
}
