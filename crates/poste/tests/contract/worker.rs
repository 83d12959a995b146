//! Helpers: this program again, as a writer or a reader of a channel, in a process of its own; in a
//! thread where the mechanism doesn't leave the process. What a helper has done it says line by
//! line, at once: as a process on its standard error, since its standard input or output may be the
//! channel itself.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use poste::{Identity, Level, Options, Receiver, Sender};
use rustix::process::Signal;

use crate::clauses;
use crate::fixture::Channel;
use crate::letters::{Checker, Letters};

const ROLE: &str = "POSTE_CONTRACT_ROLE";
const ADDRESS: &str = "POSTE_CONTRACT_ADDRESS";
const JOB: &str = "POSTE_CONTRACT_JOB";

/// The user and the group of those that are nobody's friends.
pub(crate) const STRANGER: u32 = 65_534;

/// What a helper has to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub(crate) letters: Letters,
    /// The writer's number; of a reader: how many writers there are.
    pub(crate) writer: u8,
    /// How many letters to write, or to read.
    pub(crate) count: u32,
    /// Signals interrupt it all the time.
    pub(crate) storm: bool,
    /// Whether letters may be lost: the last one waits then until the others were read.
    pub(crate) may_lose: bool,
}

impl Job {
    fn print(&self) -> String {
        let Job { letters: Letters { seed, size_max }, writer, count, storm, may_lose } = self;
        format!("{seed} {size_max} {writer} {count} {} {}", *storm as u8, *may_lose as u8)
    }

    fn parse(text: &str) -> Job {
        let numbers: Vec<u64> = text.split(' ').map(|word| word.parse().unwrap()).collect();
        let [seed, size_max, writer, count, storm, may_lose] = numbers[..] else {
            panic!("a job has six numbers: {text}")
        };
        Job {
            letters: Letters { seed, size_max: size_max as usize },
            writer: writer as u8,
            count: count as u32,
            storm: storm != 0,
            may_lose: may_lose != 0,
        }
    }
}

/// Whether this process is a helper.
pub(crate) fn is_one() -> bool {
    std::env::var_os(ROLE).is_some()
}

/// Does what this helper was started for.
pub(crate) fn run() -> ExitCode {
    // A helper doesn't outlive who started it.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).expect("prctl");
    let role = std::env::var(ROLE).expect("a role");
    let address = std::env::var(ADDRESS).unwrap_or_default();
    match role.as_str() {
        "leak" => return clauses::leaks::in_a_helper(&address),
        "starved" => return clauses::descriptors::starved(&address),
        "unasked" => return clauses::descriptors::unasked(&address),
        "nothing" => return ExitCode::SUCCESS,
        "stranger" => return clauses::permissions::stranger(&address),
        _ => {}
    }
    let job = Job::parse(&std::env::var(JOB).expect("a job"));
    if job.storm {
        poste_sys::testing::begin_signal_storm(Duration::from_millis(1));
    }
    // The kill clause finds this call in a trace: what comes before is no business of poste's.
    let _ = rustix::process::getppid();
    let options = Options::new();
    let say = |line: &str| eprintln!("{line}");
    match role.as_str() {
        "writer" => write(Sender::open_with(&address, &options).expect("it opens"), job, say),
        "reader" => {
            let options = if address.starts_with("fd:") { options } else { options.create() };
            read(Receiver::open_with(&address, &options).expect("it opens"), job, say);
        }
        other => panic!("no role {other}"),
    }
    ExitCode::SUCCESS
}

/// Writes the job's letters, and says after each that it was accepted.
fn write(mut sender: Sender, job: Job, say: impl Fn(&str)) {
    for index in 0..job.count {
        if job.may_lose && index + 1 == job.count {
            std::thread::sleep(Duration::from_millis(300));
        }
        let level = sender.send(&job.letters.letter(job.writer, index)).expect("it is sent");
        assert_eq!(level, Level::Queued, "a send that waits for ever");
        say("sent");
    }
    sender.close().expect("it closes");
    say("done");
}

/// Reads the job's letters, and says after each that it was as it should be.
fn read(mut receiver: Receiver, job: Job, say: impl Fn(&str)) {
    let mut checker = Checker::new(job.letters, usize::from(job.writer), job.may_lose);
    say(&format!("at {}", receiver.address()));
    for _ in 0..job.count {
        let message = receiver.recv().expect("it arrives");
        checker.check(&message, message.sequence());
        say("got");
    }
    say("done");
}

/// A helper at work.
pub(crate) struct Worker {
    who: Who,
    lines: Arc<Mutex<Vec<String>>>,
}

enum Who {
    Process(Child, Option<JoinHandle<()>>),
    Thread(Option<JoinHandle<()>>),
}

impl Worker {
    /// A writer on the channel. `own` gives its end, where it can't open one by itself.
    pub(crate) fn writer(channel: &Channel, own: impl FnOnce() -> Sender, job: Job) -> Worker {
        if is_inside(channel) {
            let sender = own();
            return Worker::thread(move |say| write(sender, job, say));
        }
        Worker::spawn(&mut Worker::writer_command(channel, own, job, &[]))
    }

    /// How a writer is started, under a tracer or by itself.
    pub(crate) fn writer_command(
        channel: &Channel,
        own: impl FnOnce() -> Sender,
        job: Job,
        tracer: &[String],
    ) -> Command {
        let mut command = command("writer", tracer);
        command.env(JOB, job.print()).stdout(Stdio::null());
        if channel.has_address() {
            command.env(ADDRESS, channel.address());
        } else {
            let descriptor = own().into_descriptor().expect("an end that is one descriptor");
            command.env(ADDRESS, "fd:1").stdout(descriptor);
        }
        command
    }

    /// A reader of the channel. `own` gives its end, where it can't open one by itself.
    pub(crate) fn reader(channel: &Channel, own: impl FnOnce() -> Receiver, job: Job) -> Worker {
        if is_inside(channel) {
            let receiver = own();
            return Worker::thread(move |say| read(receiver, job, say));
        }
        Worker::spawn(&mut Worker::reader_command(channel, own, job, &[]))
    }

    /// How a reader is started, under a tracer or by itself.
    pub(crate) fn reader_command(
        channel: &Channel,
        own: impl FnOnce() -> Receiver,
        job: Job,
        tracer: &[String],
    ) -> Command {
        let mut command = command("reader", tracer);
        command.env(JOB, job.print()).stdout(Stdio::null());
        match channel.wanted() {
            Some(wanted) => {
                command.env(ADDRESS, wanted);
            }
            None => {
                let descriptor = own().into_descriptor().expect("an end that is one descriptor");
                command.env(ADDRESS, "fd:0").stdin(descriptor);
            }
        }
        command
    }

    /// One with a role of its own, for what must not share its process with other trials; it is
    /// told a fixture's name or an address.
    pub(crate) fn helper(role: &str, told: &str) -> Worker {
        Worker::spawn(command(role, &[]).env(ADDRESS, told).stdout(Stdio::null()))
    }

    /// One that another user runs; `None` where this user may not start any, or that one may not
    /// run this program.
    pub(crate) fn of_another_user(
        role: &str,
        told: &str,
        directory: Option<&Path>,
    ) -> Option<Worker> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let mut command = command(role, &[]);
        command.env(ADDRESS, told).stdout(Stdio::null()).uid(STRANGER).gid(STRANGER);
        if let Some(directory) = directory {
            command.env("POSTE_DIR", directory);
        }
        let mut can_run = command.env(ROLE, "nothing").stderr(Stdio::null()).status();
        let can_run = can_run.as_mut().is_ok_and(|status| status.success());
        can_run.then(|| Worker::spawn(command.env(ROLE, role)))
    }

    /// Starts a helper's command.
    pub(crate) fn spawn(command: &mut Command) -> Worker {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the helper starts");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (errors, log) = (child.stderr.take().expect("it is piped"), Arc::clone(&lines));
        let logger = std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                lock(&log).push(line);
            }
        });
        Worker { who: Who::Process(child, Some(logger)), lines }
    }

    fn thread(work: impl FnOnce(&dyn Fn(&str)) + Send + 'static) -> Worker {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&lines);
        let say = move |line: &str| lock(&log).push(line.to_owned());
        let work = std::thread::spawn(move || work(&say));
        Worker { who: Who::Thread(Some(work)), lines }
    }

    /// How often it said this.
    pub(crate) fn count(&self, line: &str) -> usize {
        lock(&self.lines).iter().filter(|said| *said == line).count()
    }

    /// All that it said.
    pub(crate) fn log(&self) -> String {
        let lines = lock(&self.lines);
        let lines: Vec<_> = lines.iter().filter(|line| *line != "sent" && *line != "got").collect();
        format!("{lines:#?}")
    }

    /// Waits until it says something that begins so, and gives the rest of the line; nothing where
    /// it ends before.
    pub(crate) fn hear(&self, beginning: &str) -> Option<String> {
        loop {
            let over = self.is_over();
            let lines = lock(&self.lines);
            let said = lines.iter().find_map(|line| line.strip_prefix(beginning));
            if said.is_some() || over {
                return said.map(str::to_owned);
            }
            drop(lines);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn is_over(&self) -> bool {
        match &self.who {
            Who::Process(_, logger) => logger.as_ref().is_none_or(JoinHandle::is_finished),
            Who::Thread(work) => work.as_ref().is_none_or(JoinHandle::is_finished),
        }
    }

    /// Waits until it is done, which it must be without an error.
    pub(crate) fn finish(&mut self) {
        assert!(self.end(), "the helper failed: {}", self.log());
    }

    /// Waits until it is over, in whatever way: whether it did all that it had to.
    pub(crate) fn end(&mut self) -> bool {
        match &mut self.who {
            Who::Process(child, logger) => {
                let status = child.wait().expect("it can be waited for");
                logger.take().map(JoinHandle::join);
                status.success()
            }
            Who::Thread(work) => work.take().is_none_or(|work| work.join().is_ok()),
        }
    }

    /// Waits so long until it is over: whether it is.
    pub(crate) fn ends_within(&mut self, time: Duration) -> bool {
        let end = Instant::now() + time;
        while !self.is_over() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
        self.is_over()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Who::Process(child, logger) = &mut self.who {
            // One that is over already can't be killed any more.
            let _ = child.kill();
            let _ = child.wait();
            logger.take().map(JoinHandle::join);
        }
    }
}

/// Whether the channel doesn't leave this process.
pub(crate) fn is_inside(channel: &Channel) -> bool {
    channel.fixture.capabilities().identity == Identity::SameProcess
}

fn command(role: &str, tracer: &[String]) -> Command {
    let myself = std::env::current_exe().expect("/proc is mounted");
    let mut command = match tracer {
        [] => Command::new(myself),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(myself);
            command
        }
    };
    command.env(ROLE, role).stdin(Stdio::null());
    command
}

fn lock(lines: &Mutex<Vec<String>>) -> MutexGuard<'_, Vec<String>> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}
