//! The one descriptor of an end is readable exactly while the end may go on: while a message is
//! there, also one that lies in user space already; while there is room to send.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use poste::{Kind, Level};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::PATIENCE;
use crate::cell::{Cell, Clause, Form};

pub(crate) static RECEIVER: Clause = Clause {
    name: "pollable_receiver",
    applies: |capabilities, form| {
        capabilities.pollable && (form == Form::Enveloped || capabilities.raw_boundaries)
    },
    run: receiver,
    ..Clause::PLAIN
};

pub(crate) static SENDER: Clause = Clause {
    name: "pollable_sender",
    applies: |capabilities, _| capabilities.pollable && !capabilities.may_lose,
    run: sender,
    ..Clause::PLAIN
};

/// Whether it becomes readable within a time.
fn is_readable(descriptor: BorrowedFd<'_>, time: Duration) -> bool {
    let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
    let mut watched = [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)];
    match poll(&mut watched, Some(&time)) {
        Ok(count) => count > 0 && watched[0].revents().contains(PollFlags::IN),
        Err(errno) => panic!("poll: {errno}"),
    }
}

const SOON: Duration = Duration::from_millis(30);

fn receiver(cell: &Cell) {
    let channel = cell.channel();
    let (mut sender, mut receiver) = channel.open();
    // That somebody has connected may wake once; a look makes it quiet.
    if is_readable(receiver.pollable().unwrap(), SOON) {
        assert!(cell.capabilities().connections, "nothing has happened yet");
        assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
    }
    assert!(!is_readable(receiver.pollable().unwrap(), SOON), "quiet while nothing is there");
    for round in 0..4 {
        let count = [1, 9, 3, 6][round];
        for _ in 0..count {
            sender.send("x").unwrap();
        }
        for left in (1..=count).rev() {
            // Level-triggered: it shows what is there as often as it is asked.
            for _ in 0..2 {
                assert!(is_readable(receiver.pollable().unwrap(), PATIENCE), "{left} are there");
            }
            receive_polled(&mut receiver);
        }
        assert!(receiver.try_recv().is_err_and(|error| error.kind() == Kind::Empty));
        assert!(!is_readable(receiver.pollable().unwrap(), SOON), "quiet after round {round}");
    }
    // Asked for only when messages lie in user space already.
    let channel = cell.channel();
    let (mut sender, mut receiver) = channel.open();
    for _ in 0..3 {
        sender.send("y").unwrap();
    }
    receiver.recv_timeout(PATIENCE).unwrap();
    for _ in 0..2 {
        assert!(is_readable(receiver.pollable().unwrap(), PATIENCE), "asked for late");
        receive_polled(&mut receiver);
    }
    assert!(!is_readable(receiver.pollable().unwrap(), SOON));
    drop(sender);
    if channel.has_address() {
        // The end of a connection may wake, and a look at it must make it quiet again.
        assert_eq!(receiver.recv_timeout(SOON).unwrap_err().kind(), Kind::TimedOut);
        assert!(!is_readable(receiver.pollable().unwrap(), SOON), "quiet when all are gone");
    } else {
        assert!(is_readable(receiver.pollable().unwrap(), PATIENCE), "the end is news");
        assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Disconnected);
    }
}

/// Takes one message without waiting, after its descriptor said that something is there: the first
/// look may have met only a part, or a connection that has begun.
fn receive_polled(receiver: &mut poste::Receiver) {
    let end = Instant::now() + PATIENCE;
    loop {
        match receiver.try_recv() {
            Ok(_) => return,
            Err(error) if error.kind() == Kind::Empty && Instant::now() < end => {
                assert!(is_readable(receiver.pollable().unwrap(), PATIENCE));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn sender(cell: &Cell) {
    let channel = cell.channel();
    let (mut sender, mut receiver) = channel.open();
    assert!(is_readable(sender.pollable().unwrap(), PATIENCE), "there is room");
    let body = vec![3; sender.facts().message_size.min(2000)];
    let mut bytes = 0;
    loop {
        match sender.try_send(&body) {
            Ok(_) => bytes += body.len(),
            Err(error) if error.kind() == Kind::Full => break,
            Err(error) => panic!("{error}"),
        }
    }
    for _ in 0..2 {
        assert!(!is_readable(sender.pollable().unwrap(), SOON), "full, yet it may send");
    }
    // When enough was taken out there is room again, and it takes at least one more byte.
    let mut received = 0;
    while !is_readable(sender.pollable().unwrap(), Duration::from_millis(5)) {
        received += receiver.recv_timeout(PATIENCE).unwrap().len();
    }
    let level = sender.flush_timeout(SOON).unwrap();
    match sender.try_send(&body) {
        Ok(_) => bytes += body.len(),
        Err(error) => assert!(error.kind() == Kind::Full && level == Level::Held, "{error}"),
    }
    while received < bytes {
        sender.flush_timeout(Duration::from_millis(1)).unwrap();
        received += receiver.recv_timeout(PATIENCE).unwrap().len();
    }
    assert!(is_readable(sender.pollable().unwrap(), PATIENCE));
}
