//! Anyone at the other end: raw mode against programs that know nothing of poste, both ways.
//!
//! A [`peer::Peer`] is one line of a table: a foreign program, a channel, the command that sends
//! there and the one that receives there. Each is tried with every size that the channel has, and
//! what arrives is compared byte for byte; the trial is named `peer::scheme::direction`. A
//! [`talk::Talk`] is a program that asks or answers. Everything else (a server that reopens, `ipcs`)
//! is a [`trial::Test`] of its own.
//!
//! Every wait has a limit; every object has a name of this process and is gone at the end, which is
//! checked. A trial that lacks something of the machine is ignored, and named as `SKIPPED`.
//! `POSTE_PYTHON` names the Python that has posix_ipc and sysv_ipc, if `python3` hasn't.

mod alone;
mod c;
mod leftovers;
mod machine;
mod peer;
mod perl;
mod place;
mod python;
mod shell;
mod socat;
mod stranger;
mod talk;
mod tools;
mod trial;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let args = Arguments::from_args();
    let peers = [c::PEERS, python::PEERS, perl::PEERS, shell::PEERS, socat::PEERS].concat();
    let talks = [c::TALKS, python::TALKS, socat::TALKS].concat();
    let tests = [c::TESTS, python::TESTS, shell::TESTS, tools::TESTS].concat();
    let mut trials: Vec<_> = peers.iter().flat_map(|peer| peer.trials(&args)).collect();
    trials.extend(talks.iter().flat_map(|talk| talk.trials(&args)));
    trials.extend(tests.iter().map(|test| test.trial(&args)));
    if args.list {
        return libtest_mimic::run(&args, trials).exit_code();
    }
    let conclusion = libtest_mimic::run(&args, trials);
    machine::clean_up();
    if conclusion.has_failed() {
        return conclusion.exit_code();
    }
    leftovers::check()
}
