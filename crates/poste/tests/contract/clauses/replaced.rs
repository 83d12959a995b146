//! What is begun for one receiver is for nobody else: when that one is gone an error says so, and
//! the next receiver gets whole messages, from the first byte on. What waits for a first receiver
//! waits.

use std::time::Duration;

use poste::{Kind, Level, Options, Receiver, Sender};

use super::PATIENCE;
use crate::cell::{Cell, Clause, Form};
use crate::fixture::Channel;

pub(crate) static CLAUSE: Clause = Clause {
    name: "replaced",
    applies: |capabilities, form| {
        let is_stream = form == Form::Enveloped || !capabilities.raw_boundaries;
        capabilities.pieces && !capabilities.may_lose && capabilities.named && is_stream
    },
    run,
    ..Clause::PLAIN
};

/// Larger than any channel holds here.
const LARGE: usize = 6 << 20;

fn run(cell: &Cell) {
    let roles: &[bool] = if cell.capabilities().connections { &[false, true] } else { &[false] };
    for listens in roles {
        let meeting = || Meeting { channel: cell.channel(), listens: *listens };
        if cell.form == Form::Enveloped {
            waits(cell, &meeting());
        }
        held(cell, &meeting());
        blocked(cell, &meeting());
    }
}

/// A channel, and which side of it has the address.
struct Meeting {
    channel: Channel,
    listens: bool,
}

impl Meeting {
    fn options(&self) -> Options {
        self.channel.options().patience(poste::Wait::For(PATIENCE))
    }

    fn receiver(&self) -> Receiver {
        if self.listens {
            Receiver::open_with(self.channel.address(), &self.options().connect()).unwrap()
        } else {
            self.channel.receiver()
        }
    }

    fn sender(&self) -> Sender {
        if self.listens {
            let wanted = self.channel.wanted().unwrap();
            let sender = Sender::open_with(wanted, &self.options().listen()).unwrap();
            self.channel.is_at(sender.address().to_string());
            sender
        } else {
            self.channel.sender()
        }
    }

    /// Both, the one with the address first.
    fn open(&self) -> (Sender, Receiver) {
        if self.listens {
            let sender = self.sender();
            (sender, self.receiver())
        } else {
            let receiver = self.receiver();
            (self.sender(), receiver)
        }
    }

    /// Whether the sender goes on with the next receiver.
    fn goes_on(&self, cell: &Cell) -> bool {
        self.listens || !cell.capabilities().connections
    }
}

/// Fed before anybody receives: it waits, whatever a flush says.
fn waits(cell: &Cell, meeting: &Meeting) {
    if !meeting.goes_on(cell) {
        return;
    }
    let (mut sender, receiver) = meeting.open();
    drop(receiver);
    // A connection that was begun and is gone must be met first.
    while sender.try_send("to nobody").is_ok() {}
    assert_eq!(sender.feed("waits").unwrap(), Level::Held);
    for _ in 0..2 {
        assert_eq!(sender.try_flush().unwrap_err().kind(), Kind::NoReceiver);
    }
    let mut receiver = meeting.receiver();
    assert_eq!(sender.flush_timeout(PATIENCE).unwrap(), Level::Queued);
    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap().text().unwrap(), "waits");
}

/// The receiver goes while the rest of a message is held.
fn held(cell: &Cell, meeting: &Meeting) {
    let (mut sender, receiver) = meeting.open();
    let body = cell.random().bytes(LARGE);
    assert_eq!(sender.send_timeout(&body, Duration::from_millis(30)).unwrap(), Level::Held);
    drop(receiver);
    let error = sender.flush_timeout(PATIENCE).unwrap_err();
    assert_eq!(error.kind(), Kind::Disconnected, "{error}");
    after(cell, meeting, sender);
}

/// The receiver goes while a send waits for it in the middle of a message.
fn blocked(cell: &Cell, meeting: &Meeting) {
    let (mut sender, receiver) = meeting.open();
    let body = cell.random().bytes(LARGE);
    let (began, begun) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            began.send(()).unwrap();
            sender.send(&body).map_err(|error| error.kind())
        });
        begun.recv().unwrap();
        std::thread::sleep(Duration::from_millis(150));
        drop(receiver);
        // Some of it went: that is no error of this call, but of the next one.
        assert_eq!(sending.join().unwrap(), Ok(Level::Held));
    });
    let error = sender.flush().unwrap_err();
    assert_eq!(error.kind(), Kind::Disconnected, "{error}");
    after(cell, meeting, sender);
}

/// After a receiver has gone in the middle of a message.
fn after(cell: &Cell, meeting: &Meeting, mut sender: Sender) {
    assert_eq!(sender.flush().unwrap(), Level::Queued, "nothing is held any more");
    if !meeting.goes_on(cell) {
        let error = sender.send("to nobody").unwrap_err();
        assert_eq!(error.kind(), Kind::Disconnected, "{error}");
        return;
    }
    let mut receiver = meeting.receiver();
    assert_eq!(sender.send_timeout("the next", PATIENCE).unwrap(), Level::Queued);
    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap().text().unwrap(), "the next");
    assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
    let counters = receiver.counters();
    assert_eq!((counters.unfinished, counters.corrupt), (0, 0));
}
