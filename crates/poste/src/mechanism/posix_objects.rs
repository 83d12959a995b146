//! POSIX message queues as objects: finding one, making one as it was asked for, taking its name
//! away, and listing what there is, whoever made it. What an errno of mq_open means stands here.
//!
//! Sources: mq_overview(7), mq_open(3), mq_unlink(3), getrlimit(2) (RLIMIT_MSGQUEUE), and the
//! kernel's ipc/mqueue.c for what an errno means there.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::thread::sleep;

use poste_sys::mqueue::{self, Access, Attributes};
use poste_sys::sysctl;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::{Opening, check_envelope_fits};
use crate::address::Address;
use crate::error::{Error, Kind};
use crate::limits::{PAUSE_MAX, QUEUE_CAPACITY, QUEUE_LOOKS, QUEUE_MESSAGE_SIZE, QUEUE_TRIES};
use crate::name::descriptors::{self, What};
use crate::name::{claim, registry};
use crate::object::{Listing, Object};
use crate::options::{Create, Options};
use crate::survey::{Survey, end_of, since};

/// A queue that is open, as the kernel described it then.
pub(super) struct Queue {
    pub(super) descriptor: OwnedFd,
    pub(super) attributes: Attributes,
}

/// What the kernel allows nobody to exceed: HARD_MSGMAX.
const MSG_MAX_HARD: u64 = 65_536;

/// HARD_MSGSIZEMAX, in bytes.
const MSGSIZE_MAX_HARD: u64 = 16 << 20;

/// An end needs messages with room for what it puts there; that is checked before a queue is made.
pub(super) fn open(opening: &Opening<'_>, access: Access) -> Result<Queue, Error> {
    if let (Some(size), true) = (opening.options.message_size, opening.options.create != Create::No)
    {
        check_envelope_fits(size, opening.options)?;
    }
    let queue = find_or_make(opening, access)?;
    check_envelope_fits(queue.attributes.message_size, opening.options)?;
    Ok(queue)
}

/// The name as the kernel takes it: one slash at the front, which an address may leave out.
pub(super) fn name_of(address: &Address) -> Result<CString, Error> {
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
pub(super) fn find_or_make(opening: &Opening<'_>, access: Access) -> Result<Queue, Error> {
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

pub(super) fn remove(address: &Address) -> Result<(), Error> {
    mqueue::unlink(&name_of(address)?).map_err(|errno| match errno {
        Errno::ACCESS | Errno::PERM => not_owner(errno),
        _ => refused(errno, address),
    })?;
    registry::forget(&registry::queue_key(&place(address)?));
    Ok(())
}

/// The address as it is listed: with the slash.
pub(super) fn place(address: &Address) -> Result<Address, Error> {
    Ok(address.bare().with_rest(name_of(address)?.into_bytes()))
}

/// What is said where no file system shows the queues.
const NOT_MOUNTED: &str =
    "POSIX queues that nobody has open, as none is mounted (mount -t mqueue none /dev/mqueue)";

/// The queues that the file system shows, where one is mounted; those that somebody has open; and
/// those that poste made.
pub(super) fn list(survey: &Survey) -> Listing {
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

#[cfg(test)]
mod tests {
    use super::super::posix_queue::tests::{self as queues, is_alone, object, set};
    use super::*;
    use crate::{Receiver, Sender};
    use rustix::process::{Rlimit, setrlimit};

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
        let longest = queues::Object(format!("mq:{:x>255}", std::process::id()));
        crate::create(&longest.0, &Options::new()).unwrap();
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
        if !is_alone("mechanism::posix_objects::tests::each_limit_is_named") {
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
