//! Shared memory between two that don't trust each other: one lane, one sender, one receiver.
//!
//! The receiver makes the memory, seals it against being cut short or made longer, and passes its
//! descriptor over a Unix connection; the sender checks the seals and the size before it touches a
//! byte. Each checks first who the kernel says is at the other end. The connection stays: it wakes
//! who waits, and its end is the news of a death. Whatever a peer writes into the memory, bodies are
//! copied out before anybody sees them, words are read once and checked, and waits end when they are
//! over. What the memory holds is lost with its two ends: nothing comes again.
//!
//! Sources: memfd_create(2), fcntl(2) on file sealing, unix(7).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use poste_sys::atomic::{Ordering, store_fenced};
use poste_sys::mapping::{Access, Mapping};
use rustix::event::{EventfdFlags, PollFlags, epoll, eventfd};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;

use crate::address::Address;
use crate::capabilities::{Capabilities, Identity, Peers, Priorities, Unit};
use crate::credentials::{Allowed, Credentials};
use crate::duplex::Duplex;
use crate::error::{Error, Kind};
use crate::limits::{
    LANE_DESCRIPTORS, LANE_SIZE, MAILBOX_CAPACITY_MAX, MAILBOX_MESSAGE_MAX, PRIORITY_MAX,
    RINGS_MAX, SEALED_MAX,
};
use crate::mechanism::{
    Arrival, EndTraits, Frame, Mechanism, News, Opened, Pollable, RecvEnd, SendEnd, no_objects,
};
use crate::object::Listing;
use crate::options::Options;
use crate::outgoing::Outgoing;
use crate::receiver::Receiver;
use crate::ring::claim::{Reader, Wanted};
use crate::ring::lane::{Kind as MessageKind, Lane, Obstacle, Producer};
use crate::ring::layout::Place;
use crate::sender::Sender;
use crate::wait::{Halt, Wait};

/// Sealed memory.
static MECHANISM: Mechanism = Mechanism {
    scheme: "sealed",
    title: "sealed shared memory",
    example: "sealed:",
    capabilities: Capabilities {
        raw_boundaries: true,
        raw_empty: true,
        pieces: false,
        connections: true,
        many_senders: false,
        priorities: Priorities::Native(PRIORITY_MAX),
        identity: Identity::Connection,
        named: false,
        capacity: Some(Unit::Messages),
        ..Capabilities::PLAIN
    },
    settings: &["capacity", "message-size"],
    create: |_| Err(nameless()),
    open_sender: |_| Err(nameless()),
    open_receiver: |_| Err(nameless()),
    remove: |_| Err(nameless()),
    list: |_| Listing::none(),
    place: no_objects,
    limits: &["RLIMIT_NOFILE"],
};

fn nameless() -> Error {
    Error::new(Kind::NotSupported, "sealed memory has no name to open it by")
        .with_hint("make it over a Unix connection with Receiver::sealed and Sender::sealed")
}

/// What the sender says first.
const HELLO: &[u8] = b"poste-sealed 1";

/// The seals that must be there: no page that was there when it was mapped can go.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// The receiver's word in the lane's first page, beside those that ring/layout.rs draws: 1: ring the
/// connection when there is a message.
const ARMED: usize = 256;

impl Receiver {
    /// Makes sealed memory (memfd_create(2)), passes it over a Unix connection, and receives what the
    /// other side sends through it: nobody can cut it short under the other. The other side calls
    /// [`Sender::sealed`].
    ///
    /// ```
    /// use poste::{Options, Receiver, Sender, Wait};
    /// # fn main() -> Result<(), poste::Error> {
    /// let (here, there) = poste::pair()?; // or a connection from Receiver::accept, Sender::into_duplex
    /// let sender = std::thread::spawn(|| {
    ///     let mut sender = Sender::sealed(there, &Options::new(), Wait::Forever)?;
    ///     sender.send("through memory")
    /// });
    /// let mut receiver = Receiver::sealed(here, &Options::new(), Wait::Forever)?;
    /// assert_eq!(receiver.recv()?.text()?, "through memory");
    /// # sender.join().unwrap()?;
    /// # Ok(()) }
    /// ```
    ///
    /// The other side must be this process's user or root, unless the options say who
    /// ([`Options::require_user`]). A message is at most as large as the options' message size (64 KiB
    /// unless given), in bytes; memory for four of them is taken at once.
    ///
    /// # Errors
    /// `Permission` where the other side is someone else; `Corrupt` where it says something else;
    /// `TimedOut` and `Empty` where it says nothing in time; `Disconnected` where it is gone;
    /// `NotSupported` where the connection carries no descriptors; `Limit` for sizes beyond every
    /// limit; what the system said where the memory isn't there.
    pub fn sealed(connection: Duplex, options: &Options, wait: Wait) -> Result<Receiver, Error> {
        let mut line = Line::new(connection);
        let offered = line.offer(options, wait.begin());
        let (lane, bodies, message_size) = offered.map_err(|error| error.on("share", &SHOWN))?;
        let traits = traits(message_size, lane.slots());
        let credentials = line.peer;
        let reader = Reader::new(lane);
        let end: Box<dyn RecvEnd> =
            Box::new(Receiving { line, reader, bodies, body: Vec::new(), credentials });
        let opened = Opened { end, traits, address: address()? };
        Ok(Receiver::over(&MECHANISM, opened, options.clone()))
    }
}

impl Sender {
    /// Takes the sealed memory that the other side of a Unix connection offers by
    /// [`Receiver::sealed`], after a look at whose it is, at its seals and at its size; there is the
    /// example.
    ///
    /// # Errors
    /// `Permission` where the other side is neither this process's user nor root, nor whom the
    /// options require; `Corrupt` where what it offers isn't sealed, or not of the size that it says;
    /// `Limit` where that is more than 64 MiB and more than the options ask for; `TimedOut`, `Empty`,
    /// `Disconnected`, `NotSupported` as there.
    pub fn sealed(connection: Duplex, options: &Options, wait: Wait) -> Result<Sender, Error> {
        let mut line = Line::new(connection);
        let taken = line.take(options, wait.begin());
        let (lane, bodies) = taken.map_err(|error| error.on("share", &SHOWN))?;
        let (slots, size) = (lane.slots(), bodies.backed());
        let capacity = options.capacity.map_or(slots, |messages| messages as u64);
        let producer = Producer::resume(lane, bodies, capacity);
        let producer = producer.map_err(|fault| corrupt(fault).on("share", &SHOWN))?;
        let traits = traits(size / 4, slots);
        let end: Box<dyn SendEnd> =
            Box::new(Sending { line, producer, room: None, refused: 0, lent: None });
        let opened = Opened { end, traits, address: address()? };
        Ok(Sender::over(&MECHANISM, opened, options.clone()))
    }
}

/// How errors name it.
const SHOWN: &str = "sealed memory";

fn address() -> Result<Address, Error> {
    Address::new("sealed", "")
}

fn corrupt(detail: &'static str) -> Error {
    Error::new(Kind::Corrupt, detail)
}

fn system(errno: Errno) -> Error {
    Error::system(errno, "")
}

fn traits(message_size: usize, slots: u64) -> EndTraits {
    EndTraits {
        piece_size: message_size,
        pieces: false,
        gather: 0,
        message_size: Some(message_size),
        capacity: usize::try_from(slots).ok(),
        priority_max: PRIORITY_MAX,
        introduces: false,
        reliable: true,
        bare: true,
    }
}

/// The connection beside the memory.
struct Line {
    to: Sender,
    from: Receiver,
    peer: Credentials,
    /// The other side is known to be gone.
    is_over: bool,
    life: poste_sys::fork::Life,
}

impl Line {
    fn new(connection: Duplex) -> Line {
        let (to, from) = connection.split();
        let life = poste_sys::fork::Life::this();
        Line { to, from, peer: Credentials::default(), is_over: false, life }
    }

    /// Hears who is there, and gives them new memory: its words, its bodies, its largest message.
    fn offer(
        &mut self,
        options: &Options,
        wait: Wait,
    ) -> Result<(Arc<Lane>, Mapping, usize), Error> {
        let hello = self.from.recv_wait(wait)?;
        let (peer, is_hello) = (*hello.sender(), hello[..] == *HELLO);
        self.meet(peer, options)?;
        if !is_hello {
            return Err(corrupt("the other side doesn't ask for sealed memory"));
        }
        let sizes = Sizes::of(options)?;
        let file = sizes.make()?;
        let body = sizes.write();
        let descriptors = [file.as_fd()];
        self.to.send_wait(Outgoing::from(&body).descriptors(&descriptors), wait)?;
        let (lane, bodies) = sizes.map(file, Access::Read)?;
        Ok((lane, bodies, sizes.bodies / 4))
    }

    /// Says hello, and takes the memory that is offered.
    fn take(&mut self, options: &Options, wait: Wait) -> Result<(Arc<Lane>, Mapping), Error> {
        self.to.send_wait(HELLO, wait)?;
        let mut offer = self.from.recv_wait(wait)?;
        let (peer, sizes) = (*offer.sender(), Sizes::read(&offer));
        let mut descriptors = offer.take_descriptors();
        self.meet(peer, options)?;
        let (Some(sizes), Some(file), true) = (sizes, descriptors.pop(), descriptors.is_empty())
        else {
            return Err(corrupt("the other side offers something else"));
        };
        let most = SEALED_MAX.max(options.message_size.unwrap_or(0).saturating_mul(4));
        if sizes.bodies > most {
            let raise_with = "ask for a larger message size".to_owned();
            let name = "sealed memory";
            return Err(Error::new(Kind::Limit { name, value: most as u64, raise_with }, ""));
        }
        sizes.check(file.as_fd())?;
        // What the other side left out is taken now: a page that isn't there would be SIGBUS.
        poste_sys::segment::reserve(file.as_fd(), 0, sizes.file() as u64).map_err(system)?;
        sizes.map(file, Access::Write)
    }

    /// Refuses who is not to be trusted with it.
    fn meet(&mut self, peer: Credentials, options: &Options) -> Result<(), Error> {
        let own = Allowed { own_user: true, ..Allowed::default() };
        let allowed = if options.allowed.is_restricted() { options.allowed } else { own };
        self.peer = peer;
        allowed.check(&peer)
    }

    fn check_life(&self) -> Result<(), Error> {
        if self.life.lasts() {
            return Ok(());
        }
        Err(Error::new(Kind::NotSupported, "this end belongs to the process that forked this one"))
    }

    /// Makes the other side look again.
    fn ring(&mut self) {
        match self.to.try_send(b"") {
            // Full is rung.
            Ok(_) => {}
            Err(error) if error.is(&Kind::Full) => {}
            Err(_) => self.is_over = true,
        }
    }

    /// Waits to be rung: whether it was within the wait, or the other side is gone.
    fn wait(&mut self, wait: Wait) -> Result<bool, Error> {
        match self.from.recv_wait(wait) {
            Ok(_) => Ok(true),
            Err(error) if error.is(&Kind::Empty) || error.is(&Kind::TimedOut) => Ok(false),
            Err(error) if error.is(&Kind::Disconnected) => {
                self.is_over = true;
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    fn peers(&self) -> Peers {
        if self.is_over { Peers::AllGone } else { Peers::Present(1) }
    }
}

/// What the memory is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sizes {
    /// How many descriptors, a power of two.
    slots: u64,
    /// How many bytes of bodies.
    bodies: usize,
}

impl Sizes {
    fn of(options: &Options) -> Result<Sizes, Error> {
        let message_size = options.message_size.unwrap_or(LANE_SIZE / 4);
        let capacity = options.capacity.unwrap_or(LANE_DESCRIPTORS as usize);
        if message_size > MAILBOX_MESSAGE_MAX || capacity > MAILBOX_CAPACITY_MAX {
            let (name, value) = ("message-size of sealed memory", MAILBOX_MESSAGE_MAX as u64);
            let raise_with = format!("ask for {value} or less");
            return Err(Error::new(Kind::Limit { name, value, raise_with }, ""));
        }
        let slots = (capacity as u64).next_power_of_two().max(16);
        let bodies = (message_size * 4).max(LANE_SIZE).next_multiple_of(4096);
        Ok(Sizes { slots, bodies })
    }

    /// As they stand in an offer: two numbers of eight bytes, the lowest byte first.
    fn write(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.slots.to_le_bytes());
        bytes[8..].copy_from_slice(&(self.bodies as u64).to_le_bytes());
        bytes
    }

    /// What an offer says, where that can be.
    fn read(bytes: &[u8]) -> Option<Sizes> {
        let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let (slots, bodies) = (word(0)?, usize::try_from(word(8)?).ok()?);
        let fits = slots.is_power_of_two()
            && slots <= MAILBOX_CAPACITY_MAX.next_power_of_two() as u64
            && bodies % 4096 == 0
            && (LANE_SIZE..=MAILBOX_MESSAGE_MAX * 4).contains(&bodies);
        (fits && bytes.len() == 16).then_some(Sizes { slots, bodies })
    }

    fn control(self) -> usize {
        Lane::control_size(self.slots)
    }

    fn file(self) -> usize {
        self.control() + self.bodies
    }

    /// New memory of this size, reserved and sealed.
    fn make(self) -> Result<OwnedFd, Error> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // It is never to be run; kernels before 6.3 don't know how to say so.
        let file = match rustix::fs::memfd_create("poste", flags | MemfdFlags::NOEXEC_SEAL) {
            Err(Errno::INVAL) => rustix::fs::memfd_create("poste", flags),
            file => file,
        };
        let file = file.map_err(system)?;
        poste_sys::segment::reserve(file.as_fd(), 0, self.file() as u64).map_err(system)?;
        let copy = rustix::io::fcntl_dupfd_cloexec(&file, 3).map_err(system)?;
        let words = Mapping::new(copy, 0, self.control(), Access::Write).map_err(system)?;
        Lane::format(&words, self.slots, [0, 0]);
        words.word(ARMED).store(1, Ordering::Relaxed);
        rustix::fs::fcntl_add_seals(&file, SEALS).map_err(system)?;
        Ok(file)
    }

    /// Refuses memory whose size is another, or may become another.
    fn check(self, file: BorrowedFd<'_>) -> Result<(), Error> {
        // EINVAL: it is no memory that could be sealed.
        let seals = rustix::fs::fcntl_get_seals(file).unwrap_or(SealFlags::empty());
        if !seals.contains(SEALS) {
            return Err(corrupt("the memory offered isn't sealed against being cut short"));
        }
        // Only now: it can't change any more.
        let size = rustix::fs::fstat(file).map_err(system)?.st_size;
        if usize::try_from(size) != Ok(self.file()) {
            return Err(corrupt("the memory offered has another size than was said"));
        }
        Ok(())
    }

    fn map(self, file: OwnedFd, access: Access) -> Result<(Arc<Lane>, Mapping), Error> {
        let copy = rustix::io::fcntl_dupfd_cloexec(&file, 3).map_err(system)?;
        let words = Mapping::new(copy, 0, self.control(), Access::Write).map_err(system)?;
        let bodies = Mapping::new(file, self.control(), self.bodies, access).map_err(system)?;
        Ok((Arc::new(Lane::over(words, self.slots).map_err(corrupt)?), bodies))
    }
}

struct Receiving {
    line: Line,
    reader: Reader,
    bodies: Mapping,
    /// The body of the message taken last: always a copy.
    body: Vec<u8>,
    credentials: Credentials,
}

/// The number by which a lane's only receiver takes.
const ONLY: u16 = 1;

impl Receiving {
    /// The number and priority of the next message, not taken yet.
    fn find(&mut self) -> Result<Option<(u64, crate::ring::layout::Word)>, Error> {
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

    /// Takes the next message and copies it out: whether there was one.
    fn take(&mut self, arrival: &mut Arrival) -> Result<bool, Error> {
        let Some((number, word)) = self.find()? else { return Ok(false) };
        let lane = Arc::clone(self.reader.lane());
        if !lane.take(number, word, ONLY) {
            return Err(corrupt("somebody else takes messages here"));
        }
        let place = lane.place(number);
        (arrival.sequence, arrival.sender) = lane.origin(number);
        self.body.clear();
        let is_there = place.size <= self.bodies.backed()
            && self.bodies.copy_out(place.offset, place.size, &mut self.body);
        if lane.finish(number, ONLY) == Some(Wanted::Yes) {
            self.line.ring();
        }
        if !is_there {
            return Err(corrupt("a message's body lies outside of its lane"));
        }
        arrival.news = News::Piece;
        arrival.size = self.body.len();
        arrival.priority = Some(u16::from(word.priority));
        arrival.credentials = self.credentials;
        arrival.more = self.find()?.is_some();
        if !arrival.more {
            self.arm();
            arrival.more = self.find()?.is_some();
        }
        Ok(true)
    }

    /// Asks to be rung for the next message; a look must follow. A full barrier, as the sender's
    /// between its message and its look here.
    fn arm(&self) {
        store_fenced(self.reader.lane().control_word(ARMED), 1);
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
            self.arm();
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

struct Sending {
    line: Line,
    producer: Producer,
    /// What is polled, once it was asked for.
    room: Option<Room>,
    /// The size for which there was no room last.
    refused: usize,
    lent: Option<Place>,
}

/// Readable while there may be room, or the connection says something.
struct Room {
    epoll: OwnedFd,
    eventfd: OwnedFd,
}

impl Sending {
    fn offset(&mut self, size: usize, wait: Wait) -> Result<usize, Error> {
        self.line.check_life()?;
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
        // The full barrier in it lies between the messages and the look at who is to be rung.
        self.producer.publish();
        let armed = self.producer.lane().control_word(ARMED);
        if armed.load(Ordering::Relaxed) != 0 {
            armed.store(0, Ordering::Release);
            self.line.ring();
        }
    }

    /// Makes what is polled say whether there is room for what was sent or refused last.
    fn show_room(&mut self) -> Result<(), Error> {
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
        if !frame.more || self.producer.held() >= crate::limits::HELD_MAX {
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
            let make = |line: BorrowedFd<'_>| {
                let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
                let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
                for watched in [line, eventfd.as_fd()] {
                    let data = epoll::EventData::new_u64(0);
                    epoll::add(&epoll, watched, data, epoll::EventFlags::IN)?;
                }
                Ok(Room { epoll, eventfd })
            };
            let room = make(self.line.from.pollable()?);
            self.room = Some(room.map_err(system)?);
            self.show_room()?;
        }
        match &self.room {
            Some(room) => Ok(Pollable { descriptor: room.epoll.as_fd(), events: PollFlags::IN }),
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
        self.lent = Some(Place { offset, size });
        Ok(())
    }

    fn lent(&self) -> &[u8] {
        self.lent.and_then(|place| self.producer.written(place)).unwrap_or(&[])
    }

    fn lent_mut(&mut self) -> &mut [u8] {
        match self.lent {
            Some(place) => self.producer.body(place.offset, place.size).unwrap_or(&mut []),
            None => &mut [],
        }
    }

    fn send_loan(&mut self, size: usize, frame: &Frame<'_>) -> Result<(), Error> {
        self.line.check_life()?;
        match self.lent.take().filter(|place| size <= place.size) {
            Some(place) => self.write(Place { size, ..place }, frame),
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
