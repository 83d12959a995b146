//! Sealed memory at a socket's address, as options ask for it.

use std::time::{Duration, Instant};

use poste::{Capabilities, Kind, Level, Options, Outgoing, Receiver, Sender, Wait, WaitSet};
use poste_sys::testing::skip;

use crate::peer::{Peer, say};

const PATIENCE: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_millis(30);

/// A socket's address that is nobody else's; `scheme` is unix or seqpacket.
fn address(scheme: &str, what: &str) -> String {
    let place = std::env::temp_dir().display().to_string();
    format!("{scheme}:{place}/poste-sealed-at-{what}-{}?sealed", std::process::id())
}

fn peers(receiver: &Receiver) -> String {
    format!("{:?}", receiver.facts().peers)
}

#[test]
fn many_senders_send_to_one_receiver_that_listens() {
    for scheme in ["unix", "seqpacket"] {
        let address = address(scheme, "many");
        let mut receiver = Receiver::open(&address).unwrap();
        assert_eq!(receiver.address().to_string(), address.trim_end_matches("?sealed"));
        let sending: Vec<_> = (0..4_u32)
            .map(|who| {
                let address = address.clone();
                std::thread::spawn(move || {
                    let mut sender = Sender::open(&address).unwrap();
                    for number in 0..3000_u32 {
                        let body = [who.to_le_bytes(), number.to_le_bytes()].concat();
                        assert_eq!(sender.send(&body).unwrap(), Level::Queued);
                    }
                })
            })
            .collect();
        let mut next = [0; 4];
        for _ in 0..4 * 3000 {
            let message = receiver.recv_timeout(PATIENCE).unwrap();
            let word = |at: usize| u32::from_le_bytes(message[at..at + 4].try_into().unwrap());
            assert_eq!(word(4), next[word(0) as usize], "in order");
            assert_eq!(message.sequence(), u64::from(word(4)) + 1);
            assert_eq!(message.sender().pid(), Some(std::process::id()));
            next[word(0) as usize] += 1;
        }
        sending.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(receiver.recv_timeout(SOON).unwrap_err().kind(), Kind::TimedOut);
        assert_eq!((peers(&receiver), receiver.counters().connections), ("AllGone".into(), 4));
        // It waits for the next.
        let mut sender = Sender::open(&address).unwrap();
        let late = std::thread::spawn(move || sender.send("late"));
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap().text().unwrap(), "late");
        late.join().unwrap().unwrap();
    }
}

#[test]
fn each_form_of_waiting_ends_when_it_is_over() {
    let address = address("unix", "waits");
    let mut receiver = Receiver::open(&address).unwrap();
    assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
    assert_eq!(receiver.recv_timeout(SOON).unwrap_err().kind(), Kind::TimedOut);
    // A sender opens though nobody receives; its memory comes when somebody does.
    let mut sender = Sender::open(&address).unwrap();
    assert_eq!(sender.try_send("x").unwrap_err().kind(), Kind::Full);
    assert_eq!(sender.send_timeout("x", SOON).unwrap_err().kind(), Kind::TimedOut);
    let end = Instant::now() + SOON;
    assert_eq!(sender.send_deadline("x", end).unwrap_err().kind(), Kind::TimedOut);
    assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
    assert_eq!(sender.try_send("x").unwrap(), Level::Queued);
    assert_eq!(receiver.try_recv().unwrap().text().unwrap(), "x");
    // Full is full, also here.
    let mut count = 0;
    let full = loop {
        match sender.try_send(&[7; 60_000]) {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((full.kind(), count), (Kind::Full, 4));
    let limit = 64 << 10;
    let error = sender.try_send(&[0; (64 << 10) + 1]).unwrap_err();
    assert_eq!(error.kind(), Kind::TooLarge { size: limit + 1, limit });
    for _ in 0..count {
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap().len(), 60_000);
    }
    let mut other = Sender::open(&address).unwrap();
    assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
    for priority in [0, 31, 5] {
        sender.feed(Outgoing::from("x").priority(priority)).unwrap();
    }
    sender.flush().unwrap();
    assert_eq!(receiver.recv().unwrap().priority(), 31);
    other.try_send(Outgoing::from("y").priority(9)).unwrap();
    for priority in [9, 5, 0] {
        assert_eq!(receiver.recv().unwrap().priority(), priority);
    }
    drop(receiver);
    // It is told by the connection, when it rings or looks there.
    let error = std::iter::repeat_with(|| sender.send("nobody")).find_map(Result::err);
    assert_eq!(error.unwrap().kind(), Kind::Disconnected);
    assert_eq!(Sender::open(&address).unwrap_err().kind(), Kind::NoReceiver);
}

#[test]
fn it_can_be_polled_with_others() {
    let address = address("unix", "polled");
    let mut receiver = Receiver::open(&address).unwrap();
    let mut sender = Sender::open(&address).unwrap();
    let is_ready = |set: &WaitSet| set.wait(&mut Vec::new(), Wait::For(SOON)).is_ok();
    let (reading, writing) = (WaitSet::new().unwrap(), WaitSet::new().unwrap());
    reading.add(1, &mut receiver).unwrap();
    writing.add(2, &mut sender).unwrap();
    assert!(is_ready(&reading), "somebody came");
    assert!(!is_ready(&writing), "there is no memory yet");
    assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
    assert!(is_ready(&writing), "there is");
    while sender.try_send(&[1; 50_000]).is_ok() {}
    assert!(!is_ready(&writing), "it is full");
    for _ in 0..3 {
        assert!(is_ready(&reading));
        receiver.try_recv().unwrap();
    }
    assert!(is_ready(&writing), "there is room again");
    while receiver.try_recv().is_ok() {}
    assert!(!is_ready(&reading), "nothing is left");
    sender.send("one more").unwrap();
    assert!(is_ready(&reading));
    assert_eq!(receiver.try_recv().unwrap().text().unwrap(), "one more");
    drop(sender);
    assert!(is_ready(&reading), "it went");
    assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
    assert!(!is_ready(&reading));
}

#[test]
fn what_it_has_no_use_for_is_refused() {
    let sealed = || Options::new().sealed();
    let unix = address("unix", "refused");
    for (options, kind) in [
        (sealed().raw(), Kind::Invalid),
        (sealed().connect(), Kind::Invalid),
        (sealed().check(), Kind::NotSupported),
        (sealed().huge_pages(), Kind::Invalid),
    ] {
        let error = Receiver::open_with(&unix, &options).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(!error.hint().is_empty(), "{error}");
    }
    let error = Sender::open_with(&unix, &sealed().listen()).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid, "{error}");
    for other in ["tcp:127.0.0.1:0", "dgram:@x", "shm:x", "mq:/x", "fifo:./x", "udp:127.0.0.1:0"] {
        let error = Receiver::open_with(other, &sealed()).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
    }
    let mut receiver = Receiver::open(&unix).unwrap();
    let capabilities: &Capabilities = receiver.capabilities();
    assert!(capabilities.many_senders && !capabilities.way_back);
    assert_eq!(receiver.try_clone().unwrap_err().kind(), Kind::NotSupported);
    // A second sender is a clone.
    let sender = Sender::open(&unix).unwrap();
    let mut clone = sender.try_clone().unwrap();
    assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
    clone.try_send("from the clone").unwrap();
    assert_eq!(receiver.recv().unwrap().text().unwrap(), "from the clone");
}

#[test]
fn a_stranger_says_nothing_or_nonsense_and_the_others_notice_nothing() {
    let address = address("unix", "garbage");
    let plain = address.trim_end_matches("?sealed");
    let mut receiver = Receiver::open(&address).unwrap();
    let silent = Sender::open(plain).unwrap();
    let mut wrong = Sender::open(plain).unwrap();
    wrong.send("let me in").unwrap();
    let mut sender = Sender::open(&address).unwrap();
    let good = std::thread::spawn(move || sender.send("good").map(|_| sender));
    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap().text().unwrap(), "good");
    let mut sender = good.join().unwrap().unwrap();
    assert_eq!((receiver.counters().connections, receiver.counters().corrupt), (3, 1));
    // One who is let in and then writes nonsense.
    let mut here = Sender::open(plain).unwrap().into_duplex().unwrap();
    here.send("poste-sealed 1").unwrap();
    assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
    let memory = here.recv_timeout(PATIENCE).unwrap().take_descriptors().pop().unwrap();
    for at in 0..64 {
        rustix::io::pwrite(&memory, &[0xff; 32], 4096 + at * 32).unwrap();
        rustix::io::pwrite(&memory, &(1024_u64 << 32 | 5).to_ne_bytes(), 4096 + at * 32).unwrap();
    }
    here.send("").unwrap();
    sender.send("good still").unwrap();
    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap().text().unwrap(), "good still");
    assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
    assert_eq!(receiver.counters().corrupt, 2);
    assert_eq!(here.recv_timeout(PATIENCE).unwrap_err().kind(), Kind::Disconnected);
    drop(silent);
}

#[test]
fn another_user_is_refused_on_both_sides() {
    let uid = rustix::process::geteuid().as_raw();
    let address = address("unix", "user");
    let other = Options::new().require_user(uid + 1);
    // The sender refuses the receiver,
    let receiver = Receiver::open(&address).unwrap();
    let error = Sender::open_with(&address, &other).unwrap_err();
    assert_eq!(error.kind(), Kind::Permission, "{error}");
    drop(receiver);
    // and the receiver the sender, which is told so.
    let mut receiver = Receiver::open_with(&address, &other).unwrap();
    let mut sender = Sender::open(&address).unwrap();
    assert_eq!(receiver.recv_timeout(SOON).unwrap_err().kind(), Kind::TimedOut);
    let error = sender.send_timeout("x", PATIENCE).unwrap_err();
    assert_eq!(error.kind(), Kind::Disconnected, "{error}");
    assert!(error.hint().contains("user"), "{}", error.hint());
    assert_eq!(receiver.counters().corrupt, 1);
    drop(receiver);
    let name = "sealed_address::another_user_is_refused_on_both_sides";
    if uid != 0 {
        return skip(name, "only root can be somebody else");
    }
    // Whom the socket's mode lets in is refused all the same.
    let open = Options::new().mode(0o666);
    let mut receiver = Receiver::open_with(&address, &open).unwrap();
    let mut stranger = Peer::start_as(65_534, "sealed-at", &[&address, "0"]);
    let mut sender = Sender::open(&address).unwrap();
    let own = std::thread::spawn(move || sender.send("own").map(drop));
    let end = Instant::now() + Duration::from_secs(5);
    while receiver.counters().corrupt == 0 && Instant::now() < end {
        match receiver.recv_timeout(SOON) {
            Ok(message) => assert_eq!(message.text().unwrap(), "own"),
            Err(error) => assert_eq!(error.kind(), Kind::TimedOut),
        }
    }
    own.join().unwrap().unwrap();
    if receiver.counters().corrupt == 0 {
        return skip(name, "no other user can run the tests' program");
    }
    stranger.expect("refused Disconnected");
}

/// A process that sends until it can't: its number, and then one number after the other.
pub(crate) fn send(address: &str, who: &str) {
    let options = Options::new().require_user(0);
    let options = if who == "0" { options } else { Options::new() };
    let mut sender = match Sender::open_with(address, &options) {
        Ok(sender) => sender,
        Err(error) => return say(&format!("refused {:?}", error.kind())),
    };
    for number in 0_u64.. {
        if let Err(error) = sender.send(&format!("{who} {number}")) {
            return say(&format!("refused {:?}", error.kind()));
        }
        if number == 0 {
            say("sends");
        }
    }
}

/// A process that receives, and says each hundredth.
pub(crate) fn receive(address: &str) {
    let mut receiver = Receiver::open(address).unwrap();
    say("listens");
    for number in 1.. {
        receiver.recv().unwrap();
        if number % 100 == 0 {
            say("hundred");
        }
    }
}

#[test]
fn a_killed_sender_takes_nothing_with_it_and_the_others_go_on() {
    let address = address("unix", "kill");
    let mut receiver = Receiver::open(&address).unwrap();
    let mut steady = Peer::start("sealed-at", &[&address, "1"]);
    let mut next = std::collections::HashMap::new();
    for round in 2..12 {
        let name = round.to_string();
        let mut victim = Peer::start("sealed-at", &[&address, &name]);
        let (mut of_victim, mut of_steady) = (0, 0);
        let end = Instant::now() + PATIENCE;
        let mut is_dead = false;
        // Until both have sent after the last kill, and this one is dead and its messages are read.
        while of_victim < 50 * round || of_steady < 100 || !is_dead {
            assert!(Instant::now() < end, "{of_victim} {of_steady}");
            let message = receiver.recv_timeout(PATIENCE).unwrap();
            let (who, number) = message.text().unwrap().split_once(' ').unwrap();
            let number: u64 = number.parse().unwrap();
            let expected = next.entry(who.to_owned()).or_insert(0);
            assert_eq!(number, *expected, "none is lost or doubled");
            *expected += 1;
            of_victim += usize::from(who == name);
            of_steady += usize::from(who == "1");
            if of_victim >= 50 * round && !is_dead {
                victim.kill();
                is_dead = true;
                of_steady = 0;
            }
        }
    }
    steady.kill();
    while receiver.recv_timeout(SOON).is_ok() {}
    assert_eq!(peers(&receiver), "AllGone");
}

#[test]
fn a_killed_receiver_is_news_for_its_senders() {
    let address = address("unix", "kill-receiver");
    for _ in 0..5 {
        let mut receiver = Peer::start("sealed-from", &[&address]);
        receiver.expect("listens");
        let mut sender = Peer::start("sealed-at", &[&address, "1"]);
        sender.expect("sends");
        receiver.expect("hundred");
        receiver.kill();
        sender.expect("refused Disconnected");
    }
    // The next one takes the name of the dead over.
    drop(Receiver::open(&address).unwrap());
}
