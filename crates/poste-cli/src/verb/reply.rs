//! `poste reply`: answers questions, with themselves, a text, or what a command makes of them.
//!
//! A message that is no call can't be answered: it is passed over, and counts for nothing. A caller
//! that is gone, or doesn't take its answer, is no reason to end.

use std::borrow::Cow;
use std::os::unix::ffi::OsStrExt as _;

use poste::limits::MESSAGE_MAX;
use poste::{Kind, Message};

use crate::args::Reply;
use crate::exit::{Failure, Stop};
use crate::output::Shown;
use crate::resolve::{self, Target};
use crate::sources::{Origin, Sources, acknowledged};
use crate::{command, notice, signals};

/// Serves for ever, or until it has answered as often as was asked for.
pub(crate) fn run(args: &Reply) -> Result<(), Stop> {
    let target = resolve::answering(args)?;
    let mut sources = Sources::open(std::slice::from_ref(&target))?;
    let served = serve(args, &target, &mut sources);
    drop(sources);
    signals::forget_all();
    served
}

fn serve(args: &Reply, target: &Target, sources: &mut Sources) -> Result<(), Stop> {
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        sources.recv(resolve::wait(&args.channel), &mut |mut message, origin| {
            if message.is_call() {
                answer(args, target, &mut message, origin);
                left -= u64::from(args.count.is_some());
            }
            acknowledged(message.acknowledge(), origin.address)
        })?;
    }
    Ok(())
}

/// Answers a question; what goes wrong concerns this one alone.
fn answer(args: &Reply, target: &Target, message: &mut Message<'_>, origin: Origin<'_>) {
    let made = make(args, message, origin).map(|answer| {
        let mut answer = answer.into_owned();
        let ending = resolve::ending(args.lines, args.channel.c_string, target.mechanism);
        answer.extend_from_slice(ending);
        answer
    });
    let told = match &made {
        Ok(answer) => message.reply(answer),
        Err(why) => {
            notice::say(why);
            match message.reply_error(why) {
                // Raw, without a connection: nothing can be said, and the caller's time runs out.
                Err(error) if error.kind() == Kind::NotSupported => Ok(()),
                told => told,
            }
        }
    };
    match told {
        Err(error) if error.kind() != Kind::Disconnected => {
            let failure = Failure::from(error.on("answer a caller of", origin.address));
            notice::say(failure.what());
        }
        _ => {}
    }
}

/// The answer, or in words why there is none.
fn make<'a>(
    args: &'a Reply,
    message: &'a Message<'_>,
    origin: Origin<'_>,
) -> Result<Cow<'a, [u8]>, String> {
    let shown = Shown::from(message);
    let shown = if args.channel.c_string { shown.as_c_string() } else { shown };
    if let Some(body) = &args.body {
        return Ok(body.as_bytes().into());
    }
    if args.echo {
        return Ok(shown.body.into());
    }
    let is_raw = resolve::is_raw(&args.channel);
    let limit = args.channel.attributes.message_size.unwrap_or(MESSAGE_MAX);
    command::ask(&args.command, &shown, origin, is_raw, limit).map(Cow::from)
}
