//! A peer killed before any of its system calls tears nothing and blocks nobody: the survivor never
//! hangs, and what the dead one said it had sent arrives, in order, without gaps.
//!
//! strace kills it: `-e inject=all:signal=KILL:when=N` counts system calls for each thread.

use std::path::Path;
use std::time::{Duration, Instant};

use poste::Kind;

use super::PATIENCE;
use crate::cell::{Cell, Clause, Form, is_long};
use crate::fixture::Channel;
use crate::letters::{Checker, Letters};
use crate::worker::{Job, Worker};

/// A writer is killed; its receiver, and the writers after it, go on.
pub(crate) static WRITER: Clause = Clause {
    name: "writer_killed",
    applies: in_processes,
    needs: &["strace"],
    run: writer,
    ..Clause::PLAIN
};

/// A reader is killed; its sender doesn't hang.
pub(crate) static READER: Clause = Clause {
    name: "reader_killed",
    applies: in_processes,
    needs: &["strace"],
    run: reader,
    ..Clause::PLAIN
};

fn in_processes(capabilities: &poste::Capabilities, form: Form) -> bool {
    form == Form::Enveloped && capabilities.identity != poste::Identity::SameProcess
}

/// How many letters the one to be killed has to do with.
const COUNT: u32 = 6;

fn job(cell: &Cell) -> Job {
    let size_max = if cell.capabilities().pieces { 150_000 } else { 4000 };
    let letters = Letters { seed: cell.random().next(), size_max };
    let may_lose = cell.capabilities().may_lose;
    Job { letters, writer: 0, count: COUNT, storm: false, may_lose }
}

fn strace(arguments: &[&str]) -> Vec<String> {
    ["strace", "-f", "-qq"].iter().chain(arguments).map(|word| (*word).to_owned()).collect()
}

fn kill_at(when: usize) -> Vec<String> {
    let inject = format!("inject=all:signal=KILL:when={when}");
    strace(&["-o", "/dev/null", "-e", "trace=none", "-e", &inject])
}

/// Which system calls are to be tried: those between the mark that a helper makes before it opens
/// its end and its last one; in the short form some of them.
fn moments(cell: &Cell, trace: &Path) -> Vec<usize> {
    let text = std::fs::read_to_string(trace).expect("strace wrote a trace");
    let thread = text.split_whitespace().next().expect("a trace has lines");
    let calls: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix(thread))
        .filter(|line| !line.contains("resumed>") && !line.contains("+++"))
        .filter(|line| !line.trim_start().starts_with("---"))
        .collect();
    let mark = calls.iter().position(|call| call.contains("getppid(")).expect("the mark");
    let mut moments: Vec<_> = (mark + 2..=calls.len()).collect();
    if !is_long() {
        cell.random().shuffle(&mut moments);
        moments.truncate(12);
    }
    moments
}

fn writer(cell: &Cell) {
    let job = job(cell);
    let trace = {
        // The way of one that nobody kills.
        let channel = cell.channel();
        let (sender, receiver) = channel.open();
        let trace = channel.folder().join("trace");
        let tracer = strace(&["-o", &trace.to_string_lossy()]);
        let worker = Worker::spawn(&mut Worker::writer_command(&channel, || sender, job, &tracer));
        survive_writer(cell, &channel, receiver, worker, job);
        moments(cell, &trace)
    };
    for when in trace {
        let channel = cell.channel();
        let (sender, receiver) = channel.open();
        let tracer = kill_at(when);
        let worker = Worker::spawn(&mut Worker::writer_command(&channel, || sender, job, &tracer));
        survive_writer(cell, &channel, receiver, worker, job);
    }
}

/// Receives what a writer sends that may die at any moment, and then from the next one.
fn survive_writer(
    cell: &Cell,
    channel: &Channel,
    mut receiver: poste::Receiver,
    mut worker: Worker,
    job: Job,
) {
    let capabilities = cell.capabilities();
    let mut checker = Checker::new(job.letters, 1, job.may_lose);
    let end = Instant::now() + PATIENCE;
    let mut was_over = false;
    loop {
        let wait = Duration::from_millis(if was_over { 30 } else { 5 });
        match receiver.recv_timeout(wait) {
            Ok(message) => checker.check(&message, message.sequence()),
            Err(error) if error.kind() == Kind::Disconnected => break,
            Err(error) if error.kind() == Kind::TimedOut && was_over => break,
            Err(error) if error.kind() == Kind::TimedOut => {
                was_over = worker.ends_within(Duration::ZERO)
            }
            Err(error) => panic!("{error}"),
        }
        assert!(Instant::now() < end, "it neither ends nor sends: {}", worker.log());
    }
    let is_whole = worker.end();
    let sent = worker.count("sent");
    assert!(is_whole || worker.count("done") == 0 || sent == COUNT as usize, "{}", worker.log());
    if !capabilities.may_lose {
        let arrived = checker.seen_of(0) as usize;
        assert!(arrived >= sent, "{sent} were sent, {arrived} arrived: {}", worker.log());
        assert!(!is_whole || arrived == COUNT as usize);
    }
    if channel.has_address() {
        let mut next = channel.sender();
        next.send_timeout("next", PATIENCE).expect("the next one sends");
        let message = receiver.recv_timeout(PATIENCE).expect("the next one's message arrives");
        assert_eq!(&message[..], b"next");
    }
}

fn reader(cell: &Cell) {
    let job = job(cell);
    let to_read = Job { writer: 1, ..job };
    let trace = {
        let channel = cell.channel();
        let trace = channel.folder().join("trace");
        let tracer = strace(&["-o", &trace.to_string_lossy()]);
        survive_reader(cell, &channel, &tracer, to_read);
        moments(cell, &trace)
    };
    for when in trace {
        survive_reader(cell, &cell.channel(), &kill_at(when), to_read);
    }
}

/// Sends to a reader that may die at any moment.
fn survive_reader(cell: &Cell, channel: &Channel, tracer: &[String], job: Job) {
    let (mut worker, sender);
    if channel.has_address() {
        let unused = || unreachable!("it opens its own");
        worker = Worker::spawn(&mut Worker::reader_command(channel, unused, job, tracer));
        match worker.hear("at ") {
            Some(address) => channel.is_at(address),
            // It died before it could say where it is: there may be something to remove.
            None => channel.is_at(channel.address().to_owned()),
        }
        sender = poste::Sender::open(channel.address()).ok();
    } else {
        let (sending, receiver) = channel.open();
        worker = Worker::spawn(&mut Worker::reader_command(channel, || receiver, job, tracer));
        sender = Some(sending);
    }
    let start = Instant::now();
    let wait = Duration::from_millis(300);
    if let Some(mut sender) = sender {
        for index in 0..COUNT * 3 {
            match sender.send_timeout(&job.letters.letter(0, index), wait) {
                Ok(_) => {}
                Err(error) => {
                    let kind = error.kind();
                    let is_known = matches!(
                        kind,
                        Kind::Disconnected | Kind::NoReceiver | Kind::TimedOut | Kind::Full
                    );
                    assert!(is_known, "{error}");
                    break;
                }
            }
        }
        // It goes away without a fuss, too.
        drop(sender);
    }
    assert!(start.elapsed() < PATIENCE, "the sender was held up for {:?}", start.elapsed());
    if !worker.ends_within(wait * 3) && !cell.capabilities().may_lose {
        // A reader that nobody killed has read all of its letters, or its sender knows why not.
        let got = worker.count("got");
        assert_ne!(got, COUNT as usize, "it read all and hangs: {}", worker.log());
    }
}
