//! What the kernel shows of Unix sockets: what each is bound to, whether it listens, who is at its
//! other end. It shows those of this network namespace.
//!
//! Sources: sock_diag(7), netlink(7), linux/unix_diag.h; proc_net_unix(5), where a kernel has no
//! unix_diag.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::makedev;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, sendto,
    socket_with,
};

use super::claim::Object;

/// A Unix socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Socket {
    /// The socket's own number, as /proc/PID/fd shows it.
    pub(crate) number: u64,
    /// Its type, as socket(2) has it.
    pub(crate) kind: u8,
    /// Whether it listens.
    pub(crate) listens: bool,
    /// The name it was bound to: a path as it was given then, or an abstract name after a zero byte.
    pub(crate) name: Vec<u8>,
    /// The name in the file system that it was bound to, where it has one.
    pub(crate) place: Option<Place>,
    /// The number of the socket at the other end.
    pub(crate) peer: Option<u64>,
    /// What waits in it: connections where it listens, else bytes.
    pub(crate) waiting: Option<u32>,
    /// Who made it.
    pub(crate) uid: Option<u32>,
}

/// A name in the file system, as the kernel numbers it (`struct unix_diag_vfs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The lower 32 bits of its number: more are not told.
    pub(crate) inode: u32,
    /// Its file system; on some (btrfs, overlayfs) stat(2) says another.
    pub(crate) device: u64,
}

impl Socket {
    /// Whether this may be the socket that stands at a path. Only what the kernel tells apart for
    /// sure is not.
    pub(crate) fn may_be_at(&self, path: &Path, object: Object) -> bool {
        let bound = Path::new(OsStr::from_bytes(&self.name));
        let is_abstract = self.name.is_empty() || self.name.starts_with(b"\0");
        let has_its_name = !is_abstract && bound.file_name() == path.file_name();
        match self.place {
            // An old kernel: the name is all there is.
            None => has_its_name,
            Some(place) if place.inode == object.inode as u32 => {
                place.device == object.device || has_its_name
            }
            // Where the two speak of one file system in two ways, they may number it in two ways too.
            Some(place) => place.device != object.device && bound == path,
        }
    }
}

/// How often a list is begun anew that changed under the reader.
const TRIES: usize = 10;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// UDIAG_SHOW_NAME, _VFS, _PEER, _RQLEN and _UID.
const SHOW: u32 = 0x57;
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_VFS: u16 = 1;
const UNIX_DIAG_PEER: u16 = 2;
const UNIX_DIAG_RQLEN: u16 = 4;
const UNIX_DIAG_UID: u16 = 7;
const TCP_LISTEN: u8 = 10;
const AF_UNIX: u8 = 1;

/// Every Unix socket of this network namespace.
///
/// # Errors
/// What the system said; `PROTO` where its answer can't be read. Then nothing is known of anybody.
pub(crate) fn sockets() -> Result<Vec<Socket>, Errno> {
    let mut tried = Err(Errno::AGAIN);
    for _ in 0..TRIES {
        tried = dump();
        if tried != Err(Errno::AGAIN) {
            break;
        }
    }
    match tried {
        // No unix_diag in this kernel.
        Err(Errno::NOENT | Errno::PROTONOSUPPORT | Errno::OPNOTSUPP) => from_proc(),
        tried => tried,
    }
}

/// One look at all of them. `AGAIN`: they changed meanwhile, and some may be missing.
fn dump() -> Result<Vec<Socket>, Errno> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    let kernel = SocketAddrNetlink::new(0, 0);
    again(|| sendto(&socket, &request(), SendFlags::empty(), &kernel))?;
    let mut found = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let (size, _) = again(|| recv(&socket, &mut buffer[..], RecvFlags::empty()))?;
        if size == 0 || !read_answer(&buffer[..size.min(buffer.len())], &mut found)? {
            return Ok(found);
        }
    }
}

/// A signal changes nothing.
fn again<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

/// `struct nlmsghdr` and `struct unix_diag_req`.
fn request() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(40);
    bytes.extend_from_slice(&40_u32.to_ne_bytes());
    bytes.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&[AF_UNIX, 0, 0, 0]);
    bytes.extend_from_slice(&u32::MAX.to_ne_bytes());
    bytes.extend_from_slice(&0_u32.to_ne_bytes());
    bytes.extend_from_slice(&SHOW.to_ne_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes
}

/// Reads the messages of one answer; says whether more answers follow.
fn read_answer(mut answer: &[u8], found: &mut Vec<Socket>) -> Result<bool, Errno> {
    while answer.len() >= 16 {
        let size = u32_at(answer, 0) as usize;
        let kind = u16::from_ne_bytes([answer[4], answer[5]]);
        let flags = u16::from_ne_bytes([answer[6], answer[7]]);
        if flags & NLM_F_DUMP_INTR != 0 {
            return Err(Errno::AGAIN);
        }
        if size < 16 || size > answer.len() {
            return Err(Errno::PROTO);
        }
        match kind {
            NLMSG_DONE => return Ok(false),
            NLMSG_ERROR => {
                let number = answer.get(16..20).map_or(0, |_| u32_at(answer, 16) as i32);
                return Err(Errno::from_raw_os_error(-number));
            }
            _ => found.extend(read_socket(&answer[16..size])),
        }
        answer = &answer[size.next_multiple_of(4).min(answer.len())..];
    }
    Ok(true)
}

/// `struct unix_diag_msg` and its attributes.
fn read_socket(message: &[u8]) -> Option<Socket> {
    let head = message.get(..16)?;
    let mut socket = Socket {
        number: u64::from(u32_at(head, 4)),
        kind: head[1],
        listens: head[2] == TCP_LISTEN,
        ..Socket::default()
    };
    let mut attributes = &message[16..];
    while attributes.len() >= 4 {
        let size = usize::from(u16::from_ne_bytes([attributes[0], attributes[1]]));
        let kind = u16::from_ne_bytes([attributes[2], attributes[3]]);
        let value = attributes.get(4..size)?;
        let word = value.get(..4).map(|word| u32_at(word, 0));
        match kind {
            // A path comes with the NUL that ends it; the bytes of an abstract name all count.
            UNIX_DIAG_NAME if !value.starts_with(b"\0") => {
                socket.name = value.split(|byte| *byte == 0).next().unwrap_or_default().to_owned();
            }
            UNIX_DIAG_NAME => socket.name = value.to_owned(),
            UNIX_DIAG_VFS => {
                socket.place = value.get(..8).map(|value| {
                    // `s_dev`: 20 bits of the minor number below 12 of the major.
                    let device = u32_at(value, 4);
                    let device = makedev(device >> 20, device & 0xf_ffff);
                    Place { inode: u32_at(value, 0), device }
                });
            }
            UNIX_DIAG_PEER => socket.peer = word.map(u64::from).filter(|peer| *peer > 0),
            UNIX_DIAG_RQLEN => socket.waiting = word,
            UNIX_DIAG_UID => socket.uid = word,
            _ => {}
        }
        attributes = &attributes[size.next_multiple_of(4).min(attributes.len())..];
    }
    Some(socket)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The same from /proc, where the kernel has no unix_diag: without places, peers and users.
///
/// # Errors
/// What the system said.
pub(crate) fn from_proc() -> Result<Vec<Socket>, Errno> {
    let text = std::fs::read("/proc/net/unix")
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let lines = text.split(|byte| *byte == b'\n').skip(1);
    Ok(lines.filter_map(proc_socket).collect())
}

/// `Num: RefCount Protocol Flags Type St Inode Path`, numbers in hexadecimal but the inode.
fn proc_socket(line: &[u8]) -> Option<Socket> {
    const ACCEPTS: u32 = 0x10000;
    let mut rest = line;
    let mut words = [""; 7];
    for word in &mut words {
        rest = rest.trim_ascii_start();
        let end = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
        *word = std::str::from_utf8(&rest[..end]).ok()?;
        rest = &rest[end..];
    }
    let hex = |text: &str| u32::from_str_radix(text, 16).ok();
    let name = rest.strip_prefix(b" ").unwrap_or(rest);
    let name = match name.strip_prefix(b"@") {
        // An abstract name: the zero byte before it is shown so.
        Some(name) => [b"\0", name].concat(),
        None => name.to_owned(),
    };
    Some(Socket {
        number: words[6].parse().ok()?,
        kind: hex(words[4])? as u8,
        listens: hex(words[3])? & ACCEPTS != 0,
        name,
        ..Socket::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_listening_socket_is_seen_by_the_number_of_its_name() {
        let path = std::env::temp_dir().join(format!("poste-diag-{}", std::process::id()));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let stat = std::fs::symlink_metadata(&path).unwrap();
        let object = Object { device: stat.dev(), inode: stat.ino() };
        let is_it = |socket: &Socket| socket.may_be_at(&path, object);
        let see = || sockets().unwrap().into_iter().find(is_it);
        let seen = see().unwrap();
        assert!(seen.listens && seen.kind == 1, "{seen:?}");
        assert_eq!(seen.name, path.as_os_str().as_encoded_bytes());
        drop(listener);
        assert_eq!(see(), None);
        std::fs::remove_file(&path).unwrap();
    }

    /// The kernel tells 32 bits of a number that has 64, and a device that stat(2) may call another.
    #[test]
    fn only_what_is_surely_another_is_another() {
        let path = Path::new("/srv/x");
        let bound = |name: &str, inode, device| Socket {
            name: name.into(),
            place: Some(Place { inode, device }),
            ..Socket::default()
        };
        let object = |inode| Object { device: 7, inode };
        for (socket, at, may_be) in [
            (bound("/srv/x", 5, 7), 5, true),
            // A large file system: XFS, overlayfs with xino.
            (bound("/srv/x", 5, 7), 5 | 3 << 32, true),
            (bound("x", u32::MAX, 7), u64::MAX, true),
            // Moved since, or bound by another name.
            (bound("y", 5, 7), 5, true),
            (bound("/srv/x", 6, 7), 5, false),
            // Another file system, or this one under another name.
            (bound("./x", 5, 8), 5, true),
            (bound("y", 5, 8), 5, false),
            (bound("/srv/x", 6, 8), 5, true),
            (bound("/mnt/x", 6, 8), 5, false),
        ] {
            assert_eq!(socket.may_be_at(path, object(at)), may_be, "{socket:?} at {at}");
        }
        // Without unix_diag there are only names.
        let named = |name: &[u8]| Socket { name: name.to_vec(), ..Socket::default() };
        assert!(named(b"/srv/x").may_be_at(path, object(5)));
        assert!(named(b"x").may_be_at(path, object(5)), "from another working directory");
        assert!(!named(b"/srv/y").may_be_at(path, object(5)));
        assert!(!named(b"\0/srv/x").may_be_at(path, object(5)), "an abstract name");
        assert!(!named(b"").may_be_at(path, object(5)));
    }

    #[test]
    fn a_list_that_changed_under_the_reader_is_not_believed() {
        let message = |kind: u16, flags: u16, body: &[u8]| {
            let mut bytes = (16 + body.len() as u32).to_ne_bytes().to_vec();
            bytes.extend_from_slice(&kind.to_ne_bytes());
            bytes.extend_from_slice(&flags.to_ne_bytes());
            bytes.extend_from_slice(&[0; 8]);
            bytes.extend_from_slice(body);
            bytes
        };
        let socket = [AF_UNIX, 1, TCP_LISTEN, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let read = |bytes: &[u8]| {
            let mut found = Vec::new();
            read_answer(bytes, &mut found).map(|more| (more, found.len()))
        };
        let whole = [message(SOCK_DIAG_BY_FAMILY, 2, &socket), message(NLMSG_DONE, 2, &[0; 4])];
        assert_eq!(read(&whole.concat()), Ok((false, 1)));
        assert_eq!(read(&whole[0]), Ok((true, 1)));
        let torn = message(SOCK_DIAG_BY_FAMILY, 2 | NLM_F_DUMP_INTR, &socket);
        assert_eq!(read(&torn), Err(Errno::AGAIN));
        let end = [whole[0].clone(), message(NLMSG_DONE, 2 | NLM_F_DUMP_INTR, &[0; 4])];
        assert_eq!(read(&end.concat()), Err(Errno::AGAIN));
        assert_eq!(read(&message(NLMSG_ERROR, 0, &(-1_i32).to_ne_bytes())), Err(Errno::PERM));
    }

    #[test]
    fn a_line_of_proc_is_read() {
        let line = b"ffff0000: 00000002 00000000 00010000 0001 01 19543 /run/a b";
        let socket = proc_socket(line).unwrap();
        assert_eq!((socket.number, socket.kind, socket.listens), (19543, 1, true));
        assert_eq!(socket.name, b"/run/a b");
        let line = b"ffff0000: 00000003 00000000 00000000 0002 03   174 @x";
        let socket = proc_socket(line).unwrap();
        assert!(socket.kind == 2 && !socket.listens);
        assert_eq!(socket.name, b"\0x");
        assert_eq!(proc_socket(b""), None);
    }
}
