//! One shared mapping of a file, and memory that is really there.
//!
//! A [`Segment`] knows its size, and gives out no reference to its bytes: other processes write to
//! them at any time. What works on them in place (semaphores) asks for a pointer to a type, and
//! gets it only within the bounds and aligned. The file's size is looked at before it is mapped;
//! a peer that may write to the file can still make it shorter afterwards, and touching what is
//! gone then ends the process (SIGBUS): map only what peers are trusted with.
//!
//! Sources: mmap(2), fallocate(2), shm_overview(7).

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::last_errno;

/// A part of a file, mapped to be read and written together with others.
#[derive(Debug)]
pub struct Segment {
    start: NonNull<u8>,
    size: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and lives until the drop.
unsafe impl Send for Segment {}
// SAFETY: no reference to the bytes is given out; who uses a pointer into them does so atomically.
unsafe impl Sync for Segment {}

impl Segment {
    /// Maps `size` bytes of a file from `offset`, which is a multiple of [`page_size`].
    ///
    /// # Errors
    /// `ENXIO` where the file is shorter than that; `EINVAL` for no bytes or an offset inside a
    /// page; `EACCES` where the descriptor isn't open for reading and writing; others as mmap(2).
    pub fn map(file: BorrowedFd<'_>, offset: u64, size: usize) -> Result<Segment, Errno> {
        let end = offset.checked_add(size as u64).ok_or(Errno::NXIO)?;
        let there = u64::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or(0);
        if end > there {
            return Err(Errno::NXIO);
        }
        let offset = libc::off_t::try_from(offset).map_err(|_| Errno::NXIO)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size,
                protection,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                offset,
            )
        };
        match NonNull::new(start.cast::<u8>()) {
            Some(at) if start != libc::MAP_FAILED => Ok(Segment { start: at, size }),
            _ => Err(last_errno()),
        }
    }

    /// How many bytes are mapped.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Where a `T` at this offset lies: nothing where it is not wholly inside, or not aligned.
    pub(crate) fn at<T>(&self, offset: usize) -> Option<NonNull<T>> {
        let end = offset.checked_add(size_of::<T>())?;
        let address = (self.start.as_ptr() as usize).checked_add(offset)?;
        if end > self.size || address % align_of::<T>() != 0 {
            return None;
        }
        NonNull::new(self.start.as_ptr().wrapping_add(offset).cast())
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: `map` made exactly this mapping, and pointers into it don't outlive the segment.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.size) };
    }
}

/// The unit in which files are mapped, in bytes.
#[must_use]
pub fn page_size() -> usize {
    rustix::param::page_size()
}

/// Takes the memory or disk for a part of a file now, and makes the file as long as that needs: a
/// file system that is full says so here, and not with SIGBUS when the bytes are touched. What is
/// in the file stays.
///
/// A file system of memory may be as large as all of it, or know no limit, and the kernel ends other
/// programs before it refuses memory. So more than [`PROVED_FROM`] bytes are first compared with what
/// is free, and a sixteenth of the machine is left alone.
///
/// # Errors
/// `ENOSPC`, `ENOMEM`; `EINVAL` for no bytes; `EFBIG`; others as fallocate(2).
pub fn reserve(file: BorrowedFd<'_>, offset: u64, size: u64) -> Result<(), Errno> {
    if size > PROVED_FROM && room(file)?.is_some_and(|room| size > room) {
        return Err(Errno::NOSPC);
    }
    loop {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), offset, size) {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

/// From how many bytes on a reservation is compared with the free memory: less than that decides
/// nothing, and a few bytes of a file that has its memory already need no room.
pub const PROVED_FROM: u64 = 64 << 10;

/// What `f_type` says of file systems that live in memory: TMPFS_MAGIC and RAMFS_MAGIC of
/// <linux/magic.h>.
const OF_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// How many bytes can be reserved in this file's file system; nothing where only the kernel knows.
fn room(file: BorrowedFd<'_>) -> Result<Option<u64>, Errno> {
    let system = rustix::fs::fstatfs(file)?;
    let is_of_memory = OF_MEMORY.contains(&(system.f_type as u64 & 0xffff_ffff));
    // A tmpfs without blocks is one without a limit, as that of memfd_create.
    let free = (system.f_blocks > 0 || !is_of_memory)
        .then(|| system.f_bavail.saturating_mul(u64::try_from(system.f_bsize).unwrap_or(0)));
    if !is_of_memory {
        return Ok(free);
    }
    let memory = std::fs::read_to_string("/proc/meminfo").ok();
    let memory = memory.and_then(|text| unreserved(&text));
    Ok(match (free, memory) {
        (Some(free), Some(memory)) => Some(free.min(memory)),
        (free, memory) => free.or(memory),
    })
}

/// How much of the memory is free, but for a sixteenth of all of it.
fn unreserved(meminfo: &str) -> Option<u64> {
    let bytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        let kibibytes: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
        kibibytes.checked_mul(1 << 10)
    };
    Some(bytes("MemAvailable:")?.saturating_sub(bytes("MemTotal:")? / 16))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::os::fd::{AsFd, OwnedFd};

    use rustix::fs::{MemfdFlags, memfd_create};

    pub(crate) fn file(size: u64) -> OwnedFd {
        let file = memfd_create(c"poste-sys", MemfdFlags::CLOEXEC).unwrap();
        reserve(file.as_fd(), 0, size).unwrap();
        file
    }

    #[test]
    fn nothing_beyond_the_end_is_mapped() {
        let page = page_size();
        let file = file(page as u64 + 10);
        assert_eq!(Segment::map(file.as_fd(), 0, page + 11).unwrap_err(), Errno::NXIO);
        assert_eq!(Segment::map(file.as_fd(), page as u64, 11).unwrap_err(), Errno::NXIO);
        assert_eq!(Segment::map(file.as_fd(), u64::MAX, 1).unwrap_err(), Errno::NXIO);
        assert_eq!(Segment::map(file.as_fd(), 0, 0).unwrap_err(), Errno::INVAL);
        assert_eq!(Segment::map(file.as_fd(), 1, 1).unwrap_err(), Errno::INVAL);
        assert_eq!(Segment::map(file.as_fd(), page as u64, 10).unwrap().size(), 10);
    }

    #[test]
    fn a_pointer_stays_within_bounds_and_is_aligned() {
        let file = file(64);
        let segment = Segment::map(file.as_fd(), 0, 64).unwrap();
        assert!(segment.at::<u64>(56).is_some());
        for offset in [57, 60, 64, usize::MAX, usize::MAX - 7] {
            assert!(segment.at::<u64>(offset).is_none(), "{offset}");
        }
    }

    #[test]
    fn a_sixteenth_of_the_memory_is_left_alone() {
        let text = "MemTotal:  1600 kB\nMemFree:  1 kB\nMemAvailable:    900 kB\n";
        assert_eq!(unreserved(text), Some(800 << 10));
        assert_eq!(unreserved("MemTotal: 1600 kB\nMemAvailable: 90 kB\n"), Some(0));
        assert_eq!(unreserved("MemTotal: 1600 kB\n"), None);
        assert_eq!(unreserved(""), None);
    }

    /// Nothing is ever asked of the kernel here that it could try to give: memfd_create knows no
    /// limit, and would take all memory before it said no.
    #[test]
    fn there_is_a_known_room_where_a_file_system_has_no_limit() {
        let file = memfd_create(c"poste-sys", MemfdFlags::CLOEXEC).unwrap();
        let system = rustix::system::sysinfo();
        let total = system.totalram as u64 * u64::from(system.mem_unit);
        assert!(room(file.as_fd()).unwrap().unwrap() < total);
    }
}
