//! A runtime directory that processes of the sweep have between them: what changed in it since the
//! last look, and a copy of it. The files are mapped, so that a look costs no system call; the tree
//! is listed anew only where a system call may have changed it.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use poste_sys::mapping::{Access, Mapping};
use rustix::fs::{CWD, FileType, Mode};

/// How those directories' names begin; then comes the number of the process.
const NAME: &str = "poste-sweep-";

/// The directories of one trial, in memory; they go with the value.
pub(crate) struct House(PathBuf);

impl House {
    pub(crate) fn new() -> House {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let root = format!("/dev/shm/{NAME}{}-{number}", std::process::id());
        let house = House(PathBuf::from(root));
        for directory in [house.0.clone(), house.live(), house.copy()] {
            DirBuilder::new().mode(0o700).create(directory).expect("/dev/shm takes a directory");
        }
        house
    }

    /// Takes away what a run that was killed itself has left.
    pub(crate) fn sweep() {
        for entry in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let number = name.strip_prefix(NAME).and_then(|rest| rest.split('-').next());
            if number.is_some_and(|number| !Path::new("/proc").join(number).exists()) {
                // Another run may be faster.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Where the processes work.
    pub(crate) fn live(&self) -> PathBuf {
        self.0.join("live")
    }

    /// Where the copies go.
    pub(crate) fn copy(&self) -> PathBuf {
        self.0.join("copy")
    }
}

impl Drop for House {
    fn drop(&mut self) {
        // Only where a process is not dead yet can something be left; the next run takes it away.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a name is.
#[derive(Debug)]
enum Node {
    Folder,
    Fifo,
    /// Mapped, with its bytes as of the last look.
    File {
        map: Option<Mapping>,
        bytes: Vec<u8>,
    },
}

/// A name below the root.
#[derive(Debug)]
struct Entry {
    path: PathBuf,
    /// Device, inode, size.
    identity: (u64, u64, u64),
    node: Node,
}

/// A directory and all below it, as of the last look.
pub(crate) struct Tree {
    root: PathBuf,
    entries: Vec<Entry>,
}

impl Tree {
    pub(crate) fn new(root: PathBuf) -> Tree {
        let mut tree = Tree { root, entries: Vec::new() };
        tree.list();
        tree
    }

    /// Looks at all names, and takes what is new in: whether anything was.
    pub(crate) fn list(&mut self) -> bool {
        let mut found = Vec::new();
        walk(&self.root, Path::new(""), &mut found);
        found.sort();
        let same = found.len() == self.entries.len()
            && found
                .iter()
                .zip(&self.entries)
                .all(|(new, old)| new.0 == old.path && new.1 == old.identity);
        if same {
            return false;
        }
        let mut old = std::mem::take(&mut self.entries);
        for (path, identity) in found {
            let known = old.iter().position(|o| o.path == path && o.identity == identity);
            let entry = match known {
                Some(index) => old.swap_remove(index),
                None => match open(&self.root.join(&path)) {
                    Some(node) => Entry { path, identity, node },
                    None => continue,
                },
            };
            self.entries.push(entry);
        }
        true
    }

    /// Takes in what the files hold: whether any of them has changed.
    pub(crate) fn look(&mut self) -> bool {
        let mut is_changed = false;
        for entry in &mut self.entries {
            let Node::File { map: Some(map), bytes } = &mut entry.node else { continue };
            let Some(now) = map.slice(0, bytes.len()) else { continue };
            if now != &bytes[..] {
                bytes.copy_from_slice(now);
                is_changed = true;
            }
        }
        is_changed
    }

    /// Makes another directory the same as this one was at the last look.
    pub(crate) fn copy_to(&self, to: &Path) {
        for old in fs::read_dir(to).expect("the copy's place").flatten() {
            let path = old.path();
            let is_folder = old.file_type().expect("its type").is_dir();
            let gone = if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            gone.expect("the last copy goes");
        }
        for entry in &self.entries {
            let path = to.join(&entry.path);
            match &entry.node {
                Node::Folder => DirBuilder::new().mode(0o700).create(path).expect("a directory"),
                Node::Fifo => {
                    let mode = Mode::RUSR | Mode::WUSR;
                    rustix::fs::mknodat(CWD, path, FileType::Fifo, mode, 0).expect("a FIFO");
                }
                Node::File { bytes, .. } => {
                    let options =
                        File::options().write(true).create_new(true).mode(0o600).open(path);
                    write_sparsely(&options.expect("a file"), bytes);
                }
            }
        }
    }
}

/// Writes a file's bytes, and leaves its pages of zeros out, which read the same: most of a lane is.
fn write_sparsely(file: &File, bytes: &[u8]) {
    const PAGE: usize = 4096;
    file.set_len(bytes.len() as u64).expect("a size");
    for (index, page) in bytes.chunks(PAGE).enumerate() {
        if page.iter().any(|byte| *byte != 0) {
            file.write_all_at(page, (index * PAGE) as u64).expect("there is memory for it");
        }
    }
}

/// All names below a directory, those that hold others first; one that goes meanwhile is none.
fn walk(root: &Path, inside: &Path, found: &mut Vec<(PathBuf, (u64, u64, u64))>) {
    for entry in fs::read_dir(root.join(inside)).into_iter().flatten().flatten() {
        let Ok(about) = entry.metadata() else { continue };
        let path = inside.join(entry.file_name());
        let size = if about.is_dir() { 0 } else { about.size() };
        found.push((path.clone(), (about.dev(), about.ino(), size)));
        if about.is_dir() {
            walk(root, &path, found);
        }
    }
}

fn open(path: &Path) -> Option<Node> {
    let about = fs::symlink_metadata(path).ok()?;
    if about.is_dir() {
        return Some(Node::Folder);
    }
    if about.file_type().is_fifo() {
        return Some(Node::Fifo);
    }
    let size = about.size() as usize;
    if size == 0 {
        return Some(Node::File { map: None, bytes: Vec::new() });
    }
    let map = Mapping::new(File::open(path).ok()?.into(), 0, size, Access::Read).ok()?;
    let bytes = map.slice(0, size)?.to_vec();
    Some(Node::File { map: Some(map), bytes })
}
