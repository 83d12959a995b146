//! An empty channel says so: at once, not before the time is over, and not much after it.

use std::time::{Duration, Instant};

use poste::{Kind, Wait};

use super::PATIENCE;
use crate::cell::{Cell, Clause};

pub(crate) static CLAUSE: Clause =
    Clause { name: "empty", applies: |_, _| true, alone: true, run, ..Clause::PLAIN };

fn run(cell: &Cell) {
    let channel = cell.channel();
    let (mut sender, mut receiver) = channel.open();
    for round in 0..2 {
        let start = Instant::now();
        assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
        assert!(start.elapsed() < cell.lateness());
        for time in [Duration::from_millis(5), Duration::from_millis(70)] {
            let start = Instant::now();
            assert_eq!(receiver.recv_timeout(time).unwrap_err().kind(), Kind::TimedOut);
            check(cell, start.elapsed(), time);
            let start = Instant::now();
            assert_eq!(receiver.recv_deadline(start + time).unwrap_err().kind(), Kind::TimedOut);
            check(cell, start.elapsed(), time);
        }
        let start = Instant::now();
        let over = start - Duration::from_secs(1);
        assert_eq!(receiver.recv_deadline(over).unwrap_err().kind(), Kind::TimedOut);
        let error = receiver.recv_timeout(Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), Kind::TimedOut, "a timed form: {error}");
        assert!(start.elapsed() < cell.lateness());
        if round == 0 {
            // Once more when a message has been there.
            sender.send("x").unwrap();
            assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], b"x");
        }
    }
    // What is there is given, also where the time is over or beyond every clock.
    let over = Wait::Until(Instant::now() - Duration::from_secs(1));
    for wait in [over, Wait::For(Duration::MAX), Wait::Not, Wait::Forever] {
        sender.send("y").unwrap();
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(&receiver.recv_wait(wait).unwrap()[..], b"y", "{wait:?}");
    }
}

fn check(cell: &Cell, took: Duration, time: Duration) {
    assert!(took >= time, "too early, after {took:?} of {time:?}");
    assert!(took < time + cell.lateness(), "too late, after {took:?} instead of {time:?}");
}
