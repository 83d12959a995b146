//! A receiver that wants N messages takes N, and leaves the rest to the next reader where there may
//! be one.

use std::os::fd::AsRawFd;

use poste::{Priorities, Receiver};

use super::PATIENCE;
use crate::cell::{Cell, Clause, Form};

pub(crate) static CLAUSE: Clause = Clause {
    name: "taking",
    applies: |capabilities, form| {
        // A socket's messages go with its receiver.
        let is_socket = capabilities.connections
            || capabilities.may_lose
            || matches!(capabilities.priorities, Priorities::Window(_))
                && capabilities.raw_boundaries;
        form == Form::Enveloped && !is_socket
    },
    run,
    ..Clause::PLAIN
};

fn run(cell: &Cell) {
    let channel = cell.channel();
    let (mut sender, receiver) = channel.open_with(channel.options().take(2)).unwrap();
    let count = 5;
    let bodies: Vec<String> =
        (0..count).map(|index| format!("{index}").repeat(50 * index + 1)).collect();
    for body in &bodies {
        sender.send(body).unwrap();
    }
    let take = |mut receiver: Receiver, bodies: &[String]| {
        for body in bodies {
            assert_eq!(receiver.recv_timeout(PATIENCE).unwrap().text().unwrap(), body);
        }
        receiver
    };
    let first = take(receiver, &bodies[..2]);
    if channel.has_address() {
        drop(first);
        take(channel.receiver(), &bodies[2..]);
    } else {
        // The descriptor is what another reader gets.
        let descriptor = first.into_descriptor().unwrap();
        let address = format!("fd:{}", descriptor.as_raw_fd());
        take(Receiver::open(address).unwrap(), &bodies[2..]);
    }
}
