//! Other processes: this program again, started in a role. Each dies with the trial's thread, and is
//! killed when its value is dropped; no answer is waited for longer than [`LIMIT`].

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::operations::Operation;
use crate::tally::seed;

/// How long anything may take: what takes longer hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

const ROLE: &str = "POSTE_ROLE";

/// The mailbox of a trial, with an operation's settings.
pub(crate) fn address(operation: &Operation) -> String {
    let joined = if operation.settings.is_empty() { '?' } else { '&' };
    format!("shm:m{}{joined}spin=never", operation.settings)
}

/// The role that this process has, and what it needs to know. It dies with the thread that started it.
pub(crate) fn role() -> Option<(String, Vec<String>)> {
    let role = std::env::var(ROLE).ok()?;
    let kill = Some(Signal::KILL);
    rustix::process::set_parent_process_death_signal(kill).expect("a signal that exists");
    Some((role, std::env::args().skip(1).collect()))
}

/// A command that starts this program in a role, with a runtime directory.
pub(crate) fn command(runtime: &Path, role: &str, words: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("/proc is mounted"));
    command.env(ROLE, role).env("POSTE_DIR", runtime).env("POSTE_SEED", seed().to_string());
    command.args(words).stdin(Stdio::piped());
    command
}

/// Another process that answers in lines.
pub(crate) struct Partner {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Partner {
    pub(crate) fn start(runtime: &Path, role: &str, words: &[&str]) -> Partner {
        let mut command = command(runtime, role, words);
        let mut child =
            command.stdout(Stdio::piped()).spawn().expect("this program can be started again");
        let input = child.stdin.take().expect("it was asked for");
        let output = BufReader::new(child.stdout.take().expect("it was asked for"));
        let (sender, lines) = channel();
        // It ends with the process.
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok());
        });
        Partner { child, input, lines }
    }

    pub(crate) fn tell(&mut self, line: &str) -> Result<(), String> {
        writeln!(self.input, "{line}").map_err(|error| format!("{line}: {error}"))
    }

    /// The next line that it says.
    ///
    /// # Errors
    /// It hangs, or has ended.
    pub(crate) fn hear(&mut self) -> Result<String, String> {
        self.hear_within(LIMIT)
    }

    pub(crate) fn hear_within(&mut self, time: Duration) -> Result<String, String> {
        self.lines.recv_timeout(time).map_err(|_| match self.child.try_wait() {
            Ok(None) => format!("a process hangs: no answer within {time:?}"),
            over => format!("a process ended: {over:?}"),
        })
    }

    /// What it has said already.
    pub(crate) fn said(&mut self) -> impl Iterator<Item = String> {
        self.lines.try_iter()
    }

    pub(crate) fn expect(&mut self, line: &str) -> Result<(), String> {
        match self.hear()? {
            said if said == line => Ok(()),
            said => Err(format!("a process said {said:?} and not {line:?}")),
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("it is there");
    }

    /// Stops it, and comes back when it stands still.
    pub(crate) fn stop(&self) -> Result<(), String> {
        self.signal(Signal::STOP);
        self.until("it doesn't stop", |stat, _| stat == 'T')
    }

    /// Comes back when it sleeps on a futex.
    pub(crate) fn until_asleep(&self) -> Result<(), String> {
        const FUTEX: &str = "202 ";
        self.until("it doesn't sleep", |stat, call| stat == 'S' && call.starts_with(FUTEX))
    }

    /// Its process, and the thread in it that hears of deaths. A new thread names itself, where the
    /// machine is busy after its maker sleeps.
    pub(crate) fn watcher(&self) -> Result<(i32, i32), String> {
        let process = self.child.id();
        let tasks = format!("/proc/{process}/task");
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while std::time::Instant::now() < end {
            for task in std::fs::read_dir(&tasks).map_err(|error| error.to_string())?.flatten() {
                let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
                let number = task.file_name().to_string_lossy().parse();
                if let (true, Ok(number)) = (name.trim() == "poste-watcher", number) {
                    return Ok((process as i32, number));
                }
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        Err("who sleeps has no watcher".to_owned())
    }

    fn until(&self, fault: &str, is_so: impl Fn(char, &str) -> bool) -> Result<(), String> {
        let of = |what| std::fs::read_to_string(format!("/proc/{}/{what}", self.child.id()));
        let end = Instant::now() + LIMIT;
        while Instant::now() < end {
            let stat = of("stat").unwrap_or_default();
            let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
            if is_so(state.unwrap_or('?'), &of("syscall").unwrap_or_default()) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        Err(fault.to_owned())
    }

    pub(crate) fn kill(&mut self) {
        // One that is over can't be killed any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until it is over by itself.
    pub(crate) fn finish(&mut self) -> Result<(), String> {
        let end = Instant::now() + LIMIT;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(None) if Instant::now() < end => {
                    std::thread::sleep(Duration::from_micros(200));
                }
                Ok(None) => return Err("a process doesn't end".to_owned()),
                other => return Err(format!("a process failed: {other:?}")),
            }
        }
    }
}

impl Drop for Partner {
    fn drop(&mut self) {
        self.kill();
    }
}
