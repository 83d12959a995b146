//! A loop that waits for several things at once: messages from two mechanisms, a timer, and the end
//! of a child.
//!
//! The parent starts itself again as a child, which sends jobs over a pipe and a note to a queue and
//! then ends. `cargo run --example select_loop` prints what came, in the order in which it came.

use std::process::Command;
use std::time::Duration;

use poste::{Kind, Receiver, Sender, Wait, WaitSet};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

const JOBS: u64 = 0;
const NOTES: u64 = 1;
const TICK: u64 = 2;
const CHILD: u64 = 3;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if let Ok(queue) = std::env::var("NOTES") {
        return child(&queue);
    }
    let queue = format!("sysv:{:#x}", 0x2000_0000 | std::process::id());
    let mut notes = Receiver::create(&queue)?;
    let (theirs, mut jobs) = poste::pipe()?;
    let mut child = theirs.spawn(Command::new(std::env::current_exe()?).env("NOTES", &queue))?;
    let child_ends = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;

    let set = WaitSet::new()?;
    set.add(JOBS, &mut jobs)?;
    set.add(NOTES, &mut notes)?;
    set.add_interval(TICK, Duration::from_millis(20))?;
    set.add_readable(CHILD, &child_ends)?;
    let (mut ready, mut has_ended) = (Vec::new(), false);
    // Until the child has ended and nothing that it sent is left.
    while !has_ended || set.wait(&mut ready, Wait::Not).is_ok() {
        if ready.is_empty() {
            set.wait(&mut ready, Wait::Forever)?;
        }
        for key in ready.drain(..) {
            match key {
                JOBS => match jobs.try_recv() {
                    Ok(job) => println!("a job: {}", job.text()?),
                    Err(error) if error.kind() == Kind::Empty => {}
                    // Nobody can send any more: nothing is to be waited for.
                    Err(error) if error.kind() == Kind::Disconnected => drop(set.remove(JOBS)),
                    Err(error) => return Err(error.into()),
                },
                NOTES => match notes.try_recv() {
                    Ok(note) => println!("a note: {}", note.text()?),
                    Err(error) if error.kind() == Kind::Empty => {}
                    Err(error) => return Err(error.into()),
                },
                TICK => println!("tick"),
                _ => {
                    println!("the child has ended: {}", child.wait()?);
                    has_ended = true;
                    set.remove(CHILD);
                    set.remove(TICK);
                }
            }
        }
    }
    Ok(poste::remove(&queue)?)
}

/// What the child does.
fn child(queue: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut jobs = Sender::inherited()?;
    let mut notes = Sender::open(queue)?;
    for number in 1..=3 {
        jobs.send(&format!("job {number}"))?;
        std::thread::sleep(Duration::from_millis(15));
    }
    notes.send("that was all")?;
    Ok(())
}
