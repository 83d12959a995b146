//! A byte stream with a name has one enveloped receiver; opened as shared, several take turns, and
//! each message goes whole to exactly one of them.

use std::sync::Mutex;
use std::time::Duration;

use poste::Kind;

use super::PATIENCE;
use crate::cell::{Cell, Clause, Form};

pub(crate) static CLAUSE: Clause = Clause {
    name: "turns",
    applies: |capabilities, form| {
        form == Form::Enveloped
            && capabilities.named
            && !capabilities.connections
            && !capabilities.raw_boundaries
    },
    run,
    ..Clause::PLAIN
};

const COUNT: usize = 3000;

fn run(cell: &Cell) {
    let channel = cell.channel();
    let shared = channel.options().shared();
    let (mut sender, first) = channel.open_with(shared.clone()).unwrap();
    let further: Vec<_> =
        (0..3).map(|_| channel.receiver_with(&shared).expect("another one that shares")).collect();
    let alone = channel.receiver_with(&channel.options()).unwrap_err();
    assert!(matches!(alone.kind(), Kind::NameInUse { .. }), "one that doesn't share: {alone}");
    let limit = sender.facts().message_size;
    let error = sender.send(&vec![0; limit + 1]).unwrap_err();
    assert!(matches!(error.kind(), Kind::TooLarge { .. }), "a message is one piece: {error}");
    let taken = Mutex::new(vec![0; COUNT]);
    std::thread::scope(|scope| {
        for mut receiver in std::iter::once(first).chain(further) {
            let taken = &taken;
            scope.spawn(move || {
                loop {
                    match receiver.recv_timeout(Duration::from_secs(1)) {
                        Ok(message) => {
                            let index = usize::from(message[0]) << 8 | usize::from(message[1]);
                            assert_eq!(message.len(), size(index, limit));
                            assert!(message[2..].iter().all(|byte| *byte == index as u8));
                            taken.lock().unwrap()[index] += 1;
                        }
                        Err(error) if error.kind() == Kind::TimedOut => return,
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        for index in 0..COUNT {
            let mut body = vec![index as u8; size(index, limit)];
            body[..2].copy_from_slice(&[(index >> 8) as u8, index as u8]);
            sender.send_timeout(&body, PATIENCE).unwrap();
        }
    });
    let taken = taken.into_inner().unwrap();
    assert!(taken.iter().all(|count| *count == 1), "not taken once: {taken:?}");
}

fn size(index: usize, limit: usize) -> usize {
    2 + index * 37 % (limit - 1)
}
