//! The two ends of sealed memory, over its lane and the connection beside it.

use std::os::fd::{AsFd, OwnedFd};

use poste_sys::atomic::{Ordering, fence, store_fenced};
use poste_sys::mapping::Mapping;
use rustix::event::{EventfdFlags, PollFlags, epoll, eventfd};

use super::{ARMED, Line, corrupt, system};
use crate::capabilities::Peers;
use crate::error::{Error, Kind};
use crate::limits::{HELD_MAX, PRIORITY_MAX, RINGS_MAX};
use crate::mechanism::{Arrival, Frame, News, Pollable, RecvEnd, SendEnd};
use crate::ring::claim::{Reader, Wanted};
use crate::ring::layout::{Place, Word};
use crate::ring::producer::{Kind as MessageKind, Obstacle, Producer};
use crate::wait::{Halt, Wait};

/// The memory as its receiver has it.
pub(super) struct Memory {
    pub(super) reader: Reader,
    pub(super) bodies: Mapping,
}

/// The number by which a lane's only receiver takes.
const ONLY: u16 = 1;

impl Memory {
    /// The number and priority of the next message, not taken yet.
    pub(super) fn find(&mut self) -> Result<Option<(u64, Word)>, Error> {
        let urgent = self.reader.urgent();
        for priority in (0..=PRIORITY_MAX as u8).rev() {
            if priority == 0 || urgent & 1 << priority != 0 {
                let found = self.reader.find(priority).map_err(corrupt)?;
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        Ok(None)
    }

    /// Takes a message that was found, and copies it out.
    pub(super) fn take(
        &self,
        (number, word): (u64, Word),
        line: &mut Line,
        body: &mut Vec<u8>,
        arrival: &mut Arrival,
    ) -> Result<(), Error> {
        let lane = self.reader.lane();
        if !lane.take(number, word, ONLY) {
            return Err(corrupt("somebody else takes messages here"));
        }
        let place = lane.place(number);
        (arrival.sequence, arrival.sender) = lane.origin(number);
        body.clear();
        let is_there = place.size <= self.bodies.backed()
            && self.bodies.copy_out(place.offset, place.size, body);
        if lane.finish(number, ONLY) == Some(Wanted::Yes) {
            line.ring();
        }
        if !is_there {
            return Err(corrupt("a message's body lies outside of its lane"));
        }
        arrival.news = News::Piece;
        arrival.size = body.len();
        arrival.priority = Some(u16::from(word.priority()));
        arrival.credentials = line.peer;
        Ok(())
    }

    /// Asks to be rung for the next message; a look must follow. A full barrier, as the sender's
    /// between its message and its look here.
    pub(super) fn arm(&self) {
        store_fenced(self.reader.lane().control_word(ARMED), 1);
    }
}

/// The end that receives.
pub(super) struct Receiving {
    pub(super) line: Line,
    pub(super) memory: Memory,
    /// The body of the message taken last: always a copy.
    pub(super) body: Vec<u8>,
}

impl Receiving {
    /// Takes the next message and copies it out: whether there was one.
    fn take(&mut self, arrival: &mut Arrival) -> Result<bool, Error> {
        let Receiving { line, memory, body } = self;
        let Some(found) = memory.find()? else { return Ok(false) };
        memory.take(found, line, body, arrival)?;
        arrival.more = memory.find()?.is_some();
        if !arrival.more {
            memory.arm();
            arrival.more = memory.find()?.is_some();
        }
        Ok(true)
    }
}

impl RecvEnd for Receiving {
    fn recv(&mut self, arrival: &mut Arrival, wait: Wait) -> Result<(), Error> {
        self.line.check_life()?;
        arrival.reset();
        let wait = wait.begin();
        // However often it is rung, it is over when the wait is.
        for rings in 0.. {
            if self.take(arrival)? {
                return Ok(());
            }
            self.memory.arm();
            if self.take(arrival)? {
                return Ok(());
            }
            if self.line.is_over {
                return Err(Error::new(Kind::Disconnected, ""));
            }
            let is_over = rings >= RINGS_MAX && wait.left().is_some_and(|left| left.is_zero());
            if is_over || !self.line.wait(wait)? {
                return Err(Halt::Later.receiving(wait));
            }
        }
        unreachable!("it is rung less often than there are numbers")
    }

    fn bytes(&self, _arrival: &Arrival) -> &[u8] {
        &self.body
    }

    fn pollable(&mut self) -> Result<Pollable<'_>, Error> {
        // A message is shown by the ring that came with it, or by `more`.
        let descriptor = self.line.from.pollable()?;
        Ok(Pollable { descriptor, events: PollFlags::IN })
    }

    fn peers(&self) -> Peers {
        self.line.peers()
    }
}

/// The end that sends.
pub(super) struct Sending {
    pub(super) line: Line,
    pub(super) producer: Producer,
    /// What is polled, once it was asked for.
    pub(super) room: Option<Room>,
    /// The size for which there was no room last.
    pub(super) refused: usize,
}

/// Readable while there may be room, or the connection says something.
pub(super) struct Room {
    epoll: OwnedFd,
    eventfd: OwnedFd,
}

impl Room {
    pub(super) fn new(line: &mut Line) -> Result<Room, Error> {
        let line = line.from.pollable()?;
        let make = || {
            let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            for watched in [line, eventfd.as_fd()] {
                let data = epoll::EventData::new_u64(0);
                epoll::add(&epoll, watched, data, epoll::EventFlags::IN)?;
            }
            Ok(Room { epoll, eventfd })
        };
        make().map_err(system)
    }

    pub(super) fn pollable(&self) -> Pollable<'_> {
        Pollable { descriptor: self.epoll.as_fd(), events: PollFlags::IN }
    }
}

impl Sending {
    pub(super) fn new(line: Line, producer: Producer, room: Option<Room>) -> Sending {
        Sending { line, producer, room, refused: 0 }
    }

    /// The largest message, in bytes.
    pub(super) fn message_size(&self) -> usize {
        self.producer.size() / 4
    }

    fn offset(&mut self, size: usize, wait: Wait) -> Result<usize, Error> {
        self.line.check_life()?;
        let limit = self.message_size();
        if size > limit {
            let kind = Kind::TooLarge { size: size as u64, limit: limit as u64 };
            let hint = format!("allow it at the receiver: ?sealed&message-size={size}");
            return Err(Error::new(kind, "").with_hint(hint));
        }
        let wait = wait.begin();
        for rings in 0.. {
            if self.line.is_over {
                return Err(Error::new(Kind::Disconnected, ""));
            }
            let obstacle = match self.producer.room_for(size) {
                Ok(offset) => return Ok(offset),
                Err(obstacle) => obstacle,
            };
            // What is held back can't be taken, so it would never make room.
            self.publish();
            let is_over = rings >= RINGS_MAX && wait.left().is_some_and(|left| left.is_zero());
            if is_over || !self.wait_for(obstacle, wait)? {
                self.refused = size;
                self.show_room()?;
                return Err(Halt::Later.sending(wait));
            }
        }
        unreachable!("it is rung less often than there are numbers")
    }

    /// Waits until there may be room: whether there may within the wait.
    fn wait_for(&mut self, obstacle: Obstacle, wait: Wait) -> Result<bool, Error> {
        let Some(number) = self.producer.to_wait_for(obstacle) else { return Ok(true) };
        self.producer.want(number);
        let came = self.producer.came(number) || self.line.wait(wait)?;
        self.producer.want_nothing();
        Ok(came)
    }

    fn publish(&mut self) {
        if self.producer.held() == 0 {
            return;
        }
        self.producer.publish();
        // Between the messages and the look at who is to be rung.
        fence(Ordering::SeqCst);
        let armed = self.producer.lane().control_word(ARMED);
        if armed.load(Ordering::Relaxed) != 0 {
            armed.store(0, Ordering::Release);
            self.line.ring();
        }
    }

    /// Makes what is polled say whether there is room for what was sent or refused last.
    pub(super) fn show_room(&mut self) -> Result<(), Error> {
        if self.room.is_none() {
            return Ok(());
        }
        for _ in 0..RINGS_MAX {
            if self.line.is_over || !self.line.wait(Wait::Not)? {
                break;
            }
        }
        let has_room = match self.producer.room_for(self.refused) {
            Ok(_) => true,
            Err(obstacle) => match self.producer.to_wait_for(obstacle) {
                None => true,
                Some(number) => {
                    self.producer.want(number);
                    self.producer.came(number)
                }
            },
        };
        let Some(room) = &self.room else { return Ok(()) };
        // It is of ours alone and doesn't wait: read empties it, written it is readable.
        let _ = rustix::io::read(&room.eventfd, &mut [0; 8]);
        if has_room || self.line.is_over {
            let _ = rustix::io::write(&room.eventfd, &1_u64.to_ne_bytes());
        }
        Ok(())
    }

    fn write(&mut self, place: Place, frame: &Frame<'_>) -> Result<(), Error> {
        let priority = frame.priority.min(PRIORITY_MAX) as u8;
        let kind = MessageKind { priority, raw: false };
        self.producer.write(place, kind, frame.sequence, frame.sender);
        if !frame.more || self.producer.held() >= HELD_MAX {
            self.publish();
        }
        if !frame.more {
            self.refused = place.size;
            self.show_room()?;
        }
        Ok(())
    }
}

impl SendEnd for Sending {
    fn send(&mut self, frame: &Frame<'_>, wait: Wait) -> Result<usize, Error> {
        let size = frame.body.len();
        let offset = self.offset(size, wait)?;
        match self.producer.body(offset, size) {
            Some(body) => body.copy_from_slice(frame.body),
            None => return Err(corrupt("the other side wrote over the lane's words")),
        }
        self.write(Place { offset, size }, frame)?;
        Ok(size)
    }

    fn pollable(&mut self) -> Result<Pollable<'_>, Error> {
        if self.room.is_none() {
            self.room = Some(Room::new(&mut self.line)?);
            self.show_room()?;
        }
        match &self.room {
            Some(room) => Ok(room.pollable()),
            None => unreachable!("it was just made"),
        }
    }

    fn flush(&mut self, _wait: Wait) -> Result<(), Error> {
        self.line.check_life()?;
        self.publish();
        if self.line.is_over { Err(Error::new(Kind::Disconnected, "")) } else { Ok(()) }
    }

    fn loan(&mut self, size: usize, wait: Wait) -> Result<(), Error> {
        let offset = self.offset(size, wait)?;
        self.producer.lend(Place { offset, size });
        Ok(())
    }

    fn lent(&self) -> &[u8] {
        self.producer.lent()
    }

    fn lent_mut(&mut self) -> &mut [u8] {
        self.producer.lent_mut()
    }

    fn send_loan(&mut self, size: usize, frame: &Frame<'_>) -> Result<(), Error> {
        self.line.check_life()?;
        match self.producer.take_lent(size) {
            Some(place) => self.write(place, frame),
            None => Err(Error::new(Kind::NotSupported, "nothing of that size was lent")),
        }
    }

    fn peers(&self) -> Peers {
        self.line.peers()
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if self.line.life.lasts() {
            self.publish();
        }
    }
}
