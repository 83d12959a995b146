//! What is sent: a borrowed body with its priority and its descriptors.

use std::os::fd::BorrowedFd;
#[cfg(feature = "futures")]
use std::os::fd::{AsFd, OwnedFd};

#[cfg(feature = "futures")]
use rustix::io::Errno;

use crate::envelope::CallBlock;
use crate::error::{Error, Kind};
use crate::limits::DESCRIPTORS_MAX;

/// A message on its way out. It borrows its body: what was not sent is still the caller's.
///
/// ```
/// use poste::Outgoing;
/// # fn main() -> Result<(), poste::Error> {
/// let (mut sender, mut receiver) = poste::local()?;
/// sender.send("first")?;
/// sender.send(Outgoing::from("urgent").priority(9))?;
/// assert_eq!(receiver.recv()?.text()?, "urgent");
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Outgoing<'a> {
    pub(crate) body: &'a [u8],
    pub(crate) priority: u16,
    pub(crate) message_type: Option<i64>,
    pub(crate) descriptors: &'a [BorrowedFd<'a>],
    /// The call that it asks.
    pub(crate) call: Option<CallBlock>,
    /// It is only for the receiver of what was sent before it.
    pub(crate) goes_on: bool,
}

impl<'a> Outgoing<'a> {
    /// The priority, 0 (the default) to 31, the higher first; POSIX queues go to 32767.
    #[must_use]
    pub fn priority(mut self, priority: u16) -> Self {
        self.priority = priority;
        self
    }

    /// The type of a raw System V message (greater than 0), see msgsnd(2).
    #[must_use]
    pub fn message_type(mut self, message_type: i64) -> Self {
        self.message_type = Some(message_type);
        self
    }

    /// Descriptors that travel beside the body, where the mechanism carries them.
    #[must_use]
    pub fn descriptors(mut self, descriptors: &'a [BorrowedFd<'a>]) -> Self {
        self.descriptors = descriptors;
        self
    }

    /// Goes on with what was sent before: it is only for the receiver that got that. Where another
    /// could have taken its place (a FIFO, a sender that listens, a datagram's), sending it is
    /// [`Disconnected`](crate::Kind::Disconnected) then. Without this each message is for whoever is
    /// there. For bytes in raw mode that are sent in several calls and belong together.
    ///
    /// ```
    /// use poste::{Options, Outgoing};
    /// # fn main() -> Result<(), poste::Error> {
    /// let (mut sender, mut receiver) = poste::pipe_with(&Options::new().raw())?;
    /// sender.send("the begin")?;
    /// sender.send(Outgoing::from("ning").goes_on())?;
    /// drop(sender);
    /// assert_eq!(receiver.recv()?.text()?, "the beginning");
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn goes_on(mut self) -> Self {
        self.goes_on = true;
        self
    }

    pub(crate) fn of(body: &'a [u8]) -> Self {
        Outgoing { body, ..Outgoing::default() }
    }

    /// Refuses descriptors that the mechanism doesn't carry, or not with one message.
    #[inline]
    pub(crate) fn check_descriptors(&self, are_carried: bool) -> Result<(), Error> {
        let count = self.descriptors.len();
        if count > 0 && !are_carried {
            let detail = "descriptors don't travel over this mechanism";
            return Err(Error::new(Kind::NotSupported, detail)
                .with_hint("use unix:, seqpacket:, dgram: or a socket pair"));
        }
        if count > DESCRIPTORS_MAX {
            let kind = Kind::Limit {
                name: "SCM_MAX_FD",
                value: DESCRIPTORS_MAX as u64,
                raise_with: "send them with several messages".to_owned(),
            };
            let detail = format!("{count} descriptors are more than go with one message");
            return Err(Error::new(kind, detail));
        }
        Ok(())
    }
}

/// A message that is kept until there is room for it, with descriptors of its own.
#[cfg(feature = "futures")]
#[derive(Debug)]
pub(crate) struct Kept {
    body: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    /// All the rest of it.
    about: Outgoing<'static>,
}

#[cfg(feature = "futures")]
impl Kept {
    /// # Errors
    /// The system has no descriptors left.
    pub(crate) fn of(message: &Outgoing<'_>) -> Result<Kept, Error> {
        let Outgoing { body, priority, message_type, descriptors, call, goes_on } = *message;
        let own =
            descriptors.iter().map(|descriptor| rustix::io::fcntl_dupfd_cloexec(descriptor, 0));
        let own: Result<_, Errno> = own.collect();
        Ok(Kept {
            body: body.to_vec(),
            descriptors: own.map_err(|errno| Error::system(errno, "a descriptor for later"))?,
            about: Outgoing { body: &[], priority, message_type, descriptors: &[], call, goes_on },
        })
    }

    /// Lets it be sent.
    pub(crate) fn lend<T>(&self, send: impl FnOnce(Outgoing<'_>) -> T) -> T {
        let descriptors: Vec<_> = self.descriptors.iter().map(AsFd::as_fd).collect();
        send(Outgoing { body: &self.body, descriptors: &descriptors, ..self.about })
    }
}

impl<'a> From<&'a [u8]> for Outgoing<'a> {
    fn from(body: &'a [u8]) -> Self {
        Outgoing::of(body)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Outgoing<'a> {
    fn from(body: &'a [u8; N]) -> Self {
        Outgoing::of(body)
    }
}

impl<'a> From<&'a str> for Outgoing<'a> {
    fn from(body: &'a str) -> Self {
        Outgoing::of(body.as_bytes())
    }
}

impl<'a> From<&'a String> for Outgoing<'a> {
    fn from(body: &'a String) -> Self {
        Outgoing::of(body.as_bytes())
    }
}

impl<'a> From<&'a Vec<u8>> for Outgoing<'a> {
    fn from(body: &'a Vec<u8>) -> Self {
        Outgoing::of(body)
    }
}
