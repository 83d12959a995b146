//! Many writers at once, each a process of its own: nothing is lost, torn, or out of a writer's
//! order; where the mechanism may lose, what was received and what was counted as lost is what was
//! sent up to each writer's last letter that came.

use std::time::Duration;

use super::PATIENCE;
use crate::cell::{Cell, Clause, is_long};
use crate::letters::{Checker, Letters};
use crate::worker::{Job, Worker};

pub(crate) static CLAUSE: Clause = Clause {
    name: "many_senders",
    applies: |capabilities, form| capabilities.many_senders && form == crate::cell::Form::Enveloped,
    run,
    ..Clause::PLAIN
};

/// After so long, what may lose has lost what has not come.
const QUIET: Duration = Duration::from_millis(300);

fn run(cell: &Cell) {
    let (writers, count) = if is_long() { (32, 10_000) } else { (8, 500) };
    let channel = cell.channel();
    let (sender, mut receiver) = channel.open();
    let may_lose = cell.capabilities().may_lose;
    let letters =
        Letters { seed: cell.random().next(), size_max: sender.facts().message_size.min(20_000) };
    let job = Job { letters, writer: 0, count, storm: false, may_lose };
    let mut workers: Vec<_> = (0..writers)
        .map(|writer| Worker::writer(&channel, || channel.another(&sender), Job { writer, ..job }))
        .collect();
    drop(sender);
    let sent = u64::from(count) * u64::from(writers);
    let mut checker = Checker::new(letters, writers.into(), may_lose);
    let (wait, mut are_done) = (if may_lose { QUIET } else { PATIENCE }, false);
    while checker.received + receiver.counters().lost < sent {
        match receiver.recv_timeout(wait) {
            Ok(message) => checker.check(&message, message.sequence()),
            Err(_) if may_lose && are_done => break,
            Err(_) if may_lose => {
                are_done = workers.iter_mut().all(|worker| worker.ends_within(PATIENCE));
                assert!(are_done, "nobody holds them up");
            }
            Err(error) => {
                let missing = sent - checker.received;
                let logs: Vec<_> = workers.iter().map(Worker::log).collect();
                panic!("{error}; {missing} of {sent} are missing: {logs:?}")
            }
        }
    }
    workers.iter_mut().for_each(Worker::finish);
    let more = receiver.recv_timeout(Duration::from_millis(20));
    assert!(more.is_err(), "one too many came");
    let counters = receiver.counters();
    // Of what was lost at a writer's end, nothing tells: no letter came after it.
    let told: u64 = (0..writers).map(|writer| u64::from(checker.seen_of(writer))).sum();
    assert!(told > 0 && (told == sent || may_lose), "{told} of {sent}");
    assert_eq!(counters.messages + counters.lost, told);
    assert_eq!((counters.corrupt, may_lose || counters.lost == 0), (0, true));
    if !may_lose {
        assert_eq!(counters.unfinished, 0);
    }
}
