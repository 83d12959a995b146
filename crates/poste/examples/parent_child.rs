//! A parent hands one end of a pipe to a child that it starts: one line on each side.
//!
//! `cargo run -p poste --example parent_child`

use std::process::Command;

use poste::Receiver;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if let Ok(mut jobs) = Receiver::inherited() {
        while let Ok(job) = jobs.recv() {
            println!("{}", job.text()?);
        }
        return Ok(());
    }
    let (mut jobs, theirs) = poste::pipe()?;
    let mut child = theirs.spawn(&mut Command::new(std::env::current_exe()?))?;
    jobs.send("job 1")?;
    drop(jobs);
    child.wait()?;
    Ok(())
}
