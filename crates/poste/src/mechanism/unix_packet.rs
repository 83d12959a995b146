//! Unix packet sockets (SOCK_SEQPACKET): connections that keep message boundaries.
//!
//! Opened like a stream socket; what differs is that each message is a packet. An empty packet reads
//! as the end, so raw ones are refused. Sources: unix(7), recvmmsg(2).

use rustix::net::SocketType;

use super::unix_stream::{made_by_listening, receiver, remove_socket, sender};
use super::wire::Flow;
use super::{EndTraits, Mechanism, unix_objects};
use crate::capabilities::{Capabilities, Identity, Unit};

/// Unix packet socket.
pub static MECHANISM: Mechanism = Mechanism {
    scheme: "seqpacket",
    title: "Unix packet socket",
    example: "seqpacket:/run/user/1000/orders",
    capabilities: Capabilities {
        raw_boundaries: true,
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
    open_sender: |opening| sender(opening, SocketType::SEQPACKET, Flow::Packet, EndTraits::PACKET),
    open_receiver: |opening| {
        receiver(opening, SocketType::SEQPACKET, Flow::Packet, EndTraits::PACKET)
    },
    remove: remove_socket,
    list: |survey| unix_objects::list(survey, "seqpacket", unix_objects::PACKET),
    place: unix_objects::place,
    limits: &["net.core.wmem_max", "net.core.rmem_max", "net.core.somaxconn", "RLIMIT_NOFILE"],
};
