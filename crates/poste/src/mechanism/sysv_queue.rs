//! System V message queues: the kernel keeps whole messages, each with a type, and a queue stays,
//! with what lies in it, when all its users are gone.
//!
//! Enveloped, the type carries the priority: the lowest type comes first, so it is 32768 less the
//! priority, and types above that are never taken. Raw, the type is the caller's (`message_type`)
//! or the priority + 1, and the order is the queue's. A message above the limit is refused, never
//! cut up, nor cut short (MSG_NOERROR). The kernel has no descriptor and no deadline here: waiting
//! for ever is the plain blocking call, timed forms try again with pauses. Not here: ftok's
//! collisions (two files may have one key).
//!
//! Sources: sysvipc(7), msgget(2), msgop(2), msgctl(2), ftok(3), proc(5) (`kernel.msgmax`).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread::sleep;

use poste_sys::sysctl;
use poste_sys::sysv::{self, Letter, Queue};
use rustix::io::Errno;

use super::posix_objects::{not_owner, refuse_planted};
use super::{
    Arrival, EndTraits, Frame, Mechanism, News, Opened, Opening, Pollable, RecvEnd, SendEnd,
    check_envelope_fits,
};
use crate::address::Address;
use crate::capabilities::{Capabilities, Priorities, Unit};
use crate::error::{Error, Kind};
use crate::limits::{LETTER_FIRST, PAUSE_DELAY, PAUSE_MAX, PRIORITY_MAX, QUEUE_LOOKS, QUEUE_TRIES};
use crate::name::{claim, registry};
use crate::object::{Detail, Listing, Object};
use crate::options::Create;
use crate::survey::{Survey, since};
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
        pollable: false,
        delay: PAUSE_DELAY,
        survives_its_users: true,
        capacity: Some(Unit::Bytes),
        ..Capabilities::PLAIN
    },
    settings: &["capacity", "mode", "type"],
    create: |opening| find_or_make(opening, SEND).map(drop),
    open_sender,
    open_receiver,
    remove,
    list,
    place,
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
    let queue = find_or_make(opening, SEND)?;
    let (traits, address) = describe(queue, opening)?;
    let end = Sending {
        queue,
        letter: Letter::new(traits.piece_size.min(LETTER_FIRST)),
        message_type,
        is_raw: opening.options.is_raw(),
        address: address.bare(),
    };
    Ok(Opened { end: Box::new(end), traits, address })
}

fn open_receiver(opening: &Opening<'_>) -> Result<Opened<dyn RecvEnd>, Error> {
    let message_type = type_of(opening, |_| true, "")?;
    let queue = find_or_make(opening, RECEIVE)?;
    let (traits, address) = describe(queue, opening)?;
    let is_raw = opening.options.is_raw();
    let end = Receiving {
        queue,
        letter: Letter::new(LETTER_FIRST),
        wanted: if is_raw { message_type.unwrap_or(0) } else { -TYPE_LOWEST },
        is_raw,
        address: address.bare(),
    };
    Ok(Opened { end: Box::new(end), traits, address })
}

fn remove(address: &Address) -> Result<(), Error> {
    let queue = sysv::open(key_of(address)?, 0).map_err(|errno| refused(errno, address))?;
    match sysv::remove(queue) {
        Ok(()) => {
            registry::forget(&registry::queue_key(&place(address)?));
            Ok(())
        }
        // Somebody else was faster.
        Err(Errno::INVAL | Errno::IDRM) => Err(refused(Errno::NOENT, address)),
        Err(errno @ (Errno::ACCESS | Errno::PERM)) => Err(not_owner(errno)),
        Err(errno) => Err(refused(errno, address)),
    }
}

/// The address as it is listed: with its key in hexadecimal.
fn place(address: &Address) -> Result<Address, Error> {
    let key = key_of(address)?;
    Ok(address.bare().with_rest(format!("{key:#x}")))
}

/// Every queue of this namespace: the kernel shows them all, whoever asks. Who has one open it
/// doesn't know: there is nothing to open.
fn list(survey: &Survey) -> Listing {
    let mut listing = Listing::none();
    let Ok(text) = std::fs::read_to_string("/proc/sysvipc/msg") else {
        listing.miss("System V queues, as /proc/sysvipc/msg can't be read");
        return listing;
    };
    let mut numbers = Vec::new();
    for line in text.lines().skip(1).filter_map(Line::read) {
        numbers.push(line.number);
        let record = survey.recorded("sysv").find(|(_, record)| record.object == line.object());
        listing.objects.extend(line.shown(survey, record.map(|(_, record)| record.made)));
    }
    for (entry, record) in survey.recorded("sysv").filter(|(entry, _)| entry.maker.is_none()) {
        let number = record.object.map(|object| object.inode);
        if !numbers.iter().any(|there| Some(*there as u64) == number) {
            listing.gone.push(entry.clone());
        }
    }
    listing
}

/// A line of /proc/sysvipc/msg.
struct Line {
    key: i32,
    number: i32,
    mode: u32,
    bytes: u64,
    depth: u64,
    last_sender: u64,
    last_receiver: u64,
    uid: u32,
    changed: u64,
}

impl Line {
    /// `key msqid perms cbytes qnum lspid lrpid uid gid cuid cgid stime rtime ctime`.
    fn read(line: &str) -> Option<Line> {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let number = |index: usize| words.get(index)?.parse::<u64>().ok();
        Some(Line {
            key: words.first()?.parse().ok()?,
            number: words.get(1)?.parse().ok()?,
            mode: u32::from_str_radix(words.get(2)?, 8).ok()? & 0o777,
            bytes: number(3)?,
            depth: number(4)?,
            last_sender: number(5)?,
            last_receiver: number(6)?,
            uid: words.get(7)?.parse().ok()?,
            changed: number(13)?,
        })
    }

    /// What the registry knows it by.
    fn object(&self) -> Option<claim::Object> {
        Some(identity(Queue::of_number(self.number)))
    }

    fn shown(&self, survey: &Survey, made: Option<u64>) -> Option<Object> {
        let address = Address::new("sysv", format!("{:#x}", self.key)).ok()?;
        let mut object = Object::new("sysv", address);
        (object.depth, object.bytes) = (Some(self.depth), Some(self.bytes));
        object.mode = Some(self.mode);
        survey.owned(&mut object, self.uid);
        object.age = since(made.unwrap_or(self.changed));
        // Who may not receive from it isn't told.
        if let Ok(status) = sysv::status(Queue::of_number(self.number)) {
            object.capacity = Some(status.capacity as u64);
            object.message_size = Some(message_max().min(status.capacity) as u64);
        }
        object.details.push(("id", Detail::Number(self.number as u64)));
        let last = [("last_sender", self.last_sender), ("last_receiver", self.last_receiver)];
        let last = last.into_iter().filter(|(_, pid)| *pid > 0);
        object.details.extend(last.map(|(name, pid)| (name, Detail::Number(pid))));
        Some(object)
    }
}

/// What a queue is known by in the registry: its namespace and its number there.
fn identity(queue: Queue) -> claim::Object {
    claim::Object { device: registry::space(), inode: queue.number() as u64 }
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
    let key = key_of(opening.address)?;
    Ok((traits, opening.address.with_rest(format!("{key:#x}"))))
}

/// The largest message that the kernel takes: 8192 bytes unless it was set.
fn message_max() -> usize {
    sysctl::read("kernel.msgmax").map_or(8192, |max| max as usize)
}

/// The key that an address means: a number, or a file's (`PATH#N`, ftok's number, 1 if left out).
fn key_of(address: &Address) -> Result<i32, Error> {
    let rest = address.rest();
    let wrong = |detail| {
        Error::new(Kind::Invalid, detail)
            .with_hint("write a key as in sysv:1234 or sysv:0x4d2, a file as in sysv:/path#1")
    };
    match rest.first() {
        None => Err(wrong("a key is missing")),
        Some(digit) if digit.is_ascii_digit() => {
            let text = address.text().unwrap_or_default();
            let key = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
                Some(digits) if !digits.starts_with('+') => u32::from_str_radix(digits, 16),
                _ => text.parse(),
            };
            match key {
                Ok(0) => Err(wrong("the key 0 means a new queue each time (IPC_PRIVATE)")),
                Ok(key) => Ok(key as i32),
                Err(_) => Err(wrong("a key is a number of 32 bits; a path begins with / or ./")),
            }
        }
        Some(_) => {
            let (path, number) = match rest.iter().rposition(|byte| *byte == b'#') {
                Some(mark) => (&rest[..mark], &rest[mark + 1..]),
                None => (rest, &b"1"[..]),
            };
            let number = std::str::from_utf8(number)
                .ok()
                .filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|number| number.parse::<u8>().ok())
                .filter(|number| *number > 0)
                .ok_or_else(|| wrong("after # stands a number from 1 to 255"))?;
            let path = Path::new(OsStr::from_bytes(path));
            sysv::ftok(path, number).map_err(|error| {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                let path = path.display();
                Error::system(errno, format!("no key can be made of the file {path}"))
                    .with_hint(format!("the file must be there: touch {path}, then poste create"))
            })
        }
    }
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

/// The queue of the address, as the options say. Others may make and remove it meanwhile.
fn find_or_make(opening: &Opening<'_>, access: u32) -> Result<Queue, Error> {
    let Opening { address, options } = opening;
    let key = key_of(address)?;
    for _ in 0..QUEUE_TRIES {
        if options.create != Create::New {
            match sysv::open(key, access) {
                Ok(queue) => return check(queue, opening),
                Err(Errno::NOENT) if options.create == Create::IfAbsent => {}
                Err(errno) => return Err(refused(errno, address)),
            }
        }
        match make(key, opening).inspect(|queue| recorded(*queue, address)) {
            Err(error) if error.errno() != Some(Errno::EXIST.raw_os_error()) => return Err(error),
            Err(error) if options.create == Create::New => {
                return Err(error.as_kind(Kind::NameInUse { owner: owner(key) }).with_hint(
                    format!("use it as it is, or remove it first: poste remove {}", address.bare()),
                ));
            }
            Err(_) => {}
            Ok(queue) => return Ok(queue),
        }
    }
    Err(Error::system(Errno::AGAIN, "others make and remove it all the time"))
}

/// Notes in the registry what was made.
fn recorded(queue: Queue, address: &Address) {
    if let Ok(address) = place(address) {
        registry::record(&registry::queue_key(&address), &address, Some(identity(queue)));
    }
}

/// Makes the queue, with its mode from the first moment: no umask narrows it, nothing widens it.
fn make(key: i32, opening: &Opening<'_>) -> Result<Queue, Error> {
    let options = opening.options;
    if options.capacity == Some(0) {
        return Err(Error::new(Kind::Invalid, "a queue needs room for a message")
            .with_hint("give a capacity of 1 byte or more"));
    }
    let queue = sysv::create(key, options.mode_or_default())
        .map_err(|errno| refused(errno, opening.address))?;
    let Some(capacity) = options.capacity else { return Ok(queue) };
    sysv::set_capacity(queue, capacity).map(|()| queue).map_err(|errno| {
        let _ = sysv::remove(queue);
        let name = "kernel.msgmnb";
        let value = sysctl::read(name).unwrap_or(u64::MAX);
        if errno != Errno::PERM || capacity as u64 <= value {
            return Error::system(errno, "its capacity can't be set");
        }
        let raise_with = format!("sysctl -w {name}={capacity}");
        Error::system(errno, format!("a capacity of {capacity} bytes is more than {name}, {value}"))
            .as_kind(Kind::Limit { name, value, raise_with })
    })
}

/// Compares what is there with what was asked for. Who makes it may not have set its capacity yet:
/// what differs is looked at again before it is told.
fn check(queue: Queue, opening: &Opening<'_>) -> Result<Queue, Error> {
    let options = opening.options;
    if options.create != Create::No {
        // Who may only send can't ask whose it is.
        sysv::status(queue).map_or(Ok(()), |status| refuse_planted(status.uid))?;
    }
    if options.capacity.is_none() && options.mode.is_none() {
        return Ok(queue);
    }
    let mut differs = Vec::new();
    for look in 0..QUEUE_LOOKS {
        if look > 0 {
            sleep(PAUSE_MAX);
        }
        let status = sysv::status(queue)
            .map_err(|errno| Error::system(errno, "its attributes can't be read"))?;
        differs.clear();
        if let Some(asked) = options.capacity.filter(|asked| *asked != status.capacity) {
            differs.push(format!("a capacity of {} bytes, not {asked}", status.capacity));
        }
        if let Some(asked) = options.mode.filter(|asked| *asked != status.mode) {
            differs.push(format!("the mode {:04o}, not {asked:04o}", status.mode));
        }
        if differs.is_empty() {
            return Ok(queue);
        }
    }
    let address = opening.address.bare();
    Err(Error::new(Kind::Mismatch, format!("the queue has {}", differs.join(", and ")))
        .with_hint(format!("use it as it is, or make it anew: poste remove {address}")))
}

/// Who owns the queue, as far as this process may look.
fn owner(key: i32) -> Option<String> {
    let status = sysv::open(key, 0).and_then(sysv::status).ok()?;
    Some(format!("a queue of user {}", status.uid))
}

/// What an errno means where a queue is found, made or removed.
fn refused(errno: Errno, address: &Address) -> Error {
    match errno {
        Errno::NOENT => Error::system(errno, "no such queue")
            .with_hint(format!("make it first: poste create {}", address.bare())),
        Errno::ACCESS | Errno::PERM => Error::system(errno, "its mode doesn't let this user in")
            .with_hint("its owner can give it a wider mode (poste create --mode 0660)"),
        Errno::NOSPC => {
            let name = "kernel.msgmni";
            let value = sysctl::read(name).unwrap_or(0);
            let raise_with = format!("sysctl -w {name}={}", value * 2);
            Error::system(errno, format!("there are as many queues as {name} allows, {value}"))
                .as_kind(Kind::Limit { name, value, raise_with })
        }
        Errno::NOSYS => Error::system(errno, "this kernel has no System V message queues"),
        _ => Error::system(errno, ""),
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
        wait.retry(PAUSE_MAX, |how| sysv::send(self.queue, &self.letter, how == Call::Blocking))
            .map_err(|halt| self.explain(halt, frame.size(), wait))?;
        Ok(frame.size())
    }

    fn pollable(&mut self) -> Result<Pollable<'_>, Error> {
        Err(not_pollable())
    }

    fn duplicate(&self) -> Result<Option<Box<dyn SendEnd>>, Error> {
        let letter = Letter::new(self.letter.room());
        let address = self.address.clone();
        Ok(Some(Box::new(Sending { letter, address, ..*self })))
    }
}

struct Receiving {
    queue: Queue,
    letter: Letter,
    /// Which type is taken, as msgrcv(2) puts it.
    wanted: isize,
    is_raw: bool,
    address: Address,
}

impl Receiving {
    /// One call; where the message is larger than there is room (it stays in the queue then), there
    /// is made more room first.
    fn take(&mut self, how: Call) -> Result<(), Errno> {
        loop {
            match sysv::receive(self.queue, &mut self.letter, self.wanted, how == Call::Blocking) {
                Err(Errno::TOOBIG) => self.letter = Letter::new(self.letter.room() * 2),
                result => return result,
            }
        }
    }
}

impl RecvEnd for Receiving {
    fn recv(&mut self, arrival: &mut Arrival, wait: Wait) -> Result<(), Error> {
        let wait = wait.begin();
        arrival.reset();
        if let Err(halt) = wait.retry(PAUSE_MAX, |how| self.take(how)) {
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
        Err(not_pollable())
    }

    fn duplicate(&self) -> Result<Option<Box<dyn RecvEnd>>, Error> {
        let letter = Letter::new(self.letter.room());
        let address = self.address.clone();
        Ok(Some(Box::new(Receiving { letter, address, ..*self })))
    }
}

fn not_pollable() -> Error {
    Error::new(Kind::NotSupported, "a System V queue has no descriptor to poll")
        .with_hint("wait for it with a time, or use a mechanism that has one, such as mq:")
}

#[cfg(test)]
mod tests {
    use super::super::posix_queue::tests::{Object, is_alone, set};
    use super::*;
    use crate::options::Options;
    use crate::{Outgoing, Receiver, Sender};
    use rustix::time::{ClockId, clock_gettime};
    use std::time::{Duration, Instant};

    /// A key that no other test and no other process has, with high probability.
    fn object(number: u32) -> Object {
        Object(format!("sysv:{:#x}", 0x5000_0000 | number << 22 | std::process::id() & 0x3f_ffff))
    }

    #[test]
    fn a_key_is_a_number_or_a_file_that_is_there() {
        let key = |rest: &str| key_of(&Address::new("sysv", rest).unwrap());
        assert_eq!(key("1234").unwrap(), 1234);
        assert_eq!(key("0x4d2").unwrap(), 1234);
        assert_eq!(key("0XFFFFFFFF").unwrap(), -1);
        let file = std::env::current_exe().unwrap();
        let file = file.to_str().unwrap();
        assert_eq!(key(file).unwrap(), key(&format!("{file}#1")).unwrap());
        assert_eq!(key(&format!("{file}#255")).unwrap() >> 24, -1);
        for wrong in ["", "0", "0x0", "4294967296", "12ab", "0x", "0x+1", "-1#x", "/#0", "/#256"] {
            let error = key(wrong).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{wrong}");
            assert!(error.hint().contains("sysv:0x4d2"));
        }
        assert_eq!(key("/no/such/file").unwrap_err().kind(), Kind::NotFound);
    }

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
            sysv::create(key_of(&Address::parse(&name.0).unwrap()).unwrap(), 0o600).unwrap();
        let mut letter = Letter::new(0);
        letter.write(1, [b"longer than ", b"a letter of one word"]);
        sysv::send(queue, &letter, false).unwrap();
        let address = Address::parse(&name.0).unwrap();
        let mut end = Receiving { queue, letter: Letter::new(8), wanted: 0, is_raw: true, address };
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
        assert_eq!(receiver.pollable().unwrap_err().kind(), Kind::NotSupported);
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
    fn what_is_there_is_used_as_it_is_or_refused() {
        let name = object(7);
        assert_eq!(Sender::open(&name.0).unwrap_err().kind(), Kind::NotFound);
        let options = Options::new().capacity(300).mode(0o622);
        crate::create(&name.0, &options).unwrap();
        Receiver::open_with(&name.0, &options.clone().create()).unwrap();
        let sender = Sender::open_with(&name.0, &Options::new().create()).unwrap();
        assert_eq!(sender.facts().capacity, Some(300));
        for (other, words) in [
            (Options::new().capacity(4), "a capacity of 300 bytes, not 4"),
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
        crate::remove(&name.0).unwrap();
        assert_eq!(crate::remove(&name.0).unwrap_err().kind(), Kind::NotFound);
        let nothing = crate::create(&name.0, &Options::new().capacity(0)).unwrap_err();
        assert_eq!(nothing.kind(), Kind::Invalid);
    }

    #[test]
    fn many_makers_at_once_get_one_queue() {
        let name = object(11);
        let options = Options::new().capacity(200).mode(0o666).create();
        for _ in 0..50 {
            std::thread::scope(|scope| {
                let all: Vec<_> =
                    (0..4).map(|_| scope.spawn(|| Sender::open_with(&name.0, &options))).collect();
                for sender in all {
                    let mut sender = sender.join().unwrap().unwrap();
                    assert_eq!(sender.facts().capacity, Some(200));
                    sender.try_send("x").unwrap();
                }
            });
            let mut receiver = Receiver::open(&name.0).unwrap();
            for _ in 0..4 {
                receiver.try_recv().unwrap();
            }
            crate::remove(&name.0).unwrap();
        }
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

    #[test]
    fn each_limit_is_named() {
        if !is_alone("mechanism::sysv_queue::tests::each_limit_is_named") {
            return;
        }
        let (one, two) = (object(9), object(10));
        let limit = |options: &Options| match crate::create(&two.0, options).unwrap_err().kind() {
            Kind::Limit { name, value, raise_with } => (name, value, raise_with),
            other => panic!("{other:?}"),
        };
        let mut sender = Sender::create(&one.0).unwrap();
        set("kernel.msgmni", 1);
        let raise = "sysctl -w kernel.msgmni=2".to_owned();
        assert_eq!(limit(&Options::new()), ("kernel.msgmni", 1, raise));
        set("kernel.msgmni", 100);
        let raise = "sysctl -w kernel.msgmnb=16385".to_owned();
        assert_eq!(limit(&Options::new().capacity(16_385)), ("kernel.msgmnb", 16_384, raise));
        // What could not be made as asked for is not left behind.
        assert_eq!(Sender::open(&two.0).unwrap_err().kind(), Kind::NotFound);
        // Lowered under a sender's feet, the limit still tells itself from a queue that is gone.
        set("kernel.msgmax", 100);
        let error = sender.send(&[0; 101]).unwrap_err();
        assert!(matches!(error.kind(), Kind::TooLarge { limit: 100, .. }), "{error:?}");
    }
}
