//! What the kernel shows of Unix sockets: what each is bound to, whether it listens, who is at its
//! other end. It shows those of this network namespace.
//!
//! Sources: sock_diag(7), netlink(7).

use std::mem::MaybeUninit;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, sendto,
    socket_with,
};

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
    /// The number of its name in the file system, where it has one.
    pub(crate) inode: Option<u64>,
    /// The number of the socket at the other end.
    pub(crate) peer: Option<u64>,
    /// What waits in it: connections where it listens, else bytes.
    pub(crate) waiting: Option<u32>,
    /// Who made it.
    pub(crate) uid: Option<u32>,
}

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
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
/// What the system said; `PROTO` where its answer can't be read.
pub(crate) fn sockets() -> Result<Vec<Socket>, Errno> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    sendto(&socket, &request(), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut found = Vec::new();
    let mut buffer = vec![MaybeUninit::uninit(); 64 << 10];
    loop {
        let ((answer, _), _) = recv(&socket, &mut buffer, RecvFlags::empty())?;
        if answer.is_empty() || !read_answer(answer, &mut found)? {
            return Ok(found);
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
            UNIX_DIAG_VFS => socket.inode = word.map(u64::from),
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_listening_socket_is_seen_by_the_number_of_its_name() {
        let path = std::env::temp_dir().join(format!("poste-diag-{}", std::process::id()));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let inode = std::fs::symlink_metadata(&path).unwrap().ino();
        let see = || sockets().unwrap().into_iter().find(|socket| socket.inode == Some(inode));
        let seen = see().unwrap();
        assert!(seen.listens && seen.kind == 1, "{seen:?}");
        assert_eq!(seen.name, path.as_os_str().as_encoded_bytes());
        drop(listener);
        assert_eq!(see(), None);
        std::fs::remove_file(&path).unwrap();
    }
}
