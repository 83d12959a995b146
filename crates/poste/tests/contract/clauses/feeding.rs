//! What is fed is held, keeps its place before what is sent later, and arrives when it is flushed,
//! when the sender closes, or when enough of it is there.

use poste::{Kind, Level, Outgoing};

use super::PATIENCE;
use crate::cell::{Cell, Clause, Form};
use crate::letters::{Checker, Letters};

pub(crate) static CLAUSE: Clause = Clause {
    name: "feeding",
    applies: |capabilities, form| form == Form::Enveloped || capabilities.raw_boundaries,
    run,
    ..Clause::PLAIN
};

fn run(cell: &Cell) {
    let channel = cell.channel();
    let (mut sender, mut receiver) = channel.open();
    let may_lose = cell.capabilities().may_lose;
    // Held, and not there.
    assert_eq!(sender.flush().unwrap(), Level::Queued, "nothing is held yet");
    for text in ["one", "two"] {
        assert_eq!(sender.feed(text).unwrap(), Level::Held);
    }
    assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty, "held, not sent");
    assert_eq!(sender.flush().unwrap(), Level::Queued);
    for text in ["one", "two"] {
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap().text().unwrap(), text);
    }
    // A send finishes what was fed before it.
    assert_eq!(sender.feed("three").unwrap(), Level::Held);
    assert_eq!(sender.send("four").unwrap(), Level::Queued);
    for text in ["three", "four"] {
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap().text().unwrap(), text);
    }
    // An empty one is a message like another, also beside its like.
    if cell.form == Form::Enveloped || cell.capabilities().raw_empty {
        let texts = ["", "five", "", "", "six", ""];
        for text in texts {
            assert_eq!(sender.feed(text).unwrap(), Level::Held);
        }
        assert_eq!(sender.flush().unwrap(), Level::Queued);
        for text in texts {
            assert_eq!(receiver.recv_timeout(PATIENCE).unwrap().text().unwrap(), text);
        }
    }
    // What is refused is not fed.
    let limit = sender.facts().message_size;
    if limit < 1 << 30 {
        let error = sender.feed(&vec![0; limit + 1]).unwrap_err();
        assert!(matches!(error.kind(), Kind::TooLarge { .. }), "{error}");
    }
    let error = sender.feed(Outgoing::from("x").priority(u16::MAX)).unwrap_err();
    assert!(matches!(error.kind(), Kind::Limit { .. }), "{error}");
    assert_eq!(sender.flush().unwrap(), Level::Queued);
    assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
    // Much more than is taken in at once, mixed with sends, and the rest by closing.
    let letters =
        Letters { seed: cell.random().next(), size_max: sender.facts().message_size.min(9000) };
    let count = if may_lose { 8 } else { 500 };
    let first = receiver.counters().messages;
    let mut random = cell.random();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for index in 0..count {
                let letter = letters.letter(0, index);
                if random.below(10) == 0 {
                    sender.send(&letter).unwrap();
                } else {
                    assert_eq!(sender.feed(&letter).unwrap(), Level::Held);
                }
            }
            sender.close().unwrap();
        });
        let mut checker = Checker::new(letters, 1, false);
        for _ in 0..count {
            let message = receiver.recv_timeout(PATIENCE).unwrap();
            let sequence = message.sequence().saturating_sub(first);
            checker.check(&message, sequence);
        }
    });
}
