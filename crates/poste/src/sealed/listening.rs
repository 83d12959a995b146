//! The end that receives at a socket's address: whoever connects gets sealed memory of its own.
//!
//! A connection is first one that is to say hello, which nobody waits for; then it has memory. Who
//! isn't allowed, says something else, or writes nonsense into the memory loses the connection and
//! is counted, and the others don't notice. What one sent before it ended is received.
//! Sources: epoll(7), unix(7).

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFlags, epoll};
use rustix::io::Errno;

use super::ends::Memory;
use super::{Line, forked, system};
use crate::capabilities::Peers;
use crate::error::{Error, Kind};
use crate::limits::{LOOK_EVERY, RINGS_MAX};
use crate::mechanism::timer::Timer;
use crate::mechanism::{Arrival, Pollable, RecvEnd};
use crate::options::Options;
use crate::receiver::Receiver;
use crate::ring::layout::Word;
use crate::wait::{Halt, Wait};

/// The number of the listener in epoll, and of the timer: connections count up from 2.
const LISTENER: u64 = 0;
const AGAIN: u64 = 1;

/// How long accepting pauses where this process may open no more descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// The receiving end.
pub(super) struct Listening {
    listener: Receiver,
    options: Options,
    epoll: OwnedFd,
    /// Goes off when accepting has paused long enough.
    again: Timer,
    paused: Option<Instant>,
    peers: Vec<Peer>,
    /// The peer to look at first.
    turn: usize,
    /// The number of the next connection.
    next: u64,
    /// The body of the message taken last.
    body: Vec<u8>,
    /// How many messages were taken since the last look at who came.
    taken: u32,
    accepted: u64,
    refused: u64,
    life: poste_sys::fork::Life,
}

/// A connection.
struct Peer {
    number: u64,
    line: Line,
    /// Once it has said hello.
    memory: Option<Memory>,
}

impl Peer {
    /// Takes in what it says: whether that is all right.
    fn hear(&mut self, options: &Options) -> Result<(), Error> {
        if self.memory.is_none() {
            match self.line.hear_hello(options, Wait::Not) {
                Err(error) if error.is(&Kind::Empty) => return Ok(()),
                heard => heard?,
            }
            self.memory = Some(self.line.offer(options, Wait::Not)?.0);
        }
        // One that rings on and on is left at it: the others have their turn.
        for _ in 0..RINGS_MAX {
            if self.line.is_over || !self.line.wait(Wait::Not)? {
                break;
            }
        }
        Ok(())
    }

    /// Its next message, not taken yet.
    fn find(&mut self) -> Result<Option<(u64, Word)>, Error> {
        self.memory.as_mut().map_or(Ok(None), Memory::find)
    }
}

impl Listening {
    /// Over a receiver that listens and never receives.
    pub(super) fn new(mut listener: Receiver, options: Options) -> Result<Listening, Error> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(system)?;
        let again = Timer::new().map_err(system)?;
        watch(&epoll, listener.watched()?, LISTENER).map_err(system)?;
        let data = epoll::EventData::new_u64(AGAIN);
        epoll::add(&epoll, &again, data, epoll::EventFlags::IN).map_err(system)?;
        Ok(Listening {
            listener,
            options,
            epoll,
            again,
            paused: None,
            peers: Vec::new(),
            turn: 0,
            next: AGAIN + 1,
            body: Vec::new(),
            taken: 0,
            accepted: 0,
            refused: 0,
            life: poste_sys::fork::Life::this(),
        })
    }

    /// Takes in what is ready: new connections, hellos, rings and ends.
    fn look(&mut self, wait: Wait) -> Result<(), Error> {
        let mut events = Vec::new();
        match wait.events(self.epoll.as_fd(), &mut events) {
            Ok(()) => {}
            Err(halt) => return Err(halt.receiving(wait)),
        }
        for event in events {
            match event {
                LISTENER => self.accept(),
                AGAIN => self.resume(),
                number => self.hear(number),
            }
        }
        Ok(())
    }

    fn accept(&mut self) {
        loop {
            let connection = match self.listener.accept(Wait::Not) {
                Ok(connection) => connection,
                Err(error) if error.is(&Kind::Empty) => return,
                Err(_) => return self.pause(),
            };
            let mut line = Line::new(connection);
            let number = self.next;
            let watched = line.from.watched();
            let watched = watched.and_then(|it| watch(&self.epoll, it, number).map_err(system));
            if watched.is_err() {
                // No memory for it: closing it tells the other side.
                continue;
            }
            self.next += 1;
            self.accepted += 1;
            self.peers.push(Peer { number, line, memory: None });
            self.hear(number);
        }
    }

    /// The listener stays ready, and asking again at once would spin.
    fn pause(&mut self) {
        if let Ok(watched) = self.listener.watched() {
            // It was added; deleting fails only where it is gone already.
            let _ = epoll::delete(&self.epoll, watched.descriptor);
        }
        self.paused = Some(Instant::now());
        self.again.set(PAUSE);
    }

    fn resume(&mut self) {
        self.again.stop();
        if self.paused.take().is_none() {
            return;
        }
        let watched = self.listener.watched();
        if !watched.is_ok_and(|it| watch(&self.epoll, it, LISTENER).is_ok()) {
            self.paused = Some(Instant::now());
            self.again.set(PAUSE);
        }
    }

    /// Takes in what a connection says.
    fn hear(&mut self, number: u64) {
        let Some(index) = self.peers.iter().position(|peer| peer.number == number) else { return };
        match self.peers[index].hear(&self.options) {
            Ok(()) => {}
            Err(error) if error.is(&Kind::Disconnected) => self.let_go(index),
            Err(_) => self.refuse(index),
        }
    }

    /// Ends a connection that speaks garbage, or is someone else's.
    fn refuse(&mut self, index: usize) {
        self.refused += 1;
        self.let_go(index);
    }

    fn let_go(&mut self, index: usize) {
        let mut peer = self.peers.swap_remove(index);
        if let Ok(watched) = peer.line.from.watched() {
            // Before it is closed: a forked child may hold a copy of it.
            let _ = epoll::delete(&self.epoll, watched.descriptor);
        }
        if self.paused.is_some() {
            // A descriptor is free again.
            self.again.set(Duration::ZERO);
        }
    }

    /// The peer that has the most urgent message, from the one whose turn it is.
    fn find(&mut self) -> Option<(usize, (u64, Word))> {
        let mut best: Option<(usize, (u64, Word))> = None;
        let mut step = 0;
        while step < self.peers.len() {
            let index = (self.turn + step) % self.peers.len();
            let peer = &mut self.peers[index];
            match peer.find() {
                Ok(Some(found)) => {
                    let is_better =
                        |best: (usize, (u64, Word))| found.1.priority() > best.1.1.priority();
                    if best.is_none_or(is_better) {
                        best = Some((index, found));
                    }
                    step += 1;
                }
                // Its line is told of its end before what it sent last is looked for.
                Ok(None) if peer.memory.is_some() && peer.line.is_over => {
                    self.let_go(index);
                    (best, step) = (None, 0);
                }
                Ok(None) => step += 1,
                Err(_) => {
                    self.refuse(index);
                    (best, step) = (None, 0);
                }
            }
        }
        best
    }

    /// Takes the next message, if one is there.
    fn take(&mut self, arrival: &mut Arrival) -> bool {
        while let Some((index, found)) = self.find() {
            let Peer { line, memory, .. } = &mut self.peers[index];
            let Some(memory) = memory else { continue };
            if memory.take(found, line, &mut self.body, arrival).is_err() {
                self.refuse(index);
                continue;
            }
            self.turn = index + 1;
            self.taken += 1;
            arrival.more = self.find().is_some();
            if !arrival.more {
                self.arm();
                arrival.more = self.find().is_some();
            }
            return true;
        }
        false
    }

    /// Asks all to ring for the next message; a look must follow.
    fn arm(&self) {
        self.peers.iter().filter_map(|peer| peer.memory.as_ref()).for_each(Memory::arm);
    }
}

impl RecvEnd for Listening {
    fn recv(&mut self, arrival: &mut Arrival, wait: Wait) -> Result<(), Error> {
        if !self.life.lasts() {
            return Err(forked());
        }
        arrival.reset();
        let wait = wait.begin();
        if self.taken >= LOOK_EVERY {
            self.taken = 0;
            // Others may have come, or have more urgent messages; that nothing did is no news.
            let _ = self.look(Wait::Not);
        }
        // However often it is rung, it is over when the wait is.
        for looks in 0.. {
            if self.take(arrival) {
                return Ok(());
            }
            self.arm();
            if self.take(arrival) {
                return Ok(());
            }
            if looks >= RINGS_MAX && wait.left().is_some_and(|left| left.is_zero()) {
                break;
            }
            self.look(wait)?;
        }
        Err(Halt::Later.receiving(wait))
    }

    fn bytes(&self, _arrival: &Arrival) -> &[u8] {
        &self.body
    }

    fn pollable(&mut self) -> Result<Pollable<'_>, Error> {
        // A message is shown by the ring that came with it, or by `more`.
        Ok(Pollable { descriptor: self.epoll.as_fd(), events: PollFlags::IN })
    }

    fn peers(&self) -> Peers {
        let present = self.peers.iter().filter(|peer| !peer.line.is_over).count();
        match (present, self.accepted) {
            (0, 0) => Peers::NobodyYet,
            (0, _) => Peers::AllGone,
            (count, _) => Peers::Present(count),
        }
    }

    fn connections(&self) -> (u64, u64) {
        (self.accepted, self.refused + self.listener.counters().corrupt)
    }
}

fn watch(epoll: &OwnedFd, watched: Pollable<'_>, number: u64) -> Result<(), Errno> {
    let data = epoll::EventData::new_u64(number);
    epoll::add(epoll, watched.descriptor, data, epoll::EventFlags::IN)
}
