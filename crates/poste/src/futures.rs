//! The ends whose methods are futures, for any of the runtimes that a feature names:
//! [`poste::tokio`](crate::tokio) and [`poste::async_io`](crate::async_io) call them `Sender` and
//! `Receiver`.
//!
//! Nothing is done here that the library doesn't do: a future makes the call that doesn't wait, and
//! where only time is missing it waits for the end's descriptor in the epoll of the runtime. There is
//! no task beside yours. Opening, closing and [`Message::reply`](crate::Message::reply) are the plain
//! calls: a reply to one who doesn't read may wait some seconds.
//!
//! **Dropping a future** loses, doubles and tears nothing. Each method says what it means there; a
//! time limit is the runtime's own around the future.
//!
//! A runtime is a [`Reactor`]: the hundred lines that are its own. All else is one source for all.
//!
//! Source: epoll(7) ("Level-triggered and edge-triggered").

use crate::mechanism::Linger;
use crate::{receiver, sender};

pub(crate) mod reactor;
mod receiving;
mod sending;

use reactor::{Register, Watch};

/// A runtime's epoll, and how its tasks take turns. Each runtime's module has the only one; the trait
/// can't be implemented elsewhere.
#[expect(private_bounds, reason = "this seals it")]
pub trait Reactor: Register {}

/// The sending end of a channel; as [`poste::Sender`](crate::Sender), with futures.
///
/// It is a [`Sink`](futures_sink::Sink) too, of whatever can be sent by reference: `Vec<u8>`,
/// `String`, [`OwnedMessage`](crate::OwnedMessage) (its body and priority; descriptors stay behind).
/// What a sink has taken in goes with its next flush; dropping it sends as much as there is room for,
/// and closing it as a sink flushes, no more.
#[derive(Debug)]
pub struct Sender<R: Reactor> {
    /// Until it may send; made when it first has to wait.
    room: Option<Watch<R>>,
    /// Until an answer comes; made when one is first waited for.
    answers: Option<Watch<R>>,
    turns: R::Turns,
    sender: sender::Sender,
}

/// The receiving end of a channel; as [`poste::Receiver`](crate::Receiver), with futures.
///
/// It is a [`Stream`](futures_core::Stream) of [`OwnedMessage`](crate::OwnedMessage)s too, which
/// ends where nothing can come any more.
#[derive(Debug)]
pub struct Receiver<R: Reactor> {
    watch: Watch<R>,
    turns: R::Turns,
    receiver: receiver::Receiver,
    /// What the descriptor last showed may be for somebody else: look before waiting for it.
    look_first: bool,
    /// So many messages that lie in user space may be taken before other tasks have a turn.
    at_once: u32,
}
