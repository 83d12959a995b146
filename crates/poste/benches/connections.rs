//! The round trip of a small message over one of a thousand connections, 999 of which are silent,
//! beside that of a single connection: in one run, in turns, all processes on one processor.
//!
//! `cargo bench -p poste --bench connections [-- SCHEME…]`
//!
//! Both echoing processes are receivers that listen; the silent connections stand at one of them,
//! and come before the one that speaks. Each figure is the median over rounds of 1,000 round trips;
//! the ratio is the median of the ratios of neighbouring rounds.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use poste::{Options, Receiver, Sender, Wait};
use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

type Outcome<T> = Result<T, Box<dyn Error>>;

const SIZE: usize = 64;
const TRIPS: usize = 1000;
const ROUNDS: usize = 31;
const SILENT: usize = 999;
const LIMIT: Duration = Duration::from_secs(20);

fn main() -> Outcome<()> {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|word| word != "--bench").collect();
    allow_descriptors()?;
    if let [role, there, back] = &arguments[..] {
        if role == "echo" {
            return echo(there, back);
        }
    }
    println!("round trip of {SIZE} bytes, all processes on processor 0, µs");
    println!("{:<10} {:>8} {:>8} {:>7}", "mechanism", "1", SILENT + 1, "ratio");
    for scheme in ["unix", "seqpacket", "tcp"] {
        if arguments.is_empty() || arguments.iter().any(|wanted| wanted == scheme) {
            compare(scheme)?;
        }
    }
    Ok(())
}

/// Runs both in turns and prints the row.
fn compare(scheme: &str) -> Outcome<()> {
    let mut single = Pair::new(scheme, "single", 0)?;
    let mut crowded = Pair::new(scheme, "crowded", SILENT)?;
    pin(0)?;
    let (mut singles, mut crowdeds, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS + 2 {
        let (one, many) = (single.round_trips()?, crowded.round_trips()?);
        if round >= 2 {
            singles.push(one);
            crowdeds.push(many);
            ratios.push(many / one);
        }
    }
    let [one, many, ratio] = [singles, crowdeds, ratios].map(median);
    println!("{scheme:<10} {one:>8.2} {many:>8.2} {ratio:>7.3}");
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The two ends in this process, the process that echoes, and the connections that say nothing.
struct Pair {
    sender: Sender,
    receiver: Receiver,
    echo: Child,
    there: String,
    _silent: Vec<Sender>,
}

impl Pair {
    fn new(scheme: &str, name: &str, silent: usize) -> Outcome<Pair> {
        let address = |way| match scheme {
            "tcp" => "tcp:127.0.0.1:0".to_owned(),
            _ => {
                let (folder, process) = (std::env::temp_dir(), std::process::id());
                format!("{scheme}:{}/poste-crowd-{process}-{name}-{way}", folder.display())
            }
        };
        let receiver = Receiver::create(address("back"))?;
        let mut echo = Command::new(std::env::current_exe()?)
            .args(["echo", &address("there"), &receiver.address().to_string()])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut there = String::new();
        BufReader::new(echo.stdout.take().ok_or("no output")?).read_line(&mut there)?;
        let there = there.trim_end().to_owned();
        let open = || Sender::open_with(&there, &Options::new().patience(Wait::For(LIMIT)));
        let silent: Result<Vec<_>, _> = (0..silent).map(|_| open()).collect();
        let (sender, _silent) = (open()?, silent?);
        Ok(Pair { sender, receiver, echo, there, _silent })
    }

    /// The mean of one round, in µs.
    fn round_trips(&mut self) -> Outcome<f64> {
        let mut message = [7; SIZE];
        let start = Instant::now();
        for trip in 0..TRIPS {
            message[0] = trip as u8;
            self.sender.send(&message)?;
            let answer = self.receiver.recv_timeout(LIMIT)?;
            assert_eq!(answer[..], message, "the echo is what was sent");
        }
        Ok(start.elapsed().as_secs_f64() * 1e6 / TRIPS as f64)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // It echoes until it is killed, and then leaves its socket; a port leaves nothing.
        let _ = self.echo.kill();
        let _ = self.echo.wait();
        let _ = poste::remove(&self.there);
    }
}

fn echo(there: &str, back: &str) -> Outcome<()> {
    pin(0)?;
    let mut receiver = Receiver::create(there)?;
    println!("{}", receiver.address());
    std::io::stdout().flush()?;
    let mut sender = Sender::open(back)?;
    loop {
        sender.send(&receiver.recv_timeout(LIMIT)?)?;
    }
}

fn pin(processor: usize) -> Outcome<()> {
    let mut set = CpuSet::new();
    set.set(processor);
    Ok(sched_setaffinity(None, &set)?)
}

/// As many descriptors as this process may have.
fn allow_descriptors() -> Outcome<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}
