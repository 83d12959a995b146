//! The connections that `relay --both` has joined: one thread passes on what comes on any of them,
//! in turns, and waits for all in one set.
//!
//! Each connection is two ways, one for each direction. A way waits for a message, or for room where
//! the other side had none: until then nothing more is received, and who sends waits in turn.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use poste::{Duplex, Error, Kind, Level, Outgoing, Receiver, Sender, Wait, WaitSet};
use rustix::io::Errno;

use super::both::{PAUSE, Place};
use crate::exit::{Failure, Stop};
use crate::notice;

/// So many messages of a way are passed on before the others have their turn.
const TURN: u32 = 16;

/// The key of the timer after which ways that could not be waited for are tried again.
const AGAIN: u64 = u64::MAX;

/// All ways, and the set that they wait in.
#[derive(Debug)]
pub(super) struct Passing {
    set: WaitSet,
    ways: Mutex<Ways>,
}

#[derive(Debug, Default)]
struct Ways {
    ways: HashMap<u64, Way>,
    next: u64,
}

/// One direction.
#[derive(Debug)]
struct Way {
    from: Receiver,
    to: Sender,
    waits: Waits,
    /// The other side had no room for it.
    kept: Option<(Vec<u8>, Vec<OwnedFd>)>,
    /// Part of a message has gone, and the sender holds the rest.
    is_held: bool,
    /// It was said that descriptors stay behind: once, since whoever may send could fill the log.
    is_told: bool,
    place: Arc<Place>,
}

/// What a way has in the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    ForMessage,
    ForRoom,
    /// Nothing: there was no descriptor left for that.
    Again,
}

/// Why a way ends.
#[derive(Debug)]
enum End {
    /// Nothing more comes.
    OfWhatComes,
    /// Nobody takes what comes.
    OfWhoTakes,
}

impl End {
    /// That a side goes is how connections end; another reason is said.
    fn because(self, error: Error) -> End {
        if !matches!(error.kind(), Kind::Disconnected | Kind::NoReceiver) {
            notice::say(Failure::from(error).and("this connection ends").what());
        }
        self
    }
}

impl Passing {
    /// With the thread that passes on.
    pub(super) fn start() -> Result<Arc<Passing>, Stop> {
        let passing = Arc::new(Passing { set: WaitSet::new()?, ways: Mutex::default() });
        // The clock of the set is made with its first timer: later there may be no descriptor left.
        passing.set.add_timer(AGAIN, Instant::now())?;
        let own = Arc::clone(&passing);
        let started = thread::Builder::new().name("relay".to_owned()).spawn(move || own.run());
        match started {
            Ok(_) => Ok(passing),
            Err(error) => {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::AGAIN);
                Err(Error::system(errno, "no further thread can be made").into())
            }
        }
    }

    /// Passes on what comes at either side from now on, until both have ended.
    pub(super) fn join(&self, here: Duplex, there: Sender, place: Place) -> Result<(), Stop> {
        let place = Arc::new(place);
        let (back, questions) = here.split();
        let (onward, answers) = there.into_duplex()?.split();
        let mut one = Way::new(questions, onward, Arc::clone(&place));
        let mut other = Way::new(answers, back, place);
        // Nothing is passed on meanwhile. Both are waited for, or neither: half a connection is none.
        let mut ways = self.ways();
        let (here, there) = (ways.next, ways.next + 1);
        self.set.add(here, &mut one.from)?;
        if let Err(error) = self.set.add(there, &mut other.from) {
            self.set.remove(here);
            return Err(error.into());
        }
        ways.next += 2;
        ways.ways.extend([(here, one), (there, other)]);
        Ok(())
    }

    fn ways(&self) -> MutexGuard<'_, Ways> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut ready = Vec::new();
        loop {
            if let Err(error) = self.set.wait(&mut ready, Wait::Forever) {
                // Nothing but memory can be lacking; the connections are still there.
                notice::say(&error.to_string());
                thread::sleep(PAUSE);
            }
            for key in ready.drain(..) {
                match key {
                    AGAIN => self.pass_again(),
                    key => self.pass(key),
                }
            }
        }
    }

    /// One way's turn.
    fn pass(&self, key: u64) {
        let mut ways = self.ways();
        let Some(way) = ways.ways.get_mut(&key) else { return };
        match way.turn() {
            Ok(waits) => way.wait(key, waits, &self.set),
            Err(end) => {
                self.set.remove(key);
                let way = ways.ways.remove(&key);
                drop(ways);
                if let Some(way) = way {
                    way.close(&end);
                }
            }
        }
    }

    /// A turn of each that is not waited for.
    fn pass_again(&self) {
        let ways = self.ways();
        let again = ways.ways.iter().filter(|(_, way)| way.waits == Waits::Again);
        let again: Vec<u64> = again.map(|(key, _)| *key).collect();
        drop(ways);
        again.into_iter().for_each(|key| self.pass(key));
    }
}

impl Way {
    fn new(from: Receiver, to: Sender, place: Arc<Place>) -> Way {
        let waits = Waits::ForMessage;
        Way { from, to, waits, kept: None, is_held: false, is_told: false, place }
    }

    /// Passes on what there is and what the other side has room for: what it waits for then.
    fn turn(&mut self) -> Result<Waits, End> {
        for _ in 0..TURN {
            if !self.has_settled()? {
                return Ok(Waits::ForRoom);
            }
            match self.from.try_recv() {
                Err(error) if error.kind() == Kind::Empty => return Ok(Waits::ForMessage),
                Err(error) => return Err(End::OfWhatComes.because(error)),
                Ok(mut message) => {
                    let mut descriptors = message.take_descriptors();
                    if !descriptors.is_empty() && !self.to.capabilities().descriptors {
                        if !self.is_told {
                            notice::say(&super::lost(descriptors.len(), self.to.address()));
                            self.is_told = true;
                        }
                        descriptors.clear();
                    }
                    match send(&mut self.to, &message, &descriptors) {
                        Ok(level) => self.is_held = level == Level::Held,
                        Err(error) if error.kind() == Kind::Full => {
                            self.kept = Some((message.to_vec(), descriptors));
                        }
                        Err(error) => return Err(End::OfWhoTakes.because(error)),
                    }
                }
            }
        }
        // Others have their turn; it is told again.
        Ok(if self.has_settled()? { Waits::ForMessage } else { Waits::ForRoom })
    }

    /// Whether all that was received has gone.
    fn has_settled(&mut self) -> Result<bool, End> {
        if self.is_held {
            let flushed = self.to.try_flush().map_err(|error| End::OfWhoTakes.because(error))?;
            self.is_held = flushed == Level::Held;
        }
        if let Some((body, descriptors)) = &self.kept {
            match send(&mut self.to, body, descriptors) {
                Ok(level) => {
                    self.is_held = level == Level::Held;
                    self.kept = None;
                }
                Err(error) if error.kind() == Kind::Full => {}
                Err(error) => return Err(End::OfWhoTakes.because(error)),
            }
        }
        Ok(!self.is_held && self.kept.is_none())
    }

    /// Sees to it that the set tells what it waits for.
    fn wait(&mut self, key: u64, waits: Waits, set: &WaitSet) {
        if self.waits == waits {
            return;
        }
        set.remove(key);
        let added = match waits {
            Waits::ForRoom => set.add(key, &mut self.to),
            _ => set.add(key, &mut self.from),
        };
        self.waits = waits;
        if added.is_err() {
            self.waits = Waits::Again;
            // The timer may be there already, for another.
            let _ = set.add_timer(AGAIN, Instant::now() + PAUSE);
        }
    }

    /// Tells the side that it sent to that nothing more comes.
    fn close(self, end: &End) {
        let Way { from, to, place, .. } = self;
        drop(to);
        let close = move || drop((from, place));
        match end {
            End::OfWhatComes => close(),
            // What it has not read may make it linger, until the other way's words have arrived.
            // Where there is no further thread the others wait meanwhile.
            End::OfWhoTakes => {
                let _ = thread::Builder::new().name("relay-close".to_owned()).spawn(close);
            }
        }
    }
}

fn send(to: &mut Sender, body: &[u8], descriptors: &[OwnedFd]) -> Result<Level, Error> {
    let descriptors: Vec<_> = descriptors.iter().map(|descriptor| descriptor.as_fd()).collect();
    to.try_send(Outgoing::from(body).descriptors(&descriptors))
}
