//! Sending, receiving, priorities, sizes, loans, ends of messages, and what happens when a process
//! is killed.

use std::time::{Duration, Instant};

use poste::mechanism::shared_memory::inspect::{Inspection, inspect};
use poste::{Address, Kind, Options, Outgoing, Receiver, Sender};

use crate::peer::{Name, Peer};

const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn a_message_goes_through_a_mailbox() {
    let name = Name::new("one");
    let mut receiver = Receiver::create(&name).unwrap();
    let mut sender = Sender::open(&name).unwrap();
    for round in 0..5000_u32 {
        sender.send(&round.to_le_bytes()).unwrap();
        let message = receiver.recv_timeout(PATIENCE).unwrap();
        assert_eq!(&message[..], round.to_le_bytes());
        assert_eq!(message.sequence(), u64::from(round) + 1);
    }
    assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
}

#[test]
fn what_lies_there_outlives_its_senders() {
    let name = Name::new("outlives");
    poste::create(&name, &Options::new()).unwrap();
    assert!(matches!(
        poste::create(&name, &Options::new()).unwrap_err().kind(),
        Kind::NameInUse { .. }
    ));
    for body in ["one", "two", "three"] {
        Sender::open(&name).unwrap().send(body).unwrap();
    }
    let mut receiver = Receiver::open(&name).unwrap();
    for body in ["one", "two", "three"] {
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap().text().unwrap(), body);
    }
    assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
}

#[test]
fn the_most_urgent_comes_first_over_all_senders() {
    let name = Name::new("urgent");
    let mut receiver = Receiver::create(&name).unwrap();
    let mut senders: Vec<_> = (0..3).map(|_| Sender::open(&name).unwrap()).collect();
    for priority in [0, 5, 31, 5, 0, 17, 1] {
        for sender in &mut senders {
            let body = priority.to_string();
            sender.send(Outgoing::from(&body).priority(priority)).unwrap();
        }
    }
    let mut last = 31;
    for _ in 0..21 {
        let message = receiver.recv_timeout(PATIENCE).unwrap();
        assert!(message.priority() <= last);
        assert_eq!(message.text().unwrap(), message.priority().to_string());
        last = message.priority();
    }
    assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
}

#[test]
fn bodies_of_every_size_arrive_whole() {
    let name = Name::new("sizes");
    let mut receiver = Receiver::create(&name).unwrap();
    let mut sender = Sender::open(&name).unwrap();
    for size in [0, 1, 63, 64, 65, 4095, 4096, 4097, 70_000, 300_000, 1 << 20, 16 << 20] {
        let body: Vec<u8> = (0..size).map(|at| (at * 7 + size) as u8).collect();
        sender.send(&body).unwrap();
        assert!(receiver.recv_timeout(PATIENCE).unwrap()[..] == body[..], "{size}");
    }
    let body = vec![0; (16 << 20) + 1];
    let kind = sender.send(&body).unwrap_err().kind();
    assert_eq!(kind, Kind::TooLarge { size: (16 << 20) + 1, limit: 16 << 20 });
}

#[test]
fn a_full_lane_says_so_and_goes_on_when_there_is_room() {
    let name = Name::new("full");
    let mut receiver = Receiver::create(name.with("capacity=10")).unwrap();
    let mut sender = Sender::open(&name).unwrap();
    for round in 0..50_u8 {
        for index in 0..10 {
            sender.try_send(&[round, index]).unwrap();
        }
        assert_eq!(sender.try_send(&[9]).unwrap_err().kind(), Kind::Full);
        let soon = Duration::from_millis(1);
        assert_eq!(sender.send_timeout(&[9], soon).unwrap_err().kind(), Kind::TimedOut);
        for index in 0..10 {
            assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], [round, index]);
        }
    }
    // A second sender has a lane of its own; one that comes after it is gone goes on in it.
    let mut second = Sender::open(&name).unwrap();
    for index in 0..10 {
        second.try_send(&[index]).unwrap();
    }
    drop(second);
    let mut third = Sender::open(&name).unwrap();
    assert_eq!(third.try_send("x").unwrap_err().kind(), Kind::Full);
    sender.try_send("x").unwrap();
    assert_eq!(
        Sender::open(name.with("capacity=11")).unwrap_err().kind(),
        Kind::Mismatch,
        "other terms than it was made with"
    );
}

#[test]
fn a_blocked_sender_is_woken() {
    let name = Name::new("blocked");
    let mut receiver = Receiver::create(name.with("capacity=100")).unwrap();
    let mut sender = Sender::open(&name).unwrap();
    let count = 20_000_u32;
    let thread = std::thread::spawn(move || {
        for number in 0..count {
            sender.send(&number.to_le_bytes()).unwrap();
        }
    });
    for number in 0..count {
        if number % 5000 == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap()[..], number.to_le_bytes());
    }
    thread.join().unwrap();
}

#[test]
fn loans_are_written_in_place_and_nothing_is_sent_by_dropping_one() {
    let name = Name::new("loans");
    let mut receiver = Receiver::create(&name).unwrap();
    let mut sender = Sender::open(&name).unwrap();
    for round in 0..100_usize {
        let _ = sender.loan(1000).unwrap();
        let mut loan = sender.loan(100_000).unwrap();
        assert_eq!(loan.len(), 100_000);
        loan.fill(round as u8);
        loan.shrink(50_000 + round);
        loan.priority(3).send().unwrap();
        let message = receiver.recv_timeout(PATIENCE).unwrap();
        assert_eq!((message.len(), message.priority()), (50_000 + round, 3));
        assert!(message.iter().all(|byte| *byte == round as u8));
    }
    assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
    assert_eq!(
        sender.loan(17 << 20).unwrap_err().kind(),
        Kind::TooLarge { size: 17 << 20, limit: 16 << 20 }
    );
}

#[test]
fn what_is_not_acknowledged_comes_again_marked() {
    let name = Name::new("manual");
    let mut receiver = Receiver::create(&name).unwrap().manual();
    let mut sender = Sender::open(&name).unwrap();
    for body in ["a", "b", "c"] {
        sender.send(body).unwrap();
    }
    drop(receiver.recv_timeout(PATIENCE).unwrap());
    let message = receiver.recv_timeout(PATIENCE).unwrap();
    assert_eq!((message.text().unwrap(), message.redelivered()), ("a", true));
    message.acknowledge().unwrap();
    let b = receiver.recv_timeout(PATIENCE).unwrap().into_owned();
    let c = receiver.recv_timeout(PATIENCE).unwrap();
    assert_eq!((c.text().unwrap(), c.redelivered()), ("c", false));
    c.reject().unwrap();
    drop(b);
    for body in ["b", "c"] {
        let message = receiver.recv_timeout(PATIENCE).unwrap();
        assert_eq!((message.text().unwrap(), message.redelivered()), (body, true));
        let kept = message.into_owned();
        receiver.acknowledge(kept).unwrap();
    }
    assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
}

#[test]
fn a_message_that_was_handed_out_too_often_is_set_aside() {
    let name = Name::new("aside");
    let mut receiver = Receiver::create(name.with("deliveries=3")).unwrap().manual();
    Sender::open(&name).unwrap().send("poison").unwrap();
    for _ in 0..3 {
        receiver.recv_timeout(PATIENCE).unwrap().reject().unwrap();
    }
    assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
    assert_eq!(inspect(&Address::parse(&name.0).unwrap()).unwrap().aside, 1);
}

#[test]
fn a_look_from_outside_tells_what_is_there() {
    let name = Name::new("inspect");
    let mut receiver = Receiver::create(&name).unwrap().manual();
    let mut sender = Sender::open(&name).unwrap();
    for body in ["a", "b", "c"] {
        sender.send(body).unwrap();
    }
    let kept = receiver.recv_timeout(PATIENCE).unwrap().into_owned();
    let mut hoard = Peer::start("hoard", &[&name.0]);
    hoard.expect("b");
    let address = Address::parse(&name.0).unwrap();
    let seen = inspect(&address).unwrap();
    assert_eq!((seen.lanes.len(), seen.receivers.len(), seen.aside), (1, 2, 0));
    assert_eq!((seen.lanes[0].ready, seen.lanes[0].taken), (1, 2));
    hoard.kill();
    let dead = |seen: &Inspection| seen.receivers.iter().filter(|one| one.dead).count();
    assert_eq!(dead(&inspect(&address).unwrap()), 1);
    // Whoever comes next buries it.
    drop(Sender::open(&name).unwrap());
    let seen = inspect(&address).unwrap();
    assert_eq!((seen.receivers.len(), dead(&seen)), (1, 0));
    let redelivered: u64 = seen.lanes.iter().map(|lane| lane.redelivered).sum();
    assert_eq!(redelivered, 1);
    drop(kept);
}

#[test]
fn a_stopped_receiver_is_not_dead() {
    let name = Name::new("stopped");
    let mut hoard = Peer::start("hoard", &[&name.0]);
    hoard.expect("ready");
    let mut sender = Sender::open(&name).unwrap();
    sender.send("precious").unwrap();
    hoard.expect("precious");
    let process = rustix::process::Pid::from_child(&hoard.0);
    rustix::process::kill_process(process, rustix::process::Signal::STOP).unwrap();
    let mut receiver = Receiver::open(&name).unwrap();
    let soon = Duration::from_millis(200);
    assert_eq!(receiver.recv_timeout(soon).unwrap_err().kind(), Kind::TimedOut);
    hoard.kill();
    let message = receiver.recv_timeout(PATIENCE).unwrap();
    assert_eq!((message.text().unwrap(), message.redelivered()), ("precious", true));
}

#[test]
fn what_a_killed_receiver_had_is_there_soon() {
    let name = Name::new("soon");
    let mut sender = Sender::create(&name).unwrap();
    let mut receiver = Receiver::open(&name).unwrap();
    let mut times = Vec::new();
    for _ in 0..40 {
        let mut hoard = Peer::start("hoard", &[&name.0]);
        hoard.expect("ready");
        sender.send("precious").unwrap();
        let Some(left) = race(&mut receiver, &mut hoard) else { continue };
        times.push(left);
    }
    times.sort_unstable();
    println!(
        "recovered after {:?} in the middle, {:?} at most",
        times[times.len() / 2],
        times.last()
    );
    assert!(times[times.len() / 2] < Duration::from_millis(50));
}

/// The other receiver takes the message, and is killed while this one sleeps: how long until it is
/// here.
fn race(receiver: &mut Receiver, hoard: &mut Peer) -> Option<Duration> {
    hoard.expect("precious");
    let process = rustix::process::Pid::from_child(&hoard.0);
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(5));
        let now = Instant::now();
        rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
        now
    });
    let message = receiver.recv_timeout(PATIENCE).unwrap();
    let came = Instant::now();
    assert!(message.redelivered());
    Some(came.duration_since(killer.join().unwrap()))
}

/// It sends one more before the last is taken, again and again: its lane is never empty.
#[test]
fn a_noisy_sender_keeps_nobody_elses_messages_away() {
    let name = Name::new("noisy");
    let mut receiver = Receiver::create(&name).unwrap();
    let mut noisy = Sender::open(&name).unwrap();
    let mut others: Vec<_> = (0..3).map(|_| Sender::open(&name).unwrap()).collect();
    for round in 0..3 {
        noisy.send("more").unwrap();
        for other in &mut others {
            other.send("quiet").unwrap();
        }
        let mut quiet = 0;
        for _ in 0..1000 {
            noisy.send("more").unwrap();
            let is_batch = round == 1;
            let mut see = |text: &str| quiet += usize::from(text == "quiet");
            if is_batch {
                let each = |message: poste::Message<'_>| see(message.text().unwrap());
                receiver.recv_many(1, each).unwrap();
            } else {
                see(receiver.recv().unwrap().text().unwrap());
            }
        }
        assert_eq!(quiet, 3);
        while receiver.try_recv().is_ok() {}
    }
}

/// A forked child keeps the locks of a dead one, so that only the end of its process tells.
fn keeps_a_child(name: &Name, sender: &mut Sender) -> Peer {
    let mut hoard = Peer::start("hoard-with-child", &[&name.0]);
    hoard.expect("ready");
    sender.send("precious").unwrap();
    hoard
}

/// Kills it, and takes what comes with `look` until that is what it had: how long that took.
fn until_it_comes(hoard: &mut Peer, mut look: impl FnMut() -> Option<bool>) -> Duration {
    hoard.kill();
    let start = Instant::now();
    loop {
        match look() {
            Some(true) => return start.elapsed(),
            _ => assert!(start.elapsed() < PATIENCE, "it doesn't come again"),
        }
    }
}

#[test]
fn what_a_killed_receiver_had_comes_again_to_one_that_only_looks() {
    let name = Name::new("looks");
    let mut sender = Sender::create(&name).unwrap();
    let mut times = Vec::new();
    for _ in 0..10 {
        let mut hoard = keeps_a_child(&name, &mut sender);
        hoard.expect("precious");
        let mut receiver = Receiver::open(&name).unwrap();
        times.push(until_it_comes(&mut hoard, || {
            std::thread::yield_now();
            receiver.try_recv().ok().map(|message| message.redelivered())
        }));
    }
    times.sort_unstable();
    println!("recovered after {:?} in the middle, {:?} at most", times[5], times[9]);
}

#[test]
fn what_a_killed_receiver_had_comes_again_to_one_that_is_always_busy() {
    let name = Name::new("busy");
    let mut sender = Sender::create(&name).unwrap();
    // Another lane: its own would be full when it has gone round to what is out.
    let mut other = Sender::open(&name).unwrap();
    let mut times = Vec::new();
    for _ in 0..10 {
        let mut hoard = keeps_a_child(&name, &mut sender);
        hoard.expect("precious");
        let mut receiver = Receiver::open(&name).unwrap();
        let mut busy = || {
            // It never finds nothing.
            other.send("more").unwrap();
            receiver.try_recv().ok().map(|message| message.redelivered())
        };
        for _ in 0..1000 {
            assert_eq!(busy(), Some(false));
        }
        times.push(until_it_comes(&mut hoard, busy));
        while receiver.try_recv().is_ok() {}
    }
    times.sort_unstable();
    println!("recovered after {:?} in the middle, {:?} at most", times[5], times[9]);
}

#[test]
fn what_a_killed_receiver_had_comes_again_to_one_that_sleeps() {
    let name = Name::new("killed");
    let mut hoard = Peer::start("hoard", &[&name.0]);
    hoard.expect("ready");
    let mut sender = Sender::open(&name).unwrap();
    sender.send("precious").unwrap();
    hoard.expect("precious");
    let address = name.0.clone();
    let sleeper = std::thread::spawn(move || {
        let mut receiver = Receiver::open(&address).unwrap();
        let message = receiver.recv_timeout(PATIENCE).unwrap();
        (message.text().unwrap().to_owned(), message.redelivered(), Instant::now())
    });
    std::thread::sleep(Duration::from_millis(100));
    let killed = Instant::now();
    hoard.kill();
    let (body, redelivered, came) = sleeper.join().unwrap();
    assert_eq!((body.as_str(), redelivered), ("precious", true));
    let took = came.duration_since(killed);
    assert!(took < Duration::from_millis(500), "{took:?}");
}

#[test]
fn what_a_killed_sender_sent_is_there() {
    follow_a_killed_sender(&Name::new("killed-sender"));
}

/// A sender is killed, and the next goes on in its lane: what both sent is there, in order.
pub(crate) fn follow_a_killed_sender(name: &Name) {
    let mut peer = Peer::start("send", &[&name.0, "one", "two"]);
    peer.expect("sent");
    peer.kill();
    let mut receiver = Receiver::open(name).unwrap();
    let mut sender = Sender::open(name).unwrap();
    sender.send("three").unwrap();
    for body in ["one", "two", "three"] {
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap().text().unwrap(), body);
    }
    drop((sender, receiver));
    assert_eq!(name.files(), ["header"]);
}

#[test]
fn two_processes_pass_messages_back_and_forth() {
    let (there, back) = (Name::new("there"), Name::new("back"));
    let mut receiver = Receiver::create(&back).unwrap();
    let mut sender = Sender::create(&there).unwrap();
    let mut echo = Peer::start("echo", &[&there.0, &back.0]);
    echo.expect("ready");
    for number in 0..20_000_u32 {
        sender.send(&number.to_le_bytes()).unwrap();
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap()[..], number.to_le_bytes());
    }
}

#[test]
fn a_receiver_of_a_removed_mailbox_is_told() {
    let name = Name::new("removed");
    let mut receiver = Receiver::create(&name).unwrap();
    let mut sender = Sender::open(&name).unwrap();
    let address = name.0.clone();
    let remover = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        poste::remove(address).unwrap();
    });
    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap_err().kind(), Kind::Removed);
    remover.join().unwrap();
    assert_eq!(sender.send("x").unwrap_err().kind(), Kind::Removed);
    assert_eq!(Sender::open(&name).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn many_may_come_and_go() {
    let name = Name::new("come-and-go");
    let mut receiver = Receiver::create(&name).unwrap();
    for round in 0..2000_u32 {
        let mut sender = Sender::open(&name).unwrap();
        sender.send(&round.to_le_bytes()).unwrap();
        drop(sender);
        let other = Receiver::open(&name).unwrap();
        drop(other);
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap()[..], round.to_le_bytes());
    }
}

#[test]
fn a_batch_takes_what_is_there_the_most_urgent_first_and_no_more_than_asked() {
    let name = Name::new("batch");
    let mut receiver = Receiver::create(&name).unwrap();
    let mut senders = [Sender::open(&name).unwrap(), Sender::open(&name).unwrap()];
    for number in 0..6_u8 {
        for (who, sender) in senders.iter_mut().enumerate() {
            let body = [who as u8, number];
            sender.send(Outgoing::from(&body).priority(u16::from(number % 2))).unwrap();
        }
    }
    let mut seen = Vec::new();
    let mut note = |message: poste::Message<'_>| {
        seen.push((message.priority(), message[0], message[1]));
    };
    assert_eq!(receiver.recv_many(5, &mut note).unwrap(), 5);
    // Nobody has what wasn't asked for.
    let mut other = Receiver::open(&name).unwrap();
    let message = other.try_recv().unwrap();
    assert!(!message.redelivered());
    note(message);
    assert_eq!(receiver.recv_many(100, &mut note).unwrap(), 6);
    assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
    let priorities: Vec<_> = seen.iter().map(|one| one.0).collect();
    assert_eq!(priorities, [1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0]);
    for (who, priority) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let of = seen.iter().filter(|one| (one.1, one.0) == (who, priority)).map(|one| one.2);
        assert!(of.is_sorted(), "in its sender's order: {seen:?}");
    }
}

#[test]
fn what_a_batch_did_not_hand_out_comes_again() {
    let name = Name::new("half-batch");
    let mut receiver = Receiver::create(&name).unwrap();
    let mut sender = Sender::open(&name).unwrap();
    for number in 0..4_u8 {
        sender.send(&[number]).unwrap();
    }
    let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        receiver.recv_many(4, |message| assert_eq!(message[0], 0, "the second is too much"))
    }));
    assert!(broken.is_err());
    // It still has the others, and gives them back when it goes.
    assert_eq!(receiver.try_recv().unwrap()[0], 2);
    drop(receiver);
    let mut receiver = Receiver::open(&name).unwrap();
    let message = receiver.try_recv().unwrap();
    assert_eq!((message[0], message.redelivered()), (3, true));
    assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
}

#[test]
fn fed_messages_arrive_together_and_in_order() {
    let name = Name::new("fed");
    let mut receiver = Receiver::create(&name).unwrap();
    let mut sender = Sender::open(&name).unwrap();
    for number in 0..10_u8 {
        sender.feed(&[number]).unwrap();
    }
    assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
    sender.flush().unwrap();
    let mut seen = Vec::new();
    let count = receiver.recv_many(100, |message| seen.push(message[0])).unwrap();
    assert_eq!((count, seen), (10, (0..10).collect()));
}
