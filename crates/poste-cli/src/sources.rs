//! The receivers of one `recv`, taken together: whichever has a message.
//!
//! One receiver is asked directly. Several are polled together; those that give no descriptor to
//! wait on (System V queues) are looked at in short turns. Each message is acknowledged by whoever
//! it is handed to, when it is done: what is dropped before that comes again, where it can.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use poste::{Address, Capabilities, Error, Kind, Message, Receiver, Redelivers, Wait};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::exit::{Failure, Stop};
use crate::resolve::Target;
use crate::{notice, signals};

/// How long to sleep between two looks at those that can't be polled.
const TURN: Duration = Duration::from_millis(10);

/// How long is for ever, for those that notice only in a timed wait that their object goes.
const AGES: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// How often several are asked for what no descriptor shows: that an object is gone.
const ASK: Duration = Duration::from_secs(1);

/// The receivers, and whose turn it is.
#[derive(Debug)]
pub(crate) struct Sources {
    sources: Vec<Source>,
    several: bool,
    next: usize,
}

#[derive(Debug)]
struct Source {
    receiver: Receiver,
    address: Address,
    is_raw: bool,
}

/// Where a message came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin<'a> {
    /// The address.
    pub address: &'a Address,
    /// Messages come from others as well.
    pub is_one_of_several: bool,
    /// What its mechanism can do.
    pub capabilities: &'static Capabilities,
}

impl Origin<'_> {
    /// Whether a message that is not acknowledged comes again.
    pub(crate) fn redelivers(self) -> bool {
        self.capabilities.redelivers != Redelivers::Never
    }
}

/// What is done with a message.
pub(crate) type Each<'a> = dyn FnMut(Message<'_>, Origin<'_>) -> Result<(), Stop> + 'a;

impl Sources {
    /// Opens them all, or none.
    pub(crate) fn open(targets: &[Target]) -> Result<Sources, Stop> {
        let mut sources = Vec::with_capacity(targets.len());
        for target in targets {
            let receiver = Receiver::open_with(target.address.to_string(), &target.options)?;
            let receiver = receiver.manual();
            if target.makes_name {
                signals::remove_at_end(receiver.address());
            }
            notice::opened(&target.address, receiver.address(), receiver.capabilities());
            let address = receiver.address().clone();
            sources.push(Source { receiver, address, is_raw: target.options.is_raw() });
        }
        Ok(Sources { several: sources.len() > 1, sources, next: 0 })
    }

    /// Hands over the next message, from wherever one comes first, within `wait`.
    pub(crate) fn recv(&mut self, wait: Wait, each: &mut Each<'_>) -> Result<(), Stop> {
        if let ([Source { receiver, address, is_raw }], false) =
            (&mut self.sources[..], self.several)
        {
            let capabilities = receiver.capabilities();
            let origin = Origin { address, is_one_of_several: false, capabilities };
            return match receiver.recv_wait(noticing(wait, capabilities)) {
                Ok(message) => each(message, origin),
                Err(error) => Err(explain(error, receiver, *is_raw).into()),
            };
        }
        let wait = wait.begin();
        loop {
            if self.try_each(each)? {
                return Ok(());
            }
            if wait.left().is_some_and(|left| left.is_zero()) {
                return Err(nothing_came(wait).into());
            }
            self.wait_for_any(wait)?;
        }
    }

    /// Asks each once, beginning after the one that had the last message. Those that have ended are
    /// left out from then on.
    fn try_each(&mut self, each: &mut Each<'_>) -> Result<bool, Stop> {
        let mut asked = 0;
        while asked < self.sources.len() {
            let at = (self.next + asked) % self.sources.len();
            let is_last = self.sources.len() == 1;
            let Source { receiver, address, is_raw } = &mut self.sources[at];
            let capabilities = receiver.capabilities();
            match receiver.try_recv() {
                Ok(message) => {
                    let origin = Origin { address, is_one_of_several: true, capabilities };
                    each(message, origin)?;
                    self.next = at + 1;
                    return Ok(true);
                }
                Err(error) if error.kind() == Kind::Empty => asked += 1,
                Err(error) if error.kind() == Kind::Disconnected && !is_last => {
                    self.sources.remove(at);
                }
                Err(error) => return Err(explain(error, receiver, *is_raw).into()),
            }
        }
        Ok(false)
    }

    fn wait_for_any(&mut self, wait: Wait) -> Result<(), Stop> {
        let mut descriptors: Vec<BorrowedFd<'_>> = Vec::with_capacity(self.sources.len());
        let mut takes_turns = false;
        for Source { receiver, .. } in &mut self.sources {
            match receiver.pollable() {
                Ok(descriptor) => descriptors.push(descriptor),
                Err(error) if error.kind() == Kind::NotSupported => takes_turns = true,
                Err(error) => return Err(error.into()),
            }
        }
        let mut polled: Vec<_> = descriptors
            .iter()
            .map(|descriptor| PollFd::from_borrowed_fd(*descriptor, PollFlags::IN))
            .collect();
        let turn = if takes_turns { TURN } else { ASK };
        let left = wait.left().map_or(turn, |left| left.min(turn));
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut polled, Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(Error::system(errno, "cannot poll").into()),
        }
    }
}

/// What a failed acknowledgment means.
pub(crate) fn acknowledged(result: Result<(), Error>, address: &Address) -> Result<(), Stop> {
    result.map_err(|error| {
        let hint = format!("it may come again; look at what is there: poste info {address}");
        Failure::from(error.on("acknowledge a message of", address)).with_hint(hint).into()
    })
}

/// The wait in the form that notices when the object is removed: a blocking call on a POSIX queue
/// doesn't. A System V queue tells those that block, and its timed waits cost more.
fn noticing(wait: Wait, can: &Capabilities) -> Wait {
    match wait {
        Wait::Forever if can.survives_its_users && can.pollable => Wait::For(AGES),
        _ => wait,
    }
}

fn nothing_came(wait: Wait) -> Error {
    let kind = if wait == Wait::Not { Kind::Empty } else { Kind::TimedOut };
    Error::new(kind, "no message came from any of the addresses")
}

/// An end of which a peer was thrown out explains itself by that: it spoke no poste; or where lines
/// were expected, one was too long.
fn explain(error: Error, receiver: &Receiver, is_raw: bool) -> Failure {
    let is_silence = matches!(error.kind(), Kind::Empty | Kind::TimedOut | Kind::Disconnected);
    let failure = Failure::from(error);
    match receiver.counters().corrupt {
        0 => failure,
        _ if !is_silence => failure,
        count if is_raw => failure.with_hint(format!(
            "what came was larger than a message may be ({count} thrown out): receive it with a \
             larger --message-size, or without marks"
        )),
        count => failure.with_hint(format!(
            "what came was not poste's ({count} thrown out): a foreign peer is received with --raw"
        )),
    }
}
