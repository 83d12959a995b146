//! Children that end with the process that started them.
//!
//! Sources: prctl(2) (PR_SET_PDEATHSIG), and its warning: the signal comes when the *thread* ends
//! that started the child, so that has to be one that stays. A program with more rights than its
//! caller (set-user-ID) doesn't get it, and neither do the child's own children.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Has the kernel kill the command (SIGKILL) when the calling thread ends, however it ends. A
/// command whose parent is gone before it could ask for that does not start.
pub fn die_with_parent(command: &mut Command) {
    let parent = rustix::process::getpid();
    let ask = move || {
        let signal = rustix::process::Signal::KILL;
        rustix::process::set_parent_process_death_signal(Some(signal))?;
        if rustix::process::getppid() == Some(parent) {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::ESRCH))
        }
    };
    // SAFETY: the closure makes two system calls and touches no memory but its own, so it may run
    // between fork and exec.
    unsafe { command.pre_exec(ask) };
}
