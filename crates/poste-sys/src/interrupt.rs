//! Getting a thread of ours out of a system call that has neither a descriptor nor a time: by a
//! signal to that thread alone.
//!
//! The signal is SIGURG: programs must expect it at any time, and by default nothing happens. Where
//! the program has no handler for it, one that does nothing is set; the program's own serves as
//! well. A call on a System V queue always ends with EINTR then, whatever the handler's flags. No
//! other thread is disturbed.
//! Sources: signal(7) ("Interruption of system calls"), pthread_kill(3), pthread_sigmask(3).

use std::mem::zeroed;
use std::os::unix::thread::JoinHandleExt;
use std::thread::JoinHandle;

use rustix::io::Errno;

use crate::last_errno;

extern "C" fn nothing(_signal: libc::c_int) {}

/// Makes the calling thread deaf to every signal but the one that [`interrupt`] sends: the
/// program's handlers run in its own threads.
pub fn only_interrupts() {
    // SAFETY: all-zero bytes are a valid set of signals, which the next calls fill; they and the
    // mask concern this thread alone.
    unsafe {
        let mut others: libc::sigset_t = zeroed();
        libc::sigfillset(&raw mut others);
        libc::sigdelset(&raw mut others, libc::SIGURG);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const others, std::ptr::null_mut());
    }
}

/// Interrupts the system call that a thread is in. One that is about to begin isn't: the caller
/// tries again until the thread says that it noticed.
///
/// # Errors
/// What the system said.
pub fn interrupt<T>(thread: &JoinHandle<T>) -> Result<(), Errno> {
    see_to_handler()?;
    // SAFETY: the thread has not been joined, since its handle is here, so its number is its own.
    match unsafe { libc::pthread_kill(thread.as_pthread_t(), libc::SIGURG) } {
        0 => Ok(()),
        errno => Err(Errno::from_raw_os_error(errno)),
    }
}

/// Without a handler the signal would interrupt nothing.
fn see_to_handler() -> Result<(), Errno> {
    // SAFETY: all-zero bytes are valid for this C structure of integers and pointers.
    let mut action: libc::sigaction = unsafe { zeroed() };
    // SAFETY: only asks; the structure outlives the call.
    if unsafe { libc::sigaction(libc::SIGURG, std::ptr::null(), &raw mut action) } != 0 {
        return Err(last_errno());
    }
    if !matches!(action.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN) {
        return Ok(());
    }
    // SAFETY: as above.
    let mut ours: libc::sigaction = unsafe { zeroed() };
    ours.sa_sigaction = nothing as *const () as libc::sighandler_t;
    ours.sa_flags = libc::SA_RESTART;
    // SAFETY: the handler touches nothing, and the structure is whole and outlives the call.
    let set = unsafe { libc::sigaction(libc::SIGURG, &raw const ours, std::ptr::null_mut()) };
    if set == 0 { Ok(()) } else { Err(last_errno()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sysv::{self, Letter};
    use std::sync::mpsc::channel;
    use std::time::Duration;

    #[test]
    fn a_thread_comes_out_of_a_call_on_a_queue() {
        let queue =
            sysv::create(0x7074_0000 | (std::process::id() & 0xffff) as i32, 0o600).unwrap();
        let (done, is_done) = channel();
        let thread = std::thread::spawn(move || {
            only_interrupts();
            let result = sysv::receive(queue, &mut Letter::new(0), 0, true);
            done.send(result).unwrap();
        });
        let result = loop {
            interrupt(&thread).unwrap();
            if let Ok(result) = is_done.recv_timeout(Duration::from_millis(1)) {
                break result;
            }
        };
        assert_eq!(result, Err(Errno::INTR));
        thread.join().unwrap();
        sysv::remove(queue).unwrap();
    }
}
