//! One sender and one receiver over every way that processes on one machine can talk.
//!
//! ```
//! # fn main() -> Result<(), poste::Error> {
//! # let name = format!("fifo:{}/poste-lib-{}", std::env::temp_dir().display(), std::process::id());
//! let mut receiver = poste::Receiver::create(&name)?; // any address: mq:/hello, unix:/run/x, …
//! let mut sender = poste::Sender::open(&name)?;
//!
//! sender.send("hello")?;
//! assert_eq!(receiver.recv()?.text()?, "hello");
//! # poste::remove(&name)?;
//! # Ok(()) }
//! ```
//!
//! The same promises hold on every mechanism: a send says how far the message came and an error
//! means that not one byte was accepted; every wait has four forms (blocking, `try_`, `_timeout`,
//! `_deadline`) and a descriptor to poll; bad input is an error. What a mechanism cannot do it says
//! in its [`Capabilities`], and asking for it is refused when the channel is opened.

#![forbid(unsafe_code)]

mod address;
mod answers;
#[cfg(feature = "async-io")]
pub mod async_io;
mod capabilities;
mod credentials;
mod duplex;
pub mod envelope;
mod error;
#[cfg(feature = "futures")]
pub mod futures;
mod garbage;
mod inheritance;
mod joining;
pub mod limits;
mod loan;
pub mod mechanism;
mod memory;
mod message;
mod name;
mod object;
mod objects;
mod options;
mod outbox;
mod outgoing;
mod permit;
mod piece;
mod readiness;
mod receiver;
mod ring;
mod sealed;
mod semaphore;
mod sender;
mod sequence;
mod survey;
mod system_limits;
#[cfg(feature = "tokio")]
pub mod tokio;
mod wait;
mod wait_set;

pub use address::Address;
pub use capabilities::{
    Capabilities, Counters, Facts, Identity, Peers, Priorities, Redelivers, Unit,
};
pub use credentials::Credentials;
pub use duplex::{Duplex, local, local_with, pair, pair_with, pipe, pipe_with, pipes, pipes_with};
pub use error::{Error, Kind};
pub use garbage::{Garbage, garbage, remove_own};
pub use loan::Loan;
pub use memory::Memory;
pub use message::{Message, OwnedMessage};
pub use object::{Detail, Holder, Listing, Object, State};
pub use objects::{Info, info, list, listing};
pub use options::{Create, Framing, Options, Role, Spin, parse_size};
pub use outgoing::Outgoing;
pub use permit::{LostPermit, Permit, lost_permits};
pub use receiver::Receiver;
pub use semaphore::Semaphore;
pub use sender::{Level, Sender};
pub use survey::Survey;
pub use system_limits::{SystemLimit, limits};
pub use wait::{Call, Halt, Wait};
pub use wait_set::{WaitSet, Waitable};

/// Makes the object at an address, which must not be there yet, and opens nothing.
///
/// ```
/// # fn main() -> Result<(), poste::Error> {
/// # let name = format!("fifo:{}/poste-make-{}", std::env::temp_dir().display(), std::process::id());
/// poste::create(&name, &poste::Options::new().mode(0o600))?;
/// assert!(poste::create(&name, &poste::Options::new()).is_err());
/// poste::remove(&name)?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// `NameInUse` where it is there; `NotSupported` where an open end makes it (sockets);
/// `Limit`, `Permission` and others as the system says.
pub fn create(address: impl AsRef<str>, options: &Options) -> Result<(), Error> {
    let address =
        Address::parse(address.as_ref()).map_err(|e| e.on("create", &address.as_ref()))?;
    let on = |error: Error| error.on("create", &address);
    let (mechanism, options) = mechanism::resolve(&address, options).map_err(on)?;
    let options = options.create_new();
    (mechanism.create)(&mechanism::Opening { address: &address, options: &options }).map_err(on)
}

/// Takes the object at an address away; who has it open keeps it until then.
///
/// # Errors
/// `NotFound` where there is none; `NotSupported` where the mechanism has no objects.
pub fn remove(address: impl AsRef<str>) -> Result<(), Error> {
    let address =
        Address::parse(address.as_ref()).map_err(|e| e.on("remove", &address.as_ref()))?;
    let on = |error: Error| error.on("remove", &address);
    let (mechanism, _) = mechanism::resolve(&address, &Options::new()).map_err(on)?;
    (mechanism.remove)(&address).map_err(on)
}
