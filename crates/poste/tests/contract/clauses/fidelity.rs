//! Text and bytes arrive as they were sent, with the sender as the kernel knows it.

use poste::{Identity, Kind};

use super::PATIENCE;
use crate::cell::{Cell, Clause, Form};

pub(crate) static CLAUSE: Clause = Clause {
    name: "fidelity",
    applies: |capabilities, form| form == Form::Enveloped || capabilities.raw_boundaries,
    run,
    ..Clause::PLAIN
};

fn run(cell: &Cell) {
    let channel = cell.channel();
    let (mut sender, mut receiver) = channel.open();
    let every: Vec<u8> = (0..=255).collect();
    let text = "héllo, wörld\0\n\u{1F4EE} and a line feed\r\n";
    sender.send(&every).unwrap();
    sender.send(text).unwrap();
    let message = receiver.recv_timeout(PATIENCE).unwrap();
    assert_eq!(*message, *every);
    assert_eq!(message.text().unwrap_err().kind(), Kind::Corrupt, "bytes that are no text");
    assert!(!message.redelivered());
    let credentials = *message.sender();
    match cell.capabilities().identity {
        Identity::Unknown => {}
        Identity::SameProcess | Identity::Connection | Identity::Message => {
            assert_eq!(credentials.pid(), Some(std::process::id()));
            assert_eq!(credentials.uid(), Some(rustix::process::geteuid().as_raw()));
        }
    }
    let message = receiver.recv_timeout(PATIENCE).unwrap();
    assert_eq!(message.text().unwrap(), text);
    if cell.form == Form::Enveloped {
        assert_eq!((message.sequence(), message.priority()), (2, 0));
    }
    let owned = message.into_owned();
    assert_eq!(*owned, *text.as_bytes());
    let counters = (sender.counters(), receiver.counters());
    let bytes = (every.len() + text.len()) as u64;
    assert_eq!((counters.0.messages, counters.0.bytes), (2, bytes));
    assert_eq!((counters.1.messages, counters.1.bytes), (2, bytes));
}
