//! Peers: started, listened to, and ended by the tour; each with a deadline.
//!
//! A peer process dies with the tour. Sources: prctl(2) (PR_SET_PDEATHSIG).

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{ChildStderr, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum as _};
use poste::mechanism::Mechanism;
use poste::{Receiver, Sender};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use super::house;
use super::ledger::Fault;
use super::report::Report;
use super::roles::{Stage, Task, play};
use super::ways::{In, Out, is_inside};

/// How long a peer may take to answer: far more than anything here takes on a busy machine.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(5);

/// How long a peer that failed may take to say so.
const COMPLAINT_MAX: Duration = Duration::from_millis(100);

/// What a peer process is started with.
#[derive(Args, Debug)]
pub(crate) struct PeerArgs {
    #[command(flatten)]
    task: Task,
    /// The process that started it, with which it ends
    #[arg(long)]
    tour: i32,
    /// Where to receive
    #[arg(long)]
    from: Option<String>,
    /// Where to send
    #[arg(long)]
    to: Option<String>,
}

/// The life of a peer process.
pub(super) fn live(args: &PeerArgs) {
    // Should the tour have ended before this call, its signal never comes: hence the second look.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    if getppid().map(Pid::as_raw_pid) != Some(args.tour) {
        return;
    }
    let say = |report: &Report| {
        // The tour alone reads it, and when it is gone so is this process.
        let _ = std::io::stderr().write_all(format!("{report}\n").as_bytes());
    };
    let from = args.from.as_deref().unwrap_or_default();
    let stage = Stage {
        open_receiver: Box::new(move || match from {
            inherited if inherited.starts_with("fd:") => Receiver::open(inherited),
            address => Receiver::create(address),
        }),
        open_sender: args.to.as_deref().map(|address| Box::new(move || Sender::open(address)) as _),
        say: &say,
    };
    if let Err(Fault(why)) = play(&args.task, stage) {
        say(&Report::Failed(why));
    }
}

/// A peer that was started.
#[derive(Debug)]
pub(super) struct Peer {
    /// Its process number; `None`: a thread.
    id: Option<u32>,
    reports: mpsc::Receiver<Report>,
}

impl Peer {
    /// Starts one on its ends: a process, or where they are inside this one a thread.
    pub(super) fn start(
        mechanism: &Mechanism,
        task: Task,
        from: Option<In>,
        to: Out,
    ) -> Result<Peer, Fault> {
        let task = Task { may_lose: mechanism.capabilities.may_lose, ..task };
        let (reporter, reports) = mpsc::channel();
        if is_inside(mechanism) {
            std::thread::spawn(move || in_thread(&task, from, to, &reporter));
            return Ok(Peer { id: None, reports });
        }
        let (id, errors) = house::start(command(&task, from, to)?)?;
        std::thread::spawn(move || listen(errors, &reporter));
        Ok(Peer { id: Some(id), reports })
    }

    /// Waits until it receives: where.
    pub(super) fn ready(&self) -> Result<String, Fault> {
        match self.next(Instant::now() + ANSWER_MAX)? {
            Some(Report::Ready(address)) => Ok(address),
            other => Err(unexpected("ready", other.as_ref())),
        }
    }

    /// Waits until it has done its task, which takes `busy`: its numbers.
    pub(super) fn done<const N: usize>(&self, busy: Duration) -> Result<[u64; N], Fault> {
        let deadline = Instant::now() + busy + ANSWER_MAX;
        loop {
            match self.next(deadline)? {
                Some(Report::Done(numbers)) => {
                    let count = numbers.len();
                    let wrong = |_| Fault(format!("a peer said {count} numbers instead of {N}"));
                    return numbers.try_into().map_err(wrong);
                }
                Some(Report::Ready(_) | Report::Sent(_)) => {}
                other => return Err(unexpected("done", other.as_ref())),
            }
        }
    }

    /// Kills it, and says how many messages it had said were sent.
    pub(super) fn kill(&self) -> Result<u32, Fault> {
        self.id.into_iter().for_each(house::kill);
        let deadline = Instant::now() + ANSWER_MAX;
        let mut sent = 0;
        while let Some(report) = self.next(deadline)? {
            if let Report::Sent(count) = report {
                sent = count;
            }
        }
        Ok(sent)
    }

    /// Why it failed, where it said so.
    pub(super) fn complaint(&self) -> Option<Fault> {
        // A peer that fails says so at about the time when its message is missed.
        let deadline = Instant::now() + COMPLAINT_MAX;
        loop {
            match self.next(deadline) {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(fault) => return Some(fault).filter(|_| Instant::now() < deadline),
            }
        }
    }

    /// The next report; `None`: it is gone.
    fn next(&self, deadline: Instant) -> Result<Option<Report>, Fault> {
        match self.reports.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Report::Failed(why)) => Err(Fault(format!("a peer: {why}"))),
            Ok(report) => Ok(Some(report)),
            Err(mpsc::RecvTimeoutError::Disconnected) => Ok(None),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                Err(Fault(format!("a peer said nothing for {} s", ANSWER_MAX.as_secs())))
            }
        }
    }
}

/// The command line of a peer process, its ends as standard input and output.
fn command(task: &Task, from: Option<In>, to: Out) -> Result<Command, Fault> {
    let mut command = Command::new(std::env::current_exe()?);
    let role = task.role.to_possible_value();
    command.arg("tour-peer").args(role.map(|role| role.get_name().to_owned()));
    command.args(["--tour", &std::process::id().to_string()]);
    command.args(["--number", &task.number.to_string(), "--count", &task.count.to_string()]);
    command.args(["--milliseconds", &task.milliseconds.to_string()]);
    if let Some(processor) = task.processor {
        command.args(["--processor", &processor.to_string()]);
    }
    if task.may_lose {
        command.arg("--may-lose");
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    match from {
        Some(In::Address(address)) => drop(command.args(["--from", &address])),
        Some(In::End(end)) => {
            command.args(["--from", "fd:0"]).stdin(Stdio::from(end.into_descriptor()?));
        }
        None => {}
    }
    match to {
        Out::Address(address) => drop(command.args(["--to", &address])),
        Out::End(end) => {
            command.args(["--to", "fd:1"]).stdout(Stdio::from(end.into_descriptor()?));
        }
        Out::Hello => {}
    }
    Ok(command)
}

/// Passes on what a peer process reports, until it is gone.
fn listen(errors: Option<ChildStderr>, reporter: &mpsc::Sender<Report>) {
    let lines = errors.into_iter().flat_map(|errors| BufReader::new(errors).lines());
    for line in lines.map_while(Result::ok) {
        if reporter.send(Report::parse(&line)).is_err() {
            return;
        }
    }
}

/// The life of a peer that is a thread.
fn in_thread(task: &Task, from: Option<In>, to: Out, reporter: &mpsc::Sender<Report>) {
    // Where nobody listens the tour has given this thread up.
    let say = |report: &Report| drop(reporter.send(report.clone()));
    let stage = Stage {
        open_receiver: Box::new(move || match from {
            Some(from) => from.open(),
            None => Receiver::create(""),
        }),
        open_sender: match to {
            Out::Address(address) => Some(Box::new(move || Sender::open(address))),
            Out::End(end) => Some(Box::new(move || Ok(*end))),
            Out::Hello => None,
        },
        say: &say,
    };
    if let Err(Fault(why)) = play(task, stage) {
        say(&Report::Failed(why));
    }
}

fn unexpected(awaited: &str, report: Option<&Report>) -> Fault {
    match report {
        Some(report) => Fault(format!("a peer said {report:?} instead of {awaited}")),
        None => Fault(format!("a peer was gone before it was {awaited}")),
    }
}
