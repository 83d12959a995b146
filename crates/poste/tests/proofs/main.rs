//! Real processes and real amounts: what a user would try before believing the rest.
//!
//! The short forms pass in seconds; `POSTE_LONG=1` runs the full ones. Each trial starts this
//! program again for its other processes (again.rs).

mod again;
mod connections;
mod log_lines;
mod many_writers;
mod place;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    if let Some((role, words)) = again::role() {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match (role.as_str(), &words[..]) {
            ("send_lines", [address, file, manner]) => log_lines::send(address, file, manner),
            ("write", [address, job]) => many_writers::write(address, job),
            ("crowd", [address, count]) => connections::crowd(address, count),
            ("cramped", [address, manner]) => connections::receive_cramped(address, manner),
            _ => panic!("no such role: {role} {words:?}"),
        }
        return ExitCode::SUCCESS;
    }
    let mut trials = log_lines::trials();
    trials.extend(many_writers::trials());
    trials.extend(connections::trials());
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
