//! Who waits, spins or is polled while the table of participants changes, or this process has nothing
//! left to follow it with: it keeps what it has, and hears of what there is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use poste::mechanism::shared_memory::inspect::inspect;
use poste::{Address, Kind, Options, Receiver, Sender, Spin, Wait};
use rustix::event::PollFlags;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::hostile::in_time;
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
fn who_spins_for_ever_is_told_that_the_mailbox_is_removed() {
    let name = Name::new("spins");
    let always = || Options::new().create().capacity(1).spin(Spin::Always);
    let mut sender = Sender::open_with(&name.0, &always()).unwrap();
    sender.send("full").unwrap();
    let other = Name::new("spins");
    let mut receiver = Receiver::open_with(&other.0, &always()).unwrap();
    in_time(move || {
        let threads = [
            std::thread::spawn(move || sender.send("more").unwrap_err().kind().clone()),
            std::thread::spawn(move || receiver.recv().unwrap_err().kind().clone()),
        ];
        std::thread::sleep(Duration::from_millis(50));
        poste::remove(&name).unwrap();
        poste::remove(&other).unwrap();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), Kind::Removed);
        }
    });
}

/// Its process lives, so no watcher hears of it.
#[test]
fn who_spins_for_ever_finds_what_a_lost_handle_had() {
    let name = Name::new("spins-exec");
    let mut peer = Peer::start("exec", &[&name.0]);
    peer.expect("ready");
    let mut receiver = Receiver::open_with(&name.0, &Options::new().spin(Spin::Always)).unwrap();
    peer.tell("go");
    let message = receiver.recv_timeout(PATIENCE).unwrap();
    assert_eq!((message.text().unwrap(), message.redelivered()), ("precious", true));
}

/// Two messages that were published together wake one receiver; where its time is over just then, it
/// takes one, and the other is for the next.
#[test]
fn who_is_chosen_when_its_time_is_over_passes_on_what_it_leaves() {
    // Less than one round in 100,000 meets the moment.
    let rounds = if std::env::var_os("POSTE_LONG").is_some() { 1_000_000 } else { 3000 };
    let name = Name::new("passes-on");
    let never = Options::new().create().spin(Spin::Never);
    let mut hasty = Receiver::open_with(&name.0, &never).unwrap();
    let mut sleeper = Receiver::open_with(&name.0, &never).unwrap();
    let mut sender = Sender::open(&name).unwrap();
    let address = Address::parse(&name.0).unwrap();
    let (go, begins) = mpsc::channel();
    let (done, ends) = mpsc::channel();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (told, is_over) = (done.clone(), &is_over);
        let hasty = scope.spawn(move || {
            for () in begins {
                while !is_over.load(Ordering::Relaxed) {
                    if hasty.recv_timeout(Duration::ZERO).is_ok() {
                        told.send("hasty").unwrap();
                        break;
                    }
                }
            }
        });
        scope.spawn(move || {
            // A round of the watcher would find it too, every 5 s.
            while sleeper.recv_timeout(PATIENCE).is_ok_and(|message| &message[..] != b"end") {
                done.send("sleeper").unwrap();
            }
        });
        let mut is_forgotten = false;
        for _ in 0..rounds {
            go.send(()).unwrap();
            sender.feed("one").unwrap();
            sender.feed("two").unwrap();
            sender.flush().unwrap();
            let first = ends.recv_timeout(PATIENCE).unwrap();
            let patience = if first == "hasty" { SOON } else { PATIENCE };
            if ends.recv_timeout(patience).is_ok() {
                continue;
            }
            // The hasty one is through, and the other late: it is about to run, or was forgotten.
            let seen = inspect(&address).unwrap();
            let is_asleep = seen.receivers.iter().any(|one| one.waits);
            is_forgotten = is_asleep && seen.lanes[0].ready == 1;
            ends.recv_timeout(PATIENCE).unwrap();
            if is_forgotten {
                break;
            }
        }
        is_over.store(true, Ordering::Relaxed);
        drop(go);
        hasty.join().unwrap();
        sender.send("end").unwrap();
        assert!(!is_forgotten, "a message lay beside a sleeper");
    });
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

/// Leaves this process no descriptor, until the value is dropped.
fn use_up_descriptors() -> Vec<std::fs::File> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(64);
    setrlimit(Resource::Nofile, limit).unwrap();
    let open = || std::fs::File::open("/dev/null").ok();
    std::iter::from_fn(open).collect()
}

/// The peer of the test above.
pub(crate) fn no_descriptors(address: &str) {
    let mut receiver = Receiver::open(address).unwrap();
    assert_eq!(receiver.recv_timeout(SOON).unwrap_err().kind(), Kind::TimedOut);
    let files = use_up_descriptors();
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

/// A bell is opened when it is first rung; a sender that can't, rings it with a later message.
#[test]
fn a_bell_that_could_not_be_opened_is_rung_later() {
    let name = Name::new("no-bell");
    let mut receiver = Receiver::create(&name).unwrap();
    let ready = |receiver: &mut Receiver, time| {
        let wait = Wait::For(time);
        wait.until_ready(receiver.pollable().unwrap(), PollFlags::IN).unwrap()
    };
    let mut peer = Peer::start("no-bell", &[&name.0]);
    peer.expect("poor");
    assert!(!ready(&mut receiver, Duration::ZERO));
    peer.tell("go on");
    peer.expect("sent in silence");
    assert!(!ready(&mut receiver, SOON), "the sender had descriptors left: nothing was tried");
    peer.tell("go on");
    peer.expect("sent");
    assert!(ready(&mut receiver, PATIENCE));
    assert_eq!(receiver.try_recv().unwrap().text().unwrap(), "in silence");
    assert_eq!(receiver.try_recv().unwrap().text().unwrap(), "aloud");
}

/// The peer of the test above.
pub(crate) fn no_bell(address: &str) {
    let mut sender = Sender::open(address).unwrap();
    let files = use_up_descriptors();
    say("poor");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    sender.send("in silence").unwrap();
    drop(files);
    say("sent in silence");
    std::io::stdin().read_line(&mut line).unwrap();
    sender.send("aloud").unwrap();
    say("sent");
    std::thread::sleep(PATIENCE);
}
