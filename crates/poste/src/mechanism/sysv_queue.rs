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

use super::{
    Arrival, EndTraits, Frame, Mechanism, News, Opened, Opening, Pollable, RecvEnd, SendEnd,
    check_envelope_fits,
};
use crate::address::Address;
use crate::capabilities::{Capabilities, Priorities, Unit};
use crate::error::{Error, Kind};
use crate::limits::{LETTER_FIRST, PAUSE_DELAY, PAUSE_MAX, PRIORITY_MAX, QUEUE_LOOKS, QUEUE_TRIES};
use crate::options::Create;
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
        Ok(()) => Ok(()),
        // Somebody else was faster.
        Err(Errno::INVAL | Errno::IDRM) => Err(refused(Errno::NOENT, address)),
        Err(errno) => Err(refused(errno, address)),
    }
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
                    .with_hint(format!("the file must be there: touch {path}"))
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
        match make(key, opening) {
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
        Errno::ACCESS | Errno::PERM => Error::system(errno, "the queue is somebody else's")
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
