//! A cloned sender is a sender of its own: its own sequence, and it stays when the first one goes.
//! Receiving many takes what is there and waits for the first only.

use std::time::Duration;

use poste::Kind;

use super::PATIENCE;
use crate::cell::{Cell, Clause, Form};

pub(crate) static CLAUSE: Clause = Clause {
    name: "clones",
    applies: |capabilities, form| capabilities.many_senders && form == Form::Enveloped,
    run,
    ..Clause::PLAIN
};

fn run(cell: &Cell) {
    let channel = cell.channel();
    let (mut first, mut receiver) = channel.open();
    let mut second = first.try_clone().unwrap();
    for round in 1..=3 {
        for sender in [&mut first, &mut second] {
            sender.send("x").unwrap();
            let message = receiver.recv_timeout(PATIENCE).unwrap();
            assert_eq!((&message[..], message.sequence()), (&b"x"[..], round));
        }
    }
    drop(first);
    for _ in 0..4 {
        second.send("y").unwrap();
    }
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(receiver.recv_many(0, |_| panic!("none is wanted")).unwrap(), 0);
    let mut count = 0;
    let taken = receiver.recv_many(3, |message| count += message.len()).unwrap();
    assert_eq!((taken, count), (3, 3));
    assert_eq!(receiver.recv_many(100, |_| ()).unwrap(), 1, "it doesn't wait for a second");
    assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
    drop(second);
    let last = receiver.try_recv().unwrap_err();
    let expected = if channel.has_address() { Kind::Empty } else { Kind::Disconnected };
    assert_eq!(last.kind(), expected);
}
