//! `kill -9` at random moments under full load, and an oracle that every process tells what it does:
//! a file that all of them map, written before and after each step.
//!
//! Nothing that was committed is lost, nothing comes twice unmarked, nothing is torn or out of order
//! for its sender and priority, nobody hangs, and nothing is left behind.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use poste::{Options, Outgoing, Receiver, Sender};
use poste_sys::atomic::{AtomicU64, Ordering::SeqCst};
use poste_sys::mapping::{Access, Mapping, reserve};

use crate::peer::{Name, Peer};

const SENDERS: usize = 4;
const RECEIVERS: usize = 3;

/// How many messages a sender may send in a round.
const MESSAGES: u64 = 1 << 18;

const MARKED: u64 = 1 << 16;
const ENDED: u64 = 1 << 32;
const COMMITTED: u64 = 1 << 48;

/// What the processes tell. For each sender how far it began, and for each message a word: how often
/// it came unmarked, how often marked (from bit 16) and ended (bit 32), and whether its sender came
/// to know that it was sent (bit 48).
struct Oracle(Mapping);

impl Oracle {
    const SIZE: usize = 4096 + SENDERS * MESSAGES as usize * 8;

    fn new(path: &Path) -> Oracle {
        let options =
            File::options().read(true).write(true).create(true).truncate(false).open(path);
        let file = OwnedFd::from(options.unwrap());
        reserve(file.as_fd(), Oracle::SIZE).unwrap();
        Oracle(Mapping::new(file, 0, Oracle::SIZE, Access::Write).unwrap())
    }

    fn stop(&self) -> &AtomicU64 {
        self.0.word(0)
    }

    fn lives(&self) -> &AtomicU64 {
        self.0.word(8)
    }

    fn faults(&self) -> &AtomicU64 {
        self.0.word(16)
    }

    fn begun(&self, sender: usize) -> &AtomicU64 {
        self.0.word(64 + sender * 128)
    }

    fn message(&self, sender: usize, number: u64) -> &AtomicU64 {
        self.0.word(4096 + (sender * MESSAGES as usize + number as usize) * 8)
    }
}

/// A generator of numbers that repeats by its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

/// The body of a message: who, in which life, which number, and bytes that follow from it.
fn body(sender: u64, life: u64, number: u64) -> Vec<u8> {
    let size = 24 + if number % 50 == 7 { 6000 } else { number * 7 % 150 };
    let mut body = Vec::with_capacity(size as usize);
    for word in [sender, life, number] {
        body.extend_from_slice(&word.to_le_bytes());
    }
    body.extend((24..size).map(|at| (at * 31 + number * 17 + sender) as u8));
    body
}

fn priority(number: u64) -> u16 {
    [0, 0, 0, 5, 0, 0, 31][(number % 7) as usize]
}

/// A sender's life: arguments are address, oracle, which sender.
pub(crate) fn sender(arguments: &[&str]) {
    let oracle = Oracle::new(Path::new(arguments[1]));
    let me: usize = arguments[2].parse().unwrap();
    let life = oracle.lives().fetch_add(1, SeqCst) + 1;
    let mut dice = Dice(life * 0x9e37_79b9 + 1);
    let mut sender = Sender::open(arguments[0]).unwrap();
    // A message that was begun and not committed is left to its fate: its number is not used again.
    let mut number = oracle.begun(me).load(SeqCst);
    while oracle.stop().load(SeqCst) == 0 && number + 64 < MESSAGES {
        let batch = if dice.roll(4) == 0 { 1 + dice.roll(30) } else { 1 };
        oracle.begun(me).store(number + batch, SeqCst);
        for next in number..number + batch {
            let body = body(me as u64, life, next);
            if batch > 1 {
                let outgoing = Outgoing::from(&body).priority(priority(next));
                sender.feed(outgoing).unwrap();
            } else if dice.roll(3) == 0 {
                let mut loan = sender.loan(body.len() + 100).unwrap();
                loan[..body.len()].copy_from_slice(&body);
                loan.shrink(body.len());
                loan.priority(priority(next)).send().unwrap();
            } else {
                sender.send(Outgoing::from(&body).priority(priority(next))).unwrap();
            }
        }
        sender.flush().unwrap();
        for sent in number..number + batch {
            oracle.message(me, sent).fetch_add(COMMITTED, SeqCst);
        }
        number += batch;
    }
}

/// A receiver's life: arguments are address, oracle.
pub(crate) fn receiver(arguments: &[&str]) {
    let oracle = Oracle::new(Path::new(arguments[1]));
    let life = oracle.lives().fetch_add(1, SeqCst) + 1;
    let mut receiver = Receiver::open(arguments[0]).unwrap().manual();
    let mut dice = Dice(life * 0x51ed_2701 + 1);
    let mut last = std::collections::HashMap::new();
    loop {
        let message = match dice.roll(3) {
            0 => receiver.try_recv(),
            1 => receiver.recv_timeout(Duration::from_micros(dice.roll(2000))),
            _ => receiver.recv_timeout(Duration::from_secs(1)),
        };
        let Ok(message) = message else {
            if oracle.stop().load(SeqCst) == 2 {
                return;
            }
            continue;
        };
        let redelivered = message.redelivered();
        if let Some((who, life, number)) = note(&oracle, &message, redelivered, message.priority())
        {
            let last = last.entry((who, life, message.priority())).or_insert(0);
            if !redelivered && number < *last {
                fault(&oracle, "out of order");
            }
            if !redelivered {
                *last = number + 1;
            }
            if dice.roll(200) == 0 {
                message.reject().unwrap();
                continue;
            }
            message.acknowledge().unwrap();
            oracle.message(who, number).fetch_add(ENDED, SeqCst);
        }
    }
}

/// Tells the oracle of a message: who sent it, in which life, its number.
fn note(oracle: &Oracle, bytes: &[u8], redelivered: bool, said: u16) -> Option<(usize, u64, u64)> {
    let word = |at: usize| bytes.get(at..at + 8).map(|b| u64::from_le_bytes(b.try_into().unwrap()));
    let (Some(who), Some(life), Some(number)) = (word(0), word(8), word(16)) else {
        fault(oracle, "too short");
        return None;
    };
    if who >= SENDERS as u64 || number >= MESSAGES || bytes != body(who, life, number) {
        fault(oracle, "torn");
        return None;
    }
    if said != priority(number) {
        fault(oracle, "another priority");
    }
    if number >= oracle.begun(who as usize).load(SeqCst) {
        fault(oracle, "never sent");
    }
    let came = if redelivered { MARKED } else { 1 };
    oracle.message(who as usize, number).fetch_add(came, SeqCst);
    Some((who as usize, life, number))
}

fn fault(oracle: &Oracle, what: &str) {
    eprintln!("FAULT: {what}");
    oracle.faults().fetch_add(1, SeqCst);
}

#[test]
fn nothing_is_lost_torn_or_doubled_by_kills_at_random() {
    let seed = std::env::var("POSTE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or(u64::from(std::process::id()) << 20 | 0x5eed);
    let long = std::env::var_os("POSTE_LONG").is_some();
    let (rounds, kills) = if long { (1000, 100) } else { (20, 100) };
    println!("POSTE_SEED={seed}: {rounds} rounds of {kills} kills");
    let mut dice = Dice(seed | 1);
    let mut total = (0, 0);
    for round in 0..rounds {
        let (committed, came_again) = one_round(&mut dice, kills);
        total = (total.0 + committed, total.1 + came_again);
        assert!(committed > 0, "round {round} did nothing");
    }
    println!("{} messages committed, {} came again", total.0, total.1);
}

fn one_round(dice: &mut Dice, kills: u64) -> (u64, u64) {
    let name = Name::new("kills");
    let path = Path::new("/dev/shm").join(format!("poste-oracle-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let oracle = Oracle::new(&path);
    let file = path.to_str().unwrap();
    poste::create(&name, &Options::new()).unwrap();
    let start = |index: usize| {
        if index < SENDERS {
            Peer::start("kills-sender", &[&name.0, file, &index.to_string()])
        } else {
            Peer::start("kills-receiver", &[&name.0, file])
        }
    };
    let mut peers: Vec<_> = (0..SENDERS + RECEIVERS).map(start).collect();
    let mut progress = (Instant::now(), 0);
    for _ in 0..kills {
        std::thread::sleep(Duration::from_micros(dice.roll(3000)));
        let victim = dice.roll(peers.len() as u64) as usize;
        peers[victim].kill();
        peers[victim] = start(victim);
        let lives = oracle.lives().load(SeqCst);
        if lives > progress.1 {
            progress = (Instant::now(), lives);
        }
        assert!(progress.0.elapsed() < Duration::from_secs(20), "nobody comes to life");
    }
    oracle.stop().store(1, SeqCst);
    finish(&mut peers[..SENDERS], "senders");
    oracle.stop().store(2, SeqCst);
    finish(&mut peers[SENDERS..], "receivers");
    // What killed receivers had last is still to come.
    let mut rest = Receiver::open(&name).unwrap();
    while let Ok(message) = rest.recv_timeout(Duration::from_millis(20)) {
        let redelivered = message.redelivered();
        note(&oracle, &message, redelivered, message.priority());
    }
    drop(rest);
    assert_eq!(name.files(), ["header"], "every lane is given back, half-made ones too");
    let result = judge(&oracle);
    let _ = std::fs::remove_file(&path);
    result
}

fn finish(peers: &mut [Peer], who: &str) {
    let end = Instant::now() + Duration::from_secs(20);
    for peer in peers {
        while peer.0.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "{who} hang");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(peer.0.wait().unwrap().success(), "{who} failed");
    }
}

fn judge(oracle: &Oracle) -> (u64, u64) {
    assert_eq!(oracle.faults().load(SeqCst), 0, "faults, see above");
    let (mut total, mut again) = (0, 0);
    for sender in 0..SENDERS {
        for number in 0..oracle.begun(sender).load(SeqCst) {
            let word = oracle.message(sender, number).load(SeqCst);
            let (unmarked, marked) = (word % MARKED, word / MARKED % (ENDED / MARKED));
            let (ended, committed) = (word / ENDED % (COMMITTED / ENDED), word / COMMITTED);
            assert!(unmarked <= 1, "message {number} of {sender} came twice unmarked");
            assert!(ended <= 1, "message {number} of {sender} was ended twice");
            let came = unmarked + marked > 0;
            assert!(came || committed == 0, "message {number} of {sender} is lost");
            again += marked;
            total += committed;
        }
    }
    (total, again)
}
