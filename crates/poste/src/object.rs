//! Objects of the machine, as they are shown: what each is, how full, whose, and who has it open.
//!
//! Only what is known stands there; a field that the kernel doesn't tell, or doesn't tell this user,
//! is `None`. How objects are found is each mechanism's business (`Mechanism::list`).

use std::time::Duration;

use crate::address::Address;
use crate::name::registry::Entry;

/// An object that processes pass messages through: a queue, a FIFO, a socket that has a name.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Object {
    /// Where it is; paths are absolute.
    pub address: Address,
    /// Its mechanism's scheme.
    pub mechanism: &'static str,
    /// How many messages lie in it.
    pub depth: Option<u64>,
    /// How much it holds, in its mechanism's unit (`Capabilities::capacity`); bytes for a FIFO; of a
    /// mailbox the messages from each sender.
    pub capacity: Option<u64>,
    /// How many bytes lie in it.
    pub bytes: Option<u64>,
    /// The largest message, in bytes.
    pub message_size: Option<u64>,
    /// Its permission bits.
    pub mode: Option<u32>,
    /// The name of the user who owns it.
    pub owner: Option<String>,
    /// The user who owns it.
    pub uid: Option<u32>,
    /// How long ago it was made.
    pub age: Option<Duration>,
    /// Who has it open, as far as this user may see; `None` where the kernel keeps no such list.
    pub holders: Option<Vec<Holder>>,
    /// Whether anybody has it open; `None` where nothing proves it.
    pub alive: Option<bool>,
    /// What that means; `None` where it isn't known.
    pub state: Option<State>,
    /// What only its mechanism has, each with its name.
    pub details: Vec<(&'static str, Detail)>,
}

/// A process that has an object open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// Its command, as the kernel has it (15 bytes at most).
    pub command: String,
    /// Which end it holds: `send`, `receive`, `both`, `listen`, `accept` or `connect`.
    pub end: &'static str,
}

/// Whether an object is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Somebody has it open.
    Alive,
    /// poste made it, and its owner is proved dead: `gc` takes it away.
    LeftOver,
    /// Nobody has it open. It stays until it is removed.
    Unused,
}

impl State {
    /// The state in words, stable.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            State::Alive => "alive",
            State::LeftOver => "left over",
            State::Unused => "unused",
        }
    }
}

/// A fact that only one mechanism has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Detail {
    /// A number.
    Number(u64),
    /// A word.
    Text(String),
    /// Several of a kind, each with its own facts.
    Rows(Vec<Vec<(&'static str, Detail)>>),
}

/// The objects of a mechanism, or of several, and what could not be seen.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Listing {
    /// What is there.
    pub objects: Vec<Object>,
    /// What may be there and could not be seen, each in words.
    pub unseen: Vec<String>,
    /// Records of objects that are gone: only the record is left.
    pub(crate) gone: Vec<Entry>,
}

impl Listing {
    /// Of a mechanism that has no objects.
    pub(crate) fn none() -> Listing {
        Listing::default()
    }

    /// Adds what another listing has.
    pub(crate) fn add(&mut self, other: Listing) {
        self.objects.extend(other.objects);
        for words in other.unseen {
            self.miss(words);
        }
        self.gone.extend(other.gone);
    }

    /// Says what could not be seen, once.
    pub(crate) fn miss(&mut self, words: impl Into<String>) {
        let words = words.into();
        if !self.unseen.contains(&words) {
            self.unseen.push(words);
        }
    }
}

impl Object {
    /// An object of which nothing more is known yet.
    pub(crate) fn new(mechanism: &'static str, address: Address) -> Object {
        Object {
            address,
            mechanism,
            depth: None,
            capacity: None,
            bytes: None,
            message_size: None,
            mode: None,
            owner: None,
            uid: None,
            age: None,
            holders: None,
            alive: None,
            state: None,
            details: Vec::new(),
        }
    }
}
