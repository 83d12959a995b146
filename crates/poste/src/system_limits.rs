//! The limits of the system that hold messages, by their own names: what each is, what is used of it
//! and by whom, and the command that raises it.
//!
//! Sources: mq_overview(7), sysvipc(7), getrlimit(2), pipe(7), socket(7), unix(7), proc(5).

use std::fs;

use poste_sys::sysctl;
use rustix::process::{Resource, getrlimit, getuid};

use crate::mechanism::{self, ALL};
use crate::name::descriptors;
use crate::object::{Listing, Object};
use crate::objects;
use crate::survey::Survey;

/// A limit of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SystemLimit {
    /// Its own name: a sysctl (`fs.mqueue.msg_max`) or an rlimit (`RLIMIT_MSGQUEUE`).
    pub name: &'static str,
    /// Its value; `u64::MAX` is unlimited.
    pub value: u64,
    /// What is used of it, where that can be known; of a limit for each object, the most of any.
    pub used: Option<u64>,
    /// By whom: a user, a process, an object, or `everybody`.
    pub used_by: Option<String>,
    /// The command that raises it.
    pub raise_with: String,
}

/// What is used, and by whom.
type Used = Option<(u64, String)>;

/// A limit, and how to find out what is used of it.
struct Row {
    name: &'static str,
    used: fn(&Survey, &Listing) -> Used,
}

const fn row(name: &'static str, used: fn(&Survey, &Listing) -> Used) -> Row {
    Row { name, used }
}

const UNKNOWN: fn(&Survey, &Listing) -> Used = |_, _| None;

/// All of them, in the order in which they are shown.
static ROWS: &[Row] = &[
    row("fs.mqueue.msg_max", |_, listing| most(listing, "mq", |queue| queue.capacity)),
    row("fs.mqueue.msgsize_max", |_, listing| most(listing, "mq", |queue| queue.message_size)),
    row("fs.mqueue.queues_max", |_, listing| everybody(queues(listing))),
    row("RLIMIT_MSGQUEUE", queue_bytes),
    row("kernel.msgmax", UNKNOWN),
    row("kernel.msgmnb", |_, listing| most(listing, "sysv", |queue| queue.bytes)),
    row("kernel.msgmni", |_, _| everybody(lines("/proc/sysvipc/msg"))),
    row("RLIMIT_NOFILE", |survey, _| descriptors_used(survey)),
    row("fs.pipe-max-size", |_, listing| most(listing, "fifo", |fifo| fifo.capacity)),
    row("fs.pipe-user-pages-soft", UNKNOWN),
    row("net.core.wmem_max", UNKNOWN),
    row("net.core.rmem_max", UNKNOWN),
    row("net.core.somaxconn", UNKNOWN),
    row("net.unix.max_dgram_qlen", UNKNOWN),
    row("kernel.shmmax", UNKNOWN),
    row("kernel.shmall", UNKNOWN),
    row("kernel.shmmni", |_, _| everybody(lines("/proc/sysvipc/shm"))),
    row("kernel.sem", |_, _| everybody(lines("/proc/sysvipc/sem"))),
];

/// The limits of the system that hold messages and shared memory; those that this kernel doesn't
/// have are left out. `kernel.sem` is four numbers, of which this is the last: how many sets.
#[must_use]
pub fn limits() -> Vec<SystemLimit> {
    let names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
    of(&Survey::new(None), &names)
}

/// Those of some names.
pub(crate) fn of(survey: &Survey, names: &[&str]) -> Vec<SystemLimit> {
    let kernel_queues = |mechanism: &&&mechanism::Mechanism| {
        mechanism.limits.iter().any(|limit| names.contains(limit))
    };
    let mechanisms: Vec<_> = ALL.iter().filter(kernel_queues).copied().collect();
    let listing = objects::look(survey, &mechanisms);
    let rows = ROWS.iter().filter(|row| names.contains(&row.name));
    rows.filter_map(|row| limit(row, survey, &listing)).collect()
}

fn limit(row: &Row, survey: &Survey, listing: &Listing) -> Option<SystemLimit> {
    let value = value(row.name)?;
    let (used, used_by) = (row.used)(survey, listing).unzip();
    Some(SystemLimit { name: row.name, value, used, used_by, raise_with: raise(row.name, value) })
}

/// The present value of a limit.
fn value(name: &str) -> Option<u64> {
    let rlimit = |resource| Some(getrlimit(resource).current.unwrap_or(u64::MAX));
    match name {
        "RLIMIT_MSGQUEUE" => rlimit(Resource::Msgqueue),
        "RLIMIT_NOFILE" => rlimit(Resource::Nofile),
        "kernel.sem" => semaphore_limits()?.last()?.parse().ok(),
        _ => sysctl::read(name),
    }
}

/// SEMMSL, SEMMNS, SEMOPM, SEMMNI.
fn semaphore_limits() -> Option<Vec<String>> {
    let text = fs::read_to_string("/proc/sys/kernel/sem").ok()?;
    Some(text.split_ascii_whitespace().map(str::to_owned).collect())
}

/// The command that raises a limit: to twice its value, or as far as the kernel goes.
fn raise(name: &str, value: u64) -> String {
    let twice = value.saturating_mul(2);
    match name {
        "RLIMIT_MSGQUEUE" => "ulimit -q unlimited".to_owned(),
        "RLIMIT_NOFILE" => format!("ulimit -n {}", twice.max(65_536)),
        "fs.mqueue.msg_max" => format!("sysctl -w {name}={}", twice.min(65_536)),
        "fs.mqueue.msgsize_max" => format!("sysctl -w {name}={}", twice.min(16 << 20)),
        "kernel.sem" => {
            let mut numbers = semaphore_limits().unwrap_or_default();
            if let Some(last) = numbers.last_mut() {
                *last = twice.to_string();
            }
            format!("sysctl -w {name}=\"{}\"", numbers.join(" "))
        }
        _ => format!("sysctl -w {name}={twice}"),
    }
}

/// The object of a mechanism that has the most of something.
fn most(listing: &Listing, scheme: &str, amount: fn(&Object) -> Option<u64>) -> Used {
    let objects = listing.objects.iter().filter(|object| object.mechanism == scheme);
    let amounts = objects.filter_map(|object| Some((amount(object)?, object.address.to_string())));
    amounts.max_by_key(|(amount, _)| *amount)
}

fn everybody(used: Option<u64>) -> Used {
    Some((used?, "everybody".to_owned()))
}

/// How many POSIX queues there are, where they can be seen.
fn queues(listing: &Listing) -> Option<u64> {
    let queues = listing.objects.iter().filter(|object| object.mechanism == "mq").count();
    (!descriptors::queue_mounts().is_empty()).then_some(queues as u64)
}

/// What this user's queues take, as the kernel counts it (mqueue_get_inode): room for each message,
/// for its header, and for a node of the tree of priorities.
fn queue_bytes(survey: &Survey, listing: &Listing) -> Used {
    const HEADER_AND_NODE: u64 = 48 + 48;
    queues(listing)?;
    let uid = getuid().as_raw();
    let mine = listing.objects.iter().filter(|it| it.mechanism == "mq" && it.uid == Some(uid));
    let sizes = mine.map(|queue| {
        let room = queue.message_size?.saturating_add(HEADER_AND_NODE);
        Some(queue.capacity?.saturating_mul(room))
    });
    let sum = sizes.sum::<Option<u64>>()?;
    Some((sum, survey.user(uid)))
}

/// The process that has the most descriptors open.
fn descriptors_used(survey: &Survey) -> Used {
    let (pid, count) = survey.descriptors.counts.iter().max_by_key(|(_, count)| **count)?;
    Some((*count, format!("process {pid} ({})", descriptors::command(*pid))))
}

/// How many objects a table of /proc has, below its heading.
fn lines(path: &str) -> Option<u64> {
    Some(fs::read_to_string(path).ok()?.lines().skip(1).count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_values_and_commands() {
        let limits = limits();
        assert!(limits.iter().any(|limit| limit.name == "RLIMIT_NOFILE" && limit.used.is_some()));
        for limit in limits {
            assert!(limit.raise_with.contains(['=', ' ']), "{limit:?}");
        }
    }

    #[test]
    fn every_limit_of_a_mechanism_is_known() {
        for name in ALL.iter().flat_map(|mechanism| mechanism.limits) {
            assert!(ROWS.iter().any(|row| row.name == *name), "{name}");
        }
    }
}
