//! Objects as tests look at them: listed by the command, and held by one that can be killed.

use std::collections::BTreeMap;
use std::process::{Child, Command};

use serde_json::Value;

use super::Scratch;

/// The lines of JSON that a command printed, by their addresses.
pub fn by_address(out: &[u8]) -> BTreeMap<String, Value> {
    let text = String::from_utf8(out.to_vec()).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
    lines.map(|value| (value["address"].as_str().unwrap().to_owned(), value)).collect()
}

pub fn list(scratch: &Scratch) -> BTreeMap<String, Value> {
    let outcome = scratch.run(&["list", "--json"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.err.lines().count() <= 1, "{outcome:?}");
    by_address(&outcome.out)
}

pub fn has(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    found.is_ok_and(|output| output.status.success())
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A command that is killed where it wasn't before.
pub struct Killed(pub Child);

impl Killed {
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts a `recv` and waits until its socket is there.
pub fn receiver(scratch: &Scratch, name: &str) -> Killed {
    let child = Killed(scratch.start_bare(&["recv", "-f", &format!("unix:./{name}")]));
    for _ in 0..500 {
        if scratch.path(name).exists() {
            return child;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{name} never came");
}

/// The directory as it is printed: without links.
pub fn real(scratch: &Scratch) -> String {
    std::fs::canonicalize(scratch.path("")).unwrap().to_str().unwrap().to_owned()
}
