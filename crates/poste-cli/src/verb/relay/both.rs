//! `poste relay --both`: each connection that comes gets one of its own to the other address, and
//! bytes or packets pass both ways as they are, envelopes included.
//!
//! One direction may end before the other: its end is passed on, as peers expect that answer when
//! they have read everything.

use std::os::fd::AsFd as _;
use std::thread;
use std::time::Duration;

use poste::{Duplex, Kind, Outgoing, Peers, Receiver, Sender, Wait};

use crate::args::Relay;
use crate::exit::Stop;
use crate::resolve::{self, Target};
use crate::{notice, signals};

/// How long accepting pauses when this process may open no more descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Connects before it listens: that nobody is there is told at once.
pub(super) fn run(args: &Relay) -> Result<(), Stop> {
    let (from, to) = resolve::relaying_both(args)?;
    let mut next = Some(connect(&to)?);
    let mut listener = Receiver::open_with(from.address.to_string(), &from.options)?;
    signals::remove_made_at_end(listener.address());
    notice::opened(&from.address, listener.address(), listener.capabilities());
    let ended = loop {
        let here = match listener.accept(Wait::Forever) {
            Ok(here) => here,
            Err(error) if matches!(error.kind(), Kind::Limit { .. }) => {
                thread::sleep(PAUSE);
                continue;
            }
            Err(error) => break Stop::from(error),
        };
        let still_there = |sender: &Sender| sender.facts().peers != Peers::AllGone;
        match next.take().filter(still_there).map_or_else(|| connect(&to), Ok) {
            Ok(there) => join(here, there)?,
            Err(stop) => break stop,
        }
    };
    drop(listener);
    signals::forget_all();
    Err(ended)
}

fn connect(to: &Target) -> Result<Sender, Stop> {
    Ok(Sender::open_with(to.address.to_string(), &to.options)?)
}

/// Passes on what comes at either side, until both have ended. It goes on by itself.
fn join(here: Duplex, there: Sender) -> Result<(), Stop> {
    let (back, questions) = here.split();
    let (onward, answers) = there.into_duplex()?.split();
    thread::spawn(move || pass(questions, onward));
    thread::spawn(move || pass(answers, back));
    Ok(())
}

/// Passes on one direction. Dropping the sender tells its side that nothing more comes.
fn pass(mut from: Receiver, mut to: Sender) {
    let carries = to.capabilities().descriptors;
    while let Ok(mut message) = from.recv() {
        let taken = message.take_descriptors();
        let descriptors: Vec<_> =
            taken.iter().filter(|_| carries).map(|descriptor| descriptor.as_fd()).collect();
        if to.send(Outgoing::from(&message[..]).descriptors(&descriptors)).is_err() {
            return;
        }
    }
}
