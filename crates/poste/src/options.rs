//! How an end is to be opened: one set of settings for every mechanism.
//!
//! A setting that a mechanism has no use for is refused when the channel is opened
//! ([`Options::settings`] names those that differ from the default; each mechanism lists its own).

use std::str::FromStr;

use crate::address::Address;
use crate::credentials::Allowed;
use crate::error::{Error, Kind};
use crate::wait::Wait;

/// Whether the object is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Create {
    /// It must be there.
    #[default]
    No,
    /// It is used where it is there, else made.
    IfAbsent,
    /// It is made, and must not be there yet.
    New,
}

/// What stands on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// poste's envelope round each body: poste is at both ends.
    #[default]
    Enveloped,
    /// The mechanism's own bytes; on a byte stream a message is what one read returns.
    Raw,
    /// The mechanism's own bytes; on a byte stream a message is what stands before this mark, which
    /// receiving takes off. Sending adds nothing.
    Delimited(u8),
}

/// Which side of a connection an end takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It takes the address and waits for others.
    Listen,
    /// It goes to the address.
    Connect,
}

/// How an end waits where waiting need not be the kernel's: shared memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spin {
    /// It sleeps at once.
    Never,
    /// It looks again for some microseconds as long as that has been paying off, then sleeps.
    #[default]
    WhileItPays,
    /// It looks again and again, and takes a whole processor for it.
    Always,
}

/// How an end is to be opened, by value.
///
/// ```
/// use poste::{Options, Receiver};
/// # fn main() -> Result<(), poste::Error> {
/// let path = std::env::temp_dir().join(format!("poste-doc-{}", std::process::id()));
/// let address = format!("fifo:{}", path.display());
/// let receiver = Receiver::open_with(&address, &Options::new().create().mode(0o600))?;
/// drop(receiver);
/// poste::remove(&address)?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) create: Create,
    pub(crate) capacity: Option<usize>,
    pub(crate) message_size: Option<usize>,
    pub(crate) mode: Option<u32>,
    pub(crate) shared: bool,
    pub(crate) check: bool,
    pub(crate) framing: Framing,
    pub(crate) message_type: Option<i64>,
    pub(crate) take: Option<u64>,
    pub(crate) role: Option<Role>,
    pub(crate) patience: Wait,
    pub(crate) spin: Spin,
    pub(crate) deliveries: Option<u8>,
    pub(crate) huge_pages: bool,
    pub(crate) sealed: bool,
    pub(crate) body_only: bool,
    pub(crate) half_close: bool,
    pub(crate) allowed: Allowed,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            create: Create::No,
            capacity: None,
            message_size: None,
            mode: None,
            shared: false,
            check: false,
            framing: Framing::Enveloped,
            message_type: None,
            take: None,
            role: None,
            patience: Wait::Not,
            spin: Spin::WhileItPays,
            deliveries: None,
            huge_pages: false,
            sealed: false,
            body_only: false,
            half_close: false,
            allowed: Allowed::default(),
        }
    }
}

impl Options {
    /// The defaults: the object must exist, messages are enveloped, opening does not wait.
    #[must_use]
    pub fn new() -> Self {
        Options::default()
    }

    /// Makes the object where it is absent; what is there is used.
    #[must_use]
    pub fn create(mut self) -> Self {
        self.create = Create::IfAbsent;
        self
    }

    /// Makes the object, which must not be there yet.
    #[must_use]
    pub fn create_new(mut self) -> Self {
        self.create = Create::New;
        self
    }

    /// How much the channel holds: messages on POSIX queues and `local`, messages of each sender on
    /// `shm`, bytes elsewhere.
    #[must_use]
    pub fn capacity(mut self, capacity: usize) -> Self {
        self.capacity = Some(capacity);
        self
    }

    /// The largest message in bytes; for a POSIX queue the size of its slots (`mq_msgsize`).
    #[must_use]
    pub fn message_size(mut self, size: usize) -> Self {
        self.message_size = Some(size);
        self
    }

    /// The permission bits of what is made (0600 unless given), never wider at any moment.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Several receivers take turns on what else has one (an enveloped FIFO).
    #[must_use]
    pub fn shared(mut self) -> Self {
        self.shared = true;
        self
    }

    /// Adds a check (CRC-32C) of each body, against bit rot and mixed writers; it proves nobody.
    #[must_use]
    pub fn check(mut self) -> Self {
        self.check = true;
        self
    }

    /// No envelope: the mechanism's own bytes, for a peer that knows nothing of poste.
    #[must_use]
    pub fn raw(mut self) -> Self {
        self.framing = Framing::Raw;
        self
    }

    /// Raw, and on a byte stream a message is what stands before `mark`.
    #[must_use]
    pub fn delimited(mut self, mark: u8) -> Self {
        self.framing = Framing::Delimited(mark);
        self
    }

    /// Which raw System V messages to receive, as in msgrcv(2): 0 any, N that type, −N the lowest
    /// type up to N.
    #[must_use]
    pub fn message_type(mut self, message_type: i64) -> Self {
        self.message_type = Some(message_type);
        self
    }

    /// This receiver wants so many messages: from a pipe, a FIFO or an inherited descriptor it
    /// reads no further, and what follows is left to the next reader.
    #[must_use]
    pub fn take(mut self, messages: u64) -> Self {
        self.take = Some(messages);
        self
    }

    /// Takes the address and waits for others (what a `Receiver` on a socket does by itself).
    #[must_use]
    pub fn listen(mut self) -> Self {
        self.role = Some(Role::Listen);
        self
    }

    /// Goes to the address (what a `Sender` on a socket does by itself).
    #[must_use]
    pub fn connect(mut self) -> Self {
        self.role = Some(Role::Connect);
        self
    }

    /// How long opening waits for the other side to appear: not at all unless asked.
    #[must_use]
    pub fn patience(mut self, wait: Wait) -> Self {
        self.patience = wait;
        self
    }

    /// How the end waits in shared memory.
    #[must_use]
    pub fn spin(mut self, spin: Spin) -> Self {
        self.spin = spin;
        self
    }

    /// How often a message may be handed out, 1 to 255: given back once more, it is set aside.
    #[must_use]
    pub fn deliveries(mut self, deliveries: u8) -> Self {
        self.deliveries = Some(deliveries.max(1));
        self
    }

    /// The bodies of messages in shared memory lie on huge pages, of 2 MiB (madvise(2),
    /// MADV_COLLAPSE, since Linux 6.1): a lane of a mailbox that is made so begins with 2 MiB of them
    /// and grows by as much. What is there is used as it was made.
    ///
    /// Where the kernel gives none, making the mailbox fails, and says so. Measured on a virtual machine
    /// of two processors (`cargo bench -p poste --bench shm`), the pages gain nothing: 15 GB/s with
    /// and without at 1 MiB. Below that more messages fit into a lane that begins with 2 MiB instead
    /// of 220 KiB. Ask for them where a measurement on your machine says so.
    ///
    /// ```
    /// use poste::{Kind, Options, Sender};
    /// # let address = format!("shm:poste-doc-huge-{}", std::process::id());
    /// match Sender::open_with(&address, &Options::new().create().huge_pages()) {
    ///     Ok(mut sender) => drop(sender.send("on huge pages").unwrap()),
    ///     Err(error) => assert!(error.to_string().contains("huge page"), "{error}"),
    /// }
    /// # let _ = poste::remove(&address);
    /// ```
    #[must_use]
    pub fn huge_pages(mut self) -> Self {
        self.huge_pages = true;
        self
    }

    /// Messages at a Unix socket's address (stream or packets) go through sealed memory: the receiver
    /// listens, and gives each sender memory of its own that neither can cut short under the other
    /// (memfd_create(2)). Capacity (messages) and message size (64 KiB unless given) are those of the
    /// memory, as the receiver says. The other side must be this process's user or root, unless
    /// [`Options::require_user`] or [`Options::require_group`] says who; a receiver refuses others
    /// and goes on. The sender takes the memory at its first send. What was received is copied out,
    /// and what a sender sent is received after its end, by this receiver only.
    ///
    /// ```
    /// use poste::{Options, Receiver, Sender};
    /// # fn main() -> Result<(), poste::Error> {
    /// # let address = format!("unix:@poste-doc-sealed-{}", std::process::id());
    /// let sealed = Options::new().sealed(); // or the address: unix:/run/shop/orders?sealed
    /// let mut receiver = Receiver::open_with(&address, &sealed)?;
    /// let mut sender = Sender::open_with(&address, &sealed)?;
    /// let sending = std::thread::spawn(move || sender.send("through memory"));
    /// assert_eq!(receiver.recv()?.text()?, "through memory");
    /// # sending.join().unwrap()?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn sealed(mut self) -> Self {
        self.sealed = true;
        self
    }

    /// Takes nothing but the bodies of messages: no descriptors, which nobody can send then, and of
    /// datagrams not who sent them. Receiving over Unix sockets costs a little less.
    #[must_use]
    pub fn body_only(mut self) -> Self {
        self.body_only = true;
        self
    }

    /// A call closes its half of the connection when it has asked, as peers expect that read up to
    /// the end before they answer.
    #[must_use]
    pub fn half_close(mut self) -> Self {
        self.half_close = true;
        self
    }

    /// Receives only from this user, as the kernel vouches for it; others are refused. A sender
    /// with a connection speaks only to a receiver of this user.
    #[must_use]
    pub fn require_user(mut self, uid: u32) -> Self {
        self.allowed.user = Some(uid);
        self
    }

    /// Receives only from processes of this group, as the kernel vouches for it; others are refused.
    /// A sender with a connection speaks only to a receiver of this group.
    #[must_use]
    pub fn require_group(mut self, gid: u32) -> Self {
        self.allowed.group = Some(gid);
        self
    }

    /// Whether the mechanism's own bytes are on the wire.
    ///
    /// ```
    /// use poste::Options;
    /// assert!(!Options::new().is_raw());
    /// assert!(Options::new().raw().is_raw());
    /// ```
    #[must_use]
    pub fn is_raw(&self) -> bool {
        self.framing != Framing::Enveloped
    }

    /// The largest message that is sent or believed.
    pub(crate) fn message_size_or_default(&self) -> usize {
        self.message_size.unwrap_or(crate::limits::MESSAGE_MAX)
    }

    /// The permission bits of what is made.
    pub(crate) fn mode_or_default(&self) -> u32 {
        self.mode.unwrap_or(0o600)
    }

    /// The names of those settings that a mechanism must have a use for, as addresses spell them.
    pub(crate) fn settings(&self) -> Vec<&'static str> {
        let mut settings = Vec::new();
        let mut note = |is_set: bool, name| {
            if is_set {
                settings.push(name);
            }
        };
        note(self.capacity.is_some(), "capacity");
        note(self.message_size.is_some(), "message-size");
        note(self.mode.is_some(), "mode");
        note(self.shared, "shared");
        note(self.message_type.is_some(), "type");
        note(self.role.is_some(), "listen");
        note(self.spin != Spin::default(), "spin");
        note(self.deliveries.is_some(), "deliveries");
        note(self.huge_pages, "huge-pages");
        note(self.sealed, "sealed");
        settings
    }

    /// These options with those that the address carries on top.
    ///
    /// # Errors
    /// `Invalid` for an option that nobody knows or a value that can't be read.
    pub(crate) fn of_address(&self, address: &Address) -> Result<Options, Error> {
        let mut options = self.clone();
        for (name, value) in address.options() {
            let set = |is_set: &mut bool| match value.as_str() {
                "" | "true" => {
                    *is_set = true;
                    Ok(())
                }
                _ => Err(wrong(name, value, "stands alone, without a value")),
            };
            match name.as_str() {
                "capacity" => options.capacity = Some(size(name, value)?),
                "message-size" => options.message_size = Some(size(name, value)?),
                "mode" => options.mode = Some(mode(name, value)?),
                "type" => options.message_type = Some(number(name, value)?),
                "shared" => set(&mut options.shared)?,
                "check" => set(&mut options.check)?,
                "huge-pages" => set(&mut options.huge_pages)?,
                "sealed" => set(&mut options.sealed)?,
                "deliveries" => match value.parse() {
                    Ok(count @ 1..) => options.deliveries = Some(count),
                    _ => return Err(wrong(name, value, "takes a whole number from 1 to 255")),
                },
                "spin" => {
                    options.spin = match value.as_str() {
                        "never" => Spin::Never,
                        "while-it-pays" => Spin::WhileItPays,
                        "always" => Spin::Always,
                        _ => {
                            return Err(wrong(name, value, "is never, while-it-pays or always"));
                        }
                    }
                }
                "create" => {
                    let mut create = false;
                    set(&mut create)?;
                    if options.create == Create::No {
                        options.create = Create::IfAbsent;
                    }
                }
                _ => {
                    return Err(Error::new(Kind::Invalid, format!("no option {name:?} is known"))
                        .with_hint(
                            "known are capacity, message-size, mode, type, create, shared, check, spin, \
                             deliveries, huge-pages, sealed",
                        ));
                }
            }
        }
        Ok(options)
    }
}

fn wrong(name: &str, value: &str, what: &str) -> Error {
    Error::new(Kind::Invalid, format!("the option {name}={value}: {name} {what}"))
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T, Error> {
    value.parse().map_err(|_| wrong(name, value, "takes a whole number"))
}

/// Permission bits in octal, as chmod takes them.
fn mode(name: &str, value: &str) -> Result<u32, Error> {
    match u32::from_str_radix(value, 8) {
        Ok(mode) if mode <= 0o777 && value.bytes().all(|digit| digit.is_ascii_digit()) => Ok(mode),
        _ => Err(wrong(name, value, "takes octal permission bits, as in 0600")),
    }
}

fn size(name: &str, value: &str) -> Result<usize, Error> {
    parse_size(value).ok_or_else(|| wrong(name, value, "takes a size, as in 64, 8K or 1.5MiB"))
}

/// Reads a size: decimals and any case; `K`, `KB` and `KiB` are all 1024.
///
/// ```
/// assert_eq!(poste::parse_size("1.5k"), Some(1536));
/// assert_eq!(poste::parse_size("8KiB"), Some(8192));
/// assert_eq!(poste::parse_size("8X"), None);
/// ```
#[must_use]
pub fn parse_size(text: &str) -> Option<usize> {
    let digits = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (value, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return None,
    };
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    if whole.is_empty() || value.ends_with('.') || (shift == 0 && !fraction.is_empty()) {
        return None;
    }
    let unit = 1usize << shift;
    let whole = whole.parse::<usize>().ok()?.checked_mul(unit)?;
    let part = match fraction {
        "" => 0,
        digits if digits.len() <= 9 => {
            digits.parse::<usize>().ok()?.checked_mul(unit)? / 10usize.pow(digits.len() as u32)
        }
        _ => return None,
    };
    whole.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_carries_options() {
        let address = Address::parse("mq:/x?capacity=4&message-size=8k&mode=0640&create").unwrap();
        let options = Options::new().of_address(&address).unwrap();
        assert_eq!(options.capacity, Some(4));
        assert_eq!(options.message_size, Some(8192));
        assert_eq!(options.mode, Some(0o640));
        assert_eq!(options.create, Create::IfAbsent);
        assert_eq!(options.settings(), ["capacity", "message-size", "mode"]);
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for option in ["mode=9", "mode=+7", "capacity=x", "huge", "create=no", "capacity=-1"] {
            let address = Address::parse(&format!("mq:/x?{option}")).unwrap();
            let error = Options::new().of_address(&address).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{option}");
        }
    }
}
