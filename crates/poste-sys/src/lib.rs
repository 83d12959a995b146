//! The system calls that poste needs and rustix lacks, as safe functions.
//!
//! Every line of `unsafe` of the project is in this crate, each block with one `SAFETY:` line that
//! names the invariant and who keeps it. Signatures are the proof: descriptors are borrowed or
//! owned, buffers are slices, and nothing that a peer writes is trusted.

pub mod ancillary;
pub mod atomic;
pub mod child;
pub mod cpu;
pub mod descriptor;
pub mod fork;
pub mod futex;
pub mod hand_down;
pub mod interrupt;
pub mod lock;
pub mod mapping;
pub mod mqueue;
pub mod peer;
pub mod pipe;
pub mod segment;
pub mod semaphore;
pub mod sysctl;
pub mod sysv;
#[doc(hidden)]
pub mod testing;

/// The last error of the calling thread, as rustix says it.
fn last_errno() -> rustix::io::Errno {
    let number = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    rustix::io::Errno::from_raw_os_error(number)
}
