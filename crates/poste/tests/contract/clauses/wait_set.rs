//! The form `WaitSet` of waiting keeps the same promises as the others: nothing and full are waited
//! out, who waits is woken, and no wake-up is lost, level-triggered, edge-triggered, and where
//! several receivers share a channel.

use std::thread::sleep;
use std::time::{Duration, Instant};

use poste::{Capabilities, Kind, Receiver, Sender, Wait, WaitSet};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use super::PATIENCE;
use crate::cell::{Cell, Clause, Form, is_long};
use crate::letters::{Checker, Letters, Random};

pub(crate) static WAITING: Clause =
    Clause { name: "wait_set_waiting", applies: exact, alone: true, run: waiting, ..Clause::PLAIN };

pub(crate) static FULL: Clause = Clause {
    name: "wait_set_full",
    applies: |capabilities, form| exact(capabilities, form) && !capabilities.may_lose,
    run: full,
    ..Clause::PLAIN
};

pub(crate) static WAKE_UPS: Clause = Clause {
    name: "wait_set_wake_ups",
    applies: |capabilities, form| exact(capabilities, form) && !capabilities.may_lose,
    run: wake_ups,
    ..Clause::PLAIN
};

pub(crate) static EDGES: Clause =
    Clause { name: "edges", applies: exact, run: edges, ..Clause::PLAIN };

pub(crate) static SHARED: Clause = Clause {
    name: "wait_set_shared",
    applies: |capabilities, form| exact(capabilities, form) && capabilities.many_receivers,
    run: shared,
    ..Clause::PLAIN
};

/// Where what is received can be compared with what was sent.
fn exact(capabilities: &Capabilities, form: Form) -> bool {
    capabilities.pollable && (form == Form::Enveloped || capabilities.raw_boundaries)
}

const HERE: u64 = 7;
const THERE: u64 = 8;

/// Takes what is there, if anything is: a set may say so in vain.
fn try_recv(receiver: &mut Receiver) -> Option<Vec<u8>> {
    match receiver.try_recv() {
        Ok(message) => Some(message.to_vec()),
        Err(error) if error.kind() == Kind::Empty => None,
        Err(error) => panic!("{error}"),
    }
}

/// Looks away what has no message: that somebody has connected.
fn quiet(set: &WaitSet, receiver: &mut Receiver) {
    let mut ready = Vec::new();
    while set.wait(&mut ready, Wait::For(Duration::from_millis(20))).is_ok() {
        assert_eq!(try_recv(receiver), None, "nothing was sent");
    }
}

fn waiting(cell: &Cell) {
    let channel = cell.channel();
    let (mut sender, mut receiver) = channel.open();
    let set = WaitSet::new().unwrap();
    set.add(HERE, &mut receiver).unwrap();
    let mut ready = Vec::new();
    for round in 0..3 {
        quiet(&set, &mut receiver);
        let time = Duration::from_millis(40);
        let start = Instant::now();
        assert_eq!(set.wait(&mut ready, Wait::Not).unwrap_err().kind(), Kind::Empty);
        assert!(start.elapsed() < cell.lateness());
        for is_deadline in [false, true] {
            let start = Instant::now();
            let wait = if is_deadline { Wait::Until(start + time) } else { Wait::For(time) };
            assert_eq!(set.wait(&mut ready, wait).unwrap_err().kind(), Kind::TimedOut);
            let took = start.elapsed();
            assert!(took >= time, "too early, after {took:?}");
            assert!(took < time + cell.lateness(), "too late, after {took:?}");
        }
        let long = [Wait::Forever, Wait::For(PATIENCE), Wait::Until(Instant::now() + PATIENCE)];
        std::thread::scope(|scope| {
            let sender = &mut sender;
            let sending = scope.spawn(move || {
                sleep(Duration::from_millis(30));
                let start = Instant::now();
                sender.send("wake up").unwrap();
                start
            });
            let body = loop {
                set.wait(&mut ready, long[round]).unwrap();
                assert_eq!(ready, [HERE]);
                if let Some(body) = try_recv(&mut receiver) {
                    break body;
                }
            };
            assert_eq!(body, b"wake up");
            let took = sending.join().unwrap().elapsed();
            assert!(took < cell.lateness(), "woken {took:?} after the message was sent");
        });
    }
}

fn full(cell: &Cell) {
    let channel = cell.channel();
    let (mut sender, mut receiver) = channel.open();
    let size_max = sender.facts().message_size.min(2000);
    let letters = Letters { seed: cell.random().next(), size_max };
    let set = WaitSet::new().unwrap();
    set.add(HERE, &mut sender).unwrap();
    let mut ready = Vec::new();
    set.wait(&mut ready, Wait::For(PATIENCE)).unwrap();
    assert_eq!(ready, [HERE], "there is room");
    // As many again as it holds go while another takes them out.
    let mut count = 0;
    while sender.try_send(&letters.letter(0, count)).is_ok() {
        count += 1;
    }
    let goal = count * 2;
    let mut checker = Checker::new(letters, 1, false);
    std::thread::scope(|scope| {
        let receiving = scope.spawn(|| {
            sleep(Duration::from_millis(30));
            for _ in 0..goal {
                let message = receiver.recv_timeout(PATIENCE).unwrap();
                checker.check(&message, message.sequence());
            }
        });
        while count < goal {
            set.wait(&mut ready, Wait::For(PATIENCE)).expect("room is told");
            count += send_all(&mut sender, &letters, count, goal);
        }
        finish(&mut sender, &set);
        receiving.join().unwrap();
    });
}

/// Sends as many letters as there is room for: how many.
fn send_all(sender: &mut Sender, letters: &Letters, from: u32, to: u32) -> u32 {
    for index in from..to {
        match sender.try_send(&letters.letter(0, index)) {
            Ok(_) => {}
            Err(error) if error.kind() == Kind::Full => return index - from,
            Err(error) => panic!("{error}"),
        }
    }
    to - from
}

/// Sees what is held go.
fn finish(sender: &mut Sender, set: &WaitSet) {
    while sender.try_flush().unwrap() == poste::Level::Held {
        set.wait(&mut Vec::new(), Wait::For(PATIENCE)).expect("room is told");
    }
}

/// Many messages, with random pauses at both ends, each of which waits in a set of its own.
fn wake_ups(cell: &Cell) {
    let channel = cell.channel();
    let (mut sender, mut receiver) = channel.open();
    let letters = Letters { seed: cell.random().next(), size_max: 100 };
    let count = if is_long() { 1_000_000 } else { 3000 };
    let mut checker = Checker::new(letters, 1, false);
    std::thread::scope(|scope| {
        let mut random = cell.random();
        scope.spawn(move || {
            let set = WaitSet::new().unwrap();
            set.add(HERE, &mut sender).unwrap();
            let (mut ready, mut sent) = (Vec::new(), 0);
            while sent < count {
                set.wait(&mut ready, Wait::For(PATIENCE)).expect("room is told");
                let some = 1 + random.below(30) as u32;
                sent += send_all(&mut sender, &letters, sent, count.min(sent + some));
                pause(&mut random);
            }
            finish(&mut sender, &set);
        });
        let mut random = Random::new(cell.random().next());
        let set = WaitSet::new().unwrap();
        set.add(THERE, &mut receiver).unwrap();
        let mut ready = Vec::new();
        while checker.received < u64::from(count) {
            let waited = set.wait(&mut ready, Wait::For(PATIENCE));
            waited.unwrap_or_else(|_| panic!("no wake-up after {} messages", checker.received));
            // One, or all that is there.
            for _ in 0..if random.below(2) == 0 { 1 } else { usize::MAX } {
                if checker.received == u64::from(count) {
                    break;
                }
                match receiver.try_recv() {
                    Ok(message) => checker.check(&message, message.sequence()),
                    Err(error) if error.kind() == Kind::Empty => break,
                    Err(error) => panic!("{error}"),
                }
            }
            pause(&mut random);
        }
    });
}

fn pause(random: &mut Random) {
    match random.below(40) {
        0 => sleep(Duration::from_micros(random.below(300) as u64)),
        1..9 => std::thread::yield_now(),
        _ => {}
    }
}

/// Who is told only of changes, and receives until nothing is left, misses none.
fn edges(cell: &Cell) {
    let channel = cell.channel();
    let (mut sender, mut receiver) = channel.open();
    let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
    let flags = EventFlags::IN | EventFlags::ET;
    epoll::add(&epoll, receiver.pollable().unwrap(), EventData::new_u64(HERE), flags).unwrap();
    assert_eq!(try_recv(&mut receiver), None);
    let mut random = cell.random();
    let is_told = || {
        let time = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        let mut events = [std::mem::MaybeUninit::uninit(); 4];
        !epoll::wait(&epoll, &mut events, Some(&time)).unwrap().0.is_empty()
    };
    for round in 0..if is_long() { 20_000_u32 } else { 300 } {
        let count = 1 + random.below(3);
        for _ in 0..count {
            sender.send(&round.to_le_bytes()).unwrap();
        }
        let mut received = 0;
        while received < count {
            assert!(is_told(), "no edge in round {round}, {received} of {count} received");
            while let Some(body) = try_recv(&mut receiver) {
                assert_eq!(body, round.to_le_bytes());
                received += 1;
            }
        }
    }
}

/// Two receivers wait on one channel: whoever is left learns of each message, also when the other
/// was told first and goes without receiving.
fn shared(cell: &Cell) {
    let channel = cell.channel();
    let (mut sender, mut second) = channel.open();
    let set = WaitSet::new().unwrap();
    set.add(HERE, &mut second).unwrap();
    let mut ready = Vec::new();
    for round in 0..10_u8 {
        let mut first = channel.receiver();
        let aside = WaitSet::new().unwrap();
        aside.add(THERE, &mut first).unwrap();
        // That another has come may wake once.
        quiet(&set, &mut second);
        sender.send(&[round]).unwrap();
        let _ = aside.wait(&mut ready, Wait::For(Duration::from_millis(5)));
        drop(first);
        let body = loop {
            set.wait(&mut ready, Wait::For(PATIENCE)).expect("the other one is told");
            if let Some(body) = try_recv(&mut second) {
                break body;
            }
        };
        assert_eq!(body, [round]);
        quiet(&set, &mut second);
    }
}
