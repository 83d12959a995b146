//! TCP: byte streams over connections, also between machines. Nothing is encrypted, nobody proved.
//!
//! Small messages go at once (TCP_NODELAY). A listening address is reusable at once after its owner
//! is gone (SO_REUSEADDR). Sources: tcp(7), ip(7), socket(7).

use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, bind, connect, getsockname, sockopt};

use super::link::Link;
use super::pipe::{OpenedReceiver, OpenedSender};
use super::socket::{
    connect_patiently, finish_connecting, listens, make_blocking, merging, new, send_buffer,
    serving, set_buffers, try_buffers, try_new,
};
use super::wire::Flow;
use super::{EndTraits, Mechanism, Opened, Opening, inet_objects};
use crate::address::Address;
use crate::capabilities::{Capabilities, Unit};
use crate::error::{Error, Kind};
use crate::options::{Options, Role};
use crate::wait::Wait;

/// TCP.
pub static MECHANISM: Mechanism = Mechanism {
    scheme: "tcp",
    title: "TCP",
    example: "tcp:127.0.0.1:8888",
    capabilities: Capabilities {
        connections: true,
        way_back: true,
        network: true,
        capacity: Some(Unit::Bytes),
        made_by_listening: true,
        ..Capabilities::PLAIN
    },
    settings: &["capacity", "message-size", "listen"],
    create: |_| Err(super::unix_stream::made_by_listening()),
    open_sender,
    open_receiver,
    remove: |_| Err(no_object()),
    list: inet_objects::list_tcp,
    place: inet_objects::place,
    limits: &["net.core.wmem_max", "net.core.rmem_max", "net.core.somaxconn", "RLIMIT_NOFILE"],
};

/// A port is no object.
pub(super) fn no_object() -> Error {
    Error::new(Kind::NotSupported, "a port is free when nobody listens on it")
        .with_hint("end the program that listens there")
}

fn open_sender(opening: &Opening<'_>) -> Result<OpenedSender, Error> {
    let options = opening.options;
    if listens(opening, Role::Connect) {
        let (listener, address) = listener(opening)?;
        return serving(listener, None, Flow::Stream, address, options);
    }
    let socket = dial(opening.address, options)?;
    let traits = EndTraits { capacity: send_buffer(&socket), ..EndTraits::STREAM };
    let link = Link::new(socket, Flow::Stream, options).lingering();
    Ok(Opened { end: Box::new(link), traits, address: opening.address.clone() })
}

fn open_receiver(opening: &Opening<'_>) -> Result<OpenedReceiver, Error> {
    let options = opening.options;
    if listens(opening, Role::Listen) {
        let (listener, address) = listener(opening)?;
        return merging(listener, None, Flow::Stream, address, options);
    }
    let link = Link::new(dial(opening.address, options)?, Flow::Stream, options);
    let address = opening.address.clone();
    Ok(Opened { end: Box::new(link), traits: EndTraits::STREAM, address })
}

/// A socket that has the address, and the address with the port that it really has.
fn listener(opening: &Opening<'_>) -> Result<(OwnedFd, Address), Error> {
    let socket = bound(opening, SocketType::STREAM)?;
    let address = taken(&socket, opening.address)?;
    Ok((socket, address))
}

/// A socket of a type that has the address.
pub(super) fn bound(opening: &Opening<'_>, kind: SocketType) -> Result<OwnedFd, Error> {
    let host = resolve(opening.address)?[0];
    let socket = new(family(&host), kind)?;
    if kind == SocketType::STREAM {
        sockopt::set_socket_reuseaddr(&socket, true).map_err(|errno| Error::system(errno, ""))?;
    }
    set_buffers(&socket, opening.options)?;
    bind(&socket, &host).map_err(|errno| match errno {
        Errno::ADDRINUSE => Error::system(errno, "")
            .with_hint("another program has the port; choose another, or 0 for any that is free"),
        Errno::ACCESS => Error::system(errno, "")
            .with_hint("ports below 1024 are for the system; choose a higher one"),
        Errno::ADDRNOTAVAIL => Error::system(errno, "this machine doesn't have the address")
            .with_hint("listen on 127.0.0.1, [::1] or 0.0.0.0"),
        _ => Error::system(errno, ""),
    })?;
    Ok(socket)
}

/// The address as the kernel knows it: with the port that it chose.
pub(super) fn taken(socket: &OwnedFd, address: &Address) -> Result<Address, Error> {
    let name = getsockname(socket).map_err(|errno| Error::system(errno, ""))?;
    let name = SocketAddr::try_from(name).map_err(|errno| Error::system(errno, ""))?;
    Ok(address.with_rest(name.to_string()))
}

/// A connected socket: the first of the host's addresses where somebody listens.
fn dial(address: &Address, options: &Options) -> Result<OwnedFd, Error> {
    let hosts = resolve(address)?;
    let socket = connect_patiently(options, |patience| {
        let mut last = Errno::CONNREFUSED;
        for host in &hosts {
            match dial_one(host, options, patience) {
                Ok(socket) => return Ok(socket),
                Err(errno) => last = errno,
            }
        }
        Err(last)
    })?;
    make_blocking(&socket)?;
    prepare(&socket);
    Ok(socket)
}

fn dial_one(host: &SocketAddr, options: &Options, patience: Wait) -> Result<OwnedFd, Errno> {
    let socket = try_new(family(host), SocketType::STREAM)?;
    try_buffers(&socket, options)?;
    match connect(&socket, host) {
        Ok(()) => Ok(socket),
        Err(Errno::INPROGRESS) => finish_connecting(&socket, patience).map(|()| socket),
        Err(errno) => Err(errno),
    }
}

/// Small messages go at once. On a socket that is no TCP this means nothing, and is no error.
pub(super) fn prepare(socket: &OwnedFd) {
    let _ = sockopt::set_tcp_nodelay(socket, true);
}

pub(super) fn family(host: &SocketAddr) -> AddressFamily {
    if host.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}

/// What a host and port stand for; at least one.
pub(super) fn resolve(address: &Address) -> Result<Vec<SocketAddr>, Error> {
    let scheme = address.scheme();
    let text = address.text().filter(|text| text.contains(':')).ok_or_else(|| {
        Error::new(Kind::Invalid, "host and port are missing")
            .with_hint(format!("as in {scheme}:127.0.0.1:8888 or {scheme}:[::1]:8888"))
    })?;
    match text.to_socket_addrs() {
        Ok(hosts) => {
            let hosts: Vec<_> = hosts.collect();
            if hosts.is_empty() {
                return Err(Error::new(Kind::NotFound, "the host has no address"));
            }
            Ok(hosts)
        }
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
            Err(Error::new(Kind::Invalid, format!("{text:?} is no host and port"))
                .with_hint(format!("as in {scheme}:127.0.0.1:8888 or {scheme}:[::1]:8888")))
        }
        Err(error) => Err(Error::new(Kind::NotFound, format!("no such host: {error}"))
            .with_hint("write the host's number, as in 127.0.0.1")),
    }
}
