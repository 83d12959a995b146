//! POSIX semaphores: libc's own functions on a `sem_t` that lies in a shared mapping.
//!
//! A named semaphore is a file of one `sem_t` (`/dev/shm/sem.NAME`), an unnamed one lies anywhere in
//! shared memory; here both are a place in a [`Segment`]. Not sem_open: it gives no descriptor, so
//! that nobody could look at the size of the file that it maps, or set its mode before it is seen.
//! Not sem_destroy: on Linux it frees nothing, and may not be called while others wait.
//!
//! Sources: sem_overview(7), sem_init(3), sem_wait(3), sem_post(3), sem_getvalue(3), and the GNU C
//! Library's manual on sem_clockwait (glibc 2.30).

use libc::{c_int, clockid_t, sem_t, timespec};
use rustix::io::Errno;
use rustix::time::Timespec;

use crate::last_errno;
use crate::segment::Segment;

/// How many bytes a semaphore takes, and so the smallest file that can be one.
pub const SIZE: usize = size_of::<sem_t>();

/// What a semaphore's offset is a multiple of.
pub const ALIGN: usize = align_of::<sem_t>();

/// The largest value: SEM_VALUE_MAX.
pub const VALUE_MAX: u32 = c_int::MAX as u32;

// SAFETY: this is the declaration of glibc's <semaphore.h>; the libc crate lacks it.
unsafe extern "C" {
    fn sem_clockwait(semaphore: *mut sem_t, clock: clockid_t, deadline: *const timespec) -> c_int;
}

/// A semaphore in shared memory.
#[derive(Debug)]
pub struct Semaphore {
    segment: Segment,
    offset: usize,
}

impl Semaphore {
    /// The semaphore that somebody has made at this offset of a segment.
    ///
    /// # Errors
    /// `EINVAL` where it would not lie wholly inside, or not aligned.
    pub fn at(segment: Segment, offset: usize) -> Result<Semaphore, Errno> {
        match segment.at::<sem_t>(offset) {
            Some(_) => Ok(Semaphore { segment, offset }),
            None => Err(Errno::INVAL),
        }
    }

    /// Makes a semaphore at this offset of a segment, for every process that maps it. Who waits for
    /// one that was there before is not woken.
    ///
    /// # Errors
    /// As [`Semaphore::at`]; `EINVAL` for a value beyond [`VALUE_MAX`].
    pub fn init(segment: Segment, offset: usize, value: u32) -> Result<Semaphore, Errno> {
        let semaphore = Semaphore::at(segment, offset)?;
        // SAFETY: `pointer` lies in the mapping, aligned, as `at` has checked.
        let result = unsafe { libc::sem_init(semaphore.pointer(), 1, value) };
        done(result).map(|()| semaphore)
    }

    /// Takes a permit, waiting for one as long as it takes.
    ///
    /// # Errors
    /// `EINTR`.
    pub fn wait(&self) -> Result<(), Errno> {
        // SAFETY: `pointer` lies in the mapping, aligned; libc works on it with atomics alone.
        done(unsafe { libc::sem_wait(self.pointer()) })
    }

    /// Takes a permit if one is there.
    ///
    /// # Errors
    /// `EAGAIN` where none is; `EINTR`.
    pub fn try_wait(&self) -> Result<(), Errno> {
        // SAFETY: `pointer` lies in the mapping, aligned; libc works on it with atomics alone.
        done(unsafe { libc::sem_trywait(self.pointer()) })
    }

    /// Takes a permit, waiting for one until this moment of the monotonic clock.
    ///
    /// # Errors
    /// `ETIMEDOUT`, `EINTR`; `EINVAL` for a time that is none.
    pub fn wait_until(&self, moment: Timespec) -> Result<(), Errno> {
        let deadline = timespec { tv_sec: moment.tv_sec as _, tv_nsec: moment.tv_nsec as _ };
        // SAFETY: `pointer` lies in the mapping, aligned, and the deadline outlives the call.
        done(unsafe { sem_clockwait(self.pointer(), libc::CLOCK_MONOTONIC, &raw const deadline) })
    }

    /// Gives a permit.
    ///
    /// # Errors
    /// `EOVERFLOW` where the value is [`VALUE_MAX`] already.
    pub fn post(&self) -> Result<(), Errno> {
        // SAFETY: `pointer` lies in the mapping, aligned; libc works on it with atomics alone.
        done(unsafe { libc::sem_post(self.pointer()) })
    }

    /// How many permits there are.
    ///
    /// # Errors
    /// None on Linux.
    pub fn value(&self) -> Result<u32, Errno> {
        let mut value: c_int = 0;
        // SAFETY: `pointer` lies in the mapping, aligned, and the value is exclusively borrowed.
        done(unsafe { libc::sem_getvalue(self.pointer(), &raw mut value) })?;
        Ok(u32::try_from(value).unwrap_or(0))
    }

    fn pointer(&self) -> *mut sem_t {
        // `at` has found it inside, and a segment never changes.
        self.segment.at::<sem_t>(self.offset).map_or(std::ptr::null_mut(), |place| place.as_ptr())
    }
}

fn done(result: c_int) -> Result<(), Errno> {
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::tests::file;
    use std::os::fd::AsFd;

    use rustix::time::{ClockId, clock_gettime};

    #[test]
    fn permits_are_given_and_taken_through_two_mappings() {
        let file = file(64);
        let map = || Segment::map(file.as_fd(), 0, 64).unwrap();
        let one = Semaphore::init(map(), ALIGN, 1).unwrap();
        let other = Semaphore::at(map(), ALIGN).unwrap();
        assert_eq!(other.value(), Ok(1));
        other.wait().unwrap();
        assert_eq!(one.try_wait(), Err(Errno::AGAIN));
        let now = clock_gettime(ClockId::Monotonic);
        assert_eq!(one.wait_until(now), Err(Errno::TIMEDOUT));
        std::thread::scope(|scope| {
            scope.spawn(|| one.wait().unwrap());
            other.post().unwrap();
        });
        assert_eq!(one.value(), Ok(0));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let file = file(SIZE as u64 + 8);
        let map = || Segment::map(file.as_fd(), 0, SIZE + 8).unwrap();
        assert!(Semaphore::at(map(), 8).is_ok());
        assert_eq!(Semaphore::at(map(), 1).unwrap_err(), Errno::INVAL);
        assert_eq!(Semaphore::at(map(), 16).unwrap_err(), Errno::INVAL);
        assert_eq!(Semaphore::init(map(), 0, VALUE_MAX + 1).unwrap_err(), Errno::INVAL);
        let full = Semaphore::init(map(), 0, VALUE_MAX).unwrap();
        assert_eq!(full.post(), Err(Errno::OVERFLOW));
    }
}
