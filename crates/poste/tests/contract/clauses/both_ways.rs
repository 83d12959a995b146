//! Ends that are made in pairs carry messages both ways at once, and either way ends by itself.

use poste::{Duplex, Kind};

use super::PATIENCE;
use crate::cell::{Cell, Clause, Form};
use crate::letters::{Checker, Letters};

pub(crate) static CLAUSE: Clause = Clause {
    name: "both_ways",
    applies: |capabilities, form| form == Form::Enveloped && !capabilities.named,
    run,
    ..Clause::PLAIN
};

fn run(cell: &Cell) {
    let made = if cell.capabilities().way_back { poste::pair() } else { poste::pipes() };
    let (one, two) = made.unwrap();
    let letters = Letters { seed: cell.random().next(), size_max: 40_000 };
    std::thread::scope(|scope| {
        scope.spawn(move || talk(one, letters));
        scope.spawn(move || talk(two, letters));
    });
    let made = if cell.capabilities().way_back { poste::pair() } else { poste::pipes() };
    let (one, mut two) = made.unwrap();
    let (mut sender, mut receiver) = one.split();
    sender.send("last").unwrap();
    drop(sender);
    assert_eq!(two.recv_timeout(PATIENCE).unwrap().text().unwrap(), "last");
    assert_eq!(two.recv_timeout(PATIENCE).unwrap_err().kind(), Kind::Disconnected);
    // The other way is still open.
    two.send("answer").unwrap();
    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap().text().unwrap(), "answer");
    drop(two);
    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap_err().kind(), Kind::Disconnected);
}

/// Sends and receives in turns.
fn talk(mut side: Duplex, letters: Letters) {
    let mut checker = Checker::new(letters, 1, false);
    for index in 0..200 {
        side.send(&letters.letter(0, index)).unwrap();
        let message = side.recv_timeout(PATIENCE).unwrap();
        checker.check(&message, message.sequence());
    }
}
