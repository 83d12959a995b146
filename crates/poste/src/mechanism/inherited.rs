//! A descriptor that this process was started with: `fd:3`, `fd:0`.
//!
//! What it is (a pipe, a socket of some type, a file, a terminal) is asked of the kernel. The
//! descriptor itself stays open and as it is; this end has a copy, closed on exec. It may be shared
//! with other processes: its flags are never touched, each piece names its sender, and a receiver
//! that was opened with `take` leaves the rest to the next reader. Sources: fcntl(2), fstat(2),
//! socket(7) (SO_TYPE, SO_ACCEPTCONN).

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;
use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType};

use super::link::Link;
use super::merge::Merge;
use super::pipe::{OpenedReceiver, OpenedSender};
use super::socket::peer;
use super::wire::Flow;
use super::{EndTraits, Mechanism, Opened, Opening, no_objects, pair, pipe};
use crate::address::Address;
use crate::capabilities::{Capabilities, Unit};
use crate::error::{Error, Kind};
use crate::object::Listing;
use crate::options::Options;

/// Inherited descriptor.
pub static MECHANISM: Mechanism = Mechanism {
    scheme: "fd",
    title: "inherited descriptor",
    example: "fd:3",
    capabilities: Capabilities { named: false, capacity: Some(Unit::Bytes), ..Capabilities::PLAIN },
    settings: &["capacity", "message-size"],
    create: |_| Err(not_ours()),
    open_sender,
    open_receiver,
    remove: |_| Err(not_ours()),
    list: |_| Listing::none(),
    place: no_objects,
    limits: &["RLIMIT_NOFILE"],
};

fn not_ours() -> Error {
    Error::new(Kind::NotSupported, "an inherited descriptor is neither made nor removed here")
        .with_hint("whoever starts this program opens it, as in 3<&0 or 3>file")
}

fn open_sender(opening: &Opening<'_>) -> Result<OpenedSender, Error> {
    let (descriptor, flow) = open(opening, Way::Out)?;
    sender(descriptor, flow, opening)
}

fn open_receiver(opening: &Opening<'_>) -> Result<OpenedReceiver, Error> {
    let (descriptor, flow) = open(opening, Way::In)?;
    receiver(descriptor, flow, opening)
}

/// The sending end that a parent handed down, as what it is.
pub(crate) fn handed_sender(
    descriptor: OwnedFd,
    options: &Options,
) -> Result<(&'static Mechanism, OpenedSender), Error> {
    let number = descriptor.as_raw_fd();
    check_way(&descriptor, number, Way::Out)?;
    Ok(match Handed::of(&descriptor)? {
        Handed::Side => {
            if options.allowed.is_restricted() {
                options.allowed.check(&peer(&descriptor))?;
            }
            (&pair::MECHANISM, pair::sender(Arc::new(descriptor), options)?)
        }
        Handed::Pipe => {
            let address = Address::new(pipe::MECHANISM.scheme, "")?;
            let opening = Opening { address: &address, options };
            (&pipe::MECHANISM, sender(descriptor, Flow::Pipe, &opening)?)
        }
        Handed::Other(flow) => {
            let address = Address::new(MECHANISM.scheme, number.to_string())?;
            (&MECHANISM, sender(descriptor, flow, &Opening { address: &address, options })?)
        }
    })
}

/// The receiving end that a parent handed down, as what it is.
pub(crate) fn handed_receiver(
    descriptor: OwnedFd,
    options: &Options,
) -> Result<(&'static Mechanism, OpenedReceiver), Error> {
    let number = descriptor.as_raw_fd();
    check_way(&descriptor, number, Way::In)?;
    Ok(match Handed::of(&descriptor)? {
        Handed::Side => (&pair::MECHANISM, pair::receiver(Arc::new(descriptor), options)?),
        Handed::Pipe => {
            let address = Address::new(pipe::MECHANISM.scheme, "")?;
            let opening = Opening { address: &address, options };
            (&pipe::MECHANISM, receiver(descriptor, Flow::Pipe, &opening)?)
        }
        Handed::Other(flow) => {
            let address = Address::new(MECHANISM.scheme, number.to_string())?;
            (&MECHANISM, receiver(descriptor, flow, &Opening { address: &address, options })?)
        }
    })
}

/// Both halves of one side of a socket pair that a parent handed down.
pub(crate) fn handed_side(socket: OwnedFd, options: &Options) -> Result<pair::Side, Error> {
    let socket = Arc::new(socket);
    Ok((pair::sender(Arc::clone(&socket), options)?, pair::receiver(socket, options)?))
}

/// What a parent handed down, as the kernel says.
enum Handed {
    Pipe,
    /// A connected Unix stream: one side of a pair.
    Side,
    Other(Flow),
}

impl Handed {
    fn of(descriptor: &OwnedFd) -> Result<Handed, Error> {
        let look = || {
            let flow = flow(descriptor)?;
            let stat = rustix::fs::fstat(descriptor)?;
            Ok(match flow {
                Flow::Pipe if FileType::from_raw_mode(stat.st_mode) == FileType::Fifo => {
                    Handed::Pipe
                }
                Flow::Stream if socket_domain(descriptor)? == AddressFamily::UNIX => Handed::Side,
                flow => Handed::Other(flow),
            })
        };
        look().map_err(|errno: Errno| Error::system(errno, ""))
    }
}

fn sender(descriptor: OwnedFd, flow: Flow, opening: &Opening<'_>) -> Result<OpenedSender, Error> {
    if flow == Flow::Pipe {
        let capacity = pipe::set_capacity(&descriptor, opening.options)?;
        return Ok(pipe::sender(descriptor, capacity, opening));
    }
    let link = Link::new(descriptor, flow, opening.options);
    Ok(Opened { end: Box::new(link), traits: traits(flow), address: opening.address.clone() })
}

fn receiver(
    descriptor: OwnedFd,
    flow: Flow,
    opening: &Opening<'_>,
) -> Result<OpenedReceiver, Error> {
    let address = opening.address.clone();
    if flow == Flow::Pipe {
        let capacity = pipe::set_capacity(&descriptor, opening.options)?;
        return Ok(pipe::receiver(descriptor, capacity, opening));
    }
    if socket_acceptconn(&descriptor).unwrap_or(false) {
        let end = Merge::new(descriptor, flow, opening.options, None)?;
        return Ok(Opened { end: Box::new(end), traits: traits(flow), address });
    }
    let credentials = peer(&descriptor);
    let is_unix = socket_domain(&descriptor) == Ok(AddressFamily::UNIX);
    let link = Link::new(descriptor, flow, opening.options).with_credentials(credentials);
    let link = if is_unix { link.unix(opening.options) } else { link };
    Ok(Opened { end: Box::new(link), traits: traits(flow), address })
}

/// Others may hold the same socket: each piece names its sender.
fn traits(flow: Flow) -> EndTraits {
    let traits = match flow {
        Flow::Stream => EndTraits::STREAM,
        Flow::Packet => EndTraits::PACKET,
        Flow::Datagram => EndTraits::DATAGRAM,
        Flow::Pipe => EndTraits::PIPE,
    };
    EndTraits { introduces: false, ..traits }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    In,
    Out,
}

/// A copy of the descriptor that the address names, and which calls it takes.
fn open(opening: &Opening<'_>, way: Way) -> Result<(OwnedFd, Flow), Error> {
    let number = number(opening.address)?;
    let descriptor = poste_sys::descriptor::copy(number).map_err(|errno| match errno {
        Errno::BADF => Error::system(errno, format!("no descriptor {number} is open"))
            .as_kind(Kind::NotFound)
            .with_hint(format!(
                "nothing can create it: open it where this program is started, as in {number}<&0"
            )),
        _ => Error::system(errno, ""),
    })?;
    check_way(&descriptor, number, way)?;
    let flow = flow(&descriptor).map_err(|errno| Error::system(errno, ""))?;
    Ok((descriptor, flow))
}

fn number(address: &Address) -> Result<i32, Error> {
    let digits = address.text().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| {
        Error::new(Kind::Invalid, "it takes the descriptor's number").with_hint("as in fd:3")
    })
}

/// Refuses to send into what is open for reading only, and the other way round.
fn check_way(descriptor: &OwnedFd, number: i32, way: Way) -> Result<(), Error> {
    let flags = rustix::fs::fcntl_getfl(descriptor).map_err(|errno| Error::system(errno, ""))?;
    let access = flags & OFlags::RWMODE;
    let wrong = match way {
        Way::In => access == OFlags::WRONLY,
        Way::Out => access == OFlags::RDONLY,
    };
    if wrong {
        let open_for = if way == Way::In { "writing" } else { "reading" };
        return Err(Error::new(
            Kind::NotSupported,
            format!("descriptor {number} is open for {open_for} only"),
        )
        .with_hint("swap sender and receiver, or open it the other way"));
    }
    Ok(())
}

/// Which calls a descriptor takes.
fn flow(descriptor: impl AsFd) -> Result<Flow, Errno> {
    let stat = rustix::fs::fstat(&descriptor)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Ok(Flow::Pipe);
    }
    match socket_type(&descriptor)? {
        SocketType::STREAM => Ok(Flow::Stream),
        SocketType::SEQPACKET => Ok(Flow::Packet),
        _ => Ok(Flow::Datagram),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, Receiver};
    use std::io::Write as _;
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
    use std::time::Duration;

    #[test]
    fn a_listener_that_was_inherited_stays_as_it_is() {
        let name = format!("poste-inherited-{}", std::process::id());
        let name = SocketAddr::from_abstract_name(name).unwrap();
        let listener = UnixListener::bind_addr(&name).unwrap();
        let before = rustix::fs::fcntl_getfl(&listener).unwrap();
        assert!(!before.contains(OFlags::NONBLOCK));
        let address = format!("fd:{}", listener.as_raw_fd());
        let mut receiver = Receiver::open_with(&address, &Options::new().raw()).unwrap();
        for round in 0..2 {
            assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
            let soon = receiver.recv_timeout(Duration::from_millis(10)).unwrap_err();
            assert_eq!(soon.kind(), Kind::TimedOut);
            let mut peer = UnixStream::connect_addr(&name).unwrap();
            peer.write_all(b"hello").unwrap();
            assert_eq!(&receiver.recv().unwrap()[..], b"hello", "round {round}");
        }
        assert_eq!(rustix::fs::fcntl_getfl(&listener).unwrap(), before);
        drop(receiver);
        assert_eq!(rustix::fs::fcntl_getfl(&listener).unwrap(), before);
    }
}
