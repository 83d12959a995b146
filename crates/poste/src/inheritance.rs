//! Ends that a parent hands down to a child that it starts, and that the child takes over.
//!
//! The descriptor keeps its number in the child. What it is, and how it was opened, stands in one
//! variable of that child's environment; a grandchild may see the variable too, so it also says
//! which open file is meant: what merely has the number by chance is not taken.
//!
//! ```text
//! POSTE_INHERITED = ENTRY;ENTRY…      ENTRY = ROLE=NUMBER:DEVICE:INODE,OPTION,OPTION…
//! ROLE = sender | receiver | pair
//! OPTION = raw | mark=BYTE | check | message-size=BYTES | take=MESSAGES | body-only | half-close
//!        | user=UID | group=GID | own-user
//! ```

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};

use poste_sys::hand_down::{self, Handed, Identity};
use rustix::io::Errno;

use crate::credentials::Allowed;
use crate::error::{Error, Kind};
use crate::options::{Framing, Options};

/// Tells a child what it was handed.
const VARIABLE: &str = "POSTE_INHERITED";

/// Which end a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Sender,
    Receiver,
    /// One side of a connection: both.
    Side,
}

/// What one descriptor is, as the variable says it.
#[derive(Debug)]
struct Entry {
    role: Role,
    number: i32,
    identity: Identity,
    options: Options,
}

/// Starts a child that has these ends; they are closed here, whether it starts or not.
pub(crate) fn spawn(
    command: &mut Command,
    ends: Vec<(Role, OwnedFd)>,
    options: &Options,
) -> io::Result<Child> {
    let (mut entries, mut handed) = (Vec::new(), Vec::new());
    for (role, descriptor) in ends {
        let identity = hand_down::identity(&descriptor)?;
        let end = Handed::new(command, descriptor)?;
        let entry = Entry { role, number: end.number(), identity, options: options.clone() };
        entries.push(entry.to_text());
        handed.push(end);
    }
    let child = command.env(VARIABLE, entries.join(";")).spawn();
    // The command may start another child, which has nothing of this.
    command.env_remove(VARIABLE);
    child
}

/// Takes over the end of this kind that the process was started with, and how it was opened.
///
/// # Errors
/// `NotFound` where there is none, or it was taken over before.
pub(crate) fn take(role: Role) -> Result<(OwnedFd, Options), Error> {
    let told = std::env::var_os(VARIABLE);
    let told = told.as_deref().and_then(OsStr::to_str).unwrap_or("");
    for entry in told.split(';').filter_map(Entry::parse).filter(|entry| entry.role == role) {
        match hand_down::take(entry.number, entry.identity) {
            Ok(descriptor) => return Ok((descriptor, entry.options)),
            Err(Errno::BADF) => {}
            Err(errno) => return Err(Error::system(errno, "")),
        }
    }
    Err(Error::new(Kind::NotFound, "none was handed down to this process, or it was taken before")
        .with_hint("start it with the spawn() of an end of a pipe or a pair"))
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::Sender => "sender",
            Role::Receiver => "receiver",
            Role::Side => "pair",
        }
    }

    fn named(name: &str) -> Option<Role> {
        [Role::Sender, Role::Receiver, Role::Side].into_iter().find(|role| role.name() == name)
    }
}

impl Entry {
    fn to_text(&self) -> String {
        let (device, inode) = self.identity;
        let place = format!("{}={}:{device}:{inode}", self.role.name(), self.number);
        [vec![place], words(&self.options)].concat().join(",")
    }

    /// What a parent of another version says beyond this is not guessed at.
    fn parse(text: &str) -> Option<Entry> {
        let mut words = text.split(',');
        let (role, place) = words.next()?.split_once('=')?;
        let (number, identity) = place.split_once(':')?;
        let (device, inode) = identity.split_once(':')?;
        let mut options = Options::new();
        for word in words {
            match word.split_once('=').unwrap_or((word, "")) {
                ("raw", "") => options = options.raw(),
                ("mark", mark) => options = options.delimited(mark.parse().ok()?),
                ("check", "") => options = options.check(),
                ("message-size", size) => options = options.message_size(size.parse().ok()?),
                ("take", messages) => options = options.take(messages.parse().ok()?),
                ("body-only", "") => options = options.body_only(),
                ("half-close", "") => options = options.half_close(),
                ("user", uid) => options = options.require_user(uid.parse().ok()?),
                ("group", gid) => options = options.require_group(gid.parse().ok()?),
                ("own-user", "") => options.allowed.own_user = true,
                _ => return None,
            }
        }
        Some(Entry {
            role: Role::named(role)?,
            number: number.parse().ok()?,
            identity: (device.parse().ok()?, inode.parse().ok()?),
            options,
        })
    }
}

/// How an end was opened, in words. A new setting must be told to children too, or say here why not.
fn words(options: &Options) -> Vec<String> {
    let &Options {
        framing,
        check,
        message_size,
        take,
        body_only,
        half_close,
        allowed: Allowed { user, group, own_user },
        // What opening or making needed, and is done.
        create: _,
        capacity: _,
        mode: _,
        role: _,
        patience: _,
        // Only for queues, FIFOs with a claim and mailboxes, which are opened by their address.
        message_type: _,
        shared: _,
        spin: _,
        deliveries: _,
        huge_pages: _,
        // Such an end isn't one descriptor.
        sealed: _,
    } = options;
    let mut words = Vec::new();
    match framing {
        Framing::Enveloped => {}
        Framing::Raw => words.push("raw".to_owned()),
        Framing::Delimited(mark) => words.push(format!("mark={mark}")),
    }
    let mut value = |name: &str, value: Option<u64>| {
        words.extend(value.map(|value| format!("{name}={value}")));
    };
    value("message-size", message_size.map(|size| size as u64));
    value("take", take);
    value("user", user.map(u64::from));
    value("group", group.map(u64::from));
    let alone = [
        (check, "check"),
        (body_only, "body-only"),
        (half_close, "half-close"),
        (own_user, "own-user"),
    ];
    words.extend(alone.iter().filter(|(is_set, _)| *is_set).map(|(_, name)| (*name).to_owned()));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each setting alone, and all of them: what a child needs it reads as it was.
    #[test]
    fn what_a_parent_says_a_child_reads() {
        let plain = Options::new;
        let all = plain().delimited(b'\n').check().message_size(70_000).take(3).body_only();
        let all = all.half_close().require_user(7).require_group(8);
        let own = Allowed { own_user: true, ..Allowed::default() };
        let settings = [
            plain(),
            plain().raw(),
            plain().delimited(0),
            plain().check(),
            plain().message_size(usize::MAX),
            plain().take(u64::MAX),
            plain().body_only(),
            plain().half_close(),
            plain().require_user(0),
            plain().require_group(u32::MAX),
            Options { allowed: own, ..plain() },
            all,
        ];
        for (options, role) in
            settings.iter().zip([Role::Sender, Role::Receiver, Role::Side].iter().cycle())
        {
            let entry =
                Entry { role: *role, number: 7, identity: (14, 1 << 40), options: options.clone() };
            let text = entry.to_text();
            let read = Entry::parse(&text).unwrap();
            assert_eq!((read.role, read.number, read.identity), (*role, 7, (14, 1 << 40)));
            // No setting has two words, so that equal words are equal settings.
            assert_eq!(words(&read.options), words(options), "{text}");
            assert_eq!(format!("{:?}", read.options), format!("{options:?}"), "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_nothing() {
        for text in ["", "sender", "sender=5", "sender=5:1", "sender=x:1:2", "other=5:1:2"] {
            assert!(Entry::parse(text).is_none(), "{text}");
        }
        assert!(Entry::parse("sender=5:1:2,unheard-of").is_none());
        assert!(Entry::parse("sender=5:1:2").is_some());
    }
}
