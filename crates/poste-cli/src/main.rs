//! The command `poste`: passes messages over every mechanism of the machine, from a shell.
//!
//! What was typed becomes [`args`]; [`resolve`] makes addresses, options and times of it; each verb
//! is one file in [`verb`]; what is written goes through [`output`], and how it ended through
//! [`exit`]. The library does the passing; nothing here knows one mechanism from another.

#![forbid(unsafe_code)]

mod args;
mod command;
mod duration;
mod exit;
mod input;
mod later;
mod notice;
mod output;
mod resolve;
mod signals;
mod sources;
mod table;
mod verb;

use std::process::ExitCode;

fn main() -> ExitCode {
    exit::report(run())
}

fn run() -> Result<(), exit::Stop> {
    let verb = args::parse()?;
    signals::watch()?;
    verb::run(verb)
}
