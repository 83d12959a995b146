//! What a timed wait on a System V queue costs: the kernel has nothing to wait on there, so poste
//! looks again and again.
//!
//! `cargo bench -p poste --bench sysv_wait`
//!
//! The cost is the waiting thread's processor time as a share of the time that it waits. The delay
//! is how long after its sending a message is noticed by one who has waited at least 20 ms.

use std::error::Error;
use std::time::{Duration, Instant};

use poste::{Kind, Receiver, Sender};
use rustix::time::{ClockId, clock_gettime};

type Outcome<T> = Result<T, Box<dyn Error>>;

const TIME: Duration = Duration::from_secs(5);
const MESSAGES: u32 = 200;

fn main() -> Outcome<()> {
    let address = format!("sysv:{:#x}", 0x7059_0000 | (std::process::id() & 0xffff));
    let receiver = Receiver::create(&address)?;
    let measured = measure(&address, receiver);
    poste::remove(&address)?;
    measured
}

fn measure(address: &str, mut receiver: Receiver) -> Outcome<()> {
    let mut sender = Sender::open(address)?;
    println!("timed waits of {} s on a System V queue", TIME.as_secs());
    let receiving = cost(|| receiver.recv_timeout(TIME).map(drop));
    println!("{:<32} {:>6.2} % of a processor", "receiving, nothing comes", receiving?);

    while sender.try_send(&[0; 1000]).is_ok() {}
    let sending = cost(|| sender.send_timeout(&[0; 1000], TIME).map(drop));
    println!("{:<32} {:>6.2} % of a processor", "sending, there is no room", sending?);
    while receiver.try_recv().is_ok() {}

    let mut delays = delays(sender, receiver)?;
    delays.sort();
    let promised = poste::mechanism::find("sysv").ok_or("no sysv")?.capabilities.delay;
    println!(
        "{:<32} {:>6.2} ms at the median, {:.2} ms at most; its capabilities say {:.2} ms",
        "delay",
        milliseconds(delays[delays.len() / 2]),
        milliseconds(delays[delays.len() - 1]),
        milliseconds(promised)
    );
    Ok(())
}

/// The share of a processor, in percent, that a wait takes which ends with the time.
fn cost(wait: impl FnOnce() -> Result<(), poste::Error>) -> Outcome<f64> {
    let (start, before) = (Instant::now(), thread_time());
    match wait() {
        Err(error) if error.kind() == Kind::TimedOut => {}
        other => return Err(format!("the wait ended otherwise: {other:?}").into()),
    }
    let took = thread_time() - before;
    Ok(took.as_secs_f64() / start.elapsed().as_secs_f64() * 100.0)
}

/// How late messages are noticed; each carries the moment of its sending.
fn delays(mut sender: Sender, mut receiver: Receiver) -> Outcome<Vec<Duration>> {
    let start = Instant::now();
    let sending = std::thread::spawn(move || {
        for number in 0..MESSAGES {
            // Unlike pauses, so that no phase of the receiver's is preferred.
            std::thread::sleep(Duration::from_micros(20_000 + u64::from(number * 997 % 8_000)));
            sender.send(&(start.elapsed().as_nanos() as u64).to_le_bytes())?;
        }
        Ok::<(), poste::Error>(())
    });
    let mut delays = Vec::new();
    for _ in 0..MESSAGES {
        let message = receiver.recv_timeout(TIME)?;
        let sent = Duration::from_nanos(u64::from_le_bytes(message[..].try_into()?));
        delays.push(start.elapsed() - sent);
    }
    sending.join().map_err(|_| "the sending thread panicked")??;
    Ok(delays)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
