//! One look at the machine, for everything that is shown of it: who has what open, what poste made,
//! what is claimed, who is who.
//!
//! A mechanism finds its objects with it (`Mechanism::list`). Nothing is made or changed by looking.
//! Sources: passwd(5), proc(5), unix(7) ("/proc/net/unix").

use std::cell::OnceCell;
use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use crate::address::Address;
use crate::name::claim::{self, Standing};
use crate::name::descriptors::{self, Descriptors, Opened, What};
use crate::name::registry::{self, Entry, Record};
use crate::name::unix_diag::{self, Socket};
use crate::object::{Holder, Listing, Object, State};

/// One look at the machine. Opaque: mechanisms find their objects with it.
#[derive(Debug)]
pub struct Survey {
    pub(crate) descriptors: Descriptors,
    registry: Vec<Entry>,
    claims: Vec<Standing>,
    users: HashMap<u32, String>,
    sockets: OnceCell<Vec<Socket>>,
    /// An object that is looked for even where nothing leads to it.
    wanted: Option<Address>,
}

/// What is said where some processes may not be looked into.
const DESCRIPTORS: &str = "who has what open among other users' processes";

impl Survey {
    /// Looks around; `wanted` is an object to look at even where nothing leads to it.
    #[must_use]
    pub(crate) fn new(wanted: Option<Address>) -> Survey {
        Survey {
            descriptors: Descriptors::look(),
            registry: registry::all(),
            // What can't be read proves nothing.
            claims: claim::all().unwrap_or_default(),
            users: users(),
            sockets: OnceCell::new(),
            wanted,
        }
    }

    /// What poste made and recorded of a mechanism, in this namespace.
    pub(crate) fn recorded(&self, scheme: &str) -> impl Iterator<Item = (&Entry, &Record)> {
        let here = registry::space();
        self.registry.iter().filter_map(move |entry| {
            let record = entry.record.as_ref()?;
            let is_here = record.space == 0 || record.space == here;
            (is_here && record.address.scheme() == scheme).then_some((entry, record))
        })
    }

    /// The claims of a mechanism's addresses, each with what it says.
    pub(crate) fn claimed(
        &self,
        scheme: &str,
    ) -> impl Iterator<Item = (&Standing, &claim::Record, Address)> {
        self.claims.iter().filter_map(move |claim| {
            let record = claim.record.as_ref()?;
            let address = Address::parse(&record.address).ok()?;
            (address.scheme() == scheme).then_some((claim, record, address))
        })
    }

    /// Every Unix socket of this network namespace.
    pub(crate) fn sockets(&self) -> &[Socket] {
        self.sockets.get_or_init(|| {
            unix_diag::sockets().or_else(|_| unix_diag::from_proc()).unwrap_or_default()
        })
    }

    /// The object that is looked for, where it is one of this mechanism.
    pub(crate) fn wanted(&self, scheme: &str) -> Option<&Address> {
        self.wanted.as_ref().filter(|address| address.scheme() == scheme)
    }

    /// Who has this open, each once.
    pub(crate) fn holders(&self, what: What, end: impl Fn(&Opened) -> &'static str) -> Vec<Holder> {
        let opened = self.descriptors.of(what).iter();
        let mut holders: Vec<_> = opened.map(|opened| holder(opened.pid, end(opened))).collect();
        holders.sort();
        holders.dedup();
        holders
    }

    /// Says who has an object open, and what follows from it.
    pub(crate) fn held(&self, object: &mut Object, holders: Vec<Holder>, listing: &mut Listing) {
        if self.descriptors.is_partial {
            listing.miss(DESCRIPTORS);
        }
        object.alive = match (holders.is_empty(), self.descriptors.is_partial) {
            (false, _) => Some(true),
            (true, false) => Some(false),
            (true, true) => None,
        };
        object.state = object.alive.map(|alive| if alive { State::Alive } else { State::Unused });
        object.holders = Some(holders);
    }

    /// A user in words.
    pub(crate) fn user(&self, uid: u32) -> String {
        self.users.get(&uid).map_or_else(|| format!("user {uid}"), |name| format!("user {name}"))
    }

    /// Says whose an object is.
    pub(crate) fn owned(&self, object: &mut Object, uid: u32) {
        object.uid = Some(uid);
        object.owner = self.users.get(&uid).cloned();
    }
}

/// A process and the end it holds.
pub(crate) fn holder(pid: u32, end: &'static str) -> Holder {
    Holder { pid, command: descriptors::command(pid), end }
}

/// The end that a descriptor's own access means.
pub(crate) fn end_of(opened: &Opened) -> &'static str {
    match (opened.reads, opened.writes) {
        (true, false) => "receive",
        (false, true) => "send",
        _ => "both",
    }
}

/// How long ago a time in seconds since 1970 is.
pub(crate) fn since(made: u64) -> Option<Duration> {
    let made = UNIX_EPOCH + Duration::from_secs(made);
    SystemTime::now().duration_since(made).ok()
}

/// How long ago a file was made, where its file system notes it.
pub(crate) fn age_of_file(path: &std::path::Path) -> Option<Duration> {
    let stat = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BTIME).ok()?;
    let has_it = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
    has_it.then(|| since(u64::try_from(stat.stx_btime.tv_sec).ok()?))?
}

/// Users' names by their numbers.
fn users() -> HashMap<u32, String> {
    let text = fs::read("/etc/passwd").unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let users = text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        Some((fields.nth(1)?.parse().ok()?, name.to_owned()))
    });
    // The first of several names is the one that is shown.
    users.fold(HashMap::new(), |mut users, (uid, name)| {
        users.entry(uid).or_insert(name);
        users
    })
}

/// Where a process is.
pub(crate) fn working_directory(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/cwd")).ok()
}
