//! Garbage from a peer disturbs no other: it is counted and passed over where anybody can send, and
//! an error `Corrupt` elsewhere; the good messages arrive.

use std::time::{Duration, Instant};

use poste::{Kind, Options, Sender};

use super::PATIENCE;
use crate::cell::{Cell, Clause, Form};

pub(crate) static CLAUSE: Clause = Clause {
    name: "garbage",
    applies: |capabilities, form| {
        form == Form::Enveloped && capabilities.named && capabilities.many_senders
    },
    run,
    ..Clause::PLAIN
};

fn run(cell: &Cell) {
    let channel = cell.channel();
    let (mut good, mut receiver) = channel.open();
    let capabilities = cell.capabilities();
    let passes_over = capabilities.connections || capabilities.may_lose;
    let mut random = cell.random();
    let limit = good.facts().piece_size.min(20_000);
    for round in 0..30_u64 {
        let mut bytes = random.bytes(1 + [15, 16, 40, limit][round as usize % 4].min(limit) - 1);
        if round % 3 == 0 {
            // What looks like an envelope at first.
            let start = envelope_start();
            let len = start.len().min(bytes.len());
            bytes[..len].copy_from_slice(&start[..len]);
        }
        let mut bad =
            Sender::open_with(channel.address(), &Options::new().raw()).expect("a raw peer opens");
        // A connection that was found out is closed while it still speaks.
        let _ = bad.send_timeout(&bytes, PATIENCE);
        good.send("before").unwrap();
        drop(bad);
        good.send("after").unwrap();
        let mut expected = vec!["after", "before"];
        let end = Instant::now() + PATIENCE;
        while let Some(text) = expected.last() {
            match receiver.recv_deadline(end) {
                Ok(message) => {
                    assert_eq!(message.text().unwrap(), *text, "round {round}");
                    expected.pop();
                }
                Err(error) if error.kind() == Kind::Corrupt => {
                    assert!(!passes_over, "passed over here, not told: {error}");
                    assert!(!error.hint().is_empty(), "it says what to do: {error}");
                }
                Err(error) => panic!("round {round}, {} bytes: {error}", bytes.len()),
            }
        }
    }
    while let Err(error) = receiver.recv_timeout(Duration::from_millis(20)) {
        if error.kind() != Kind::Corrupt {
            break;
        }
    }
    let counters = receiver.counters();
    assert!(counters.corrupt > 0, "garbage is counted");
    assert_eq!(counters.messages, 60);
    // A receiver that reads nothing but garbage still knows when its time is over.
    let start = Instant::now();
    assert_eq!(
        receiver.recv_timeout(Duration::from_millis(30)).unwrap_err().kind(),
        Kind::TimedOut
    );
    assert!(start.elapsed() >= Duration::from_millis(30));
    if !capabilities.raw_boundaries {
        // The beginning of an envelope that has no end is nobody else's beginning.
        drop(good);
        let _ = receiver.recv_timeout(Duration::from_millis(20));
        let mut bad = Sender::open_with(channel.address(), &Options::new().raw()).unwrap();
        bad.send_timeout(&envelope_start(), PATIENCE).unwrap();
        drop(bad);
        let error = receiver.recv_timeout(Duration::from_millis(30)).unwrap_err();
        assert_eq!(error.kind(), Kind::TimedOut);
        let mut next = channel.sender();
        next.send("whole").unwrap();
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap().text().unwrap(), "whole");
    }
}

/// The first bytes of a true envelope.
fn envelope_start() -> Vec<u8> {
    let mut buffer = [0; poste::envelope::HEADER_MAX];
    let size = poste::envelope::Header::message(1 << 20).encode(&mut buffer);
    buffer[..size.min(10)].to_vec()
}
