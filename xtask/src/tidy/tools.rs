//! Rules that other programs know: rustfmt, clippy, cargo tree.

use std::collections::BTreeSet;
use std::process::{Command, Output, Stdio};

use super::Fault;
use crate::house::House;

/// How many crates the core may need besides itself.
const BUDGET: usize = 6;

/// Every file is as `cargo fmt` leaves it.
pub(super) fn formatting(house: &House) -> Vec<Fault> {
    complaint("cargo fmt --all --check", "run cargo fmt --all", &call(house, "fmt --all --check"))
}

/// Clippy has nothing to say, with all features and of the library without any or with each alone.
pub(super) fn clippy(house: &House) -> Vec<Fault> {
    let all = "clippy --quiet --workspace --all-targets --features=poste/tokio,poste/async-io -- \
               -D warnings";
    let bare = "clippy --quiet --package poste -- -D warnings";
    let tokio = "clippy --quiet --package poste --features tokio -- -D warnings";
    let async_io = "clippy --quiet --package poste --features async-io -- -D warnings";
    let look = |arguments| {
        let output = call(house, arguments);
        complaint("cargo clippy", "mend it, or allow it in place with a reason", &output)
    };
    [all, bare, tokio, async_io].into_iter().flat_map(look).collect()
}

/// The core without features stays within its budget of crates.
pub(super) fn dependency_budget(house: &House) -> Vec<Fault> {
    let output = call(house, "tree -p poste -e normal --no-default-features --prefix none");
    match output {
        Ok(output) if output.status.success() => {
            over_budget(&String::from_utf8_lossy(&output.stdout))
        }
        other => complaint("cargo tree", "see that it runs", &other),
    }
}

fn over_budget(tree: &str) -> Vec<Fault> {
    let crates: BTreeSet<_> =
        tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let others: Vec<_> = crates.into_iter().filter(|name| *name != "poste").collect();
    if others.len() <= BUDGET {
        return Vec::new();
    }
    let text = format!(
        "poste needs {} crates, at most {BUDGET} are allowed: {}; put the new one behind a feature, \
         or do without",
        others.len(),
        others.join(", ")
    );
    vec![Fault::at("crates/poste/Cargo.toml", 0, text)]
}

fn call(house: &House, arguments: &str) -> std::io::Result<Output> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    Command::new(cargo)
        .args(arguments.split(' '))
        .current_dir(&house.root)
        .stdin(Stdio::null())
        .output()
}

fn complaint(command: &str, mend: &str, output: &std::io::Result<Output>) -> Vec<Fault> {
    let said = match output {
        Ok(output) if output.status.success() => return Vec::new(),
        Ok(output) => [&output.stdout[..], &output.stderr[..]].concat(),
        Err(error) => error.to_string().into_bytes(),
    };
    let said = String::from_utf8_lossy(&said);
    let shown: Vec<_> = said.lines().take(60).collect();
    vec![Fault::at(command, 0, format!("{mend}\n{}", shown.join("\n")))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seventh_crate_is_too_many() {
        let within = "poste v0.1.0 (/x)\na v1\nb v1\nc v1\nd v1\ne v1\nf v1\na v1 (*)\n";
        assert_eq!(over_budget(within), []);
        assert_eq!(over_budget(&format!("{within}g v1\n")).len(), 1);
    }

    #[test]
    fn a_tool_that_complains_is_heard() {
        let failed = Command::new("sh").args(["-c", "echo Diff in a.rs:1; exit 1"]).output();
        let faults = complaint("cargo fmt", "run cargo fmt", &failed);
        assert!(faults[0].text.contains("Diff in a.rs:1"));
        assert_eq!(complaint("true", "", &Command::new("true").output()), []);
    }
}
