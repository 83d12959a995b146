//! A server that squares numbers, and a client that asks it: `request_reply serve` in one terminal,
//! `request_reply ask 12` in another; without arguments both, in one process.
//!
//! `cargo run -p poste --example request_reply`

use std::env::args;
use std::time::Duration;

use poste::{Receiver, Sender, Wait};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // An abstract name: no file, and only this user's processes are heard.
    let address = "unix:@poste-square";
    match args().nth(1).as_deref() {
        Some("serve") => serve(Receiver::create(address)?),
        Some("ask") => ask(address, &args().nth(2).unwrap_or_default()),
        _ => {
            let address = format!("{address}-{}", std::process::id());
            let server = Receiver::create(&address)?;
            std::thread::spawn(|| serve(server).ok());
            ask(&address, "12")
        }
    }
}

fn serve(mut server: Receiver) -> Result<(), Box<dyn std::error::Error>> {
    while let Ok(mut question) = server.recv() {
        let number = question.text()?.parse::<u64>().ok();
        match number.and_then(|number| number.checked_mul(number)) {
            Some(square) => question.reply(&square.to_string())?,
            None => question.reply_error("that is no number, or too large a one")?,
        }
    }
    Ok(())
}

fn ask(address: &str, number: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut client = Sender::open(address)?;
    let answer = client.call(number, Wait::For(Duration::from_secs(1)))?;
    println!("{}", answer.text()?);
    Ok(())
}
