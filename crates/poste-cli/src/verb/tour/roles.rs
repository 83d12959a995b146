//! What a peer of the tour does: a process of its own, or for `local` a thread.
//!
//! Peers wait in plain blocking calls; the tour itself keeps the deadlines, and ends them.

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use poste::envelope::BLOCK;
use poste::{Kind, Level, Outgoing, Receiver, Sender, Unit};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use super::ledger::{self, BODY_MIN, Fault, PRIORITIES};
use super::report::Report;

/// The size of the messages that are measured, in bytes.
pub(super) const SIZE: usize = 64;

/// Round trips before those that are measured.
const WARM_UP: u32 = 200;

/// From here on it is measured. (No body of the ledger, and none of [`SIZE`], is so short.)
const MARK: &[u8] = b"tour mark";
/// It is over.
pub(super) const STOP: &[u8] = b"tour stop";

/// How often the end is said where it may be lost, and the pause between, so that room comes free.
const STOPS: (u32, Duration) = (50, Duration::from_millis(2));

/// Writers that may lose messages pause after so many, for so long: a receiver's buffer of the usual
/// 212,992 bytes holds about a hundred.
const BURST: (u32, Duration) = (8, Duration::from_millis(1));

/// What a peer is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Sends back whatever comes: `done PROCESSOR_NS`.
    Echo,
    /// Measures round trips to an echo: `done ROUND_TRIPS MEDIAN_NS PROCESSOR_NS`.
    Ping,
    /// Sends small messages for a time: `done MESSAGES PROCESSOR_NS`.
    Stream,
    /// Receives and checks those: `done RECEIVED LOST ELAPSED_NS PROCESSOR_NS`.
    Sink,
    /// Sends so many messages of several sizes: `done MESSAGES`.
    Write,
    /// Sends messages of several sizes until it is killed; says how many the channel took.
    Victim,
    /// Sends messages of several priorities: `done MESSAGES HIGHEST`.
    Urgent,
    /// Sends the largest message, then a larger one: `done SIZE LIMIT`.
    Large,
}

/// A role and what it needs to know.
#[derive(Args, Clone, Debug)]
pub(crate) struct Task {
    /// What to do
    pub role: Role,
    /// Which of several writers it is
    #[arg(long, default_value_t = 0)]
    pub number: u32,
    /// How many messages
    #[arg(long, default_value_t = 0)]
    pub count: u32,
    /// For how long
    #[arg(long, default_value_t = 0)]
    pub milliseconds: u64,
    /// The processor to stay on
    #[arg(long)]
    pub processor: Option<usize>,
    /// The mechanism may lose messages
    #[arg(long)]
    pub may_lose: bool,
}

impl Task {
    /// A role with nothing more to know.
    pub(super) fn new(role: Role) -> Task {
        let may_lose = false;
        Task { role, number: 0, count: 0, milliseconds: 0, processor: None, may_lose }
    }
}

/// How a peer gets at its ends, and to whom it reports.
pub(super) struct Stage<'a> {
    /// Opens the end that receives.
    pub open_receiver: Box<dyn FnOnce() -> Result<Receiver, poste::Error> + 'a>,
    /// Opens the end that sends; `None`: the first message that comes says where to.
    pub open_sender: Option<Box<dyn FnOnce() -> Result<Sender, poste::Error> + 'a>>,
    /// Takes what the peer has to say.
    pub say: &'a dyn Fn(&Report),
}

/// Does a task to its end.
pub(super) fn play(task: &Task, stage: Stage<'_>) -> Result<(), Fault> {
    if let Some(processor) = task.processor {
        stay_on(processor)?;
    }
    let say = stage.say;
    let numbers = match task.role {
        Role::Echo | Role::Ping | Role::Sink => converse(task, stage)?,
        _ => send(task, stage)?,
    };
    say(&Report::Done(numbers));
    Ok(())
}

fn stay_on(processor: usize) -> Result<(), Fault> {
    let mut processors = CpuSet::new();
    processors.set(processor);
    sched_setaffinity(None, &processors)
        .map_err(|errno| Fault(format!("cannot stay on processor {processor}: {errno}")))
}

fn converse(task: &Task, stage: Stage<'_>) -> Result<Vec<u64>, Fault> {
    let mut receiver = (stage.open_receiver)()?;
    (stage.say)(&Report::Ready(receiver.address().to_string()));
    if task.role == Role::Sink {
        return sink(&mut receiver, task.may_lose);
    }
    if task.role == Role::Echo {
        let open = stage.open_sender.ok_or_else(nowhere)?;
        let mut sender = open()?;
        sender.send(&receiver.address().to_string())?;
        return echo(&mut receiver, &mut sender);
    }
    let hello = receiver.recv()?.text()?.to_owned();
    let mut sender = match stage.open_sender {
        Some(open) => open()?,
        None => Sender::open(hello)?,
    };
    ping(&mut receiver, &mut sender, Duration::from_millis(task.milliseconds))
}

fn send(task: &Task, stage: Stage<'_>) -> Result<Vec<u64>, Fault> {
    let open = stage.open_sender.ok_or_else(nowhere)?;
    let mut sender = open()?;
    let numbers = match task.role {
        Role::Stream => stream(&mut sender, task)?,
        Role::Write => write(&mut sender, task)?,
        Role::Victim => victim(&mut sender, task, stage.say)?,
        Role::Urgent => urgent(&mut sender)?,
        _ => large(&mut sender, task.may_lose)?,
    };
    sender.close()?;
    Ok(numbers)
}

fn nowhere() -> Fault {
    Fault::new("this role needs somewhere to send")
}

fn echo(receiver: &mut Receiver, sender: &mut Sender) -> Result<Vec<u64>, Fault> {
    let mut begun = processor_time();
    loop {
        let message = receiver.recv()?;
        match &*message {
            STOP => return Ok(vec![processor_time() - begun]),
            MARK => begun = processor_time(),
            _ => {}
        }
        sender.send(Outgoing::from(&message).priority(message.priority()))?;
    }
}

fn ping(receiver: &mut Receiver, sender: &mut Sender, time: Duration) -> Result<Vec<u64>, Fault> {
    let mut round = |body: &[u8]| -> Result<u64, Fault> {
        let begun = Instant::now();
        sender.send(body)?;
        let answer = receiver.recv()?;
        let elapsed = begun.elapsed();
        if *answer != *body {
            return Err(Fault::new("on a round trip another message came back"));
        }
        Ok(elapsed.as_nanos() as u64)
    };
    let mut body = [0x5a; SIZE];
    for _ in 0..WARM_UP {
        round(&body)?;
    }
    round(MARK)?;
    let (begun, processor) = (Instant::now(), processor_time());
    let mut times = Vec::new();
    while times.is_empty() || begun.elapsed() < time {
        body[..8].copy_from_slice(&times.len().to_le_bytes());
        times.push(round(&body)?);
    }
    let processor = processor_time() - processor;
    sender.send(STOP)?;
    times.sort_unstable();
    Ok(vec![times.len() as u64, times[times.len() / 2], processor])
}

/// What a streamed message contains: its number, and the same inverted, in turn.
fn numbered(number: u64) -> [u8; SIZE] {
    let mut body = [0; SIZE];
    for (place, word) in body.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&if place % 2 == 0 { number } else { !number }.to_le_bytes());
    }
    body
}

fn stream(sender: &mut Sender, task: &Task) -> Result<Vec<u64>, Fault> {
    let (begun, processor) = (Instant::now(), processor_time());
    let time = Duration::from_millis(task.milliseconds);
    let mut number: u64 = 0;
    while !number.is_multiple_of(16) || begun.elapsed() < time {
        sender.send(&numbered(number))?;
        number += 1;
    }
    sender.flush()?;
    let processor = processor_time() - processor;
    let stop = [STOP, &number.to_le_bytes()].concat();
    for time in 0..if task.may_lose { STOPS.0 } else { 1 } {
        if time > 0 {
            std::thread::sleep(STOPS.1);
        }
        match sender.send(&stop) {
            // The sink heard an earlier one, and has gone.
            Err(error) if time > 0 && error.kind() == Kind::NoReceiver => break,
            sent => sent?,
        };
    }
    Ok(vec![number, processor])
}

fn sink(receiver: &mut Receiver, may_lose: bool) -> Result<Vec<u64>, Fault> {
    let (mut received, mut lost, mut next) = (0, 0, 0);
    let mut begun = (Instant::now(), processor_time());
    loop {
        let message = receiver.recv()?;
        if let Some(total) = message.strip_prefix(STOP) {
            let elapsed = begun.0.elapsed().as_nanos() as u64;
            let processor = processor_time() - begun.1;
            let total = total.try_into().map_or(u64::MAX, u64::from_le_bytes);
            lost += total - next;
            return match lost {
                1.. if !may_lose => Err(Fault(format!("{lost} of {total} messages are missing"))),
                _ => Ok(vec![received, lost, elapsed, processor]),
            };
        }
        let number = message.first_chunk().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes));
        if *message != numbered(number) {
            return Err(Fault(format!("the message after number {next} holds wrong bytes")));
        }
        if number < next || (number > next && !may_lose) {
            return Err(Fault(format!("message {number} came where {next} should have come")));
        }
        if received == 0 {
            // What waiting for the first one takes, the start of a process, is not counted.
            begun = (Instant::now(), processor_time());
        }
        lost += number - next;
        received += 1;
        next = number + 1;
    }
}

fn write(sender: &mut Sender, task: &Task) -> Result<Vec<u64>, Fault> {
    let size_max = sender.facts().message_size;
    let size_of = |index| ledger::size_of(index, size_max, task.may_lose);
    let mut body = Vec::new();
    for index in 0..task.count {
        ledger::write(&mut body, task.number, index, size_of(index));
        sender.send(&body)?;
        if task.may_lose && index % BURST.0 == BURST.0 - 1 {
            std::thread::sleep(BURST.1);
        }
    }
    Ok(vec![u64::from(task.count)])
}

fn victim(sender: &mut Sender, task: &Task, say: &dyn Fn(&Report)) -> Result<Vec<u64>, Fault> {
    let size_max = sender.facts().message_size;
    let size_of = |index| ledger::size_of(index, size_max, task.may_lose);
    let mut body = Vec::new();
    for index in 0.. {
        ledger::write(&mut body, task.number, index, size_of(index));
        if sender.send(&body)? >= Level::Queued {
            say(&Report::Sent(index + 1));
        }
    }
    Err(Fault::new("it ran out of numbers"))
}

fn urgent(sender: &mut Sender) -> Result<Vec<u64>, Fault> {
    let facts = sender.facts();
    let counts_messages = sender.capabilities().capacity == Some(Unit::Messages);
    let holds = facts.capacity.filter(|_| counts_messages).unwrap_or(usize::MAX);
    let priorities = priorities(holds, facts.priority_max);
    let mut body = Vec::new();
    for (index, priority) in (0..).zip(&priorities) {
        ledger::write(&mut body, 0, index, BODY_MIN);
        sender.send(Outgoing::from(&body).priority(*priority))?;
    }
    Ok(vec![priorities.len() as u64, u64::from(facts.priority_max)])
}

/// Which priorities are sent: several, the mechanism's highest last, and no more than the channel
/// holds, since the receiver waits until all are there.
pub(super) fn priorities(holds: usize, highest: u16) -> Vec<u16> {
    let mut priorities = PRIORITIES.to_vec();
    priorities.push(highest);
    priorities.drain(..priorities.len().saturating_sub(holds));
    priorities
}

fn large(sender: &mut Sender, may_lose: bool) -> Result<Vec<u64>, Fault> {
    let facts = sender.facts();
    let limit = facts.message_size;
    // Of several pieces one may be lost, and with it the message: one piece is what can be proved.
    let size = if may_lose { limit.min(facts.piece_size - 2 * BLOCK) } else { limit };
    let mut body = Vec::new();
    ledger::write(&mut body, 0, 0, size);
    sender.send(&body)?;
    body.resize(limit + 1, 0);
    match sender.send(&body).map_err(|error| (error.kind(), error)) {
        Err((Kind::TooLarge { limit: named, .. }, _)) if named == limit as u64 => {
            Ok(vec![size as u64, limit as u64])
        }
        Err((_, error)) => Err(Fault(format!("{} bytes: the wrong error: {error}", limit + 1))),
        Ok(_) => Err(Fault(format!("{} bytes were taken, one more than the limit", limit + 1))),
    }
}

/// The processor time that this thread has taken so far, user and system, in nanoseconds.
fn processor_time() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_sees_what_is_missing_or_wrong() {
        let sunk = |numbers: &[u64], total: u64, may_lose: bool| {
            let (mut sender, mut receiver) = poste::local().unwrap();
            for &number in numbers {
                sender.send(&numbered(number)).unwrap();
            }
            sender.send(&[STOP, &total.to_le_bytes()].concat()).unwrap();
            sink(&mut receiver, may_lose)
        };
        assert_eq!(sunk(&[0, 1], 2, false).unwrap()[..2], [2, 0]);
        assert!(sunk(&[0, 1], 3, false).is_err());
        assert!(sunk(&[0, 2], 3, false).is_err());
        assert!(sunk(&[1, 0], 2, true).is_err());
        assert_eq!(sunk(&[0, 2], 5, true).unwrap()[..2], [2, 3]);
        let (mut sender, mut receiver) = poste::local().unwrap();
        sender.send(&[7; SIZE]).unwrap();
        assert!(sink(&mut receiver, false).is_err());
    }

    #[test]
    fn a_ping_sees_another_answer() {
        let (mut sender, _receiver) = poste::local().unwrap();
        let (mut other, mut answers) = poste::local().unwrap();
        other.send(&[1; SIZE]).unwrap();
        assert!(ping(&mut answers, &mut sender, Duration::ZERO).is_err());
    }

    #[test]
    fn priorities_fit_into_the_channel_with_the_highest_among_them() {
        for (holds, count) in [(usize::MAX, 8), (10, 8), (4, 4)] {
            let sent = priorities(holds, 99);
            assert_eq!((sent.len(), sent.last()), (count, Some(&99)));
            assert_eq!(priorities(sent.len(), 99), sent);
        }
    }
}
