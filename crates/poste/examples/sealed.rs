//! Two processes that don't trust each other share memory that neither can cut short: the one that
//! receives makes and seals it, the one that sends checks the seals.
//!
//! `cargo run -p poste --example sealed`

use std::process::Command;

use poste::{Duplex, Options, Receiver, Sender, Wait};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::new().message_size(1 << 20);
    if let Ok(connection) = Duplex::inherited() {
        let mut pictures = Sender::sealed(connection, &options, Wait::Forever)?;
        for shade in 1..=3 {
            let mut picture = pictures.loan(640 * 480)?;
            picture.fill(shade);
            picture.send()?;
        }
        return Ok(());
    }
    let (here, theirs) = poste::pair()?;
    let mut child = theirs.spawn(&mut Command::new(std::env::current_exe()?))?;
    let mut pictures = Receiver::sealed(here, &options, Wait::Forever)?;
    while let Ok(picture) = pictures.recv() {
        println!("{} bytes of shade {}", picture.len(), picture[0]);
    }
    child.wait()?;
    Ok(())
}
