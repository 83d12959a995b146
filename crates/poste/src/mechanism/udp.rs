//! UDP: datagrams, also between machines. They may be lost, and come late: poste counts both.
//!
//! A late one is dropped, so that each sender's order holds. That nobody receives is told by the
//! network, if at all, at the next send or flush. Sources: udp(7), ip(7).

use rustix::io::Errno;
use rustix::net::{SocketType, connect, sockopt};

use super::link::Link;
use super::pipe::{OpenedReceiver, OpenedSender};
use super::socket::{listens, make_blocking, new, receive_buffer, send_buffer, set_buffers};
use super::tcp::{bound, family, no_object, resolve, taken};
use super::unix_datagram::one_sided;
use super::wire::Flow;
use super::{
    EndTraits, Frame, Mechanism, Opened, Opening, Pollable, RecvEnd, SendEnd, inet_objects,
};
use crate::capabilities::{Capabilities, Unit};
use crate::error::{Error, Kind};
use crate::options::Role;
use crate::wait::Wait;

/// UDP.
pub static MECHANISM: Mechanism = Mechanism {
    scheme: "udp",
    title: "UDP",
    example: "udp:127.0.0.1:9999",
    capabilities: Capabilities {
        raw_boundaries: true,
        raw_empty: true,
        way_back: true,
        may_lose: true,
        network: true,
        capacity: Some(Unit::Bytes),
        made_by_listening: true,
        ..Capabilities::PLAIN
    },
    settings: &["capacity", "message-size"],
    create: |_| Err(super::unix_stream::made_by_listening()),
    open_sender,
    open_receiver,
    remove: |_| Err(no_object()),
    list: inet_objects::list_udp,
    place: inet_objects::place,
    limits: &["net.core.wmem_max", "net.core.rmem_max", "RLIMIT_NOFILE"],
};

/// The largest body of a datagram: 16 bits of length, less the headers that they count (udp(7)).
const PACKET_MAX_4: usize = 65_535 - 20 - 8;

/// The same over IPv6, whose header isn't counted.
const PACKET_MAX_6: usize = 65_535 - 8;

/// What may be lost, and may overtake.
const TRAITS: EndTraits = EndTraits { reliable: false, ..EndTraits::DATAGRAM };

fn open_sender(opening: &Opening<'_>) -> Result<OpenedSender, Error> {
    if listens(opening, Role::Connect) {
        return Err(one_sided());
    }
    let host = resolve(opening.address)?[0];
    let socket = new(family(&host), SocketType::DGRAM)?;
    set_buffers(&socket, opening.options)?;
    connect(&socket, &host).map_err(|errno| Error::system(errno, ""))?;
    make_blocking(&socket)?;
    let packet_max = if host.is_ipv4() { PACKET_MAX_4 } else { PACKET_MAX_6 };
    let message_size = opening.options.is_raw().then_some(packet_max);
    let traits = EndTraits { capacity: send_buffer(&socket), message_size, ..TRAITS };
    let end = Udp { link: Link::new(socket, Flow::Datagram, opening.options) };
    Ok(Opened { end: Box::new(end), traits, address: opening.address.clone() })
}

fn open_receiver(opening: &Opening<'_>) -> Result<OpenedReceiver, Error> {
    if !listens(opening, Role::Listen) {
        return Err(one_sided());
    }
    let socket = bound(opening, SocketType::DGRAM)?;
    make_blocking(&socket)?;
    let address = taken(&socket, opening.address)?;
    let traits = EndTraits { capacity: receive_buffer(&socket), ..TRAITS };
    let link = Link::new(socket, Flow::Datagram, opening.options);
    Ok(Opened { end: Box::new(link), traits, address })
}

/// A link that asks the network, when flushed, whether somebody was there.
struct Udp {
    link: Link,
}

impl SendEnd for Udp {
    fn send(&mut self, frame: &Frame<'_>, wait: Wait) -> Result<usize, Error> {
        // The kernel says of an earlier datagram that nobody was there, and sends nothing: that is
        // this message's news too.
        self.link.send(frame, wait)
    }

    fn pollable(&mut self) -> Result<Pollable<'_>, Error> {
        SendEnd::pollable(&mut self.link)
    }

    fn back(&mut self) -> Option<&mut dyn RecvEnd> {
        Some(&mut self.link)
    }

    fn flush(&mut self, _wait: Wait) -> Result<(), Error> {
        match sockopt::socket_error(self.link.descriptor()) {
            Ok(Err(Errno::CONNREFUSED)) => {
                Err(Error::system(Errno::CONNREFUSED, "").as_kind(Kind::NoReceiver))
            }
            _ => Ok(()),
        }
    }
}
