//! System V queues as objects: found by their keys, made, listed, removed.
//!
//! A key is a number or a file's (ftok). The kernel shows every queue of the namespace, and keeps no
//! record of who has one open. Not here: ftok's collisions (two files may have one key).
//!
//! Sources: sysvipc(7), msgget(2), msgctl(2), ftok(3), proc(5) (/proc/sysvipc/msg).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread::sleep;

use poste_sys::sysctl;
use poste_sys::sysv::{self, Queue};
use rustix::io::Errno;

use super::posix_objects::{not_owner, refuse_planted};
use super::sysv_queue::message_max;
use super::{Opening, sysv_bell};
use crate::address::Address;
use crate::error::{Error, Kind};
use crate::limits::{PAUSE_MAX, QUEUE_LOOKS, QUEUE_TRIES};
use crate::name::{claim, registry};
use crate::object::{Detail, Listing, Object};
use crate::options::Create;
use crate::survey::{Survey, since};

pub(super) fn remove(address: &Address) -> Result<(), Error> {
    let queue = sysv::open(key_of(address)?, 0).map_err(|errno| refused(errno, address))?;
    match sysv::remove(queue) {
        Ok(()) => {
            registry::forget(&registry::queue_key(&place(address)?));
            sysv_bell::tell_removed(queue);
            Ok(())
        }
        // Somebody else was faster.
        Err(Errno::INVAL | Errno::IDRM) => Err(refused(Errno::NOENT, address)),
        Err(errno @ (Errno::ACCESS | Errno::PERM)) => Err(not_owner(errno)),
        Err(errno) => Err(refused(errno, address)),
    }
}

/// The address as it is listed: with its key in hexadecimal.
pub(super) fn place(address: &Address) -> Result<Address, Error> {
    let key = key_of(address)?;
    Ok(address.bare().with_rest(format!("{key:#x}")))
}

/// Every queue of this namespace: the kernel shows them all, whoever asks. Who has one open it
/// doesn't know: there is nothing to open.
pub(super) fn list(survey: &Survey) -> Listing {
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
pub(super) fn identity(queue: Queue) -> claim::Object {
    claim::Object { device: registry::space(), inode: queue.number() as u64 }
}

/// The key that an address means: a number, or a file's (`PATH#N`, ftok's number, 1 if left out).
pub(super) fn key_of(address: &Address) -> Result<i32, Error> {
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

/// The queue of the address, as the options say. Others may make and remove it meanwhile.
pub(super) fn find_or_make(opening: &Opening<'_>, access: u32) -> Result<Queue, Error> {
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
        refuse_planted(user_of(queue)?)?;
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

/// Whose the queue is. Who may only send can't ask for it (IPC_STAT); /proc shows it to everybody.
fn user_of(queue: Queue) -> Result<u32, Error> {
    let errno = match sysv::status(queue) {
        Ok(status) => return Ok(status.uid),
        Err(errno) => errno,
    };
    let text = std::fs::read_to_string("/proc/sysvipc/msg").unwrap_or_default();
    let mut lines = text.lines().skip(1).filter_map(Line::read);
    lines.find(|line| line.number == queue.number()).map(|line| line.uid).ok_or_else(|| {
        Error::system(errno, "whose the queue is can't be read")
            .with_hint("choose another key; or, if it is to be trusted, open it without create")
    })
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

#[cfg(test)]
pub(super) mod tests {
    use super::super::posix_queue::tests::{Object, is_alone, set};
    use super::*;
    use crate::options::Options;
    use crate::{Receiver, Sender};

    /// A key that no other test and no other process has, with high probability.
    pub(in super::super) fn object(number: u32) -> Object {
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
    fn each_limit_is_named() {
        if !is_alone("mechanism::sysv_objects::tests::each_limit_is_named") {
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
