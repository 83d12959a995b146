//! What only tests need, and what needs `unsafe`: not part of what this crate promises.
//!
//! Sources: setitimer(2), sigaction(2), signal(7), fork(2).

use std::io::Write as _;
use std::time::Duration;

pub mod trace;

extern "C" fn nothing(_signal: libc::c_int) {}

/// Begins a storm of SIGALRM in this process, for good, with a handler that does nothing and does
/// not let the kernel restart the calls that it interrupts.
///
/// # Panics
/// Where the system refuses.
pub fn begin_signal_storm(every: Duration) {
    let every = libc::timeval {
        tv_sec: every.as_secs() as libc::time_t,
        tv_usec: libc::suseconds_t::from(every.subsec_micros()),
    };
    let timer = libc::itimerval { it_interval: every, it_value: every };
    // SAFETY: all-zero bytes are valid for this C structure of integers and pointers.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as *const () as libc::sighandler_t;
    // SAFETY: the handler touches nothing, and the structure is whole and outlives the call.
    let handled =
        unsafe { libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()) };
    // SAFETY: the timer is whole and outlives the call.
    let set = unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) };
    assert_eq!((handled, set), (0, 0), "the storm begins");
}

/// Sends SIGURG to the first thread of this process, whose number is given, and to no other: another
/// thread may take a signal that is for the process.
///
/// # Panics
/// Where it isn't this process's number.
pub fn mark(process: u32) {
    let number = process as libc::c_long;
    let signal = libc::c_long::from(libc::SIGURG);
    // SAFETY: the call takes three numbers and touches no memory.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, number, number, signal) };
    assert_eq!(sent, 0, "this process can be sent a signal");
}

/// Says that a test, or a part of it, was left out: on standard error, and in the file that
/// `POSTE_SKIPPED` names.
///
/// # Panics
/// Where that file can't be written.
pub fn skip(test: &str, reason: &str) {
    let line = format!("SKIPPED: {test}: {reason}\n");
    eprint!("{line}");
    if let Some(path) = std::env::var_os("POSTE_SKIPPED") {
        let file = std::fs::File::options().append(true).create(true).open(path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).expect("it is noted");
    }
}

/// Gives SIGPIPE the effect that it has in a program which says nothing about it, for good.
///
/// # Panics
/// Where the system refuses.
pub fn let_broken_pipes_kill() {
    // SAFETY: the default action is no function, and nothing else of the process changes.
    let before = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    assert_ne!(before, libc::SIG_ERR, "SIGPIPE can be set");
}

/// Forks a child that runs this, and waits for it: what it returned. The child ends without running
/// anything else; only the thread that calls lives on in it. To be called where the only other
/// thread is a test program's first, which waits for the test and holds no lock.
///
/// # Panics
/// Where the process has further threads, whose locks the child could wait for, or the system
/// refuses.
#[must_use]
pub fn in_a_forked_child(run: impl FnOnce() -> i32) -> i32 {
    let threads = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    assert!((1..=2).contains(&threads), "nobody else may hold a lock");
    // SAFETY: no other thread holds a lock, as said above, so the child waits for nobody that it lacks.
    match unsafe { libc::fork() } {
        0 => {
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or(101);
            // SAFETY: _exit takes any number and touches no memory.
            unsafe { libc::_exit(code) }
        }
        child => {
            let mut status = 0;
            // SAFETY: the status outlives the call, and the child is ours.
            let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
            assert_eq!(waited, child, "the child is waited for");
            libc::WEXITSTATUS(status)
        }
    }
}

/// Forks a child that runs this and ends without running anything else: its number. Who calls waits
/// for its end.
///
/// # Panics
/// Where the process has other threads, whose locks the child could wait for, or the system refuses.
#[must_use]
pub fn fork(run: impl FnOnce()) -> u32 {
    let threads = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    assert_eq!(threads, 1, "nobody else may hold a lock");
    // SAFETY: there is no other thread, as said above, so the child waits for no lock that it lacks.
    match unsafe { libc::fork() } {
        0 => {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
            // SAFETY: _exit takes any number and touches no memory.
            unsafe { libc::_exit(if result.is_ok() { 0 } else { 101 }) }
        }
        pid => u32::try_from(pid).expect("a child is forked"),
    }
}

/// Forks a child without exec: it keeps every descriptor and lock that it inherits and does nothing,
/// for so long at most. Returns its number.
///
/// # Panics
/// Where the system refuses.
#[must_use]
pub fn fork_and_sleep(time: Duration) -> u32 {
    let seconds = libc::c_uint::try_from(time.as_secs()).unwrap_or(libc::c_uint::MAX);
    // SAFETY: the child makes only calls that are safe after a fork of one thread (signal-safety(7))
    // and never returns.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: sleep and _exit take any number and touch no memory.
            unsafe {
                libc::sleep(seconds);
                libc::_exit(0)
            }
        }
        pid => u32::try_from(pid).expect("a child is forked"),
    }
}
