//! POSIX shared memory by its name, for programs that use it directly.
//!
//! Bytes are copied in and out by pread and pwrite, never through a mapping: what a peer writes
//! meanwhile is torn at worst, a memory that a peer makes shorter is an error and no SIGBUS, and
//! so is a full /dev/shm under memory that a peer made without reserving it. Nothing here says when
//! something was written: that is what a [`Semaphore`](crate::Semaphore) is for.
//! Sources: shm_overview(7), shm_open(3), pread(2), fallocate(2).

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::error::{Error, Kind};
use crate::name::shm_file::{ShmName, Sort, full};

/// The permission bits of what is made unless asked otherwise.
const MODE: u32 = 0o600;

/// A POSIX shared memory (shm_open), with the bytes as any C program sees them.
///
/// Names have their slash or do without. Sizes and offsets are bytes. The memory stays until
/// [`Memory::remove`], also when every process that used it has ended.
///
/// ```
/// use poste::{Kind, Memory};
/// # fn main() -> Result<(), poste::Error> {
/// # let name = &format!("poste-doc-memory-{}", std::process::id());
/// let memory = Memory::create(name, 4096)?; // zeroes, and 0600
/// memory.write(0, b"hello\0")?;
///
/// let same = Memory::open(name)?; // another process, as a rule
/// let mut text = [0; 5];
/// same.read(0, &mut text)?;
/// assert_eq!((&text, same.size()?), (b"hello", 4096));
/// assert!(matches!(same.write(4095, b"no").unwrap_err().kind(), Kind::TooLarge { .. }));
/// Memory::remove(name)?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Memory {
    file: File,
    name: ShmName,
}

impl Memory {
    /// Makes a memory of zeroes with mode 0600, which must not be there yet. It is really reserved.
    ///
    /// # Errors
    /// As [`Memory::create_with`].
    pub fn create(name: impl AsRef<str>, size: usize) -> Result<Memory, Error> {
        Memory::create_with(name, size, MODE)
    }

    /// Makes a memory of zeroes, which must not be there yet. The mode is exactly this one, whatever
    /// the umask says, from the first moment that others can see the name.
    ///
    /// # Errors
    /// `NameInUse`: open what is there, or take another name. `Limit` where /dev/shm is full.
    /// `Invalid` for a name or mode that is none, or for no bytes at all.
    pub fn create_with(name: impl AsRef<str>, size: usize, mode: u32) -> Result<Memory, Error> {
        Memory::create_filled(name, size, mode, 0, &[])
    }

    /// The same with bytes in it at `offset`, before anybody else can see it.
    ///
    /// # Errors
    /// As [`Memory::create_with`]; `TooLarge` where the bytes end beyond `size`.
    pub fn create_filled(
        name: impl AsRef<str>,
        size: usize,
        mode: u32,
        offset: usize,
        bytes: &[u8],
    ) -> Result<Memory, Error> {
        let on = |error: Error| error.on("create the memory", &name.as_ref());
        let name = ShmName::parse(Sort::Memory, name.as_ref()).map_err(on)?;
        let on = |error: Error| error.on("create the memory", &name);
        if size == 0 {
            let error = Error::new(Kind::Invalid, "a memory has at least one byte");
            return Err(on(error.with_hint("say how large it is to be, or give it a text")));
        }
        within(size, offset, bytes.len()).map_err(on)?;
        let fill = |file: std::os::fd::BorrowedFd<'_>| {
            if bytes.is_empty() {
                return Ok(());
            }
            let file = file.try_clone_to_owned().map(File::from);
            file.and_then(|file| file.write_all_at(bytes, offset as u64)).map_err(|e| system(&e))
        };
        let (file, ()) = name.create(size, mode, fill).map_err(on)?;
        Ok(Memory { file: file.into(), name })
    }

    /// Opens a memory that is there: to read and write it, or where that is all that its mode
    /// allows, to read it.
    ///
    /// # Errors
    /// `NotFound`; `Permission`; `Mismatch` where the name belongs to something else.
    pub fn open(name: impl AsRef<str>) -> Result<Memory, Error> {
        let on = |error: Error| error.on("open the memory", &name.as_ref());
        let name = ShmName::parse(Sort::Memory, name.as_ref()).map_err(on)?;
        let opened = match name.open(OFlags::RDWR) {
            Err(error) if error.is(&Kind::Permission) => name.open(OFlags::RDONLY),
            opened => opened,
        };
        let (file, _) = opened.map_err(|error| error.on("open the memory", &name))?;
        Ok(Memory { file: file.into(), name })
    }

    /// Takes the name away; who has the memory open keeps it.
    ///
    /// # Errors
    /// `NotFound`, `Permission`.
    pub fn remove(name: impl AsRef<str>) -> Result<(), Error> {
        let on = |error: Error| error.on("remove the memory", &name.as_ref());
        let name = ShmName::parse(Sort::Memory, name.as_ref()).map_err(on)?;
        name.remove().map_err(|error| error.on("remove the memory", &name))
    }

    /// How large it is now, in bytes. A memory that its maker is just making may have none yet.
    ///
    /// # Errors
    /// What the system said.
    pub fn size(&self) -> Result<usize, Error> {
        let stat = rustix::fs::fstat(&self.file);
        let stat = stat.map_err(|e| Error::system(e, "").on("read the memory", &self.name))?;
        Ok(usize::try_from(stat.st_size).unwrap_or(0))
    }

    /// Copies bytes out, from `offset` on, as many as the buffer holds.
    ///
    /// # Errors
    /// `TooLarge` where that goes beyond the end: nothing is read.
    pub fn read(&self, offset: usize, buffer: &mut [u8]) -> Result<(), Error> {
        let on = |error: Error| error.on("read the memory", &self.name);
        within(self.size()?, offset, buffer.len()).map_err(on)?;
        self.file.read_exact_at(buffer, offset as u64).map_err(|error| on(system(&error)))
    }

    /// Copies bytes in, from `offset` on. The memory never grows.
    ///
    /// # Errors
    /// `TooLarge` where that goes beyond the end: nothing is written. `Permission` where it is open
    /// for reading only. `Limit` where its maker reserved no memory, and /dev/shm is full.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), Error> {
        let on = |error: Error| error.on("write the memory", &self.name);
        within(self.size()?, offset, bytes.len()).map_err(on)?;
        let written = self.file.write_all_at(bytes, offset as u64);
        written.map_err(|error| {
            on(match Errno::from_io_error(&error) {
                Some(Errno::BADF) => Error::new(Kind::Permission, "its mode lets us only read")
                    .with_hint("run it as the owner, or let the owner give it a wider mode"),
                Some(errno @ Errno::NOSPC) => full(errno, self.file.as_fd(), bytes.len()),
                _ => system(&error),
            })
        })
    }

    /// What semaphores in it map.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// What it is called.
    pub(crate) fn name(&self) -> &ShmName {
        &self.name
    }
}

/// Refuses what ends beyond the end.
fn within(size: usize, offset: usize, length: usize) -> Result<(), Error> {
    let end = offset.saturating_add(length);
    if end <= size {
        return Ok(());
    }
    let kind = Kind::TooLarge { size: end as u64, limit: size as u64 };
    let detail = format!("it has {size} bytes, and {length} from byte {offset} on end at {end}");
    Err(Error::new(kind, detail)
        .with_hint("a memory is never resized: stay within it, or remove it and make a larger one"))
}

fn system(error: &io::Error) -> Error {
    match Errno::from_io_error(error) {
        Some(errno) => Error::system(errno, ""),
        None if error.kind() == ErrorKind::UnexpectedEof => {
            Error::new(Kind::Mismatch, "it was made shorter meanwhile")
                .with_hint("look at its size again")
        }
        None => Error::new(Kind::System, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_makes_shorter_is_an_error() {
        let name = format!("poste-shorter-{}", std::process::id());
        let memory = Memory::create_filled(&name, 8192, 0o600, 8190, b"ab").unwrap();
        let mut two = [0; 2];
        memory.read(8190, &mut two).unwrap();
        assert_eq!(&two, b"ab");
        rustix::fs::ftruncate(memory.file(), 4096).unwrap();
        assert!(matches!(
            memory.read(8190, &mut two).unwrap_err().kind(),
            Kind::TooLarge { size: 8192, limit: 4096 }
        ));
        Memory::remove(&name).unwrap();
    }

    #[test]
    fn offsets_do_not_wrap() {
        assert!(within(10, 10, 0).is_ok());
        assert!(within(10, 11, 0).is_err());
        assert!(within(10, usize::MAX, 2).is_err());
    }
}
