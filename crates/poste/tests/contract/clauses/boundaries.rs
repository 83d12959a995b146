//! Every size from 0 to the limit arrives as the one message that was sent, and one byte more is
//! refused with the size and the limit.

use poste::{Kind, Level, Receiver, Sender};

use super::PATIENCE;
use crate::cell::{Cell, Clause, Form};

pub(crate) static CLAUSE: Clause = Clause {
    name: "boundaries",
    applies: |capabilities, form| form == Form::Enveloped || capabilities.raw_boundaries,
    run,
    ..Clause::PLAIN
};

/// Where sizes are special: PIPE_BUF, a queue's default, a 64-KiB read, a piece; each less the
/// envelope's blocks, too.
const EDGES: [usize; 5] = [4096, 8192, poste::limits::PIECE_MAX, 65_536, 1 << 20];

fn run(cell: &Cell) {
    let channel = cell.channel();
    let (mut sender, mut receiver) = channel.open();
    let capabilities = cell.capabilities();
    let is_raw = cell.form == Form::Raw;
    send_both(cell, &mut sender, &mut receiver, &[&[7]]);
    // After the first message: a connection's first piece introduces its sender and takes more.
    let limit = sender.facts().message_size;
    let smallest = usize::from(is_raw && !capabilities.raw_empty);
    let mut sizes = vec![0, 1, 2, 15, 16, 17, limit - 1, limit];
    for edge in EDGES {
        sizes.extend((0..=4).flat_map(|blocks| (0..3).map(move |by| edge - 16 * blocks + by - 1)));
    }
    let largest = match (is_raw, capabilities.may_lose) {
        // The limit of a raw packet is the kernel's, and a large message over UDP has many pieces.
        (true, _) | (_, true) => limit.min(65_536 - 100),
        _ => limit,
    };
    sizes.retain(|size| (smallest..=largest).contains(size));
    sizes.sort_unstable();
    sizes.dedup();
    let mut random = cell.random();
    let bodies: Vec<_> = sizes.iter().map(|size| random.bytes(*size)).collect();
    let bodies: Vec<_> = bodies.iter().map(Vec::as_slice).collect();
    send_both(cell, &mut sender, &mut receiver, &bodies);
    if smallest == 1 {
        let error = sender.send(b"").unwrap_err();
        assert_eq!(error.kind(), Kind::NotSupported, "an empty raw message");
    }
    if limit < 1 << 30 {
        refuses_more(cell, &mut sender, limit);
        send_both(cell, &mut sender, &mut receiver, &[b"after it"]);
    }
}

fn refuses_more(cell: &Cell, sender: &mut Sender, limit: usize) {
    let counted = sender.counters();
    let error = sender.send(&vec![1; limit + 1]).unwrap_err();
    let expected = Kind::TooLarge { size: limit as u64 + 1, limit: limit as u64 };
    assert_eq!(error.kind(), expected, "{}", cell.name());
    assert!(!error.hint().is_empty(), "an error that says the way out: {error}");
    assert_eq!(sender.counters(), counted, "what was refused is not counted");
}

/// Sends each body and receives it; what may be lost is sent again.
fn send_both(cell: &Cell, sender: &mut Sender, receiver: &mut Receiver, bodies: &[&[u8]]) {
    std::thread::scope(|scope| {
        let (ask, asked) = std::sync::mpsc::sync_channel::<&[u8]>(0);
        scope.spawn(move || {
            for body in asked {
                assert_eq!(sender.send(body).unwrap(), Level::Queued, "{} bytes", body.len());
            }
        });
        for body in bodies {
            let tries = if cell.capabilities().may_lose { 5 } else { 1 };
            let arrived = (0..tries).any(|_| {
                ask.send(*body).expect("the sender still sends");
                let message = receiver.recv_timeout(PATIENCE / tries);
                let Ok(message) = message else { return false };
                assert!(*message == **body, "{} bytes came, {} sent", message.len(), body.len());
                true
            });
            assert!(arrived, "a message of {} bytes didn't arrive", body.len());
        }
        drop(ask);
    });
}
