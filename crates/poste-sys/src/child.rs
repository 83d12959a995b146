//! Children that end with the process that started them, and everything that they started too.
//!
//! The kernel kills a child when its parent ends (PR_SET_PDEATHSIG), but not the child's own children.
//! So a guard stands between: a process that runs nothing, holds nothing open, and inherits whoever
//! loses its parent below it (PR_SET_CHILD_SUBREAPER). When the parent ends it kills them all; when
//! the command ends it ends the same way; a signal that is sent to it reaches the command.
//!
//! ```text
//! parent ── guard ── command ── …     the parent sees the guard, which ends as the command did
//! ```
//!
//! A guard that is killed takes the command along, not what that started; a program of another user
//! (set-user-ID) may stay, and then the guard stays with it.
//! Sources: prctl(2) (PR_SET_PDEATHSIG, with its warning: the signal comes when the *thread* ends that
//! started the child, so that has to be one that stays), signal-safety(7), proc_pid_task(5), clone(2).

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;

use libc::{c_int, c_long, c_ulong, pid_t, siginfo_t, sigset_t};

/// Ends the command, and what it starts, when the calling thread ends, however it ends (SIGKILL). A
/// command whose parent is gone before it could ask for that does not start. The child that is
/// started is the command's guard: it ends as the command does and passes signals on to it.
pub fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    // Nobody else uses the last one; libc says which that is, and is not asked after a fork.
    let gone = libc::SIGRTMAX();
    // SAFETY: the closure and what it calls make system calls and touch no memory but their own
    // stack, so that it may run between fork and exec.
    unsafe { command.pre_exec(move || stand_between(parent as pid_t, gone)) };
}

/// Forks: the child returns and becomes the command, the other one stays as its guard.
fn stand_between(parent: pid_t, gone: c_int) -> io::Result<()> {
    let everything = full_set();
    let mut mask = MaybeUninit::<sigset_t>::uninit();
    // SAFETY: both sets outlive the call. The parent's handlers must not run here.
    check(unsafe {
        libc::sigprocmask(libc::SIG_SETMASK, &raw const everything, mask.as_mut_ptr())
    })?;
    // SAFETY: sigprocmask succeeded and filled it.
    let mask = unsafe { mask.assume_init() };
    tie(parent, gone)?;
    // SAFETY: this call takes a number. Not all kernels have it; then what is orphaned stays.
    let _ = unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1 as c_ulong) };
    // Who ignores SIGCHLD never learns how its children ended.
    let inherited = default_action(libc::SIGCHLD);
    // SAFETY: getpid takes nothing and never fails.
    let guard = unsafe { libc::getpid() };
    match fork()? {
        0 => {
            // SAFETY: both are what these calls have just given out, and outlive them.
            unsafe {
                libc::sigaction(libc::SIGCHLD, &raw const inherited, ptr::null_mut());
                check(libc::sigprocmask(libc::SIG_SETMASK, &raw const mask, ptr::null_mut()))?;
            }
            tie(guard, libc::SIGKILL)
        }
        command => watch(command, gone, &everything),
    }
}

/// Has the kernel send this signal when the parent ends, unless it has ended already.
fn tie(parent: pid_t, signal: c_int) -> io::Result<()> {
    // SAFETY: the call takes a number.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal as c_ulong) })?;
    // SAFETY: getppid takes nothing and never fails.
    if unsafe { libc::getppid() } == parent {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::ESRCH))
    }
}

/// fork(2) without what the C library does around it, which is not for a child of many threads.
fn fork() -> io::Result<pid_t> {
    let signal = c_long::from(libc::SIGCHLD);
    // On s390x the new stack comes first, everywhere else the flags.
    let (first, second) = if cfg!(target_arch = "s390x") { (0, signal) } else { (signal, 0) };
    // SAFETY: without flags and without a stack it is fork: a copy of this one thread.
    let child = unsafe { libc::syscall(libc::SYS_clone, first, second, 0, 0, 0) };
    if child < 0 { Err(io::Error::last_os_error()) } else { Ok(child as pid_t) }
}

/// What a guard does, until the command or the parent ends.
fn watch(command: pid_t, gone: c_int, everything: &sigset_t) -> ! {
    close_all();
    // SAFETY: the name is a string with its end, which the kernel copies.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"poste-guard".as_ptr()) };
    loop {
        let mut info = MaybeUninit::<siginfo_t>::zeroed();
        // SAFETY: the set is whole, the information outlives the call, and all signals are blocked.
        let signal = unsafe { libc::sigwaitinfo(everything, info.as_mut_ptr()) };
        // SAFETY: zeroed bytes are valid for it, and so is what the kernel writes.
        let code = unsafe { info.assume_init() }.si_code;
        if signal == gone {
            kill_all(command);
        } else if signal == libc::SIGCHLD {
            reap(command);
        } else if signal > 0 && code != libc::SI_KERNEL {
            // What the terminal sends, the command has got too. It isn't waited for yet, so the
            // number is still its own.
            // SAFETY: kill takes numbers.
            unsafe { libc::kill(command, signal) };
        }
    }
}

/// Notes who has ended; ends with the command.
fn reap(command: pid_t) {
    let mut status = 0;
    loop {
        // SAFETY: the status outlives the call.
        match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) } {
            ended if ended == command => end_as(status),
            1.. => {}
            _ => return,
        }
    }
}

/// The parent is gone: kills the command and all that descends from it. Who loses its parent by that
/// becomes this process's child, so that nobody is left when there is no child any more.
fn kill_all(command: pid_t) -> ! {
    loop {
        let mut text = [0; 4096];
        match children(&mut text) {
            Some(text) => text.split(|byte| !byte.is_ascii_digit()).for_each(kill),
            // SAFETY: kill takes numbers.
            None => _ = unsafe { libc::kill(command, libc::SIGKILL) },
        }
        // SAFETY: the status may be null.
        if unsafe { libc::waitpid(-1, ptr::null_mut(), 0) } < 0 {
            end(128 + libc::SIGKILL);
        }
    }
}

/// The numbers of this process's children, as the kernel writes them; a row too long for the room
/// is read on when those at its beginning have ended.
fn children(room: &mut [u8]) -> Option<&[u8]> {
    let path = c"/proc/thread-self/children";
    // SAFETY: the path is a string with its end, the room is borrowed exclusively, and the number is
    // that of the file just opened.
    let count = unsafe {
        let file = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if file < 0 {
            return None;
        }
        let count = libc::read(file, room.as_mut_ptr().cast(), room.len());
        libc::close(file);
        count
    };
    let text = &room[..usize::try_from(count).ok()?];
    // The last number may be cut short, and would be another's: each is followed by a space.
    let end = text.iter().rposition(|byte| *byte == b' ').unwrap_or(0);
    Some(&text[..end])
}

fn kill(number: &[u8]) {
    let digits = number.iter().map(|digit| pid_t::from(digit - b'0'));
    let pid = digits.fold(0, |number: pid_t, digit| number.wrapping_mul(10).wrapping_add(digit));
    if pid > 1 {
        // SAFETY: kill takes numbers. It is a child that is not waited for yet.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
}

/// Ends as the command did, so that the parent sees that.
fn end_as(status: c_int) -> ! {
    if libc::WIFEXITED(status) {
        end(libc::WEXITSTATUS(status));
    }
    let signal = libc::WTERMSIG(status);
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    default_action(signal);
    // SAFETY: the limit and the set outlive the calls, the rest are numbers. The core is the command's.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        libc::kill(libc::getpid(), signal);
        let mut unblocked = full_set();
        libc::sigdelset(&raw mut unblocked, signal);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const unblocked, ptr::null_mut());
    }
    end(128 + signal)
}

fn end(code: c_int) -> ! {
    // SAFETY: it takes any number, and what the parent's program wants done at its end is not done.
    unsafe { libc::_exit(code) }
}

/// A guard holds nothing open: nobody waits for an end because of it.
fn close_all() {
    // SAFETY: this process is a copy that owns no descriptor that anybody here would use again.
    unsafe {
        if libc::syscall(libc::SYS_close_range, 0, u32::MAX as c_long, 0) == 0 {
            return;
        }
        // Linux before 5.9.
        let mut limit = libc::rlimit { rlim_cur: 1024, rlim_max: 1024 };
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        (0..limit.rlim_cur.min(1 << 20)).for_each(|number| _ = libc::close(number as c_int));
    }
}

/// Sets what a signal does to its default; returns what it did.
fn default_action(signal: c_int) -> libc::sigaction {
    let (mut action, mut old) = (MaybeUninit::zeroed(), MaybeUninit::zeroed());
    // SAFETY: all-zero bytes are valid for this structure of numbers, and mean the default; both
    // outlive the call.
    unsafe {
        libc::sigaction(signal, action.as_mut_ptr(), old.as_mut_ptr());
        old.assume_init()
    }
}

fn full_set() -> sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigfillset fills it.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        set.assume_init()
    }
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Stdio;

    fn guarded(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped());
        die_with_parent(&mut command);
        command
    }

    #[test]
    fn a_guard_ends_as_its_command_did() {
        let status = |script: &str| guarded(script).status().unwrap();
        assert_eq!(status("exit 0").code(), Some(0));
        assert_eq!(status("exit 7").code(), Some(7));
        for signal in [libc::SIGKILL, libc::SIGTERM, libc::SIGSEGV, libc::SIGPIPE] {
            assert_eq!(status(&format!("kill -{signal} $$")).signal(), Some(signal));
        }
        let mut absent = Command::new("/nowhere/at/all");
        die_with_parent(&mut absent);
        assert_eq!(absent.spawn().unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_signal_reaches_the_command_through_its_guard() {
        let script = "trap 'echo caught; exit 5' TERM; echo ready; while :; do sleep 0.01; done";
        let mut child = guarded(script).spawn().unwrap();
        let mut output = child.stdout.take().unwrap();
        output.read_exact(&mut [0; 6]).unwrap();
        let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), child.wait().unwrap().code()), ("caught\n", Some(5)));
    }

    #[test]
    fn a_guard_holds_nothing_open() {
        let mut child = guarded("read -r line").stdin(Stdio::piped()).spawn().unwrap();
        let open = || std::fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap().count();
        // It may not have been given its turn since it forked.
        for _ in 0..1000 {
            if open() == 0 {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert_eq!(open(), 0);
        drop(child.stdin.take());
        assert_eq!(child.wait().unwrap().code(), Some(1));
    }
}
