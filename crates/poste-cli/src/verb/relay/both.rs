//! `poste relay --both`: each connection that comes gets one of its own to the other address, and
//! bytes or packets pass both ways as they are, envelopes included.
//!
//! One direction may end before the other: its end is passed on, as peers expect that answer when
//! they have read everything. What goes wrong with one connection ends that one alone.

use std::os::fd::AsFd as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use poste::{Duplex, Error, Kind, Outgoing, Peers, Receiver, Sender, Wait};
use rustix::io::Errno;

use crate::args::Relay;
use crate::exit::Stop;
use crate::resolve::{self, Target};
use crate::{notice, signals};

/// How long accepting pauses when this process may make no more descriptors or threads.
const PAUSE: Duration = Duration::from_millis(100);

/// How many connections are joined at once: each has two descriptors and two threads. Who comes then
/// waits in the listener's queue, which the kernel limits.
const JOINED_MAX: usize = 200;

/// Connects before it listens: that nobody is there is told at once.
pub(super) fn run(args: &Relay) -> Result<(), Stop> {
    let (from, to) = resolve::relaying_both(args)?;
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
        match there.and_then(|there| join(here, there, place)) {
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

/// The place of one of them.
#[derive(Debug)]
struct Place(Arc<Joined>);

impl Place {
    /// Waits until one is free.
    fn take(joined: &Arc<Joined>) -> Arc<Place> {
        let is_full = |count: &mut usize| *count >= JOINED_MAX;
        let count = joined.less.wait_while(joined.count(), is_full);
        *count.unwrap_or_else(PoisonError::into_inner) += 1;
        Arc::new(Place(Arc::clone(joined)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.count() -= 1;
        self.0.less.notify_one();
    }
}

/// Passes on what comes at either side, until both have ended. It goes on by itself.
fn join(here: Duplex, there: Sender, place: Arc<Place>) -> Result<(), Stop> {
    // Both threads, or none: half a connection is none.
    let (one, other) = (Passer::start(Arc::clone(&place))?, Passer::start(place)?);
    let (back, questions) = here.split();
    let (onward, answers) = there.into_duplex()?.split();
    one.pass(questions, onward);
    other.pass(answers, back);
    Ok(())
}

/// A thread that passes one direction on; dropped before it was told which, it ends.
struct Passer(mpsc::Sender<(Receiver, Sender)>);

impl Passer {
    fn start(place: Arc<Place>) -> Result<Passer, Stop> {
        let (tell, told) = mpsc::channel();
        let run = move || {
            if let Ok((from, to)) = told.recv() {
                pass(from, to);
            }
            drop(place);
        };
        match thread::Builder::new().name("relay".to_owned()).spawn(run) {
            Ok(_) => Ok(Passer(tell)),
            Err(error) => {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::AGAIN);
                Err(Error::system(errno, "no further thread can be made").into())
            }
        }
    }

    fn pass(self, from: Receiver, to: Sender) {
        // It waits for nothing else.
        let _ = self.0.send((from, to));
    }
}

/// Passes on one direction. Dropping the sender tells its side that nothing more comes.
fn pass(mut from: Receiver, mut to: Sender) {
    let carries = to.capabilities().descriptors;
    let mut is_told = false;
    while let Ok(mut message) = from.recv() {
        let taken = message.take_descriptors();
        if !carries && !taken.is_empty() && !is_told {
            // Once: whoever may send could fill the log with it.
            notice::say(&super::lost(taken.len(), to.address()));
            is_told = true;
        }
        let descriptors: Vec<_> =
            taken.iter().filter(|_| carries).map(|descriptor| descriptor.as_fd()).collect();
        if to.send(Outgoing::from(&message[..]).descriptors(&descriptors)).is_err() {
            return;
        }
    }
}
