//! `kill -9` at random moments under full load: four senders and three receivers, one of which is
//! killed every other millisecond and takes up its work in a new life. Now and then one is stopped
//! instead, which is no death; and some leave a child behind that keeps their descriptors and locks.
//!
//! The one who kills is a process of one thread, which forks them all; the oracle (oracle.rs) is
//! judged by the trial's own process.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use poste::{Message, Options, Outgoing, Receiver, Sender};
use poste_sys::atomic::Ordering::SeqCst;
use poste_sys::testing::{fork, fork_and_sleep};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};

use crate::checker::leftovers;
use crate::oracle::{MESSAGES, Oracle, RECEIVERS, SENDERS, percentile};
use crate::partner::{LIMIT, Partner};
use crate::party::say;
use crate::tally::{Dice, Tally, is_long};
use crate::tree::House;

/// How many kills there are in a round, and how many rounds in the short and in the long form.
const KILLS: usize = 250;
const SHORT: usize = 8;
const LONG: usize = 400;

const ADDRESS: &str = "shm:m";

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

/// Begins a life: its number, and its own chance.
fn begin(oracle: &Oracle) -> (u64, Dice) {
    let kill = Some(Signal::KILL);
    rustix::process::set_parent_process_death_signal(kill).expect("a signal that exists");
    let life = oracle.lives().fetch_add(1, SeqCst) + 1;
    (life, Dice::new(&format!("life {life}")))
}

/// Sometimes a child stays behind, which has all that its parent has and does nothing with it.
fn leave_a_child(dice: &mut Dice) {
    if dice.roll(40) == 0 {
        let _ = fork_and_sleep(Duration::from_secs(1));
    }
}

/// A sender's life.
fn send(oracle: &Oracle, me: usize) {
    let (life, mut dice) = begin(oracle);
    let mut sender = Sender::open(ADDRESS).expect("a sender opens");
    leave_a_child(&mut dice);
    // A message that was begun and not committed is left to its fate: its number is not used again.
    let mut number = oracle.begun(me).load(SeqCst);
    while oracle.stop().load(SeqCst) == 0 {
        if number + 64 >= MESSAGES {
            // It has sent all that it may.
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        let batch = if dice.roll(4) == 0 { 1 + dice.roll(30) as u64 } else { 1 };
        oracle.begun(me).store(number + batch, SeqCst);
        for next in number..number + batch {
            let body = body(me as u64, life, next);
            let message = Outgoing::from(&body).priority(priority(next));
            if batch > 1 {
                sender.feed(message).expect("it is fed");
            } else if dice.roll(3) == 0 {
                let mut loan = sender.loan(body.len() + 100).expect("memory is lent");
                loan[..body.len()].copy_from_slice(&body);
                loan.shrink(body.len());
                loan.priority(priority(next)).send().expect("it is sent");
            } else {
                sender.send(message).expect("it is sent");
            }
        }
        sender.flush().expect("it is flushed");
        for sent in number..number + batch {
            oracle.committed((me, sent));
        }
        number += batch;
    }
}

/// A receiver's life.
fn receive(oracle: &Oracle, me: usize) {
    let (_, mut dice) = begin(oracle);
    let mut receiver = Receiver::open(ADDRESS).expect("a receiver opens").manual();
    leave_a_child(&mut dice);
    let mut last = HashMap::new();
    while oracle.stop().load(SeqCst) < 2 {
        let way = dice.roll(8);
        if way == 0 {
            let many = 1 + dice.roll(20);
            let each = |message: Message<'_>| settle(oracle, me, message, &mut dice, &mut last);
            receiver.recv_many(many, each).expect("messages come");
            continue;
        }
        let time = Duration::from_micros(dice.roll(2000) as u64);
        let message = match way {
            1..4 => receiver.try_recv(),
            4..6 => receiver.recv_timeout(time),
            _ => receiver.recv(),
        };
        if let Ok(message) = message {
            settle(oracle, me, message, &mut dice, &mut last);
        }
    }
}

/// What was the last number of a sender's life and priority.
type Last = HashMap<(usize, u64, u16), u64>;

/// Tells the oracle of a message, and ends it or gives it back.
fn settle(oracle: &Oracle, me: usize, message: Message<'_>, dice: &mut Dice, last: &mut Last) {
    let (is_marked, priority) = (message.redelivered(), message.priority());
    let Some((who, life, number)) = read(oracle, &message, priority) else {
        return drop(message.acknowledge());
    };
    oracle.came((who, number), is_marked, me);
    let last = last.entry((who, life, priority)).or_insert(0);
    if !is_marked && number < *last {
        oracle.fault("out of order");
    }
    if !is_marked {
        *last = number + 1;
    }
    if dice.roll(20) == 0 {
        // Work takes time; senders find their lanes full meanwhile.
        std::thread::sleep(Duration::from_micros(dice.roll(500) as u64));
    }
    if dice.roll(200) == 0 {
        oracle.let_go(me);
        message.reject().expect("it is given back");
        return;
    }
    message.acknowledge().expect("it is ended");
    oracle.ended((who, number));
    oracle.let_go(me);
}

/// Reads a message: who sent it, in which life, its number; `None` where that is of no interest.
fn read(oracle: &Oracle, bytes: &[u8], said: u16) -> Option<(usize, u64, u64)> {
    let word = |at: usize| {
        let word = bytes.get(at..at + 8).and_then(|word| word.try_into().ok());
        word.map_or(u64::MAX, u64::from_le_bytes)
    };
    let (who, life, number) = (word(0), word(8), word(16));
    if who == SENDERS as u64 && bytes == body(who, life, number) {
        return None;
    }
    let is_one = who < SENDERS as u64 && number < MESSAGES;
    if !is_one || bytes != body(who, life, number) {
        oracle.fault("torn");
        return None;
    }
    if said != priority(number) {
        oracle.fault("another priority");
    }
    if number >= oracle.begun(who as usize).load(SeqCst) {
        oracle.fault("never sent");
    }
    Some((who as usize, life, number))
}

/// The one who kills: it plays a round, in which it forks all the others, and says how often it
/// stopped one. Words: the oracle, the kills, the round.
pub(crate) fn kill(words: &[&str]) {
    let &[oracle, kills, round] = words else { panic!("three words: {words:?}") };
    let oracle = Oracle::new(Path::new(oracle));
    let mut dice = Dice::new(&format!("round {round}"));
    // Those whom the others leave behind become its children.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("it reaps");
    poste::create(ADDRESS, &Options::new()).expect("it is made");
    let mut nursery = Nursery { lives: Vec::new(), oracle: &oracle };
    (0..SENDERS + RECEIVERS).for_each(|index| nursery.begin(index));
    let (mut stops, mut progress) = (0, (Instant::now(), 0));
    for _ in 0..kills.parse().expect("a number") {
        std::thread::sleep(Duration::from_micros(dice.roll(3000) as u64));
        let victim = dice.roll(SENDERS + RECEIVERS);
        if dice.roll(20) == 0 {
            let other = dice.roll(SENDERS + RECEIVERS);
            nursery.stop(other, Duration::from_micros(dice.roll(15_000) as u64));
            stops += 1;
        }
        nursery.kill(victim);
        nursery.begin(victim);
        let deliveries = oracle.deliveries().load(SeqCst);
        if deliveries > progress.1 {
            progress = (Instant::now(), deliveries);
        }
        assert!(progress.0.elapsed() < LIMIT, "nobody gets anything any more");
    }
    oracle.stop().store(1, SeqCst);
    (0..SENDERS).for_each(|index| nursery.finish(index));
    oracle.stop().store(2, SeqCst);
    // Who sleeps is woken by a message that is none.
    let waker = fork(|| {
        let (life, _) = begin(&oracle);
        let mut sender = Sender::open(ADDRESS).expect("a sender opens");
        for number in 0..1000 {
            sender.send(&body(SENDERS as u64, life, number)).expect("it is sent");
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    (SENDERS..SENDERS + RECEIVERS).for_each(|index| nursery.finish(index));
    kill_process(pid(waker), Signal::KILL).expect("it is there");
    // Until all are gone, also those who were left behind.
    while rustix::process::wait(WaitOptions::empty()).is_ok() {}
    drain(&oracle);
    say(&stops.to_string());
}

/// What killed receivers had last is still to come; then the mailbox is empty.
fn drain(oracle: &Oracle) {
    let mut rest = Receiver::open(ADDRESS).expect("a receiver opens").manual();
    while let Ok(message) = rest.recv_timeout(Duration::from_millis(20)) {
        let (is_marked, priority) = (message.redelivered(), message.priority());
        if let Some((who, _, number)) = read(oracle, &message, priority) {
            oracle.came((who, number), is_marked, RECEIVERS);
            oracle.ended((who, number));
        }
        message.acknowledge().expect("it is ended");
    }
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(number as i32).expect("a process's number")
}

/// Those who live now, by their index: senders first.
struct Nursery<'a> {
    lives: Vec<u32>,
    oracle: &'a Oracle,
}

impl Nursery<'_> {
    fn begin(&mut self, index: usize) {
        let oracle = self.oracle;
        let life = match index.checked_sub(SENDERS) {
            None => fork(|| send(oracle, index)),
            Some(receiver) => fork(|| receive(oracle, receiver)),
        };
        match self.lives.get_mut(index) {
            Some(slot) => *slot = life,
            None => self.lives.push(life),
        }
    }

    fn kill(&self, index: usize) {
        if let Some(receiver) = index.checked_sub(SENDERS) {
            self.oracle.died(receiver);
        }
        self.signal(index, Signal::KILL);
        let status = waitpid(Some(pid(self.lives[index])), WaitOptions::empty());
        if let Some((_, status)) = status.expect("it is a child") {
            if let Some(code) = status.exit_status() {
                self.oracle.fault(&format!("number {index} ended with {code}"));
            }
        }
    }

    /// Stops one for a time: nobody gets meanwhile what it has in its hands.
    fn stop(&self, index: usize, time: Duration) {
        self.signal(index, Signal::STOP);
        // It comes back when that one stands still.
        let stopped = waitpid(Some(pid(self.lives[index])), WaitOptions::UNTRACED);
        let is_over = |(_, status): (Pid, WaitStatus)| status.stopping_signal().is_none();
        if stopped.expect("it is a child").is_none_or(is_over) {
            return self.oracle.fault(&format!("number {index} ended by itself"));
        }
        let held = || index.checked_sub(SENDERS).map(|receiver| self.oracle.held(receiver));
        let before = held();
        std::thread::sleep(time);
        if held() != before {
            self.oracle.fault("what a stopped receiver had came to another");
        }
        self.signal(index, Signal::CONT);
    }

    fn signal(&self, index: usize, signal: Signal) {
        kill_process(pid(self.lives[index]), signal).expect("it is there");
    }

    /// Waits until one is over by itself.
    fn finish(&self, index: usize) {
        let end = Instant::now() + LIMIT;
        loop {
            let status = waitpid(Some(pid(self.lives[index])), WaitOptions::NOHANG);
            match status.expect("it is a child") {
                Some((_, status)) if status.exit_status() == Some(0) => return,
                Some((_, status)) => panic!("number {index} failed: {status:?}"),
                None => assert!(Instant::now() < end, "number {index} hangs"),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The trial.
pub(crate) fn sweep(tally: &Tally) -> Result<(), String> {
    let rounds = if is_long() { LONG } else { SHORT };
    let set = std::env::var("POSTE_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let (mut committed, mut again, mut stops, mut times) = (0, 0, 0, Vec::new());
    for round in 0..set.unwrap_or(rounds) {
        let house = House::new();
        let (live, file) = (house.live(), house.copy().join("oracle"));
        let oracle = Oracle::new(&file);
        let words = [&file.to_string_lossy(), &*KILLS.to_string(), &*round.to_string()];
        let mut killer = Partner::start(&live, "kill", &words);
        let told = killer.hear_within(LIMIT * 10).map_err(|f| format!("round {round}: {f}"))?;
        stops += told.parse::<u64>().unwrap_or(0);
        killer.kill();
        tally.count_kills(KILLS);
        let judged = oracle.judge().map_err(|fault| format!("round {round}: {fault}"))?;
        (committed, again) = (committed + judged.0, again + judged.1);
        oracle.add_times(&mut times);
        let half_made = leftovers(&live)?;
        if half_made > 0 {
            return Err(format!("round {round}: {half_made} half-made files are left"));
        }
        if judged.0 == 0 {
            return Err(format!("round {round} did nothing"));
        }
        if round % 20 == 19 {
            println!("random: {} rounds", round + 1);
        }
    }
    println!(
        "random: {} kills and {stops} stops, {committed} messages committed, {again} came again; \
         what a killed receiver had came again {} times within {} ms (half of them) and {} ms (99 of \
         100)",
        set.unwrap_or(rounds) * KILLS,
        times.iter().sum::<u64>(),
        percentile(&times, 50),
        percentile(&times, 99),
    );
    Ok(())
}
