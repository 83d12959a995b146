//! Unix datagram sockets: packets without a connection, reliable and in order on one machine.
//!
//! The receiver has the name; a full one makes senders wait. There is no end to notice: when the
//! receiver goes, what it had not read is gone with it. Sources: unix(7),
//! net.unix.max_dgram_qlen.

use std::os::fd::AsFd;

use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind};

use super::link::Link;
use super::pipe::{OpenedReceiver, OpenedSender};
use super::socket::{
    UnixPlace, listens, make_blocking, new, packet_max, receive_buffer, send_buffer, set_buffers,
};
use super::unix_objects;
use super::unix_stream::{made_by_listening, remove_socket};
use super::wire::Flow;
use super::{Arrival, EndTraits, Frame, GONE_IN_THE_MIDDLE, Mechanism, Opened, Opening};
use super::{Pollable, RecvEnd, SendEnd};
use crate::address::Address;
use crate::capabilities::{Capabilities, Identity, Unit};
use crate::error::{Error, Kind};
use crate::options::Role;
use crate::wait::Wait;

/// Unix datagram socket.
pub static MECHANISM: Mechanism = Mechanism {
    scheme: "dgram",
    title: "Unix datagram socket",
    example: "dgram:/run/user/1000/log",
    capabilities: Capabilities {
        raw_boundaries: true,
        raw_empty: true,
        way_back: true,
        identity: Identity::Message,
        descriptors: true,
        capacity: Some(Unit::Bytes),
        made_by_listening: true,
        ..Capabilities::PLAIN
    },
    settings: &["capacity", "message-size", "mode"],
    create: |_| Err(made_by_listening()),
    open_sender,
    open_receiver,
    remove: remove_socket,
    list: |survey| unix_objects::list(survey, "dgram", unix_objects::DATAGRAM),
    place: unix_objects::place,
    limits: &["net.unix.max_dgram_qlen", "net.core.wmem_max", "net.core.rmem_max", "RLIMIT_NOFILE"],
};

fn open_sender(opening: &Opening<'_>) -> Result<OpenedSender, Error> {
    if listens(opening, Role::Connect) {
        return Err(one_sided());
    }
    let socket = UnixPlace::of(opening.address)?.connect(SocketType::DGRAM, opening.options)?;
    let capacity = send_buffer(&socket);
    let message_size = packet_max(opening.options, capacity);
    let traits = EndTraits { capacity, message_size, ..EndTraits::DATAGRAM };
    let address = opening.address.clone();
    let end = Sending {
        link: Link::new(socket, Flow::Datagram, opening.options).unix(opening.options),
        address: address.clone(),
        is_named: false,
    };
    Ok(Opened { end: Box::new(end), traits, address })
}

fn open_receiver(opening: &Opening<'_>) -> Result<OpenedReceiver, Error> {
    if !listens(opening, Role::Listen) {
        return Err(one_sided());
    }
    let place = UnixPlace::of(opening.address)?;
    let options = &place.guarded(opening.options);
    let socket = new(AddressFamily::UNIX, SocketType::DGRAM)?;
    set_buffers(&socket, options)?;
    if !options.body_only || options.allowed.is_restricted() {
        // Before the name is there: what was queued earlier would be nobody's.
        set_socket_passcred(&socket, true).map_err(|errno| Error::system(errno, ""))?;
    }
    if options.body_only {
        // An older kernel closes what is not asked for.
        let _ = poste_sys::ancillary::refuse_descriptors(socket.as_fd());
    }
    let bound = place.bind(&socket, opening)?;
    make_blocking(&socket)?;
    let traits = EndTraits { capacity: receive_buffer(&socket), ..EndTraits::DATAGRAM };
    let end =
        Datagrams { link: Link::new(socket, Flow::Datagram, options).unix(options), _bound: bound };
    Ok(Opened { end: Box::new(end), traits, address: opening.address.clone() })
}

struct Sending {
    link: Link,
    address: Address,
    /// It has a name of its own, so that it can be answered.
    is_named: bool,
}

impl SendEnd for Sending {
    fn send(&mut self, frame: &Frame<'_>, wait: Wait) -> Result<usize, Error> {
        let wait = wait.begin();
        match self.link.send(frame, wait) {
            // The receiver is gone, and nothing was accepted: the next one may be there.
            Err(error) if error.is(&Kind::NoReceiver) || error.is(&Kind::Disconnected) => {
                if frame.goes_on {
                    return Err(Error::new(Kind::Disconnected, GONE_IN_THE_MIDDLE));
                }
                UnixPlace::of(&self.address)?.reconnect(self.link.descriptor())?;
                self.link.send(frame, wait)
            }
            done => done,
        }
    }

    fn pollable(&mut self) -> Result<Pollable<'_>, Error> {
        SendEnd::pollable(&mut self.link)
    }

    fn back(&mut self) -> Option<&mut dyn RecvEnd> {
        if !self.is_named {
            // An abstract name that nobody has.
            let name = format!("poste-{:016x}", crate::sequence::draw());
            let name = SocketAddrUnix::new_abstract_name(name.as_bytes()).ok()?;
            bind(self.link.descriptor(), &name).ok()?;
            self.is_named = true;
        }
        Some(&mut self.link)
    }
}

/// Datagrams have no connections: only their receiver has a name.
pub(super) fn one_sided() -> Error {
    Error::new(Kind::NotSupported, "datagrams go to their receiver, which has the address")
        .with_hint("leave out --listen and --connect")
}

/// A link with the name that goes with it.
struct Datagrams {
    link: Link,
    _bound: Option<super::socket::Bound>,
}

impl RecvEnd for Datagrams {
    fn recv(&mut self, arrival: &mut Arrival, wait: Wait) -> Result<(), Error> {
        self.link.recv(arrival, wait)
    }

    fn bytes(&self, arrival: &Arrival) -> &[u8] {
        self.link.bytes(arrival)
    }

    fn pollable(&mut self) -> Result<Pollable<'_>, Error> {
        RecvEnd::pollable(&mut self.link)
    }

    fn back(&mut self) -> Option<&mut dyn SendEnd> {
        Some(&mut self.link)
    }

    fn connections(&self) -> (u64, u64) {
        (0, self.link.refused())
    }
}
