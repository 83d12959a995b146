//! Who waits, spins or is polled while the table of participants changes, or this process has nothing
//! left to follow it with: it keeps what it has, and hears of what there is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use poste::{Kind, Receiver, Sender};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::peer::{Name, Peer, say};

const PATIENCE: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_millis(200);

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

#[test]
fn who_has_no_descriptor_left_says_so_and_loses_nothing() {
    let name = Name::new("no-descriptors");
    let mut sender = Sender::create(&name).unwrap();
    let mut hoard = Peer::start("hoard", &[&name.0]);
    hoard.expect("ready");
    sender.send("precious").unwrap();
    hoard.expect("precious");
    let mut poor = Peer::start("no-descriptors", &[&name.0]);
    poor.expect("poor");
    // It is the only one that could see to the dead.
    hoard.kill();
    let mut other = Sender::open(&name).unwrap();
    other.send("from another lane").unwrap();
    poor.tell("look");
    poor.expect("looked");
}

/// The peer of the test above.
pub(crate) fn no_descriptors(address: &str) {
    let mut receiver = Receiver::open(address).unwrap();
    assert_eq!(receiver.recv_timeout(SOON).unwrap_err().kind(), Kind::TimedOut);
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(64);
    setrlimit(Resource::Nofile, limit).unwrap();
    let mut files = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        files.push(file);
    }
    say("poor");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let error = receiver.recv_timeout(SOON).unwrap_err();
    assert!(matches!(error.kind(), Kind::Limit { .. }), "{error}");
    assert!(error.hint().contains("ulimit"), "{error}");
    drop(files);
    let mut all = Vec::new();
    while all.len() < 2 {
        let message = receiver.recv_timeout(PATIENCE).unwrap();
        all.push((message.text().unwrap().to_owned(), message.redelivered()));
    }
    all.sort();
    assert_eq!(all, [("from another lane".to_owned(), false), ("precious".to_owned(), true)]);
    say("looked");
}
