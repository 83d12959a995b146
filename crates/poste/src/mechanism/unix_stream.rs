//! Unix stream sockets: byte streams between processes of one machine, many senders to one receiver.
//!
//! A `Receiver` listens and a `Sender` connects, unless asked otherwise. The name is made with its
//! mode and goes with its maker. Sources: unix(7), listen(2).

use rustix::net::{AddressFamily, SocketType};

use super::link::Link;
use super::pipe::{OpenedReceiver, OpenedSender};
use super::socket::{
    UnixPlace, listens, merging, new, packet_max, peer, send_buffer, serving, set_buffers,
};
use super::wire::Flow;
use super::{EndTraits, Mechanism, Opened, Opening, unix_objects};
use crate::address::Address;
use crate::capabilities::{Capabilities, Identity, Unit};
use crate::error::{Error, Kind};
use crate::options::Role;

/// Unix stream socket.
pub static MECHANISM: Mechanism = Mechanism {
    scheme: "unix",
    title: "Unix stream socket",
    example: "unix:/run/user/1000/orders",
    capabilities: Capabilities {
        connections: true,
        way_back: true,
        identity: Identity::Connection,
        descriptors: true,
        capacity: Some(Unit::Bytes),
        made_by_listening: true,
        ..Capabilities::PLAIN
    },
    settings: &["capacity", "message-size", "mode", "listen", "sealed"],
    create: |_| Err(made_by_listening()),
    open_sender: |opening| sender(opening, SocketType::STREAM, Flow::Stream, EndTraits::STREAM),
    open_receiver: |opening| receiver(opening, SocketType::STREAM, Flow::Stream, EndTraits::STREAM),
    remove: remove_socket,
    list: |survey| unix_objects::list(survey, "unix", unix_objects::STREAM),
    place: unix_objects::place,
    limits: &["net.core.wmem_max", "net.core.rmem_max", "net.core.somaxconn", "RLIMIT_NOFILE"],
};

/// A socket's name without a listener would refuse everybody.
pub(super) fn made_by_listening() -> Error {
    Error::new(Kind::NotSupported, "a socket is made by the end that listens")
        .with_hint("start the receiver: it makes the socket, and takes it away at the end")
}

/// Takes a socket's name away.
pub(super) fn remove_socket(address: &Address) -> Result<(), Error> {
    match UnixPlace::of(address)? {
        UnixPlace::Path(place) => unix_objects::remove(place),
        UnixPlace::Abstract(_) => {
            Err(Error::new(Kind::NotSupported, "an abstract name goes with its listener")
                .with_hint("end the program that listens there"))
        }
    }
}

/// The sending end of a connected socket of any type.
pub(super) fn sender(
    opening: &Opening<'_>,
    kind: SocketType,
    flow: Flow,
    traits: EndTraits,
) -> Result<OpenedSender, Error> {
    let address = opening.address.clone();
    let place = UnixPlace::of(&address)?;
    let options = &place.guarded(opening.options);
    if listens(opening, Role::Connect) {
        let listener = new(AddressFamily::UNIX, kind)?;
        set_buffers(&listener, options)?;
        let bound = place.bind(&listener, opening)?;
        return serving(listener, bound, flow, address.clone(), options);
    }
    let socket = place.connect(kind, options)?;
    let capacity = send_buffer(&socket);
    let packet_max = packet_max(options, capacity).filter(|_| flow == Flow::Packet);
    let traits = EndTraits { capacity, message_size: packet_max, ..traits };
    let credentials = peer(&socket);
    options.allowed.check(&credentials)?;
    let link = Link::new(socket, flow, options).unix(options).with_credentials(credentials);
    Ok(Opened { end: Box::new(link), traits, address })
}

/// The receiving end of a socket with connections.
pub(super) fn receiver(
    opening: &Opening<'_>,
    kind: SocketType,
    flow: Flow,
    traits: EndTraits,
) -> Result<OpenedReceiver, Error> {
    let address = opening.address.clone();
    let place = UnixPlace::of(&address)?;
    let options = &place.guarded(opening.options);
    if listens(opening, Role::Listen) {
        let listener = new(AddressFamily::UNIX, kind)?;
        set_buffers(&listener, options)?;
        let bound = place.bind(&listener, opening)?;
        return merging(listener, bound, flow, address.clone(), options);
    }
    let socket = place.connect(kind, options)?;
    let credentials = peer(&socket);
    options.allowed.check(&credentials)?;
    let link = Link::new(socket, flow, options).unix(options).with_credentials(credentials);
    Ok(Opened { end: Box::new(link), traits, address })
}
