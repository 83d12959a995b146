//! The registry: one small file for each object that poste made and that outlives its maker.
//!
//! It lets `list` say how old an object is, find a FIFO that nobody has open, and name queues where
//! no file system shows them. A record is written under a name of its own (a draft) and then put in
//! place at once. What is made in steps has its draft before the first step, which names the
//! half-made object: so what a killed maker leaves can be found. Sockets have their claim instead.
//!
//! The registry is a help, not a condition: an object that can't be recorded is made all the same,
//! and is then like an object of another program.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::claim::{self, Object};
use super::owner::Owner;
use super::{descriptors, runtime};
use crate::address::Address;

/// The part of the runtime directory that holds the records.
const OBJECTS: &str = "objects";

/// What the name of a draft begins with; records begin with a number.
const DRAFT: &str = ".draft-";

/// The largest record that is read: an address, a path, and a few numbers.
const RECORD_MAX: usize = 64 << 10;

/// What is known of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Who made it.
    pub(crate) owner: Owner,
    /// Where it is.
    pub(crate) address: Address,
    /// When it was made, in seconds since 1970.
    pub(crate) made: u64,
    /// The namespace it belongs to: of queues, the IPC namespace; of files, 0.
    pub(crate) space: u64,
    /// Which object it is: device and inode of a file, namespace and number of a queue.
    pub(crate) object: Option<Object>,
    /// When that was made, in nanoseconds, since its number may be used again; 0: not known.
    pub(crate) born: i128,
    /// Where it is made before it gets its name.
    pub(crate) half: Option<PathBuf>,
}

/// A record and its file.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The file.
    pub(crate) path: PathBuf,
    /// Which file that was, for whoever takes it away.
    pub(crate) file: Object,
    /// What it says; nothing where its writer died over it.
    pub(crate) record: Option<Record>,
    /// Who is making the object; nothing once it is made.
    pub(crate) maker: Option<Owner>,
}

/// The record of an object that is being made; goes with this value unless it is put in place.
#[derive(Debug)]
pub(crate) struct Draft {
    path: PathBuf,
    place: PathBuf,
    record: Record,
    is_placed: bool,
    pid: u32,
}

impl Draft {
    /// Begins a record, before the object is made; nothing where the registry can't be written.
    pub(crate) fn begin(key: &str, address: &Address, half: Option<&Path>) -> Option<Draft> {
        let folder = runtime::part(OBJECTS).ok()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let record = Record {
            owner: Owner::myself(),
            address: address.bare(),
            made: now.as_secs(),
            space: if half.is_some() { 0 } else { space() },
            object: None,
            born: 0,
            half: half.map(Path::to_owned),
        };
        let path = folder.join(draft_name(&record.owner));
        let draft = Draft {
            path,
            place: folder.join(claim::file_name(key)),
            record,
            is_placed: false,
            pid: std::process::id(),
        };
        draft.write().ok().map(|()| draft)
    }

    /// Notes which object it is.
    pub(crate) fn note(&mut self, object: Object, born: i128) {
        (self.record.object, self.record.born) = (Some(object), born);
        // Without it the record still says where, and by whom.
        let _ = self.write();
    }

    /// Puts the record in place: the object is made.
    pub(crate) fn place(mut self) {
        self.record.half = None;
        // A record that can't be placed is no reason to undo what was made.
        let _ = self.write();
        self.is_placed = rustix::fs::rename(&self.path, &self.place).is_ok();
    }

    fn write(&self) -> Result<(), Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(CWD, &self.path, flags, Mode::RUSR | Mode::WUSR)?;
        let text = self.record.to_text();
        // The new text lies over the old one before that is cut: there is always a whole record.
        let written = rustix::io::pwrite(&file, text.as_bytes(), 0)?;
        if written < text.len() {
            return Err(Errno::NOSPC);
        }
        rustix::fs::ftruncate(&file, text.len() as u64)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_placed && self.pid == std::process::id() {
            // What stays is a draft, which gc finds.
            let _ = rustix::fs::unlink(&self.path);
        }
    }
}

/// Records a queue that was just made.
pub(crate) fn record(key: &str, address: &Address, object: Option<Object>) {
    if let Some(mut draft) = Draft::begin(key, address, None) {
        draft.record.object = object;
        draft.place();
    }
}

/// The object of a key is gone.
pub(crate) fn forget(key: &str) {
    if let Ok(Some(folder)) = runtime::existing_part(OBJECTS) {
        // It may never have been recorded.
        let _ = rustix::fs::unlink(folder.join(claim::file_name(key)));
    }
}

/// The key of a queue, which is the same word in every namespace.
#[must_use]
pub(crate) fn queue_key(address: &Address) -> String {
    format!("{}:{}@{}", address.scheme(), address.rest().escape_ascii(), space())
}

/// The namespace that this process's queues belong to.
#[must_use]
pub(crate) fn space() -> u64 {
    descriptors::ipc_namespace(std::process::id()).unwrap_or(0)
}

/// Everything in the registry, in the order of the files' names.
#[must_use]
pub(crate) fn all() -> Vec<Entry> {
    let Ok(Some(folder)) = runtime::existing_part(OBJECTS) else { return Vec::new() };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut all: Vec<_> = entries.filter_map(|entry| read(&entry.path())).collect();
    all.sort_by(|one, other| one.path.cmp(&other.path));
    all
}

/// The name of a draft says whose it is: its writer may die before it has written a word.
fn draft_name(owner: &Owner) -> String {
    let owner = owner.to_string().replace(' ', "_");
    format!("{DRAFT}{owner}.{:016x}", crate::sequence::draw())
}

fn maker(name: &str) -> Option<Owner> {
    let (owner, _) = name.strip_prefix(DRAFT)?.rsplit_once('.')?;
    Owner::parse(&owner.replace('_', " "))
}

fn read(path: &Path) -> Option<Entry> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = rustix::fs::openat(CWD, path, flags, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    let mut bytes = vec![0; RECORD_MAX];
    let count = rustix::io::pread(&file, &mut bytes, 0).ok()?;
    let text = std::str::from_utf8(&bytes[..count]).ok();
    Some(Entry {
        path: path.to_owned(),
        file: Object { device: stat.st_dev, inode: stat.st_ino },
        record: text.and_then(Record::parse),
        maker: maker(path.file_name()?.to_str()?),
    })
}

impl Record {
    fn to_text(&self) -> String {
        let mut text = format!("poste 1\nowner {}\naddress {}\n", self.owner, self.address);
        let _ = writeln!(text, "made {}\nspace {}", self.made, self.space);
        if let Some(object) = self.object {
            let _ = writeln!(text, "object {} {}\nborn {}", object.device, object.inode, self.born);
        }
        if let Some(half) = &self.half {
            let _ = writeln!(text, "half {}", claim::path_to_text(half));
        }
        // The last line says that it is whole.
        text.push_str("end\n");
        text
    }

    fn parse(text: &str) -> Option<Record> {
        let (text, _) = text.split_once("\nend\n")?;
        let mut lines = text.lines();
        if lines.next() != Some("poste 1") {
            return None;
        }
        let (mut owner, mut address, mut made) = (None, None, None);
        let (mut space, mut object, mut born, mut half) = (0, None, 0, None);
        for line in lines {
            match line.split_once(' ') {
                Some(("owner", value)) => owner = Some(Owner::parse(value)?),
                Some(("address", value)) => address = Some(Address::parse(value).ok()?),
                Some(("made", value)) => made = Some(value.parse().ok()?),
                Some(("space", value)) => space = value.parse().ok()?,
                Some(("object", value)) => object = Some(Object::parse(value)?),
                Some(("born", value)) => born = value.parse().ok()?,
                Some(("half", value)) => half = Some(claim::path_from_text(value)?),
                _ => {}
            }
        }
        Some(Record { owner: owner?, address: address?, made: made?, space, object, born, half })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_draft_says_whose_it_is() {
        let owner = Owner::myself();
        assert_eq!(maker(&draft_name(&owner)), Some(owner));
        assert_eq!(maker("0123456789abcdef-path__a.b"), None);
    }

    #[test]
    fn a_record_is_read_back_only_whole() {
        let record = Record {
            owner: Owner::myself(),
            address: Address::new("fifo", "/a b\n").unwrap(),
            made: 5,
            space: 7,
            object: Some(Object { device: 1, inode: 2 }),
            born: -3,
            half: Some(PathBuf::from("/a b/.poste-1")),
        };
        let text = record.to_text();
        assert_eq!(Record::parse(&text), Some(record.clone()));
        for end in 0..text.len() {
            assert_eq!(Record::parse(&text[..end]), None, "{end}");
        }
        // What a longer one left behind the end means nothing.
        assert_eq!(Record::parse(&format!("{text}made 9\nend\n")), Some(record));
    }
}
