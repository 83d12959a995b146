//! Connections that say nothing hinder nobody: two thousand silent ones beside one that speaks, and
//! more than this process may have descriptors.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use poste::{Error, Kind, Message, OwnedMessage, Peers, Receiver, Sender};
use poste_sys::testing::skip;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::again::{Helper, LIMIT, command};
use crate::place::Place;

/// The trials for each mechanism that has connections.
pub(crate) fn trials() -> Vec<Trial> {
    let runs = [
        ("thousands_are_silent", thousands_are_silent as fn(&str, &str)),
        ("more_than_there_are_descriptors", |name, scheme| cramp(name, scheme, WAITING)),
        ("more_than_there_are_descriptors_polled", |name, scheme| cramp(name, scheme, POLLING)),
    ];
    let mut trials = Vec::new();
    for scheme in ["unix", "seqpacket", "tcp"] {
        for (name, run) in runs {
            let name = format!("connections::{name}::{scheme}");
            trials.push(Trial::test(name.clone(), move || {
                // One at a time: the limit on descriptors is this whole process's.
                static ALONE: Mutex<()> = Mutex::new(());
                let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
                run(&name, scheme);
                Ok(())
            }));
        }
    }
    trials
}

const SILENT: usize = 2000;

fn thousands_are_silent(name: &str, scheme: &str) {
    if !raise_limit(SILENT + 100) {
        return skip(name, "this process may not open 2,100 descriptors (ulimit -Hn)");
    }
    let place = Place::new(scheme);
    let mut receiver = Receiver::create(&place.address).unwrap();
    let address = receiver.address().to_string();
    let mut command = command("crowd", &[&address, &SILENT.to_string()]);
    command.stdin(Stdio::piped());
    let mut helper = Helper::start(command);
    for number in 0..100_u8 {
        assert_eq!(receiver.recv_timeout(LIMIT).unwrap()[..], [number]);
    }
    assert_eq!(receiver.facts().peers, Peers::Present(SILENT + 1));
    drop(helper.0.stdin.take());
    helper.finish();
    let end = receiver.recv_timeout(Duration::from_millis(300)).unwrap_err();
    assert_eq!((end.kind(), receiver.facts().peers), (Kind::TimedOut, Peers::AllGone));
    assert_eq!(receiver.counters().connections, SILENT as u64 + 1);
}

/// The process that has the connections, until its standard input ends.
pub(crate) fn crowd(address: &str, count: &str) {
    let count: usize = count.parse().unwrap();
    assert!(raise_limit(count + 100));
    let _silent: Vec<_> = (0..count).map(|_| Sender::open(address).unwrap()).collect();
    let mut one = Sender::open(address).unwrap();
    for number in 0..100_u8 {
        one.send(&[number]).unwrap();
    }
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// So many descriptors the receiving process may have, and so many connections there are.
const DESCRIPTORS: u64 = 32;
const FLOOD: usize = 100;

/// The receiver waits in its own calls.
const WAITING: &str = "waiting";
/// It waits on its descriptor, and then takes what is there.
const POLLING: &str = "polling";

fn cramp(name: &str, scheme: &str, manner: &str) {
    if !raise_limit(FLOOD + 100) {
        return skip(name, "this process may not open 200 descriptors (ulimit -Hn)");
    }
    let place = Place::new(scheme);
    let mut command = command("cramped", &[&place.address, manner]);
    command.stdout(Stdio::piped());
    let mut helper = Helper::start(command);
    let mut says = BufReader::new(helper.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let address = says.next().expect("it says where it is");

    let mut early = Sender::open(&address).unwrap();
    let flood: Vec<_> = (0..FLOOD).map(|_| Sender::open(&address).unwrap()).collect();
    let mut late = Sender::open(&address).unwrap();
    late.send("late").unwrap();
    early.send("early").unwrap();
    assert_eq!(says.next().as_deref(), Some("it is quiet"));
    drop(flood);
    assert_eq!(says.next().as_deref(), Some("all came"));
    helper.finish();
}

/// The process that may have few descriptors. What it waits for ends it, so that the trial, which
/// reads what it says, doesn't wait longer than that.
pub(crate) fn receive_cramped(address: &str, manner: &str) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(DESCRIPTORS), maximum }).unwrap();
    let receive = if manner == POLLING { receive_polling } else { receive_waiting };
    let mut receiver = Receiver::create(address).unwrap();
    say(&receiver.address().to_string());
    // Who is in is served, though not all are.
    assert_eq!(receive(&mut receiver, LIMIT).unwrap().text().unwrap(), "early");
    let Peers::Present(present) = receiver.facts().peers else { panic!("nobody is there") };
    assert!(present < DESCRIPTORS as usize, "{present} connections");

    let before = processor_time();
    let wait = Duration::from_secs(1);
    let nothing = receive(&mut receiver, wait).unwrap_err();
    assert!(matches!(nothing.kind(), Kind::TimedOut | Kind::Empty), "{nothing:?}");
    let took = processor_time() - before;
    assert!(took < wait / 20, "waiting for a descriptor took {took:?} of a second");
    say("it is quiet");

    assert_eq!(receive(&mut receiver, LIMIT).unwrap().text().unwrap(), "late");
    say("all came");
}

/// Waits in the receiver's own call.
fn receive_waiting(receiver: &mut Receiver, time: Duration) -> Result<OwnedMessage, Error> {
    receiver.recv_timeout(time).map(Message::into_owned)
}

/// As a program with a loop of its own does it: it looks only where the descriptor is readable.
fn receive_polling(receiver: &mut Receiver, time: Duration) -> Result<OwnedMessage, Error> {
    let end = Instant::now() + time;
    loop {
        let left = end.saturating_duration_since(Instant::now()).try_into().unwrap();
        let watched = PollFd::from_borrowed_fd(receiver.pollable().unwrap(), PollFlags::IN);
        if poll(&mut [watched], Some(&left)).unwrap() == 0 {
            return receiver.recv_timeout(Duration::ZERO).map(Message::into_owned);
        }
        match receiver.try_recv().map(Message::into_owned) {
            Err(error) if error.kind() == Kind::Empty => {}
            done => return done,
        }
    }
}

/// What this process has taken of its processors so far.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn say(line: &str) {
    let mut output = std::io::stdout();
    writeln!(output, "{line}").and_then(|()| output.flush()).expect("the trial listens");
}

/// Sees to it that this process may have so many descriptors: whether it may.
fn raise_limit(need: usize) -> bool {
    let mut limit = getrlimit(Resource::Nofile);
    let is_enough = |value: Option<u64>| value.is_none_or(|value| value >= need as u64);
    if !is_enough(limit.current) && is_enough(limit.maximum) {
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit).expect("up to the maximum it is allowed");
    }
    is_enough(limit.current)
}
