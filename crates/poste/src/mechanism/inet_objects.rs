//! TCP and UDP ports as objects: those where somebody listens or receives in this network namespace.
//!
//! Source: proc_pid_net(5) (/proc/net/tcp, tcp6, udp, udp6).

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::address::Address;
use crate::error::Error;
use crate::name::descriptors::What;
use crate::object::{Detail, Listing, Object, State};
use crate::survey::Survey;

/// One socket, as a line of /proc/net says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line {
    local: SocketAddr,
    remote: SocketAddr,
    state: u8,
    /// Bytes that were not read yet; of a listener, connections that were not accepted yet.
    waiting: u64,
    uid: u32,
    inode: u64,
    /// Datagrams that found no room.
    dropped: Option<u64>,
}

const ESTABLISHED: u8 = 1;
const CLOSED: u8 = 7;
const LISTEN: u8 = 10;

/// Listening TCP sockets.
pub(super) fn list_tcp(survey: &Survey) -> Listing {
    list(survey, "tcp", LISTEN)
}

/// Receiving UDP sockets.
pub(super) fn list_udp(survey: &Survey) -> Listing {
    list(survey, "udp", CLOSED)
}

/// The address as it is listed: numbers in the place of names.
pub(super) fn place(address: &Address) -> Result<Address, Error> {
    let hosts = super::tcp::resolve(address)?;
    Ok(address.bare().with_rest(hosts[0].to_string()))
}

fn list(survey: &Survey, scheme: &'static str, state: u8) -> Listing {
    let mut listing = Listing::none();
    let lines = [format!("/proc/net/{scheme}"), format!("/proc/net/{scheme}6")].map(read).concat();
    let pairs: HashMap<_, _> = lines
        .iter()
        .filter(|line| line.state == ESTABLISHED)
        .map(|line| ((line.local, line.remote), line.inode))
        .collect();
    let open: Vec<_> = lines.iter().filter(|line| line.state == state).collect();
    for line in &open {
        let Ok(address) = Address::new(scheme, line.local.to_string()) else { continue };
        let object = object(survey, scheme, address, line, &pairs, &mut listing);
        listing.objects.push(object);
    }
    // Who listens on every address listens on the one that is asked for.
    let is_listed = |wanted: &Address| listing.objects.iter().any(|it| it.address == *wanted);
    let wanted = survey.wanted(scheme).filter(|wanted| !is_listed(wanted));
    let at = wanted.and_then(|wanted| wanted.text()?.parse::<SocketAddr>().ok());
    if let (Some(address), Some(at)) = (wanted, at) {
        let serves = |line: &&&Line| {
            let any = line.local.ip().is_unspecified() && line.local.port() == at.port();
            any && (line.local.is_ipv6() || at.is_ipv4())
        };
        if let Some(line) = open.iter().find(serves) {
            let object = object(survey, scheme, address.bare(), line, &pairs, &mut listing);
            listing.objects.push(object);
        }
    }
    listing
}

fn object(
    survey: &Survey,
    scheme: &'static str,
    address: Address,
    line: &Line,
    pairs: &HashMap<(SocketAddr, SocketAddr), u64>,
    listing: &mut Listing,
) -> Object {
    let mut object = Object::new(scheme, address);
    survey.owned(&mut object, line.uid);
    let listens = line.state == LISTEN;
    let end = if listens { "listen" } else { "receive" };
    let mut holders = survey.holders(What::Socket(line.inode), |_| end);
    if listens {
        let serves = |local: &SocketAddr| {
            local.port() == line.local.port()
                && (line.local.ip().is_unspecified() || local.ip() == line.local.ip())
        };
        let mut connections = 0;
        for (&(local, remote), &inode) in pairs.iter().filter(|((local, _), _)| serves(local)) {
            connections += 1;
            holders.extend(survey.holders(What::Socket(inode), |_| "accept"));
            // The other end, where it is on this machine.
            if let Some(&peer) = pairs.get(&(remote, local)) {
                holders.extend(survey.holders(What::Socket(peer), |_| "connect"));
            }
        }
        object.details.push(("connections", Detail::Number(connections)));
        object.details.push(("waiting_connections", Detail::Number(line.waiting)));
    } else {
        object.bytes = Some(line.waiting);
        if let Some(dropped) = line.dropped {
            object.details.push(("dropped", Detail::Number(dropped)));
        }
    }
    holders.sort();
    holders.dedup();
    survey.held(&mut object, holders, listing);
    // The kernel shows only what somebody has, whether that may be seen or not.
    (object.alive, object.state) = (Some(true), Some(State::Alive));
    object
}

fn read(path: String) -> Vec<Line> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().skip(1).filter_map(read_line).collect()
}

/// `sl local remote st tx:rx tr:when retransmits uid timeout inode refs pointer drops`.
fn read_line(line: &str) -> Option<Line> {
    let words: Vec<_> = line.split_ascii_whitespace().collect();
    let (_, waiting) = words.get(4)?.split_once(':')?;
    Some(Line {
        local: read_address(words.get(1)?)?,
        remote: read_address(words.get(2)?)?,
        state: u8::from_str_radix(words.get(3)?, 16).ok()?,
        waiting: u64::from_str_radix(waiting, 16).ok()?,
        uid: words.get(7)?.parse().ok()?,
        inode: words.get(9)?.parse().ok()?,
        dropped: words.get(12).and_then(|word| word.parse().ok()),
    })
}

/// Words of 32 bits in hexadecimal, as this machine orders their bytes, and a port.
fn read_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = [0; 16];
    for (index, word) in bytes.chunks_exact_mut(4).enumerate().take(ip.len() / 8) {
        let digits = ip.get(index * 8..index * 8 + 8)?;
        word.copy_from_slice(&u32::from_str_radix(digits, 16).ok()?.to_ne_bytes());
    }
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])),
        32 => IpAddr::V6(Ipv6Addr::from(bytes)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn a_line_is_read() {
        let line = "   0: 0100007F:22B8 00000000:0000 0A 00000000:00000003 00:00000000 00000000 \
                    1000        0 33 1 0000000000000000 100 0 0 10 0";
        let read = read_line(line).unwrap();
        assert_eq!(read.local.to_string(), "127.0.0.1:8888");
        assert_eq!((read.state, read.waiting, read.uid, read.inode), (LISTEN, 3, 1000, 33));
        let address = read_address("00000000000000000000000001000000:0050").unwrap();
        assert_eq!(address.to_string(), "[::1]:80");
        assert_eq!(read_address("01:1"), None);
    }
}
