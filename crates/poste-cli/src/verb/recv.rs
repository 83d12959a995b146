//! `poste recv`: prints messages as they come, from one address or several, or runs a command for
//! each of them.
//!
//! A message is acknowledged when it is out, or when its command has ended with 0. Till then it
//! comes again where the mechanism can give it back, also if this program is killed.

use std::time::Duration;

use poste::{Address, Kind, Message, OwnedMessage, Wait};

use crate::args::Recv;
use crate::exit::{Code, Failure, Stop};
use crate::input::CHUNK;
use crate::output::{Output, Shown, Style};
use crate::resolve::{self, Target};
use crate::sources::{Origin, Sources, acknowledged};
use crate::{command, notice, signals};

/// So many messages at most are printed and not acknowledged yet.
const KEPT_MAX: usize = 256;

/// How long `-f` waits before it takes a message again after the second failure in a row; twice as
/// long after each further one, up to the second figure.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Opens, receives and prints; then takes away what it was asked to.
pub(crate) fn run(args: &Recv) -> Result<(), Stop> {
    let targets = resolve::receiving(args)?;
    let mut sources = Sources::open(&targets)?;
    if args.remove {
        targets.iter().for_each(|target| signals::remove_named_at_end(&target.address));
    }
    let mut printer = Printer::new(args);
    let received = receive(args, &mut sources, &mut printer);
    let written = printer.flush();
    drop((printer, sources));
    signals::forget_all();
    let removed = if args.remove { remove(&targets) } else { Ok(()) };
    received.and(written).and(removed)
}

/// Takes as many messages as were asked for, or for ever.
fn receive(args: &Recv, sources: &mut Sources, printer: &mut Printer) -> Result<(), Stop> {
    let mut left = if args.follow { u64::MAX } else { args.count.unwrap_or(1) };
    let mut failures = 0;
    while left > 0 {
        let taken = match args.command.is_empty() {
            true => print(args, sources, printer),
            false => hand_on(args, sources, &mut failures),
        };
        match taken {
            Err(Stop::Failed(end)) if args.follow && end.is(&Kind::Disconnected) => return Ok(()),
            result => result?,
        }
        std::thread::sleep(pause(failures));
        left -= u64::from(!args.follow);
    }
    Ok(())
}

/// Prints the next message. What was printed before is brought out before there is a wait.
fn print(args: &Recv, sources: &mut Sources, printer: &mut Printer) -> Result<(), Stop> {
    let mut take = |wait, printer: &mut Printer| {
        sources.recv(wait, &mut |message, origin| printer.print(args, message, origin))
    };
    if printer.is_pending() {
        match take(Wait::Not, printer) {
            Err(Stop::Failed(failure)) if failure.is(&Kind::Empty) => printer.flush()?,
            result => return result,
        }
    }
    take(resolve::wait(&args.channel), printer)
}

/// What prints messages, and acknowledges them when they are out.
#[derive(Debug)]
struct Printer {
    style: Style,
    out: Output,
    /// Printed, and to be acknowledged.
    kept: Vec<(OwnedMessage, Address)>,
    kept_bytes: usize,
}

impl Printer {
    fn new(args: &Recv) -> Printer {
        let style = Style::new(&args.printing, resolve::is_raw(&args.channel));
        Printer { style, out: Output::open(), kept: Vec::new(), kept_bytes: 0 }
    }

    fn print(&mut self, args: &Recv, message: Message<'_>, origin: Origin<'_>) -> Result<(), Stop> {
        self.style.print(&mut self.out, &shown(args, &message), origin)?;
        if !origin.redelivers() {
            return Ok(());
        }
        self.kept_bytes += message.len();
        self.kept.push((message.into_owned(), origin.address.clone()));
        let is_much = self.kept.len() >= KEPT_MAX || self.kept_bytes >= CHUNK;
        if is_much { self.flush() } else { Ok(()) }
    }

    /// Whether something was printed that isn't out yet, or not acknowledged.
    fn is_pending(&self) -> bool {
        self.out.is_pending() || !self.kept.is_empty()
    }

    /// Brings out what was printed, and then acknowledges it.
    fn flush(&mut self) -> Result<(), Stop> {
        if let Err(lost) = self.out.flush() {
            // What nobody got comes again.
            self.kept.clear();
            return Err(lost);
        }
        self.kept_bytes = 0;
        self.kept
            .drain(..)
            .try_for_each(|(message, address)| acknowledged(message.acknowledge(), &address))
    }
}

/// Runs the command for the next message. `failures` counts how often in a row one has failed that
/// comes again.
fn hand_on(args: &Recv, sources: &mut Sources, failures: &mut u32) -> Result<(), Stop> {
    let is_raw = resolve::is_raw(&args.channel);
    sources.recv(resolve::wait(&args.channel), &mut |message, origin| {
        let ran = command::run(&args.command, &shown(args, &message), origin, is_raw);
        let Err(why) = ran else {
            *failures = 0;
            return acknowledged(message.acknowledge(), origin.address);
        };
        let failure = not_done(&why, message, origin);
        if args.follow {
            *failures = if origin.redelivers() { *failures + 1 } else { 0 };
            notice::say(failure.what());
            return Ok(());
        }
        Err(failure.into())
    })
}

/// Gives a message back whose command has failed, where that is possible.
fn not_done(why: &str, message: Message<'_>, origin: Origin<'_>) -> Failure {
    let address = origin.address;
    if !origin.redelivers() {
        let hint = "mend the command and send the message again; -f goes on with the next";
        return Failure::new(
            Code::Failed,
            format!("{why}; the message from {address} is lost"),
            hint,
        );
    }
    let then = match message.reject() {
        Ok(()) => format!("the message is given back to {address}"),
        Err(error) => format!("the message cannot be given back to {address}: {error}"),
    };
    let hint = format!("mend the command, the message comes again; or see: poste info {address}");
    Failure::new(Code::Failed, format!("{why}; {then}"), hint)
}

/// How long to wait before the next message, after so many failures in a row: a message that fails
/// again and again must not take a whole processor.
fn pause(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        _ => PAUSE.0.saturating_mul(1 << (failures - 2).min(16)).min(PAUSE.1),
    }
}

/// A message as it is printed or handed on.
fn shown<'a>(args: &Recv, message: &'a Message<'_>) -> Shown<'a> {
    let shown = Shown::from(message);
    if args.channel.c_string { shown.as_c_string() } else { shown }
}

/// Takes the objects away that were received from.
fn remove(targets: &[Target]) -> Result<(), Stop> {
    let failures: Vec<Failure> = targets
        .iter()
        .filter_map(|target| poste::remove(target.address.to_string()).err())
        .map(Failure::from)
        .collect();
    match Failure::of_several(failures, targets.len()) {
        Some(failure) => Err(failure.into()),
        None => Ok(()),
    }
}
