//! A receiver that wants N messages takes N, and leaves the rest to the next reader where there may
//! be one.

use poste::Receiver;

use super::PATIENCE;
use crate::cell::{Cell, Clause, Form};

pub(crate) static CLAUSE: Clause = Clause {
    name: "taking",
    applies: |capabilities, form| {
        form == Form::Enveloped && !capabilities.connections && !capabilities.may_lose
    },
    run,
    ..Clause::PLAIN
};

fn run(cell: &Cell) {
    let channel = cell.channel();
    if !channel.has_address() {
        return;
    }
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
    drop(first);
    let rest = take(channel.receiver(), &bodies[2..]);
    drop(rest);
}
