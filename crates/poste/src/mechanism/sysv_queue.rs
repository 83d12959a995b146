//! System V message queues: the kernel keeps whole messages, each with a type, and a queue stays,
//! with what lies in it, when all its users are gone.
//!
//! Enveloped, the type carries the priority: the lowest type comes first, so it is 32768 less the
//! priority, and types above that are never taken. Raw, the type is the caller's (`message_type`)
//! or the priority + 1, and the order is the queue's. A message above the limit is refused, never
//! cut up, nor cut short (MSG_NOERROR). The kernel has no descriptor and no deadline here: waiting
//! for ever is the plain blocking call, timed forms try again with pauses. What is polled is a bell
//! that our senders ring (sysv_bell.rs), a thread that waits for anybody's (sysv_helper.rs), or one
//! that looks for room (sysv_room.rs).
//!
//! Sources: sysvipc(7), msgop(2), proc(5) (`kernel.msgmax`).

use std::collections::VecDeque;

use poste_sys::sysctl;
use poste_sys::sysv::{self, Letter, Queue};
use rustix::event::PollFlags;
use rustix::io::Errno;

use super::sysv_bell::{Listening, Ringer};
use super::sysv_helper::Helper;
use super::sysv_room::Room;
use super::{
    Arrival, EndTraits, Frame, Mechanism, News, Opened, Opening, Pollable, RecvEnd, SendEnd,
    check_envelope_fits, sysv_objects,
};
use crate::address::Address;
use crate::capabilities::{Capabilities, Priorities, Unit};
use crate::error::{Error, Kind};
use crate::limits::{LETTER_FIRST, PAUSE_DELAY, PAUSE_MAX, PRIORITY_MAX};
use crate::wait::{Call, Halt, Wait};

/// A System V message queue.
pub static MECHANISM: Mechanism = Mechanism {
    scheme: "sysv",
    title: "System V message queue",
    example: "sysv:0x4d2",
    capabilities: Capabilities {
        raw_boundaries: true,
        raw_empty: true,
        pieces: false,
        many_receivers: true,
        priorities: Priorities::Native(PRIORITY_MAX),
        delay: PAUSE_DELAY,
        survives_its_users: true,
        capacity: Some(Unit::Bytes),
        ..Capabilities::PLAIN
    },
    settings: &["capacity", "mode", "type"],
    create: |opening| sysv_objects::find_or_make(opening, SEND).map(drop),
    open_sender,
    open_receiver,
    remove: sysv_objects::remove,
    list: sysv_objects::list,
    place: sysv_objects::place,
    limits: &["kernel.msgmax", "kernel.msgmnb", "kernel.msgmni"],
};

/// The permission bits that sending needs, of the owner, the group or others.
const SEND: u32 = 0o200;

/// Those that receiving needs.
const RECEIVE: u32 = 0o400;

/// The type of an enveloped message of priority 0; a higher priority has a lower type.
const TYPE_LOWEST: isize = 32_768;

fn open_sender(opening: &Opening<'_>) -> Result<Opened<dyn SendEnd>, Error> {
    let message_type = type_of(opening, |number| number > 0, "the type of a message is 1 or more")?;
    let queue = sysv_objects::find_or_make(opening, SEND)?;
    let (traits, address) = describe(queue, opening)?;
    let end = Sending {
        queue,
        letter: Letter::new(traits.piece_size.min(LETTER_FIRST)),
        message_type,
        is_raw: opening.options.is_raw(),
        address: address.bare(),
        ringer: Ringer::new(queue)?,
        room: None,
    };
    Ok(Opened { end: Box::new(end), traits, address })
}

fn open_receiver(opening: &Opening<'_>) -> Result<Opened<dyn RecvEnd>, Error> {
    let message_type = type_of(opening, |_| true, "")?;
    let queue = sysv_objects::find_or_make(opening, RECEIVE)?;
    let (traits, address) = describe(queue, opening)?;
    let is_raw = opening.options.is_raw();
    let end = Receiving {
        queue,
        letter: Letter::new(LETTER_FIRST),
        wanted: if is_raw { message_type.unwrap_or(0) } else { -TYPE_LOWEST },
        is_raw,
        address: address.bare(),
        ahead: VecDeque::new(),
        watching: None,
    };
    Ok(Opened { end: Box::new(end), traits, address })
}

fn describe(queue: Queue, opening: &Opening<'_>) -> Result<(EndTraits, Address), Error> {
    // Who may only send can't ask for the capacity; what doesn't fit then waits for ever.
    let capacity = sysv::status(queue).ok().map(|status| status.capacity);
    let piece_size = message_max().min(capacity.unwrap_or(usize::MAX));
    check_envelope_fits(piece_size, opening.options)?;
    let traits = EndTraits {
        piece_size,
        pieces: false,
        gather: 0,
        message_size: Some(piece_size),
        capacity,
        priority_max: PRIORITY_MAX,
        introduces: false,
        reliable: true,
        bare: false,
    };
    let key = sysv_objects::key_of(opening.address)?;
    Ok((traits, opening.address.with_rest(format!("{key:#x}"))))
}

/// The largest message that the kernel takes: 8192 bytes unless it was set.
pub(super) fn message_max() -> usize {
    sysctl::read("kernel.msgmax").map_or(8192, |max| max as usize)
}

/// The type that the options name, checked: only raw messages have one of the caller's.
fn type_of(
    opening: &Opening<'_>,
    allows: impl Fn(isize) -> bool,
    otherwise: &'static str,
) -> Result<Option<isize>, Error> {
    let Some(asked) = opening.options.message_type else { return Ok(None) };
    if !opening.options.is_raw() {
        return Err(Error::new(Kind::NotSupported, "only raw messages have a type")
            .with_hint("open it raw (--raw), or leave the type out"));
    }
    match isize::try_from(asked) {
        Ok(asked) if allows(asked) => Ok(Some(asked)),
        Ok(_) => Err(Error::new(Kind::Invalid, otherwise)),
        Err(_) => Err(Error::new(Kind::Invalid, "the type is larger than a long")),
    }
}

/// What a halt means on a queue that was there: its number is known no more once it is removed.
fn failed(halt: &Halt, address: &Address) -> Option<Error> {
    match halt {
        Halt::System(errno @ (Errno::INVAL | Errno::IDRM)) => {
            Some(Error::system(*errno, "the queue was removed").as_kind(Kind::Removed).with_hint(
                format!(
                    "make it anew: poste create {address}; RemoveIPC=yes in logind.conf removes \
                     a user's queues at log-out"
                ),
            ))
        }
        _ => None,
    }
}

struct Sending {
    queue: Queue,
    /// Envelope and body one after the other, after the type.
    letter: Letter,
    /// The type of raw messages that name none.
    message_type: Option<isize>,
    is_raw: bool,
    address: Address,
    ringer: Ringer,
    /// Made when it is asked for.
    room: Option<Room>,
}

impl Sending {
    fn type_of(&self, frame: &Frame<'_>) -> Result<isize, Error> {
        let priority = frame.priority as isize;
        if !self.is_raw {
            return Ok(TYPE_LOWEST - priority);
        }
        match frame.message_type.map(isize::try_from) {
            None => Ok(self.message_type.unwrap_or(priority + 1)),
            Some(Ok(asked)) if asked > 0 => Ok(asked),
            Some(_) => Err(Error::new(Kind::Invalid, "the type of a message is 1 or more")),
        }
    }

    /// The kernel says of a message that is too large what it says of a queue that is gone.
    fn explain(&self, halt: Halt, size: usize, wait: Wait) -> Error {
        let Some(error) = failed(&halt, &self.address) else { return halt.sending(wait) };
        let limit = message_max();
        if size <= limit {
            return error;
        }
        error
            .as_kind(Kind::TooLarge { size: size as u64, limit: limit as u64 })
            .with_hint(format!("sysctl -w kernel.msgmax={size}"))
    }
}

impl SendEnd for Sending {
    fn send(&mut self, frame: &Frame<'_>, wait: Wait) -> Result<usize, Error> {
        let wait = wait.begin();
        let message_type = self.type_of(frame)?;
        self.letter.write(message_type, [frame.head, frame.body]);
        let (queue, letter) = (self.queue, &self.letter);
        let sent = self.ringer.around(|| {
            wait.retry(PAUSE_MAX, |how| sysv::send(queue, letter, how == Call::Blocking))
        });
        if let Some(room) = self.room.as_mut().filter(|room| room.is_ours()) {
            match sent {
                Err(Halt::Later) => room.want(frame.size())?,
                _ => room.went(),
            }
        }
        sent.map_err(|halt| self.explain(halt, frame.size(), wait))?;
        Ok(frame.size())
    }

    fn pollable(&mut self) -> Result<Pollable<'_>, Error> {
        let room = match self.room.take().filter(Room::is_ours) {
            Some(room) => room,
            None => Room::new(self.queue)?,
        };
        let descriptor = self.room.insert(room).descriptor();
        Ok(Pollable { descriptor, events: PollFlags::IN })
    }

    fn duplicate(&self) -> Result<Option<Box<dyn SendEnd>>, Error> {
        Ok(Some(Box::new(Sending {
            queue: self.queue,
            letter: Letter::new(self.letter.room()),
            message_type: self.message_type,
            is_raw: self.is_raw,
            address: self.address.clone(),
            ringer: Ringer::new(self.queue)?,
            room: None,
        })))
    }
}

struct Receiving {
    queue: Queue,
    letter: Letter,
    /// Which type is taken, as msgrcv(2) puts it.
    wanted: isize,
    is_raw: bool,
    address: Address,
    /// The types of empty messages that were taken ahead.
    ahead: VecDeque<isize>,
    /// Made when a descriptor is asked for.
    watching: Option<Watching>,
}

/// How a receiver that is polled learns that a message came.
enum Watching {
    /// Who may send here rings.
    Bell(Box<Listening>),
    /// Anyone may send: a thread waits in the kernel.
    Helper(Helper),
}

impl Receiving {
    /// One call; where the message is larger than there is room (it stays in the queue then), there
    /// is made more room first.
    fn take(&mut self, how: Call) -> Result<(), Errno> {
        if let Some(message_type) = self.ahead.pop_front() {
            self.letter.write(message_type, [b"", b""]);
            return Ok(());
        }
        loop {
            match sysv::receive(self.queue, &mut self.letter, self.wanted, how == Call::Blocking) {
                Err(Errno::TOOBIG) => self.letter = Letter::new(self.letter.room() * 2),
                result => return result,
            }
        }
    }

    /// Whether a receive would find something. An empty message is taken ahead: a look into the
    /// queue that has room for nothing takes it.
    fn is_there(&mut self) -> bool {
        loop {
            if !self.ahead.is_empty() {
                return true;
            }
            let mut nothing = Letter::new(0);
            match sysv::receive(self.queue, &mut nothing, self.wanted, false) {
                Ok(()) => self.ahead.push_back(nothing.message_type() as isize),
                Err(Errno::AGAIN) => return false,
                Err(Errno::INTR) => {}
                // A message with a body stays; that the queue is gone is for a receive to tell.
                Err(_) => return true,
            }
        }
    }

    /// Makes the descriptor say whether something is there.
    fn show(&mut self) {
        let Some(mut watching) = self.watching.take() else { return };
        match &mut watching {
            Watching::Bell(bell) => {
                if !self.is_there() {
                    bell.arm();
                }
                if self.is_there() {
                    bell.ring();
                } else {
                    bell.rest();
                }
            }
            Watching::Helper(helper) => match self.is_there() {
                true => helper.ring(),
                false => helper.wait_for_more(),
            },
        }
        self.watching = Some(watching);
    }

    /// The thread that waits, if there is one, lets this end look itself.
    fn stop_watching(&mut self) {
        match &self.watching {
            Some(Watching::Helper(helper)) if helper.is_ours() => {
                helper.call_back(&mut self.ahead);
            }
            Some(Watching::Bell(bell)) if bell.is_ours() => {}
            // A forked child's copy: it is its parent's.
            _ => self.watching = None,
        }
    }

    /// Whether everybody who may send here is this user, whose senders ring. Root may always; its
    /// senders ring only in the same runtime directory.
    fn is_private(&self) -> bool {
        let me = rustix::process::geteuid().as_raw();
        !self.is_raw
            && sysv::status(self.queue).is_ok_and(|status| {
                (status.uid, status.maker) == (me, me) && status.mode & 0o022 == 0
            })
    }

    fn watch(&self) -> Result<Watching, Error> {
        if self.is_private() {
            if let Ok(bell) = Listening::new(self.queue) {
                return Ok(Watching::Bell(Box::new(bell)));
            }
        }
        Ok(Watching::Helper(Helper::start(self.queue, self.wanted)?))
    }
}

impl RecvEnd for Receiving {
    fn recv(&mut self, arrival: &mut Arrival, wait: Wait) -> Result<(), Error> {
        let wait = wait.begin();
        arrival.reset();
        self.stop_watching();
        let taken = wait.retry(PAUSE_MAX, |how| self.take(how));
        self.show();
        if let Err(halt) = taken {
            return Err(failed(&halt, &self.address).unwrap_or_else(|| halt.receiving(wait)));
        }
        let message_type = self.letter.message_type();
        let priority = if self.is_raw {
            arrival.message_type = Some(message_type);
            message_type - 1
        } else {
            TYPE_LOWEST as i64 - message_type
        };
        arrival.news = News::Piece;
        arrival.size = self.letter.bytes().len();
        // Other types than those that a priority gives are somebody else's and mean none.
        arrival.priority = u16::try_from(priority).ok().filter(|found| *found <= PRIORITY_MAX);
        Ok(())
    }

    fn bytes(&self, arrival: &Arrival) -> &[u8] {
        &self.letter.bytes()[arrival.at..arrival.at + arrival.size]
    }

    fn pollable(&mut self) -> Result<Pollable<'_>, Error> {
        self.stop_watching();
        if self.watching.is_none() {
            self.watching = Some(self.watch()?);
        }
        self.show();
        let descriptor = match &self.watching {
            Some(Watching::Bell(bell)) => bell.descriptor(),
            Some(Watching::Helper(helper)) => helper.descriptor(),
            None => unreachable!("it was just made"),
        };
        Ok(Pollable { descriptor, events: PollFlags::IN })
    }

    fn duplicate(&self) -> Result<Option<Box<dyn RecvEnd>>, Error> {
        Ok(Some(Box::new(Receiving {
            queue: self.queue,
            letter: Letter::new(self.letter.room()),
            wanted: self.wanted,
            is_raw: self.is_raw,
            address: self.address.clone(),
            ahead: VecDeque::new(),
            watching: None,
        })))
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        if let Some(Watching::Helper(helper)) = self.watching.take() {
            helper.end(&mut self.ahead);
        }
        for message_type in self.ahead.drain(..) {
            // Back into the queue, behind the others; a queue that is full or that this process may
            // only read loses it.
            self.letter.write(message_type, [b"", b""]);
            let _ = sysv::send(self.queue, &self.letter, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sysv_objects::tests::object;
    use super::*;
    use crate::options::Options;
    use crate::{Outgoing, Receiver, Sender};
    use rustix::time::{ClockId, clock_gettime};
    use std::time::{Duration, Instant};

    #[test]
    fn the_highest_priority_comes_first_and_one_priority_in_order() {
        let name = object(1);
        let mut receiver = Receiver::create(&name.0).unwrap();
        let mut sender = Sender::open(&name.0).unwrap();
        assert_eq!(sender.address().to_string(), name.0);
        for (body, priority) in [("c", 0), ("b", 9), ("d", 0), ("a", 31)] {
            sender.send(Outgoing::from(body).priority(priority)).unwrap();
        }
        for (body, priority) in [("a", 31), ("b", 9), ("c", 0), ("d", 0)] {
            let message = receiver.try_recv().unwrap();
            assert_eq!((message.text().unwrap(), message.priority()), (body, priority));
            assert_eq!(message.message_type(), None);
        }
        let over = sender.send(Outgoing::from("").priority(32)).unwrap_err();
        assert!(matches!(over.kind(), Kind::Limit { name: "priority", value: 31, .. }));
    }

    #[test]
    fn a_raw_message_has_a_type_and_the_order_of_the_queue() {
        let name = object(2);
        let raw = Options::new().raw();
        let mut sender = Sender::open_with(&name.0, &raw.clone().create()).unwrap();
        let mut any = Receiver::open_with(&name.0, &raw).unwrap();
        let mut lowest = Receiver::open_with(&name.0, &raw.clone().message_type(-5)).unwrap();
        sender.send(Outgoing::from("first").priority(4)).unwrap();
        sender.send(Outgoing::from("second").message_type(40_000)).unwrap();
        sender.send(Outgoing::from("third").message_type(2)).unwrap();
        let mut typed = Sender::open_with(format!("{}?type=7", name.0), &raw).unwrap();
        typed.send("").unwrap();
        assert_eq!(lowest.try_recv().unwrap().text().unwrap(), "third");
        let mut next = |body: &str, message_type, priority| {
            let message = any.try_recv().unwrap();
            assert_eq!(message.text().unwrap(), body);
            assert_eq!(
                (message.message_type(), message.priority()),
                (Some(message_type), priority)
            );
        };
        next("first", 5, 4);
        // An enveloped receiver leaves it alone.
        let mut enveloped = Receiver::open(&name.0).unwrap();
        next("second", 40_000, 0);
        next("", 7, 6);
        sender.send(Outgoing::from("not for you").message_type(32_769)).unwrap();
        assert_eq!(enveloped.try_recv().unwrap_err().kind(), Kind::Empty);

        let wrong = sender.send(Outgoing::from("x").message_type(0)).unwrap_err();
        assert_eq!(wrong.kind(), Kind::Invalid);
        let wrong = Sender::open_with(&name.0, &raw.message_type(-1)).unwrap_err();
        assert_eq!(wrong.kind(), Kind::Invalid);
        let wrong = Receiver::open_with(&name.0, &Options::new().message_type(1)).unwrap_err();
        assert_eq!(wrong.kind(), Kind::NotSupported);
    }

    #[test]
    fn sizes_from_nothing_to_the_limit_pass_and_one_more_is_refused() {
        let max = message_max();
        for (options, limit) in [(Options::new(), max - 32), (Options::new().raw(), max)] {
            let name = object(3);
            let mut receiver = Receiver::open_with(&name.0, &options.clone().create()).unwrap();
            let mut sender = Sender::open_with(&name.0, &options).unwrap();
            assert_eq!(sender.facts().message_size, limit);
            for size in [0, 1, limit] {
                sender.try_send(&vec![7; size][..]).unwrap();
                assert_eq!(receiver.try_recv().unwrap().len(), size);
            }
            let error = sender.try_send(&vec![7; limit + 1][..]).unwrap_err();
            let (size, limit) = (limit as u64 + 1, limit as u64);
            assert_eq!(error.kind(), Kind::TooLarge { size, limit });
            assert!(!error.hint().is_empty());
        }
    }

    #[test]
    fn a_letter_that_is_too_small_grows() {
        let name = object(4);
        let queue =
            sysv::create(sysv_objects::key_of(&Address::parse(&name.0).unwrap()).unwrap(), 0o600)
                .unwrap();
        let mut letter = Letter::new(0);
        letter.write(1, [b"longer than ", b"a letter of one word"]);
        sysv::send(queue, &letter, false).unwrap();
        let address = Address::parse(&name.0).unwrap();
        let letter_of_eight = Letter::new(8);
        let (ahead, watching) = (VecDeque::new(), None);
        let mut end = Receiving {
            queue,
            letter: letter_of_eight,
            wanted: 0,
            is_raw: true,
            address,
            ahead,
            watching,
        };
        let mut arrival = Arrival::default();
        end.recv(&mut arrival, Wait::Not).unwrap();
        assert_eq!(end.bytes(&arrival), letter.bytes());
    }

    #[test]
    fn full_empty_and_a_time_that_is_over_are_told_apart() {
        let name = object(5);
        let options = Options::new().capacity(80);
        let mut receiver = Receiver::open_with(&name.0, &options.clone().create()).unwrap();
        let mut sender = Sender::open_with(&name.0, &options).unwrap();
        assert_eq!(sender.facts().capacity, Some(80));
        assert_eq!(sender.facts().message_size, 80 - 32);
        assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
        sender.send("1").unwrap();
        sender.send("2").unwrap();
        assert_eq!(sender.try_send("3").unwrap_err().kind(), Kind::Full);
        let (start, time) = (Instant::now(), Duration::from_millis(30));
        assert_eq!(sender.send_timeout("3", time).unwrap_err().kind(), Kind::TimedOut);
        assert!(start.elapsed() >= time);

        let blocked = std::thread::spawn(move || sender.send("3").map(|_| sender));
        for body in ["1", "2", "3"] {
            assert_eq!(receiver.recv().unwrap().text().unwrap(), body);
        }
        let sender = blocked.join().unwrap().unwrap();
        assert_eq!(receiver.recv_timeout(time).unwrap_err().kind(), Kind::TimedOut);
        let later = std::thread::spawn(move || {
            std::thread::sleep(time);
            sender.try_clone().unwrap().send("4")
        });
        assert_eq!(receiver.recv_timeout(time * 100).unwrap().text().unwrap(), "4");
        later.join().unwrap().unwrap();
    }

    #[test]
    fn a_timed_wait_costs_under_one_percent_of_a_processor() {
        let name = object(6);
        let mut receiver = Receiver::create(&name.0).unwrap();
        let spent = || {
            let time = clock_gettime(ClockId::ThreadCPUTime);
            Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
        };
        let (before, time) = (spent(), Duration::from_secs(1));
        assert_eq!(receiver.recv_timeout(time).unwrap_err().kind(), Kind::TimedOut);
        let cost = spent() - before;
        eprintln!("waiting for {time:?} cost {cost:?}");
        assert!(cost < time / 100, "{cost:?}");
    }

    #[test]
    fn who_waits_on_a_queue_that_is_removed_learns_it() {
        for wait in [Wait::Forever, Wait::For(Duration::from_secs(60))] {
            let name = object(8);
            let mut receiver = Receiver::create(&name.0).unwrap();
            let mut sender = Sender::open(&name.0).unwrap();
            let blocked =
                std::thread::spawn(move || receiver.recv_wait(wait).map(drop).unwrap_err());
            std::thread::sleep(Duration::from_millis(20));
            crate::remove(&name.0).unwrap();
            let error = blocked.join().unwrap();
            assert_eq!(error.kind(), Kind::Removed);
            assert!(error.hint().contains(&format!("poste create {}", name.0)), "{error:?}");
            assert_eq!(sender.send("nobody").unwrap_err().kind(), Kind::Removed);
        }
    }
}
