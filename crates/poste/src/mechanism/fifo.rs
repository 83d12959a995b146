//! The FIFO: a pipe with a name, many writers and one reader.
//!
//! Opening never hangs: a receiver waits for its first writer when it receives, a sender for its
//! first reader when it sends. When the last writer goes, the read end is opened afresh, which alone
//! makes it quiet again, and waits for the next; inotify tells a waiting end that the other one has
//! opened, or that the name is gone. An enveloped FIFO has one receiver, by a claim; opened as
//! shared, several take turns under a lock.
//! Sources: fifo(7), pipe(7), open(2) (ENXIO), flock(2), inotify(7).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use poste_sys::lock;
use rustix::event::PollFlags;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fs::inotify::{self, WatchFlags};
use rustix::fs::{CWD, FileType, FlockOperation, Mode, OFlags, Stat, flock, mkfifoat};
use rustix::io::Errno;
use rustix::pipe::fcntl_getpipe_size;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use super::link::Link;
use super::pipe::{OpenedReceiver, OpenedSender, set_capacity};
use super::wire::Flow;
use super::{Arrival, EndTraits, Frame, Mechanism, News, Opened, Opening, Pollable, path};
use super::{RecvEnd, SendEnd};
use crate::address::Address;
use crate::capabilities::{Capabilities, Peers};
use crate::error::{Error, Kind};
use crate::name::claim::{self, Claim, Seized};
use crate::name::descriptors::{Opened as Descriptor, What};
use crate::name::registry;
use crate::object::{Listing, Object};
use crate::options::{Create, Options};
use crate::survey::{Survey, age_of_file, end_of, since};
use crate::wait::{Halt, Wait, timespec};

/// Named pipe.
pub static MECHANISM: Mechanism = Mechanism {
    scheme: "fifo",
    title: "FIFO",
    example: "fifo:/run/user/1000/log",
    capabilities: Capabilities::PLAIN,
    settings: &["message-size", "mode", "shared"],
    create: |opening| make(opening),
    open_sender,
    open_receiver,
    remove,
    list,
    place,
    limits: &["fs.pipe-max-size", "fs.pipe-user-pages-soft", "RLIMIT_NOFILE"],
};

fn remove(address: &Address) -> Result<(), Error> {
    let path = path::of(address)?;
    path::remove(path, FileType::Fifo, "FIFO")?;
    if let Ok(key) = path::key(path) {
        registry::forget(&key);
        // A dead receiver's lock goes with its FIFO; one that can't be read is gc's.
        if let Ok(Some(seized)) = Seized::of(&reader_key(&key)) {
            seized.take_away()?;
        }
    }
    Ok(())
}

/// The address as it is listed.
fn place(address: &Address) -> Result<Address, Error> {
    check(path::of(address)?, address)?;
    path::absolute_address(address, path::of(address)?)
}

/// The FIFOs that poste made, and those that somebody has open.
fn list(survey: &Survey) -> Listing {
    let mut listing = Listing::none();
    let mut places = BTreeMap::new();
    for (entry, record) in survey.recorded("fifo") {
        let place = PathBuf::from(OsStr::from_bytes(record.address.rest()));
        match rustix::fs::lstat(&place) {
            Ok(stat) if record.object == Some(path::object(&stat)) => {
                places.insert(place, Some(record.made));
            }
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) if entry.maker.is_none() => {
                listing.gone.push(entry.clone());
            }
            _ => {}
        }
    }
    for (what, opened) in survey.descriptors.all() {
        let (What::Fifo(object), Some(first)) = (what, opened.first()) else { continue };
        let is_it = |stat| path::object(&stat) == object;
        if rustix::fs::lstat(&first.path).is_ok_and(is_it) {
            places.entry(first.path.clone()).or_insert(None);
        }
    }
    let wanted = survey.wanted("fifo").map(|address| OsStr::from_bytes(address.rest()));
    if let Some(wanted) = wanted {
        places.entry(PathBuf::from(wanted)).or_insert(None);
    }
    for (place, made) in places {
        let object = look(survey, &place, made, &mut listing);
        listing.objects.extend(object);
    }
    listing
}

fn look(survey: &Survey, place: &Path, made: Option<u64>, listing: &mut Listing) -> Option<Object> {
    let stat = rustix::fs::lstat(place).ok()?;
    path::expect(&stat, FileType::Fifo, "FIFO").ok()?;
    let mut object = Object::new("fifo", Address::new("fifo", place.as_os_str().as_bytes()).ok()?);
    object.mode = Some(stat.st_mode & 0o777);
    survey.owned(&mut object, stat.st_uid);
    object.age = made.and_then(since).or_else(|| age_of_file(place));
    let what = What::Fifo(path::object(&stat));
    let inside = survey.descriptors.of(what).iter().find_map(|opened| look_inside(opened, &stat));
    (object.bytes, object.capacity) = inside.unzip();
    let holders = survey.holders(what, end_of);
    survey.held(&mut object, holders, listing);
    Some(object)
}

/// How many bytes lie in a FIFO, and for how many there is room. Opening it would tell its users
/// that somebody came: a copy of a descriptor that is open already tells nobody.
fn look_inside(opened: &Descriptor, stat: &Stat) -> Option<(u64, u64)> {
    let pid = rustix::process::Pid::from_raw(opened.pid as i32)?;
    let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let copy = pidfd_getfd(&process, opened.number as i32, PidfdGetfdFlags::empty()).ok()?;
    let is_it = path::object(&rustix::fs::fstat(&copy).ok()?) == path::object(stat);
    let size = fcntl_getpipe_size(&copy).ok()?;
    is_it.then(|| Some((rustix::io::ioctl_fionread(&copy).ok()?, size as u64)))?
}

fn make(opening: &Opening<'_>) -> Result<(), Error> {
    path::place(opening.address, opening.options.mode_or_default(), |name| {
        mkfifoat(CWD, name, Mode::RUSR | Mode::WUSR)
    })
}

/// Makes the FIFO where that is asked for; what is there is used if it is one.
fn ensure<'a>(opening: &'a Opening<'_>) -> Result<&'a Path, Error> {
    let path = path::of(opening.address)?;
    path::refuse_planted(path, opening.options.create != Create::No)?;
    match opening.options.create {
        Create::No => {}
        Create::New => make(opening)?,
        Create::IfAbsent => match make(opening) {
            Err(error) if error.errno() == Some(Errno::EXIST.raw_os_error()) => {}
            done => done?,
        },
    }
    Ok(path)
}

/// Opens the FIFO without waiting for the other side; `ENXIO` where a reader is missing.
fn open(path: &Path, access: OFlags) -> Result<OwnedFd, Errno> {
    let flags = access | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let descriptor = rustix::fs::open(path, flags, Mode::empty())?;
    // What was checked may have been replaced since: nothing is written into what is no FIFO.
    let stat = rustix::fs::fstat(&descriptor)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Fifo {
        return Err(Errno::NOENT);
    }
    // This description is ours alone; plain calls on it wait from now on.
    let flags = rustix::fs::fcntl_getfl(&descriptor)?;
    rustix::fs::fcntl_setfl(&descriptor, flags - OFlags::NONBLOCK)?;
    Ok(descriptor)
}

/// Refuses what is no FIFO before it is opened: opening a device may do things.
fn check(path: &Path, address: &Address) -> Result<(), Error> {
    let stat = rustix::fs::stat(path).map_err(|errno| {
        let error = path::missing(errno, "FIFO");
        match errno {
            Errno::NOENT => error.with_hint(format!("make it: poste create {}", address.bare())),
            _ => error,
        }
    })?;
    path::expect(&stat, FileType::Fifo, "FIFO")
}

fn traits(opening: &Opening<'_>, capacity: Option<usize>) -> EndTraits {
    EndTraits {
        capacity,
        // Whoever takes turns must be able to take a message with one turn.
        pieces: !opening.options.shared,
        ..EndTraits::PIPE
    }
}

fn system(errno: Errno) -> Error {
    Error::system(errno, "")
}

fn open_sender(opening: &Opening<'_>) -> Result<OpenedSender, Error> {
    let path = ensure(opening)?;
    check(path, opening.address)?;
    let mut end = Writer::new(path, opening.options)?;
    if opening.options.patience != Wait::Not {
        end.connect(opening.options.patience)?;
    } else {
        // That nobody reads yet is found out by the first send.
        end.try_connect()?;
    }
    let capacity = match &end.link {
        Some(link) => set_capacity(link.descriptor(), &Options::new())?,
        None => None,
    };
    let traits = traits(opening, capacity);
    Ok(Opened { end: Box::new(end), traits, address: opening.address.clone() })
}

/// How often a sender looks for a reader that no event tells of: one that waits in open(2).
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The end that writes.
struct Writer {
    path: PathBuf,
    options: Options,
    link: Option<Link>,
    /// Tells when somebody opens the FIFO; made when first waited for.
    opened: Option<OwnedFd>,
    /// What is polled: the link while there is one, else `opened` and `again`.
    epoll: Option<OwnedFd>,
    /// Goes off when it is time to look again, after a look in vain.
    again: Option<OwnedFd>,
    had_reader: bool,
}

impl Writer {
    fn new(path: &Path, options: &Options) -> Result<Writer, Error> {
        let path = std::path::absolute(path)
            .map_err(|error| Error::new(Kind::Invalid, error.to_string()))?;
        let options = options.clone();
        let (link, opened, epoll, again) = (None, None, None, None);
        Ok(Writer { path, options, link, opened, epoll, again, had_reader: false })
    }

    /// Opens the FIFO if somebody reads it: whether that is so.
    fn try_connect(&mut self) -> Result<bool, Error> {
        if self.link.is_some() {
            return Ok(true);
        }
        match open(&self.path, OFlags::WRONLY) {
            Ok(descriptor) => {
                self.link = Some(Link::new(descriptor, Flow::Pipe, &self.options));
                self.had_reader = true;
                self.watch_link().map_err(system)?;
                Ok(true)
            }
            Err(Errno::NXIO) => Ok(false),
            Err(Errno::NOENT) => Err(Error::system(Errno::NOENT, "the FIFO was removed")
                .as_kind(Kind::Removed)
                .with_hint("make it anew with poste create")),
            Err(errno) => Err(system(errno)),
        }
    }

    /// Waits until somebody reads the FIFO.
    fn connect(&mut self, wait: Wait) -> Result<(), Error> {
        let wait = wait.begin();
        while !self.try_connect()? {
            // Watched before the second try: one who opens in between is seen by one of them.
            let opened = self.watch_opening().map_err(system)?;
            drain(opened.as_fd());
            if self.try_connect()? {
                return Ok(());
            }
            // One whose open waits for a writer counts as a reader, but is no news before it is
            // through: look again now and then.
            let left = wait.left();
            let pause = left.map_or(LOOK_AGAIN, |left| left.min(LOOK_AGAIN));
            let opened = self.watch_opening().map_err(system)?;
            match Wait::For(pause).until_ready(opened.as_fd(), PollFlags::IN) {
                Ok(true) => {}
                Ok(false) | Err(Halt::Later) if left.is_none_or(|left| left > pause) => {}
                Ok(false) | Err(Halt::Later) => {
                    self.look_again().map_err(system)?;
                    return Err(Error::new(Kind::NoReceiver, "nobody reads the FIFO")
                        .with_hint("start the receiver: poste recv with the same address"));
                }
                Err(Halt::System(errno)) => return Err(system(errno)),
            }
        }
        Ok(())
    }

    fn watch_opening(&mut self) -> Result<&OwnedFd, Errno> {
        if self.opened.is_none() {
            self.opened = Some(watch(&self.path, WatchFlags::OPEN)?);
        }
        match &self.opened {
            Some(opened) => Ok(opened),
            None => unreachable!("it was just made"),
        }
    }

    /// Who polls is told to look again after a while: no event tells of a reader that waits in
    /// open(2).
    fn look_again(&mut self) -> Result<(), Errno> {
        let Some(epoll) = &self.epoll else { return Ok(()) };
        if self.again.is_none() {
            let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
            let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            epoll::add(epoll, &timer, EventData::new_u64(2), EventFlags::IN)?;
            self.again = Some(timer);
        }
        if let Some(timer) = &self.again {
            let time = Itimerspec {
                it_interval: timespec(Duration::ZERO),
                it_value: timespec(LOOK_AGAIN),
            };
            timerfd_settime(timer, TimerfdTimerFlags::empty(), &time)?;
        }
        Ok(())
    }

    /// While a reader is there the pipe itself is polled: whether it has room.
    fn watch_link(&mut self) -> Result<(), Errno> {
        if let (Some(epoll), Some(link)) = (&self.epoll, &self.link) {
            if let Some(opened) = &self.opened {
                // Opening the FIFO, which others do as well, is no news while a reader is there. It
                // isn't watched where the reader came first.
                let _ = epoll::delete(epoll, opened);
            }
            if let Some(again) = self.again.take() {
                // Before it is closed: a forked child may hold a copy.
                let _ = epoll::delete(epoll, again);
            }
            epoll::add(epoll, link.descriptor(), EventData::new_u64(1), EventFlags::OUT)?;
        }
        Ok(())
    }

    /// The last reader is gone.
    fn disconnect(&mut self) {
        if let (Some(epoll), Some(link)) = (&self.epoll, &self.link) {
            // Before it is closed: a forked child may hold a copy.
            let _ = epoll::delete(epoll, link.descriptor());
            if let Some(opened) = &self.opened {
                drain(opened);
                // Without memory for it the next send finds the reader all the same.
                let _ = epoll::add(epoll, opened, EventData::new_u64(0), EventFlags::IN);
            }
        }
        self.link = None;
    }
}

/// An inotify descriptor on the object at a path: what happens to it, and that it goes.
fn watch(path: &Path, flags: WatchFlags) -> Result<OwnedFd, Errno> {
    let create = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
    let descriptor = inotify::init(create)?;
    inotify::add_watch(&descriptor, path, flags | WatchFlags::ATTRIB | WatchFlags::MOVE_SELF)?;
    Ok(descriptor)
}

/// Reads away what an inotify descriptor has to say: that it said something is enough.
fn drain(descriptor: impl AsFd) {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(descriptor, &mut buffer);
    while reader.next().is_ok() {}
}

impl SendEnd for Writer {
    fn send(&mut self, frame: &Frame<'_>, wait: Wait) -> Result<usize, Error> {
        let wait = wait.begin();
        loop {
            self.connect(wait)?;
            let Some(link) = &mut self.link else { continue };
            match link.send(frame, wait) {
                // Not one byte was accepted: it is the next reader's.
                Err(error) if error.is(&Kind::Disconnected) => self.disconnect(),
                done => return done,
            }
        }
    }

    fn pollable(&mut self) -> Result<Pollable<'_>, Error> {
        if self.epoll.is_none() {
            let mut make = || {
                let opened = self.watch_opening()?;
                let epoll = epoll::create(CreateFlags::CLOEXEC)?;
                epoll::add(&epoll, opened, EventData::new_u64(0), EventFlags::IN)?;
                Ok(epoll)
            };
            self.epoll = Some(make().map_err(system)?);
            if self.link.is_some() {
                self.watch_link().map_err(system)?;
            } else if !self.try_connect()? {
                // (One who had come before anything was watched has been found.)
                self.look_again().map_err(system)?;
            }
        }
        match &self.epoll {
            Some(epoll) => Ok(Pollable { descriptor: epoll.as_fd(), events: PollFlags::IN }),
            None => unreachable!("it was just made"),
        }
    }

    fn peers(&self) -> Peers {
        match (&self.link, self.had_reader) {
            (Some(_), _) => Peers::Present(1),
            (None, true) => Peers::AllGone,
            (None, false) => Peers::NobodyYet,
        }
    }
}

fn open_receiver(opening: &Opening<'_>) -> Result<OpenedReceiver, Error> {
    let path = ensure(opening)?;
    check(path, opening.address)?;
    // First the end that stays: a writer that found only one of those that look for others would
    // lose what it wrote when that one closes.
    let descriptor = open(path, OFlags::RDONLY).map_err(system)?;
    let place = Place::take(path, opening)?;
    let capacity = set_capacity(&descriptor, &Options::new())?;
    let end = Reader::new(path, descriptor, place, opening.options)?;
    Ok(Opened {
        end: Box::new(end),
        traits: traits(opening, capacity),
        address: opening.address.clone(),
    })
}

/// Whose turn it is to read.
enum Place {
    /// Raw: whoever reads, reads.
    Anyone,
    /// The one receiver, while it has this claim.
    Alone { _claim: Box<Claim> },
    /// One of several. Each keeps a shared lock on the FIFO, so that nobody claims it alone, and
    /// takes a second one for its turn; for that it is open for writing too, so they see no end.
    InTurn(OwnedFd),
}

impl Place {
    /// Who comes alone claims first and then looks for those who share; who shares locks first and
    /// then looks for a claim: so at least one of two sees the other.
    fn take(path: &Path, opening: &Opening<'_>) -> Result<Place, Error> {
        if opening.options.is_raw() {
            return Ok(Place::Anyone);
        }
        let key = reader_key(&path::key(path)?);
        if opening.options.shared {
            let descriptor = locked(path, OFlags::RDWR, FlockOperation::NonBlockingLockShared)?;
            return match claim::holder(&key)? {
                Some(owner) => Err(has_receiver(Some(owner.describe()))),
                None => Ok(Place::InTurn(descriptor)),
            };
        }
        let address = path::absolute_address(opening.address, path)?;
        let claim = Claim::take(&key, &address.to_string())?;
        // Nobody shares it; the lock itself isn't needed any longer.
        drop(locked(path, OFlags::RDONLY, FlockOperation::NonBlockingLockExclusive)?);
        Ok(Place::Alone { _claim: Box::new(claim) })
    }
}

/// The key of the claim of a FIFO's one receiver.
fn reader_key(key: &str) -> String {
    format!("reader:{key}")
}

fn locked(path: &Path, access: OFlags, how: FlockOperation) -> Result<OwnedFd, Error> {
    let flags = access | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let descriptor = rustix::fs::open(path, flags, Mode::empty()).map_err(system)?;
    flock(&descriptor, how).map_err(|errno| match errno {
        Errno::WOULDBLOCK => has_receiver(None),
        _ => system(errno),
    })?;
    Ok(descriptor)
}

fn has_receiver(owner: Option<String>) -> Error {
    Error::new(Kind::NameInUse { owner }, "the FIFO has a receiver already")
        .with_hint("an enveloped FIFO has one, or several that all open it with ?shared")
}

/// How long a turn takes at most when all is well: a few microseconds. So often is it asked for.
const TURN_PAUSE: Duration = Duration::from_micros(200);

/// The end that reads.
struct Reader {
    path: PathBuf,
    link: Link,
    place: Place,
    /// What to wait on while there is no writer, and for whoever polls; made when first needed.
    watch: Option<Watch>,
    /// Somebody polls: it stays on watch.
    is_polled: bool,
    events: Vec<u64>,
    /// Something was read since the read end was opened last.
    has_writer: bool,
    had_writer: bool,
}

/// Ready when the FIFO has something, or its last writer went, or its name is gone.
///
/// The FIFO stands in it only while this is waited on: each write to a descriptor on watch costs its
/// writer more.
struct Watch {
    epoll: OwnedFd,
    gone: OwnedFd,
    has_data: bool,
}

impl Watch {
    fn new(path: &Path) -> Result<Watch, Errno> {
        let gone = watch(path, WatchFlags::DELETE_SELF)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &gone, EventData::new_u64(GONE), EventFlags::IN)?;
        Ok(Watch { epoll, gone, has_data: false })
    }

    fn add(&mut self, fifo: impl AsFd) -> Result<(), Errno> {
        if !self.has_data {
            epoll::add(&self.epoll, fifo, EventData::new_u64(DATA), EventFlags::IN)?;
            self.has_data = true;
        }
        Ok(())
    }

    fn delete(&mut self, fifo: impl AsFd) -> Result<(), Errno> {
        if self.has_data {
            epoll::delete(&self.epoll, fifo)?;
            self.has_data = false;
        }
        Ok(())
    }
}

impl Reader {
    fn new(
        path: &Path,
        descriptor: OwnedFd,
        place: Place,
        options: &Options,
    ) -> Result<Reader, Error> {
        let path = std::path::absolute(path)
            .map_err(|error| Error::new(Kind::Invalid, error.to_string()))?;
        let link = Link::new(descriptor, Flow::Pipe, options);
        Ok(Reader {
            path,
            link,
            place,
            watch: None,
            is_polled: false,
            events: Vec::new(),
            has_writer: false,
            had_writer: false,
        })
    }

    /// Sees to it that the FIFO is on watch.
    fn watch(&mut self) -> Result<&Watch, Error> {
        if self.watch.is_none() {
            self.watch = Some(Watch::new(&self.path).map_err(system)?);
        }
        match &mut self.watch {
            Some(watch) => {
                watch.add(self.link.descriptor()).map_err(system)?;
                Ok(watch)
            }
            None => unreachable!("it was just made"),
        }
    }

    /// Waits until there is something to read, or the last writer has gone.
    fn wait(&mut self, wait: Wait) -> Result<(), Error> {
        let mut events = std::mem::take(&mut self.events);
        let waited = wait.events(self.watch()?.epoll.as_fd(), &mut events);
        let is_gone = waited.is_ok() && events.contains(&GONE);
        self.events = events;
        if is_gone && self.is_removed() {
            return Err(Error::new(Kind::Removed, "the FIFO was removed")
                .with_hint("make it anew with poste create"));
        }
        if let Some(watch) = &mut self.watch {
            if is_gone {
                drain(&watch.gone);
            }
            if !self.is_polled {
                watch.delete(self.link.descriptor()).map_err(system)?;
            }
        }
        waited.map_err(|halt| halt.receiving(wait))
    }

    fn takes_turns(&self) -> bool {
        matches!(self.place, Place::InTurn(_))
    }

    /// Whether the path no longer leads to what is open here.
    fn is_removed(&self) -> bool {
        let ours = rustix::fs::fstat(self.link.descriptor());
        match (ours, rustix::fs::stat(&self.path)) {
            (Ok(ours), Ok(there)) => (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino),
            (_, Err(errno)) => errno == Errno::NOENT,
            (Err(_), _) => false,
        }
    }

    /// Opens the read end afresh, before the old one is closed: the only way to make it quiet.
    fn reopen(&mut self) -> Result<(), Error> {
        if self.is_removed() {
            return Err(Error::new(Kind::Removed, "the FIFO was removed"));
        }
        let fresh = open(&self.path, OFlags::RDONLY).map_err(system)?;
        if let Some(watch) = &mut self.watch {
            // Before the old one is closed: a forked child may hold a copy of it.
            watch.delete(self.link.descriptor()).map_err(system)?;
            if self.is_polled {
                watch.add(&fresh).map_err(system)?;
            }
        }
        self.link.replace(fresh);
        self.has_writer = false;
        Ok(())
    }

    /// The last writer is gone, or none has come yet: whether there is news to tell.
    fn ended(&mut self) -> Result<bool, Error> {
        self.link.inbox().drop_beginning();
        let hung_up = Wait::Not.until_ready(self.link.descriptor(), PollFlags::IN) == Ok(true);
        let told = self.has_writer;
        if hung_up {
            self.had_writer = true;
            self.reopen()?;
        } else {
            self.link.inbox().reopen();
        }
        Ok(told)
    }

    fn recv_alone(&mut self, arrival: &mut Arrival, wait: Wait) -> Result<(), Error> {
        loop {
            if self.link.take(arrival) {
                return Ok(());
            }
            if let Some(error) = self.link.inbox().take_fault() {
                return Err(error);
            }
            // While nobody writes, only the watch tells that the name is gone.
            let is_timed = !matches!(wait, Wait::Forever | Wait::Not);
            let reading = if is_timed && !self.has_writer { Wait::Not } else { wait };
            match self.link.read(reading) {
                Ok(0) => {
                    if self.ended()? {
                        arrival.news = News::AllGone;
                        return Ok(());
                    }
                    if self.link.inbox().is_empty() {
                        self.wait(wait)?;
                    }
                }
                Ok(_) => (self.has_writer, self.had_writer) = (true, true),
                Err(Halt::Later) if reading != wait => self.wait(wait)?,
                Err(halt) => return Err(halt.receiving(wait)),
            }
        }
    }

    /// Takes one message in a turn: nobody else reads between its header and its body.
    fn recv_in_turn(&mut self, arrival: &mut Arrival, wait: Wait) -> Result<(), Error> {
        while let Place::InTurn(place) = &self.place {
            let place = place.as_fd();
            let turn = wait.retry(TURN_PAUSE, |_| lock::try_lock(place));
            if let (Err(Halt::Later), Some(watch), true) = (turn, &mut self.watch, self.is_polled) {
                // Who has the turn takes one message and leaves the others: they show anew, also to
                // one who waits for edges.
                let fifo = self.link.descriptor();
                watch.delete(fifo).and_then(|()| watch.add(fifo)).map_err(system)?;
            }
            turn.map_err(|halt| halt.receiving(wait))?;
            let found = take_whole(&mut self.link, arrival);
            lock::unlock(place).map_err(system)?;
            if found? {
                return Ok(());
            }
            self.wait(wait)?;
        }
        self.recv_alone(arrival, wait)
    }
}

/// Reads one message and no byte more: whether there was one.
fn take_whole(link: &mut Link, arrival: &mut Arrival) -> Result<bool, Error> {
    link.want(1);
    loop {
        if link.take(arrival) {
            return Ok(true);
        }
        if let Some(error) = link.inbox().take_fault() {
            return Err(error);
        }
        match link.read(Wait::Not) {
            Ok(0) | Err(Halt::Later) => return Ok(false),
            Ok(_) => {}
            Err(halt) => return Err(halt.receiving(Wait::Not)),
        }
    }
}

/// The epoll entries of a reader.
const DATA: u64 = 0;
const GONE: u64 = 1;

impl RecvEnd for Reader {
    fn recv(&mut self, arrival: &mut Arrival, wait: Wait) -> Result<(), Error> {
        let wait = wait.begin();
        arrival.reset();
        if self.takes_turns() {
            return self.recv_in_turn(arrival, wait);
        }
        if self.link.inbox().should_look() && !self.link.inbox().is_empty() {
            self.link.look();
        }
        self.recv_alone(arrival, wait)
    }

    fn bytes(&self, arrival: &Arrival) -> &[u8] {
        self.link.bytes(arrival)
    }

    fn pollable(&mut self) -> Result<Pollable<'_>, Error> {
        self.is_polled = true;
        Ok(Pollable { descriptor: self.watch()?.epoll.as_fd(), events: PollFlags::IN })
    }

    fn want(&mut self, messages: u64) {
        if !self.takes_turns() {
            self.link.want(messages);
        }
    }

    fn peers(&self) -> Peers {
        match (self.takes_turns(), self.has_writer, self.had_writer) {
            (true, ..) => Peers::Unknown,
            (_, true, _) => Peers::Present(1),
            (_, false, true) => Peers::AllGone,
            (_, false, false) => Peers::NobodyYet,
        }
    }
}
