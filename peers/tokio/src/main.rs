//! poste under tokio beside tokio's `UnixStream` with `LengthDelimitedCodec`: two processes, each
//! with a current-thread runtime, round trips and one way, in one run and in turns.
//!
//! `cargo run --release --manifest-path peers/Cargo.toml -p peer-tokio [-- ROUNDS [WORD…]]`: only
//! rows that hold each word.
//!
//! Every word of a message is written by its sender and summed by its receiver; sums are compared.
//! A figure is the median over rounds; a ratio the median of the ratios of neighbouring runs, above
//! 1 where poste is better. So is the last column, of the processor time of both processes for one
//! message. `unix` is one connection (`accept` and `into_duplex`), `merged` the
//! receiver that listens and has all connections behind it, `shm` a mailbox for each direction.
//! "one core": both processes on processor 0; "free": as the scheduler likes. On a machine that has
//! other work only the ratios mean anything, and of these that of the processor time most.

mod ends;

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use ends::{End, Kind};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    RoundTrip,
    /// Each message is sent at once.
    Flushed,
    /// Messages are fed, and flushed at the end.
    Fed,
}

const WORKS: [(&str, Work); 3] =
    [("round trip", Work::RoundTrip), ("flush each", Work::Flushed), ("feed", Work::Fed)];

/// One measurement.
#[derive(Clone, Copy, Debug)]
struct Plan {
    kind: Kind,
    work: Work,
    size: usize,
    count: u64,
    pinned: bool,
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [role, rest @ ..] = &arguments[..] {
        if role == "other" {
            return other(rest);
        }
    }
    let rounds = arguments.first().map_or(Ok(9), |text| text.parse())?;
    let words = arguments.get(1..).unwrap_or(&[]);
    println!(
        "{:<36} {:>10} {:>10} {:>7} {:>10} {:>10} {:>7}",
        "", "tokio", "poste", "ratio", "its CPU", "its CPU", "ratio"
    );
    for pinned in [true, false] {
        for (name, work) in WORKS {
            for size in [64, 4096] {
                for kind in [Kind::Unix, Kind::Merged, Kind::Mailbox] {
                    if kind == Kind::Merged && work == Work::RoundTrip {
                        // Its way back would be another channel.
                        continue;
                    }
                    let place = if pinned { "one core" } else { "free" };
                    let row = format!("{} {name} {size} B, {place}", kind.name());
                    if words.iter().all(|word| row.contains(word.as_str())) {
                        compare(&row, Plan { kind, work, size, count: 0, pinned }, rounds)?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Runs both in turns, and prints a row.
fn compare(row: &str, plan: Plan, rounds: usize) -> Outcome<()> {
    let count = match (plan.work, plan.size, plan.pinned) {
        (Work::RoundTrip, _, true) => 5_000,
        (Work::RoundTrip, _, false) => 2_000,
        (_, 64, _) => 100_000,
        _ => 40_000,
    };
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let peer = Plan { kind: Kind::Framed, count, ..plan };
        let poste = Plan { count, ..plan };
        let (one, two) = if round % 2 == 0 {
            let one = measure(peer)?;
            (one, measure(poste)?)
        } else {
            let two = measure(poste)?;
            (measure(peer)?, two)
        };
        theirs.push(one);
        ours.push(two);
    }
    let show = |figure: f64| match plan.work {
        Work::RoundTrip => format!("{figure:.2} µs"),
        _ => format!("{:.3} M/s", 1.0 / figure),
    };
    let (elapsed, processor) = (|cost: &Cost| cost.elapsed, |cost: &Cost| cost.processor);
    let (one, two, ratio) = medians(&theirs, &ours, elapsed);
    print!("{row:<36} {:>10} {:>10} {ratio:>7.3}", show(one), show(two));
    let (one, two, ratio) = medians(&theirs, &ours, processor);
    println!(" {one:>7.3} µs {two:>7.3} µs {ratio:>7.3}");
    Ok(())
}

/// Of one message or round trip, in microseconds.
#[derive(Clone, Copy, Debug)]
struct Cost {
    elapsed: f64,
    /// The processor time of both processes.
    processor: f64,
}

/// The medians of both, and of the ratios of neighbouring runs.
fn medians(theirs: &[Cost], ours: &[Cost], of: impl Fn(&Cost) -> f64) -> (f64, f64, f64) {
    let ratios = theirs.iter().zip(ours).map(|(one, two)| of(one) / of(two)).collect();
    (
        median(theirs.iter().map(&of).collect()),
        median(ours.iter().map(&of).collect()),
        median(ratios),
    )
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// What one message costs, or one round trip.
fn measure(plan: Plan) -> Outcome<Cost> {
    pin(plan.pinned)?;
    let runtime = runtime()?;
    let mut other = Other::start(plan)?;
    let before = processor_time();
    let took = runtime.block_on(async {
        let mut end = End::connect(plan.kind, &other.name).await?;
        match plan.work {
            Work::RoundTrip => round_trips(&mut end, plan).await,
            _ => one_way(&mut end, plan).await,
        }
    })?;
    drop(runtime);
    let here = processor_time() - before;
    let there = other.finish()?;
    // Warming up takes processor time too.
    let all = plan.count + plan.count / 10;
    Ok(Cost {
        elapsed: took.as_secs_f64() * 1e6 / plan.count as f64,
        processor: (here + there).as_secs_f64() * 1e6 / all as f64,
    })
}

async fn round_trips(end: &mut End, plan: Plan) -> Outcome<Duration> {
    let mut body = vec![0; plan.size];
    let mut start = Instant::now();
    // What comes first is slower, and not counted.
    let warm = plan.count / 10;
    for number in 0..plan.count + warm {
        if number == warm {
            start = Instant::now();
        }
        let written = write(&mut body, number);
        end.send(&body).await?;
        if end.recv(sum).await? != written {
            return Err("an answer is not what was asked".into());
        }
    }
    Ok(start.elapsed())
}

async fn one_way(end: &mut End, plan: Plan) -> Outcome<Duration> {
    let mut body = vec![0; plan.size];
    let mut written = 0_u64;
    let warm = plan.count / 10;
    let mut start = Instant::now();
    for number in 0..plan.count + warm {
        if number == warm {
            start = Instant::now();
        }
        written = written.wrapping_add(write(&mut body, number));
        match plan.work {
            Work::Fed => end.feed(&body).await?,
            _ => end.send(&body).await?,
        }
    }
    end.flush().await?;
    let theirs = end.recv(|body| u64::from_le_bytes(body.try_into().unwrap_or([0; 8]))).await?;
    if theirs != written {
        return Err("what arrived is not what was sent".into());
    }
    Ok(start.elapsed())
}

fn write(body: &mut [u8], number: u64) -> u64 {
    let mut total = 0_u64;
    for (index, word) in body.chunks_exact_mut(8).enumerate() {
        let value = number.wrapping_add(index as u64);
        word.copy_from_slice(&value.to_le_bytes());
        total = total.wrapping_add(value);
    }
    total
}

fn sum(body: &[u8]) -> u64 {
    let words = body.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
    words.fold(0, u64::wrapping_add)
}

/// The other process: listens, then answers or sums.
fn other(arguments: &[String]) -> Outcome<()> {
    let [kind, work, size, count, pinned, name] = arguments else {
        return Err("other KIND WORK SIZE COUNT PINNED NAME".into());
    };
    let (size, count): (usize, u64) = (size.parse()?, count.parse()?);
    pin(pinned == "true")?;
    runtime()?.block_on(async {
        let listening = End::listen(Kind::named(kind)?, name)?;
        println!("ready");
        std::io::stdout().flush()?;
        let mut end = listening.await?;
        let before = processor_time();
        let total = count + count / 10;
        let mut seen = 0_u64;
        let mut body = vec![0; size];
        for _ in 0..total {
            if work == "RoundTrip" {
                end.recv(|bytes| body.copy_from_slice(bytes)).await?;
                let number = u64::from_le_bytes(body[..8].try_into()?);
                write(&mut body, number);
                end.send(&body).await?;
            } else {
                seen = seen.wrapping_add(end.recv(sum).await?);
            }
        }
        if work != "RoundTrip" {
            end.send(&seen.to_le_bytes()).await?;
        }
        end.close().await?;
        println!("{}", (processor_time() - before).as_nanos());
        Ok(())
    })
}

/// What this process has used so far.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

struct Other {
    child: Child,
    output: BufReader<ChildStdout>,
    name: String,
}

impl Other {
    fn start(plan: Plan) -> Outcome<Other> {
        let name = format!("peer-tokio-{}", std::process::id());
        let arguments = [
            "other".to_owned(),
            plan.kind.name().to_owned(),
            format!("{:?}", plan.work),
            plan.size.to_string(),
            plan.count.to_string(),
            plan.pinned.to_string(),
            name.clone(),
        ];
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.args(arguments).stdout(Stdio::piped()).spawn()?;
        let output = BufReader::new(child.stdout.take().ok_or("it has no output")?);
        let mut other = Other { child, output, name };
        match other.line()?.as_str() {
            "ready" => Ok(other),
            _ => Err("the other process did not start".into()),
        }
    }

    fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    /// Waits for its end: the processor time that it used.
    fn finish(&mut self) -> Outcome<Duration> {
        let used = Duration::from_nanos(self.line()?.parse()?);
        let status = self.child.wait()?;
        if status.success() { Ok(used) } else { Err(format!("the other ended: {status}").into()) }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // It has ended already where all went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
        ends::remove(&self.name);
    }
}

fn runtime() -> Outcome<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_io().build()?)
}

fn pin(pinned: bool) -> Outcome<()> {
    let mut set = CpuSet::new();
    for processor in 0..if pinned { 1 } else { std::thread::available_parallelism()?.get().max(2) }
    {
        set.set(processor);
    }
    Ok(sched_setaffinity(None, &set)?)
}
