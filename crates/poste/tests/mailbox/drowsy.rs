//! A receiver that has long found something tells senders not to look whether it sleeps; then it
//! does. What is sent in that moment must wake it: membarrier(2) sees to that, which no model has.

use std::time::{Duration, Instant};

use poste::{Options, Receiver, Sender, Spin};

use crate::peer::{Name, Peer, say};

/// So many messages make a receiver awake (limits.rs), and a few more.
const AWAKE: usize = 300;

/// Both sides on one bed of nails: each burst makes the receiver awake, and ends with a message that
/// comes about when it falls asleep.
#[test]
fn a_message_that_comes_when_its_receiver_gets_drowsy_wakes_it() {
    let bursts = if std::env::var_os("POSTE_LONG").is_some() { 200_000 } else { 5_000 };
    let (there, back) = (Name::new("drowsy-there"), Name::new("drowsy-back"));
    let never = Options::new().create().spin(Spin::Never);
    let mut receiver = Receiver::open_with(&there.0, &never).unwrap();
    let mut answers = Sender::create(&back.0).unwrap();
    let mut peer = Peer::start("bursts", &[&there.0, &back.0]);
    peer.expect("ready");
    for burst in 0..bursts {
        answers.send("go").unwrap();
        // What is there by now is taken without sleeping.
        let start = Instant::now();
        while start.elapsed() < Duration::from_micros(30) {
            std::hint::spin_loop();
        }
        let mut is_last = false;
        while !is_last {
            let before = Instant::now();
            is_last = &receiver.recv_timeout(Duration::from_secs(4)).unwrap()[..] == b"last";
            let waited = before.elapsed();
            assert!(waited < Duration::from_secs(2), "burst {burst}: not woken for {waited:?}");
        }
    }
}

/// The peer: a burst, a moment of another length each time, and one more message.
pub(crate) fn bursts(there: &str, back: &str) {
    let mut answers = Receiver::create(back).unwrap();
    let mut sender = Sender::create(there).unwrap();
    say("ready");
    for burst in 0_u64.. {
        if answers.recv_timeout(Duration::from_secs(60)).is_err() {
            return;
        }
        for _ in 0..AWAKE {
            sender.send("one of many").unwrap();
        }
        for _ in 0..burst * 7919 % 4000 {
            std::hint::spin_loop();
        }
        sender.send("last").unwrap();
    }
}
