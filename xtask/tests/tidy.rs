//! The house is tidy: every rule is a test.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use xtask::house::House;
use xtask::suite::SKIPPED;
use xtask::tidy::{RULES, TOOLCHAIN};

#[test]
fn the_house_is_tidy() {
    let house = House::at(Path::new(xtask::ROOT)).unwrap();
    let faults: Vec<_> = RULES
        .iter()
        .filter(|rule| !rule.depends_on_toolchain)
        .flat_map(|rule| (rule.check)(&house).into_iter().map(|f| format!("{}: {f}", rule.name)))
        .collect();
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn the_code_is_formatted() {
    of_toolchain("the_code_is_formatted", "formatting", "fmt");
}

#[test]
fn clippy_has_nothing_to_say() {
    of_toolchain("clippy_has_nothing_to_say", "clippy", "clippy");
}

/// A rule that is kept with one version of the toolchain: with another it may say other things.
fn of_toolchain(test: &str, rule: &str, tool: &str) {
    let version = |arguments: &[&str]| {
        let output = Command::new("cargo").args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let has_tool = version(&[tool, "--version"]).is_some();
    let Some(cargo) = version(&["--version"]).filter(|_| has_tool) else {
        return skip(test, &format!("cargo {tool} is missing: rustup component add {tool}"));
    };
    if !cargo.starts_with(&format!("cargo {TOOLCHAIN}.")) {
        return skip(test, &format!("kept with Rust {TOOLCHAIN}, this is {}", cargo.trim()));
    }
    let house = House::at(Path::new(xtask::ROOT)).unwrap();
    let rule = RULES.iter().find(|known| known.name == rule).unwrap();
    let faults = (rule.check)(&house);
    assert!(faults.is_empty(), "\n{}\n", faults[0]);
}

fn skip(test: &str, reason: &str) {
    let line = format!("SKIPPED: tidy::{test}: {reason}\n");
    eprint!("{line}");
    if let Some(list) = std::env::var_os(SKIPPED) {
        let list = std::fs::OpenOptions::new().append(true).open(list);
        list.and_then(|mut list| list.write_all(line.as_bytes())).unwrap();
    }
}
