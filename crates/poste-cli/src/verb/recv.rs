//! `poste recv`: prints messages as they come, from one address or several, or runs a command for
//! each of them.

use poste::{Kind, Message, Wait};

use crate::args::Recv;
use crate::exit::{Code, Failure, Stop};
use crate::output::{Output, Shown, Style};
use crate::resolve::{self, Target};
use crate::sources::Sources;
use crate::{command, notice, signals};

/// Opens, receives and prints; then takes away what it was asked to.
pub(crate) fn run(args: &Recv) -> Result<(), Stop> {
    let targets = resolve::receiving(args)?;
    let mut sources = Sources::open(&targets)?;
    if args.remove {
        targets.iter().for_each(|target| signals::remove_at_end(&target.address));
    }
    let mut out = Output::open();
    let received = receive(args, &mut sources, &mut out);
    let written = out.flush();
    drop(sources);
    signals::forget_all();
    let removed = if args.remove { remove(&targets) } else { Ok(()) };
    received.and(written).and(removed)
}

/// Takes as many messages as were asked for, or for ever.
fn receive(args: &Recv, sources: &mut Sources, out: &mut Output) -> Result<(), Stop> {
    let mut left = if args.follow { u64::MAX } else { args.count.unwrap_or(1) };
    while left > 0 {
        let taken = match args.command.is_empty() {
            true => print(args, sources, out),
            false => hand_on(args, sources),
        };
        match taken {
            Err(Stop::Failed(end)) if args.follow && end.is(&Kind::Disconnected) => return Ok(()),
            result => result?,
        }
        left -= u64::from(!args.follow);
    }
    Ok(())
}

/// Prints the next message. What was printed before is brought out before there is a wait.
fn print(args: &Recv, sources: &mut Sources, out: &mut Output) -> Result<(), Stop> {
    let style = Style::new(&args.printing, resolve::is_raw(&args.channel));
    let mut take = |wait, out: &mut Output| {
        sources.recv(wait, &mut |message, origin| style.print(out, &shown(args, message), origin))
    };
    if out.is_pending() {
        match take(Wait::Not, out) {
            Err(Stop::Failed(failure)) if failure.is(&Kind::Empty) => out.flush()?,
            result => return result,
        }
    }
    take(resolve::wait(&args.channel), out)
}

/// Runs the command for the next message. Nothing gives a message back yet that it failed on.
fn hand_on(args: &Recv, sources: &mut Sources) -> Result<(), Stop> {
    let is_raw = resolve::is_raw(&args.channel);
    sources.recv(resolve::wait(&args.channel), &mut |message, origin| match command::run(
        &args.command,
        &shown(args, message),
        origin,
        is_raw,
    ) {
        Ok(()) => Ok(()),
        Err(why) => {
            let what = format!("{why}; the message from {} is lost", origin.address);
            if args.follow {
                notice::say(&what);
                return Ok(());
            }
            let hint = "mend the command and send the message again; -f goes on with the next";
            Err(Failure::new(Code::Failed, what, hint).into())
        }
    })
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
