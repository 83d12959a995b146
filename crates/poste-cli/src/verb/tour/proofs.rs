//! What is proved of each mechanism, each by real messages between processes.
//!
//! The tour receives and keeps the book; its peers send. Every wait has a deadline.

use std::time::Duration;

use poste::mechanism::Mechanism;
use poste::{Error, Kind, Outgoing, Receiver, Sender};
use serde_json::{Value, json};

use super::ledger::{self, BODY_MIN, Fault, Ledger};
use super::peer::{ANSWER_MAX, Peer};
use super::roles::{Role, STOP, Task, priorities};
use super::ways::{self, In, Out};

/// How many processes write at once.
const WRITERS: u32 = 4;
/// How many messages each of them sends.
const EACH: u32 = 250;
/// How many messages the victim sends before it is killed.
const BEFORE_THE_KILL: u64 = 40;
/// How many the next writer sends.
const AFTER_THE_KILL: u32 = 20;
/// After so long nothing more comes; a message takes microseconds.
const QUIET: Duration = Duration::from_millis(100);
/// What may lose messages is given longer: a writer's start lies in it.
const SILENCE: Duration = Duration::from_millis(500);

/// What a proof found.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Proof {
    /// It can, so far.
    Can(String, Value),
    /// It cannot: it was refused as its capabilities say.
    Cannot(String, Value),
    /// There is nothing to prove.
    Open(Value),
}

/// One thing to be proved.
#[derive(Debug)]
pub(super) struct Subject {
    /// Its name in JSON.
    pub field: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// Its name in the table.
    pub header: &'static str,
    /// Proves it.
    pub prove: fn(&'static Mechanism) -> Result<Proof, Fault>,
}

/// Everything that is proved, in this order.
pub(super) static SUBJECTS: [Subject; 5] = [
    Subject {
        field: "channels_for_both_ways",
        title: "both ways",
        header: "both ways,\nchannels",
        prove: both_ways,
    },
    Subject {
        field: "writers",
        title: "many writers",
        header: "writers\nat once",
        prove: many_writers,
    },
    Subject {
        field: "highest_priority",
        title: "priorities",
        header: "highest\npriority",
        prove: highest_first,
    },
    Subject {
        field: "largest_message",
        title: "largest message",
        header: "largest\nmessage",
        prove: largest,
    },
    Subject {
        field: "after_a_killed_peer",
        title: "killed peer",
        header: "writer\nkilled",
        prove: killed_peer,
    },
];

/// Sends messages of several sizes to an echo, and compares what comes back.
fn both_ways(mechanism: &'static Mechanism) -> Result<Proof, Fault> {
    let [(from, to), (its_from, its_to)] = ways::two_ways(mechanism)?;
    let mut receiver = from.open()?;
    let its_to = its_to.at(receiver.address());
    let echo = Peer::start(mechanism, Task::new(Role::Echo), Some(its_from), its_to)?;
    let hello = receive(&mut receiver, &[&echo])?;
    let hello = String::from_utf8_lossy(&hello).into_owned();
    let mut sender = match to {
        Out::End(sender) => *sender,
        Out::Address(_) | Out::Hello => Sender::open(hello)?,
    };
    let size_max = sender.facts().message_size;
    for (index, size) in (0..).zip([0, 1, 64, 1000, 20_000, BODY_MIN]) {
        let mut body = Vec::new();
        ledger::write(&mut body, 0, index, size.min(size_max));
        body.truncate(size);
        sender.send_timeout(&body, ANSWER_MAX)?;
        let answer = receive(&mut receiver, &[&echo])?;
        if answer != body {
            let (sent, came) = (body.len(), answer.len());
            return Err(Fault(format!("of {sent} bytes {came} came back, not the same ones")));
        }
    }
    sender.send_timeout(Outgoing::from(STOP), ANSWER_MAX)?;
    echo.done::<1>(Duration::ZERO)?;
    let channels = ways::channels(mechanism);
    Ok(Proof::Can(channels.to_string(), json!(channels)))
}

/// Several processes write at once: nothing is lost, torn or out of order.
fn many_writers(mechanism: &'static Mechanism) -> Result<Proof, Fault> {
    let (mut receiver, mut door) = open(mechanism)?;
    let mut peers = Vec::new();
    for number in 0..WRITERS {
        let Some(to) = door.next()? else { break };
        let task = Task { number, count: EACH, ..Task::new(Role::Write) };
        peers.push(Peer::start(mechanism, task, None, to)?);
    }
    let writers = peers.len() as u32;
    let peers: Vec<_> = peers.iter().collect();
    let ledger = Ledger::new(mechanism.capabilities.may_lose);
    let ledger = take(&mut receiver, ledger, u64::from(writers * EACH), &peers)?;
    for peer in peers {
        peer.done::<1>(Duration::ZERO)?;
    }
    nothing_more(&mut receiver)?;
    let lost = ledger.close(writers, EACH)?.lost();
    match (writers, lost) {
        (1, _) => Ok(Proof::Cannot("1".to_owned(), json!(1))),
        (_, 0) => Ok(Proof::Can(writers.to_string(), json!(writers))),
        _ => Ok(Proof::Can(format!("{writers} −{lost}"), json!(writers))),
    }
}

/// A process sends several priorities; when all are there, the highest comes first.
fn highest_first(mechanism: &'static Mechanism) -> Result<Proof, Fault> {
    let (mut receiver, mut door) = open(mechanism)?;
    let to = door.next()?.ok_or_else(|| Fault::new("no writer is possible"))?;
    let peer = Peer::start(mechanism, Task::new(Role::Urgent), None, to)?;
    let [count, highest] = peer.done(Duration::ZERO)?;
    let mut came = Vec::new();
    for _ in 0..count {
        let message = receiver.recv_timeout(ANSWER_MAX)?;
        came.push((message.priority(), ledger::read(&message)?.1));
    }
    let sent = priorities(count as usize, highest as u16);
    ledger::highest_first(&sent, &came)?;
    Ok(Proof::Can(grouped(highest), json!(highest)))
}

/// A process sends a message of the largest size, and one byte more, which must be refused.
fn largest(mechanism: &'static Mechanism) -> Result<Proof, Fault> {
    let (mut receiver, mut door) = open(mechanism)?;
    let to = door.next()?.ok_or_else(|| Fault::new("no writer is possible"))?;
    let peer = Peer::start(mechanism, Task::new(Role::Large), None, to)?;
    let message = receive(&mut receiver, &[&peer])?;
    ledger::read(&message)?;
    let [size, _limit] = peer.done(Duration::ZERO)?;
    if message.len() as u64 != size {
        return Err(Fault(format!("of {size} bytes {} arrived", message.len())));
    }
    nothing_more(&mut receiver)?;
    Ok(Proof::Can(bytes(size), json!(size)))
}

/// A writer is killed while it sends: what it said was sent arrives, nothing is torn, and the next
/// writer is served, or the end is noticed where there is no next one.
fn killed_peer(mechanism: &'static Mechanism) -> Result<Proof, Fault> {
    if ways::is_inside(mechanism) {
        return Ok(Proof::Open(Value::Null));
    }
    let (mut receiver, mut door) = open(mechanism)?;
    let to = door.next()?.ok_or_else(|| Fault::new("no writer is possible"))?;
    let peer = Peer::start(mechanism, Task::new(Role::Victim), None, to)?;
    let ledger = Ledger::new(mechanism.capabilities.may_lose);
    let mut ledger = take(&mut receiver, ledger, BEFORE_THE_KILL, &[&peer])?;
    let sent = peer.kill()?;
    let end = loop {
        match receiver.recv_timeout(QUIET) {
            Ok(message) => ledger.enter(&message)?,
            Err(error) => break error,
        }
    };
    ledger.owe(0, sent)?;
    let Some(to) = door.next()? else {
        return match end.kind() {
            Kind::Disconnected => Ok(Proof::Can(String::new(), json!("its end is noticed"))),
            _ => Err(Fault(format!("the only writer is gone, and the receiver says: {end}"))),
        };
    };
    only_time(end)?;
    let task = Task { number: 1, count: AFTER_THE_KILL, ..Task::new(Role::Write) };
    let next = Peer::start(mechanism, task, None, to)?;
    let wanted = ledger.received() + u64::from(AFTER_THE_KILL);
    let mut ledger = take(&mut receiver, ledger, wanted, &[&next])?;
    next.done::<1>(Duration::ZERO)?;
    ledger.owe(1, AFTER_THE_KILL)?;
    Ok(Proof::Can(String::new(), json!("the next writer is served")))
}

/// A channel whose receiving end is here.
fn open(mechanism: &'static Mechanism) -> Result<(Receiver, Door), Fault> {
    let (to, from) = ways::one_way(mechanism)?;
    let receiver = In::open(from)?;
    let to = to.at(receiver.address());
    Ok((receiver, Door { to: Some(to) }))
}

/// Where writers get in: to a named channel all by its name, else each by an end of its own.
struct Door {
    to: Option<Out>,
}

impl Door {
    /// The next writer's end; `None`: the channel has one writer, and another is refused.
    fn next(&mut self) -> Result<Option<Out>, Fault> {
        match self.to.take() {
            Some(Out::End(sender)) => match sender.try_clone() {
                Ok(another) => {
                    self.to = Some(Out::End(sender));
                    Ok(Some(Out::End(Box::new(another))))
                }
                Err(error) if error.kind() == Kind::NotSupported => Ok(Some(Out::End(sender))),
                Err(error) => Err(error.into()),
            },
            Some(Out::Address(address)) => {
                self.to = Some(Out::Address(address.clone()));
                Ok(Some(Out::Address(address)))
            }
            Some(Out::Hello) | None => Ok(None),
        }
    }
}

/// Receives one message; where none comes, a peer may know why.
fn receive(receiver: &mut Receiver, peers: &[&Peer]) -> Result<Vec<u8>, Fault> {
    match receiver.recv_timeout(ANSWER_MAX) {
        Ok(message) => Ok(message.to_vec()),
        Err(error) => Err(peers.iter().find_map(|peer| peer.complaint()).unwrap_or(error.into())),
    }
}

/// Receives until so many messages are in the book; what may lose some ends with silence.
fn take(
    receiver: &mut Receiver,
    mut ledger: Ledger,
    count: u64,
    peers: &[&Peer],
) -> Result<Ledger, Fault> {
    let may_lose = ledger.may_lose();
    while ledger.received() < count {
        let patience = if may_lose && ledger.received() > 0 { SILENCE } else { ANSWER_MAX };
        match receiver.recv_timeout(patience) {
            Ok(message) => ledger.enter(&message)?,
            Err(error) if may_lose && error.kind() == Kind::TimedOut => break,
            Err(error) => {
                return Err(peers.iter().find_map(|peer| peer.complaint()).unwrap_or(error.into()));
            }
        }
    }
    Ok(ledger)
}

/// Sees to it that what was sent is all that came.
fn nothing_more(receiver: &mut Receiver) -> Result<(), Fault> {
    match receiver.try_recv() {
        Ok(message) => Err(Fault(format!("{} bytes came that nobody sent", message.len()))),
        Err(error) => match error.kind() {
            Kind::Empty | Kind::Disconnected => Ok(()),
            _ => Err(error.into()),
        },
    }
}

/// A receiver whose peer was killed goes on waiting for others.
fn only_time(error: Error) -> Result<(), Fault> {
    match error.kind() {
        Kind::TimedOut | Kind::Empty => Ok(()),
        _ => Err(error.into()),
    }
}

/// A number with its thousands apart.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size with its unit.
fn bytes(size: u64) -> String {
    match size {
        _ if size > 0 && size.is_multiple_of(1 << 20) => format!("{} MiB", size >> 20),
        _ => format!("{} B", grouped(size)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(bodies: &[&[u8]]) -> Receiver {
        let (mut sender, receiver) = poste::local().unwrap();
        for body in bodies {
            sender.send(*body).unwrap();
        }
        receiver
    }

    #[test]
    fn more_than_was_sent_is_seen() {
        assert!(nothing_more(&mut channel(&[])).is_ok());
        assert!(nothing_more(&mut channel(&[b"x"])).is_err());
    }

    #[test]
    fn a_message_that_is_missing_or_wrong_is_seen() {
        let mut body = Vec::new();
        ledger::write(&mut body, 0, 0, 64);
        let taken = |bodies: &[&[u8]], count| {
            take(&mut channel(bodies), Ledger::new(false), count, &[]).map(|book| book.received())
        };
        assert_eq!(taken(&[&body], 1), Ok(1));
        assert!(taken(&[&body], 2).is_err());
        assert!(taken(&[&body[..63]], 1).is_err());
    }

    #[test]
    fn a_receiver_that_ends_with_its_killed_peer_is_seen() {
        assert!(only_time(Error::new(Kind::Disconnected, "")).is_err());
        assert!(only_time(Error::new(Kind::TimedOut, "")).is_ok());
    }

    #[test]
    fn numbers_and_sizes_are_short() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(32_767), "32,767");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(bytes(16 << 20), "16 MiB");
        assert_eq!(bytes(8160), "8,160 B");
    }
}
