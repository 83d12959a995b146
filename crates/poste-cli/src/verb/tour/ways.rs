//! How the two ends of a channel reach two processes: by a name that both open, or handed down as
//! standard input and output; and for what is inside one process, as they are.

use std::os::fd::AsRawFd as _;

use poste::mechanism::Mechanism;
use poste::{Error, Receiver, Sender};

use super::house;

/// Where a peer receives.
#[derive(Debug)]
pub(super) enum In {
    /// At an address, which it opens.
    Address(String),
    /// From an end that is open already.
    End(Box<Receiver>),
}

/// Where a peer sends.
#[derive(Debug)]
pub(super) enum Out {
    /// To an address, which is there when the other side is ready.
    Address(String),
    /// Into an end that is open already.
    End(Box<Sender>),
    /// To whoever says its address in the first message that arrives.
    Hello,
}

/// A channel: where to send, and where it comes out.
pub(super) fn one_way(mechanism: &'static Mechanism) -> Result<(Out, In), Error> {
    let ends = |(sender, receiver)| (Out::End(Box::new(sender)), In::End(Box::new(receiver)));
    match mechanism.scheme {
        "pipe" => poste::pipe().map(ends),
        "fd" => numbered_pipe().map(ends),
        "local" => poste::local().map(ends),
        "pair" => {
            let (here, there) = poste::pair()?;
            Ok(ends((there.split().0, here.split().1)))
        }
        _ => {
            let address = house::address(mechanism)?;
            Ok((Out::Address(address.clone()), In::Address(address)))
        }
    }
}

/// The two sides of a conversation; the second one introduces itself to the first.
pub(super) fn two_ways(mechanism: &'static Mechanism) -> Result<[(In, Out); 2], Error> {
    if mechanism.scheme == "pair" {
        let (here, there) = poste::pair()?;
        return Ok([here, there].map(|side| {
            let (sender, receiver) = side.split();
            (In::End(Box::new(receiver)), Out::End(Box::new(sender)))
        }));
    }
    let (there, from_here) = one_way(mechanism)?;
    let (here, from_there) = one_way(mechanism)?;
    let there = if let Out::Address(_) = there { Out::Hello } else { there };
    Ok([(from_there, there), (from_here, here)])
}

/// How many channels a conversation takes.
pub(super) fn channels(mechanism: &Mechanism) -> u32 {
    if mechanism.scheme == "pair" { 1 } else { 2 }
}

/// Whether the ends are in one process.
pub(super) fn is_inside(mechanism: &Mechanism) -> bool {
    mechanism.scheme == "local"
}

/// A pipe whose ends are opened by their numbers, as a program does that inherited them.
fn numbered_pipe() -> Result<(Sender, Receiver), Error> {
    let (reader, writer) =
        std::io::pipe().map_err(|error| Error::new(poste::Kind::System, error.to_string()))?;
    let sender = Sender::open(format!("fd:{}", writer.as_raw_fd()))?;
    let receiver = Receiver::open(format!("fd:{}", reader.as_raw_fd()))?;
    Ok((sender, receiver))
}

impl In {
    /// Opens it in this process.
    pub(super) fn open(self) -> Result<Receiver, Error> {
        match self {
            In::Address(address) => Receiver::create(address),
            In::End(receiver) => Ok(*receiver),
        }
    }
}

impl Out {
    /// The same, with the address at which the other side really is.
    pub(super) fn at(self, address: impl std::fmt::Display) -> Out {
        match self {
            Out::Address(_) => Out::Address(address.to_string()),
            other => other,
        }
    }
}
