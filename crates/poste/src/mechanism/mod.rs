//! The contract between `Sender`/`Receiver` and a mechanism, and the table of mechanisms.
//!
//! A mechanism is a value in [`ALL`], at the top of its own file. Opening one gives a boxed end and
//! what this end can do now. There are two kinds of ends, [`SendEnd`] and [`RecvEnd`]; a way back is
//! the other one on the same object. Nobody outside this folder asks which mechanism it has.
//!
//! What this folder doesn't do: it touches no header byte (the [`inbox`] excepted, which has to find
//! the frames in a byte stream), cuts nothing into pieces, joins nothing, and counts no messages.

use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::PollFlags;

pub use self::arrival::{Arrival, News, Settle, Settler};
pub use self::frame::Frame;
use crate::address::Address;
use crate::capabilities::{Capabilities, Identity, Peers};
use crate::credentials::Credentials;
use crate::envelope::BLOCK;
use crate::error::{Error, Kind};
use crate::limits::{PIECE_MAX, PIPE_ATOMIC, PRIORITY_MAX, READ_MAX};
use crate::object::Listing;
use crate::options::Options;
use crate::survey::Survey;
use crate::wait::Wait;

mod arrival;
pub(crate) mod bell;
pub(crate) mod descriptor_sets;
pub mod fifo;
mod fifo_names;
mod fifo_objects;
mod fifo_turns;
mod fifo_watch;
mod frame;
pub mod inbox;
mod inet_objects;
pub mod inherited;
pub mod linger;
pub mod link;
mod listener;
pub mod local;
pub mod merge;
pub mod pair;
pub mod path;
pub mod pipe;
mod posix_objects;
pub mod posix_queue;
pub mod serve;
pub mod shared_memory;
pub mod socket;
pub mod sources;
pub(crate) mod sysv_bell;
mod sysv_helper;
mod sysv_line;
mod sysv_objects;
pub mod sysv_queue;
mod sysv_room;
mod sysv_thread;
pub mod tcp;
pub(crate) mod timer;
pub mod udp;
pub mod unix_datagram;
mod unix_objects;
pub mod unix_packet;
pub mod unix_stream;
mod vouchers;
pub mod window;
pub mod wire;

/// Every mechanism of this machine, in the order in which they are shown.
pub static ALL: &[&Mechanism] = &[
    &pipe::MECHANISM,
    &pair::MECHANISM,
    &inherited::MECHANISM,
    &fifo::MECHANISM,
    &posix_queue::MECHANISM,
    &sysv_queue::MECHANISM,
    &unix_stream::MECHANISM,
    &unix_packet::MECHANISM,
    &unix_datagram::MECHANISM,
    &tcp::MECHANISM,
    &udp::MECHANISM,
    &shared_memory::MECHANISM,
    &local::MECHANISM,
];

/// The mechanism of a scheme.
#[must_use]
pub fn find(scheme: &str) -> Option<&'static Mechanism> {
    ALL.iter().copied().find(|mechanism| mechanism.scheme == scheme)
}

/// One way to pass messages: what it can do, and how its ends are opened.
#[derive(Debug)]
pub struct Mechanism {
    /// What stands before the colon of its addresses.
    pub scheme: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// An address of it, for examples and errors.
    pub example: &'static str,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Which settings it has a use for, as addresses spell them; others are refused.
    pub settings: &'static [&'static str],
    /// Makes the object, which must not be there yet, and opens nothing.
    pub create: fn(&Opening<'_>) -> Result<(), Error>,
    /// Opens an end that sends.
    pub open_sender: fn(&Opening<'_>) -> Result<Opened<dyn SendEnd>, Error>,
    /// Opens an end that receives.
    pub open_receiver: fn(&Opening<'_>) -> Result<Opened<dyn RecvEnd>, Error>,
    /// Takes the object away.
    pub remove: fn(&Address) -> Result<(), Error>,
    /// Finds the objects that are there, whoever made them.
    pub list: fn(&Survey) -> Listing,
    /// The address as `list` prints it; `NotFound` where it is already plain that nothing is there.
    pub place: fn(&Address) -> Result<Address, Error>,
    /// Which limits of the system hold it, by their own names.
    pub limits: &'static [&'static str],
}

/// What is to be opened, and how. The address's own options are already in `options`.
#[derive(Debug)]
pub struct Opening<'a> {
    /// Where.
    pub address: &'a Address,
    /// How.
    pub options: &'a Options,
}

/// An opened end, and what it can do now.
pub struct Opened<End: ?Sized> {
    /// The end itself.
    pub end: Box<End>,
    /// What the kernel said about it.
    pub traits: EndTraits,
    /// Where it really is (a port that the kernel chose, a path made absolute).
    pub address: Address,
}

impl<End: ?Sized> fmt::Debug for Opened<End> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("address", &self.address).finish_non_exhaustive()
    }
}

/// What an opened end can do now, as read from the kernel. Sizes are bytes.
#[derive(Clone, Copy, Debug)]
pub struct EndTraits {
    /// The largest piece that goes at once, envelope included.
    pub piece_size: usize,
    /// Whether a message larger than a piece may go in several.
    pub pieces: bool,
    /// How many bytes of whole pieces one call may carry together; 0: each piece by itself.
    pub gather: usize,
    /// The largest message; `None`: the library's own limit.
    pub message_size: Option<usize>,
    /// How much the channel holds, where that is known.
    pub capacity: Option<usize>,
    /// The highest priority that can be sent.
    pub priority_max: u16,
    /// One connection belongs to one sender, which names itself once; else each piece names it.
    pub introduces: bool,
    /// Pieces of one sender arrive in order and none is lost.
    pub reliable: bool,
    /// The mechanism keeps priority, sequence and sender itself, beside each piece: there is no
    /// envelope. What is fed it holds itself, too, until a piece without `more`, or `flush`.
    pub bare: bool,
}

impl EndTraits {
    /// A byte stream over a connection.
    pub(crate) const STREAM: EndTraits = EndTraits {
        piece_size: PIECE_MAX,
        pieces: true,
        gather: READ_MAX,
        message_size: None,
        capacity: None,
        priority_max: PRIORITY_MAX,
        introduces: true,
        reliable: true,
        bare: false,
    };

    /// A byte stream that several may write: what is not torn apart is a write of PIPE_BUF bytes.
    pub(crate) const PIPE: EndTraits = EndTraits {
        piece_size: PIPE_ATOMIC,
        gather: PIPE_ATOMIC,
        introduces: false,
        ..EndTraits::STREAM
    };

    /// Packets over a connection.
    pub(crate) const PACKET: EndTraits = EndTraits { gather: 0, ..EndTraits::STREAM };

    /// Packets without a connection.
    pub(crate) const DATAGRAM: EndTraits =
        EndTraits { gather: 0, introduces: false, ..EndTraits::STREAM };
}

/// What a frame that goes on is told where its receiver is no longer there.
const GONE_IN_THE_MIDDLE: &str = "the receiver is gone in the middle of a message, which is lost";

/// What to do about bytes that are no envelope.
pub const RAW_HINT: &str =
    "a peer that knows nothing of poste is spoken to in raw mode (--raw, Options::raw)";

/// The two directions of one connection. When the sending one goes, the other side learns that
/// nothing more comes, while the receiving one may still read.
pub type Halves = (Box<dyn SendEnd>, Box<dyn RecvEnd>);

/// A descriptor to wait on and the events that mean "go on"; level-triggered. It serves who waits
/// for edges too: when a call that doesn't wait has said `Empty` or `Full`, what ends that shows anew.
#[derive(Clone, Copy, Debug)]
pub struct Pollable<'a> {
    /// The descriptor; the same one as long as the end lives.
    pub descriptor: BorrowedFd<'a>,
    /// What to wait for on it.
    pub events: PollFlags,
}

/// Whether one who finds nothing is to look again at once, before it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linger {
    /// Something is there.
    Found,
    /// Yes, when others have had their turn.
    Again,
    /// No.
    Over,
}

/// An end that sends.
pub trait SendEnd: Send {
    /// Sends one piece: the bytes accepted, which are all of it, or on a byte stream a beginning
    /// when the wait is over or the receiver goes. What is left is then the caller's to send next,
    /// and the next call says why it doesn't go.
    ///
    /// An end that goes on with the next receiver when one is gone does so with a frame that begins
    /// a message only: one that `goes_on` is `Disconnected` then, and the frames after it are for
    /// the next receiver.
    ///
    /// # Errors
    /// Not one byte was accepted. After `Full`, `TimedOut`, `NoReceiver` and a lack of memory or
    /// descriptors the same frame may go later; `Disconnected` and `Removed`, of a frame that begins
    /// a message, say that none ever will.
    fn send(&mut self, frame: &Frame<'_>, wait: Wait) -> Result<usize, Error>;

    /// Sends the whole of a frame, an answer's, or breaks off the way that it took: nothing can
    /// follow half a frame, and who waits for the rest must learn that it doesn't come.
    ///
    /// # Errors
    /// As [`SendEnd::send`]; `TimedOut` where the other side took in a part of it.
    fn send_whole(&mut self, frame: &Frame<'_>, wait: Wait) -> Result<(), Error> {
        let wait = wait.begin();
        let mut done = 0;
        loop {
            match self.send(&frame.after(done), wait) {
                Ok(count) => done += count,
                Err(error) if done == 0 => return Err(error),
                Err(error) => {
                    self.break_off(frame.to.unwrap_or(0));
                    let is_slow = error.is(&Kind::Full) || error.is(&Kind::TimedOut);
                    let slow = || Error::new(Kind::TimedOut, "the caller doesn't read its answer");
                    return Err(if is_slow { slow() } else { error });
                }
            }
            if done >= frame.size() {
                return Ok(());
            }
        }
    }

    /// Nothing more goes to `to`, which is told that.
    fn break_off(&mut self, _to: u64) {
        // Where there is no connection nothing is cut short; one who is gone need not be told.
        let _ = self.half_close();
    }

    /// What to wait on until it may send again.
    ///
    /// # Errors
    /// `NotSupported` where the mechanism has nothing to wait on.
    fn pollable(&mut self) -> Result<Pollable<'_>, Error>;

    /// Sees to it that what was accepted is on its way, and says what went wrong meanwhile.
    ///
    /// # Errors
    /// What the system said of earlier pieces (a datagram that found nobody).
    fn flush(&mut self, _wait: Wait) -> Result<(), Error> {
        Ok(())
    }

    /// Lends memory of the channel's own to write a piece of `size` bytes in. Until it is sent it is
    /// nobody's, and forgetting it gives it back.
    ///
    /// # Errors
    /// `NotSupported` where messages don't lie in memory that is shared; as [`SendEnd::send`].
    fn loan(&mut self, _size: usize, _wait: Wait) -> Result<(), Error> {
        Err(Error::new(Kind::NotSupported, "this mechanism has no memory of its own to lend"))
    }

    /// What was lent last.
    fn lent(&self) -> &[u8] {
        &[]
    }

    /// What was lent last, to be written.
    fn lent_mut(&mut self) -> &mut [u8] {
        &mut []
    }

    /// Sends the beginning, of `size` bytes, of what was lent last; the frame's body is not looked
    /// at.
    ///
    /// # Errors
    /// As [`SendEnd::send`].
    fn send_loan(&mut self, _size: usize, _frame: &Frame<'_>) -> Result<(), Error> {
        Err(Error::new(Kind::NotSupported, "nothing was lent"))
    }

    /// Tells the other side that nothing more comes, while answers still may.
    ///
    /// # Errors
    /// `NotSupported` where there is no connection to close one half of.
    fn half_close(&mut self) -> Result<(), Error> {
        Err(Error::new(Kind::NotSupported, "this mechanism has no connection to half close"))
    }

    /// Ends the connection that a frame with this `to` would go to: no answer comes, and without an
    /// envelope nothing else can say so.
    ///
    /// # Errors
    /// `NotSupported` where there is no connection; what the system said.
    fn dismiss(&mut self, _to: u64) -> Result<(), Error> {
        Err(Error::new(Kind::NotSupported, "this mechanism has no connection to end"))
    }

    /// The way back: where answers to what is sent here arrive.
    fn back(&mut self) -> Option<&mut dyn RecvEnd> {
        None
    }

    /// The two directions of its connection, each an end of its own.
    ///
    /// # Errors
    /// `NotSupported` where there is no connection that goes both ways.
    fn split(self: Box<Self>) -> Result<Halves, Error> {
        Err(Error::new(Kind::NotSupported, "this end has no connection that goes both ways"))
    }

    /// Another end on the same channel; `None`: open the address again.
    ///
    /// # Errors
    /// What the system said.
    fn duplicate(&self) -> Result<Option<Box<dyn SendEnd>>, Error> {
        Ok(None)
    }

    /// Who is at the other end.
    fn peers(&self) -> Peers {
        Peers::Unknown
    }

    /// Gives the end's descriptor away, for a child.
    ///
    /// # Errors
    /// `NotSupported` where an end is not one descriptor.
    fn hand_down(self: Box<Self>) -> Result<OwnedFd, Error> {
        Err(Error::new(Kind::NotSupported, "this end is not one descriptor, a child can open it"))
    }
}

/// An end that receives.
pub trait RecvEnd: Send {
    /// Waits for the next piece, of the highest priority that has arrived, and fills `arrival`.
    ///
    /// # Errors
    /// `Empty` and `TimedOut` say that only the time was missing; `Disconnected` that nothing will
    /// come any more; `Corrupt` that what came was passed over.
    fn recv(&mut self, arrival: &mut Arrival, wait: Wait) -> Result<(), Error>;

    /// What ends the piece received last, at any time and from any thread, also when the end is gone.
    /// Asked before the next one is received, where the arrival has a token.
    fn settler(&self) -> Option<Arc<dyn Settler>> {
        None
    }

    /// Ends the piece received last, before the next one is received: as its settler would, which
    /// costs more to make than this to do.
    ///
    /// # Errors
    /// What the system said.
    fn settle(&mut self, token: u64, how: Settle) -> Result<(), Error> {
        self.settler().map_or(Ok(()), |settler| settler.settle(token, how))
    }

    /// The bytes of the piece received last; they stay until the next `recv`.
    fn bytes(&self, arrival: &Arrival) -> &[u8];

    /// What to wait on until something arrives.
    ///
    /// # Errors
    /// `NotSupported` where the mechanism has nothing to wait on.
    fn pollable(&mut self) -> Result<Pollable<'_>, Error>;

    /// Looks, where that costs no system call and something is likely to come soon: for a caller
    /// that doesn't wait in [`RecvEnd::recv`], and has other things to do in between.
    fn linger(&mut self) -> Linger {
        Linger::Over
    }

    /// Whether the last receive is known to have left nothing to find, neither in user space nor in
    /// the kernel: what comes now shows anew. `false` where that isn't known.
    fn is_drained(&self) -> bool {
        false
    }

    /// So many more messages are wanted: where another may read after us, take in no more.
    fn want(&mut self, _messages: u64) {}

    /// Up to so many messages are about to be received in a row: what can be claimed at once by the
    /// next `recv` may be. What was claimed is received before anything else.
    fn batch(&mut self, _messages: usize) {}

    /// The way back: answers to what arrived here, each with its `source` as `to`.
    fn back(&mut self) -> Option<&mut dyn SendEnd> {
        None
    }

    /// The next connection by itself, both ways, instead of merged with the others.
    ///
    /// # Errors
    /// `NotSupported` where no connections come; `Empty` and `TimedOut` where none came in time;
    /// `Limit` where this process may open no more descriptors.
    fn accept(&mut self, _wait: Wait) -> Result<Halves, Error> {
        Err(Error::new(Kind::NotSupported, "no connections come to this end"))
    }

    /// Another end on the same channel; `None`: open the address again.
    ///
    /// # Errors
    /// What the system said.
    fn duplicate(&self) -> Result<Option<Box<dyn RecvEnd>>, Error> {
        Ok(None)
    }

    /// Who is at the other end.
    fn peers(&self) -> Peers {
        Peers::Unknown
    }

    /// How many connections came, and how many of those spoke garbage.
    fn connections(&self) -> (u64, u64) {
        (0, 0)
    }

    /// Gives the end's descriptor away, for a child.
    ///
    /// # Errors
    /// `NotSupported` where an end is not one descriptor.
    fn hand_down(self: Box<Self>) -> Result<OwnedFd, Error> {
        Err(Error::new(Kind::NotSupported, "this end is not one descriptor, a child can open it"))
    }
}

/// The mechanism of an address and its options, checked: what the mechanism has no use for is
/// refused here, before anything is opened.
pub(crate) fn resolve(
    address: &Address,
    options: &Options,
) -> Result<(&'static Mechanism, Options), Error> {
    let Some(mechanism) = find(address.scheme()) else {
        let known: Vec<_> = ALL.iter().map(|mechanism| mechanism.scheme).collect();
        return Err(Error::new(Kind::Invalid, "no mechanism has this name")
            .with_hint(format!("there are {}", known.join(", "))));
    };
    let options = options.of_address(address)?;
    check(mechanism, &options)?;
    Ok((mechanism, options))
}

/// Refuses what a mechanism has no use for.
pub(crate) fn check(mechanism: &Mechanism, options: &Options) -> Result<(), Error> {
    if options.allowed.is_restricted() {
        match mechanism.capabilities.identity {
            Identity::Unknown => {
                let detail = format!("over {} nobody vouches for who sends", mechanism.title);
                return Err(Error::new(Kind::NotSupported, detail)
                    .with_hint("use unix:, seqpacket: or dgram:, where the kernel does"));
            }
            Identity::SameProcess => options.allowed.check(&Credentials::myself())?,
            Identity::Connection | Identity::Message => {}
        }
    }
    for setting in options.settings() {
        if !mechanism.settings.contains(&setting) {
            return Err(Error::new(
                Kind::Invalid,
                format!("{} has no use for {setting}", mechanism.title),
            )
            .with_hint(match mechanism.settings {
                [] => "leave it out; it has no settings".to_owned(),
                settings => format!("leave it out; it takes {}", settings.join(", ")),
            }));
        }
    }
    Ok(())
}

/// What `place` says of a mechanism whose channels are no objects.
pub(crate) fn no_objects(address: &Address) -> Result<Address, Error> {
    let detail = format!("{}: has no objects that could be looked at", address.scheme());
    Err(Error::new(Kind::NotSupported, detail).with_hint("what there is: poste list"))
}

/// Refuses an enveloped end whose pieces are too small for the envelope alone, where each piece is
/// a whole message that names its sender itself.
pub(crate) fn check_envelope_fits(piece_size: usize, options: &Options) -> Result<(), Error> {
    let head = BLOCK * if options.check { 3 } else { 2 };
    if options.is_raw() || piece_size >= head {
        return Ok(());
    }
    let detail = format!("messages of {piece_size} bytes have no room for an envelope of {head}");
    Err(Error::new(Kind::NotSupported, detail)
        .with_hint("use it raw (--raw), or make it anew with larger messages"))
}
