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
//! Sources: mq_overview(7), mq_open(3), mq_getattr(3), mq_unlink(3), fstat(2) (st_nlink),
//! getrlimit(2) (RLIMIT_MSGQUEUE), and the kernel's ipc/mqueue.c for what an errno means there.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::thread::sleep;
use std::time::Instant;

use poste_sys::mqueue::{self, Access, Attributes};
use poste_sys::sysctl;
use rustix::event::{EventfdFlags, PollFlags, eventfd};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::{
    Arrival, EndTraits, Frame, Mechanism, News, Opened, Opening, Pollable, RecvEnd, SendEnd,
    check_envelope_fits,
};
use crate::address::Address;
use crate::capabilities::{Capabilities, Priorities, Unit};
use crate::error::{Error, Kind};
use crate::limits::{
    PAUSE_MAX, PRIORITY_MAX_POSIX, QUEUE_CAPACITY, QUEUE_LOOKS, QUEUE_MESSAGE_SIZE, QUEUE_TRIES,
    REMOVAL_LOOK,
};
use crate::name::descriptors::{self, What};
use crate::name::{claim, registry};
use crate::object::{Listing, Object};
use crate::options::{Create, Options};
use crate::survey::{Survey, end_of, since};
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

/// A queue that is open, as the kernel described it then.
struct Queue {
    descriptor: OwnedFd,
    attributes: Attributes,
}

/// What the kernel allows nobody to exceed: HARD_MSGMAX.
const MSG_MAX_HARD: u64 = 65_536;

/// HARD_MSGSIZEMAX, in bytes.
const MSGSIZE_MAX_HARD: u64 = 16 << 20;

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

fn remove(address: &Address) -> Result<(), Error> {
    mqueue::unlink(&name_of(address)?).map_err(|errno| match errno {
        Errno::ACCESS | Errno::PERM => not_owner(errno),
        _ => refused(errno, address),
    })?;
    registry::forget(&registry::queue_key(&place(address)?));
    Ok(())
}

/// The address as it is listed: with the slash.
fn place(address: &Address) -> Result<Address, Error> {
    Ok(address.bare().with_rest(name_of(address)?.into_bytes()))
}

/// What is said where no file system shows the queues.
const NOT_MOUNTED: &str =
    "POSIX queues that nobody has open, as none is mounted (mount -t mqueue none /dev/mqueue)";

/// The queues that the file system shows, where one is mounted; those that somebody has open; and
/// those that poste made.
fn list(survey: &Survey) -> Listing {
    let mut listing = Listing::none();
    let mounts = descriptors::queue_mounts();
    let mount = mounts.iter().find(|mount| std::fs::read_dir(mount).is_ok());
    if mount.is_none() {
        listing.miss(NOT_MOUNTED);
    }
    let shown = mount.and_then(|mount| std::fs::read_dir(mount).ok()).into_iter().flatten();
    let shown = shown.flatten().map(|entry| entry.file_name());
    let open = survey.descriptors.all().filter_map(|(what, opened)| match what {
        What::Queue(_) => Some(opened.first()?.path.file_name()?.to_owned()),
        _ => None,
    });
    let mut names: BTreeSet<_> = shown.chain(open).map(OsStringExt::into_vec).collect();
    names.extend(survey.wanted("mq").map(|address| address.rest()[1..].to_owned()));
    let mut records = BTreeMap::new();
    for (entry, record) in survey.recorded("mq") {
        let name = record.address.rest().strip_prefix(b"/").unwrap_or_default().to_owned();
        names.insert(name.clone());
        records.insert(name, (entry, record));
    }
    for name in names {
        let Ok(address) = Address::new("mq", [b"/", &name[..]].concat()) else { continue };
        let shown = mount.map(|mount| mount.join(OsStr::from_bytes(&name)));
        let record = records.get(&name);
        match look(survey, address, shown.as_deref(), &mut listing) {
            Some((mut object, is_it)) => {
                let is_recorded = record.filter(|(_, record)| record.object == is_it);
                object.age = is_recorded.and_then(|(_, record)| since(record.made));
                listing.objects.push(object);
                if is_it.is_some() && is_recorded.is_none() {
                    listing.gone.extend(record.map(|(entry, _)| (*entry).clone()));
                }
            }
            None => listing.gone.extend(record.map(|(entry, _)| (*entry).clone())),
        }
    }
    listing
}

/// A queue as far as this process may look into it, and which object it is; `None`: there is none.
fn look(
    survey: &Survey,
    address: Address,
    shown: Option<&Path>,
    listing: &mut Listing,
) -> Option<(Object, Option<claim::Object>)> {
    let name = name_of(&address).ok()?;
    let opened = match mqueue::open(&name, Access::Receive) {
        Err(Errno::ACCESS) => mqueue::open(&name, Access::Send),
        opened => opened,
    };
    let queue = match opened {
        Ok(queue) => Some(queue),
        Err(Errno::NOENT) => return None,
        Err(_) => None,
    };
    let mut object = Object::new("mq", address);
    let stat = match (&queue, shown) {
        (Some(queue), _) => rustix::fs::fstat(queue).ok(),
        (None, Some(shown)) => rustix::fs::lstat(shown).ok(),
        (None, None) => None,
    };
    let Some(stat) = stat else { return Some((object, None)) };
    object.mode = Some(stat.st_mode & 0o777);
    survey.owned(&mut object, stat.st_uid);
    if let Some(queue) = queue {
        if let Ok(attributes) = mqueue::attributes(queue.as_fd()) {
            object.depth = Some(attributes.depth as u64);
            object.capacity = Some(attributes.capacity as u64);
            object.message_size = Some(attributes.message_size as u64);
        }
        object.bytes = bytes_in(&queue);
    }
    let is_it = super::path::object(&stat);
    let holders = survey.holders(What::Queue(is_it), end_of);
    survey.held(&mut object, holders, listing);
    Some((object, Some(is_it)))
}

/// How many bytes lie in a queue: what reading its descriptor says, `QSIZE:… NOTIFY:…`.
fn bytes_in(queue: &OwnedFd) -> Option<u64> {
    let mut buffer = [0; 128];
    let size = rustix::io::pread(queue, &mut buffer, 0).ok()?;
    let text = std::str::from_utf8(&buffer[..size]).ok()?;
    text.strip_prefix("QSIZE:")?.split_ascii_whitespace().next()?.parse().ok()
}

/// An end needs messages with room for what it puts there; that is checked before a queue is made.
fn open(opening: &Opening<'_>, access: Access) -> Result<Queue, Error> {
    if let (Some(size), true) = (opening.options.message_size, opening.options.create != Create::No)
    {
        check_envelope_fits(size, opening.options)?;
    }
    let queue = find_or_make(opening, access)?;
    check_envelope_fits(queue.attributes.message_size, opening.options)?;
    Ok(queue)
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

/// The name as the kernel takes it: one slash at the front, which an address may leave out.
fn name_of(address: &Address) -> Result<CString, Error> {
    let rest = address.rest();
    let name = rest.strip_prefix(b"/").unwrap_or(rest);
    let wrong = match name {
        b"" => "a name is missing",
        b"." | b".." => "no queue can have this name",
        _ if name.contains(&b'/') => "a queue's name has no slash but the one at its front",
        _ if name.contains(&0) => "a queue's name has no NUL byte",
        _ if name.len() > 255 => "a queue's name has at most 255 bytes after the slash",
        _ => return Ok(CString::new([b"/", name].concat()).unwrap_or_default()),
    };
    Err(Error::new(Kind::Invalid, wrong).with_hint("name it as in mq:/jobs"))
}

/// The queue of the address, as the options say. Others may make and remove it meanwhile.
fn find_or_make(opening: &Opening<'_>, access: Access) -> Result<Queue, Error> {
    let Opening { address, options } = opening;
    let name = name_of(address)?;
    for _ in 0..QUEUE_TRIES {
        if options.create != Create::New {
            match mqueue::open(&name, access) {
                Ok(descriptor) => return check(descriptor, opening),
                Err(Errno::NOENT) if options.create == Create::IfAbsent => {}
                Err(errno) => return Err(refused(errno, address)),
            }
        }
        match make(&name, access, options).inspect(|queue| recorded(queue, address)) {
            Err(error) if error.errno() != Some(Errno::EXIST.raw_os_error()) => return Err(error),
            Err(error) if options.create == Create::New => {
                return Err(error.as_kind(Kind::NameInUse { owner: owner(&name) }).with_hint(
                    format!("use it as it is, or remove it first: poste remove {}", address.bare()),
                ));
            }
            Err(_) => {}
            Ok(queue) => return Ok(queue),
        }
    }
    Err(Error::system(Errno::AGAIN, "others make and remove it all the time"))
}

/// Makes the queue. The umask may only have made it narrower than asked for, never wider; the exact
/// mode is set on the open queue.
fn make(name: &CString, access: Access, options: &Options) -> Result<Queue, Error> {
    let limit = |name, or: usize| sysctl::read(name).map_or(or, |limit| or.min(limit as usize));
    let capacity = options.capacity.unwrap_or_else(|| limit("fs.mqueue.msg_max", QUEUE_CAPACITY));
    let message_size =
        options.message_size.unwrap_or_else(|| limit("fs.mqueue.msgsize_max", QUEUE_MESSAGE_SIZE));
    if capacity == 0 || message_size == 0 {
        return Err(Error::new(Kind::Invalid, "a queue needs room for a message")
            .with_hint("give a capacity and a message size of 1 or more"));
    }
    let mode = options.mode_or_default() & 0o777;
    let descriptor = mqueue::create(name, access, mode, capacity, message_size)
        .map_err(|errno| refused_to_make(errno, capacity, message_size))?;
    let made = rustix::fs::fchmod(&descriptor, Mode::from_raw_mode(mode))
        .and_then(|()| mqueue::attributes(descriptor.as_fd()));
    match made {
        Ok(attributes) => Ok(Queue { descriptor, attributes }),
        Err(errno) => {
            let _ = mqueue::unlink(name);
            Err(Error::system(errno, "its mode can't be set"))
        }
    }
}

/// Notes in the registry what was made.
fn recorded(queue: &Queue, address: &Address) {
    let object = rustix::fs::fstat(&queue.descriptor).ok().map(|stat| super::path::object(&stat));
    if let Ok(address) = place(address) {
        registry::record(&registry::queue_key(&address), &address, object);
    }
}

/// Compares what is there with what was asked for. Who makes it may not have set its mode yet: what
/// differs is looked at again before it is told.
fn check(descriptor: OwnedFd, opening: &Opening<'_>) -> Result<Queue, Error> {
    let options = opening.options;
    let mut differs = Vec::new();
    for look in 0..QUEUE_LOOKS {
        if look > 0 {
            sleep(PAUSE_MAX);
        }
        let on = |errno| Error::system(errno, "its attributes can't be read");
        let attributes = mqueue::attributes(descriptor.as_fd()).map_err(on)?;
        let stat = rustix::fs::fstat(&descriptor).map_err(on)?;
        if options.create != Create::No {
            refuse_planted(stat.st_uid)?;
        }
        let mode = stat.st_mode & 0o777;
        differs.clear();
        if let Some(asked) = options.capacity.filter(|asked| *asked != attributes.capacity) {
            differs.push(format!("a capacity of {} messages, not {asked}", attributes.capacity));
        }
        if let Some(asked) = options.message_size.filter(|asked| *asked != attributes.message_size)
        {
            differs.push(format!("messages of {} bytes, not {asked}", attributes.message_size));
        }
        if let Some(asked) = options.mode.filter(|asked| *asked != mode) {
            differs.push(format!("the mode {mode:04o}, not {asked:04o}"));
        }
        if differs.is_empty() {
            return Ok(Queue { descriptor, attributes });
        }
    }
    let address = opening.address.bare();
    Err(Error::new(Kind::Mismatch, format!("the queue has {}", differs.join(", and ")))
        .with_hint(format!("use it as it is, or make it anew: poste remove {address}")))
}

/// Anybody may make a queue of any name: where one is to be made, another user's isn't used in its
/// place.
pub(super) fn refuse_planted(uid: u32) -> Result<(), Error> {
    if uid == 0 || uid == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(Error::new(Kind::Permission, format!("a queue of user {uid} has the name"))
        .with_hint("choose another name; or, if it is to be trusted, open it without create"))
}

/// Who owns the queue, as far as this process may look.
fn owner(name: &CString) -> Option<String> {
    let queue = mqueue::open(name, Access::Receive).ok()?;
    Some(format!("a queue of user {}", rustix::fs::fstat(queue).ok()?.st_uid))
}

/// A mode lets others in; removing is the owner's.
pub(super) fn not_owner(errno: Errno) -> Error {
    Error::system(errno, "the queue is somebody else's")
        .with_hint("its owner and root can remove it")
}

/// What an errno means on a queue that should be there.
fn refused(errno: Errno, address: &Address) -> Error {
    let address = address.bare();
    match errno {
        Errno::NOENT => Error::system(errno, "no such queue")
            .with_hint(format!("make it first: poste create {address}")),
        Errno::ACCESS | Errno::PERM => Error::system(errno, "its mode doesn't let this user in")
            .with_hint("its owner can give it a wider mode (poste create --mode 0660)"),
        _ => refused_to_make(errno, 0, 0),
    }
}

/// What an errno means where a queue is made: mq_open has few of them for its many limits.
fn refused_to_make(errno: Errno, capacity: usize, message_size: usize) -> Error {
    match errno {
        Errno::INVAL => {
            for (name, asked, most) in [
                ("fs.mqueue.msg_max", capacity as u64, MSG_MAX_HARD),
                ("fs.mqueue.msgsize_max", message_size as u64, MSGSIZE_MAX_HARD),
            ] {
                let Some(value) = sysctl::read(name).filter(|value| asked > *value) else {
                    continue;
                };
                let kind = Kind::Limit { name, value, raise_with: raise(name, asked.min(most)) };
                let error = Error::system(errno, format!("{asked} is more than {name}, {value}"));
                return match asked > most {
                    true => error.as_kind(kind).with_hint(format!("no kernel allows over {most}")),
                    false => error.as_kind(kind),
                };
            }
            Error::system(errno, "the kernel allows no such queue")
        }
        Errno::NOSPC => {
            let name = "fs.mqueue.queues_max";
            let value = sysctl::read(name).unwrap_or(0);
            Error::system(errno, format!("there are as many queues as {name} allows, {value}"))
                .as_kind(Kind::Limit { name, value, raise_with: raise(name, value * 2) })
        }
        // Descriptors, or the memory of this user's queues: who can open another descriptor has
        // not used up those.
        Errno::MFILE if eventfd(0, EventfdFlags::CLOEXEC).is_ok() => {
            let value = getrlimit(Resource::Msgqueue).current.unwrap_or(u64::MAX);
            let kind = Kind::Limit {
                name: "RLIMIT_MSGQUEUE",
                value,
                raise_with: "ulimit -q unlimited".to_owned(),
            };
            let detail = format!("this user's queues may take {value} bytes (RLIMIT_MSGQUEUE)");
            Error::system(errno, detail).as_kind(kind)
        }
        Errno::MFILE => Error::system(errno, "this process has no descriptor left (RLIMIT_NOFILE)"),
        Errno::NOSYS => Error::system(errno, "this kernel has no POSIX message queues"),
        _ => Error::system(errno, ""),
    }
}

fn raise(name: &str, value: u64) -> String {
    format!("sysctl -w {name}={value}")
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
    use crate::wait::Halt;
    use crate::{Outgoing, Receiver, Sender};
    use rustix::process::{Rlimit, setrlimit};
    use std::process::Command;
    use std::time::{Duration, Instant};

    /// An object of a test, taken away at its end.
    pub(in super::super) struct Object(pub(in super::super) String);

    impl Drop for Object {
        fn drop(&mut self) {
            let _ = crate::remove(&self.0);
        }
    }

    fn object(name: &str) -> Object {
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
            eprintln!("skipped: unshare -ri doesn't work here");
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
    fn a_name_has_one_slash_at_its_front() {
        let name = |rest: &[u8]| name_of(&Address::new("mq", rest).unwrap());
        assert_eq!(name(b"x").unwrap().as_bytes(), b"/x");
        assert_eq!(name(b"/x").unwrap().as_bytes(), b"/x");
        assert!(name(&[b'x'; 255]).is_ok());
        for wrong in [&b""[..], b"/", b"//x", b"/a/b", b"a/", b".", b"/..", b"a\0", &[b'x'; 256]] {
            let error = name(wrong).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{wrong:?}");
            assert!(!error.hint().is_empty());
        }
        let longest = Object(format!("mq:{:x>255}", std::process::id()));
        crate::create(&longest.0, &Options::new()).unwrap();
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

    #[test]
    fn an_envelope_that_does_not_fit_is_refused_before_a_queue_is_made() {
        let name = object("tiny");
        let options = Options::new().message_size(31).create();
        assert_eq!(Sender::open_with(&name.0, &options).unwrap_err().kind(), Kind::NotSupported);
        assert_eq!(Sender::open(&name.0).unwrap_err().kind(), Kind::NotFound);
        crate::create(&name.0, &options).unwrap();
        assert_eq!(Receiver::open(&name.0).unwrap_err().kind(), Kind::NotSupported);
        Receiver::open_with(&name.0, &options.raw()).unwrap();
    }

    #[test]
    fn many_makers_at_once_get_one_queue() {
        let name = object("race");
        let options = Options::new().capacity(4).message_size(64).mode(0o666).create();
        for _ in 0..50 {
            std::thread::scope(|scope| {
                let all: Vec<_> =
                    (0..4).map(|_| scope.spawn(|| Sender::open_with(&name.0, &options))).collect();
                let mut senders: Vec<_> =
                    all.into_iter().map(|one| one.join().unwrap().unwrap()).collect();
                for sender in &mut senders {
                    sender.try_send("x").unwrap();
                }
                assert_eq!(senders[0].try_send("x").unwrap_err().kind(), Kind::Full);
            });
            crate::remove(&name.0).unwrap();
        }
    }

    #[test]
    fn each_limit_is_named() {
        if !is_alone("mechanism::posix_queue::tests::each_limit_is_named") {
            return;
        }
        let name = object("limit");
        let limit = |options: &Options| match crate::create(&name.0, options).unwrap_err().kind() {
            Kind::Limit { name, value, raise_with } => (name, value, raise_with),
            other => panic!("{other:?}"),
        };
        let what = |text: &str| text.to_owned();

        set("fs.mqueue.msg_max", 4);
        set("fs.mqueue.msgsize_max", 1024);
        let raise = what("sysctl -w fs.mqueue.msg_max=5");
        assert_eq!(limit(&Options::new().capacity(5)), ("fs.mqueue.msg_max", 4, raise));
        let raise = what("sysctl -w fs.mqueue.msgsize_max=1025");
        let size = Options::new().message_size(1025);
        assert_eq!(limit(&size), ("fs.mqueue.msgsize_max", 1024, raise));
        let error = crate::create(&name.0, &Options::new().capacity(70_000)).unwrap_err();
        assert_eq!(error.hint(), "no kernel allows over 65536");
        let sender = Sender::create(&name.0).unwrap();
        assert_eq!((sender.facts().capacity, sender.facts().piece_size), (Some(4), 1024));
        crate::remove(&name.0).unwrap();

        set("fs.mqueue.queues_max", 0);
        assert_eq!(limit(&Options::new()).0, "fs.mqueue.queues_max");
        set("fs.mqueue.queues_max", 256);

        let few = |resource, current| {
            setrlimit(
                resource,
                Rlimit { current: Some(current), maximum: getrlimit(resource).maximum },
            )
        };
        let before = getrlimit(Resource::Msgqueue).current.unwrap();
        few(Resource::Msgqueue, 1000).unwrap();
        let raise = what("ulimit -q unlimited");
        assert_eq!(limit(&Options::new()), ("RLIMIT_MSGQUEUE", 1000, raise));
        few(Resource::Msgqueue, before).unwrap();
        crate::create(&name.0, &Options::new()).unwrap();
        crate::remove(&name.0).unwrap();

        few(Resource::Nofile, 3).unwrap();
        let error = crate::create(&name.0, &Options::new()).unwrap_err();
        few(Resource::Nofile, 1024).unwrap();
        assert!(matches!(error.kind(), Kind::Limit { name: "RLIMIT_NOFILE", value: 3, .. }));
    }
}
