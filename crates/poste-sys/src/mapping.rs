//! A file mapped to be shared, with every access checked against its bounds: words as atomics,
//! bodies as slices or copies. Nobody outside sees a pointer.
//!
//! What lies beyond the end of the file would be SIGBUS, so the mapping knows how much of it the
//! file backs, asks again when more is wanted, and refuses the rest. A file that is cut short while
//! it is mapped is outside of this: its owner keeps others from writing it.
//! Sources: mmap(2), madvise(2).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;

use crate::atomic::{AtomicU32, AtomicU64};
use crate::last_errno;

/// Whether a mapping may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only read.
    Read,
    /// Read and written.
    Write,
}

/// What a mapping lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// The machine's pages.
    Small,
    /// Pages of [`HUGE_PAGE`] bytes, as far as [`Mapping::extend`] has made them such.
    Huge,
}

/// The size of a huge page, in bytes.
pub const HUGE_PAGE: usize = 2 << 20;

/// A part of a file, mapped.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    pages: Pages,
    /// How much is mapped, in bytes.
    size: usize,
    /// How much of it may be reached as words: what the file backed when it was mapped for writing.
    words: usize,
    /// Where in the file it begins.
    offset: usize,
    /// How many bytes of it the file is known to back.
    backed: AtomicUsize,
    access: Access,
    file: OwnedFd,
    /// In a model: the words, which are loom's.
    #[cfg(poste_loom)]
    model: Option<Model>,
}

/// The words of a model, by their offsets.
#[cfg(poste_loom)]
#[derive(Debug)]
struct Model {
    /// Where each of the rows lies.
    words: Vec<usize>,
    rows: Vec<AtomicU64>,
    halves: Vec<(usize, AtomicU32)>,
}

// SAFETY: the memory is shared with other processes anyhow; it is reached through atomics and through slices whose exclusion the callers' protocol keeps.
unsafe impl Send for Mapping {}
// SAFETY: as for Send; what changes the value itself needs `&mut`.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `size` bytes of a file from `offset` on, both multiples of the page; the file may be
    /// shorter.
    ///
    /// # Errors
    /// What the system said.
    pub fn new(file: OwnedFd, offset: usize, size: usize, access: Access) -> Result<Self, Errno> {
        Mapping::on(Pages::Small, file, offset, size, access)
    }

    /// As [`Mapping::new`], so that what the file has on such pages is mapped as such pages; `offset`
    /// and `size` are multiples of them.
    ///
    /// # Errors
    /// What the system said.
    pub fn on(
        pages: Pages,
        file: OwnedFd,
        offset: usize,
        size: usize,
        access: Access,
    ) -> Result<Self, Errno> {
        let protection = match access {
            Access::Read => libc::PROT_READ,
            Access::Write => libc::PROT_READ | libc::PROT_WRITE,
        };
        let place = libc::off_t::try_from(offset).map_err(|_| Errno::OVERFLOW)?;
        let (at, fixed) = match pages {
            Pages::Small => (std::ptr::null_mut(), 0),
            Pages::Huge => (addresses(size)?, libc::MAP_FIXED),
        };
        // SAFETY: a new mapping at an address of the kernel's choice, or in place of one that is ours alone and that nobody has seen.
        let start = unsafe {
            libc::mmap(
                at,
                size,
                protection,
                libc::MAP_SHARED | libc::MAP_NORESERVE | fixed,
                file.as_raw_fd(),
                place,
            )
        };
        if start == libc::MAP_FAILED {
            let errno = last_errno();
            if !at.is_null() {
                // SAFETY: as above: this is the whole of it.
                unsafe { libc::munmap(at, size) };
            }
            return Err(errno);
        }
        let start = NonNull::new(start.cast()).ok_or(Errno::NOMEM)?;
        let mut mapping = Mapping {
            words: 0,
            start,
            pages,
            size,
            offset,
            backed: AtomicUsize::new(0),
            access,
            file,
            #[cfg(poste_loom)]
            model: None,
        };
        let backed = mapping.measure()?;
        if access == Access::Write {
            mapping.words = backed;
        }
        Ok(mapping)
    }

    /// A mapping of loom's words at these offsets, all 0, and of `size` bytes for bodies that nobody
    /// looks at. To be made within a model.
    #[cfg(poste_loom)]
    #[must_use]
    pub fn model(words: &[usize], halves: &[usize], size: usize) -> Mapping {
        let file = std::fs::File::open("/dev/null").expect("the null device opens");
        let rows = words.iter().map(|_| AtomicU64::new(0)).collect();
        let words = words.to_vec();
        let halves = halves.iter().map(|at| (*at, AtomicU32::new(0))).collect();
        Mapping {
            words: 0,
            start: NonNull::dangling(),
            pages: Pages::Small,
            size: 0,
            offset: 0,
            backed: AtomicUsize::new(size),
            access: Access::Read,
            file: file.into(),
            model: Some(Model { words, rows, halves }),
        }
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// How many bytes may be touched now.
    #[must_use]
    #[inline]
    pub fn backed(&self) -> usize {
        self.backed.load(Ordering::Relaxed)
    }

    /// Reserves what the mapping holds of the file up to `size` bytes, as [`reserve`] does; on huge
    /// pages the kernel then moves what is new, and all that the file has if that was all it had, onto
    /// such (madvise(2), MADV_COLLAPSE, since Linux 6.1): their number is only then what
    /// [`Mapping::backed`] says.
    ///
    /// # Errors
    /// `ENOSPC` as there. Of huge pages: `EINVAL` where there are none for this file, `ENOMEM`,
    /// `EAGAIN` and `EBUSY` where none is free now.
    pub fn extend(&self, size: usize) -> Result<(), Errno> {
        let to = self.offset.checked_add(size).ok_or(Errno::OVERFLOW)?;
        match self.pages {
            Pages::Small => reserve(self.file(), to)?,
            Pages::Huge => {
                crate::segment::reserve(self.file(), self.offset as u64, size as u64)?;
                self.gather(self.backed(), size)?;
            }
        }
        self.measure().map(drop)
    }

    /// Sees to it that all that the file has lies on huge pages, where it is to.
    ///
    /// # Errors
    /// As [`Mapping::extend`].
    pub fn settle(&self) -> Result<(), Errno> {
        if self.pages == Pages::Huge { self.gather(0, self.backed()) } else { Ok(()) }
    }

    /// Moves bytes of the mapping onto huge pages; those that lie there already stay.
    fn gather(&self, from: usize, to: usize) -> Result<(), Errno> {
        let (from, to) = (from / HUGE_PAGE * HUGE_PAGE, to.min(self.size));
        if from >= to {
            return Ok(());
        }
        for tries in 0.. {
            // SAFETY: within the mapping; the bytes stay what they are, whoever reads them meanwhile.
            let done = unsafe {
                let start = self.start.as_ptr().add(from);
                libc::madvise(start.cast(), to - from, libc::MADV_COLLAPSE)
            };
            if done == 0 {
                break;
            }
            match last_errno() {
                // Another had one of the pages in its hands just then.
                Errno::AGAIN | Errno::BUSY if tries < GATHER_TRIES => std::thread::yield_now(),
                errno => return Err(errno),
            }
        }
        Ok(())
    }

    /// Asks the system anew how much of the mapping the file backs; it is never taken to shrink.
    ///
    /// # Errors
    /// What the system said.
    pub fn measure(&self) -> Result<usize, Errno> {
        let size = usize::try_from(rustix::fs::fstat(&self.file)?.st_size).unwrap_or(0);
        let backed = size.saturating_sub(self.offset).min(self.size);
        Ok(self.backed.fetch_max(backed, Ordering::Relaxed).max(backed))
    }

    /// The word of eight bytes at an offset.
    ///
    /// # Panics
    /// Where it isn't in a writable mapping: offsets of words are computed by us, not by a peer.
    #[must_use]
    #[inline]
    pub fn word(&self, at: usize) -> &AtomicU64 {
        #[cfg(poste_loom)]
        if let Some(model) = &self.model {
            let found = model.words.iter().position(|word| *word == at);
            return &model.rows[found.expect("the model has this word")];
        }
        assert!(at % 8 == 0 && at + 8 <= self.words);
        // SAFETY: in bounds, aligned and backed as just checked; every process reaches it by atomics only.
        unsafe { self.start.add(at).cast::<AtomicU64>().as_ref() }
    }

    /// Words of eight bytes in a row, checked once.
    ///
    /// # Panics
    /// As [`Mapping::word`].
    #[must_use]
    #[inline]
    pub fn words<const N: usize>(&self, at: usize) -> &[AtomicU64; N] {
        #[cfg(poste_loom)]
        if let Some(model) = &self.model {
            let found = model.words.iter().position(|word| *word == at);
            let found = found.expect("the model has this word");
            return model.rows[found..found + N].try_into().expect("the model has these words");
        }
        assert!(at % 8 == 0 && at + 8 * N <= self.words);
        // SAFETY: in bounds, aligned and backed as just checked; every process reaches them by atomics only.
        unsafe { self.start.add(at).cast::<[AtomicU64; N]>().as_ref() }
    }

    /// The word of four bytes at an offset, to sleep on.
    ///
    /// # Panics
    /// As [`Mapping::word`].
    #[must_use]
    #[inline]
    pub fn half(&self, at: usize) -> &AtomicU32 {
        #[cfg(poste_loom)]
        if let Some(model) = &self.model {
            let found = model.halves.iter().find(|(word, _)| *word == at);
            return &found.expect("the model has this word").1;
        }
        assert!(at % 4 == 0 && at + 4 <= self.words);
        // SAFETY: in bounds, aligned and backed as just checked; every process reaches it by atomics only.
        unsafe { self.start.add(at).cast::<AtomicU32>().as_ref() }
    }

    /// A body, in place; `None` where it isn't all there. Its stability is the writer's word: nobody
    /// writes what they gave away. What must be believed is copied first.
    #[must_use]
    #[inline]
    pub fn slice(&self, at: usize, size: usize) -> Option<&[u8]> {
        if !self.holds(at, size) {
            return None;
        }
        // SAFETY: in bounds and backed as just checked; that nobody writes it is the stated trust between users of one mailbox.
        Some(unsafe { std::slice::from_raw_parts(self.start.add(at).as_ptr(), size) })
    }

    /// Room for a body, in place; `None` where it isn't all there or isn't to be written.
    #[must_use]
    #[inline]
    pub fn slice_mut(&mut self, at: usize, size: usize) -> Option<&mut [u8]> {
        if self.access != Access::Write || !self.holds(at, size) {
            return None;
        }
        // SAFETY: in bounds, backed and writable as just checked; others read it only after it was given to them.
        Some(unsafe { std::slice::from_raw_parts_mut(self.start.add(at).as_ptr(), size) })
    }

    /// Tells the processor that these bytes are read soon: their cache line comes while other things
    /// are done. Nothing else happens, wherever they lie.
    #[inline]
    pub fn soon(&self, at: usize) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let place = self.start.as_ptr().wrapping_add(at);
            // SAFETY: a hint reads nothing that a program sees, and faults on no address.
            unsafe { _mm_prefetch(place.cast(), _MM_HINT_T0) }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = at;
    }

    /// As [`Mapping::soon`], for bytes that are written soon: their line comes as this processor's own.
    #[inline]
    pub fn soon_written(&self, at: usize) {
        #[cfg(target_arch = "x86_64")]
        {
            let place = self.start.as_ptr().wrapping_add(at);
            // SAFETY: a hint changes nothing that a program sees, and faults on no address; where the processor doesn't know it, it does nothing.
            unsafe {
                std::arch::asm!(
                    "prefetchw [{place}]",
                    place = in(reg) place,
                    options(nostack, preserves_flags, readonly)
                );
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = at;
    }

    /// Appends a body to `to`: whether it was all there.
    #[must_use]
    #[inline]
    pub fn copy_out(&self, at: usize, size: usize, to: &mut Vec<u8>) -> bool {
        if !self.holds(at, size) {
            return false;
        }
        to.reserve(size);
        let end = to.len();
        // SAFETY: the source is in bounds and backed, the target was just reserved and is ours alone; bytes have no invalid values.
        unsafe {
            std::ptr::copy_nonoverlapping(
                self.start.add(at).as_ptr(),
                to.as_mut_ptr().add(end),
                size,
            );
            to.set_len(end + size);
        }
        true
    }

    #[inline]
    fn holds(&self, at: usize, size: usize) -> bool {
        let Some(end) = at.checked_add(size) else { return false };
        end <= self.backed().min(self.size)
            || (end <= self.size && self.measure().is_ok_and(|now| end <= now))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.size == 0 {
            return;
        }
        // SAFETY: this is the whole of what `new` mapped, and no reference outlives the value.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.size) };
    }
}

/// How often pages that others have in their hands are asked for.
const GATHER_TRIES: u32 = 20;

/// Addresses for a mapping on huge pages, which begins on one: held by a mapping of nothing.
fn addresses(size: usize) -> Result<*mut libc::c_void, Errno> {
    let all = size.checked_add(HUGE_PAGE).ok_or(Errno::NOMEM)?;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), all, libc::PROT_NONE, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(last_errno());
    }
    let before = start.addr().next_multiple_of(HUGE_PAGE) - start.addr();
    let middle = start.wrapping_byte_add(before);
    for (at, size) in [(start, before), (middle.wrapping_byte_add(size), HUGE_PAGE - before)] {
        if size > 0 {
            // SAFETY: these are the two rims of what was just mapped, which nobody has seen.
            unsafe { libc::munmap(at, size) };
        }
    }
    Ok(middle)
}

/// Reserves a file's bytes up to `size`, so that touching them can't fail, and makes it that long.
///
/// # Errors
/// `ENOSPC` where the file system has no room for them.
pub fn reserve(file: BorrowedFd<'_>, size: usize) -> Result<(), Errno> {
    let size = u64::try_from(size).map_err(|_| Errno::OVERFLOW)?;
    rustix::io::retry_on_intr(|| {
        rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, size)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(size: usize) -> OwnedFd {
        let file = rustix::fs::memfd_create("mapping", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        reserve(file.as_fd(), size).unwrap();
        file
    }

    #[test]
    fn what_the_file_does_not_back_is_refused() {
        let mut mapping = Mapping::new(file(4096), 0, 1 << 20, Access::Write).unwrap();
        assert!(mapping.slice(4000, 96).is_some());
        assert!(mapping.slice(4000, 97).is_none());
        assert!(mapping.slice(usize::MAX, 2).is_none());
        assert!(mapping.slice_mut(1 << 20, 1).is_none());
        let mut bytes = Vec::new();
        assert!(!mapping.copy_out(4096, 1, &mut bytes));
        reserve(mapping.file(), 8192).unwrap();
        assert!(mapping.slice_mut(4096, 4096).is_some(), "it has grown");
    }

    #[test]
    fn what_is_extended_on_huge_pages_lies_on_them() {
        let file = rustix::fs::memfd_create("mapping", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let map = |size, access| {
            let file = rustix::io::fcntl_dupfd_cloexec(&file, 0).unwrap();
            Mapping::on(Pages::Huge, file, HUGE_PAGE, size, access).unwrap()
        };
        let (mut one, two) = (map(4 * HUGE_PAGE, Access::Write), map(HUGE_PAGE * 4, Access::Read));
        assert_eq!(one.start.addr().get() % HUGE_PAGE, 0);
        assert!(one.slice_mut(0, 1).is_none(), "nothing is reserved");
        match one.extend(HUGE_PAGE) {
            Err(Errno::INVAL | Errno::NOMEM | Errno::AGAIN | Errno::BUSY) => {
                let name = "what_is_extended_on_huge_pages_lies_on_them";
                return crate::testing::skip(name, "the kernel gives no huge pages");
            }
            done => done.unwrap(),
        }
        one.slice_mut(HUGE_PAGE - 8, 8).unwrap().fill(7);
        assert_eq!(two.slice(HUGE_PAGE - 8, 8).unwrap(), [7; 8]);
        one.extend(3 * HUGE_PAGE).unwrap();
        one.slice_mut(3 * HUGE_PAGE - 8, 8).unwrap().fill(9);
        assert_eq!(two.slice(3 * HUGE_PAGE - 8, 8).unwrap(), [9; 8]);
        one.settle().unwrap();
        assert_eq!(one.backed(), 3 * HUGE_PAGE);
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let of = |mapping: &Mapping| {
            let begins = format!("{:x}-", mapping.start.addr());
            let mut lines = maps.lines().skip_while(|line| !line.starts_with(&begins));
            let line = lines.find_map(|line| line.strip_prefix("ShmemPmdMapped:")).unwrap();
            line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
        };
        assert_eq!(of(&one), 3 * HUGE_PAGE);
        assert!(of(&two) >= 2 * HUGE_PAGE, "who only reads maps them as such too");
        let gap = maps.lines().any(|line| {
            line.starts_with(&format!("{:x}-", one.start.addr().get() + 4 * HUGE_PAGE))
                && line.contains("---p")
        });
        assert!(!gap, "the rims are given back");
    }

    #[test]
    fn two_mappings_share_their_words() {
        let file = file(4096);
        let other = rustix::io::fcntl_dupfd_cloexec(&file, 0).unwrap();
        let one = Mapping::new(file, 0, 4096, Access::Write).unwrap();
        let two = Mapping::new(other, 0, 4096, Access::Write).unwrap();
        one.word(8).store(7, crate::atomic::Ordering::SeqCst);
        assert_eq!(two.word(8).load(crate::atomic::Ordering::SeqCst), 7);
    }
}
