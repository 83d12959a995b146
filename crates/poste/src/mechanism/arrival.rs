//! What an end has received, and what ends it.

use std::fmt;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::RAW_HINT;
use crate::credentials::Credentials;
use crate::error::{Error, Kind};

/// What [`RecvEnd::recv`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum News {
    /// A piece.
    #[default]
    Piece,
    /// The connection `source` has ended; what it left unfinished will never be finished.
    Ended,
    /// Every sender is gone, but others may come: what they left unfinished will never be finished.
    AllGone,
}

/// One piece as it arrived. It borrows nothing: the end keeps the bytes.
#[derive(Debug, Default)]
pub struct Arrival {
    /// What it is.
    pub news: News,
    /// Where the piece lies; only the end knows what this means.
    pub at: usize,
    /// Its size in bytes.
    pub size: usize,
    /// What to end it by, as the end knows it ([`RecvEnd::settler`]); 0: nothing is to be ended.
    pub token: u64,
    /// The connection or the datagram's source that it came from; 0: there is only one.
    pub source: u64,
    /// The sender's number as its connection introduced it; 0: the piece says it itself.
    pub sender: u64,
    /// The message's place among those of its connection; 0: the piece says it itself.
    pub sequence: u64,
    /// Who sent it, as far as the kernel vouches for it.
    pub credentials: Credentials,
    /// The priority that the mechanism kept; `None`: the envelope says it.
    pub priority: Option<u16>,
    /// The type of a System V message.
    pub message_type: Option<i64>,
    /// How often it was handed out before.
    pub deliveries: u32,
    /// More pieces lie in user space, where no descriptor shows them.
    pub more: bool,
    /// Descriptors that came with it.
    pub descriptors: Vec<OwnedFd>,
    /// More came with it, and this process could not take them.
    pub descriptors_lost: bool,
}

impl Arrival {
    /// Makes it as new, keeping what is allocated.
    #[inline]
    pub fn reset(&mut self) {
        // Field by field, where they lie: a whole new one would be made elsewhere first and moved,
        // which costs as much as receiving from shared memory.
        let Arrival {
            news,
            at,
            size,
            token,
            source,
            sender,
            sequence,
            credentials,
            priority,
            message_type,
            deliveries,
            more,
            descriptors,
            descriptors_lost,
        } = self;
        *news = News::default();
        (*at, *size, *token, *source, *sender, *sequence) = (0, 0, 0, 0, 0, 0);
        *credentials = Credentials::default();
        (*priority, *message_type, *deliveries) = (None, None, 0);
        (*more, *descriptors_lost) = (false, false);
        descriptors.clear();
    }

    /// Keeps the descriptors that the envelope announced, and closes what it did not.
    ///
    /// # Errors
    /// `Limit` where the kernel closed some, as this process may open no more; `Corrupt` where they
    /// did not come.
    pub fn keep_descriptors(&mut self, announced: u8) -> Result<(), Error> {
        if self.descriptors.len() >= usize::from(announced) {
            self.descriptors.truncate(usize::from(announced));
            return Ok(());
        }
        self.check_loss()?;
        self.descriptors.clear();
        let detail = "it announces descriptors that did not come";
        Err(Error::new(Kind::Corrupt, detail).with_hint(RAW_HINT))
    }

    /// Refuses a message some of whose descriptors were lost, and closes the others.
    ///
    /// # Errors
    /// `Limit` where some were.
    pub fn check_loss(&mut self) -> Result<(), Error> {
        if !self.descriptors_lost {
            return Ok(());
        }
        self.descriptors.clear();
        Err(Error::system(Errno::MFILE, "descriptors that came with a message were lost"))
    }
}

/// How a message that was taken ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settle {
    /// It is done.
    Done,
    /// It comes again, to whoever receives next.
    Again,
}

/// What ends a message that can come again.
pub trait Settler: Send + Sync + fmt::Debug {
    /// Ends a piece.
    ///
    /// # Errors
    /// What the system said.
    fn settle(&self, token: u64, how: Settle) -> Result<(), Error>;
}
