//! Who waits is woken by a message, and in every form of waiting.

use std::time::{Duration, Instant};

use poste::Wait;

use crate::cell::{Cell, Clause};

pub(crate) static CLAUSE: Clause =
    Clause { name: "waking", applies: |_, _| true, alone: true, run, ..Clause::PLAIN };

/// How often a wake-up may be late in a row, less one.
const TRIES: usize = 4;

fn run(cell: &Cell) {
    let channel = cell.channel();
    let (mut sender, mut receiver) = channel.open();
    let long = Duration::from_secs(20);
    let late = Duration::from_millis(150) + cell.capabilities().delay;
    // Where a wait is made of pauses that grow, they have grown by then.
    let before = if cell.capabilities().delay.is_zero() { 40 } else { 450 };
    for wait in [
        Wait::Forever,
        Wait::For(long),
        Wait::For(Duration::MAX),
        Wait::Until(Instant::now() + long),
    ] {
        let mut wake = || {
            std::thread::scope(|scope| {
                let sender = &mut sender;
                let sending = scope.spawn(move || {
                    std::thread::sleep(Duration::from_millis(before));
                    let start = Instant::now();
                    sender.send("wake up").unwrap();
                    start
                });
                assert_eq!(&receiver.recv_wait(wait).unwrap()[..], b"wake up");
                sending.join().unwrap().elapsed()
            })
        };
        // Once it may be the machine that is late; who sleeps too long does so each time.
        let took: Vec<_> = (0..TRIES).map(|_| wake()).take_while(|took| *took >= late).collect();
        assert!(took.len() < TRIES, "{wait:?}: woken {took:?} after the message was sent");
    }
}
