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
    /// When it started, in clock ticks since the boot; 0: not known, as /proc couldn't be read.
    pub(crate) start: u64,
    /// The boot it belongs to.
    pub(crate) boot: String,
    /// The namespace its number belongs to; 0: not known.
    pub(crate) namespace: u64,
}

/// What the kernel says of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It ended: there is no such process, or only a zombie, or one that started at another time.
    Gone,
    /// It runs.
    Alive,
    /// That can't be said from here. It counts as alive.
    Unknown,
}

impl Owner {
    /// This process.
    #[must_use]
    pub(crate) fn myself() -> Owner {
        let pid = std::process::id();
        Owner::of(pid).unwrap_or_else(|| Owner::started(pid, 0))
    }

    /// A process of our namespace; nothing when it has ended.
    #[must_use]
    pub(crate) fn of(pid: u32) -> Option<Owner> {
        match look(pid) {
            Seen::Running(start) => Some(Owner::started(pid, start)),
            Seen::Hidden => Some(Owner::started(pid, 0)),
            Seen::Ended => None,
        }
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
        self.fate() == Fate::Gone
    }

    /// What the kernel says of this process.
    #[must_use]
    pub(crate) fn fate(&self) -> Fate {
        let here = Owner::myself();
        if self.boot != here.boot && !self.boot.is_empty() && !here.boot.is_empty() {
            return Fate::Gone;
        }
        if self.namespace != here.namespace || self.namespace == 0 {
            // Its number means something else here, or /proc is not to be read.
            return Fate::Unknown;
        }
        match look(self.pid) {
            Seen::Ended => Fate::Gone,
            // Without one of the two times it may be another that has its number now.
            Seen::Hidden => Fate::Unknown,
            Seen::Running(_) if self.start == 0 => Fate::Unknown,
            Seen::Running(start) if start == self.start => Fate::Alive,
            Seen::Running(_) => Fate::Gone,
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
        match fs::read(format!("/proc/{}/comm", self.pid)) {
            Ok(command) if !self.is_gone() => {
                let command = String::from_utf8_lossy(&command);
                format!("process {} ({})", self.pid, command.trim())
            }
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
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// It runs, and started then.
    Running(u64),
    /// There is none, or only what its parent has not yet taken note of (a zombie holds nothing any
    /// more).
    Ended,
    /// It may be there: /proc hides processes (`hidepid`), or couldn't be read just now.
    Hidden,
}

fn look(pid: u32) -> Seen {
    let path = format!("/proc/{pid}/stat");
    let stat = match fs::read(&path) {
        // One that ends over it is not found any more.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => fs::read(&path),
        stat => stat,
    };
    let Ok(stat) = stat else {
        let known = i32::try_from(pid).ok().and_then(Pid::from_raw).map(test_kill_process);
        return match known {
            None | Some(Err(Errno::SRCH)) => Seen::Ended,
            Some(Ok(()) | Err(_)) => Seen::Hidden,
        };
    };
    read_stat(&stat)
}

/// Reads `/proc/PID/stat`. The name in it has any bytes: the kernel cuts it in the middle of a letter.
fn read_stat(stat: &[u8]) -> Seen {
    // The name, in parentheses, may hold those too; the rest is numbers and words.
    let rest = stat.iter().rposition(|byte| *byte == b')').map(|at| &stat[at + 1..]);
    let Some(rest) = rest.and_then(|rest| std::str::from_utf8(rest).ok()) else {
        return Seen::Hidden;
    };
    let fields: Vec<_> = rest.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    match (fields.first().copied(), number(17), number(19)) {
        (Some("X"), ..) => Seen::Ended,
        // Where only the first thread has ended the others go on, with all that is open and locked.
        (Some("Z"), Some(..=1), _) => Seen::Ended,
        (Some(_), _, Some(start)) if start > 0 => Seen::Running(start),
        _ => Seen::Hidden,
    }
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
    fn a_number_alone_proves_nothing() {
        let myself = Owner::myself();
        assert!(!myself.is_gone());
        // The same number, another process: as after the number was used again.
        assert!(Owner { start: myself.start + 1, ..myself.clone() }.is_gone());
        assert!(Owner { boot: "another".to_owned(), ..myself.clone() }.is_gone());
        // Of another namespace nothing is known.
        let elsewhere = Owner { namespace: myself.namespace + 1, start: 1, ..myself };
        assert_eq!(elsewhere.fate(), Fate::Unknown);
        // One that could not be read is not another one.
        let unread = Owner { start: 0, ..Owner::myself() };
        assert_eq!(unread.fate(), Fate::Unknown);
    }

    #[test]
    fn a_process_that_ended_is_gone_also_before_its_parent_takes_note() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let owner = Owner::of(child.id()).unwrap();
        let unread = Owner { start: 0, ..owner.clone() };
        assert!(owner.start > 0);
        assert_eq!((owner.fate(), unread.fate()), (Fate::Alive, Fate::Unknown));
        child.kill().unwrap();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !owner.is_gone() && std::time::Instant::now() < end {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert_eq!((owner.fate(), unread.fate()), (Fate::Gone, Fate::Gone), "a zombie");
        child.wait().unwrap();
        assert_eq!((owner.fate(), unread.fate()), (Fate::Gone, Fate::Gone));
        assert_eq!(Owner::of(child.id()), None);
    }

    /// As proc_pid_stat(5) has it, with names that a program can give itself.
    #[test]
    fn only_what_stat_says_for_sure_is_believed() {
        let stat = |name: &[u8], state: &str, threads: u32| {
            let mut line = b"12 (".to_vec();
            line.extend_from_slice(name);
            let rest = format!(
                ") {state} 1 12 12 0 -1 4194304 9 0 0 0 7 7 0 0 20 0 {threads} 0 4242 9 9\n"
            );
            line.extend_from_slice(rest.as_bytes());
            line
        };
        for name in [&b"sh"[..], b"", b"poste-abcdefgh\xc3", b"a) Z 1", b") X (", b"\xff\n"] {
            assert_eq!(read_stat(&stat(name, "S", 1)), Seen::Running(4242), "{name:?}");
            assert_eq!(read_stat(&stat(name, "Z", 1)), Seen::Ended, "{name:?}");
            assert_eq!(read_stat(&stat(name, "X", 0)), Seen::Ended, "{name:?}");
            // The first thread of several has ended.
            assert_eq!(read_stat(&stat(name, "Z", 2)), Seen::Running(4242), "{name:?}");
        }
        for torn in [&b""[..], b"12", b"12 (sh)", b"12 (sh) S 1 2", b"12 (sh) Z", b"12 (sh"] {
            assert_eq!(read_stat(torn), Seen::Hidden, "{torn:?}");
        }
    }
}
