//! Signals, a closed output, notices, help and its examples.

mod command;

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use command::{Outcome, Scratch};

#[test]
fn a_signal_takes_the_socket_away() {
    let scratch = Scratch::new();
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut child = scratch.start_bare(&["recv", "-f", "unix:./u"]);
        // That it prints a message shows that it listens.
        scratch.run(&["send", "--timeout", "10s", "unix:./u", "x"]).prints("");
        let mut printed = [0; 2];
        child.stdout.as_mut().unwrap().read_exact(&mut printed).unwrap();
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        let outcome = Outcome::of(&child.wait_with_output().unwrap());
        assert_eq!(outcome.code, Some(code), "{outcome:?}");
        assert_eq!(outcome.err.lines().count(), if code == 130 { 0 } else { 2 }, "{outcome:?}");
        assert!(!scratch.path("u").exists(), "{signal}");
    }
}

/// A live owner is never displaced, whoever had its name before.
#[test]
fn a_signal_leaves_what_has_its_sockets_name_by_now() {
    let scratch = Scratch::new();
    let path = scratch.path("u");
    let listening: [&[&str]; 4] = [
        &["recv", "-f", "unix:./u"],
        &["reply", "--echo", "unix:./u"],
        &["send", "--listen", "unix:./u", "x"],
        &["relay", "unix:./u", "seqpacket:./s"],
    ];
    let _behind = scratch.start(&["recv", "-f", "seqpacket:./s"]);
    for arguments in listening {
        let mut child = Mortal(scratch.start_bare(arguments));
        wait_until(|| path.exists() && is_claimed(&scratch));
        // Birth times are as coarse as the kernel's clock ticks, and numbers of files are used again:
        // what is born in the same tick couldn't be told apart.
        std::thread::sleep(std::time::Duration::from_millis(50));
        std::fs::remove_file(&path).unwrap();
        let server = std::os::unix::net::UnixListener::bind(&path).unwrap();
        child.end();
        assert!(path.exists(), "{arguments:?}");
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        drop(server);
        std::fs::remove_file(&path).unwrap();
        // Its own it takes away, with the claim.
        let mut child = Mortal(scratch.start_bare(arguments));
        wait_until(|| path.exists() && is_claimed(&scratch));
        child.end();
        assert!(!path.exists(), "{arguments:?}");
        let claims = std::fs::read_dir(scratch.path("run/claims")).unwrap();
        let names: Vec<_> = claims.flatten().map(|claim| claim.file_name()).collect();
        assert!(names.iter().all(|name| !name.to_string_lossy().ends_with("_u")), "{names:?}");
    }
}

/// Whether the claim for ./u says what was made: then its maker knows its own socket from others.
fn is_claimed(scratch: &Scratch) -> bool {
    let claims = std::fs::read_dir(scratch.path("run/claims")).into_iter().flatten().flatten();
    let mut claims = claims.filter(|claim| claim.file_name().to_string_lossy().ends_with("_u"));
    claims.any(|claim| {
        std::fs::read_to_string(claim.path()).is_ok_and(|text| text.ends_with("\nend\n"))
    })
}

/// One that doesn't outlive a test that fails.
struct Mortal(std::process::Child);

impl Mortal {
    fn end(&mut self) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
        assert_eq!(self.0.wait().unwrap().code(), Some(143));
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        // It has ended already where all went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_until(is_so: impl Fn() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !is_so() {
        assert!(std::time::Instant::now() < end, "it doesn't come");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn a_closed_output_ends_it_quietly() {
    let scratch = Scratch::new();
    let mut child = scratch.start_bare(&["recv", "-f", "unix:./u"]);
    drop(child.stdout.take());
    scratch.run(&["send", "--timeout", "10s", "unix:./u", "x"]).prints("");
    Outcome::of(&child.wait_with_output().unwrap()).prints("");
    let mut full = scratch.poste(&["capabilities"]);
    full.stdout(std::fs::File::create("/dev/full").unwrap());
    Outcome::of(&full.stderr(Stdio::piped()).output().unwrap()).fails(1, "standard output");
}

#[test]
fn a_queue_that_is_removed_ends_its_receivers() {
    let scratch = Scratch::new();
    let queue = format!("mq:/poste-cli-removed-{}", std::process::id());
    for others in [&[][..], &["unix:./u"]] {
        scratch.run(&["send", "--create", &queue, "x"]).prints("");
        let mut child = scratch.start_bare(&[&["recv", "-f", &queue], others].concat());
        // That it prints a message shows that it is there.
        let mut printed = [0; 2];
        child.stdout.as_mut().unwrap().read_exact(&mut printed).unwrap();
        scratch.run(&["remove", &queue]).prints("");
        Outcome::of(&child.wait_with_output().unwrap()).fails(1, "the queue was removed");
    }
}

#[test]
fn the_port_taken_is_told() {
    let scratch = Scratch::new();
    let mut child = scratch.start_bare(&["recv", "tcp:127.0.0.1:0"]);
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim_end().strip_prefix("listening on ").expect(&line);
    scratch.run(&["send", address, "hello"]).prints("");
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!(out, "hello\n");
    assert!(child.wait().unwrap().success());
}

/// Every verb, as the program itself lists them: a new one can't be left out.
fn verbs() -> Vec<String> {
    let help = String::from_utf8(Scratch::new().run(&["--help"]).out).unwrap();
    let (_, list) = help.split_once("\nCommands:\n").unwrap();
    let words = list.lines().map_while(|line| line.split_whitespace().next());
    let verbs: Vec<_> = words.filter(|verb| *verb != "help").map(str::to_owned).collect();
    assert!(verbs.len() > 15 && verbs.iter().any(|verb| verb == "tour"), "{verbs:?}");
    verbs
}

#[test]
fn help_and_version_are_output() {
    let scratch = Scratch::new();
    scratch.run(&["--version"]).prints(format!("poste {}\n", env!("CARGO_PKG_VERSION")));
    for verb in verbs() {
        let outcome = scratch.run(&[&verb, "--help"]);
        assert_eq!((outcome.code, outcome.err.as_str()), (Some(0), ""), "{verb}");
    }
}

#[test]
fn the_examples_work_as_typed() {
    let directory = std::path::Path::new(env!("CARGO_BIN_EXE_poste")).parent().unwrap();
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap());
    for verb in verbs() {
        let help = String::from_utf8(Scratch::new().run(&[&verb, "--help"]).out).unwrap();
        let lines = help.lines().map(str::trim).filter(|line| line.starts_with("poste "));
        let examples: Vec<_> = lines.collect();
        assert!(!examples.is_empty(), "{verb}");
        // The whole tour takes its time, and has a test of its own.
        for example in examples.into_iter().filter(|example| *example != "poste tour") {
            let scratch = Scratch::new();
            let mut command = Command::new("timeout");
            command.args(["10", "sh", "-c", example]).env("PATH", &path).stdin(Stdio::null());
            command.env("POSTE_DIR", scratch.path("run"));
            let output = command.current_dir(scratch.path("")).output().unwrap();
            assert!(output.status.success(), "{example}: {output:?}");
        }
    }
}

#[test]
fn capabilities_are_data() {
    let scratch = Scratch::new();
    let out = String::from_utf8(scratch.run(&["capabilities", "--json"]).out).unwrap();
    for line in out.lines() {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(object["mechanism"].is_string() && object["pollable"].is_boolean(), "{line}");
    }
    let table = String::from_utf8(scratch.run(&["capabilities"]).out).unwrap();
    assert!(table.contains("seqpacket") && !table.contains('\u{1b}'), "{table}");
}
