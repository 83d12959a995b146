//! What the socket mechanisms share: opening, connecting, listening, and the kernel's word on who is
//! at the other end.
//!
//! Sources: socket(7), unix(7), connect(2), listen(2).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
    sockopt,
};

use super::merge::Merge;
use super::path;
use super::pipe::{OpenedReceiver, OpenedSender};
use super::serve::Serve;
use super::wire::Flow;
use super::{EndTraits, Opened, Opening};
use crate::address::Address;
use crate::credentials::Credentials;
use crate::error::{Error, Kind};
use crate::limits::{BACKLOG, BUSY_PATIENCE, CONNECT_PATIENCE};
use crate::name::claim::{Claim, Object};
use crate::name::unix_diag;
use crate::options::{Options, Role};
use crate::wait::{Halt, Wait};

/// Who connected, as the kernel noted it then; the descriptor may have been passed on since.
pub(super) fn peer(socket: impl AsFd) -> Credentials {
    match poste_sys::peer::credentials(socket.as_fd()) {
        Ok((pid, uid, gid)) if uid != u32::MAX => Credentials {
            // 0: its namespace is none that this process sees.
            pid: u32::try_from(pid).ok().filter(|pid| *pid != 0),
            uid: Some(uid),
            gid: Some(gid),
            process: poste_sys::peer::process(socket.as_fd()).ok(),
        },
        _ => Credentials::default(),
    }
}

/// Sets both buffers where a capacity was asked for; the kernel doubles it for its own needs.
pub(super) fn set_buffers(socket: impl AsFd, options: &Options) -> Result<(), Error> {
    let capacity = options.capacity.unwrap_or(0);
    try_buffers(socket, options)
        .map_err(|errno| Error::system(errno, format!("no buffer of {capacity} bytes")))
}

/// The same for a socket that is made anew at each try to connect.
pub(super) fn try_buffers(socket: impl AsFd, options: &Options) -> Result<(), Errno> {
    let Some(capacity) = options.capacity else { return Ok(()) };
    sockopt::set_socket_send_buffer_size(&socket, capacity)?;
    sockopt::set_socket_recv_buffer_size(&socket, capacity)
}

/// What the kernel really gives for sending, in bytes.
pub(super) fn send_buffer(socket: impl AsFd) -> Option<usize> {
    sockopt::socket_send_buffer_size(socket).ok()
}

/// The largest raw packet that a Unix socket with this buffer takes: "less 32 bytes used for
/// overhead", says unix(7). Messages with an envelope are cut up before that.
pub(super) fn packet_max(options: &Options, send_buffer: Option<usize>) -> Option<usize> {
    send_buffer.filter(|_| options.is_raw()).map(|size| size.saturating_sub(32))
}

/// What the kernel really gives for receiving, in bytes.
pub(super) fn receive_buffer(socket: impl AsFd) -> Option<usize> {
    sockopt::socket_recv_buffer_size(socket).ok()
}

/// A new socket that doesn't block while it is set up.
pub(super) fn new(family: AddressFamily, kind: SocketType) -> Result<OwnedFd, Error> {
    try_new(family, kind).map_err(|errno| Error::system(errno, "no new socket"))
}

/// The same, where a try to connect makes it.
pub(super) fn try_new(family: AddressFamily, kind: SocketType) -> Result<OwnedFd, Errno> {
    socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

/// From now on a plain call on this socket waits, as its users expect. It is ours alone.
pub(super) fn make_blocking(socket: &OwnedFd) -> Result<(), Error> {
    rustix::io::ioctl_fionbio(socket, false).map_err(|errno| Error::system(errno, ""))
}

/// Connects: tries again as long as `options.patience` says while nobody listens, and for a while
/// while the one who does is busy. Each try makes its own socket, and gets what is left of the time.
pub(super) fn connect_patiently(
    options: &Options,
    attempt: impl Fn(Wait) -> Result<OwnedFd, Errno>,
) -> Result<OwnedFd, Error> {
    let patience = options.patience.begin();
    // Who gave a time means it, also where somebody is there.
    let is_timed = options.patience != Wait::Not;
    let busy = Instant::now() + if is_timed { Duration::ZERO } else { BUSY_PATIENCE };
    loop {
        let errno = match attempt(patience) {
            Ok(socket) => return Ok(socket),
            Err(errno) => errno,
        };
        let goes_on = match errno {
            Errno::INTR => continue,
            Errno::AGAIN => {
                patience.left().is_none_or(|left| !left.is_zero()) || Instant::now() < busy
            }
            Errno::CONNREFUSED | Errno::NOENT => patience.left().is_none_or(|left| !left.is_zero()),
            _ => false,
        };
        let is_now = options.patience == Wait::For(Duration::ZERO);
        if !goes_on && errno == Errno::AGAIN && is_now {
            return Err(Error::new(Kind::Full, "who listens there accepts no more just now"));
        }
        if !goes_on {
            return Err(refused(errno));
        }
        // Nothing tells when somebody will listen: look again soon.
        let pause = Duration::from_millis(if errno == Errno::AGAIN { 1 } else { 10 });
        std::thread::sleep(patience.left().map_or(pause, |left| left.min(pause)));
    }
}

fn refused(errno: Errno) -> Error {
    let error = Error::system(errno, "");
    match errno {
        Errno::CONNREFUSED | Errno::NOENT => error
            .as_kind(Kind::NoReceiver)
            .with_hint("start the receiver first, or wait for it with a timeout"),
        Errno::PROTOTYPE => error
            .as_kind(Kind::Mismatch)
            .with_hint("the socket there is of another type: try unix:, seqpacket: or dgram:"),
        Errno::AGAIN => Error::new(Kind::TimedOut, "who listens there accepts no more just now"),
        _ => error,
    }
}

/// Waits for a connection that is under way: so long, or if no time was given as long as one may take.
pub(super) fn finish_connecting(socket: &OwnedFd, patience: Wait) -> Result<(), Errno> {
    let wait = match patience {
        Wait::Not => Wait::For(CONNECT_PATIENCE),
        patience => patience,
    };
    match wait.until_ready(socket.as_fd(), PollFlags::OUT) {
        Ok(true) => sockopt::socket_error(socket)?,
        Ok(false) => Err(Errno::CONNREFUSED),
        Err(Halt::System(errno)) => Err(errno),
        Err(Halt::Later) => Err(Errno::AGAIN),
    }
}

/// A socket's name in the file system, ours by a claim; taken away when its maker closes.
#[derive(Debug)]
pub struct Bound {
    path: PathBuf,
    object: Object,
    born: i128,
    claim: Claim,
}

impl Bound {
    /// Claims a path and makes sure that nothing is there: what the dead have left is taken away,
    /// what the living have is refused.
    fn claim(path: &Path, address: &Address) -> Result<Claim, Error> {
        let address = path::absolute_address(address, path)?;
        let mut claim = Claim::take(&path::key(path)?, &address.to_string())?;
        if let (Some(aside), Some(object)) = (claim.left_aside(), claim.left()) {
            path::finish_aside(aside, path, object)?;
        }
        let Ok(stat) = rustix::fs::lstat(path) else { return Ok(claim) };
        let object = path::object(&stat);
        if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
            return Err(Error::new(Kind::NameInUse { owner: None }, "something else is there")
                .with_hint("choose another path; poste never replaces what it didn't make"));
        }
        let is_left = claim.left() == Some(object) && claim.born() == path::born(path);
        if !is_left && may_be_served(path, object) {
            let detail = "another program's socket is there";
            return Err(Error::new(Kind::NameInUse { owner: None }, detail)
                .with_hint("choose another path, or end the program that listens there"));
        }
        path::take_away(path, object, |aside| claim.note_aside(object, aside))?;
        Ok(claim)
    }

    /// Notes what was made under the name.
    fn note(path: &Path, mut claim: Claim) -> Result<Bound, Error> {
        let stat = rustix::fs::lstat(path).map_err(|errno| Error::system(errno, ""))?;
        let (object, born) = (path::object(&stat), path::born(path));
        claim.note(object, born)?;
        // A relative path must still be found after the working directory has changed.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Ok(Bound { path, object, born, claim })
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Only what is still ours: somebody may have removed it and made another, and a forked
        // child has nothing to take away.
        let is_ours = self.claim.is_mine()
            && rustix::fs::lstat(&self.path).is_ok_and(|stat| path::object(&stat) == self.object)
            && path::born(&self.path) == self.born;
        if is_ours {
            let _ = rustix::fs::unlink(&self.path);
        }
    }
}

/// Whether anybody may be behind a socket that no claim of ours proves dead: the kernel must show
/// nobody, and, since it shows only its own network namespace, a connection must be refused.
fn may_be_served(path: &Path, object: Object) -> bool {
    let nobody_bound = unix_diag::sockets()
        .is_ok_and(|sockets| !sockets.iter().any(|socket| socket.may_be_at(path, object)));
    if !nobody_bound {
        return true;
    }
    let refused = || {
        let (name, _directory) = UnixPlace::Path(path).resolve().ok()?;
        let socket = new(AddressFamily::UNIX, SocketType::STREAM).ok()?;
        Some(connect(&socket, &name) == Err(Errno::CONNREFUSED))
    };
    refused() != Some(true)
}

/// Where a Unix socket is: a path, or an abstract name after `@`.
#[derive(Debug)]
pub(super) enum UnixPlace<'a> {
    Path(&'a Path),
    Abstract(&'a [u8]),
}

impl<'a> UnixPlace<'a> {
    pub(super) fn of(address: &'a Address) -> Result<UnixPlace<'a>, Error> {
        match address.rest() {
            [b'@'] => Err(Error::new(Kind::Invalid, "the abstract name is missing")
                .with_hint("name it after the @, as in unix:@jobs")),
            [b'@', name @ ..] => Ok(UnixPlace::Abstract(name)),
            _ => Ok(UnixPlace::Path(path::of(address)?)),
        }
    }

    /// These options with who may be at the other end: an abstract name has no mode, and anybody may
    /// have taken it first, so it is this user unless someone else is asked for.
    pub(super) fn guarded(&self, options: &Options) -> Options {
        let mut options = options.clone();
        options.allowed.own_user = matches!(self, UnixPlace::Abstract(_));
        options
    }

    /// The kernel's form of it. A path that is too long for it goes through its directory's
    /// descriptor, which must stay open for the call.
    fn resolve(&self) -> Result<(SocketAddrUnix, Option<OwnedFd>), Error> {
        let long = |errno| {
            Error::system(errno, "the name is too long")
                .as_kind(Kind::Invalid)
                .with_hint("an abstract name has at most 107 bytes, a path's last part at most 80")
        };
        let path = match self {
            UnixPlace::Abstract(name) => {
                return Ok((SocketAddrUnix::new_abstract_name(name).map_err(long)?, None));
            }
            UnixPlace::Path(path) => path,
        };
        match SocketAddrUnix::new(*path) {
            Err(Errno::NAMETOOLONG) => {
                let directory = path.parent().unwrap_or(Path::new("."));
                let name = path.file_name().unwrap_or_default();
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let directory = rustix::fs::openat(CWD, directory, flags, Mode::empty())
                    .map_err(|errno| Error::system(errno, "no such directory"))?;
                let number = std::os::fd::AsRawFd::as_raw_fd(&directory);
                let short = Path::new("/proc/self/fd").join(number.to_string()).join(name);
                Ok((SocketAddrUnix::new(short).map_err(long)?, Some(directory)))
            }
            done => Ok((done.map_err(|errno| Error::system(errno, ""))?, None)),
        }
    }

    /// Refuses a link that another user has planted, which leads to somebody else than was meant.
    fn refuse_planted(&self) -> Result<(), Error> {
        match self {
            UnixPlace::Path(path) => path::refuse_planted(path, false),
            UnixPlace::Abstract(_) => Ok(()),
        }
    }

    /// Takes the address for a socket, with the mode set from the first moment.
    pub(super) fn bind(
        &self,
        socket: &OwnedFd,
        opening: &Opening<'_>,
    ) -> Result<Option<Bound>, Error> {
        let (name, _directory) = self.resolve()?;
        let UnixPlace::Path(path) = self else {
            bind(socket, &name).map_err(in_use)?;
            return Ok(None);
        };
        let claim = Bound::claim(path, opening.address)?;
        let mode = Mode::from_raw_mode(opening.options.mode_or_default());
        // The socket's own mode is what its name gets, less the umask.
        rustix::fs::fchmod(socket, mode).map_err(|errno| Error::system(errno, ""))?;
        bind(socket, &name).map_err(in_use)?;
        let bound = Bound::note(path, claim)?;
        // What the umask took away is given back: never wider than asked for, and now not narrower.
        path::set_mode(path, bound.object, mode)?;
        Ok(Some(bound))
    }

    /// Connects a new socket of a type.
    pub(super) fn connect(&self, kind: SocketType, options: &Options) -> Result<OwnedFd, Error> {
        self.refuse_planted()?;
        let (name, _directory) = self.resolve()?;
        let socket = connect_patiently(options, |_| {
            let socket = try_new(AddressFamily::UNIX, kind)?;
            try_buffers(&socket, options)?;
            connect(&socket, &name).map(|()| socket)
        })?;
        // One may have come while nobody was there.
        self.refuse_planted()?;
        make_blocking(&socket)?;
        Ok(socket)
    }

    /// Connects a socket of datagrams anew: to whoever has the name now.
    pub(super) fn reconnect(&self, socket: BorrowedFd<'_>) -> Result<(), Error> {
        self.refuse_planted()?;
        let (name, _directory) = self.resolve()?;
        connect(socket, &name).map_err(refused)
    }
}

fn in_use(errno: Errno) -> Error {
    let error = Error::system(errno, "");
    match errno {
        Errno::ADDRINUSE => error.with_hint("another program has it; choose another name"),
        _ => error,
    }
}

/// Which side this end takes.
pub(super) fn listens(opening: &Opening<'_>, by_itself: Role) -> bool {
    opening.options.role.unwrap_or(by_itself) == Role::Listen
}

/// Starts to listen, and merges who comes behind one end.
pub(super) fn merging(
    listener: OwnedFd,
    bound: Option<Bound>,
    flow: Flow,
    address: Address,
    options: &Options,
) -> Result<OpenedReceiver, Error> {
    if options.body_only {
        // Connections have it from their listener; an older kernel closes what is not asked for.
        let _ = poste_sys::ancillary::refuse_descriptors(listener.as_fd());
    }
    listen(&listener, BACKLOG).map_err(|errno| Error::system(errno, ""))?;
    let traits = EndTraits { capacity: receive_buffer(&listener), ..connected(flow) };
    let end = Merge::new(listener, flow, options, bound)?;
    Ok(Opened { end: Box::new(end), traits, address })
}

/// Starts to listen, and sends to whoever comes first.
pub(super) fn serving(
    listener: OwnedFd,
    bound: Option<Bound>,
    flow: Flow,
    address: Address,
    options: &Options,
) -> Result<OpenedSender, Error> {
    listen(&listener, BACKLOG).map_err(|errno| Error::system(errno, ""))?;
    // The next receiver must learn who speaks as well: each piece says it.
    let traits =
        EndTraits { introduces: false, capacity: send_buffer(&listener), ..connected(flow) };
    let end = Serve::new(listener, flow, options, bound);
    Ok(Opened { end: Box::new(end), traits, address })
}

fn connected(flow: Flow) -> EndTraits {
    match flow {
        Flow::Packet => EndTraits::PACKET,
        _ => EndTraits::STREAM,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn every_try_to_connect_gets_what_is_left_of_one_time() {
        let time = Duration::from_millis(60);
        let start = Instant::now();
        let waits = RefCell::new(Vec::new());
        let options = Options::new().patience(Wait::For(time));
        let error = connect_patiently(&options, |patience| {
            waits.borrow_mut().push(patience);
            Err(Errno::CONNREFUSED)
        });
        assert_eq!(error.unwrap_err().kind(), Kind::NoReceiver);
        let waits = waits.into_inner();
        assert!(waits.len() > 1 && waits.iter().all(|wait| *wait == waits[0]), "{waits:?}");
        let Wait::Until(end) = waits[0] else { panic!("{waits:?}") };
        assert!(end >= start + time && end <= Instant::now());
    }
}
