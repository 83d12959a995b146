//! A command that is run for a message: `recv -- COMMAND` and `reply -- COMMAND`.
//!
//! It has the body on its standard input and what is known of the message in its environment. It
//! may leave its input unread. With all that it started it dies with poste, however poste ends; its
//! standard error is ours.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::process::{Child, Command, Stdio};

use crate::output::{Shown, has_priority};
use crate::sources::Origin;

/// Runs it for a message; what it prints goes where ours goes.
///
/// # Errors
/// In words: it could not be started, or it failed.
pub(crate) fn run(
    words: &[OsString],
    message: &Shown<'_>,
    origin: Origin<'_>,
    is_raw: bool,
) -> Result<(), String> {
    let mut child = start(words, message, origin, is_raw, Stdio::inherit())?;
    let fed = feed(&mut child, message.body);
    end(&mut child, words).and(fed)
}

/// Runs it for a question: what it prints is the answer.
///
/// # Errors
/// In words: it could not be started, it failed, or its answer is larger than a message may be, which
/// is `limit` bytes.
pub(crate) fn ask(
    words: &[OsString],
    question: &Shown<'_>,
    origin: Origin<'_>,
    is_raw: bool,
    limit: usize,
) -> Result<Vec<u8>, String> {
    let mut child = start(words, question, origin, is_raw, Stdio::piped())?;
    let mut answer = Vec::new();
    let most = (limit as u64).saturating_add(1);
    // It may print before it has read all of its input. This thread has started it, and stays.
    let passed = std::thread::scope(|scope| {
        let Some(output) = child.stdout.take() else { unreachable!("it is a pipe") };
        let feeding = scope.spawn(|| feed(&mut child, question.body));
        let read = output.take(most).read_to_end(&mut answer);
        let fed = feeding.join().unwrap_or_else(|_| Err("its input was lost".to_owned()));
        read.map_err(|error| format!("cannot read what it printed: {error}")).and(fed)
    });
    if answer.len() > limit {
        // Nobody reads what else it prints.
        let _ = child.kill();
        let _ = child.wait();
        return Err(format!("{} printed more than {limit} bytes", name(words)));
    }
    end(&mut child, words).and(passed)?;
    Ok(answer)
}

fn start(
    words: &[OsString],
    message: &Shown<'_>,
    origin: Origin<'_>,
    is_raw: bool,
    output: Stdio,
) -> Result<Child, String> {
    let Some((program, arguments)) = words.split_first() else { unreachable!("it was asked for") };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(output);
    let priority = has_priority(is_raw, origin).then(|| message.priority.to_string());
    let known = [
        ("POSTE_ADDRESS", Some(origin.address.to_string())),
        ("POSTE_PRIORITY", priority),
        ("POSTE_SENDER_PID", message.sender.pid().map(|pid| pid.to_string())),
        ("POSTE_SENDER_UID", message.sender.uid().map(|uid| uid.to_string())),
        ("POSTE_REDELIVERED", Some(u8::from(message.redelivered).to_string())),
    ];
    for (variable, value) in known {
        match value {
            Some(value) => command.env(variable, value),
            // One that an outer poste has set would lie.
            None => command.env_remove(variable),
        };
    }
    poste_sys::child::die_with_parent(&mut command);
    command.spawn().map_err(|error| format!("cannot run {}: {error}", name(words)))
}

/// Writes its input and closes it.
fn feed(child: &mut Child, body: &[u8]) -> Result<(), String> {
    let Some(mut input) = child.stdin.take() else { unreachable!("it is a pipe") };
    match input.write_all(body) {
        // It reads no further: that is its affair.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        fed => fed.map_err(|error| format!("cannot hand the message on: {error}")),
    }
}

/// Waits until it has ended: whether it succeeded.
fn end(child: &mut Child, words: &[OsString]) -> Result<(), String> {
    match child.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{} failed: {status}", name(words))),
        Err(error) => Err(format!("cannot wait for {}: {error}", name(words))),
    }
}

fn name(words: &[OsString]) -> String {
    words.first().map_or_else(String::new, |word| word.to_string_lossy().into_owned())
}
