//! `poste semaphore` and `poste memory`: what they print, how they end, and what is left when a
//! command under a permit, or poste, or both are killed.

mod command;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use command::{Outcome, Scratch, has};

/// A semaphore or a memory that goes with the test.
struct Named {
    name: String,
    verb: &'static str,
    scratch: Scratch,
}

impl Named {
    fn new(verb: &'static str, test: &str) -> Named {
        let name = format!("/poste-cli-{test}-{}", std::process::id());
        Named { name, verb, scratch: Scratch::new() }
    }

    /// The verb with a word and its arguments; `NAME` is the name.
    fn run(&self, arguments: &[&str]) -> Outcome {
        Outcome::of(&self.command(arguments).output().unwrap())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.scratch.poste(&self.arguments(arguments));
        command.env("POSTE_DIR", self.scratch.path("run"));
        command
    }

    fn arguments<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        let named = arguments.iter().map(|word| if *word == "NAME" { &self.name } else { *word });
        std::iter::once(self.verb).chain(named).collect()
    }

    /// `poste` itself as a child, and not `timeout` before it.
    fn start(&self, arguments: &[&str]) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_poste"));
        command.args(self.arguments(arguments)).env("POSTE_DIR", self.scratch.path("run"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    fn value(&self) -> u32 {
        poste::Semaphore::open(&self.name).unwrap().value()
    }

    /// What `gc` does: how many permits were lost, each given back.
    fn give_back(&self) -> usize {
        let test = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "what_a_child_of_the_tests_gives_back", "--nocapture"])
            .env("POSTE_DIR", self.scratch.path("run"))
            .env("POSTE_TEST_GIVES_BACK", "1")
            .output()
            .unwrap();
        assert!(test.status.success(), "{test:?}");
        String::from_utf8_lossy(&test.stdout).lines().filter(|line| line.contains("LOST ")).count()
    }

    fn records(&self) -> usize {
        let permits = self.scratch.path("run").join("permits");
        std::fs::read_dir(permits).map_or(0, Iterator::count)
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        // A test that took it away itself has nothing left.
        let _ = match self.verb {
            "memory" => poste::Memory::remove(&self.name),
            _ => poste::Semaphore::remove(&self.name),
        };
    }
}

/// Waits until something holds.
fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn kill(pid: u32, signal: &str) {
    assert!(
        Command::new("kill").args(["-s", signal, &pid.to_string()]).status().unwrap().success()
    );
}

/// A holder whose command runs: poste, and the command's number.
fn held(named: &Named) -> (Child, u32) {
    let (child, numbers) = held_by(named, "echo $$; exec sleep 30");
    (child, numbers[0])
}

/// A holder whose command is a shell that runs this script: poste, and the numbers in the line that
/// it prints.
fn held_by(named: &Named, script: &str) -> (Child, Vec<u32>) {
    let mut child = named.start(&["hold", "NAME", "--", "sh", "-c", script]);
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    // The record names the command when it has run for a moment: its guard, poste's child.
    let poste = format!("owner {} ", child.id());
    let permits = named.scratch.path("run").join("permits");
    until("the record names the command", || {
        std::fs::read_dir(&permits).unwrap().flatten().any(|entry| {
            std::fs::read_to_string(entry.path())
                .is_ok_and(|text| text.contains(&poste) && text.contains("\ncommand "))
        })
    });
    (child, line.split_whitespace().map(|word| word.parse().unwrap()).collect())
}

fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[test]
fn a_semaphore_is_made_taken_given_and_removed() {
    let named = Named::new("semaphore", "life");
    named.run(&["wait", "NAME"]).fails(1, "poste semaphore create /poste-cli-life");
    named.run(&["create", "NAME", "--value", "2", "--mode", "0640"]).prints("");
    let file = format!("/dev/shm/sem.{}", &named.name[1..]);
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(file).unwrap());
    assert_eq!(mode & 0o7777, 0o640);
    named.run(&["create", "NAME"]).fails(1, "File exists");
    named.run(&["value", "NAME"]).prints("2\n");
    named.run(&["wait", "NAME"]).prints("");
    named.run(&["wait", &named.name[1..]]).prints("");
    named.run(&["wait", "NAME", "--timeout", "0s"]).fails(124, "value is 0");
    let start = Instant::now();
    named.run(&["wait", "NAME", "--timeout", "250ms"]).fails(124, "stayed 0");
    assert!(start.elapsed() >= Duration::from_millis(250));
    named.run(&["post", "NAME"]).prints("");
    named.run(&["value", "NAME"]).prints("1\n");
    named.run(&["remove", "NAME"]).prints("");
    for word in ["value", "post", "remove", "wait"] {
        named.run(&[word, "NAME"]).fails(1, "create");
    }
    named.run(&["create", "a/b"]).fails(2, "slash");
    named.run(&["create", "NAME", "--value", "2147483648"]).fails(2, "2147483648");
    named.run(&["hold", "NAME"]).fails(2, "COMMAND");
    named.run(&[]).fails(2, "poste semaphore --help");
}

#[test]
fn a_wait_ends_when_a_permit_comes_and_by_a_signal() {
    let named = Named::new("semaphore", "wait");
    named.run(&["create", "NAME", "--value", "0"]).prints("");
    let waiting = named.start(&["wait", "NAME"]);
    std::thread::sleep(Duration::from_millis(150));
    named.run(&["post", "NAME"]).prints("");
    Outcome::of(&waiting.wait_with_output().unwrap()).prints("");
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let waiting = named.start(&["hold", "NAME", "--", "echo", "never"]);
        std::thread::sleep(Duration::from_millis(150));
        kill(waiting.id(), signal);
        let outcome = Outcome::of(&waiting.wait_with_output().unwrap());
        assert_eq!((outcome.code, outcome.out.len()), (Some(code), 0), "{outcome:?}");
    }
    assert_eq!((named.value(), named.records()), (0, 0));
}

#[test]
fn hold_ends_as_its_command_and_gives_back() {
    let named = Named::new("semaphore", "hold");
    named.run(&["hold", "NAME", "--", "true"]).fails(1, "create");
    named.run(&["hold", "--create", "NAME", "--", "echo", "-n", "in"]).prints("in");
    for (script, code) in [("exit 3", 3), ("kill -9 $$", 137), ("kill -TERM $$", 143)] {
        named.run(&["hold", "NAME", "--", "sh", "-c", script]).fails(code, "sh");
        assert_eq!(named.value(), 1, "{script}");
    }
    let interrupted = named.run(&["hold", "NAME", "--", "sh", "-c", "kill -INT $$"]);
    assert_eq!((interrupted.code, interrupted.err.as_str()), (Some(130), ""));
    named.run(&["hold", "NAME", "--", "./no-such-command"]).fails(127, "no-such-command");
    named.run(&["hold", "NAME", "--", "/etc/passwd"]).fails(126, "/etc/passwd");
    assert_eq!((named.value(), named.records()), (1, 0));
    named.run(&["wait", "NAME"]).prints("");
    named.run(&["hold", "NAME", "--timeout", "20ms", "--", "true"]).fails(124, "stayed 0");
}

#[test]
fn only_one_is_within() {
    let named = Named::new("semaphore", "lock");
    named.run(&["create", "NAME"]).prints("");
    // Each adds one to a number in a file, and takes its time between reading and writing.
    let script = "n=$(cat n); sleep 0.02; echo $((n + 1)) > n";
    std::fs::write(named.scratch.path("n"), "0").unwrap();
    let adding: Vec<_> = (0..8)
        .map(|_| named.command(&["hold", "NAME", "--", "sh", "-c", script]).spawn().unwrap())
        .collect();
    for mut child in adding {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(std::fs::read_to_string(named.scratch.path("n")).unwrap().trim(), "8");
    assert_eq!((named.value(), named.records()), (1, 0));
}

#[test]
fn a_signal_reaches_the_command_and_the_permit_comes_back() {
    let named = Named::new("semaphore", "signal");
    named.run(&["create", "NAME"]).prints("");
    for (signal, code) in [("TERM", 143), ("INT", 130), ("HUP", 129)] {
        let (child, command) = held(&named);
        assert_eq!(named.value(), 0);
        kill(child.id(), signal);
        let outcome = Outcome::of(&child.wait_with_output().unwrap());
        assert_eq!(outcome.code, Some(code), "{outcome:?}");
        assert!(!is_running(command));
        assert_eq!((named.value(), named.records()), (1, 0), "{signal}");
    }
}

#[test]
fn a_killed_command_gives_back() {
    let named = Named::new("semaphore", "kill-command");
    named.run(&["create", "NAME"]).prints("");
    let (child, command) = held(&named);
    kill(command, "KILL");
    let outcome = Outcome::of(&child.wait_with_output().unwrap());
    assert_eq!(outcome.code, Some(137), "{outcome:?}");
    assert_eq!((named.value(), named.give_back()), (1, 0));
}

#[test]
fn a_killed_poste_takes_its_command_along_and_its_permit_is_proved_lost() {
    let named = Named::new("semaphore", "kill-poste");
    named.run(&["create", "NAME"]).prints("");
    let (mut child, command) = held(&named);
    assert_eq!(named.give_back(), 0, "it lives");
    child.kill().unwrap();
    child.wait().unwrap();
    until("the command is gone", || !is_running(command));
    assert_eq!(named.value(), 0);
    until("the permit is lost", || named.give_back() == 1);
    assert_eq!((named.value(), named.give_back(), named.records()), (1, 0, 0));
}

/// What the command has started works under the permit too: also what it put into a session of its
/// own, and what has lost its parent. Nobody else gets the permit while any of it runs.
#[test]
fn a_killed_poste_takes_along_what_its_command_has_started() {
    let named = Named::new("semaphore", "kill-deep");
    if !has("setsid", "a_killed_poste_takes_along_what_its_command_has_started") {
        return;
    }
    named.run(&["create", "NAME"]).prints("");
    for kill_command_first in [false, true] {
        let script = "setsid sh -c 'sleep 60 & echo $! > deep; wait' & sleep 61 & own=$!
                      (sleep 62 & echo $! > orphan)
                      until [ -s deep ]; do sleep 0.01; done
                      echo $$ $own $(cat deep orphan); rm deep; wait";
        let script = format!("cd {}; {script}", named.scratch.path("").display());
        let (mut child, numbers) = held_by(&named, &script);
        assert_eq!((numbers.len(), named.give_back()), (4, 0), "{numbers:?}");
        child.kill().unwrap();
        if kill_command_first {
            // Both are killed in the same moment.
            let _ = Command::new("kill").args(["-9", &numbers[0].to_string()]).output();
        }
        child.wait().unwrap();
        until("the permit is lost", || named.give_back() == 1);
        let running: Vec<_> = numbers.iter().filter(|pid| is_running(**pid)).collect();
        assert!(running.is_empty(), "it was given back while these ran: {running:?}");
        assert_eq!((named.value(), named.records()), (1, 0));
    }
}

#[test]
fn both_killed_lose_one_permit_and_no_more() {
    let named = Named::new("semaphore", "kill-both");
    named.run(&["create", "NAME", "--value", "2"]).prints("");
    let (mut child, command) = held(&named);
    let (other, other_command) = held(&named);
    assert_eq!(named.value(), 0);
    child.kill().unwrap();
    // It may be faster than we are: poste takes it along.
    let _ = Command::new("kill").args(["-9", &command.to_string()]).stderr(Stdio::null()).status();
    child.wait().unwrap();
    until("the command is gone", || !is_running(command));
    assert_eq!(named.give_back(), 1);
    assert_eq!((named.value(), named.give_back()), (1, 0), "the other one still holds its own");
    kill(other_command, "TERM");
    assert_eq!(other.wait_with_output().unwrap().status.code(), Some(143));
    assert_eq!((named.value(), named.records()), (2, 0));
}

/// Run by the tests as a program of its own, with its own runtime directory.
#[test]
fn what_a_child_of_the_tests_gives_back() {
    if std::env::var_os("POSTE_TEST_GIVES_BACK").is_none() {
        return;
    }
    for lost in poste::lost_permits().unwrap() {
        println!("LOST {} {}", lost.semaphore(), lost.proof());
        lost.give_back().unwrap();
    }
}

#[test]
fn the_examples_of_each_word_work_as_typed() {
    let directory = std::path::Path::new(env!("CARGO_BIN_EXE_poste")).parent().unwrap();
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap());
    let words =
        ["create", "wait", "post", "value", "remove", "hold"].map(|word| ("semaphore", word));
    for (verb, word) in words.into_iter().chain(["write", "read", "remove"].map(|w| ("memory", w)))
    {
        let scratch = Scratch::new();
        let help = String::from_utf8(scratch.run(&[verb, word, "--help"]).out).unwrap();
        let lines = help.lines().map(str::trim).filter(|line| line.starts_with("poste "));
        let examples: Vec<_> = lines.collect();
        assert!(!examples.is_empty(), "{verb} {word}");
        for example in examples {
            let mut command = Command::new("timeout");
            command.args(["10", "sh", "-c", example]).env("PATH", &path).stdin(Stdio::null());
            let output = command.env("POSTE_DIR", scratch.path("run")).output().unwrap();
            assert!(output.status.success(), "{example}: {output:?}");
        }
    }
}

#[test]
fn a_memory_is_written_read_and_removed() {
    let named = Named::new("memory", "life");
    named.run(&["read", "NAME"]).fails(1, "create it: poste memory write");
    named.run(&["write", "NAME", "--c-string", "hello"]).prints("");
    let file = format!("/dev/shm{}", named.name);
    let meta = std::fs::metadata(&file).unwrap();
    assert_eq!((std::os::unix::fs::MetadataExt::mode(&meta) & 0o7777, meta.len()), (0o600, 6));
    named.run(&["read", "NAME"]).prints("hello\0");
    named.run(&["read", "NAME", "--c-string"]).prints("hello\n");
    named.run(&["read", &named.name[1..], "--offset", "1", "--length", "3"]).prints("ell");
    named.run(&["read", "NAME", "--offset", "6"]).prints("");
    named.run(&["read", "NAME", "--offset", "7"]).fails(1, "6 bytes");
    named.run(&["read", "NAME", "--offset", "4", "--length", "3"]).fails(1, "6 bytes");
    named.run(&["write", "NAME", "--offset", "1", "u"]).prints("");
    named.run(&["write", "NAME", "--offset", "5", "of"]).fails(1, "6 bytes");
    named.run(&["read", "NAME", "--c-string"]).prints("hullo\n");
    named.run(&["remove", "NAME"]).prints("");
    named.run(&["remove", "NAME"]).fails(1, "create");
    named.run(&["write", "NAME", ""]).fails(2, "one byte");
    named.run(&["write", "a/b", "x"]).fails(2, "slash");
}

#[test]
fn standard_input_goes_into_a_memory_as_it_is() {
    let named = Named::new("memory", "input");
    let bytes: Vec<u8> = (0..200_000_u32).map(|at| (at % 251) as u8).collect();
    let words = ["write", "NAME", "--mode", "0640", "--offset", "4K"];
    named.scratch.run_with(&named.arguments(&words), &bytes).prints("");
    named.run(&["read", "NAME", "--offset", "4096"]).prints(&bytes);
    named.run(&["read", "NAME", "--length", "4K"]).prints([0; 4096]);
    let mode = std::fs::metadata(format!("/dev/shm{}", named.name)).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&mode) & 0o7777, 0o640);
}
