//! A server under tokio on five mechanisms at once, in one task: questions over a Unix socket and
//! over TCP, jobs from a POSIX queue and a mailbox in shared memory, lines of a log from a FIFO.
//!
//! `cargo run -p poste --features tokio --example tokio_server` shows itself at work and ends;
//! `… tokio_server serve` goes on until the queue brings it the job `stop`; any `poste send` and
//! `poste call` reaches it.

use std::time::Duration;

use poste::tokio::{Receiver, Sender};
use poste::{Message, Options};
use tokio::time::timeout;

/// Where it is reached.
struct Addresses {
    unix: String,
    tcp: String,
    queue: String,
    mailbox: String,
    fifo: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name = format!("poste-server-{}", std::process::id());
    let folder = std::env::temp_dir();
    let mut at = Addresses {
        unix: format!("unix:@{name}"),
        tcp: "tcp:127.0.0.1:0".to_owned(),
        queue: format!("mq:/{name}"),
        mailbox: format!("shm:{name}"),
        fifo: format!("fifo:{}/{name}", folder.display()),
    };
    let done = run(&mut at).await;
    // These outlive their users, sockets don't.
    for address in [&at.queue, &at.mailbox, &at.fifo] {
        let _ = poste::remove(address);
    }
    done
}

async fn run(at: &mut Addresses) -> Result<(), Box<dyn std::error::Error>> {
    let mut near = Receiver::create(&at.unix)?;
    let mut far = Receiver::create(&at.tcp)?;
    let mut jobs = Receiver::create(&at.queue)?;
    let mut tasks = Receiver::create(&at.mailbox)?;
    let mut log = Receiver::create(&at.fifo)?;
    at.tcp = far.address().to_string();
    for receiver in [&near, &far, &jobs, &tasks, &log] {
        println!("listening at {}", receiver.address());
    }
    let server = async {
        loop {
            tokio::select! {
                question = near.recv() => answer(question?)?,
                question = far.recv() => answer(question?)?,
                job = jobs.recv() => match job?.text()? {
                    "stop" => return Ok(()),
                    job => println!("job: {job}"),
                },
                task = tasks.recv() => println!("task: {}", task?.text()?),
                line = log.recv() => println!("log: {}", line?.text()?),
            }
        }
    };
    if std::env::args().nth(1).as_deref() == Some("serve") {
        return server.await;
    }
    tokio::select! {
        ended = server => ended,
        shown = timeout(Duration::from_secs(10), show(at)) => shown?,
    }
}

fn answer(mut question: Message<'_>) -> Result<(), Box<dyn std::error::Error>> {
    if question.is_call() {
        let answer = question.text()?.to_uppercase();
        // That the asker has gone meanwhile is no reason for a server to end.
        let _ = question.reply(&answer);
    }
    Ok(())
}

/// Uses the server in all five ways.
async fn show(at: &Addresses) -> Result<(), Box<dyn std::error::Error>> {
    for address in [&at.queue, &at.mailbox, &at.fifo] {
        Sender::open(address)?.send("something to do").await?;
    }
    for address in [&at.unix, &at.tcp] {
        let answer = Sender::open(address)?.call("are you there?").await?;
        println!("{address} answers: {}", answer.text()?);
    }
    // A second round trip over the last one shows that the first three were served too.
    let options = Options::new().patience(poste::Wait::For(Duration::from_secs(1)));
    let mut near = Sender::open_with(&at.unix, &options)?;
    near.call("done?").await?;
    Ok(())
}
