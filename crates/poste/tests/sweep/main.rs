//! The instruction sweep: whatever instruction of whatever operation on a mailbox in shared memory
//! is the last one of its process, nothing is lost, torn, doubled or left behind, and nobody hangs.
//!
//! A process does one operation between two marks and is single-stepped there by ptrace(2). Trials
//! `sweep::copies::OPERATION` copy the mailbox's files at the boundaries and recover the copy; trials
//! `sweep::kills::OPERATION` really kill there, and the living go on. operations.rs is the list.
//! `sweep::fault::…` shows that a fault is found; `sweep::random` kills at any moment under load. Where
//! a process sleeps, its watcher is what is stepped. The code is that of a release build:
//!
//! ```text
//! cargo test --release -p poste --test sweep
//! ```
//!
//! `POSTE_SEED=N` repeats the choices of a run. `POSTE_LONG=1` copies also where nothing has changed, at
//! one boundary in eight, and kills at every boundary of an operation of up to 2,000 instructions, at
//! 2,000 and all at which something changes of a longer one; `POSTE_KILLS=N` sets another number.

#![forbid(unsafe_code)]

mod checker;
mod copies;
mod fault;
mod image;
mod kills;
mod letter;
mod operations;
mod oracle;
mod partner;
mod party;
mod random;
#[allow(dead_code, unused_imports, reason = "the library's own; this program needs a part of it")]
#[path = "../../src/ring/mod.rs"]
mod ring;
mod stage;
mod tally;
mod tree;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

use crate::operations::Operation;
use crate::stage::Processors;
use crate::tally::{ALL, Tally};

fn main() -> ExitCode {
    if let Some((role, words)) = partner::role() {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match role.as_str() {
            "play" => party::play(&words),
            "check" => checker::live(&words),
            "sender" => kills::send(&words),
            "receiver" => kills::receive(&words),
            "kill" => random::kill(&words),
            "publish_first" => fault::send(&words, fault::Order::Publish),
            "copy_first" => fault::send(&words, fault::Order::Copy),
            other => panic!("no such role: {other}"),
        }
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::from_args();
    if cfg!(debug_assertions) {
        println!("what is swept is a release build: cargo test --release -p poste --test sweep");
        return libtest_mimic::run(&arguments, Vec::new()).exit_code();
    }
    let mut trials: Vec<_> = operations::ALL
        .iter()
        .flat_map(|operation| {
            let copies = move || trial(operation, copies::sweep);
            let kills = move || trial(operation, kills::sweep);
            [
                Trial::test(format!("sweep::copies::{}", operation.name), copies),
                Trial::test(format!("sweep::kills::{}", operation.name), kills),
            ]
        })
        .collect();
    trials.push(Trial::test("sweep::fault::publish_before_copy_is_found", || {
        alone(fault::is_caught)
    }));
    trials.push(Trial::test("sweep::fault::copy_before_publish_is_none", || alone(fault::is_all)));
    trials.push(Trial::test("sweep::random", || judged(Processors::All, || random::sweep(&ALL))));
    if arguments.list {
        return libtest_mimic::run(&arguments, trials).exit_code();
    }
    if let Some(reason) = kills::lacks() {
        let left_out = |trial: Trial| {
            if !arguments.is_filtered_out(&trial) {
                poste_sys::testing::skip(trial.name(), &reason);
            }
            trial.with_ignored_flag(true)
        };
        trials = trials.into_iter().map(left_out).collect();
    }
    tree::House::sweep();
    let conclusion = libtest_mimic::run(&arguments, trials);
    ALL.print();
    if conclusion.has_failed() {
        eprintln!("the seed was POSTE_SEED={}", tally::seed());
    }
    conclusion.exit_code()
}

type Sweep = fn(&Operation, &Tally) -> Result<(), String>;

fn trial(operation: &Operation, sweep: Sweep) -> Result<(), libtest_mimic::Failed> {
    alone(|| sweep(operation, &ALL))
}

/// Runs a trial that steps.
fn alone(sweep: impl FnOnce() -> Result<(), String>) -> Result<(), libtest_mimic::Failed> {
    judged(Processors::One, sweep)
}

fn judged(
    processors: Processors,
    sweep: impl FnOnce() -> Result<(), String>,
) -> Result<(), libtest_mimic::Failed> {
    processors.choose();
    sweep().map_err(|fault| {
        ALL.count_fault();
        fault.into()
    })
}
