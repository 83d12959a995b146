//! `poste semaphore`: makes, takes, gives, looks at and takes away POSIX semaphores, and runs a
//! command under one.
//!
//! `hold` takes its permit with a record, so that a later `gc` can prove it lost. From the moment
//! it may have the permit until it has given it back, signals don't end poste: while it waits for
//! the permit they are noted, and while the command runs the command gets them.
//! Sources: sem_overview(7), waitid(2).

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use poste::{Error, Kind, Permit, Wait};
use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::args::direct::{Semaphore, SemaphoreCreate, SemaphoreHold, SemaphoreWait};
use crate::exit::{Code, Failure, Stop};
use crate::output::Output;
use crate::{resolve, signals};

/// How long a signal that is noted waits at most.
const TURN: Duration = Duration::from_millis(100);

/// How often a name may go and come back before that is an error.
const TRIES: usize = 10;

/// Does what was asked for.
pub(crate) fn run(args: &Semaphore) -> Result<(), Stop> {
    match args {
        Semaphore::Create(args) => create(args),
        Semaphore::Wait(args) => wait(args),
        Semaphore::Post(args) => Ok(open(&args.name)?.post()?),
        Semaphore::Value(args) => value(&open(&args.name)?),
        Semaphore::Remove(args) => Ok(poste::Semaphore::remove(&args.name)?),
        Semaphore::Hold(args) => hold(args),
    }
}

fn open(name: &str) -> Result<poste::Semaphore, Error> {
    poste::Semaphore::open(name)
}

fn create(args: &SemaphoreCreate) -> Result<(), Stop> {
    poste::Semaphore::create_with(&args.name, args.value, args.mode)?;
    Ok(())
}

fn value(semaphore: &poste::Semaphore) -> Result<(), Stop> {
    let mut out = Output::open();
    out.write(format!("{}\n", semaphore.value()).as_bytes())?;
    out.flush()
}

fn wait(args: &SemaphoreWait) -> Result<(), Stop> {
    let semaphore = open(&args.name)?;
    signals::note();
    take(args.timeout, |wait| semaphore.wait_with(wait))?;
    Ok(())
}

/// Runs the command under a permit.
fn hold(args: &SemaphoreHold) -> Result<(), Stop> {
    let semaphore = if args.create { open_or_create(&args.name) } else { open(&args.name) }?;
    signals::note();
    let permit = take(args.timeout, |wait| Permit::take(&semaphore, wait))?;
    let ended = run_under(&permit, args);
    permit.give_back()?;
    Ok(ended?)
}

fn open_or_create(name: &str) -> Result<poste::Semaphore, Error> {
    for _ in 0..TRIES {
        match poste::Semaphore::create(name, 1) {
            Err(error) if matches!(error.kind(), Kind::NameInUse { .. }) => {}
            done => return done,
        }
        match open(name) {
            Err(error) if error.kind() == Kind::NotFound => {}
            done => return done,
        }
    }
    open(name)
}

/// Takes a permit, and looks now and then whether a signal was noted: then it ends the program, which
/// has taken nothing.
fn take<T>(
    timeout: Option<Duration>,
    mut take: impl FnMut(Wait) -> Result<T, Error>,
) -> Result<T, Error> {
    let wait = resolve::within(timeout).begin();
    loop {
        if let Some(signal) = signals::noted() {
            signals::end(signal);
        }
        let left = wait.left();
        let is_last = left.is_some_and(|left| left <= TURN);
        let turn = if is_last { wait } else { Wait::For(TURN) };
        match take(turn) {
            Err(error) if !is_last && error.kind() == Kind::TimedOut => {}
            done => return done,
        }
    }
}

/// Starts the command, passes signals on to it, and says how it ended.
fn run_under(permit: &Permit<'_>, args: &SemaphoreHold) -> Result<(), Failure> {
    let shown = args.command[0].to_string_lossy();
    let mut command = Command::new(&args.command[0]);
    command.args(&args.command[1..]);
    let mut child = permit.spawn(&mut command).map_err(|error| {
        let code = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
        let what = format!("cannot run {shown} under {}: {error}", args.name);
        Failure::of_command(code, what, "check its path; the permit was given back")
    })?;
    let status = end_of(&mut child).map_err(|error| {
        let what = format!("cannot wait for {shown}: {error}");
        Failure::new(Code::Failed, what, "look for it: ps; the permit was given back")
    })?;
    match code_of(status) {
        0 => Ok(()),
        code => {
            let what = format!("the command {shown} under {} ended with {status}", args.name);
            Err(Failure::of_command(
                code,
                what,
                "what it wrote says why; the permit was given back",
            ))
        }
    }
}

/// Waits for the command. Its number belongs to it until it is waited for, and till then it gets the
/// signals.
fn end_of(child: &mut Child) -> std::io::Result<ExitStatus> {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        signals::pass_to(pid);
        let only_look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while matches!(waitid(WaitId::Pid(pid), only_look), Err(Errno::INTR)) {}
        signals::note();
    }
    child.wait()
}

/// The exit code that a shell gives it.
fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(Code::Failed as u8)
}
