//! A message larger than its receiver takes is an error there, which names both sizes, and nothing
//! else is lost by it: the next one arrives.

use poste::{Kind, Options, Receiver, Sender};

use super::PATIENCE;
use crate::cell::{Cell, Clause, Form};
use crate::fixture::Channel;

pub(crate) static CLAUSE: Clause = Clause {
    name: "outsized",
    applies: |capabilities, form| {
        capabilities.pieces && capabilities.named && form == Form::Enveloped
    },
    run,
    ..Clause::PLAIN
};

const LIMIT: usize = 100_000;

fn run(cell: &Cell) {
    let channel = cell.channel();
    let (mut sender, mut receiver) = open(&channel);
    for round in 0..3 {
        std::thread::scope(|scope| {
            let sender = &mut sender;
            scope.spawn(move || {
                sender.send(&vec![1; LIMIT]).unwrap();
                sender.send(&vec![2; LIMIT + 1]).unwrap();
                sender.send("small").unwrap();
            });
            assert_eq!(receiver.recv_timeout(PATIENCE).unwrap().len(), LIMIT);
            let error = receiver.recv_timeout(PATIENCE).unwrap_err();
            let expected = Kind::TooLarge { size: LIMIT as u64 + 1, limit: LIMIT as u64 };
            assert_eq!(error.kind(), expected, "round {round}");
            assert_eq!(receiver.recv_timeout(PATIENCE).unwrap().text().unwrap(), "small");
        });
    }
}

fn open(channel: &Channel) -> (Sender, Receiver) {
    let receiver = channel.receiver_with(&Options::new().message_size(LIMIT)).unwrap();
    (channel.sender(), receiver)
}
