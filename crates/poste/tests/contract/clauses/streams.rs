//! Raw bytes over a stream are what was sent, one after the other, without a byte more; delimited,
//! a message is what stands before each mark.

use std::time::Duration;

use poste::{Kind, Level};

use super::PATIENCE;
use crate::cell::{Cell, Clause, Form};

pub(crate) static CLAUSE: Clause = Clause {
    name: "streams",
    applies: |capabilities, form| form == Form::Raw && !capabilities.raw_boundaries,
    run,
    ..Clause::PLAIN
};

fn run(cell: &Cell) {
    let channel = cell.channel();
    let (mut sender, mut receiver) = channel.open();
    let mut random = cell.random();
    let sizes = [1, 4095, 4096, 4097, 65_535, 65_536, 65_537, 3, 300_000, 0, 7];
    let bodies: Vec<_> = sizes.iter().map(|size| random.bytes(*size)).collect();
    let all = bodies.concat();
    std::thread::scope(|scope| {
        let sender = &mut sender;
        scope.spawn(move || {
            for body in &bodies {
                assert_eq!(sender.send(body).unwrap(), Level::Queued);
            }
        });
        let mut received = Vec::new();
        while received.len() < all.len() {
            let piece = receiver.recv_timeout(PATIENCE).unwrap();
            assert!(!piece.is_empty(), "no read gives nothing");
            assert_eq!(piece.sequence(), 0, "raw bytes have no place");
            received.extend_from_slice(&piece);
        }
        assert!(received == all, "other bytes came");
    });
    assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
    drop(sender);
    let end = receiver.recv_timeout(Duration::from_millis(50)).expect_err("an end is no message");
    let expected = if channel.has_address() { Kind::TimedOut } else { Kind::Disconnected };
    assert_eq!(end.kind(), expected);
    drop(receiver);
    delimited(cell);
}

fn delimited(cell: &Cell) {
    let channel = cell.channel();
    let (mut sender, mut receiver) = channel.open_with(channel.options().delimited(b'\n')).unwrap();
    let long = "l".repeat(100_000);
    let lines = ["one", "", "three\r", &long, "five"];
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let text = lines.join("\n");
            for part in text.as_bytes().chunks(7000) {
                sender.send(part).unwrap();
            }
            // The end of the stream ends the last line, which has no mark.
            sender.close().unwrap();
        });
        for line in lines {
            let message = receiver.recv_timeout(PATIENCE).unwrap();
            assert!(message.text().unwrap() == line, "{} bytes came", message.len());
        }
    });
    assert!(receiver.recv_timeout(Duration::from_millis(20)).is_err());
}
