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

use poste_sys::atomic::Ordering;
use poste_sys::mapping::{Access, Mapping};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;

use self::connecting::Connecting;
use self::ends::{Memory, Receiving, Sending};
use self::listening::Listening;
use crate::address::Address;
use crate::capabilities::{Capabilities, Identity, Peers, Priorities, Unit};
use crate::credentials::{Allowed, Credentials};
use crate::duplex::Duplex;
use crate::error::{Error, Kind};
use crate::limits::{
    LANE_DESCRIPTORS, LANE_SIZE, MAILBOX_CAPACITY_MAX, MAILBOX_MESSAGE_MAX, PRIORITY_MAX, READ_MAX,
    SEALED_MAX,
};
use crate::mechanism::{EndTraits, Mechanism, Opened, RecvEnd, SendEnd, no_objects};
use crate::object::Listing;
use crate::options::{Options, Role};
use crate::outgoing::Outgoing;
use crate::receiver::Receiver;
use crate::ring::claim::Reader;
use crate::ring::lane::Lane;
use crate::ring::producer::Producer;
use crate::sender::Sender;
use crate::wait::Wait;

mod connecting;
mod ends;
mod listening;

/// Sealed memory over a connection that is there.
static MECHANISM: Mechanism = PLAIN;

/// Sealed memory at a socket's address: each sender has its own.
static LISTENING: Mechanism = Mechanism {
    capabilities: Capabilities {
        many_senders: true,
        made_by_listening: true,
        ..PLAIN.capabilities
    },
    open_sender: |opening| open_sender(opening.address, opening.options),
    ..PLAIN
};

const PLAIN: Mechanism = Mechanism {
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

/// Opens the sending end at a socket's address, as [`Options::sealed`] says.
pub(crate) fn sender_at(address: &Address, options: &Options) -> Result<Sender, Error> {
    let opened = open_sender(address, options)?;
    Ok(Sender::over(&LISTENING, opened, options.clone()))
}

fn open_sender(address: &Address, options: &Options) -> Result<Opened<dyn SendEnd>, Error> {
    check(options, Role::Connect)?;
    let sender = Sender::open_with(address.bare().to_string(), &of_connection(options))?;
    let address = sender.address().clone();
    let end = Connecting::new(Line::new(sender.into_duplex()?), options.clone())?;
    let traits = traits(MAILBOX_MESSAGE_MAX, LANE_DESCRIPTORS);
    Ok(Opened { end: Box::new(end), traits: EndTraits { capacity: None, ..traits }, address })
}

/// Opens the receiving end at a socket's address, as [`Options::sealed`] says.
pub(crate) fn receiver_at(address: &Address, options: &Options) -> Result<Receiver, Error> {
    check(options, Role::Listen)?;
    let sizes = Sizes::of(options)?;
    let listener = Receiver::open_with(address.bare().to_string(), &of_connection(options))?;
    let address = listener.address().clone();
    let end: Box<dyn RecvEnd> = Box::new(Listening::new(listener, options.clone())?);
    let opened = Opened { end, traits: traits(sizes.bodies / 4, sizes.slots), address };
    Ok(Receiver::over(&LISTENING, opened, options.clone()))
}

/// Refuses what sealed memory can't be opened with.
fn check(options: &Options, role: Role) -> Result<(), Error> {
    let refused = |kind, detail, hint: &'static str| Err(Error::new(kind, detail).with_hint(hint));
    if options.role.is_some_and(|asked| asked != role) {
        let detail = "of sealed memory the receiver listens, and the sender connects";
        return refused(Kind::Invalid, detail, "leave out --listen and --connect");
    }
    if options.is_raw() {
        let detail = "only poste can be at the other end of sealed memory";
        return refused(Kind::Invalid, detail, "leave out --raw, or sealed");
    }
    if options.check {
        let detail = "what lies in sealed memory is on no wire";
        return refused(Kind::NotSupported, detail, "leave out check");
    }
    Ok(())
}

/// How the connection beside the memory is opened.
fn of_connection(options: &Options) -> Options {
    Options {
        sealed: false,
        capacity: None,
        // Nothing long is said there.
        message_size: Some(READ_MAX),
        take: None,
        body_only: false,
        half_close: false,
        ..options.clone()
    }
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
        let wait = wait.begin();
        let heard = line.hear_hello(options, wait);
        let offered = heard.and_then(|()| line.offer(options, wait));
        let (memory, message_size) = offered.map_err(|error| error.on("share", &SHOWN))?;
        let traits = traits(message_size, memory.reader.lane().slots());
        let end: Box<dyn RecvEnd> = Box::new(Receiving { line, memory, body: Vec::new() });
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
        let wait = wait.begin();
        let asked = line.ask(wait).and_then(|()| line.take(options, wait));
        let producer = asked.map_err(|error| error.on("share", &SHOWN))?;
        let slots = producer.lane().slots();
        let end = Sending::new(line, producer, None);
        let traits = traits(end.message_size(), slots);
        let end: Box<dyn SendEnd> = Box::new(end);
        let opened = Opened { end, traits, address: address()? };
        Ok(Sender::over(&MECHANISM, opened, options.clone()))
    }
}

/// How errors name it.
const SHOWN: &str = "sealed memory";

fn address() -> Result<Address, Error> {
    Address::new("sealed", "")
}

fn forked() -> Error {
    Error::new(Kind::NotSupported, "this end belongs to the process that forked this one")
        .with_hint("open it again in the child")
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

    /// Hears who is there.
    fn hear_hello(&mut self, options: &Options, wait: Wait) -> Result<(), Error> {
        let hello = self.from.recv_wait(wait)?;
        let (peer, is_hello) = (*hello.sender(), hello[..] == *HELLO);
        self.meet(peer, options)?;
        if is_hello {
            return Ok(());
        }
        Err(corrupt("the other side doesn't ask for sealed memory"))
    }

    /// Gives whoever said hello new memory: what the receiver has of it, and the largest message.
    fn offer(&mut self, options: &Options, wait: Wait) -> Result<(Memory, usize), Error> {
        let sizes = Sizes::of(options)?;
        let file = sizes.make()?;
        let body = sizes.write();
        let descriptors = [file.as_fd()];
        self.to.send_wait(Outgoing::from(&body).descriptors(&descriptors), wait)?;
        let (lane, bodies) = sizes.map(file, Access::Read)?;
        Ok((Memory { reader: Reader::new(lane), bodies }, sizes.bodies / 4))
    }

    /// Says hello.
    fn ask(&mut self, wait: Wait) -> Result<(), Error> {
        self.to.send_wait(HELLO, wait).map(drop)
    }

    /// Takes the memory that is offered.
    fn take(&mut self, options: &Options, wait: Wait) -> Result<Producer, Error> {
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
        let (lane, bodies) = sizes.map(file, Access::Write)?;
        let capacity = options.capacity.map_or(lane.slots(), |messages| messages as u64);
        Producer::resume(lane, bodies, capacity).map_err(corrupt)
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
        Err(forked())
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
        Lane::format(&words, self.slots, self.control(), [0, 0]);
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
