//! A large message whose time is over in its middle is held: the next call finishes it, it arrives
//! whole, and nothing comes between its parts.

use std::time::Duration;

use poste::{Kind, Level, Peers};

use super::PATIENCE;
use crate::cell::{Cell, Clause, Form};

pub(crate) static CLAUSE: Clause = Clause {
    name: "held",
    applies: |capabilities, form| {
        capabilities.pieces && !capabilities.may_lose && form == Form::Enveloped
    },
    run,
    ..Clause::PLAIN
};

fn run(cell: &Cell) {
    let channel = cell.channel();
    let (mut sender, mut receiver) = channel.open();
    let mut random = cell.random();
    let bodies: Vec<_> = (0..3).map(|_| random.bytes(6 << 20)).collect();
    for finish in ["send", "flush", "close"] {
        let level = sender.send_timeout(&bodies[0], Duration::from_millis(30)).unwrap();
        assert_eq!(level, Level::Held, "6 MiB fit nowhere");
        // While it is held nothing else is begun, and the held one is begun once only.
        assert_eq!(sender.try_send("too early").unwrap_err().kind(), Kind::Full);
        let error = sender.send_timeout("too early", Duration::from_millis(5)).unwrap_err();
        assert_eq!(error.kind(), Kind::TimedOut);
        assert_eq!(sender.try_flush().unwrap(), Level::Held);
        // Fed behind it.
        assert_eq!(
            sender.feed_wait("after", poste::Wait::Not).map_err(|e| e.kind()),
            Err(Kind::Full)
        );
        std::thread::scope(|scope| {
            let reading = scope.spawn(|| {
                let first = receiver.recv_timeout(PATIENCE).unwrap();
                assert!(*first == *bodies[0], "the held one is torn: {} bytes", first.len());
                if finish == "send" {
                    let second = receiver.recv_timeout(PATIENCE).unwrap();
                    assert!(*second == *bodies[1], "the second is torn: {} bytes", second.len());
                }
            });
            match finish {
                "send" => assert_eq!(sender.send(&bodies[1]).unwrap(), Level::Queued),
                "flush" => assert_eq!(sender.flush().unwrap(), Level::Queued),
                _ => {
                    // Closing finishes what is held; a new one goes on in another connection.
                    let next = cell.capabilities().many_senders.then(|| channel.another(&sender));
                    let Some(next) = next else {
                        sender.flush().unwrap();
                        reading.join().unwrap();
                        return;
                    };
                    std::mem::replace(&mut sender, next).close().unwrap();
                }
            }
            reading.join().unwrap();
        });
    }
    sender.send("small").unwrap();
    assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], b"small");
    assert_eq!(receiver.counters().unfinished, 0);
    // Given up in the middle: the receiver sees nothing of it.
    let is_noticed = receiver.facts().peers != Peers::Unknown;
    if channel.has_address() && cell.capabilities().many_senders {
        assert_eq!(
            sender.send_timeout(&bodies[2], Duration::from_millis(30)).unwrap(),
            Level::Held
        );
        drop(sender);
        let mut next = channel.sender();
        std::thread::scope(|scope| {
            scope.spawn(move || next.send("the next").unwrap());
            assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], b"the next");
        });
        assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
        let unfinished = u64::from(is_noticed);
        assert_eq!(receiver.counters().unfinished, unfinished, "it is counted as given up");
    }
}
