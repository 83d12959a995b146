//! Opening and closing leaves nothing: no descriptor in the process, no object in the kernel.

use std::process::ExitCode;

use poste::Kind;

use super::PATIENCE;
use crate::cell::{Cell, Clause, Form};
use crate::fixture::{self, Channel};
use crate::leftovers::{compare, descriptors, look};
use crate::worker::Worker;

/// Descriptors belong to a process, so each mechanism is tried in one of its own.
pub(crate) static CLAUSE: Clause = Clause { name: "leaks", run, ..Clause::PLAIN };

fn run(cell: &Cell) {
    let mut helper = Worker::helper("leak", cell.fixture.name);
    helper.finish();
}

/// Opens, uses and closes the channels of a mechanism, again and again.
pub(crate) fn in_a_helper(name: &str) -> ExitCode {
    let fixture = fixture::named(name);
    // What the library makes once for a process is no leak: the first round is not counted.
    use_once(fixture, Form::Enveloped);
    let before = look();
    for round in 0..100 {
        use_once(fixture, if round % 2 == 0 { Form::Enveloped } else { Form::Raw });
    }
    debug_assert!(!descriptors().is_empty());
    compare(&before, &look())
}

fn use_once(fixture: &'static fixture::Fixture, form: Form) {
    let channel = Channel::new(fixture, form);
    let (mut sender, mut receiver) = channel.open();
    let clone = fixture.capabilities().many_senders.then(|| sender.try_clone().unwrap());
    if fixture.capabilities().pollable {
        receiver.pollable().unwrap();
        sender.pollable().unwrap();
    }
    sender.send("x").unwrap();
    assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], b"x");
    let error = receiver.try_recv().unwrap_err();
    assert_eq!(error.kind(), Kind::Empty);
    if channel.has_address() {
        // One who comes and goes while the receiver stays.
        let mut guest = channel.sender();
        guest.send("y").unwrap();
        assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], b"y");
        drop(guest);
        assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
    }
    // One left in it, and one held.
    sender.send("left").unwrap();
    sender.feed("held").unwrap();
    drop((receiver, sender, clone));
    if fixture.capabilities().made_by_listening {
        let mut left = std::fs::read_dir(channel.folder()).unwrap();
        assert!(left.next().is_none(), "who listened has left its name");
    }
    if channel.has_address() && fixture.capabilities().survives_its_users {
        poste::remove(channel.address()).expect("it is there until it is removed");
        let gone = poste::Sender::open(channel.address()).unwrap_err();
        assert_eq!(gone.kind(), Kind::NotFound, "removed, yet there");
    }
}
