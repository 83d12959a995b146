//! Who has what open: the descriptors of every process that this user may look into.
//!
//! Sockets are told apart by their numbers, FIFOs and POSIX queues by file system and inode. Other
//! descriptors are passed over. Nothing is opened, so nobody notices.
//! Sources: proc_pid_fd(5), proc(5), mq_overview(7), namespaces(7).

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, makedev, statfs, statx};

use super::claim::Object;

/// What a descriptor leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum What {
    /// A socket, by its number.
    Socket(u64),
    /// A FIFO.
    Fifo(Object),
    /// A POSIX queue of this namespace.
    Queue(Object),
}

/// One descriptor of a process.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    /// The process.
    pub(crate) pid: u32,
    /// Its number there.
    pub(crate) number: u32,
    /// Whether it was opened for reading.
    pub(crate) reads: bool,
    /// Whether it was opened for writing.
    pub(crate) writes: bool,
    /// What the kernel calls it: the path of a FIFO, the name of a queue.
    pub(crate) path: PathBuf,
}

/// What is open on this machine.
#[derive(Debug, Default)]
pub(crate) struct Descriptors {
    opened: HashMap<What, Vec<Opened>>,
    /// How many descriptors each process has.
    pub(crate) counts: HashMap<u32, u64>,
    /// Some processes may not be looked into.
    pub(crate) is_partial: bool,
}

/// The magic number of the file system of POSIX queues.
const MQUEUE_MAGIC: i64 = 0x1980_0202;

impl Descriptors {
    /// Looks into every process.
    #[must_use]
    pub(crate) fn look() -> Descriptors {
        let mut found = Descriptors::default();
        let mounts = queue_mounts();
        let mut seen_first = false;
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
            let Some(pid) = pid else { continue };
            seen_first |= pid == 1;
            match fs::read_dir(entry.path().join("fd")) {
                Ok(numbers) => {
                    for number in numbers.flatten() {
                        found.take_in(pid, &number.path(), &mounts);
                    }
                }
                Err(error) => {
                    found.is_partial |= error.kind() == std::io::ErrorKind::PermissionDenied;
                }
            }
        }
        // Mounted with hidepid, /proc doesn't even show them.
        found.is_partial |= !seen_first;
        found
    }

    fn take_in(&mut self, pid: u32, link: &Path, mounts: &[PathBuf]) {
        let Ok(target) = fs::read_link(link) else { return };
        *self.counts.entry(pid).or_default() += 1;
        let bytes = target.as_os_str().as_bytes();
        let what = match bytes.strip_prefix(b"socket:[") {
            Some(rest) => number(rest.strip_suffix(b"]").unwrap_or(rest)).map(What::Socket),
            None if bytes.starts_with(b"/") => file(pid, link, &target, mounts),
            None => None,
        };
        let (Some(what), Ok(stat)) = (what, rustix::fs::lstat(link)) else { return };
        let Some(number) = link.file_name().and_then(|name| number(name.as_bytes())) else {
            return;
        };
        self.opened.entry(what).or_default().push(Opened {
            pid,
            number: number as u32,
            reads: stat.st_mode & 0o400 != 0,
            writes: stat.st_mode & 0o200 != 0,
            path: target,
        });
    }

    /// Who has this open.
    #[must_use]
    pub(crate) fn of(&self, what: What) -> &[Opened] {
        self.opened.get(&what).map_or(&[], Vec::as_slice)
    }

    /// Everything that is open.
    pub(crate) fn all(&self) -> impl Iterator<Item = (What, &[Opened])> {
        self.opened.iter().map(|(what, opened)| (*what, opened.as_slice()))
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// What a descriptor with a path is, where it is a FIFO or a queue.
fn file(pid: u32, link: &Path, target: &Path, mounts: &[PathBuf]) -> Option<What> {
    let flags = AtFlags::STATX_DONT_SYNC;
    let stat = statx(CWD, link, flags, StatxFlags::TYPE | StatxFlags::INO).ok()?;
    let object =
        Object { device: makedev(stat.stx_dev_major, stat.stx_dev_minor), inode: stat.stx_ino };
    match FileType::from_raw_mode(stat.stx_mode.into()) {
        FileType::Fifo => Some(What::Fifo(object)),
        FileType::RegularFile => {
            // A queue's path is its name, or it was opened where its file system is mounted.
            let parent = target.parent()?;
            let may_be = parent == Path::new("/") || mounts.iter().any(|mount| mount == parent);
            let is_queue = may_be
                && statfs(link).is_ok_and(|stat| stat.f_type == MQUEUE_MAGIC)
                && ipc_namespace(pid) == ipc_namespace(std::process::id());
            is_queue.then_some(What::Queue(object))
        }
        _ => None,
    }
}

/// The namespace of a process's queues; `None` where that isn't told.
#[must_use]
pub(crate) fn ipc_namespace(pid: u32) -> Option<u64> {
    rustix::fs::stat(format!("/proc/{pid}/ns/ipc")).ok().map(|stat| stat.st_ino)
}

/// Where file systems of POSIX queues are mounted. A container's own mount may show another
/// namespace's queues: what is found there is looked up by its name all the same.
#[must_use]
pub(crate) fn queue_mounts() -> Vec<PathBuf> {
    let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let mut found = HashSet::new();
    let lines = mounts.split(|byte| *byte == b'\n');
    let paths = lines.filter_map(|line| {
        let words: Vec<_> = line.split(|byte| *byte == b' ').collect();
        let dash = words.iter().position(|word| word == b"-")?;
        let is_whole = words.get(3) == Some(&&b"/"[..]);
        (is_whole && words.get(dash + 1) == Some(&&b"mqueue"[..]))
            .then(|| PathBuf::from(unescape(words[4])))
            .filter(|path| found.insert(path.clone()))
    });
    paths.collect()
}

/// A path as mountinfo writes it: `\040` is a space.
fn unescape(path: &[u8]) -> std::ffi::OsString {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        let octal = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if first == b'\\' => {
                bytes.push(byte);
                rest = &after[3..];
            }
            _ => bytes.push(first),
        }
    }
    std::ffi::OsString::from_vec(bytes)
}

/// What the kernel calls a process; empty where it is gone.
#[must_use]
pub(crate) fn command(pid: u32) -> String {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    let name = OsStr::from_bytes(name.strip_suffix(b"\n").unwrap_or(&name));
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ones_own_sockets_and_fifos_are_seen() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&socket);
        let inode = rustix::fs::fstat(&socket).unwrap().st_ino;
        let found = Descriptors::look();
        let opened = found.of(What::Socket(inode));
        let own = opened.iter().find(|opened| opened.pid == std::process::id()).unwrap();
        assert_eq!(own.number, number as u32);
        assert!(found.counts[&std::process::id()] > 0);
    }

    #[test]
    fn paths_of_mounts_are_read() {
        assert_eq!(unescape(b"/a\\040b\\134c"), "/a b\\c");
    }
}
