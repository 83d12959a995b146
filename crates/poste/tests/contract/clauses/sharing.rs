//! Several receivers share one channel: each message goes to exactly one of them.

use std::sync::Mutex;
use std::time::Duration;

use poste::Kind;

use crate::cell::{Cell, Clause, Form};

pub(crate) static CLAUSE: Clause = Clause {
    name: "sharing",
    applies: |capabilities, form| {
        capabilities.many_receivers && (form == Form::Enveloped || capabilities.raw_boundaries)
    },
    run,
    ..Clause::PLAIN
};

const COUNT: usize = 2000;

fn run(cell: &Cell) {
    let channel = cell.channel();
    let (mut sender, receiver) = channel.open();
    let second = receiver.try_clone().expect("it says that it has many receivers");
    let third = channel.receiver();
    let taken = Mutex::new(vec![0; COUNT]);
    std::thread::scope(|scope| {
        for mut receiver in [receiver, second, third] {
            let taken = &taken;
            scope.spawn(move || {
                let mut last = None;
                loop {
                    match receiver.recv_timeout(Duration::from_secs(1)) {
                        Ok(message) => {
                            let index: usize = message.text().unwrap().parse().unwrap();
                            assert!(last < Some(index), "{index} after {last:?}");
                            last = Some(index);
                            taken.lock().unwrap()[index] += 1;
                        }
                        Err(error) if error.kind() == Kind::TimedOut => return,
                        Err(error) if error.kind() == Kind::Disconnected => return,
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
        for index in 0..COUNT {
            sender.send(&index.to_string()).unwrap();
        }
    });
    let taken = taken.into_inner().unwrap();
    let wrong: Vec<_> = taken.iter().enumerate().filter(|(_, count)| **count != 1).collect();
    assert!(wrong.is_empty(), "not taken once: {wrong:?}");
}
