//! The anonymous pipe: one way, for related processes.
//!
//! An end has no name: it is made by [`crate::pipe`] and handed to a child. Whoever inherited one
//! opens it as `fd:N`. Several may write to one pipe, so pieces are at most PIPE_BUF bytes, which
//! the kernel never tears apart, and each names its writer.
//! Sources: pipe(7), pipe2(2), fcntl(2) (F_SETPIPE_SZ).

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

use super::link::Link;
use super::wire::Flow;
use super::{EndTraits, Mechanism, Opened, Opening, RecvEnd, SendEnd, no_objects};
use crate::address::Address;
use crate::capabilities::{Capabilities, Unit};
use crate::error::{Error, Kind};
use crate::object::Listing;
use crate::options::Options;

/// Anonymous pipe.
pub static MECHANISM: Mechanism = Mechanism {
    scheme: "pipe",
    title: "anonymous pipe",
    example: "pipe:",
    capabilities: Capabilities { named: false, capacity: Some(Unit::Bytes), ..Capabilities::PLAIN },
    settings: &["capacity", "message-size"],
    create: |_| Err(nameless()),
    open_sender: |_| Err(nameless()),
    open_receiver: |_| Err(nameless()),
    remove: |_| Err(nameless()),
    list: |_| Listing::none(),
    place: no_objects,
    limits: &["fs.pipe-max-size", "fs.pipe-user-pages-soft", "RLIMIT_NOFILE"],
};

fn nameless() -> Error {
    Error::new(Kind::NotSupported, "a pipe has no name to open it by")
        .with_hint("make one in a program with poste::pipe(), or open an inherited end as fd:3")
}

/// A new pipe: what writes into it, and what reads from it.
pub(crate) fn pair(options: &Options) -> Result<(OpenedSender, OpenedReceiver), Error> {
    let address = Address::new(MECHANISM.scheme, "")?;
    let opening = Opening { address: &address, options };
    let (reader, writer) =
        pipe_with(PipeFlags::CLOEXEC).map_err(|errno| Error::system(errno, "no new pipe"))?;
    let capacity = set_capacity(&writer, options)?;
    Ok((sender(writer, capacity, &opening), receiver(reader, capacity, &opening)))
}

/// An opened end that sends.
pub(crate) type OpenedSender = Opened<dyn SendEnd>;
/// An opened end that receives.
pub(crate) type OpenedReceiver = Opened<dyn RecvEnd>;

/// The end that writes into a pipe.
pub(super) fn sender(
    writer: OwnedFd,
    capacity: Option<usize>,
    opening: &Opening<'_>,
) -> OpenedSender {
    let link = Link::new(writer, Flow::Pipe, opening.options);
    let traits = EndTraits { capacity, ..EndTraits::PIPE };
    Opened { end: Box::new(link), traits, address: opening.address.clone() }
}

/// The end that reads from a pipe.
pub(super) fn receiver(
    reader: OwnedFd,
    capacity: Option<usize>,
    opening: &Opening<'_>,
) -> OpenedReceiver {
    let link = Link::new(reader, Flow::Pipe, opening.options);
    let traits = EndTraits { capacity, ..EndTraits::PIPE };
    Opened { end: Box::new(link), traits, address: opening.address.clone() }
}

/// Sets a pipe's capacity where that is asked for; returns what it really is, in bytes. `None`: it
/// is no pipe.
pub(super) fn set_capacity(
    descriptor: impl AsFd,
    options: &Options,
) -> Result<Option<usize>, Error> {
    if let Some(capacity) = options.capacity {
        fcntl_setpipe_size(&descriptor, capacity).map_err(|errno| explain(errno, capacity))?;
    }
    Ok(fcntl_getpipe_size(&descriptor).ok())
}

fn explain(errno: Errno, capacity: usize) -> Error {
    let error = Error::system(errno, format!("no pipe of {capacity} bytes"));
    match errno {
        Errno::PERM | Errno::BUSY => {
            let value = std::fs::read_to_string("/proc/sys/fs/pipe-max-size");
            let value = value.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
            error.as_kind(Kind::Limit {
                name: "fs.pipe-max-size",
                value,
                raise_with: format!("sysctl -w fs.pipe-max-size={}", capacity.next_power_of_two()),
            })
        }
        _ => error,
    }
}
