//! The verbs, one file each: `run` takes what was typed and does it.

use crate::args::Verb;
use crate::exit::Stop;

mod call;
mod capabilities;
mod completions;
mod create;
mod gc;
mod info;
mod limits;
mod list;
mod man;
mod memory;
mod recv;
mod relay;
mod remove;
mod reply;
mod semaphore;
mod send;
pub(crate) mod tour;

/// Does what was asked for.
pub(crate) fn run(verb: Verb) -> Result<(), Stop> {
    match verb {
        Verb::Send(args) => send::run(&args),
        Verb::Recv(args) => recv::run(&args),
        Verb::Call(args) => call::run(&args),
        Verb::Reply(args) => reply::run(&args),
        Verb::Relay(args) => relay::run(&args),
        Verb::Create(args) => create::run(&args),
        Verb::Remove(args) => remove::run(&args),
        Verb::List(args) => list::run(&args),
        Verb::Info(args) => info::run(&args),
        Verb::Limits(args) => limits::run(&args),
        Verb::Gc(args) => gc::run(&args),
        Verb::Capabilities(args) => capabilities::run(&args),
        Verb::Semaphore(args) => semaphore::run(&args),
        Verb::Memory(args) => memory::run(&args),
        Verb::Tour(args) => tour::run(&args),
        Verb::TourPeer(args) => tour::be_peer(&args),
        Verb::Completions(args) => completions::run(&args),
        Verb::Man(args) => man::run(&args),
    }
}
