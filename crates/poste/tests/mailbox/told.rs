//! Who waits, spins or is polled while the table of participants changes, or this process has nothing
//! left to follow it with: it keeps what it has, and hears of what there is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use poste::{Kind, Receiver, Sender};

use crate::peer::Name;

const PATIENCE: Duration = Duration::from_secs(20);

/// A message that is lent lies in its lane; the lanes before that one come and go.
#[test]
fn a_polled_receiver_keeps_its_message_while_senders_come_and_go() {
    const COUNT: u32 = 20_000;
    let name = Name::new("come-and-go");
    let lower = Sender::create(&name).unwrap();
    let mut receiver = Receiver::open(&name).unwrap();
    let mut sender = Sender::open(&name).unwrap();
    drop(lower);
    receiver.pollable().unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                drop(Sender::open(&name).unwrap());
            }
        });
        scope.spawn(|| {
            for number in 0..COUNT {
                let body = vec![number as u8; if number % 2 == 0 { 5000 } else { 50 }];
                sender.send_timeout(&body, PATIENCE).unwrap();
            }
        });
        let wrong = (0..COUNT).find(|number| {
            let message = receiver.recv_timeout(PATIENCE).unwrap();
            let size = if number % 2 == 0 { 5000 } else { 50 };
            message.len() != size || message.iter().any(|byte| *byte != *number as u8)
        });
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(wrong, None);
    });
    assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
    drop((sender, receiver));
    assert_eq!(name.files(), ["header"], "each message was ended in its own lane");
}
