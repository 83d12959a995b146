//! Unix sockets as objects: those that listen or receive, by the kernel's own list, and those that
//! poste's dead have left behind.
//!
//! The kernel knows a socket by the name it was bound to, which may be relative, and by the number
//! of its name in the file system: the number decides. A socket that other programs left behind is
//! known to nobody; it is found only by its address. Source: unix(7).

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::path;
use crate::address::Address;
use crate::error::Error;
use crate::name::claim;
use crate::name::descriptors::What;
use crate::name::unix_diag::Socket;
use crate::object::{Detail, Listing, Object, State};
use crate::survey::{Survey, age_of_file, holder, working_directory};

/// The types of sockets, as socket(2) numbers them.
pub(super) const STREAM: u8 = 1;
pub(super) const DATAGRAM: u8 = 2;
pub(super) const PACKET: u8 = 5;

/// Sockets of one type.
pub(super) fn list(survey: &Survey, scheme: &'static str, kind: u8) -> Listing {
    let mut listing = Listing::none();
    let mut seen = BTreeSet::new();
    let ours = |socket: &&Socket| socket.kind == kind && is_object(socket);
    for socket in survey.sockets().iter().filter(ours) {
        match address_of(survey, scheme, socket) {
            Found::At(address) => {
                seen.insert(address.rest().to_owned());
                let object = bound(survey, scheme, address, socket, &mut listing);
                listing.objects.push(object);
            }
            Found::Hidden => listing.miss("sockets whose names are relative to unknown places"),
            Found::Gone => {}
        }
    }
    for (claim, record, address) in survey.claimed(scheme) {
        let place = Path::new(OsStr::from_bytes(address.rest()));
        let stands =
            socket_at(place).filter(|stat| path::is_still(place, stat, record.object, record.born));
        let (Some(stat), true) = (stands, seen.insert(address.rest().to_owned())) else { continue };
        let mut object = named(survey, scheme, address.bare(), place, &stat);
        if claim.proof.is_some() {
            (object.alive, object.state) = (Some(false), Some(State::LeftOver));
            object.holders = Some(Vec::new());
        } else {
            // Of another network namespace: its owner holds the claim.
            (object.alive, object.state) = (Some(true), Some(State::Alive));
            object.holders = Some(vec![holder(record.owner.pid, end_of(kind))]);
        }
        listing.objects.push(object);
    }
    let wanted = survey.wanted(scheme).filter(|address| !seen.contains(address.rest()));
    if let Some(address) = wanted {
        let place = Path::new(OsStr::from_bytes(address.rest()));
        let is_other = |stat: &Stat| {
            let object = path::object(stat);
            survey.sockets().iter().any(|socket| socket.may_be_at(place, object))
        };
        if let Some(stat) = socket_at(place).filter(|stat| !is_other(stat)) {
            let mut object = named(survey, scheme, address.bare(), place, &stat);
            (object.alive, object.state) = (Some(false), Some(State::Unused));
            object.holders = Some(Vec::new());
            listing.objects.push(object);
        }
    }
    listing
}

/// The address as it is listed.
pub(super) fn place(address: &Address) -> Result<Address, Error> {
    if address.rest().starts_with(b"@") {
        return Ok(address.bare());
    }
    let place = path::of(address)?;
    let stat = rustix::fs::lstat(place).map_err(|errno| path::missing(errno, "socket"))?;
    path::expect(&stat, FileType::Socket, path::SOCKET)?;
    path::absolute_address(address, place)
}

/// A socket's name is taken away; a claim of a dead owner goes with it.
pub(super) fn remove(place: &Path) -> Result<(), Error> {
    let key = path::key(place).map_err(|_| path::missing(Errno::NOENT, "socket"))?;
    let removed = path::remove(place, FileType::Socket, path::SOCKET);
    // A claim that can't be read, or that somebody else is just taking away, is gc's.
    if let (Ok(Some(seized)), false) = (claim::Seized::of(&key), place.exists()) {
        let aside =
            seized.record().and_then(|record| Some((record.aside.clone()?, record.object?)));
        if let Some((aside, object)) = aside {
            path::finish_aside(&aside, place, object)?;
        }
        seized.take_away()?;
    }
    removed
}

/// Whether messages can be sent to it: it listens, or it is a receiver of datagrams.
fn is_object(socket: &Socket) -> bool {
    // Its state doesn't tell: a receiver is shown as connected as soon as one sender is.
    let receives = socket.kind == DATAGRAM && socket.peer.is_none() && !socket.name.is_empty();
    socket.listens || receives
}

fn end_of(kind: u8) -> &'static str {
    if kind == DATAGRAM { "receive" } else { "listen" }
}

/// Where a socket is.
enum Found {
    At(Address),
    /// Its name can't be found out.
    Hidden,
    /// Its name was taken away, or belongs to another now.
    Gone,
}

fn address_of(survey: &Survey, scheme: &'static str, socket: &Socket) -> Found {
    let address = |rest: Vec<u8>| match Address::new(scheme, rest) {
        Ok(address) => Found::At(address),
        Err(_) => Found::Hidden,
    };
    if let [0, name @ ..] = &socket.name[..] {
        return address([b"@", name].concat());
    }
    let given = Path::new(OsStr::from_bytes(&socket.name));
    if socket.place.is_none() {
        // An old kernel: the name is all there is.
        return match given.is_absolute() {
            true => address(socket.name.clone()),
            false => Found::Hidden,
        };
    }
    let is_it = |place: &Path| {
        socket_at(place).is_some_and(|stat| socket.may_be_at(place, path::object(&stat)))
    };
    for (_, record, claimed) in survey.claimed(scheme) {
        let place = Path::new(OsStr::from_bytes(claimed.rest()));
        if record.object.is_some_and(|object| socket.may_be_at(place, object)) && is_it(place) {
            return Found::At(claimed.bare());
        }
    }
    if given.is_absolute() {
        return match is_it(given) {
            true => address(canonical(given)),
            // Another root, or a directory that this user may not enter: the name may be right.
            false if rustix::fs::lstat(given).err() == Some(Errno::ACCESS) => {
                address(socket.name.clone())
            }
            false => Found::Gone,
        };
    }
    let holders = survey.descriptors.of(What::Socket(socket.number));
    let mut places = holders.iter().map(|opened| working_directory(opened.pid));
    match places.find_map(|place| place.map(|place| place.join(given)).filter(|at| is_it(at))) {
        Some(place) => address(canonical(&place)),
        None if survey.descriptors.is_partial && holders.is_empty() => Found::Hidden,
        None => Found::Gone,
    }
}

fn canonical(place: &Path) -> Vec<u8> {
    let place = path::canonical(place).unwrap_or_else(|_| PathBuf::from(place));
    place.into_os_string().into_vec()
}

/// The socket at a path, where there is one.
fn socket_at(place: &Path) -> Option<Stat> {
    let stat = rustix::fs::lstat(place).ok()?;
    (FileType::from_raw_mode(stat.st_mode) == FileType::Socket).then_some(stat)
}

/// What its name in the file system says of a socket.
fn named(
    survey: &Survey,
    scheme: &'static str,
    address: Address,
    place: &Path,
    stat: &Stat,
) -> Object {
    let mut object = Object::new(scheme, address);
    object.mode = Some(stat.st_mode & 0o777);
    survey.owned(&mut object, stat.st_uid);
    object.age = age_of_file(place);
    object
}

/// A socket that somebody has.
fn bound(
    survey: &Survey,
    scheme: &'static str,
    address: Address,
    socket: &Socket,
    listing: &mut Listing,
) -> Object {
    let place = PathBuf::from(OsStr::from_bytes(address.rest()));
    let mut object = match socket_at(&place) {
        Some(stat) if place.is_absolute() => named(survey, scheme, address, &place, &stat),
        _ => Object::new(scheme, address),
    };
    if let (None, Some(uid)) = (object.uid, socket.uid) {
        survey.owned(&mut object, uid);
    }
    let end = |end: &'static str| move |_: &_| end;
    let mut holders = survey.holders(What::Socket(socket.number), end(end_of(socket.kind)));
    if socket.kind == DATAGRAM {
        let senders = survey.sockets().iter().filter(|other| other.peer == Some(socket.number));
        for sender in senders {
            holders.extend(survey.holders(What::Socket(sender.number), end("send")));
        }
    } else {
        let is_accepted = |other: &&Socket| {
            !other.listens
                && (other.kind, &other.name, other.place)
                    == (socket.kind, &socket.name, socket.place)
        };
        let (mut connections, mut bytes) = (0, Some(0));
        for accepted in survey.sockets().iter().filter(is_accepted) {
            connections += 1;
            bytes = bytes.and_then(|sum| Some(sum + u64::from(accepted.waiting?)));
            holders.extend(survey.holders(What::Socket(accepted.number), end("accept")));
            if let Some(peer) = accepted.peer {
                holders.extend(survey.holders(What::Socket(peer), end("connect")));
            }
        }
        object.bytes = bytes;
        object.details.push(("connections", Detail::Number(connections)));
        if let Some(waiting) = socket.waiting {
            object.details.push(("waiting_connections", Detail::Number(waiting.into())));
        }
    }
    holders.sort();
    holders.dedup();
    survey.held(&mut object, holders, listing);
    // The kernel shows only what somebody has, whether that may be seen or not.
    (object.alive, object.state) = (Some(true), Some(State::Alive));
    object
}
