//! A peer killed before any of its system calls tears nothing and blocks nobody: the survivor never
//! hangs, and what the dead one said it had sent arrives, in order, without gaps.
//!
//! strace kills it, before the call is made: `-e inject=CALL:signal=KILL:when=N` counts the calls of
//! each name, of each thread (with `all` too: N is not the Nth call of any name).

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

/// A reader is killed; its sender doesn't hang, and the next reader has its place.
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

/// A system call by its name and its place among those of this name, from 1.
type Moment = (String, usize);

fn kill_at((call, when): &Moment) -> Vec<String> {
    let inject = format!("inject={call}:signal=KILL:when={when}");
    // Not with trace=none: what is not traced is not struck.
    strace(&["-o", "/dev/null", "-e", &inject])
}

/// Which system calls are to be tried: those after the mark that a helper makes before it opens its
/// end; in the short form some of them.
fn moments(cell: &Cell, trace: &Path) -> Vec<Moment> {
    let text = std::fs::read_to_string(trace).expect("strace wrote a trace");
    let thread = text.split_whitespace().next().expect("a trace has lines");
    let calls = text.lines().filter_map(|line| line.strip_prefix(thread));
    let calls = calls.filter_map(|line| line.trim_start().split_once('(').map(|(call, _)| call));
    let is_name =
        |call: &&str| call.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let calls: Vec<_> = calls.filter(is_name).collect();
    let mark = calls.iter().position(|call| *call == "getppid").expect("the mark");
    let place = |index: usize| {
        let of_this_name = calls[..=index].iter().filter(|call| **call == calls[index]);
        (calls[index].to_owned(), of_this_name.count())
    };
    let mut moments: Vec<_> = (mark + 1..calls.len()).map(place).collect();
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
    let mut killed = 0;
    for when in trace {
        let channel = cell.channel();
        let (sender, receiver) = channel.open();
        let tracer = kill_at(&when);
        let worker = Worker::spawn(&mut Worker::writer_command(&channel, || sender, job, &tracer));
        killed += usize::from(!survive_writer(cell, &channel, receiver, worker, job));
    }
    assert!(killed > 0, "nobody was killed");
}

/// Receives what a writer sends that may die at any moment, and then from the next one: whether the
/// first one lived.
fn survive_writer(
    cell: &Cell,
    channel: &Channel,
    mut receiver: poste::Receiver,
    mut worker: Worker,
    job: Job,
) -> bool {
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
    is_whole
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
    let mut killed = 0;
    for when in trace {
        killed += usize::from(!survive_reader(cell, &cell.channel(), &kill_at(&when), to_read));
    }
    assert!(killed > 0, "nobody was killed");
}

/// Sends to a reader that may die at any moment: whether it lived.
fn survive_reader(cell: &Cell, channel: &Channel, tracer: &[String], job: Job) -> bool {
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
    if !worker.ends_within(wait * 3) {
        // A reader that nobody killed has read all of its letters, where none may be lost.
        let got = worker.count("got");
        assert!(got < COUNT as usize, "it read all and hangs: {}", worker.log());
        assert!(cell.capabilities().may_lose, "it read {got} and hangs: {}", worker.log());
        return true;
    }
    let is_whole = worker.end();
    if channel.has_address() {
        succeed(channel);
    }
    is_whole
}

/// The next receiver has the place of the dead one, and of what lies there what was not received.
fn succeed(channel: &Channel) {
    let mut receiver = channel.receiver();
    let mut left = 0;
    while receiver.recv_timeout(Duration::from_millis(30)).is_ok() {
        left += 1;
    }
    assert!(left <= 3 * COUNT, "{left} were left of what was sent");
    // The kernel may have chosen it another port, where the dead one didn't live to have one.
    let address = receiver.address().to_string();
    let mut next = poste::Sender::open_with(address, &channel.options()).expect("it is there");
    next.send_timeout("next", PATIENCE).expect("there is room again");
    let message = receiver.recv_timeout(PATIENCE).expect("the next one's message arrives");
    assert_eq!(&message[..], b"next");
}
