//! Who owns something, said so that it can be proved later that this process is gone.
//!
//! A number alone proves nothing: numbers are used again. With the time the process started, the
//! boot and the namespace that the number belongs to, it names one process for ever.
//! Sources: proc_pid_stat(5) (fields 3 and 22), proc(5) (hidepid), pid_namespaces(7),
//! /proc/sys/kernel/random/boot_id.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// A process, named for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// Its number.
    pub(crate) pid: u32,
    /// When it started, in clock ticks since the boot.
    pub(crate) start: u64,
    /// The boot it belongs to.
    pub(crate) boot: String,
    /// The namespace its number belongs to.
    pub(crate) namespace: u64,
}

impl Owner {
    /// This process.
    #[must_use]
    pub(crate) fn myself() -> Owner {
        let pid = std::process::id();
        Owner::started(pid, start_of(pid).unwrap_or(0))
    }

    /// A process of our namespace; nothing when there is none any more.
    #[must_use]
    pub(crate) fn of(pid: u32) -> Option<Owner> {
        Some(Owner::started(pid, start_of(pid)?))
    }

    fn started(pid: u32, start: u64) -> Owner {
        Owner {
            pid,
            start,
            boot: boot(),
            namespace: fs::metadata("/proc/self/ns/pid").map_or(0, |namespace| namespace.ino()),
        }
    }

    /// Whether the kernel says that this process is gone. Where it can't say, it isn't.
    #[must_use]
    pub(crate) fn is_gone(&self) -> bool {
        let here = Owner::myself();
        if self.boot != here.boot && !self.boot.is_empty() && !here.boot.is_empty() {
            return true;
        }
        if self.namespace != here.namespace || here.start == 0 {
            // Its number means something else here, or /proc is not to be read.
            return false;
        }
        match look(self.pid) {
            Seen::Running(start) => start != self.start,
            Seen::Ended => true,
            Seen::Hidden => false,
        }
    }

    /// Reads what [`fmt::Display`] wrote.
    #[must_use]
    pub(crate) fn parse(text: &str) -> Option<Owner> {
        let mut words = text.split_ascii_whitespace();
        let owner = Owner {
            pid: words.next()?.parse().ok()?,
            start: words.next()?.parse().ok()?,
            namespace: words.next()?.parse().ok()?,
            boot: words.next()?.to_owned(),
        };
        words.next().is_none().then_some(owner)
    }

    /// The process in words, with its command where that is to be read.
    #[must_use]
    pub(crate) fn describe(&self) -> String {
        match fs::read_to_string(format!("/proc/{}/comm", self.pid)) {
            Ok(command) if !self.is_gone() => format!("process {} ({})", self.pid, command.trim()),
            _ => format!("process {}", self.pid),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.pid, self.start, self.namespace, self.boot)
    }
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| String::new(), |boot| boot.trim().to_owned())
}

/// What /proc says of a process.
enum Seen {
    /// It runs, and started then.
    Running(u64),
    /// There is none, or only what its parent has not yet taken note of (a zombie holds nothing any
    /// more).
    Ended,
    /// It is there, and not to be looked at: /proc may hide processes (`hidepid`).
    Hidden,
}

fn start_of(pid: u32) -> Option<u64> {
    match look(pid) {
        Seen::Running(start) => Some(start),
        Seen::Ended | Seen::Hidden => None,
    }
}

fn look(pid: u32) -> Seen {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        let known = i32::try_from(pid).ok().and_then(Pid::from_raw).map(test_kill_process);
        return match known {
            None | Some(Err(Errno::SRCH)) => Seen::Ended,
            Some(Ok(()) | Err(_)) => Seen::Hidden,
        };
    };
    // The command's name, in parentheses, may hold anything; the rest is numbers and words.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = rest.split_ascii_whitespace();
    if matches!(fields.next(), Some("Z" | "X")) {
        return Seen::Ended;
    }
    let start = fields.nth(18).and_then(|start| start.parse().ok());
    start.map_or(Seen::Hidden, Seen::Running)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let myself = Owner::myself();
        assert_eq!(Owner::parse(&myself.to_string()), Some(myself));
        assert_eq!(Owner::parse("12 3"), None);
    }

    #[test]
    fn a_process_that_ended_is_gone_and_its_number_alone_proves_nothing() {
        let myself = Owner::myself();
        assert!(!myself.is_gone());
        // The same number, another process: as after the number was used again.
        assert!(Owner { start: myself.start + 1, ..myself.clone() }.is_gone());
        assert!(Owner { boot: "another".to_owned(), ..myself.clone() }.is_gone());
        // Of another namespace nothing is known.
        let elsewhere = Owner { namespace: myself.namespace + 1, start: 1, ..myself };
        assert!(!elsewhere.is_gone());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let owner =
            Owner { pid: child.id(), start: start_of(child.id()).unwrap_or(0), ..Owner::myself() };
        child.wait().unwrap();
        assert!(owner.is_gone());
    }
}
