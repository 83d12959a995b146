//! `poste call`: asks a question and prints the answer.

use poste::{Kind, Sender, Wait};

use super::send::{beyond, body_max};
use crate::args::Call;
use crate::exit::{Code, Failure, Stop};
use crate::input::Input;
use crate::output::{Output, Shown, Style};
use crate::resolve;
use crate::sources::Origin;
use crate::{notice, signals};

/// Opens the input and the channel, asks and prints. But for reading the question, all of it is
/// within the time given.
pub(crate) fn run(args: &Call) -> Result<(), Stop> {
    let target = resolve::calling(args)?;
    let input = Input::open(args.body.as_ref(), args.file.as_ref())?;
    // One time for both: a server that comes late doesn't give its answer more of it.
    let wait = resolve::wait(&args.channel).begin();
    if target.makes_name {
        signals::remove_made_at_end(&target.address);
    }
    let mut sender = Sender::open_with(target.address.to_string(), &target.options)
        .map_err(|error| explain(error.into(), &args.address))?;
    notice::opened(&target.address, sender.address(), sender.capabilities());
    let left = || wait.left().map_or(Wait::Forever, Wait::For);
    let wait = if wait == Wait::Not { wait } else { left() };
    let mut question = input.whole(body_max(&sender), |input| beyond(&sender, &target, input))?;
    let (lines, c_string) = (args.printing.lines, args.channel.c_string);
    question.extend_from_slice(resolve::ending(lines, c_string, target.mechanism));
    let answer =
        sender.call(&question, wait).map_err(|error| explain(error.into(), &args.address))?;
    let shown = Shown::from(&answer);
    let shown = if c_string { shown.as_c_string() } else { shown };
    let (address, capabilities) = (sender.address(), sender.capabilities());
    let origin = Origin { address, is_one_of_several: false, capabilities };
    let style = Style::new(&args.printing, resolve::is_raw(&args.channel));
    let mut out = Output::open();
    style.print(&mut out, &shown, origin)?;
    out.flush()
}

/// What a failure means to one who waits for an answer.
fn explain(failure: Failure, address: &str) -> Failure {
    if failure.is(&Kind::TimedOut) {
        return failure
            .and("no answer came; the question may have been received")
            .with_hint("allow more time: --timeout 1m, or without --timeout for ever");
    }
    if failure.is(&Kind::Disconnected) {
        let hint = format!("see why it ended, and start it again: poste reply {address} --echo");
        return failure.and("no answer came").with_hint(hint);
    }
    if failure.is(&Kind::NoReceiver) {
        return failure.with_hint(format!("start a server: poste reply {address} --echo"));
    }
    if failure.is(&Kind::Refused) { failure.with_code(Code::Nobody) } else { failure }
}
