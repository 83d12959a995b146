//! A mailbox with everybody who is there before an operation begins, and the process that does it,
//! standing at its first instruction.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use poste_sys::testing::trace::{Run, Stop, Traced};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::image;
use crate::operations::{Fate, Operation};
use crate::partner::{self, LIMIT, Partner, address};
use crate::party::MARK;

/// Who was there before.
pub(crate) struct Cast(Vec<(Partner, Fate)>);

/// Whether the living go on while the operation is stepped, or stand still so that copies are whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Others {
    StandStill,
    GoOn,
}

/// The folder of the mailbox below a runtime directory.
pub(crate) fn folder(runtime: &Path) -> PathBuf {
    runtime.join("shm/m")
}

/// Makes the mailbox.
pub(crate) fn make(runtime: &Path, operation: &Operation) -> Result<(), String> {
    let address = address(operation);
    Partner::start(runtime, "play", &[&address, "0", "create", ""]).expect("done")
}

impl Cast {
    /// Has everybody play their part.
    pub(crate) fn play(
        runtime: &Path,
        operation: &Operation,
        base: u32,
        others: Others,
    ) -> Result<Cast, String> {
        let address = address(operation);
        let mut cast = Cast(Vec::new());
        for (script, fate) in operation.cast {
            if *fate == Fate::Sleeps && others == Others::GoOn {
                continue;
            }
            let words = [&address, &base.to_string(), *script, ""];
            let mut partner = Partner::start(runtime, "play", &words);
            match fate {
                Fate::Lives | Fate::Dies => partner.expect("done")?,
                Fate::Dead => {
                    partner.expect("done")?;
                    partner.kill();
                }
                Fate::Waits | Fate::Sleeps => {
                    partner.expect("blocks")?;
                    partner.until_asleep()?;
                    until_announced(&folder(runtime))?;
                    if others == Others::StandStill {
                        partner.stop()?;
                    }
                }
            }
            cast.0.push((partner, *fate));
        }
        Ok(cast)
    }

    /// Kills those who are to be dead when the operation begins.
    pub(crate) fn meet_fate(&mut self) {
        for (partner, fate) in &mut self.0 {
            if *fate == Fate::Dies {
                partner.kill();
            }
        }
    }
}

/// Comes back when somebody has announced that they wait.
fn until_announced(folder: &Path) -> Result<(), String> {
    let end = std::time::Instant::now() + LIMIT;
    while std::time::Instant::now() < end {
        let asleep = image::Header::read(folder)?.is_some_and(|header| header.asleep() > 0);
        if asleep || image::is_wanted(folder) {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_micros(100));
    }
    Err("who waits doesn't say so".to_owned())
}

/// What is stepped where it is no script: the thread of a sleeping process that hears of deaths.
const WATCHER: &str = "the watcher";

/// The numbers of epoll_wait(2), epoll_pwait and epoll_pwait2.
const EPOLL_WAITS: [i64; 3] = [232, 281, 441];

/// The process that is stepped, standing at the mark.
pub(crate) struct Stepped {
    pub(crate) traced: Traced,
    /// How many system calls it has done since the mark, and how many instructions since the last.
    pub(crate) at: Position,
    /// The process whose watcher is stepped, where that is what is stepped.
    host: Option<Partner>,
}

/// A boundary between two instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) calls: usize,
    pub(crate) steps: usize,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Went {
    /// To the next boundary; it was a system call.
    Call,
    /// To the next boundary.
    Plain,
    /// To the mark at the end.
    ToTheEnd,
}

impl Stepped {
    /// Starts a process that plays a script, and runs it to the mark.
    pub(crate) fn start(
        runtime: &Path,
        operation: &Operation,
        base: u32,
    ) -> Result<Stepped, String> {
        if operation.stepped == WATCHER {
            return Stepped::start_watcher(runtime, operation, base);
        }
        let words = [&address(operation), &base.to_string(), operation.ready, operation.stepped];
        Stepped::start_role(runtime, "play", &words)
    }

    pub(crate) fn start_role(
        runtime: &Path,
        role: &str,
        words: &[&str],
    ) -> Result<Stepped, String> {
        let mut command = partner::command(runtime, role, words);
        let mut traced = Traced::start(command.stdout(Stdio::null())).map_err(|e| e.to_string())?;
        match traced.run(Run::On) {
            Ok(Stop::Signal(MARK)) => Ok(Stepped { traced, at: Position::default(), host: None }),
            other => Err(format!("the process doesn't come to its mark: {other:?}")),
        }
    }

    /// Starts a process that plays a script and then sleeps, and halts it: its watcher waits for the
    /// ends of others.
    fn start_watcher(runtime: &Path, operation: &Operation, base: u32) -> Result<Stepped, String> {
        let words = [&address(operation), &base.to_string(), operation.ready, ""];
        let mut host = Partner::start(runtime, "play", &words);
        host.expect("blocks")?;
        host.until_asleep()?;
        until_announced(&folder(runtime))?;
        let (process, watcher) = host.watcher()?;
        let traced = Traced::seize(process, watcher, &[process]).map_err(|e| e.to_string())?;
        Ok(Stepped { traced, at: Position::default(), host: Some(host) })
    }

    /// Runs a watcher to where it has heard of an end, once that has come.
    pub(crate) fn begin(&mut self) -> Result<(), String> {
        while self.host.is_some() {
            match self.traced.run(Run::ToCall) {
                Ok(Stop::Call) => {}
                other => return Err(format!("the watcher doesn't wait: {other:?}")),
            }
            // At its beginning a call has no result yet.
            let call = self.traced.call().map_err(|errno| errno.to_string())?;
            if EPOLL_WAITS.contains(&call.number) && call.result > 0 {
                break;
            }
        }
        Ok(())
    }

    /// Runs one instruction.
    pub(crate) fn step(&mut self) -> Result<Went, String> {
        let is_call = self.traced.is_at_call().map_err(|errno| errno.to_string())?;
        if is_call && self.host.is_some() {
            let call = self.traced.call().map_err(|errno| errno.to_string())?;
            if EPOLL_WAITS.contains(&call.result) {
                return Ok(Went::ToTheEnd);
            }
        }
        match self.traced.run(Run::Step) {
            Ok(Stop::Step) if is_call => {
                self.at = Position { calls: self.at.calls + 1, steps: 0 };
                Ok(Went::Call)
            }
            Ok(Stop::Step) => {
                self.at.steps += 1;
                Ok(Went::Plain)
            }
            Ok(Stop::Signal(MARK)) => Ok(Went::ToTheEnd),
            other => Err(format!("the process doesn't come to its end: {other:?}")),
        }
    }

    /// Runs to a boundary, past system calls without a stop at each instruction: whether the end
    /// didn't come before.
    pub(crate) fn go_to(&mut self, to: Position) -> Result<bool, String> {
        // Each has a beginning and an end.
        for _ in 0..to.calls * 2 {
            match self.traced.run(Run::ToCall) {
                Ok(Stop::Call) => {}
                Ok(Stop::Signal(MARK)) => return Ok(false),
                other => return Err(format!("the process doesn't come to its end: {other:?}")),
            }
        }
        for _ in 0..to.steps {
            match self.traced.run(Run::Step) {
                Ok(Stop::Step) => {}
                Ok(Stop::Signal(MARK)) => return Ok(false),
                other => return Err(format!("the process doesn't come to its end: {other:?}")),
            }
        }
        self.at = to;
        Ok(true)
    }
}

/// Which processors a thread, and all that it starts, runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Processors {
    /// One: a step is a change from one process to the other, which is three times as fast there.
    One,
    /// All that this program was given.
    All,
}

impl Processors {
    /// Has this thread run there. Where the system refuses, it is only slower.
    pub(crate) fn choose(self) {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        static ALL: OnceLock<Vec<usize>> = OnceLock::new();
        thread_local! {
            static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed);
        }
        let all = ALL.get_or_init(|| {
            let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
            (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
        });
        let mut set = CpuSet::new();
        match self {
            Processors::One if all.is_empty() => return,
            Processors::One => set.set(all[MINE.with(|mine| *mine) % all.len()]),
            Processors::All => all.iter().for_each(|cpu| set.set(*cpu)),
        }
        let _ = sched_setaffinity(None, &set);
    }
}
