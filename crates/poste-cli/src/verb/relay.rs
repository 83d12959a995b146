//! `poste relay`: moves messages from one address to another, whole messages at a time.
//!
//! One message is under way at a time: while there is no room for it at the other end, nothing more
//! is received, and the senders wait in their turn; it is acknowledged when the other end has it.
//! What the other end cannot carry at all is said and passed over, so that nobody who may send can
//! end the relay.

use std::cell::RefCell;
use std::os::fd::AsFd as _;
use std::time::Duration;

use poste::limits::PIECE_MAX;
use poste::{Address, Level, Message, Outgoing, Peers, Priorities, Redelivers, Sender, Wait};

use crate::args::Relay;
use crate::exit::{Code, Failure, Stop};
use crate::resolve::{self, Target};
use crate::sources::{Origin, Sources, acknowledged};
use crate::{notice, signals};

mod both;
mod passing;

/// How often an idle relay looks whether the connection that it sends on is still there.
const LOOK: Duration = Duration::from_millis(200);

/// Opens both ends, the sending one first: who sends to us should find somebody behind.
pub(crate) fn run(args: &Relay) -> Result<(), Stop> {
    if args.both {
        return both::run(args);
    }
    let (from, to) = resolve::relaying(args)?;
    let onward = RefCell::new(Onward::open(args, &from, &to)?);
    let mut sources = Sources::open(std::slice::from_ref(&from))?;
    if onward.borrow().may_go {
        sources.look_every(LOOK)?;
    }
    let relayed = relay(args, &mut sources, &onward);
    drop(sources);
    drop(onward);
    signals::forget_all();
    relayed
}

/// Moves messages for ever, or as many as were asked for.
fn relay(args: &Relay, sources: &mut Sources, onward: &RefCell<Onward>) -> Result<(), Stop> {
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        next(sources, onward)?;
        left -= u64::from(args.count.is_some());
    }
    Ok(())
}

/// Moves the next message; meanwhile the other end may go.
fn next(sources: &mut Sources, onward: &RefCell<Onward>) -> Result<(), Stop> {
    let wait = onward.borrow().wait;
    let pass = &mut |mut message: Message<'_>, origin: Origin<'_>| {
        onward.borrow_mut().pass(&mut message)?;
        acknowledged(message.acknowledge(), origin.address)
    };
    sources.recv_or_look(wait, pass, &mut || onward.borrow().check())
}

/// The end that sends, and how messages are made to fit it.
#[derive(Debug)]
struct Onward {
    sender: Sender,
    wait: Wait,
    /// It is a connection, and when that ends there is no other.
    may_go: bool,
    /// What comes has no boundaries: it may be cut where it is too large.
    cut_at: usize,
    /// What ends a raw line.
    ending: &'static [u8],
    /// Types of raw System V messages mean the same at both ends.
    keeps_types: bool,
    priority_max: u16,
    /// A message that is not passed on comes again.
    comes_again: bool,
}

impl Onward {
    fn open(args: &Relay, from: &Target, to: &Target) -> Result<Onward, Stop> {
        if to.makes_name {
            signals::remove_made_at_end(&to.address);
        }
        let sender = Sender::open_with(to.address.to_string(), &to.options)?;
        notice::opened(&to.address, sender.address(), sender.capabilities());
        let is_raw = (args.raw || args.raw_from, args.raw || args.raw_to);
        let (at_from, at_to) = (&from.mechanism.capabilities, &to.mechanism.capabilities);
        let is_bytes = is_raw.0 && !at_from.raw_boundaries && !args.lines;
        let has_types = |target: &Target| target.mechanism.settings.contains(&"type");
        let facts = sender.facts();
        let keeps_priorities = !is_raw.1 || matches!(at_to.priorities, Priorities::Native(_));
        Ok(Onward {
            wait: resolve::within(args.timeout),
            may_go: !args.listen && (at_to.connections || !at_to.named),
            cut_at: if is_bytes { facts.message_size.min(PIECE_MAX) } else { usize::MAX },
            ending: resolve::ending(args.lines && is_raw.1, false, to.mechanism),
            keeps_types: is_raw.0 && is_raw.1 && has_types(from) && has_types(to),
            comes_again: at_from.redelivers != Redelivers::Never,
            priority_max: if keeps_priorities { facts.priority_max } else { 0 },
            sender,
        })
    }

    /// Passes a message on.
    fn pass(&mut self, message: &mut Message<'_>) -> Result<(), Stop> {
        let descriptors = message.take_descriptors();
        let mut descriptors: Vec<_> = descriptors.iter().map(|one| one.as_fd()).collect();
        if !descriptors.is_empty() && !self.sender.capabilities().descriptors {
            notice::say(&lost(descriptors.len(), self.sender.address()));
            descriptors.clear();
        }
        let body = &message[..];
        if body.len() <= self.cut_at && self.ending.is_empty() {
            return self.send(self.like(message, body).descriptors(&descriptors));
        }
        if !self.ending.is_empty() {
            let line = [body, self.ending].concat();
            return self.send(self.like(message, &line).descriptors(&descriptors));
        }
        body.chunks(self.cut_at).enumerate().try_for_each(|(index, part)| {
            let outgoing = self.like(message, part);
            self.send(match index {
                0 => outgoing.descriptors(&descriptors),
                _ => outgoing.goes_on(),
            })
        })
    }

    /// A body with what else the message has, as far as this end can carry it.
    fn like<'a>(&self, message: &Message<'_>, body: &'a [u8]) -> Outgoing<'a> {
        let outgoing = Outgoing::from(body).priority(message.priority().min(self.priority_max));
        match message.message_type() {
            Some(message_type) if self.keeps_types => outgoing.message_type(message_type),
            _ => outgoing,
        }
    }

    fn send(&mut self, outgoing: Outgoing<'_>) -> Result<(), Stop> {
        let sent = match self.sender.send_wait(outgoing, self.wait) {
            // The time was over, or the receiver went: the next call says it.
            Ok(Level::Held) => self.sender.try_flush(),
            done => done,
        };
        let error = match sent {
            Ok(Level::Held) => return Err(self.cut_short().into()),
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        let failure = Failure::from(error);
        let is_lost = "the message that was under way is lost";
        if failure.is_about_the_message() {
            notice::say(failure.and(is_lost).what());
            return Ok(());
        }
        let then = if self.comes_again { "the message comes again" } else { is_lost };
        Err(failure.and(then).into())
    }

    /// Whether the connection is still there.
    fn check(&self) -> Result<(), Stop> {
        if self.may_go && self.sender.facts().peers == Peers::AllGone {
            let address = self.sender.address();
            return Err(Failure::new(
                Code::Nobody,
                format!("cannot send to {address}: the other end is gone"),
                "start the receiver again, and then this relay",
            )
            .into());
        }
        Ok(())
    }

    fn cut_short(&self) -> Failure {
        let address = self.sender.address();
        Failure::new(
            Code::TimedOut,
            format!("cannot send to {address}: the time was over in the middle of a message"),
            "allow more time: --timeout 1m, or without --timeout for ever",
        )
    }
}

/// What is said of descriptors that stay behind.
fn lost(count: usize, to: &Address) -> String {
    format!("a message's descriptors, {count} of them, can't go on to {to} and are closed")
}
