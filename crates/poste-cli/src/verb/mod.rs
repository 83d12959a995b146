//! The verbs, one file each: `run` takes what was typed and does it.

use crate::args::Verb;
use crate::exit::Stop;

mod capabilities;
mod create;
mod recv;
mod remove;
mod send;
pub(crate) mod tour;

/// Does what was asked for.
pub(crate) fn run(verb: Verb) -> Result<(), Stop> {
    match verb {
        Verb::Send(args) => send::run(&args),
        Verb::Recv(args) => recv::run(&args),
        Verb::Create(args) => create::run(&args),
        Verb::Remove(args) => remove::run(&args),
        Verb::Capabilities(args) => capabilities::run(&args),
        Verb::Tour(args) => tour::run(&args),
        Verb::TourPeer(args) => tour::be_peer(&args),
    }
}
