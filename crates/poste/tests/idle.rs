//! Idle costs nothing: many receivers of a mechanism that wait in one process take no processor
//! time, and start no thread but those that ARCHITECTURE.md lists.
//!
//! A trial for each mechanism, in a process of its own, with an IPC namespace of its own and a
//! runtime directory of its own. It prints what it saw: `cargo test -p poste --test idle --
//! --nocapture`; with POSTE_LONG=1 it is a thousand of each.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use poste::{Kind, Options, Receiver, Wait, WaitSet};
use poste_sys::testing::skip;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

const KIND: &str = "POSTE_IDLE_KIND";

/// The kinds: each with the address of one of many, in the folder of the trial.
const KINDS: &[(&str, &str)] = &[
    ("pipe", ""),
    ("local", "local:idle-{n}"),
    ("fifo", "fifo:{folder}/f{n}"),
    ("mq", "mq:/poste-idle-{n}"),
    ("sysv", "sysv:0x1{n}"),
    ("sysv::raw", "sysv:0x1{n}"),
    ("unix", "unix:{folder}/u{n}"),
    ("seqpacket", "seqpacket:{folder}/s{n}"),
    ("dgram", "dgram:{folder}/d{n}"),
    ("tcp", "tcp:127.0.0.1:0"),
    ("udp", "udp:127.0.0.1:0"),
    ("shm", "shm:idle-{n}"),
];

fn main() -> ExitCode {
    if let Ok(kind) = std::env::var(KIND) {
        return idle(&kind);
    }
    let mut args = Arguments::from_args();
    // Alone, so that a busy machine doesn't make each look at the other's time.
    args.test_threads = Some(1);
    let trials = KINDS.iter().filter(|(kind, _)| is_there(kind));
    let trials = trials.map(|(kind, _)| Trial::test(*kind, move || start(kind))).collect();
    libtest_mimic::run(&args, trials).exit_code()
}

fn is_there(kind: &str) -> bool {
    poste::mechanism::find(kind.trim_end_matches("::raw")).is_some()
}

fn is_long() -> bool {
    std::env::var_os("POSTE_LONG").is_some_and(|value| !value.is_empty() && value != "0")
}

/// Starts the process of a trial, and says what it said.
fn start(kind: &str) -> Result<(), Failed> {
    let unshared = Command::new("unshare").args(["-ri", "true"]).output();
    if matches!(kind, "mq" | "sysv" | "sysv::raw")
        && !unshared.is_ok_and(|done| done.status.success())
    {
        let reason = "this process can't have an IPC namespace of its own (unshare -ri)";
        skip(&format!("idle {kind}"), reason);
        return Ok(());
    }
    let folder = std::env::temp_dir().join(format!("poste-idle-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let program = std::env::current_exe()?;
    let mut command = match kind {
        "mq" | "sysv" | "sysv::raw" => Command::new("unshare"),
        _ => Command::new(&program),
    };
    if command.get_program() == "unshare" {
        command.arg("-ri").arg(&program);
    }
    let done = command.env(KIND, kind).env("POSTE_DIR", folder.join("run")).env("IDLE", &folder);
    let done = done.output();
    std::fs::remove_dir_all(&folder)?;
    let done = done?;
    print!("{}", String::from_utf8_lossy(&done.stdout));
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    match said.lines().find_map(|line| line.strip_prefix("SKIPPED: ")) {
        Some(reason) => {
            skip(&format!("idle {kind}"), reason);
            Ok(())
        }
        None if done.status.success() => Ok(()),
        None => Err(said.into()),
    }
}

/// What the process of a trial does.
fn idle(kind: &str) -> ExitCode {
    let count = if is_long() { 1000 } else { 100 };
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    if limit.maximum.is_some_and(|maximum| maximum < count as u64 * 9) {
        eprintln!("SKIPPED: this process may not open {} descriptors (ulimit -Hn)", count * 9);
        return ExitCode::SUCCESS;
    }
    if kind == "mq" {
        // The namespace's own; small queues keep within RLIMIT_MSGQUEUE.
        std::fs::write("/proc/sys/fs/mqueue/queues_max", "1100").unwrap();
    }
    let folder = std::env::var("IDLE").unwrap();
    let (_, address) = KINDS.iter().find(|(name, _)| *name == kind).unwrap();
    let mut senders = Vec::new();
    let mut receivers: Vec<Receiver> = (0..count)
        .map(|number| {
            let address = address.replace("{n}", &format!("{number:05}"));
            let options = match kind {
                "pipe" => {
                    let (sender, receiver) = poste::pipe().unwrap();
                    senders.push(sender);
                    return receiver;
                }
                "mq" => Options::new().capacity(1).message_size(128),
                "sysv::raw" => Options::new().raw(),
                _ => Options::new(),
            };
            Receiver::open_with(address.replace("{folder}", &folder), &options.create()).unwrap()
        })
        .collect();
    let set = WaitSet::new().unwrap();
    for (key, receiver) in receivers.iter_mut().enumerate() {
        set.add(key as u64, receiver).unwrap();
    }
    // Threads begin, and what was made is news once.
    let mut ready = Vec::new();
    while set.wait(&mut ready, Wait::For(Duration::from_millis(200))).is_ok() {
        for key in &ready {
            let nothing = receivers[*key as usize].try_recv().unwrap_err();
            assert_eq!(nothing.kind(), Kind::Empty, "{nothing}");
        }
    }
    let (before, time) = (processor_time(), Duration::from_secs(if is_long() { 10 } else { 1 }));
    let nothing = set.wait(&mut ready, Wait::For(time)).unwrap_err();
    let took = processor_time() - before;
    assert_eq!(nothing.kind(), Kind::TimedOut);
    let threads = threads();
    println!("{kind:10} {count} receivers: {took:?} of processor in {time:?}, threads {threads:?}");
    assert!(took < time / 100, "{took:?} of processor in {time:?}");
    check_threads(kind, count, &threads);
    ExitCode::SUCCESS
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The threads of this process but its first, by their names.
fn threads() -> BTreeMap<String, usize> {
    let mut threads = BTreeMap::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        if task.file_name().to_string_lossy() == std::process::id().to_string() {
            continue;
        }
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap();
        *threads.entry(name.trim().to_owned()).or_default() += 1;
    }
    threads
}

fn check_threads(kind: &str, count: usize, threads: &BTreeMap<String, usize>) {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ARCHITECTURE.md");
    let page = std::fs::read_to_string(page).unwrap();
    for name in threads.keys() {
        assert!(page.contains(&format!("| `{name}` |")), "{name} is not in ARCHITECTURE.md");
    }
    let expected = match kind {
        "sysv::raw" => BTreeMap::from([("poste-sysv".to_owned(), count)]),
        "shm" => BTreeMap::from([("poste-watcher".to_owned(), 1)]),
        _ => BTreeMap::new(),
    };
    assert_eq!(*threads, expected);
}
