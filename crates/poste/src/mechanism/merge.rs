//! Many connections behind one end: accepted, read as they become ready, and delivered in order of
//! priority, in turn within one priority.
//!
//! One epoll descriptor knows who is ready: a silent connection costs nothing, a busy one is read
//! once a round, and one that speaks garbage ends alone.
//! Sources: epoll(7), accept(2) ("Error handling": EMFILE).

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

use super::link::Link;
use super::listener::Listener;
use super::socket::Bound;
use super::timer::Timer;
use super::window::Window;
use super::wire::Flow;
use super::{Arrival, Frame, Halves, News, Pollable, RecvEnd, SendEnd};
use crate::capabilities::Peers;
use crate::error::{Error, Kind};
use crate::limits::{LOOK_BELOW, LOOK_EVERY, PRIORITY_MAX};
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
    listener: Listener,
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
    present: usize,
    /// Takes the name away; last, when nobody can come any more.
    _bound: Option<Bound>,
}

/// A place for a connection; its generation tells it from those that had the place before.
#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    link: Option<Link>,
    /// Under which priorities it stands in `ready`, once under each: bit `p` is priority `p`.
    listed: u32,
    /// The other side is gone, or is no longer listened to; what it sent is still delivered.
    is_over: bool,
}

impl Slot {
    /// Sees to it that a connection stands in `ready` under the priority of its first piece. Under
    /// lower ones it may stand from before, with pieces that are still to come.
    fn list(&mut self, ready: &mut Window<u64>, source: u64) {
        let first = self.link.as_mut().and_then(|link| link.inbox().priority());
        let Some(priority) = first.map(|first| first.min(PRIORITY_MAX)) else { return };
        if self.listed & 1 << priority == 0 {
            self.listed |= 1 << priority;
            ready.push(priority, source);
        }
    }
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
        // Nobody else reads a connection that we accepted: read ahead.
        let options = Options { take: None, ..options.clone() };
        let listener = Listener::new(listener, flow, options);
        let make = || {
            let epoll = epoll::create(CreateFlags::CLOEXEC)?;
            epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
            Ok(epoll)
        };
        let epoll = make().map_err(|errno: Errno| Error::system(errno, ""))?;
        Ok(Merge {
            epoll,
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
            match self.listener.accept(Wait::Not) {
                Ok(Some(link)) => self.add(link),
                Ok(None) => {}
                Err(Halt::Later) => return,
                Err(Halt::System(_)) => {
                    // The listener stays ready, and asking again at once would spin.
                    let _ = epoll::delete(&self.epoll, &self.listener);
                    self.accepting_paused = Some(Instant::now());
                    self.set_timer();
                    return;
                }
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

    fn add(&mut self, link: Link) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.connections.push(Slot::default());
            self.connections.len() - 1
        });
        let slot = &mut self.connections[index];
        let source = source_of(index, slot.generation);
        if epoll::add(&self.epoll, &link, EventData::new_u64(source), EventFlags::IN).is_err() {
            // No memory for it: closing it tells the other side.
            self.free.push(index);
            return;
        }
        slot.link = Some(link);
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
        slot.list(&mut self.ready, source);
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
            slot.listed &= !(1 << priority);
            let Some(link) = &mut slot.link else { continue };
            if !link.take(arrival) {
                continue;
            }
            self.pieces -= 1;
            arrival.source = source;
            let is_last = slot.is_over && link.inbox().is_empty();
            slot.list(&mut self.ready, source);
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
        let mut begun = None;
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
            let wait = *begun.get_or_insert_with(|| wait.begin());
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
            let accepted = self.listener.accept(wait).map_err(|halt| halt.receiving(wait))?;
            if let Some(link) = accepted {
                self.accepted += 1;
                return Box::new(link).split();
            }
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
        (self.accepted, self.corrupt + self.listener.refused())
    }
}

/// The way back: a frame goes to the connection that its `to` names.
impl SendEnd for Merge {
    fn send(&mut self, frame: &Frame<'_>, wait: Wait) -> Result<usize, Error> {
        let gone = || Error::new(Kind::Disconnected, "who sent it is gone");
        let to = frame.to.unwrap_or(0);
        let (_, slot) = slot_of(&mut self.connections, to).ok_or_else(gone)?;
        let link = slot.link.as_mut().ok_or_else(gone)?;
        link.send(frame, wait)
    }

    fn break_off(&mut self, to: u64) {
        if let Some((index, slot)) = slot_of(&mut self.connections, to) {
            if let Some(link) = &mut slot.link {
                // Its end is told at once; it is closed when what it sent is delivered. One who is
                // gone need not be told.
                let _ = link.half_close();
            }
            self.hang_up(index, to);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{HEADER_MAX, Header};
    use std::io::Write as _;
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

    /// An urgent message while an ordinary one waits, again and again.
    #[test]
    fn a_connection_stands_in_the_queue_once_under_each_priority() {
        let name = format!("poste-merge-{}", std::process::id());
        let name = SocketAddr::from_abstract_name(name).unwrap();
        let listener = UnixListener::bind_addr(&name).unwrap();
        let mut peer = UnixStream::connect_addr(&name).unwrap();
        let options = Options::new();
        let mut merge = Merge::new(listener.into(), Flow::Stream, &options, None).unwrap();
        let mut send = |priority| {
            let mut piece = [0; HEADER_MAX];
            let speaker = Some(crate::envelope::Speaker { sender: 7, sequence: 1 });
            let size = Header { priority, speaker, ..Header::message(0) }.encode(&mut piece);
            peer.write_all(&piece[..size]).unwrap();
        };
        let mut arrival = Arrival::default();
        send(0);
        send(0);
        merge.recv(&mut arrival, Wait::Forever).unwrap();
        for round in 0..200 {
            send(round % 3 + 1);
            let priority = |merge: &Merge, arrival: &Arrival| {
                Header::decode(merge.bytes(arrival)).unwrap().0.priority
            };
            merge.recv(&mut arrival, Wait::Forever).unwrap();
            assert_eq!(priority(&merge, &arrival), round % 3 + 1);
            assert!(arrival.more, "the ordinary one still waits");
            assert!(merge.ready.len() <= 1, "{} entries for one message", merge.ready.len());
        }
        merge.recv(&mut arrival, Wait::Not).unwrap();
        assert!(!arrival.more && merge.ready.is_empty());
        assert_eq!(merge.recv(&mut arrival, Wait::Not).unwrap_err().kind(), Kind::Empty);
    }
}
