//! The FIFO: a pipe with a name, many writers and one reader.
//!
//! Opening never hangs: a receiver waits for its first writer when it receives, a sender for its
//! first reader when it sends. When the last writer goes, the read end is opened afresh, which alone
//! makes it quiet again, and waits for the next; inotify tells a waiting end that the other one has
//! opened, or that the name is gone. An enveloped FIFO has one receiver, by a claim; opened as
//! shared, several take turns under a lock.
//! How it is made and listed stands in fifo_objects.rs, who may read in fifo_turns.rs, and
//! what wakes an end in fifo_watch.rs and fifo_names.rs.
//! Sources: fifo(7), pipe(7), inotify(7).

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use poste_sys::{lock, sysctl};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, PollFlags, eventfd};
use rustix::fs::OFlags;
use rustix::fs::inotify::WatchFlags;
use rustix::io::Errno;

use super::fifo_objects::{check, confirm, ensure, list, make, open, place, remove};
use super::fifo_turns::Place;
use super::fifo_watch::{GONE, Watch, drain, watch};
use super::link::Link;
use super::pipe::{OpenedReceiver, OpenedSender, set_capacity};
use super::timer::Timer;
use super::wire::Flow;
use super::{Arrival, EndTraits, Frame, GONE_IN_THE_MIDDLE, Mechanism, News, Opened, Opening};
use super::{Pollable, RecvEnd, SendEnd};
use crate::capabilities::{Capabilities, Peers};
use crate::error::{Error, Kind};
use crate::options::{Create, Options};
use crate::wait::{Halt, Wait};

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

fn traits(opening: &Opening<'_>, capacity: Option<usize>) -> EndTraits {
    EndTraits {
        capacity,
        // Whoever takes turns must be able to take a message with one turn.
        pieces: !opening.options.shared,
        ..EndTraits::PIPE
    }
}

fn system(errno: Errno) -> Error {
    // inotify has a limit of its own, and says the same as where no descriptor is free.
    if errno == Errno::MFILE && eventfd(0, EventfdFlags::CLOEXEC).is_ok() {
        let name = "fs.inotify.max_user_instances";
        let value = sysctl::read(name).unwrap_or(0);
        let raise_with = format!("sysctl -w {name}={}", value.saturating_mul(8).max(1024));
        let detail = format!("this user watches as many files as {name} allows, {value}");
        return Error::system(errno, detail).as_kind(Kind::Limit { name, value, raise_with });
    }
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

/// As long as nobody reads, how often who polls a sender is told to look for such a one.
const LOOK_POLLED: Duration = Duration::from_millis(100);

/// The end that writes.
struct Writer {
    path: PathBuf,
    options: Options,
    link: Option<Link>,
    /// Tells when somebody opens the FIFO; made when first waited for.
    opened: Option<OwnedFd>,
    /// What is polled: the link while there is one, else `opened`.
    epoll: Option<OwnedFd>,
    /// Runs while it is polled and nobody reads.
    again: Option<Timer>,
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
                confirm(&self.path, &descriptor, self.options.create)?;
                self.link = Some(Link::new(descriptor, Flow::Pipe, &self.options));
                self.had_reader = true;
                self.watch_link().map_err(system)?;
                Ok(true)
            }
            Err(Errno::NXIO) => {
                if let Some(again) = &self.again {
                    again.set(LOOK_POLLED);
                }
                Ok(false)
            }
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
            let opened = self.watch_opening()?;
            drain(opened.as_fd());
            if self.try_connect()? {
                return Ok(());
            }
            // One whose open waits for a writer counts as a reader, but is no news before it is
            // through: look again now and then.
            let left = wait.left();
            let pause = left.map_or(LOOK_AGAIN, |left| left.min(LOOK_AGAIN));
            let opened = self.watch_opening()?;
            match Wait::For(pause).until_ready(opened.as_fd(), PollFlags::IN) {
                Ok(true) => {}
                Ok(false) | Err(Halt::Later) if left.is_none_or(|left| left > pause) => {}
                Ok(false) | Err(Halt::Later) => {
                    return Err(Error::new(Kind::NoReceiver, "nobody reads the FIFO")
                        .with_hint("start the receiver: poste recv with the same address"));
                }
                Err(Halt::System(errno)) => return Err(system(errno)),
            }
        }
        Ok(())
    }

    fn watch_opening(&mut self) -> Result<&OwnedFd, Error> {
        if self.opened.is_none() {
            self.opened = Some(watch(&self.path, WatchFlags::OPEN)?);
        }
        match &self.opened {
            Some(opened) => Ok(opened),
            None => unreachable!("it was just made"),
        }
    }

    /// While a reader is there the pipe itself is polled: whether it has room.
    fn watch_link(&mut self) -> Result<(), Errno> {
        if let (Some(epoll), Some(link)) = (&self.epoll, &self.link) {
            if let Some(opened) = &self.opened {
                // Opening the FIFO, which others do as well, is no news while a reader is there. It
                // isn't watched where the reader came first.
                let _ = epoll::delete(epoll, opened);
            }
            epoll::add(epoll, link.descriptor(), EventData::new_u64(1), EventFlags::OUT)?;
            if let Some(again) = &self.again {
                again.stop();
            }
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

impl SendEnd for Writer {
    fn send(&mut self, frame: &Frame<'_>, wait: Wait) -> Result<usize, Error> {
        let wait = wait.begin();
        loop {
            if frame.goes_on && self.link.is_none() {
                return Err(Error::new(Kind::Disconnected, GONE_IN_THE_MIDDLE));
            }
            self.connect(wait)?;
            let Some(link) = &mut self.link else { continue };
            match link.send(frame, wait) {
                // Not one byte was accepted: it is the next reader's, if it begins a message.
                Err(error) if error.is(&Kind::Disconnected) => self.disconnect(),
                done => return done,
            }
        }
    }

    fn pollable(&mut self) -> Result<Pollable<'_>, Error> {
        if self.epoll.is_none() {
            let opened = self.watch_opening()?;
            let make = || {
                let epoll = epoll::create(CreateFlags::CLOEXEC)?;
                epoll::add(&epoll, opened, EventData::new_u64(0), EventFlags::IN)?;
                let again = Timer::new()?;
                epoll::add(&epoll, &again, EventData::new_u64(2), EventFlags::IN)?;
                Ok((epoll, again))
            };
            let (epoll, again) = make().map_err(system)?;
            (self.epoll, self.again) = (Some(epoll), Some(again));
            match self.link {
                Some(_) => self.watch_link().map_err(system)?,
                // A reader may have come before anything was watched.
                None => drop(self.try_connect()?),
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
    confirm(path, &descriptor, opening.options.create)?;
    let place = Place::take(path, opening)?;
    let capacity = set_capacity(&descriptor, &Options::new())?;
    let end = Reader::new(path, descriptor, place, opening.options)?;
    Ok(Opened {
        end: Box::new(end),
        traits: traits(opening, capacity),
        address: opening.address.clone(),
    })
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
            self.watch = Some(Watch::new(&self.path)?);
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
        if is_gone {
            // Heard before the look: what happens after it shows anew.
            let heard = self.watch.as_mut().map(|watch| watch.hear(&self.path));
            // Who has a writer hears of it when that one goes.
            if !self.has_writer && self.is_removed() {
                self.watch.iter().for_each(Watch::keep_telling);
                return Err(Error::new(Kind::Removed, "the FIFO was removed")
                    .with_hint("make it anew with poste create"));
            }
            heard.transpose()?;
        }
        if let Some(watch) = &mut self.watch {
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
        confirm(&self.path, &fresh, Create::No)?;
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
                // Polled, what only the name's watch shows must be heard, or it shows for ever.
                Err(Halt::Later) if reading != wait || self.is_polled => self.wait(wait)?,
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
