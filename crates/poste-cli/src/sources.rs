//! The receivers of one `recv` or `relay`, taken together: whichever has a message.
//!
//! One receiver is asked directly. Several wait in a set, and who is ready is asked in turn; those
//! that have ended are left out from then on. Each message is acknowledged by whoever it is handed
//! to, when it is done: what is dropped before that comes again, where it can.

use std::collections::VecDeque;
use std::time::Duration;

use poste::{Address, Capabilities, Error, Kind, Message, Receiver, Redelivers, Wait, WaitSet};

use crate::exit::{Failure, Stop};
use crate::resolve::Target;
use crate::{notice, signals};

/// How long is for ever, for those that notice only in a timed wait that their object goes.
const AGES: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// How often several are asked for what no descriptor shows: that an object is gone.
const ASK: Duration = Duration::from_secs(1);

/// The receivers, and who is to be asked.
#[derive(Debug)]
pub(crate) struct Sources {
    /// Each under its key in the set; those that have ended are gone.
    sources: Vec<Option<Source>>,
    several: bool,
    /// Made where one receiver's own wait is not enough.
    set: Option<WaitSet>,
    /// Who was told to be ready and has not been asked yet.
    ready: VecDeque<u64>,
}

/// The keys of the timers; receivers have their places.
const LOOK: u64 = u64::MAX;
const ASK_ALL: u64 = u64::MAX - 1;

#[derive(Debug)]
struct Source {
    receiver: Receiver,
    address: Known,
    is_raw: bool,
}

/// An address, and what its mechanism can do.
#[derive(Debug)]
struct Known(Address, &'static Capabilities);

impl Known {
    fn origin(&self, is_one_of_several: bool) -> Origin<'_> {
        Origin { address: &self.0, is_one_of_several, capabilities: self.1 }
    }
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
            if target.makes_name {
                signals::remove_made_at_end(&target.address);
            }
            let receiver = Receiver::open_with(target.address.to_string(), &target.options)?;
            let receiver = receiver.manual();
            notice::opened(&target.address, receiver.address(), receiver.capabilities());
            let address = Known(receiver.address().clone(), receiver.capabilities());
            sources.push(Source { receiver, address, is_raw: target.options.is_raw() });
        }
        let several = sources.len() > 1;
        let sources = sources.into_iter().map(Some).collect();
        let mut opened = Sources { sources, several, set: None, ready: VecDeque::new() };
        if several {
            opened.gather()?.add_interval(ASK_ALL, ASK)?;
        }
        Ok(opened)
    }

    /// While it waits, [`Sources::recv_or_look`] looks so often.
    pub(crate) fn look_every(&mut self, time: Duration) -> Result<(), Stop> {
        Ok(self.gather()?.add_interval(LOOK, time)?)
    }

    /// Sees to it that all wait in a set.
    fn gather(&mut self) -> Result<&WaitSet, Stop> {
        let set = match self.set.take() {
            Some(set) => set,
            None => {
                let set = WaitSet::new()?;
                for (key, source) in self.sources.iter_mut().enumerate() {
                    if let Some(source) = source {
                        set.add(key as u64, &mut source.receiver)?;
                    }
                }
                set
            }
        };
        Ok(self.set.insert(set))
    }

    /// Hands over the next message, from wherever one comes first, within `wait`.
    pub(crate) fn recv(&mut self, wait: Wait, each: &mut Each<'_>) -> Result<(), Stop> {
        self.recv_or_look(wait, each, &mut || Ok(()))
    }

    /// As [`Sources::recv`], and looks now and then whether there is a reason to stop.
    pub(crate) fn recv_or_look(
        &mut self,
        wait: Wait,
        each: &mut Each<'_>,
        look: &mut dyn FnMut() -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let wait = wait.begin();
        let Some(set) = &self.set else {
            let Some(Some(source)) = self.sources.first_mut() else { return Err(nobody().into()) };
            return match source.receiver.recv_wait(noticing(wait, source.address.1)) {
                Ok(message) => each(message, source.address.origin(false)),
                Err(error) => Err(explain(error, &source.receiver, source.is_raw).into()),
            };
        };
        let mut keys = Vec::new();
        loop {
            while let Some(key) = self.ready.pop_front() {
                if key == LOOK {
                    look()?;
                } else if key == ASK_ALL {
                    self.ready.extend(0..self.sources.len() as u64);
                } else if ask(&mut self.sources, key, self.several, set, each)? {
                    return Ok(());
                }
            }
            match set.wait(&mut keys, wait) {
                Ok(()) => self.ready.extend(&keys),
                Err(error) if matches!(error.kind(), Kind::Empty | Kind::TimedOut) => {
                    return Err(self.nothing_came(error).into());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// One receiver says it as if it had waited itself.
    fn nothing_came(&self, error: Error) -> Failure {
        let Some(Some(only)) = self.sources.first().filter(|_| !self.several) else {
            return Error::new(error.kind(), "no message came from any of the addresses").into();
        };
        let error = Error::new(error.kind(), "").on("receive from", &only.address.0);
        explain(error, &only.receiver, only.is_raw)
    }
}

/// Asks one that is ready: whether it had a message. One that has ended is left out from then on,
/// unless it is the last.
fn ask(
    sources: &mut [Option<Source>],
    key: u64,
    several: bool,
    set: &WaitSet,
    each: &mut Each<'_>,
) -> Result<bool, Stop> {
    let is_last = sources.iter().flatten().count() == 1;
    let Some(place) = sources.get_mut(key as usize) else { return Ok(false) };
    let Some(source) = place else { return Ok(false) };
    match source.receiver.try_recv() {
        Ok(message) => each(message, source.address.origin(several)).map(|()| true),
        Err(error) if error.kind() == Kind::Empty => Ok(false),
        Err(error) if error.kind() == Kind::Disconnected && !is_last => {
            set.remove(key);
            *place = None;
            Ok(false)
        }
        Err(error) => Err(explain(error, &source.receiver, source.is_raw).into()),
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
        Wait::Forever if can.survives_its_users && can.delay.is_zero() => Wait::For(AGES),
        _ => wait,
    }
}

fn nobody() -> Error {
    Error::new(Kind::Disconnected, "every sender is gone")
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
