//! Many connections behind one end: accepted, read as they become ready, and delivered in order of
//! priority, in turn within one priority.
//!
//! One epoll descriptor knows who is ready: a silent connection costs nothing, a busy one is read
//! once a round, and one that speaks garbage ends alone.
//! Sources: epoll(7), accept(2) ("Error handling": EMFILE).

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::sockopt::socket_domain;
use rustix::net::{AddressFamily, SocketFlags, accept_with};

use super::link::Link;
use super::socket::{Bound, peer};
use super::timer::Timer;
use super::window::Window;
use super::wire::Flow;
use super::{Arrival, Frame, Halves, News, Pollable, RecvEnd, SendEnd};
use crate::capabilities::Peers;
use crate::error::{Error, Kind};
use crate::limits::{LOOK_BELOW, LOOK_EVERY};
use crate::options::Options;
use crate::wait::{Halt, Wait};

/// The epoll entry of the listener; connections have their `source`.
const LISTENER: u64 = 0;

/// The epoll entry of the timer; no connection has this `source`.
const AGAIN: u64 = u64::MAX;

/// How many are accepted in a row, so that those who are there are served too.
const ACCEPTS_AT_ONCE: usize = 64;

/// How long accepting pauses when this process may open no more descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// A listening socket and its connections, as one receiving end.
pub struct Merge {
    epoll: OwnedFd,
    listener: OwnedFd,
    flow: Flow,
    options: Options,
    connections: Vec<Slot>,
    free: Vec<usize>,
    /// The sources that have pieces, under the priority of the first.
    ready: Window<u64>,
    /// How many pieces lie in all inboxes together.
    pieces: usize,
    /// Connections that have ended and whose end has not been told yet.
    ended: VecDeque<u64>,
    /// The one whose piece is lent.
    current: Option<usize>,
    /// One that has ended and lent its last piece; it goes with the next call.
    leaving: Option<usize>,
    delivered_since_look: u32,
    events: Vec<u64>,
    accepting_paused: Option<Instant>,
    /// Fires when a pause in accepting is over: who only polls is to look then. Made for those.
    again: Option<Timer>,
    accepted: u64,
    corrupt: u64,
    refused: u64,
    is_unix: bool,
    present: usize,
    /// Takes the name away; last, when nobody can come any more.
    _bound: Option<Bound>,
}

/// A place for a connection; its generation tells it from those that had the place before.
#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    link: Option<Link>,
    /// Under which priority it stands in `ready`.
    queued: Option<u16>,
    /// The other side is gone, or is no longer listened to; what it sent is still delivered.
    is_over: bool,
}

impl Merge {
    /// Over a listening socket.
    ///
    /// # Errors
    /// What the system said.
    pub fn new(
        listener: OwnedFd,
        flow: Flow,
        options: &Options,
        bound: Option<Bound>,
    ) -> Result<Merge, Error> {
        let make = || {
            // Accepting must not wait for one who has gone again; the flag isn't inherited.
            rustix::io::ioctl_fionbio(&listener, true)?;
            let epoll = epoll::create(CreateFlags::CLOEXEC)?;
            epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
            Ok(epoll)
        };
        let epoll = make().map_err(|errno: Errno| Error::system(errno, ""))?;
        Ok(Merge {
            epoll,
            flow,
            // Nobody else reads a connection that we accepted: read ahead.
            options: Options { take: None, ..options.clone() },
            connections: Vec::new(),
            free: Vec::new(),
            ready: Window::default(),
            pieces: 0,
            ended: VecDeque::new(),
            current: None,
            leaving: None,
            delivered_since_look: 0,
            events: Vec::new(),
            accepting_paused: None,
            again: None,
            accepted: 0,
            corrupt: 0,
            refused: 0,
            is_unix: socket_domain(&listener) == Ok(AddressFamily::UNIX),
            present: 0,
            listener,
            _bound: bound,
        })
    }

    /// Takes in what is ready: new connections, and one read of each that has something.
    fn look(&mut self, wait: Wait) -> Result<(), Halt> {
        self.delivered_since_look = 0;
        let paused = self.resume_accepting();
        let mut events = std::mem::take(&mut self.events);
        let waited = if paused && wait.left().is_none_or(|left| left > PAUSE) {
            match Wait::For(PAUSE).events(self.epoll.as_fd(), &mut events) {
                Err(Halt::Later) => Ok(()),
                other => other,
            }
        } else {
            wait.events(self.epoll.as_fd(), &mut events)
        };
        if waited.is_ok() {
            for entry in &events {
                match *entry {
                    LISTENER => self.accept(),
                    AGAIN => self.set_timer(),
                    source => self.read(source),
                }
            }
        }
        self.events = events;
        waited
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTS_AT_ONCE {
            match accept_with(&self.listener, SocketFlags::CLOEXEC) {
                Ok(socket) => self.add(socket),
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    // The listener stays ready, and asking again at once would spin.
                    let _ = epoll::delete(&self.epoll, &self.listener);
                    self.accepting_paused = Some(Instant::now());
                    self.set_timer();
                    return;
                }
                Err(Errno::AGAIN) => return,
                // One who has gone again, or whom a firewall keeps out: the next one.
                Err(_) => {}
            }
        }
    }

    /// Accepts again after a pause; says whether it still pauses.
    fn resume_accepting(&mut self) -> bool {
        let Some(since) = self.accepting_paused else { return false };
        if since.elapsed() < PAUSE {
            return true;
        }
        let entry = EventData::new_u64(LISTENER);
        let added = epoll::add(&self.epoll, &self.listener, entry, EventFlags::IN);
        if added.is_ok() {
            self.accepting_paused = None;
            self.set_timer();
        }
        added.is_err()
    }

    /// The timer runs while accepting pauses.
    fn set_timer(&self) {
        match (&self.again, self.accepting_paused) {
            (Some(again), Some(_)) => again.set(PAUSE),
            (Some(again), None) => again.stop(),
            (None, _) => {}
        }
    }

    fn add(&mut self, socket: OwnedFd) {
        super::tcp::prepare(&socket);
        let credentials = peer(&socket);
        if !self.options.allowed.allows(&credentials) {
            // Closing it tells the other side.
            self.refused += 1;
            return;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.connections.push(Slot::default());
            self.connections.len() - 1
        });
        let slot = &mut self.connections[index];
        let source = source_of(index, slot.generation);
        if epoll::add(&self.epoll, &socket, EventData::new_u64(source), EventFlags::IN).is_err() {
            // No memory for it: closing it tells the other side.
            self.free.push(index);
            return;
        }
        let link = Link::new(socket, self.flow, &self.options).with_credentials(credentials);
        slot.link = Some(if self.is_unix { link.unix(&self.options) } else { link });
        self.accepted += 1;
        self.present += 1;
    }

    /// Reads a connection once.
    fn read(&mut self, source: u64) {
        let Some((index, slot)) = slot_of(&mut self.connections, source) else { return };
        let Some(link) = &mut slot.link else { return };
        if !link.inbox().is_empty() && !link.should_look() {
            // It has enough here, or no room: the rest waits in the kernel, and its sender with it.
            return;
        }
        let pieces = link.inbox().len();
        let is_over = match link.read(Wait::Not) {
            Ok(_) => link.inbox().has_ended(),
            Err(Halt::Later) => false,
            Err(Halt::System(_)) => true,
        };
        // What was sound before the garbage is delivered.
        let is_garbage = link.inbox().take_fault().is_some();
        self.pieces += link.inbox().len() - pieces;
        if let Some(priority) = link.inbox().priority() {
            if slot.queued.is_none_or(|queued| queued < priority) {
                slot.queued = Some(priority);
                self.ready.push(priority, source);
            }
        }
        self.corrupt += u64::from(is_garbage);
        if is_over || is_garbage {
            self.hang_up(index, source);
        }
    }

    /// A connection is over: what it sent before is delivered, then its end is told.
    fn hang_up(&mut self, index: usize, source: u64) {
        let slot = &mut self.connections[index];
        let Some(link) = &mut slot.link else { return };
        if !slot.is_over {
            slot.is_over = true;
            self.present -= 1;
            // Before the descriptor is closed: a forked child may hold a copy of it.
            let _ = epoll::delete(&self.epoll, link.descriptor());
        }
        if link.inbox().is_empty() && self.current != Some(index) {
            self.let_go(index, source);
        } else if link.inbox().is_empty() {
            self.leaving = Some(index);
        }
    }

    fn let_go(&mut self, index: usize, source: u64) {
        let generation = self.connections[index].generation.wrapping_add(1);
        self.connections[index] = Slot { generation, ..Slot::default() };
        self.free.push(index);
        self.ended.push_back(source);
        if self.accepting_paused.is_some() {
            // A descriptor is free again.
            self.accepting_paused = Some(Instant::now() - PAUSE);
            if let Some(again) = &self.again {
                again.set(Duration::ZERO);
            }
        }
    }

    /// Takes the next piece out of a connection's inbox.
    fn take(&mut self, arrival: &mut Arrival) -> bool {
        while let Some((priority, source)) = self.ready.pop() {
            let Some((index, slot)) = slot_of(&mut self.connections, source) else { continue };
            let Some(link) = &mut slot.link else { continue };
            if slot.queued != Some(priority) || !link.take(arrival) {
                // It stands in `ready` a second time, under a higher priority.
                continue;
            }
            self.pieces -= 1;
            arrival.source = source;
            slot.queued = link.inbox().priority();
            if let Some(priority) = slot.queued {
                self.ready.push(priority, source);
            }
            let is_last = slot.is_over && slot.queued.is_none();
            self.current = Some(index);
            self.leaving = is_last.then_some(index);
            self.delivered_since_look += 1;
            arrival.more =
                !self.ready.is_empty() || !self.ended.is_empty() || self.leaving.is_some();
            return true;
        }
        false
    }

    fn should_look(&self) -> bool {
        self.pieces < LOOK_BELOW || self.delivered_since_look >= LOOK_EVERY
    }
}

/// The number of a connection that is never reused: not the listener's, which is 0.
fn source_of(index: usize, generation: u32) -> u64 {
    u64::from(generation) << 32 | (index as u64 + 1)
}

fn slot_of(connections: &mut [Slot], source: u64) -> Option<(usize, &mut Slot)> {
    let index = (source as u32).checked_sub(1)? as usize;
    let slot = connections.get_mut(index)?;
    (slot.generation == (source >> 32) as u32).then_some((index, slot))
}

impl RecvEnd for Merge {
    fn recv(&mut self, arrival: &mut Arrival, wait: Wait) -> Result<(), Error> {
        let wait = wait.begin();
        arrival.reset();
        self.current = None;
        if let Some(index) = self.leaving.take() {
            let source = source_of(index, self.connections[index].generation);
            self.let_go(index, source);
        }
        if !self.ready.is_empty() && self.should_look() {
            // Something more urgent may have come; that nothing did is no news.
            let _ = self.look(Wait::Not);
        }
        loop {
            if let Some(source) = self.ended.pop_front() {
                arrival.news = News::Ended;
                arrival.source = source;
                arrival.more = !self.ended.is_empty() || !self.ready.is_empty();
                return Ok(());
            }
            if self.take(arrival) {
                return Ok(());
            }
            self.look(wait).map_err(|halt| halt.receiving(wait))?;
        }
    }

    fn bytes(&self, arrival: &Arrival) -> &[u8] {
        let index = (arrival.source as u32).wrapping_sub(1) as usize;
        match self.connections.get(index).and_then(|slot| slot.link.as_ref()) {
            Some(link) => link.bytes(arrival),
            None => &[],
        }
    }

    fn pollable(&mut self) -> Result<Pollable<'_>, Error> {
        if self.again.is_none() {
            let make = || {
                let again = Timer::new()?;
                epoll::add(&self.epoll, &again, EventData::new_u64(AGAIN), EventFlags::IN)?;
                Ok(again)
            };
            self.again = Some(make().map_err(|errno: Errno| Error::system(errno, ""))?);
            self.set_timer();
        }
        Ok(Pollable { descriptor: self.epoll.as_fd(), events: PollFlags::IN })
    }

    fn back(&mut self) -> Option<&mut dyn SendEnd> {
        Some(self)
    }

    fn accept(&mut self, wait: Wait) -> Result<Halves, Error> {
        let wait = wait.begin();
        loop {
            let listener = self.listener.as_fd();
            let socket = match wait.run(listener, PollFlags::IN, |_| accept_one(listener)) {
                // One who has gone again: the next one.
                Err(Halt::System(Errno::CONNABORTED)) => continue,
                accepted => accepted.map_err(|halt| halt.receiving(wait))?,
            };
            super::tcp::prepare(&socket);
            let credentials = peer(&socket);
            if !self.options.allowed.allows(&credentials) {
                self.refused += 1;
                continue;
            }
            self.accepted += 1;
            let link = Link::new(socket, self.flow, &self.options).with_credentials(credentials);
            return Box::new(if self.is_unix { link.unix(&self.options) } else { link }).split();
        }
    }

    fn peers(&self) -> Peers {
        match (self.present, self.accepted) {
            (0, 0) => Peers::NobodyYet,
            (0, _) => Peers::AllGone,
            (count, _) => Peers::Present(count),
        }
    }

    fn connections(&self) -> (u64, u64) {
        (self.accepted, self.corrupt + self.refused)
    }
}

/// The way back: a frame goes to the connection that its `to` names.
impl SendEnd for Merge {
    fn send(&mut self, frame: &Frame<'_>, wait: Wait) -> Result<usize, Error> {
        let gone = || Error::new(Kind::Disconnected, "who sent it is gone");
        let to = frame.to.unwrap_or(0);
        let (index, slot) = slot_of(&mut self.connections, to).ok_or_else(gone)?;
        let link = slot.link.as_mut().ok_or_else(gone)?;
        let done = link.send(frame, wait)?;
        if done < frame.size() {
            // It doesn't read, and the rest of the answer can't wait for it.
            self.hang_up(index, to);
            return Err(Error::new(Kind::TimedOut, "the caller doesn't read its answer"));
        }
        Ok(done)
    }

    fn dismiss(&mut self, to: u64) -> Result<(), Error> {
        let link = slot_of(&mut self.connections, to).and_then(|(_, slot)| slot.link.as_mut());
        // One who is gone need not be told.
        link.map_or(Ok(()), |link| SendEnd::dismiss(link, to))
    }

    fn pollable(&mut self) -> Result<Pollable<'_>, Error> {
        Err(Error::new(Kind::NotSupported, "the way back goes to many"))
    }
}

/// A listening socket that sends: to whoever connects first, and when that one is gone to the next.
pub struct Serve {
    listener: OwnedFd,
    flow: Flow,
    options: Options,
    link: Option<Link>,
    /// What is polled: the link while there is one, else the listener. Made when it is asked for.
    epoll: Option<OwnedFd>,
    accepted: u64,
    _bound: Option<Bound>,
}

impl Serve {
    /// Over a listening socket.
    #[must_use]
    pub fn new(listener: OwnedFd, flow: Flow, options: &Options, bound: Option<Bound>) -> Serve {
        let options = options.clone();
        Serve { listener, flow, options, link: None, epoll: None, accepted: 0, _bound: bound }
    }

    fn link(&mut self, wait: Wait) -> Result<&mut Link, Error> {
        while self.link.is_none() {
            let listener = self.listener.as_fd();
            let accepted = wait.run(listener, PollFlags::IN, |_| accept_one(listener));
            let socket = accepted.map_err(|halt| match halt {
                Halt::Later => Error::new(Kind::NoReceiver, "nobody has connected")
                    .with_hint("start the receiver, with --connect"),
                Halt::System(errno) => Error::system(errno, ""),
            })?;
            super::tcp::prepare(&socket);
            if !self.options.allowed.allows(&peer(&socket)) {
                // Closing it tells the other side.
                continue;
            }
            self.accepted += 1;
            self.link = Some(Link::new(socket, self.flow, &self.options).lingering());
            self.watch()?;
        }
        match &mut self.link {
            Some(link) => Ok(link),
            None => unreachable!("it was just made"),
        }
    }
}

impl Serve {
    /// While nobody is connected a connection is news, and else room to send.
    fn watch(&mut self) -> Result<(), Error> {
        let Some(epoll) = &self.epoll else { return Ok(()) };
        let data = EventData::new_u64(0);
        let done = match &self.link {
            Some(link) => {
                // It isn't there where the link came first.
                let _ = epoll::delete(epoll, &self.listener);
                epoll::add(epoll, link.descriptor(), data, EventFlags::OUT)
            }
            None => epoll::add(epoll, &self.listener, data, EventFlags::IN),
        };
        done.map_err(|errno| Error::system(errno, ""))
    }
}

/// Accepts the next one: waiting, or only if one is there.
fn accept_one(listener: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    // The listener doesn't block; a blocking call comes back with EAGAIN, and the wait polls.
    accept_with(listener, SocketFlags::CLOEXEC)
}

impl SendEnd for Serve {
    fn send(&mut self, frame: &Frame<'_>, wait: Wait) -> Result<usize, Error> {
        let wait = wait.begin();
        loop {
            match self.link(wait)?.send(frame, wait) {
                // Not one byte was accepted: it is the next one's.
                Err(error) if error.is(&Kind::Disconnected) => {
                    if let (Some(epoll), Some(link)) = (&self.epoll, &self.link) {
                        // Before it is closed: a forked child may hold a copy.
                        let _ = epoll::delete(epoll, link.descriptor());
                    }
                    self.link = None;
                    self.watch()?;
                }
                done => return done,
            }
        }
    }

    fn pollable(&mut self) -> Result<Pollable<'_>, Error> {
        if self.epoll.is_none() {
            let made = epoll::create(CreateFlags::CLOEXEC);
            self.epoll = Some(made.map_err(|errno| Error::system(errno, ""))?);
            self.watch()?;
        }
        match &self.epoll {
            Some(epoll) => Ok(Pollable { descriptor: epoll.as_fd(), events: PollFlags::IN }),
            None => unreachable!("it was just made"),
        }
    }

    fn back(&mut self) -> Option<&mut dyn RecvEnd> {
        self.link.as_mut().and_then(|link| SendEnd::back(link))
    }

    fn half_close(&mut self) -> Result<(), Error> {
        self.link.as_mut().map_or(Ok(()), Link::half_close)
    }

    fn peers(&self) -> Peers {
        match (&self.link, self.accepted) {
            (Some(_), _) => Peers::Present(1),
            (None, 0) => Peers::NobodyYet,
            (None, _) => Peers::AllGone,
        }
    }
}
