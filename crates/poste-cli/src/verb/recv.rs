//! `poste recv`: prints messages as they come, from one address or several.

use poste::{Kind, Wait};

use crate::args::{Format, Recv};
use crate::exit::{Failure, Stop};
use crate::output::{Output, Style};
use crate::resolve::{self, Target};
use crate::sources::Sources;
use crate::{later, signals};

/// Opens, receives and prints; then takes away what it was asked to.
pub(crate) fn run(args: &Recv) -> Result<(), Stop> {
    if !args.command.is_empty() {
        return Err(later::command().into());
    }
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

/// Prints as many messages as were asked for, or for ever.
fn receive(args: &Recv, sources: &mut Sources, out: &mut Output) -> Result<(), Stop> {
    let mut left = if args.follow { u64::MAX } else { args.count.unwrap_or(1) };
    while left > 0 {
        match next(args, sources, out) {
            Err(Stop::Failed(end)) if args.follow && end.is(&Kind::Disconnected) => return Ok(()),
            result => result?,
        }
        left -= u64::from(!args.follow);
    }
    Ok(())
}

/// Prints the next message. What was printed before is brought out before there is a wait.
fn next(args: &Recv, sources: &mut Sources, out: &mut Output) -> Result<(), Stop> {
    let format = if args.json { Format::Json } else { args.format };
    let style = Style::new(format, args.null, resolve::is_raw(&args.channel));
    let mut take = |wait, out: &mut Output| {
        sources.recv(wait, &mut |message, origin| {
            let body = match message.strip_suffix(b"\0") {
                Some(body) if args.channel.c_string => body,
                _ => &message[..],
            };
            style.print(out, body, message, origin)
        })
    };
    if out.is_pending() {
        match take(Wait::Not, out) {
            Err(Stop::Failed(failure)) if failure.is(&Kind::Empty) => out.flush()?,
            result => return result,
        }
    }
    take(resolve::wait(&args.channel), out)
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
