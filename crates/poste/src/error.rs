//! The one error of the library: what failed, on which address, why, and what mends it.
//!
//! A [`Kind`] says what a program can decide on; the address, the system's own number and the hint
//! are for the person who reads it. Every error can be said as a code ([`Kind::code`]) and a text,
//! so that other languages can carry it.

use std::borrow::Cow;
use std::fmt;
use std::io;

use rustix::io::Errno;

/// What went wrong, as far as a program can decide on it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The channel holds as much as it can; what the `try_` forms of sending say.
    Full,
    /// Nothing has arrived; what the `try_` forms of receiving say.
    Empty,
    /// The time given was over; what the timed forms say.
    TimedOut,
    /// Nobody is left at the other end, nothing is left to read, and nobody can come any more.
    Disconnected,
    /// Nobody receives at this address (yet).
    NoReceiver,
    /// The object doesn't exist.
    NotFound,
    /// The name is taken; `owner` says by whom, where that can be known.
    NameInUse {
        /// Who holds the name, in words, or nothing where the kernel doesn't tell.
        owner: Option<String>,
    },
    /// The message is larger than this channel carries. Sizes are in bytes.
    TooLarge {
        /// The size of the message.
        size: u64,
        /// The largest that goes.
        limit: u64,
    },
    /// A limit of the system is reached.
    Limit {
        /// The limit's own name: a sysctl (`fs.mqueue.msg_max`) or an rlimit (`RLIMIT_NOFILE`).
        name: &'static str,
        /// Its present value.
        value: u64,
        /// The command that raises it.
        raise_with: String,
    },
    /// This mechanism cannot do what was asked for.
    NotSupported,
    /// The argument has no meaning: an address that can't be read, an option nobody knows.
    Invalid,
    /// The other side said no.
    Refused,
    /// The other side tried and failed.
    Failed,
    /// What is there has other attributes than were asked for.
    Mismatch,
    /// The system doesn't allow it.
    Permission,
    /// What arrived is not what it should be: no envelope, a broken one, or one cut short.
    Corrupt,
    /// The object was removed while in use.
    Removed,
    /// Another error of the system; `errno` says which.
    System,
}

impl Kind {
    /// The kind's name, stable, for other languages and for JSON.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Kind::Full => "full",
            Kind::Empty => "empty",
            Kind::TimedOut => "timed_out",
            Kind::Disconnected => "disconnected",
            Kind::NoReceiver => "no_receiver",
            Kind::NotFound => "not_found",
            Kind::NameInUse { .. } => "name_in_use",
            Kind::TooLarge { .. } => "too_large",
            Kind::Limit { .. } => "limit",
            Kind::NotSupported => "not_supported",
            Kind::Invalid => "invalid",
            Kind::Refused => "refused",
            Kind::Failed => "failed",
            Kind::Mismatch => "mismatch",
            Kind::Permission => "permission",
            Kind::Corrupt => "corrupt",
            Kind::Removed => "removed",
            Kind::System => "system",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Full => f.write_str("the channel is full"),
            Kind::Empty => f.write_str("no message is there"),
            Kind::TimedOut => f.write_str("the time is over"),
            Kind::Disconnected => f.write_str("the other end is gone"),
            Kind::NoReceiver => f.write_str("nobody receives there"),
            Kind::NotFound => f.write_str("no such object"),
            Kind::NameInUse { owner: None } => f.write_str("the name is in use"),
            Kind::NameInUse { owner: Some(owner) } => {
                write!(f, "the name is in use by {owner}")
            }
            Kind::TooLarge { size, limit } => {
                write!(f, "a message of {size} bytes is too large, the limit is {limit}")
            }
            Kind::Limit { name, value, .. } => {
                write!(f, "the limit {name} is reached, its value is {value}")
            }
            Kind::NotSupported => f.write_str("the mechanism cannot do that"),
            Kind::Invalid => f.write_str("invalid"),
            Kind::Refused => f.write_str("the other side refused"),
            Kind::Failed => f.write_str("the other side failed"),
            Kind::Mismatch => f.write_str("it exists with other attributes"),
            Kind::Permission => f.write_str("not permitted"),
            Kind::Corrupt => f.write_str("what arrived is not a whole message"),
            Kind::Removed => f.write_str("the object was removed"),
            Kind::System => f.write_str("the system refused"),
        }
    }
}

/// The error of every function of this library.
///
/// ```
/// let error = poste::Sender::open("fifo:/nowhere/at/all").unwrap_err();
/// assert_eq!(error.kind(), poste::Kind::NotFound);
/// assert_eq!(error.address(), Some("fifo:/nowhere/at/all"));
/// assert_eq!(error.errno(), Some(2)); // ENOENT
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    action: &'static str,
    address: Option<String>,
    errno: Option<Errno>,
    detail: Cow<'static, str>,
    hint: Cow<'static, str>,
}

impl Error {
    /// What a program can decide on.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind.clone()
    }

    /// The address it happened on, as it is printed, where there is one.
    #[must_use]
    pub fn address(&self) -> Option<&str> {
        self.0.address.as_deref()
    }

    /// The system's own number for it, where the system said it.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        self.0.errno.map(Errno::raw_os_error)
    }

    /// The command or setting that mends it; empty where none is known.
    #[must_use]
    pub fn hint(&self) -> &str {
        if self.0.hint.is_empty() {
            if let Kind::Limit { raise_with, .. } = &self.0.kind {
                return raise_with;
            }
        }
        &self.0.hint
    }

    /// An error of a kind; `detail` says the reason in words (empty: the kind says enough).
    #[must_use]
    pub fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Error {
        Error(Box::new(Inner {
            kind,
            action: "",
            address: None,
            errno: None,
            detail: detail.into(),
            hint: Cow::Borrowed(""),
        }))
    }

    /// An error that the system said: its number decides the kind.
    #[must_use]
    pub fn system(errno: Errno, detail: impl Into<Cow<'static, str>>) -> Error {
        let mut error = Error::new(kind_of(errno), detail);
        error.0.errno = Some(errno);
        error
    }

    /// The same error as another kind.
    #[must_use]
    pub fn as_kind(mut self, kind: Kind) -> Error {
        self.0.kind = kind;
        self
    }

    /// The same error with the command or setting that mends it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Error {
        self.0.hint = hint.into();
        self
    }

    /// The same error, said of an action ("open", "send") on an address; what was said first stays.
    #[must_use]
    pub fn on(mut self, action: &'static str, address: &dyn fmt::Display) -> Error {
        if self.0.action.is_empty() {
            self.0.action = action;
        }
        if self.0.address.is_none() {
            self.0.address = Some(address.to_string());
        }
        self
    }

    /// Whether only time was missing: the same call may do it later. Where nobody receives, that is
    /// so if the end waits for one who does, and not where the system has refused.
    pub(crate) fn is_passing(&self) -> bool {
        match self.0.kind {
            Kind::Full | Kind::Empty | Kind::TimedOut => true,
            Kind::NoReceiver => self.0.errno.is_none(),
            _ => false,
        }
    }

    /// As [`is_want`], of what the system said.
    pub(crate) fn is_want(&self) -> bool {
        self.0.errno.is_some_and(is_want)
    }

    /// Whether the same frame may go later, so that what is held stays held: time, a receiver, memory
    /// or a descriptor was missing.
    pub(crate) fn is_retryable(&self) -> bool {
        let is_lack = |errno: Errno| {
            is_want(errno) || matches!(errno, Errno::NOBUFS | Errno::TOOMANYREFS | Errno::AGAIN)
        };
        match self.0.kind {
            Kind::NoReceiver => true,
            Kind::Limit { .. } | Kind::System => self.0.errno.is_some_and(is_lack),
            _ => self.is_passing(),
        }
    }

    /// Whether the kind is `kind`, without cloning it.
    pub(crate) fn is(&self, kind: &Kind) -> bool {
        self.0.kind == *kind
    }
}

/// The kind that an errno means when nothing more is known of the call that said it.
fn kind_of(errno: Errno) -> Kind {
    match errno {
        Errno::NOENT => Kind::NotFound,
        Errno::EXIST | Errno::ADDRINUSE => Kind::NameInUse { owner: None },
        Errno::ACCESS | Errno::PERM | Errno::ROFS => Kind::Permission,
        Errno::PIPE | Errno::CONNRESET | Errno::CONNABORTED | Errno::NOTCONN => Kind::Disconnected,
        Errno::CONNREFUSED => Kind::NoReceiver,
        Errno::TIMEDOUT => Kind::Disconnected,
        Errno::IDRM => Kind::Removed,
        Errno::OPNOTSUPP | Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT | Errno::NOSYS => {
            Kind::NotSupported
        }
        Errno::MFILE => limit("RLIMIT_NOFILE", open_files(), "ulimit -n 65536"),
        Errno::NFILE => limit("fs.file-max", 0, "sysctl -w fs.file-max=1000000"),
        _ => Kind::System,
    }
}

fn limit(name: &'static str, value: u64, raise_with: &str) -> Kind {
    Kind::Limit { name, value, raise_with: raise_with.to_owned() }
}

/// How many descriptors this process may have open.
pub(crate) fn open_files() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        match (inner.action, &inner.address) {
            ("", None) => {}
            ("", Some(address)) => write!(f, "{address}: ")?,
            (action, None) => write!(f, "cannot {action}: ")?,
            (action, Some(address)) => write!(f, "cannot {action} {address}: ")?,
        }
        if inner.detail.is_empty() {
            write!(f, "{}", inner.kind)?;
        } else {
            f.write_str(&inner.detail)?;
        }
        if let Some(errno) = inner.errno {
            write!(f, ": {}", io::Error::from(errno))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} ({:?}", self.0.kind)?;
        if !self.hint().is_empty() {
            write!(f, "; hint: {}", self.hint())?;
        }
        f.write_str(")")
    }
}

impl std::error::Error for Error {}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        let kind = match error.0.kind {
            Kind::Full | Kind::Empty => io::ErrorKind::WouldBlock,
            Kind::TimedOut => io::ErrorKind::TimedOut,
            Kind::Disconnected => io::ErrorKind::BrokenPipe,
            Kind::NoReceiver => io::ErrorKind::ConnectionRefused,
            Kind::NotFound | Kind::Removed => io::ErrorKind::NotFound,
            Kind::NameInUse { .. } => io::ErrorKind::AddrInUse,
            Kind::Permission => io::ErrorKind::PermissionDenied,
            Kind::NotSupported => io::ErrorKind::Unsupported,
            Kind::Invalid => io::ErrorKind::InvalidInput,
            Kind::Corrupt => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

/// Whether the process or the machine has no descriptor or memory left, which says nothing of what was
/// asked for.
pub(crate) fn is_want(errno: Errno) -> bool {
    matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOMEM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_failed_on_what_and_why() {
        let error = Error::system(Errno::NOENT, "no such queue").on("open", &"mq:/jobs");
        assert_eq!(
            error.to_string(),
            "cannot open mq:/jobs: no such queue: No such file or directory (os error 2)"
        );
        assert_eq!(error.kind(), Kind::NotFound);
        assert_eq!(error.errno(), Some(2));
    }

    #[test]
    fn a_limit_says_how_to_raise_it() {
        let error = Error::system(Errno::MFILE, "");
        assert!(matches!(error.kind(), Kind::Limit { name: "RLIMIT_NOFILE", .. }));
        assert_eq!(error.hint(), "ulimit -n 65536");
    }

    #[test]
    fn the_error_is_one_pointer() {
        assert_eq!(size_of::<Result<(), Error>>(), size_of::<usize>());
    }
}
