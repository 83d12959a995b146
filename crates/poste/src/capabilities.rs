//! What each mechanism can do, as data; and what an open end can do now.

use std::time::Duration;

/// How a mechanism carries priorities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priorities {
    /// The kernel keeps the order itself, up to the highest priority named here.
    Native(u16),
    /// The receiver picks the highest of what has arrived, in a bounded window.
    Window(u16),
}

impl Priorities {
    /// The highest priority that can be sent.
    #[must_use]
    pub fn max(self) -> u16 {
        match self {
            Priorities::Native(max) | Priorities::Window(max) => max,
        }
    }
}

/// Where a receiver learns from who sent a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The kernel doesn't say.
    Unknown,
    /// The kernel said it when the sender connected.
    Connection,
    /// The kernel says it with each message.
    Message,
    /// Sender and receiver are one process.
    SameProcess,
}

/// Whether a message that was taken and not acknowledged comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redelivers {
    /// It never does.
    Never,
    /// While its sender lives, enveloped and acknowledged.
    WhileTheSenderLives,
    /// It always does.
    Always,
}

/// What a capacity is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Messages.
    Messages,
    /// Bytes.
    Bytes,
}

/// What a mechanism can do. The tables of the documentation and of the command line, what is
/// refused, and which tests run for a mechanism, are all read from here.
///
/// ```
/// let queue = poste::mechanism::find("mq").unwrap();
/// assert!(queue.capabilities.survives_its_users);
/// assert_eq!(queue.capabilities.priorities.max(), 32_767);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Raw messages keep their boundaries.
    pub raw_boundaries: bool,
    /// A raw message may have no bytes.
    pub raw_empty: bool,
    /// An enveloped message larger than a piece goes in several.
    pub pieces: bool,
    /// Each sender has a connection of its own, and the receiver notices its end.
    pub connections: bool,
    /// Several senders may use one channel at once.
    pub many_senders: bool,
    /// Several receivers may share one channel; each message goes to one.
    pub many_receivers: bool,
    /// Answers can go back the way the message came.
    pub way_back: bool,
    /// How priorities are kept.
    pub priorities: Priorities,
    /// Where a receiver learns from who sent.
    pub identity: Identity,
    /// Descriptors can travel with a message.
    pub descriptors: bool,
    /// An end gives a descriptor to wait on.
    pub pollable: bool,
    /// How late a timed wait may notice what it waits for; zero where the kernel wakes it.
    pub delay: Duration,
    /// The channel has a name that unrelated processes can find.
    pub named: bool,
    /// Its names are each user's own: no other user can reach the channel, whatever its mode.
    pub one_user: bool,
    /// The end that listens makes the name, and takes it away when it closes.
    pub made_by_listening: bool,
    /// The channel, with what lies in it, stays when all its users are gone.
    pub survives_its_users: bool,
    /// Messages may be lost on the way, and are counted where that can be seen.
    pub may_lose: bool,
    /// It reaches other machines.
    pub network: bool,
    /// What `capacity` is counted in, where it can be set.
    pub capacity: Option<Unit>,
    /// Whether what was taken and not acknowledged comes again.
    pub redelivers: Redelivers,
}

impl Capabilities {
    /// What most have in common, to be changed where a mechanism differs.
    pub(crate) const PLAIN: Capabilities = Capabilities {
        raw_boundaries: false,
        raw_empty: false,
        pieces: true,
        connections: false,
        many_senders: true,
        many_receivers: false,
        way_back: false,
        priorities: Priorities::Window(crate::limits::PRIORITY_MAX),
        identity: Identity::Unknown,
        descriptors: false,
        pollable: true,
        delay: Duration::ZERO,
        named: true,
        one_user: false,
        made_by_listening: false,
        survives_its_users: false,
        may_lose: false,
        network: false,
        capacity: None,
        redelivers: Redelivers::Never,
    };
}

/// Who is at the other end just now, as far as this end can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peers {
    /// The mechanism doesn't tell.
    Unknown,
    /// Nobody has come yet.
    NobodyYet,
    /// So many are there (a pipe or FIFO tells only that there is one or more: 1).
    Present(usize),
    /// Somebody was there, and all are gone.
    AllGone,
}

/// What an open end can do now, read from the kernel when it was opened, or asked for just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The largest message that goes over this end, in bytes.
    pub message_size: usize,
    /// The largest piece that the mechanism moves at once, envelope included, in bytes.
    pub piece_size: usize,
    /// How much the channel holds, in the unit that its capabilities name, where that is known.
    pub capacity: Option<usize>,
    /// The highest priority that can be sent.
    pub priority_max: u16,
    /// Who is at the other end.
    pub peers: Peers,
}

/// What an end has counted since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages sent or received.
    pub messages: u64,
    /// The bytes of their bodies.
    pub bytes: u64,
    /// Messages known to be lost on the way (gaps in a sender's sequence).
    pub lost: u64,
    /// Messages that came after a later one of the same sender and were dropped (they are counted
    /// as lost as well).
    pub late: u64,
    /// Messages that were begun and never finished, given up.
    pub unfinished: u64,
    /// Pieces or connections that were no poste, or broken.
    pub corrupt: u64,
    /// Connections accepted so far.
    pub connections: u64,
}
