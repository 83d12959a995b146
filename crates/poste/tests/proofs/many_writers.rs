//! 32 processes write messages of 1 to 20,000 bytes into one channel at once: none is lost, torn,
//! or out of its writer's order.
//!
//! The receiver knows every byte of every message: a message's first byte says who wrote it, and
//! the rest is a stretch of noise that depends on the writer and the message's number.

use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use poste::{Kind, Receiver, Sender};

use crate::again::{Helper, LIMIT, command, is_long};
use crate::place::Place;

const WRITERS: u8 = 32;
const SIZE_MAX: usize = 20_000;

/// One trial for each kind of channel that many write into.
pub(crate) fn trials() -> Vec<Trial> {
    let trial = |scheme: &'static str| {
        Trial::test(format!("many_writers::{scheme}"), move || {
            run(scheme);
            Ok(())
        })
    };
    ["fifo", "unix", "mq", "sysv"].into_iter().map(trial).collect()
}

fn run(scheme: &str) {
    let start = Instant::now();
    let place = Place::new(scheme);
    let mut receiver = Receiver::create(&place.address).unwrap();
    // Up to the queue's own limit, where that is lower.
    let size_max = Sender::open(&place.address).unwrap().facts().message_size.min(SIZE_MAX);
    let job = Job { writer: 0, count: if is_long() { 10_000 } else { 200 }, size_max };
    let start_one = |writer| {
        let job = Job { writer, ..job };
        Helper::start(command("write", &[&place.address, &job.print()]))
    };
    let helpers: Vec<_> = (0..WRITERS).map(start_one).collect();

    let noise = noise();
    let (mut next, mut expected) = ([0; WRITERS as usize], Vec::new());
    for received in 0..u64::from(WRITERS) * job.count {
        let message = match receiver.recv_timeout(LIMIT) {
            Ok(message) => message,
            Err(error) => panic!("after {received} messages, {next:?}: {error:?}"),
        };
        let writer = message[0];
        let number = &mut next[usize::from(writer)];
        Job { writer, ..job }.compose(*number, &noise, &mut expected);
        assert!(
            message[..] == expected[..],
            "instead of message {number} of writer {writer}, {} bytes, came one of {} bytes",
            expected.len(),
            message.len()
        );
        *number += 1;
        assert_eq!(message.sequence(), *number);
    }
    helpers.into_iter().for_each(Helper::finish);

    assert!(next.iter().all(|count| *count == job.count));
    let error = receiver.recv_timeout(Duration::from_millis(20)).unwrap_err();
    assert_eq!(error.kind(), Kind::TimedOut, "one too many came");
    let counters = receiver.counters();
    assert_eq!((counters.corrupt, counters.unfinished, counters.lost), (0, 0, 0));
    if is_long() {
        let megabytes = counters.bytes >> 20;
        println!("{scheme}: {megabytes} MiB from {WRITERS} writers in {:.1?}", start.elapsed());
    }
}

/// A writing process.
pub(crate) fn write(address: &str, job: &str) {
    let (job, noise) = (Job::parse(job), noise());
    let mut sender = Sender::open(address).unwrap();
    let mut body = Vec::new();
    for number in 0..job.count {
        job.compose(number, &noise, &mut body);
        sender.send(&body).unwrap();
    }
    sender.close().unwrap();
}

/// What one writer has to do.
#[derive(Clone, Copy)]
struct Job {
    writer: u8,
    count: u64,
    size_max: usize,
}

impl Job {
    fn print(&self) -> String {
        format!("{} {} {}", self.writer, self.count, self.size_max)
    }

    fn parse(text: &str) -> Job {
        let numbers: Vec<u64> = text.split(' ').map(|number| number.parse().unwrap()).collect();
        Job { writer: numbers[0] as u8, count: numbers[1], size_max: numbers[2] as usize }
    }

    /// Makes the message of a number. The first two have the least and the largest size.
    fn compose(&self, number: u64, noise: &[u8], body: &mut Vec<u8>) {
        let random = mix(u64::from(self.writer) << 32 | number);
        let size = match number {
            0 => 1,
            1 => self.size_max,
            _ => 1 + (random >> 32) as usize % self.size_max,
        };
        let at = random as usize % NOISE;
        body.clear();
        body.push(self.writer);
        body.extend_from_slice(&noise[at..at + size - 1]);
    }
}

/// So many stretches of noise there are.
const NOISE: usize = 1 << 16;

fn noise() -> Vec<u8> {
    (0..NOISE + SIZE_MAX).map(|at| mix(at as u64) as u8).collect()
}

/// A step of SplitMix64: neighbouring numbers become unlike ones.
fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}
