//! A mailbox's folder and its header: made, found, checked, removed; who takes part in it, who of
//! them is dead, and what is done about it.
//!
//! A participant is a handle. It has a place in the table, and a lock on one byte of the header file
//! which dies with it. It is dead when that lock is free, or when its process is gone (a forked child
//! may keep the lock of its dead parent). Whoever changes what a place is holds that place's *door*,
//! another byte: so two never bury, or take over, the same one. Sources: fcntl(2), rename(2).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use poste_sys::atomic::{AtomicU64, Ordering};
use poste_sys::lock::{is_byte_locked, try_lock_byte, unlock_byte};
use poste_sys::mapping::{Access, Mapping, reserve};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::lane_file::{self, LaneFile};
use super::{aside, bell};
use crate::address::Address;
use crate::capabilities::Peers;
use crate::error::{Error, Kind};
use crate::limits::{MAILBOX_CAPACITY_MAX, MAILBOX_MESSAGE_MAX, MAILBOX_TRIES};
use crate::name::owner::Owner;
use crate::name::runtime;
use crate::options::{Create, Options};
use crate::ring::layout::{
    HEADER_SIZE, MAGIC, PARTICIPANTS, Part, VERSION, header, participant, participant_at,
};
use crate::ring::wake::{self, Set};

/// The header's file in a mailbox's folder.
pub(super) const HEADER: &str = "header";

/// The part of the runtime directory that mailboxes lie in.
pub(super) const PART: &str = "shm";

/// Where the bytes that are doors begin.
const DOORS: u32 = 4096;

/// A mailbox, opened once: each handle has its own, since its locks belong to this opening.
#[derive(Debug)]
pub(crate) struct Mailbox {
    folder: OwnedFd,
    header: Mapping,
    /// The life of the process that opened it: a forked child's copy is not to be used.
    life: poste_sys::fork::Life,
}

/// What was settled when the mailbox was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// The largest message, in bytes.
    pub(crate) message_size: usize,
    /// How many messages a lane holds; `None`: as many as it has descriptors for.
    pub(crate) capacity: Option<u64>,
    /// The deliveries after which a message is set aside; `None`: it never is.
    pub(crate) deliveries: Option<u8>,
}

/// What shows that a participant is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// Its lock is free: one system call.
    Lock,
    /// Its lock is free, or its process is gone: /proc is read.
    Process,
}

/// Where a mailbox's folder is.
pub(super) fn path(address: &Address) -> Result<PathBuf, Error> {
    Ok(runtime::part(PART)?.join(name(address)?))
}

/// The address as it is listed.
pub(crate) fn place(address: &Address) -> Result<Address, Error> {
    name(address).map(|_| address.bare())
}

fn name(address: &Address) -> Result<&str, Error> {
    let fits = |name: &&str| {
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        (1..=200).contains(&name.len()) && !name.starts_with(['.', '-']) && name.bytes().all(fine)
    };
    address.text().filter(fits).ok_or_else(|| {
        Error::new(
            Kind::Invalid,
            "a mailbox's name is 1 to 200 letters, digits, dots, hyphens and underscores, \
             and begins with neither dot nor hyphen",
        )
        .with_hint("as in shm:jobs")
    })
}

/// Makes a mailbox, which must not be there yet.
pub(crate) fn create(address: &Address, options: &Options) -> Result<(), Error> {
    if options.mode_or_default() & 0o077 != 0 {
        return Err(Error::new(Kind::NotSupported, "a mailbox is for one user")
            .with_hint("leave the mode out, or give 0600; between users there are sockets"));
    }
    let terms = Terms::of(options)?;
    let path = path(address)?;
    let there = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let half_made = path.with_file_name(format!(".{there}.{:016x}", crate::sequence::draw()));
    let system = |errno: Errno| no_room(errno);
    rustix::fs::mkdir(&half_made, Mode::RWXU).map_err(system)?;
    let made = write_header(&half_made, terms).and_then(|()| {
        rustix::fs::renameat_with(CWD, &half_made, CWD, &path, RenameFlags::NOREPLACE)
            .map_err(system)
    });
    if made.is_err() {
        // What can't be taken away now is left for `gc`: its name says that it is half made.
        let _ = rustix::fs::unlink(half_made.join(HEADER));
        let _ = rustix::fs::rmdir(&half_made);
    }
    made
}

fn write_header(folder: &std::path::Path, terms: Terms) -> Result<(), Error> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let file = rustix::fs::open(folder.join(HEADER), flags, mode).map_err(no_room)?;
    reserve(file.as_fd(), HEADER_SIZE).map_err(no_room)?;
    let map = Mapping::new(file, 0, HEADER_SIZE, Access::Write).map_err(no_room)?;
    let set = |at, value: u64| map.word(at).store(value, Ordering::Relaxed);
    set(header::VERSION, VERSION);
    set(header::PAGE, rustix::param::page_size() as u64);
    set(header::INSTANCE, crate::sequence::draw());
    set(header::INSTANCE + 8, crate::sequence::draw());
    let boot = boot_words(&myself().boot);
    set(header::BOOT, boot[0]);
    set(header::BOOT + 8, boot[1]);
    set(header::MESSAGE_SIZE, terms.message_size as u64);
    set(header::CAPACITY, terms.capacity.unwrap_or(0));
    set(header::DELIVERIES, terms.deliveries.map_or(0, u64::from));
    set(header::MAGIC, MAGIC);
    Ok(())
}

/// Takes a mailbox away: who has it open is told so.
pub(crate) fn remove(address: &Address) -> Result<(), Error> {
    let path = path(address)?;
    match Mailbox::open_folder(&path) {
        // Marked before it loses its name: who is killed between leaves a mailbox that says so.
        Ok(mailbox) => {
            mailbox.header.word(header::LIFE).store(1, Ordering::Release);
            mailbox.changed();
            mailbox.wake_all();
        }
        Err(error) if error.is(&Kind::Corrupt) || error.is(&Kind::Mismatch) => {}
        Err(error) if error.is(&Kind::Removed) => {}
        Err(error) => return Err(error),
    }
    sweep(&path)
}

/// Takes a folder and its files away; it loses its name first.
fn sweep(path: &std::path::Path) -> Result<(), Error> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let gone = path.with_file_name(format!(".{name}.{:016x}", crate::sequence::draw()));
    let system = |errno: Errno| Error::system(errno, "");
    rustix::fs::rename(path, &gone).map_err(system)?;
    std::fs::remove_dir_all(&gone).map_err(|error| {
        Error::system(Errno::from_io_error(&error).unwrap_or(Errno::IO), "its files")
    })
}

impl Terms {
    fn of(options: &Options) -> Result<Terms, Error> {
        let limit = |name, value: usize, most: usize| {
            if value <= most {
                return Ok(value);
            }
            let raise_with = format!("ask for {most} or less");
            Err(Error::new(Kind::Limit { name, value: most as u64, raise_with }, ""))
        };
        let capacity = options.capacity;
        if capacity == Some(0) || options.message_size == Some(0) {
            return Err(Error::new(Kind::Invalid, "a mailbox needs room for a message")
                .with_hint("give a capacity and a message size of 1 or more"));
        }
        Ok(Terms {
            message_size: limit(
                "message-size of a mailbox",
                options.message_size_or_default(),
                MAILBOX_MESSAGE_MAX,
            )?,
            capacity: match capacity {
                Some(messages) => {
                    Some(limit("capacity of a mailbox", messages, MAILBOX_CAPACITY_MAX)? as u64)
                }
                None => None,
            },
            deliveries: options.deliveries,
        })
    }
}

impl Mailbox {
    /// Opens a mailbox, and makes it as the options say.
    pub(crate) fn open(address: &Address, options: &Options) -> Result<Mailbox, Error> {
        let path = path(address)?;
        if options.create == Create::New {
            create(address, options)?;
        }
        for _ in 0..MAILBOX_TRIES {
            match Mailbox::open_folder(&path) {
                Ok(mailbox) => {
                    mailbox.compare(options)?;
                    return Ok(mailbox);
                }
                // Its remover was killed: what is left to do is done here.
                Err(error) if error.is(&Kind::Removed) => {
                    // Another may have been faster.
                    let _ = sweep(&path);
                }
                Err(error) if error.is(&Kind::NotFound) && options.create != Create::No => {
                    match create(address, options) {
                        Err(error) if !matches!(error.kind(), Kind::NameInUse { .. }) => {
                            return Err(error);
                        }
                        _ => {}
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(Kind::Failed, "it is made and removed again and again"))
    }

    /// Opens the mailbox in a folder, after a look at whose it is and what it says.
    fn open_folder(path: &std::path::Path) -> Result<Mailbox, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let folder = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::NOENT => Error::system(errno, "no such mailbox")
                .with_hint(format!("create it: poste create shm:{name}, or add --create")),
            _ => Error::system(errno, "the mailbox's folder"),
        })?;
        Mailbox::in_folder(folder).map_err(|error| match error.kind() {
            Kind::Corrupt | Kind::Mismatch => {
                error.with_hint(format!("remove it and make it anew: poste remove shm:{name}"))
            }
            _ => error,
        })
    }

    fn in_folder(folder: OwnedFd) -> Result<Mailbox, Error> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file =
            rustix::fs::openat(&folder, HEADER, flags, Mode::empty()).map_err(
                |errno| match errno {
                    Errno::NOENT => corrupt("its folder holds no header"),
                    _ => Error::system(errno, "the mailbox's header"),
                },
            )?;
        let stat = rustix::fs::fstat(&file).map_err(|errno| Error::system(errno, ""))?;
        if stat.st_uid != rustix::process::geteuid().as_raw() {
            return Err(Error::new(Kind::Permission, "the mailbox belongs to another user"));
        }
        if usize::try_from(stat.st_size).unwrap_or(0) < HEADER_SIZE {
            return Err(corrupt("its header is too short"));
        }
        let header = Mapping::new(file, 0, HEADER_SIZE, Access::Write)
            .map_err(|errno| Error::system(errno, ""))?;
        let mailbox = Mailbox { folder, header, life: poste_sys::fork::Life::this() };
        mailbox.check()?;
        Ok(mailbox)
    }

    /// How many files of its folder have names that begin so.
    pub(crate) fn files(&self, beginning: &str) -> usize {
        let entries = rustix::fs::Dir::read_from(&self.folder).into_iter().flatten().flatten();
        entries.filter(|file| file.file_name().to_bytes().starts_with(beginning.as_bytes())).count()
    }

    /// The same mailbox opened once more, with locks of its own; also when it has lost its name.
    pub(crate) fn reopen(&self) -> Result<Mailbox, Error> {
        let folder = rustix::io::fcntl_dupfd_cloexec(&self.folder, 3)
            .map_err(|errno| Error::system(errno, ""))?;
        Mailbox::in_folder(folder)
    }

    /// Whether this program can use what the header says.
    fn check(&self) -> Result<(), Error> {
        let says = |at| self.header.word(at).load(Ordering::Relaxed);
        if says(header::MAGIC) != MAGIC {
            return Err(corrupt("its header is no mailbox's"));
        }
        let mismatch = |detail: &'static str| {
            Error::new(Kind::Mismatch, detail)
                .with_hint("remove it and make it anew: poste remove shm:NAME")
        };
        if says(header::VERSION) != VERSION {
            return Err(mismatch("another version made it, or a machine of another byte order"));
        }
        if says(header::PAGE) != rustix::param::page_size() as u64 {
            return Err(mismatch("it was made with another page size"));
        }
        let boot = boot_words(&myself().boot);
        let made = [says(header::BOOT), says(header::BOOT + 8)];
        if made != boot && made != [0, 0] && boot != [0, 0] {
            return Err(mismatch("it is from before the last start of the machine"));
        }
        if self.is_removed() {
            return Err(Error::new(Kind::Removed, ""));
        }
        let terms = self.terms();
        let fits = terms.message_size <= MAILBOX_MESSAGE_MAX
            && terms.capacity.is_none_or(|messages| messages <= MAILBOX_CAPACITY_MAX as u64);
        if fits { Ok(()) } else { Err(corrupt("its sizes are beyond every limit")) }
    }

    /// Whether it is what the options ask for.
    fn compare(&self, options: &Options) -> Result<(), Error> {
        let (is, asked) = (self.terms(), Terms::of(options)?);
        let differs = |what: &str, is: String| {
            Error::new(Kind::Mismatch, format!("its {what} is {is}"))
                .with_hint("leave that out, or remove the mailbox and make it anew")
        };
        if options.message_size.is_some() && asked.message_size != is.message_size {
            return Err(differs("message size", is.message_size.to_string()));
        }
        if options.capacity.is_some() && asked.capacity != is.capacity {
            let capacity = is.capacity.map_or("not limited".to_owned(), |n| n.to_string());
            return Err(differs("capacity", capacity));
        }
        if options.deliveries.is_some() && asked.deliveries != is.deliveries {
            let deliveries = is.deliveries.map_or("not limited".to_owned(), |n| n.to_string());
            return Err(differs("number of deliveries", deliveries));
        }
        Ok(())
    }

    pub(crate) fn terms(&self) -> Terms {
        let says = |at| self.header.word(at).load(Ordering::Relaxed);
        let some = |value: u64| (value != 0).then_some(value);
        Terms {
            message_size: usize::try_from(says(header::MESSAGE_SIZE)).unwrap_or(usize::MAX),
            capacity: some(says(header::CAPACITY)),
            deliveries: some(says(header::DELIVERIES)).map(|n| u8::try_from(n).unwrap_or(u8::MAX)),
        }
    }

    pub(crate) fn instance(&self) -> [u64; 2] {
        let says = |at| self.header.word(at).load(Ordering::Relaxed);
        [says(header::INSTANCE), says(header::INSTANCE + 8)]
    }

    #[inline]
    pub(crate) fn header(&self) -> &Mapping {
        &self.header
    }

    pub(crate) fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// Refuses to work in a forked child, whose copy of the handle is its parent's.
    #[inline]
    pub(crate) fn check_life(&self) -> Result<(), Error> {
        if self.is_ours() {
            return Ok(());
        }
        Err(Error::new(Kind::NotSupported, "this end belongs to the process that forked this one")
            .with_hint("open the mailbox again in the child"))
    }

    /// Whether this process opened it, and not one that it was forked from.
    #[inline]
    pub(crate) fn is_ours(&self) -> bool {
        self.life.lasts()
    }

    #[inline]
    pub(crate) fn is_removed(&self) -> bool {
        self.header.word(header::LIFE).load(Ordering::Acquire) != 0
    }

    /// Counts the changes of the table. Acquire pairs with the release of [`Mailbox::changed`].
    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        self.header.word(header::EPOCH).load(Ordering::Acquire)
    }

    /// Says that the table has changed; a full barrier, who wakes others looks for them after it.
    fn changed(&self) {
        self.header.word(header::EPOCH).fetch_add(1, Ordering::SeqCst);
        poste_sys::atomic::fence(Ordering::SeqCst);
    }

    pub(crate) fn field(&self, place: usize, field: usize) -> &AtomicU64 {
        self.header.word(participant_at(place) + field)
    }

    /// What a place of the table is. Acquire pairs with the release of who made it so.
    pub(crate) fn part(&self, place: usize) -> Part {
        Part::of(self.field(place, participant::STATE).load(Ordering::Acquire))
    }

    /// The places of the table that are in use.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (usize, Part)> {
        (0..PARTICIPANTS)
            .map(|place| (place, self.part(place)))
            .filter(|(_, part)| !matches!(part, Part::Free | Part::Unknown))
    }

    /// How many senders or receivers there are, or were.
    pub(crate) fn peers(&self, part: Part) -> Peers {
        let count = self.parts().filter(|(_, other)| *other == part).count();
        match (count, self.ever(part).load(Ordering::Relaxed)) {
            (0, 0) => Peers::NobodyYet,
            (0, _) => Peers::AllGone,
            (count, _) => Peers::Present(count),
        }
    }

    /// How many of them there were ever.
    fn ever(&self, part: Part) -> &AtomicU64 {
        let at = if part == Part::Sender { header::SENDERS } else { header::RECEIVERS };
        self.header.word(at)
    }

    /// Who has a place, as it said itself.
    pub(crate) fn owner(&self, place: usize) -> Owner {
        let says = |field| self.field(place, field).load(Ordering::Relaxed);
        Owner {
            pid: u32::try_from(says(participant::PROCESS)).unwrap_or(0),
            start: says(participant::START),
            boot: String::new(),
            namespace: says(participant::NAMESPACE),
        }
    }

    /// Makes a place another part, and lets everybody know. To be done behind its door.
    fn become_part(&self, place: usize, part: Part) {
        let state = self.field(place, participant::STATE);
        state.store(part.after(state.load(Ordering::Relaxed)), Ordering::Release);
        self.changed();
    }

    /// Behind the door of a place; it closes when the value is dropped, or its process is.
    fn door(&self, place: usize) -> Option<Door<'_>> {
        try_lock_byte(self.header.file(), DOORS + place as u32).ok()?;
        Some(Door { mailbox: self, place })
    }

    /// Takes a place as a receiver.
    pub(crate) fn attach_receiver(&self) -> Result<usize, Error> {
        self.recover(None, Proof::Lock);
        self.attach(Part::Free, |place| self.take(place, Part::Receiver)).map(|(place, ())| place)
    }

    /// Takes a place as a sender, with its lane: an orphan's first, so that a row of short-lived
    /// senders has one lane between them.
    pub(crate) fn attach_sender(&self) -> Result<(usize, LaneFile), Error> {
        self.recover(None, Proof::Lock);
        let adopted = self.attach(Part::Orphan, |place| {
            let lane = lane_file::adopt(self, place)?;
            self.take(place, Part::Sender)?;
            Ok(lane)
        });
        match adopted {
            Err(error) if matches!(error.kind(), Kind::Limit { .. }) => {}
            done => return done,
        }
        self.attach(Part::Free, |place| {
            let lane = lane_file::make(self, place)?;
            self.take(place, Part::Sender)?;
            Ok(lane)
        })
    }

    /// Tries the places that are `from` one after the other, each behind its door and with its lock.
    fn attach<T>(
        &self,
        from: Part,
        take: impl Fn(usize) -> Result<T, Error>,
    ) -> Result<(usize, T), Error> {
        let mut broken = None;
        for place in 0..PARTICIPANTS {
            if self.part(place) != from {
                continue;
            }
            let Some(_door) = self.door(place) else { continue };
            // A forked child may still hold the lock of one that is long gone.
            let free = || try_lock_byte(self.header.file(), place as u32).is_ok();
            if self.part(place) != from || !free() {
                continue;
            }
            match take(place) {
                Ok(taken) => {
                    self.changed();
                    self.wake_all();
                    return Ok((place, taken));
                }
                Err(error) => {
                    self.unlock(place);
                    if !error.is(&Kind::Corrupt) {
                        return Err(error);
                    }
                    // A lane that can't be gone on with is left as it is.
                    broken = Some(error);
                }
            }
        }
        let raise_with = "close some of its senders and receivers".to_owned();
        let full = Kind::Limit {
            name: "senders and receivers of a mailbox",
            value: PARTICIPANTS as u64,
            raise_with,
        };
        Err(broken.unwrap_or_else(|| Error::new(full.clone(), "")).as_kind(full))
    }

    fn take(&self, place: usize, part: Part) -> Result<(), Error> {
        let me = myself();
        let set = |field, value| self.field(place, field).store(value, Ordering::Relaxed);
        set(participant::PROCESS, u64::from(me.pid));
        set(participant::START, me.start);
        set(participant::NAMESPACE, me.namespace);
        set(participant::PROCESSOR, 0);
        set(participant::BELL, 0);
        for of in [Set::Asleep, Set::Armed] {
            of.leave(&self.header, place);
        }
        self.ever(part).fetch_add(1, Ordering::Relaxed);
        self.become_part(place, part);
        Ok(())
    }

    fn unlock(&self, place: usize) {
        // A lock that can't be given back is given back when the file is closed, soon.
        let _ = unlock_byte(self.header.file(), place as u32);
    }

    /// Gives a receiver's place back, with what it has not ended.
    pub(crate) fn detach_receiver(&self, place: usize) {
        let _door = self.wait_for_door(place);
        self.bury_receiver(place);
        self.become_part(place, Part::Free);
        self.unlock(place);
        self.wake_all();
    }

    /// Gives a sender's place back; its lane stays while something lies there.
    pub(crate) fn detach_sender(&self, place: usize, drained: bool) {
        let _door = self.wait_for_door(place);
        self.field(place, participant::BELL).store(0, Ordering::Relaxed);
        bell::remove(self, place);
        if drained {
            self.become_part(place, Part::Free);
            lane_file::unlink(self, place);
        } else {
            self.become_part(place, Part::Orphan);
        }
        self.unlock(place);
    }

    /// A door that another holds opens soon: whoever has it does a few steps, or dies.
    fn wait_for_door(&self, place: usize) -> Option<Door<'_>> {
        for _ in 0..1000 {
            if let Some(door) = self.door(place) {
                return Some(door);
            }
            std::thread::sleep(crate::limits::PAUSE_MIN);
        }
        None
    }

    /// Frees the lane of a sender that is gone, if all in it is done.
    pub(crate) fn free_orphan(&self, file: &LaneFile) {
        let place = file.place;
        let Some(_door) = self.door(place) else { return };
        // The place may have another lane by now.
        let is_it = lane_file::number_of(self, place) == file.number;
        if is_it && self.part(place) == Part::Orphan && file.lane.is_drained() {
            self.become_part(place, Part::Free);
            lane_file::unlink(self, place);
        }
    }

    /// Whether the participant in a place is dead. One's own lock never shows: not to be asked of
    /// oneself.
    pub(crate) fn is_dead(&self, place: usize, proof: Proof) -> bool {
        match is_byte_locked(self.header.file(), place as u32) {
            Ok(false) => true,
            _ => proof == Proof::Process && self.owner(place).is_gone(),
        }
    }

    /// Buries the dead: what a receiver had taken is ready again, a sender's lane is an orphan. Says
    /// how many there were. `myself` is the caller's own place.
    pub(crate) fn recover(&self, myself: Option<usize>, proof: Proof) -> usize {
        let mut count = 0;
        for (place, part) in self.parts() {
            if part == Part::Orphan || Some(place) == myself || !self.is_dead(place, proof) {
                continue;
            }
            let Some(_door) = self.door(place) else { continue };
            if self.part(place) != part || !self.is_dead(place, proof) {
                continue;
            }
            if part == Part::Receiver {
                self.bury_receiver(place);
                self.become_part(place, Part::Free);
            } else {
                bell::remove(self, place);
                self.become_part(place, Part::Orphan);
            }
            count += 1;
        }
        if count > 0 {
            self.wake_all();
        }
        count
    }

    /// Undoes what a receiver that is gone has begun.
    fn bury_receiver(&self, place: usize) {
        for of in [Set::Asleep, Set::Armed] {
            of.leave(&self.header, place);
        }
        for (lane_place, part) in self.parts() {
            if !matches!(part, Part::Sender | Part::Orphan) {
                continue;
            }
            // A lane that can't be opened is one that nobody could have taken a message from.
            if let Ok(lane) = lane_file::open(self, lane_place) {
                aside::take_back(self, &lane, place as u16);
            }
        }
        bell::remove(self, place);
    }

    /// Wakes one receiver that sleeps, and rings everybody who asked for it: a message is there. To
    /// be called after a full barrier.
    #[inline]
    pub(crate) fn notify(&self) {
        if !wake::nobody(&self.header) {
            self.notify_somebody();
        }
    }

    #[cold]
    fn notify_somebody(&self) {
        if let Some(place) = Set::Asleep.choose(&self.header) {
            wake::alert(&self.header, place);
        }
        while let Some(place) = Set::Armed.choose(&self.header) {
            bell::ring(self, place);
        }
    }

    /// Wakes the sender of a lane, which waits for room.
    #[cold]
    pub(crate) fn notify_sender(&self, place: usize) {
        wake::alert(&self.header, place);
        if self.field(place, participant::BELL).load(Ordering::Relaxed) != 0 {
            bell::ring(self, place);
        }
    }

    /// Makes everybody look again.
    pub(crate) fn wake_all(&self) {
        for (place, part) in self.parts() {
            if part != Part::Orphan {
                Set::Asleep.leave(&self.header, place);
                wake::alert(&self.header, place);
                if Set::Armed.leave(&self.header, place)
                    || self.field(place, participant::BELL).load(Ordering::Relaxed) != 0
                {
                    bell::ring(self, place);
                }
            }
        }
    }
}

/// A place's door, held.
struct Door<'a> {
    mailbox: &'a Mailbox,
    place: usize,
}

impl Drop for Door<'_> {
    fn drop(&mut self) {
        // It opens at the latest when the file is closed.
        let _ = unlock_byte(self.mailbox.header.file(), DOORS + self.place as u32);
    }
}

/// This process, looked up once in its life.
pub(crate) fn myself() -> Owner {
    static MYSELF: Mutex<Option<(u64, Owner)>> = Mutex::new(None);
    let life = poste_sys::fork::life();
    let mut known = MYSELF.lock().unwrap_or_else(PoisonError::into_inner);
    match &*known {
        Some((of, owner)) if *of == life => owner.clone(),
        _ => known.insert((life, Owner::myself())).1.clone(),
    }
}

/// A boot's number out of its text; zeros where it isn't known.
fn boot_words(boot: &str) -> [u64; 2] {
    let digits: String = boot.chars().filter(|letter| *letter != '-').collect();
    let word = |range: std::ops::Range<usize>| {
        digits.get(range).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0)
    };
    [word(0..16), word(16..32)]
}

fn corrupt(detail: &'static str) -> Error {
    Error::new(Kind::Corrupt, detail).with_hint("remove it and make it anew: poste remove shm:NAME")
}

/// An error of making something: memory that ran out is named.
pub(crate) fn no_room(errno: Errno) -> Error {
    match errno {
        Errno::NOSPC => Error::system(errno, "the memory for it isn't there")
            .with_hint("free some of the file system that holds it: df /dev/shm; or set POSTE_DIR"),
        _ => Error::system(errno, ""),
    }
}

/// Unlinks a file of a mailbox's folder; one that isn't there is fine.
pub(crate) fn unlink(mailbox: &Mailbox, name: &str) {
    // What can't be taken away goes with the folder.
    let _ = rustix::fs::unlinkat(mailbox.folder(), name, AtFlags::empty());
}
