//! A mailbox, opened: its header is mapped and checked, its terms are known. Where it lies is
//! folder.rs' business, who takes part participants.rs'.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use poste_sys::atomic::Ordering;
use poste_sys::mapping::{Access, Mapping};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::bell::Bells;
use super::folder::{self, HEADER};
use super::participants::{Doors, myself};
use crate::address::Address;
use crate::error::{Error, Kind};
use crate::limits::{MAILBOX_CAPACITY_MAX, MAILBOX_MESSAGE_MAX, MAILBOX_TRIES};
use crate::options::{Create, Options};
use crate::ring::layout::{HEADER_SIZE, MAGIC, REMOVED, VERSION, header};

/// A mailbox, opened once: each handle has its own, since its locks belong to this opening.
#[derive(Debug)]
pub(crate) struct Mailbox {
    folder: OwnedFd,
    header: Mapping,
    /// Its terms and its instance as they were when it was opened, and checked.
    terms: Terms,
    instance: [u64; 2],
    doors: Doors,
    /// The life of the process that opened it: a forked child's copy is not to be used.
    life: poste_sys::fork::Life,
    /// The bells that it has rung.
    pub(super) bells: Bells,
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
    /// The bodies in its lanes lie on huge pages.
    pub(crate) huge_pages: bool,
}

impl Terms {
    /// As a header says.
    fn read(header: &Mapping) -> Terms {
        let says = |at| header.word(at).load(Ordering::Relaxed);
        let some = |value: u64| (value != 0).then_some(value);
        Terms {
            message_size: usize::try_from(says(header::MESSAGE_SIZE)).unwrap_or(usize::MAX),
            capacity: some(says(header::CAPACITY)),
            deliveries: some(says(header::DELIVERIES)).map(|n| u8::try_from(n).unwrap_or(u8::MAX)),
            huge_pages: says(header::HUGE_PAGES) != 0,
        }
    }

    /// As the options ask for.
    pub(super) fn of(options: &Options) -> Result<Terms, Error> {
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
            huge_pages: options.huge_pages,
        })
    }
}

impl Mailbox {
    /// Opens a mailbox, and makes it as the options say.
    pub(crate) fn open(address: &Address, options: &Options) -> Result<Mailbox, Error> {
        if options.create == Create::New {
            folder::create(address, options)?;
        }
        for _ in 0..MAILBOX_TRIES {
            match Mailbox::open_or_finish(address) {
                Ok(Some(mailbox)) => {
                    mailbox.compare(options)?;
                    return Ok(mailbox);
                }
                Ok(None) => {}
                Err(error) if error.is(&Kind::NotFound) && options.create != Create::No => {
                    match folder::create(address, options) {
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

    /// Opens what stands there; nothing where its remover was killed, whose work is done here.
    fn open_or_finish(address: &Address) -> Result<Option<Mailbox>, Error> {
        let named = |error| folder::named(error, address);
        let path = folder::path(address).map_err(named)?;
        let it = folder::open(&path).map_err(folder::not_opened).map_err(named)?;
        let same = rustix::io::fcntl_dupfd_cloexec(&it, 3);
        match same.map_err(|errno| Error::system(errno, "")).and_then(Mailbox::in_folder) {
            Err(error) if error.is(&Kind::Removed) => {
                // Another may have been faster.
                let _ = folder::sweep(&path, &it);
                Ok(None)
            }
            done => done.map(Some).map_err(named),
        }
    }

    /// Opens the mailbox in a folder, after a look at whose it is and what it says.
    pub(super) fn in_folder(folder: OwnedFd) -> Result<Mailbox, Error> {
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
        let terms = Terms::read(&header);
        let says = |at| header.word(at).load(Ordering::Relaxed);
        let instance = [says(header::INSTANCE), says(header::INSTANCE + 8)];
        let life = poste_sys::fork::Life::this();
        let (doors, bells) = (Doors::default(), Bells::default());
        let mailbox = Mailbox { folder, header, terms, instance, doors, life, bells };
        mailbox.check()?;
        Ok(mailbox)
    }

    /// How many files of its folder have names that begin so.
    pub(crate) fn files(&self, beginning: &str) -> usize {
        let entries = rustix::fs::Dir::read_from(&self.folder).into_iter().flatten().flatten();
        entries.filter(|file| file.file_name().to_bytes().starts_with(beginning.as_bytes())).count()
    }

    /// Whether its files are still there, whatever its header says.
    pub(super) fn check_files(&self) -> Result<(), Error> {
        match rustix::fs::fstat(self.header.file()) {
            Ok(stat) if stat.st_nlink == 0 => Err(Error::new(Kind::Removed, "")),
            _ => Ok(()),
        }
    }

    /// The same mailbox opened once more, with locks of its own; also when it has lost its name.
    pub(crate) fn reopen(&self) -> Result<Mailbox, Error> {
        self.check_files()?;
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
        if asked.huge_pages && !is.huge_pages {
            return Err(differs("memory", "not on huge pages".to_owned()));
        }
        Ok(())
    }

    /// What was settled when it was made.
    pub(crate) fn terms(&self) -> Terms {
        self.terms
    }

    /// The number that it drew when it was made.
    pub(crate) fn instance(&self) -> [u64; 2] {
        self.instance
    }

    #[inline]
    pub(crate) fn header(&self) -> &Mapping {
        &self.header
    }

    pub(super) fn doors(&self) -> &Doors {
        &self.doors
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

    /// Says to everybody that the mailbox is taken away.
    pub(super) fn mark_removed(&self) {
        self.header.word(header::LIFE).store(REMOVED, Ordering::Release);
        self.changed();
    }

    #[inline]
    pub(crate) fn is_removed(&self) -> bool {
        self.header.word(header::LIFE).load(Ordering::Acquire) == REMOVED
    }

    /// Counts the changes of the table. Acquire pairs with the release of [`Mailbox::changed`].
    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        self.header.word(header::EPOCH).load(Ordering::Acquire)
    }

    /// Says that the table has changed; a full barrier, who wakes others looks for them after it.
    pub(super) fn changed(&self) {
        self.header.word(header::EPOCH).fetch_add(1, Ordering::SeqCst);
        poste_sys::atomic::fence(Ordering::SeqCst);
    }
}

/// A boot's number out of its text; zeros where it isn't known.
pub(super) fn boot_words(boot: &str) -> [u64; 2] {
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
