//! POSIX message queues: the kernel keeps whole messages by priority, and a queue stays, with what
//! lies in it, when all its users are gone.
//!
//! The descriptor is an ordinary one: it can be polled, and every deadline is monotonic (the
//! queues' own timed calls follow the wall clock). A message above the queue's size is refused,
//! never cut up: several receivers may share the queue. Not here: mq_notify, which serves one
//! process once.
//!
//! A queue whose name was taken away goes on for those who have it open, and the kernel wakes nobody
//! for that: what lies in it is still received, and while there is room it takes messages; who
//! would have to wait looks now and then, and gets `Removed`. A blocking call can't look any more.
//!
//! How queues are made, found and listed stands in posix_objects.rs. Sources: mq_overview(7),
//! mq_send(3), mq_receive(3), mq_getattr(3), mq_unlink(3), fstat(2) (st_nlink).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use poste_sys::mqueue::{self, Access, Attributes};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::posix_objects::{Queue, find_or_make, list, name_of, open, place, remove};
use super::{
    Arrival, EndTraits, Frame, Mechanism, News, Opened, Opening, Pollable, RecvEnd, SendEnd,
};
use crate::address::Address;
use crate::capabilities::{Capabilities, Priorities, Unit};
use crate::error::{Error, Kind};
use crate::limits::{PRIORITY_MAX_POSIX, REMOVAL_LOOK};
use crate::wait::{Call, Halt, Wait};

/// A POSIX message queue.
pub static MECHANISM: Mechanism = Mechanism {
    scheme: "mq",
    title: "POSIX message queue",
    example: "mq:/jobs",
    capabilities: Capabilities {
        raw_boundaries: true,
        raw_empty: true,
        pieces: false,
        many_receivers: true,
        priorities: Priorities::Native(PRIORITY_MAX_POSIX),
        survives_its_users: true,
        capacity: Some(Unit::Messages),
        ..Capabilities::PLAIN
    },
    settings: &["capacity", "message-size", "mode"],
    create: |opening| find_or_make(opening, Access::Send).map(drop),
    open_sender,
    open_receiver,
    remove,
    list,
    place,
    limits: &[
        "fs.mqueue.msg_max",
        "fs.mqueue.msgsize_max",
        "fs.mqueue.queues_max",
        "RLIMIT_MSGQUEUE",
        "RLIMIT_NOFILE",
    ],
};

fn open_sender(opening: &Opening<'_>) -> Result<Opened<dyn SendEnd>, Error> {
    let queue = open(opening, Access::Send)?;
    let (traits, address) = describe(&queue, opening)?;
    let end = Box::new(Sending::new(Line::new(queue.descriptor)));
    Ok(Opened { end, traits, address })
}

fn open_receiver(opening: &Opening<'_>) -> Result<Opened<dyn RecvEnd>, Error> {
    let queue = open(opening, Access::Receive)?;
    let (traits, address) = describe(&queue, opening)?;
    let end = Box::new(Receiving::new(Line::new(queue.descriptor), traits.piece_size));
    Ok(Opened { end, traits, address })
}

fn describe(queue: &Queue, opening: &Opening<'_>) -> Result<(EndTraits, Address), Error> {
    let Attributes { capacity, message_size, .. } = queue.attributes;
    let traits = EndTraits {
        piece_size: message_size,
        pieces: false,
        gather: 0,
        message_size: Some(message_size),
        capacity: Some(capacity),
        priority_max: PRIORITY_MAX_POSIX,
        introduces: false,
        reliable: true,
        bare: false,
    };
    Ok((traits, opening.address.with_rest(name_of(opening.address)?.into_bytes())))
}

/// An open queue on which one end waits, and looks meanwhile whether it still has its name.
struct Line {
    queue: OwnedFd,
    /// The second of the coarse monotonic clock in which it looked last.
    looked: i64,
}

impl Line {
    fn new(queue: OwnedFd) -> Line {
        Line { queue, looked: second() }
    }

    /// Makes a call on the queue within `wait`. It looks for the name before the call, at most once
    /// a second, and where a timed wait would go on or is over.
    fn run<T>(
        &mut self,
        events: PollFlags,
        wait: Wait,
        mut call: impl FnMut(BorrowedFd<'_>, Call) -> Result<T, Errno>,
    ) -> Result<T, Halt> {
        let queue = self.queue.as_fd();
        let mut call = |how| call(queue, how);
        let now = second();
        if now != self.looked {
            self.looked = now;
            if is_removed(queue) {
                return the_last(queue, events, &mut call);
            }
        }
        loop {
            let slice = match wait {
                Wait::Until(end) => Wait::Until(end.min(Instant::now() + REMOVAL_LOOK)),
                other => other,
            };
            match slice.run(queue, events, &mut call) {
                Err(Halt::Later) if wait != Wait::Not => {
                    if is_removed(queue) {
                        return the_last(queue, events, &mut call);
                    }
                    if slice == wait {
                        return Err(Halt::Later);
                    }
                }
                done => return done,
            }
        }
    }

    fn duplicate(&self) -> Result<Line, Error> {
        self.queue
            .try_clone()
            .map(Line::new)
            .map_err(|error| Error::system(Errno::from_io_error(&error).unwrap_or(Errno::IO), ""))
    }
}

/// Now, by the clock that costs least.
fn second() -> i64 {
    clock_gettime(ClockId::MonotonicCoarse).tv_sec
}

/// Whether a queue that is open here has no name any more.
fn is_removed(queue: BorrowedFd<'_>) -> bool {
    rustix::fs::fstat(queue).is_ok_and(|stat| stat.st_nlink == 0)
}

/// The call on a queue without a name: what lies there, and the room there is, can still be used.
fn the_last<T>(
    queue: BorrowedFd<'_>,
    events: PollFlags,
    call: impl FnMut(Call) -> Result<T, Errno>,
) -> Result<T, Halt> {
    match Wait::Not.run(queue, events, call) {
        Err(Halt::Later) => Err(Halt::System(Errno::IDRM)),
        done => done,
    }
}

/// What a halt means on a queue, if it isn't what it means everywhere: it has no name any more.
fn removed(halt: Halt) -> Option<Error> {
    match halt {
        Halt::System(Errno::IDRM) => Some(
            Error::new(Kind::Removed, "the queue was removed")
                .with_hint("make it anew with poste create"),
        ),
        _ => None,
    }
}

struct Sending {
    line: Line,
    /// Envelope and body one after the other: the call takes them in one piece.
    joined: Vec<u8>,
}

impl Sending {
    fn new(line: Line) -> Sending {
        Sending { line, joined: Vec::new() }
    }
}

impl SendEnd for Sending {
    fn send(&mut self, frame: &Frame<'_>, wait: Wait) -> Result<usize, Error> {
        let wait = wait.begin();
        let bytes = if frame.head.is_empty() {
            frame.body
        } else {
            self.joined.clear();
            self.joined.extend_from_slice(frame.head);
            self.joined.extend_from_slice(frame.body);
            &self.joined
        };
        self.line
            .run(PollFlags::OUT, wait, |queue, how| {
                mqueue::send(queue, bytes, frame.priority, how == Call::Blocking)
            })
            .map_err(|halt| removed(halt).unwrap_or_else(|| halt.sending(wait)))?;
        Ok(frame.size())
    }

    fn pollable(&mut self) -> Result<Pollable<'_>, Error> {
        Ok(Pollable { descriptor: self.line.queue.as_fd(), events: PollFlags::OUT })
    }

    fn duplicate(&self) -> Result<Option<Box<dyn SendEnd>>, Error> {
        Ok(Some(Box::new(Sending::new(self.line.duplicate()?))))
    }

    fn hand_down(self: Box<Self>) -> Result<OwnedFd, Error> {
        Ok(self.line.queue)
    }
}

struct Receiving {
    line: Line,
    /// Room for the queue's largest message: the kernel asks for no less.
    buffer: Vec<u8>,
}

impl Receiving {
    fn new(line: Line, message_size: usize) -> Receiving {
        Receiving { line, buffer: vec![0; message_size] }
    }
}

impl RecvEnd for Receiving {
    fn recv(&mut self, arrival: &mut Arrival, wait: Wait) -> Result<(), Error> {
        let wait = wait.begin();
        arrival.reset();
        let buffer = &mut self.buffer;
        let (size, priority) = self
            .line
            .run(PollFlags::IN, wait, |queue, how| {
                mqueue::receive(queue, buffer, how == Call::Blocking)
            })
            .map_err(|halt| removed(halt).unwrap_or_else(|| halt.receiving(wait)))?;
        arrival.news = News::Piece;
        arrival.size = size;
        arrival.priority = Some(priority);
        Ok(())
    }

    fn bytes(&self, arrival: &Arrival) -> &[u8] {
        &self.buffer[arrival.at..arrival.at + arrival.size]
    }

    fn pollable(&mut self) -> Result<Pollable<'_>, Error> {
        Ok(Pollable { descriptor: self.line.queue.as_fd(), events: PollFlags::IN })
    }

    fn duplicate(&self) -> Result<Option<Box<dyn RecvEnd>>, Error> {
        Ok(Some(Box::new(Receiving::new(self.line.duplicate()?, self.buffer.len()))))
    }

    fn hand_down(self: Box<Self>) -> Result<OwnedFd, Error> {
        Ok(self.line.queue)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::options::Options;
    use crate::{Outgoing, Receiver, Sender};
    use std::process::Command;
    use std::time::{Duration, Instant};

    /// An object of a test, taken away at its end.
    pub(in super::super) struct Object(pub(in super::super) String);

    impl Drop for Object {
        fn drop(&mut self) {
            let _ = crate::remove(&self.0);
        }
    }

    pub(in super::super) fn object(name: &str) -> Object {
        Object(format!("mq:/poste-test-{}-{name}", std::process::id()))
    }

    /// Whether the test is in a process of its own, with an IPC namespace and limits that only it
    /// sees; else it is run there, where the machine allows that.
    pub(in super::super) fn is_alone(test: &str) -> bool {
        const MARK: &str = "POSTE_TEST_ALONE";
        if std::env::var_os(MARK).is_some() {
            return true;
        }
        if !Command::new("unshare").args(["-ri", "true"]).status().is_ok_and(|done| done.success())
        {
            poste_sys::testing::skip(test, "unshare -ri doesn't work here");
            return false;
        }
        let done = Command::new("unshare")
            .arg("-ri")
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(MARK, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success(), "{text}{}", String::from_utf8_lossy(&done.stderr));
        assert!(text.contains("1 passed"), "{test} is no test: {text}");
        false
    }

    pub(in super::super) fn set(name: &str, value: u64) {
        std::fs::write(format!("/proc/sys/{}", name.replace('.', "/")), value.to_string()).unwrap();
    }

    #[test]
    fn the_highest_priority_comes_first_and_one_priority_in_order() {
        let name = object("priority");
        let mut receiver = Receiver::create(&name.0).unwrap();
        let mut sender = Sender::open(name.0.replace("mq:/", "mq:")).unwrap();
        assert_eq!(sender.address().to_string(), name.0);
        for (body, priority) in [("c", 0), ("a", 32_767), ("d", 0), ("b", 31)] {
            sender.send(Outgoing::from(body).priority(priority)).unwrap();
        }
        for (body, priority) in [("a", 32_767), ("b", 31), ("c", 0), ("d", 0)] {
            let message = receiver.try_recv().unwrap();
            assert_eq!((message.text().unwrap(), message.priority()), (body, priority));
        }
        let over = sender.send(Outgoing::from("").priority(32_768)).unwrap_err();
        assert!(matches!(over.kind(), Kind::Limit { name: "priority", value: 32_767, .. }));
    }

    #[test]
    fn sizes_from_nothing_to_the_limit_pass_and_one_more_is_refused() {
        for (options, limit) in [(Options::new(), 8192 - 32), (Options::new().raw(), 8192)] {
            let name = object("size");
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
            assert!(error.hint().contains("message size"), "{}", error.hint());
        }
    }

    #[test]
    fn full_empty_and_a_time_that_is_over_are_told_apart() {
        let name = object("full");
        let options = Options::new().capacity(2).message_size(64);
        let mut receiver = Receiver::open_with(&name.0, &options.clone().create()).unwrap();
        let mut sender = Sender::open_with(&name.0, &options).unwrap();
        assert_eq!(sender.facts().capacity, Some(2));
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
        let readable = |receiver: &mut Receiver| {
            Wait::Not.until_ready(receiver.pollable().unwrap(), PollFlags::IN)
        };
        assert_eq!(readable(&mut receiver), Ok::<_, Halt>(false));
        sender.try_clone().unwrap().send("4").unwrap();
        assert_eq!(readable(&mut receiver), Ok(true));
    }

    #[test]
    fn what_is_there_is_used_as_it_is_or_refused() {
        let name = object("there");
        assert_eq!(Sender::open(&name.0).unwrap_err().kind(), Kind::NotFound);
        let options = Options::new().capacity(3).message_size(100).mode(0o622);
        crate::create(&name.0, &options).unwrap();
        Receiver::open_with(&name.0, &options.clone().create()).unwrap();
        let mut sender = Sender::open_with(&name.0, &Options::new().create()).unwrap();
        assert_eq!((sender.facts().capacity, sender.facts().piece_size), (Some(3), 100));
        for (other, words) in [
            (Options::new().capacity(4), "a capacity of 3 messages, not 4"),
            (Options::new().message_size(99), "messages of 100 bytes, not 99"),
            (Options::new().mode(0o600), "the mode 0622, not 0600"),
        ] {
            let error = Receiver::open_with(&name.0, &other.create()).unwrap_err();
            assert_eq!(error.kind(), Kind::Mismatch);
            assert!(error.to_string().contains(words), "{error}");
        }
        let error = crate::create(&name.0, &options).unwrap_err();
        let owner = format!("a queue of user {}", rustix::process::getuid().as_raw());
        assert_eq!(error.kind(), Kind::NameInUse { owner: Some(owner) });
        assert!(error.hint().contains("poste remove"), "{}", error.hint());

        // Without a name it goes on for those who have it.
        let mut receiver = Receiver::open(&name.0).unwrap();
        crate::remove(&name.0).unwrap();
        assert_eq!(crate::remove(&name.0).unwrap_err().kind(), Kind::NotFound);
        sender.send("still there").unwrap();
        assert_eq!(receiver.recv().unwrap().text().unwrap(), "still there");
    }
}
