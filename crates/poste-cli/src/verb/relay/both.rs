//! `poste relay --both`: each connection that comes gets one of its own to the other address, and
//! bytes or packets pass both ways as they are, envelopes included.
//!
//! One direction may end before the other: its end is passed on, as peers expect that answer when
//! they have read everything. What goes wrong with one connection ends that one alone. This thread
//! accepts and connects, which may take its time; another one passes on (passing.rs).

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use poste::{Kind, Peers, Receiver, Sender, Wait};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::passing::Passing;
use crate::args::Relay;
use crate::exit::Stop;
use crate::resolve::{self, Target};
use crate::{notice, signals};

/// How long to wait when this process may make no more descriptors.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// How many connections are joined at once. Who comes then waits in the listener's queue, which the
/// kernel limits.
const JOINED_MAX: usize = 200;

/// What these may have open at once: for each, two sockets, and for each direction what its receiver
/// and its sender show on (2 and 1), and what the set waits on; and some for everything else.
const DESCRIPTORS: u64 = JOINED_MAX as u64 * 10 + 100;

/// Connects before it listens: that nobody is there is told at once.
pub(super) fn run(args: &Relay) -> Result<(), Stop> {
    let (from, to) = resolve::relaying_both(args)?;
    make_room();
    let passing = Passing::start()?;
    let mut next = Some(connect(&to)?);
    signals::remove_made_at_end(&from.address);
    let mut listener = Receiver::open_with(from.address.to_string(), &from.options)?;
    notice::opened(&from.address, listener.address(), listener.capabilities());
    let joined = Arc::new(Joined::default());
    let ended = loop {
        let place = Place::take(&joined);
        let here = match listener.accept(Wait::Forever) {
            Ok(here) => here,
            Err(error) if matches!(error.kind(), Kind::Limit { .. }) => {
                thread::sleep(PAUSE);
                continue;
            }
            Err(error) => break Stop::from(error),
        };
        let still_there = |sender: &Sender| sender.facts().peers != Peers::AllGone;
        let there = next.take().filter(still_there).map_or_else(|| connect(&to), Ok);
        match there.and_then(|there| passing.join(here, there, place)) {
            Ok(()) => {}
            // Whoever came learns it by the end of the connection.
            Err(Stop::Failed(failure)) => {
                notice::say(failure.and("a connection that came is closed").what());
                thread::sleep(PAUSE);
            }
            Err(quiet) => break quiet,
        }
    };
    drop(listener);
    signals::forget_all();
    Err(ended)
}

/// Many systems let a program open 1024 descriptors, and more if it asks for it. Where it may not,
/// who comes waits for them.
fn make_room() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < DESCRIPTORS) {
        let most = limit.maximum.unwrap_or(DESCRIPTORS);
        let current = Some(DESCRIPTORS.min(most));
        // Up to the hard limit nobody refuses it.
        let _ = setrlimit(Resource::Nofile, Rlimit { current, ..limit });
    }
}

fn connect(to: &Target) -> Result<Sender, Stop> {
    Ok(Sender::open_with(to.address.to_string(), &to.options)?)
}

/// How many connections are joined.
#[derive(Debug, Default)]
struct Joined {
    count: Mutex<usize>,
    less: Condvar,
}

impl Joined {
    fn count(&self) -> MutexGuard<'_, usize> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one of them, until both its directions have ended.
#[derive(Debug)]
pub(super) struct Place(Arc<Joined>);

impl Place {
    /// Waits until one is free.
    fn take(joined: &Arc<Joined>) -> Place {
        let is_full = |count: &mut usize| *count >= JOINED_MAX;
        let count = joined.less.wait_while(joined.count(), is_full);
        *count.unwrap_or_else(PoisonError::into_inner) += 1;
        Place(Arc::clone(joined))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.count() -= 1;
        self.0.less.notify_one();
    }
}
