//! The messages of one sender arrive in the order in which they were sent, whole, each once, with
//! their places told.

use super::PATIENCE;
use crate::cell::{Cell, Clause, Form};
use crate::letters::{Checker, Letters};

pub(crate) static CLAUSE: Clause = Clause {
    name: "order",
    applies: |capabilities, form| {
        !capabilities.may_lose && (form == Form::Enveloped || capabilities.raw_boundaries)
    },
    run,
    ..Clause::PLAIN
};

fn run(cell: &Cell) {
    let channel = cell.channel();
    let (mut sender, mut receiver) = channel.open();
    let size_max = sender.facts().message_size.min(150_000);
    let letters = Letters { seed: cell.random().next(), size_max };
    let count = 600;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for index in 0..count {
                sender.send(&letters.letter(0, index)).unwrap();
            }
            sender.close().unwrap();
        });
        let mut checker = Checker::new(letters, 1, false);
        for _ in 0..count {
            let message = receiver.recv_timeout(PATIENCE).unwrap();
            checker.check(&message, message.sequence());
        }
    });
    assert!(receiver.try_recv().is_err(), "a message too many");
    assert_eq!(receiver.counters().messages, u64::from(count));
}
