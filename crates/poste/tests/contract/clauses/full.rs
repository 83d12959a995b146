//! A full channel says so, at once or when the time is over; what it accepted arrives, all of it
//! and nothing else.

use std::time::{Duration, Instant};

use poste::{Kind, Level, Receiver, Sender};

use crate::cell::{Cell, Clause, Form};
use crate::letters::{Checker, Letters};

pub(crate) static CLAUSE: Clause = Clause {
    name: "full",
    applies: |capabilities, form| {
        !capabilities.may_lose && (form == Form::Enveloped || capabilities.raw_boundaries)
    },
    run,
    ..Clause::PLAIN
};

/// A sender that waits for room does so as long as it was told.
pub(crate) static LATENESS: Clause = Clause {
    name: "full_in_time",
    applies: |capabilities, form| !capabilities.may_lose && form == Form::Enveloped,
    alone: true,
    run: lateness,
    ..Clause::PLAIN
};

/// Kernels hold some megabytes; what takes more is not a channel with a limit.
const BYTES_MAX: usize = 256 << 20;

/// TCP's kernel passes on what it holds in its own time, and then has room once more: full is what
/// is still full after so long.
const SETTLED: Duration = Duration::from_millis(10);

/// Sends until nothing more is accepted: how many letters were.
fn fill(sender: &mut Sender, letters: &Letters, from: u32) -> u32 {
    let (mut index, mut bytes, mut full_at) = (from, 0, None);
    loop {
        let letter = letters.letter(0, index);
        match sender.try_send(&letter) {
            Ok(Level::Queued | Level::Held) => index += 1,
            Ok(level) => panic!("no receiver acknowledges here: {level:?}"),
            Err(error) if error.kind() == Kind::Full && full_at == Some(index) => return index,
            Err(error) if error.kind() == Kind::Full => {
                full_at = Some(index);
                std::thread::sleep(SETTLED);
                continue;
            }
            Err(error) => panic!("{error}"),
        }
        bytes += letter.len();
        assert!(bytes < BYTES_MAX, "it accepts without end");
    }
}

/// Takes out all that is there or still held, which must be `count` letters altogether.
fn drain(sender: &mut Sender, receiver: &mut Receiver, checker: &mut Checker, count: u32) {
    let mut quiet = 0;
    while quiet < 3 {
        let level = sender.flush_timeout(Duration::from_millis(1)).unwrap();
        match receiver.recv_timeout(Duration::from_millis(30)) {
            Ok(message) => {
                checker.check(&message, message.sequence());
                quiet = 0;
            }
            Err(error) if error.kind() == Kind::TimedOut && level == Level::Queued => quiet += 1,
            Err(error) if error.kind() == Kind::TimedOut => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(checker.received, u64::from(count), "accepted and delivered");
}

fn run(cell: &Cell) {
    let channel = cell.channel();
    let (mut sender, mut receiver) = channel.open();
    let size_max = sender.facts().message_size.min(3000);
    let letters = Letters { seed: cell.random().next(), size_max };
    let mut checker = Checker::new(letters, 1, false);
    let mut count = 0;
    for round in 0..3 {
        count = fill(&mut sender, &letters, count);
        assert!(count > 0, "round {round}: nothing is accepted");
        let counted = sender.counters();
        // Full again and again, and nothing of what was refused is ever seen.
        for _ in 0..3 {
            let error = sender.try_send(&letters.letter(0, count)).unwrap_err();
            assert_eq!(error.kind(), Kind::Full);
        }
        assert_eq!(sender.counters(), counted);
        drain(&mut sender, &mut receiver, &mut checker, count);
    }
}

fn lateness(cell: &Cell) {
    let channel = cell.channel();
    let (mut sender, mut receiver) = channel.open();
    let letters = Letters { seed: cell.random().next(), size_max: 100 };
    let mut count = fill(&mut sender, &letters, 0);
    let time = Duration::from_millis(60);
    let (mut waits, mut late_room) = (0, 0);
    while waits < 4 {
        let start = Instant::now();
        let letter = letters.letter(0, count);
        let done = match waits % 2 {
            0 => sender.send_timeout(&letter, time),
            _ => sender.send_deadline(&letter, start + time),
        };
        match done {
            Ok(Level::Held) => count += 1,
            Ok(Level::Queued) if late_room < 20 => {
                // Room came by itself, as with TCP it may: once more, from full on.
                late_room += 1;
                count = fill(&mut sender, &letters, count + 1);
                continue;
            }
            other => assert_eq!(other.unwrap_err().kind(), Kind::TimedOut),
        }
        let took = start.elapsed();
        assert!(took >= time, "too early, after {took:?}");
        assert!(took < time + cell.lateness(), "too late, after {took:?}");
        waits += 1;
    }
    // Times that are over, and times that are beyond every clock.
    let error = sender.send_timeout(&letters.letter(0, count), Duration::ZERO).unwrap_err();
    assert_eq!(error.kind(), Kind::TimedOut, "a timed form: {error}");
    let over = Instant::now() - Duration::from_secs(1);
    let error = sender.send_deadline(&letters.letter(0, count), over).unwrap_err();
    assert_eq!(error.kind(), Kind::TimedOut);
    let mut checker = Checker::new(letters, 1, false);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let start = Instant::now();
            sender.send_timeout(&letters.letter(0, count), Duration::MAX).unwrap();
            assert!(start.elapsed() >= Duration::from_millis(30), "it had to wait");
            sender.close().unwrap();
        });
        std::thread::sleep(Duration::from_millis(50));
        while checker.received <= u64::from(count) {
            let message = receiver.recv_timeout(super::PATIENCE).unwrap();
            checker.check(&message, message.sequence());
        }
        waiting.join().unwrap();
    });
}
