//! A parent shares jobs out among four children and collects their answers: a side of a socket pair
//! for each, and whoever has answered gets the next job.
//!
//! `cargo run -p poste --example worker_pool`

use std::process::Command;

use poste::Duplex;

const WORKERS: usize = 4;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if let Ok(mut parent) = Duplex::inherited() {
        return work(&mut parent);
    }
    let (mut workers, mut children) = (Vec::new(), Vec::new());
    for _ in 0..WORKERS {
        let (ours, theirs) = poste::pair()?;
        children.push(theirs.spawn(&mut Command::new(std::env::current_exe()?))?);
        workers.push(ours);
    }
    let mut jobs = 1..=20;
    let mut busy: Vec<usize> = Vec::new();
    for (index, job) in (0..WORKERS).zip(jobs.by_ref()) {
        workers[index].send(&job.to_string())?;
        busy.push(index);
    }
    while !busy.is_empty() {
        let index = busy.remove(0);
        println!("worker {index}: {}", workers[index].recv()?.text()?);
        if let Some(job) = jobs.next() {
            workers[index].send(&job.to_string())?;
            busy.push(index);
        }
    }
    // That nothing more comes is what ends the workers.
    drop(workers);
    for mut child in children {
        child.wait()?;
    }
    Ok(())
}

/// A child: squares what it is given, until there is no more.
fn work(parent: &mut Duplex) -> Result<(), Box<dyn std::error::Error>> {
    while let Ok(job) = parent.recv() {
        let number: u64 = job.text()?.parse()?;
        parent.send(&format!("{number}² = {}", number * number))?;
    }
    Ok(())
}
