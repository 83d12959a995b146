//! The command: which chore, and how it ended.

#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

use xtask::house::House;
use xtask::suite::{self, Suite};
use xtask::tidy;

const USAGE: &str = "\
cargo xtask test [FILTER…]   the whole test suite; ends with `N passed, N failed, N skipped`
cargo xtask tidy             formatting, clippy and the rules of the house
cargo xtask soak [FILTER…]   the long forms of the proofs (POSTE_LONG=1), minutes to an hour";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let chore = arguments.next();
    let filters: Vec<_> = arguments.collect();
    let done = match chore.as_deref() {
        Some("test") => suite::run(&Suite::whole(filters)),
        Some("soak") => suite::run(&Suite::long(filters)),
        Some("tidy") if filters.is_empty() => tidy_up(),
        Some("help" | "--help" | "-h") => {
            println!("{USAGE}");
            Ok(true)
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Tries every rule and prints what each has to say: whether all are kept.
fn tidy_up() -> std::io::Result<bool> {
    let house = House::at(Path::new(xtask::ROOT))?;
    let mut is_tidy = true;
    for rule in tidy::RULES {
        let faults = (rule.check)(&house);
        println!("{:<22} {}", rule.name, if faults.is_empty() { "ok" } else { "BROKEN" });
        for fault in &faults {
            println!("  {fault}");
        }
        is_tidy &= faults.is_empty();
    }
    for note in tidy::large_files(&house) {
        println!("note: {note}");
    }
    Ok(is_tidy)
}
