//! Another process, run one instruction at a time.
//!
//! A tracer is one thread: what started the process is what steps it, so the value stays in its
//! thread. The process is killed when the value is dropped, and when its tracer ends.
//!
//! Source: ptrace(2).

use std::io;
use std::marker::PhantomData;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::last_errno;

/// A process that stands still between two calls of [`Traced::run`].
#[derive(Debug)]
pub struct Traced {
    /// Where it was started to be traced; else somebody else has it.
    child: Option<Child>,
    /// What is stepped: the process's first thread, or another.
    number: libc::pid_t,
    /// The process.
    process: libc::pid_t,
    /// Its end was seen.
    is_over: bool,
    /// ptrace is for the thread that started it.
    _thread: PhantomData<*const ()>,
}

/// How far to run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// To the next signal, or its end.
    On,
    /// To the beginning or the end of a system call, whichever comes first.
    ToCall,
    /// One instruction.
    Step,
}

/// Why it stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// One instruction was run.
    Step,
    /// A system call begins or ends.
    Call,
    /// It was sent this signal, which is kept from it; one to halt or to go on is only kept from it.
    Signal(i32),
    /// It is over.
    Over,
}

/// A system call, as the registers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemCall {
    /// Which.
    pub number: i64,
    /// What it returned; at its beginning an error.
    pub result: i64,
}

impl Traced {
    /// Starts a command, and stops it at its first instruction.
    ///
    /// # Errors
    /// `EPERM` where the machine forbids tracing; what starting it said.
    pub fn start(command: &mut Command) -> io::Result<Traced> {
        let ask = || {
            let none = std::ptr::null_mut::<libc::c_void>();
            // SAFETY: this request takes no arguments and touches no memory.
            match unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, none, none) } {
                0 => Ok(()),
                _ => Err(io::Error::from(last_errno())),
            }
        };
        // SAFETY: the closure makes one system call and touches no memory, so it may run between fork and exec.
        unsafe { command.pre_exec(ask) };
        let child = command.spawn()?;
        let number = child.id() as libc::pid_t;
        let (child, process) = (Some(child), number);
        let mut traced = Traced { child, number, process, is_over: false, _thread: PhantomData };
        if traced.wait()? != Stop::Step {
            return Err(io::Error::other("it ended before its first instruction"));
        }
        let options = libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACESYSGOOD;
        traced.request(libc::PTRACE_SETOPTIONS as i32, 0, options as usize)?;
        Ok(traced)
    }

    /// Takes one thread of a process that runs already, and halts it; the others that are named here
    /// stand still from now on. Who started the process has to wait for its end.
    ///
    /// # Errors
    /// `EPERM` where the machine forbids tracing; `ESRCH` where one is gone.
    pub fn seize(process: i32, thread: i32, others: &[i32]) -> Result<Traced, Errno> {
        let of =
            |number| Traced { child: None, number, process, is_over: false, _thread: PhantomData };
        let halt = |mut traced: Traced| {
            let options = libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACESYSGOOD;
            let seized = traced
                .request(libc::PTRACE_SEIZE as i32, 0, options as usize)
                .and_then(|()| traced.request(libc::PTRACE_INTERRUPT as i32, 0, 0))
                .and_then(|()| traced.wait());
            match seized {
                Ok(_) => Ok(traced),
                Err(errno) => {
                    // It isn't ours to kill.
                    traced.is_over = true;
                    Err(errno)
                }
            }
        };
        for other in others {
            // It stands still as long as nobody lets it go on; the process's end is its end.
            halt(of(*other))?.is_over = true;
        }
        halt(of(thread))
    }

    /// Runs it so far, and says why it stands still.
    ///
    /// # Errors
    /// `ESRCH` where it is over.
    pub fn run(&mut self, how: Run) -> Result<Stop, Errno> {
        let request = match how {
            Run::On => libc::PTRACE_CONT,
            Run::ToCall => libc::PTRACE_SYSCALL,
            Run::Step => libc::PTRACE_SINGLESTEP,
        };
        loop {
            self.request(request as i32, 0, 0)?;
            match self.wait()? {
                // Somebody halts what else runs on this machine, or lets it go on.
                Stop::Signal(libc::SIGSTOP | libc::SIGCONT) => {}
                stop => return Ok(stop),
            }
        }
    }

    /// Kills it where it stands, and waits for its end.
    pub fn kill(&mut self) {
        // One that is over can't be killed any more.
        let _ = match &mut self.child {
            Some(child) => child.kill().is_ok(),
            // SAFETY: the call takes two numbers.
            None => unsafe { libc::kill(self.process, libc::SIGKILL) == 0 },
        };
        while !self.is_over {
            if self.wait().is_err() {
                break;
            }
        }
    }

    /// Lets it go on by itself.
    ///
    /// # Errors
    /// `ESRCH` where it is over.
    pub fn release(mut self) -> Result<(), Errno> {
        self.request(libc::PTRACE_DETACH as i32, 0, 0)?;
        self.is_over = true;
        Ok(())
    }

    /// Whether the next instruction is a system call.
    ///
    /// # Errors
    /// `ESRCH` where it is over.
    #[cfg(target_arch = "x86_64")]
    pub fn is_at_call(&self) -> Result<bool, Errno> {
        const SYSCALL: u64 = 0x050f;
        let word = self.peek(libc::PTRACE_PEEKTEXT as i32, self.place()? as usize)?;
        Ok(word & 0xffff == SYSCALL)
    }

    /// Where its next instruction lies.
    ///
    /// # Errors
    /// `ESRCH` where it is over.
    #[cfg(target_arch = "x86_64")]
    pub fn place(&self) -> Result<u64, Errno> {
        let counter = std::mem::offset_of!(libc::user_regs_struct, rip);
        self.peek(libc::PTRACE_PEEKUSER as i32, counter)
    }

    /// The system call that it stands at the beginning or the end of; where it stands before the
    /// instruction that makes one, the number is in `result`.
    ///
    /// # Errors
    /// `ESRCH` where it is over.
    #[cfg(target_arch = "x86_64")]
    pub fn call(&self) -> Result<SystemCall, Errno> {
        let peek = |register| self.peek(libc::PTRACE_PEEKUSER as i32, register);
        let number = peek(std::mem::offset_of!(libc::user_regs_struct, orig_rax))?;
        let result = peek(std::mem::offset_of!(libc::user_regs_struct, rax))?;
        Ok(SystemCall { number: number as i64, result: result as i64 })
    }

    #[cfg(target_arch = "x86_64")]
    fn peek(&self, request: i32, address: usize) -> Result<u64, Errno> {
        let mut word = 0_u64;
        // SAFETY: the call itself, unlike its wrapper, stores the word that it read, which outlives the call.
        let result = unsafe {
            libc::syscall(libc::SYS_ptrace, request, self.number, address, &raw mut word)
        };
        if result == 0 { Ok(word) } else { Err(last_errno()) }
    }

    fn request(&self, request: i32, address: usize, data: usize) -> Result<(), Errno> {
        let address = std::ptr::without_provenance_mut::<libc::c_void>(address);
        let data = std::ptr::without_provenance_mut::<libc::c_void>(data);
        // SAFETY: the requests that come here take numbers, and write no memory of ours.
        match unsafe { libc::ptrace(request as _, self.number, address, data) } {
            -1 => Err(last_errno()),
            _ => Ok(()),
        }
    }

    fn wait(&mut self) -> Result<Stop, Errno> {
        let pid = Pid::from_raw(self.number).ok_or(Errno::SRCH)?;
        let status = rustix::io::retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()))?;
        let Some((_, status)) = status else { return Err(Errno::SRCH) };
        const CALL: i32 = libc::SIGTRAP | 0x80;
        Ok(match status.stopping_signal() {
            Some(CALL) => Stop::Call,
            Some(libc::SIGTRAP) => Stop::Step,
            Some(signal) => Stop::Signal(signal),
            None => {
                self.is_over = true;
                Stop::Over
            }
        })
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        if !self.is_over {
            self.kill();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skip(reason: &str) {
        crate::testing::skip("a_process_is_run_step_by_step", reason);
    }

    #[test]
    fn a_process_is_run_step_by_step() {
        let mut traced = match Traced::start(&mut Command::new("true")) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                return skip("tracing is forbidden here");
            }
            started => started.unwrap(),
        };
        #[cfg(target_arch = "x86_64")]
        let mut places = Vec::new();
        for _ in 0..100 {
            #[cfg(target_arch = "x86_64")]
            places.push(traced.place().unwrap());
            assert_eq!(traced.run(Run::Step).unwrap(), Stop::Step);
        }
        #[cfg(target_arch = "x86_64")]
        assert!(places.windows(2).any(|two| two[0] != two[1]));
        assert_eq!(traced.run(Run::ToCall).unwrap(), Stop::Call);
        assert_eq!(traced.run(Run::On).unwrap(), Stop::Over);
        assert_eq!(traced.run(Run::On), Err(Errno::SRCH));
    }
}
