//! poste's mailbox in shared memory beside what else a Rust program can pick up, in one run.
//!
//! `cargo run --release [--features aeron] -- [PART-OF-A-GROUP'S-NAME] [--rows PART] [--repeat N] [--time MS]`
//!
//! Two processes, or five. The sender writes every word of every message, the receiver reads them all
//! and checks their sum. Within a group the rows take turns, and turns are repeated; shown are the
//! median, the least and the most, and the median of the ratios to the group's first row in the same
//! turn. With `--rows` only the first row of a group runs, and those with that in their names. `one by one` is one message a call on both sides; in `batches` each has as many a call as it
//! has a way for (poste: feed and recv_many; Aeron: one poll; the bare ring: one publication).

mod channel;
mod peer;
mod row;

use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use channel::{Desk, Name};
use peer::{Outcome, Receiver, Setup};
use row::{GROUPS, Group, Row, With, Work};

/// Messages that a sender writes before it looks at anything else.
const BATCH: u64 = 64;
/// Round trips between two looks at the clock.
const TRIPS: u64 = 20;
/// After so long without an end something hangs, and a figure that never comes is told as such.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["peer", group, row, run] => play(group, row, run),
        #[cfg(feature = "aeron")]
        ["driver", folder] => die_with_parent().and_then(|()| peer::aeron::drive(folder)),
        _ => compare(&words),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shared-memory: {error}");
            ExitCode::FAILURE
        }
    }
}

fn value(words: &[&str], name: &str) -> Outcome<Option<u64>> {
    if !words.contains(&name) {
        return Ok(None);
    }
    let text = after(words, name).ok_or_else(|| format!("{name} needs a number"))?;
    Ok(Some(text.parse()?))
}

fn after<'a>(words: &[&'a str], name: &str) -> Option<&'a str> {
    let at = words.iter().position(|word| *word == name)?;
    words.get(at + 1).copied()
}

fn compare(words: &[&str]) -> Outcome<()> {
    let repeat = value(words, "--repeat")?.unwrap_or(5);
    let time = Duration::from_millis(value(words, "--time")?.unwrap_or(400));
    let only = after(words, "--rows");
    let filter = words.first().filter(|word| !word.starts_with("--"));
    watch();
    for (index, group) in GROUPS.iter().enumerate() {
        if filter.is_some_and(|filter| !group.name.contains(filter)) {
            continue;
        }
        let rows: Vec<(usize, &Row)> = (group.rows.iter().enumerate())
            .filter(|(_, row)| cfg!(feature = "aeron") || row.with != With::Aeron)
            .filter(|(place, row)| *place == 0 || only.is_none_or(|only| row.name.contains(only)))
            .collect();
        let mut figures = vec![Vec::new(); rows.len()];
        for turn in 0..repeat {
            for (at, (place, row)) in rows.iter().enumerate() {
                let run = format!("peers-{}-{turn}", std::process::id());
                figures[at].push(measure(group, row, (index, *place), &run, time)?);
            }
        }
        println!("{}", group.name);
        for (at, (_, row)) in rows.iter().enumerate() {
            let ratios = figures[at].iter().zip(&figures[0]).map(|(mine, first)| mine / first);
            let (middle, ratio) = (median(&figures[at]), median(&ratios.collect::<Vec<_>>()));
            let least = figures[at].iter().copied().fold(f64::MAX, f64::min);
            let most = figures[at].iter().copied().fold(0.0, f64::max);
            let unit = group.unit();
            println!(
                "  {:<28} {middle:>9.3} {unit:<4}  {least:>9.3} to {most:>9.3}   {ratio:>7.3}",
                row.name
            );
        }
    }
    if !cfg!(feature = "aeron") {
        println!("Aeron is not among them: --features aeron builds it (see README.md)");
    }
    peer::iceoryx::tidy_up()
}

fn median(figures: &[f64]) -> f64 {
    let mut figures = figures.to_vec();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// When the row that runs now began, in milliseconds since the start; 0 between two.
static SINCE: AtomicU64 = AtomicU64::new(0);

/// Ends the whole if a row hangs: a peer that lost a message waits for ever.
fn watch() {
    let start = Instant::now();
    std::thread::spawn(move || {
        let mut last = (0, Instant::now());
        loop {
            std::thread::sleep(Duration::from_millis(500));
            let now = SINCE.load(Ordering::Relaxed);
            if now != last.0 {
                last = (now, Instant::now());
            } else if last.1.elapsed() > PATIENCE {
                eprintln!("shared-memory: nothing came for {PATIENCE:?}: a peer hangs");
                eprintln!("shared-memory: after {:?}", start.elapsed());
                std::process::exit(1);
            }
        }
    });
}

fn pin(group: &Group, receiver: bool) -> Outcome<()> {
    let mut set = rustix::thread::CpuSet::new();
    if group.senders == 1 {
        set.set(usize::from(receiver && !group.one_core));
    } else {
        (0..rustix::thread::CpuSet::MAX_CPU).for_each(|cpu| set.set(cpu));
    }
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

fn die_with_parent() -> Outcome<()> {
    let signal = Some(rustix::process::Signal::KILL);
    Ok(rustix::process::set_parent_process_death_signal(signal)?)
}

/// Children that end when their row does.
struct Children(Vec<Child>);

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // Gone already, or about to be: either is an end.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn start(arguments: &[&str]) -> Outcome<Child> {
    let me = std::env::current_exe()?;
    Ok(Command::new(me).args(arguments).stdin(Stdio::null()).spawn()?)
}

/// Aeron's driver, which its clients need, and the folder that goes with it.
struct Driver {
    folder: String,
    _child: Children,
}

impl Driver {
    fn start(run: &str) -> Outcome<Driver> {
        let folder = channel::aeron_folder(run);
        let me = std::env::current_exe()?;
        let mut child =
            Command::new(me).args(["driver", &folder]).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let output = child.stdout.take().ok_or("no output")?;
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line)?;
        Ok(Driver { folder, _child: Children(vec![child]) })
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

const THERE: i32 = 1001;
const BACK: i32 = 1002;

fn measure(
    group: &Group,
    row: &Row,
    (index, place): (usize, usize),
    run: &str,
    time: Duration,
) -> Outcome<f64> {
    SINCE.fetch_add(1, Ordering::Relaxed);
    let setup = Setup { size: group.size, senders: group.senders };
    let run = format!("{run}-{index}-{place}");
    let driver = (row.with == With::Aeron).then(|| Driver::start(&run)).transpose()?;
    pin(group, true)?;
    let (there, back) = (Name { run: &run, stream: THERE }, Name { run: &run, stream: BACK });
    let desk = channel::desk(row.with, &back, setup)?;
    let (index, place) = (index.to_string(), place.to_string());
    let peers = (0..group.senders).map(|_| start(&["peer", &index, &place, &run]));
    let peers = Children(peers.collect::<Outcome<_>>()?);
    let mut incoming = desk.accept()?;
    let figure = match group.work {
        Work::RoundTrip => {
            // The peer says that it is there.
            incoming.receive()?;
            let mut outgoing = channel::sender(row.with, &there, setup)?;
            let mut times = Vec::new();
            let end = Instant::now() + time;
            while Instant::now() < end {
                let begin = Instant::now();
                for number in 0..TRIPS {
                    outgoing.send(number)?;
                    incoming.receive()?;
                }
                times.push(begin.elapsed().as_secs_f64() / TRIPS as f64 * 1e6);
            }
            median(&times)
        }
        Work::OneByOne | Work::Batches => rate(group, incoming.as_mut(), time)?,
    };
    drop((incoming, peers));
    channel::remove(row.with, &back)?;
    if group.work == Work::RoundTrip {
        channel::remove(row.with, &there)?;
    }
    drop(driver);
    Ok(figure)
}

/// Millions of messages a second, or GB/s.
fn rate(group: &Group, incoming: &mut dyn Receiver, time: Duration) -> Outcome<f64> {
    let steps = (64 * 1024 / group.size).clamp(1, 64);
    let mut several = || -> Outcome<u64> {
        let mut count = 0;
        for _ in 0..steps {
            count += match group.work {
                Work::Batches => incoming.receive_many()?,
                _ => incoming.receive().map(|_| 1)?,
            };
        }
        Ok(count)
    };
    // All senders are there, and caches warm.
    let warm = Instant::now() + time / 4;
    while Instant::now() < warm {
        several()?;
    }
    let (mut count, begin) = (0, Instant::now());
    while begin.elapsed() < time {
        count += several()?;
    }
    let messages = count as f64 / begin.elapsed().as_secs_f64();
    Ok(match group.size {
        0..65536 => messages / 1e6,
        size => messages * size as f64 / 1e9,
    })
}

/// The other process: echoes, or sends without end.
fn play(group: &str, row: &str, run: &str) -> Outcome<()> {
    die_with_parent()?;
    let group = &GROUPS[group.parse::<usize>()?];
    let with = group.rows[row.parse::<usize>()?].with;
    let setup = Setup { size: group.size, senders: group.senders };
    pin(group, false)?;
    let (there, back) = (Name { run, stream: THERE }, Name { run, stream: BACK });
    if group.work == Work::RoundTrip {
        let desk: Desk = channel::desk(with, &there, setup)?;
        let mut outgoing = channel::sender(with, &back, setup)?;
        outgoing.send(1)?;
        let mut incoming = desk.accept()?;
        loop {
            let number = incoming.receive()?;
            outgoing.send(number)?;
        }
    }
    let mut outgoing = channel::sender(with, &back, setup)?;
    let mut number = 0;
    loop {
        match group.work {
            Work::Batches => outgoing.batch(number, BATCH)?,
            _ => (number..number + BATCH).try_for_each(|number| outgoing.send(number))?,
        }
        number += BATCH;
    }
}
