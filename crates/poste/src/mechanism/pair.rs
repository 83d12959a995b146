//! The socket pair: two connected ends without a name, for related processes; both ways.
//!
//! Made by [`crate::pair`] and handed to a child; whoever inherited one opens it as `fd:N`.
//! [`crate::pipes`] gives the same two ways over two pipes. Sources: socketpair(2), unix(7).

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::link::Link;
use super::pipe::{OpenedReceiver, OpenedSender};
use super::socket::{peer, set_buffers};
use super::wire::Flow;
use super::{EndTraits, Mechanism, Opened, no_objects};
use crate::address::Address;
use crate::capabilities::{Capabilities, Identity, Unit};
use crate::error::{Error, Kind};
use crate::object::Listing;
use crate::options::Options;

/// Socket pair.
pub static MECHANISM: Mechanism = Mechanism {
    scheme: "pair",
    title: "socket pair",
    example: "pair:",
    capabilities: Capabilities {
        named: false,
        connections: true,
        many_senders: false,
        way_back: true,
        identity: Identity::Connection,
        descriptors: true,
        capacity: Some(Unit::Bytes),
        ..Capabilities::PLAIN
    },
    settings: &["capacity", "message-size"],
    create: |_| Err(nameless()),
    open_sender: |_| Err(nameless()),
    open_receiver: |_| Err(nameless()),
    remove: |_| Err(nameless()),
    list: |_| Listing::none(),
    place: no_objects,
    limits: &["net.core.wmem_max", "RLIMIT_NOFILE"],
};

fn nameless() -> Error {
    Error::new(Kind::NotSupported, "a socket pair has no name to open it by")
        .with_hint("make one in a program with poste::pair(), or open an inherited end as fd:3")
}

/// One side of a connection that goes both ways.
pub(crate) type Side = (OpenedSender, OpenedReceiver);

/// A new pair: its two sides.
pub(crate) fn pair(options: &Options) -> Result<(Side, Side), Error> {
    let (one, two) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(|errno| Error::system(errno, "no new socket pair"))?;
    set_buffers(&one, options)?;
    set_buffers(&two, options)?;
    Ok((side(one, options)?, side(two, options)?))
}

/// The two halves of one side.
fn side(socket: OwnedFd, options: &Options) -> Result<Side, Error> {
    let socket = Arc::new(socket);
    Ok((sender(Arc::clone(&socket), options)?, receiver(socket, options)?))
}

/// The half that sends. When it goes, the other side learns that nothing more comes, while this one
/// may still read.
pub(super) fn sender(socket: Arc<OwnedFd>, options: &Options) -> Result<OpenedSender, Error> {
    let traits = traits(&socket);
    let end = Box::new(Link::new(socket, Flow::Stream, options).half());
    Ok(Opened { end, traits, address: Address::new(MECHANISM.scheme, "")? })
}

/// The half that receives.
pub(super) fn receiver(socket: Arc<OwnedFd>, options: &Options) -> Result<OpenedReceiver, Error> {
    let (traits, credentials) = (traits(&socket), peer(&*socket));
    options.allowed.check(&credentials)?;
    let link = Link::new(socket, Flow::Stream, options).unix(options);
    let end = Box::new(link.with_credentials(credentials));
    Ok(Opened { end, traits, address: Address::new(MECHANISM.scheme, "")? })
}

fn traits(socket: &OwnedFd) -> EndTraits {
    EndTraits { capacity: super::socket::send_buffer(socket), ..EndTraits::STREAM }
}
