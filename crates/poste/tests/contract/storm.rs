//! A storm of signals: SIGALRM a thousand times a second, with a handler that does nothing and does
//! not let the kernel restart the calls that it interrupts. Sources: setitimer(2), sigaction(2).

use std::time::Duration;

extern "C" fn nothing(_signal: libc::c_int) {}

/// Begins the storm, in this process, for good.
pub(crate) fn begin(every: Duration) {
    let every = libc::timeval {
        tv_sec: every.as_secs() as libc::time_t,
        tv_usec: libc::suseconds_t::from(every.subsec_micros()),
    };
    let timer = libc::itimerval { it_interval: every, it_value: every };
    // SAFETY: the handler touches nothing, and both structures are whole and outlive the calls.
    let done = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as libc::sighandler_t;
        libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut())
            | libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut())
    };
    assert_eq!(done, 0, "the storm begins");
}
