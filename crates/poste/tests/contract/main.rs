//! The contract: what every mechanism promises, one clause a file, run for each mechanism according
//! to its capabilities. A trial is named `clause::mechanism`, or `clause::mechanism::raw`.
//!
//! The names of [`fixture::ALL`] and [`clauses::ALL`] span a table. A cell that a mechanism's
//! capabilities exclude doesn't exist; one that lacks something of the machine is ignored, and
//! named as `SKIPPED` on standard error and in the file that `POSTE_SKIPPED` names.
//!
//! `POSTE_SEED=N` repeats what a failure printed; `POSTE_LONG=1` runs the long forms. The program
//! starts itself again as a helper where a clause needs real processes ([`worker`]).

mod cell;
mod clauses;
mod fixture;
mod leftovers;
mod letters;
#[cfg(feature = "futures")]
mod runtime;
mod worker;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    if worker::is_one() {
        return worker::run();
    }
    let args = Arguments::from_args();
    let trials = cell::trials(&args);
    if args.list {
        return libtest_mimic::run(&args, trials).exit_code();
    }
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{}: {panic}", std::thread::current().name().unwrap_or("in a thread of a trial"));
    }));
    #[cfg(feature = "async-io")]
    runtime::Smol::make_the_only_reactor();
    let before = leftovers::look();
    let conclusion = libtest_mimic::run(&args, trials);
    if conclusion.has_failed() {
        eprintln!("the seed was POSTE_SEED={}", cell::seed());
        return conclusion.exit_code();
    }
    leftovers::take_what_the_killed_left();
    leftovers::compare(&before, &leftovers::look())
}
