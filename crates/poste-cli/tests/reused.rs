//! A number of a file that is used again: what another program makes is not taken for what poste
//! made, though it has the same name and the same number.

mod command;

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use command::{Outcome, Scratch, skip};

/// How many files are made until one has a number that was used before.
const TRIES: usize = 500;

fn number(path: &Path) -> u64 {
    std::fs::symlink_metadata(path).unwrap().ino()
}

/// Makes objects beside the name until one has this number, and gives that one the name.
fn remake(scratch: &Scratch, name: &str, wanted: u64, make: impl Fn(&Path)) -> bool {
    let mut others = Vec::new();
    let mut found = false;
    for index in 0..TRIES {
        let path = scratch.path(&format!("other-{index}"));
        make(&path);
        if number(&path) == wanted {
            std::fs::rename(&path, scratch.path(name)).unwrap();
            found = true;
            break;
        }
        others.push(path);
    }
    others.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    found
}

fn listed(scratch: &Scratch, mechanism: &str, name: &str) -> Option<serde_json::Value> {
    let outcome = scratch.run(&["list", "--json", "--mechanism", mechanism]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let text = String::from_utf8(outcome.out).unwrap();
    let here = std::fs::canonicalize(scratch.path("")).unwrap();
    let address = format!("{mechanism}:{}/{name}", here.display());
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.into_iter().find(|object| object["address"] == address)
}

#[test]
fn a_foreign_socket_with_the_number_of_a_dead_ones_is_not_left_over() {
    let scratch = Scratch::new();
    let path = scratch.path("x");
    let mut dead = scratch.start_bare(&["recv", "unix:./x"]);
    while !path.exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    dead.kill().unwrap();
    dead.wait().unwrap();
    assert_eq!(listed(&scratch, "unix", "x").unwrap()["state"], "left over");
    let wanted = number(&path);
    std::fs::remove_file(&path).unwrap();
    if !remake(&scratch, "x", wanted, |path| drop(UnixListener::bind(path).unwrap())) {
        let test = "a_foreign_socket_with_the_number_of_a_dead_ones_is_not_left_over";
        return skip(test, "this file system doesn't use the numbers of its objects again");
    }
    // Nobody has it open, and nothing says that poste made it.
    assert_eq!(listed(&scratch, "unix", "x"), None);
    assert_eq!(scratch.run(&["gc", "--yes"]).code, Some(0));
    assert!(path.exists(), "gc takes the lock away, and leaves what others made");
    scratch.run(&["gc"]).prints("");
}

#[test]
fn a_foreign_fifo_with_the_number_of_one_of_postes_has_no_record() {
    let scratch = Scratch::new();
    let path = scratch.path("x");
    scratch.run(&["create", "fifo:./x"]).prints("");
    assert!(listed(&scratch, "fifo", "x").is_some());
    let wanted = number(&path);
    std::fs::remove_file(&path).unwrap();
    let make = |path: &Path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    if !remake(&scratch, "x", wanted, make) {
        let test = "a_foreign_fifo_with_the_number_of_one_of_postes_has_no_record";
        return skip(test, "this file system doesn't use the numbers of its objects again");
    }
    assert_eq!(listed(&scratch, "fifo", "x"), None, "a FIFO that nobody has open is not known");
    let found: Outcome = scratch.run(&["gc", "--yes"]);
    assert!(String::from_utf8(found.out).unwrap().contains("only its record is left"));
    assert!(path.exists());
    scratch.run(&["gc"]).prints("");
}
