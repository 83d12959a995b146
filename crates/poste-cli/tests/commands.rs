//! `recv -- COMMAND`: what the command gets, how it counts, and that it dies with poste.

mod command;

use std::io::{BufRead as _, BufReader};
use std::time::{Duration, Instant};

use command::Scratch;

/// Prints what the command is told in its environment.
const KNOWN: &str = "env | grep -E '^POSTE_(ADDRESS|PRIORITY|SENDER|REDELIVERED)' | sort";

#[test]
fn the_command_has_the_body_and_what_is_known() {
    let scratch = Scratch::new();
    let script = format!("cat; echo; {KNOWN}");
    let recv = ["recv", "--timeout", "10s", "unix:./u", "--", "sh", "-c", &script];
    let mut receiving = scratch.poste(&recv);
    // What an outer poste knew is not known here.
    receiving.env("POSTE_PRIORITY", "old");
    let receiver = scratch.start_command(receiving);
    scratch.run(&["send", "-p", "7", "--timeout", "10s", "unix:./u", "body"]).prints("");
    let out = String::from_utf8(receiver.end().out).unwrap();
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap());
    let lines: Vec<_> = out.lines().collect();
    let known = ["body", "POSTE_ADDRESS=unix:./u", "POSTE_PRIORITY=7", "POSTE_REDELIVERED=0"];
    assert_eq!(lines[..4], known, "{out}");
    assert!(lines[4].starts_with("POSTE_SENDER_PID="), "{out}");
    assert_eq!(lines[5], format!("POSTE_SENDER_UID={uid}"), "{out}");
}

#[test]
fn what_is_not_known_is_unset() {
    let scratch = Scratch::new();
    let script = format!("cat; echo; {KNOWN}");
    let recv = ["recv", "--raw", "--create", "--timeout", "10s", "fifo:./f", "--", "sh", "-c"];
    let mut receiving = scratch.poste(&[&recv[..], &[&script]].concat());
    receiving.env("POSTE_PRIORITY", "7").env("POSTE_SENDER_PID", "1");
    let receiver = scratch.start_command(receiving);
    scratch.run(&["send", "--raw", "--create", "--timeout", "10s", "fifo:./f", "b"]).prints("");
    let out = String::from_utf8(receiver.end().out).unwrap();
    assert_eq!(out, "b\nPOSTE_ADDRESS=fifo:./f\nPOSTE_REDELIVERED=0\n");
}

#[test]
fn it_runs_once_for_each_message() {
    let scratch = Scratch::new();
    let queue = format!("mq:/poste-commands-{}", std::process::id());
    scratch.run(&["send", "--create", "--count", "3", &queue, "x"]).prints("");
    scratch.run(&["recv", "-n", "2", &queue, "--", "cat"]).prints("xx");
    let outcome = scratch.run(&["recv", "-f", "--timeout", "50ms", &queue, "--", "cat"]);
    assert_eq!((outcome.code, &outcome.out[..]), (Some(124), &b"x"[..]), "{outcome:?}");
    // It may leave its input unread, however large.
    scratch.run(&["send", &queue, &"y".repeat(8000)]).prints("");
    scratch.run(&["recv", "--remove", &queue, "--", "true"]).prints("");
}

#[test]
fn a_failure_is_1_and_follow_goes_on() {
    let scratch = Scratch::new();
    let queue = format!("mq:/poste-failing-{}", std::process::id());
    let script = "read word; echo seen; test $word = good";
    for (words, says) in
        [(&["sh", "-c", "exit 4"][..], "exit status: 4"), (&["no-such-command"], "cannot run")]
    {
        scratch.run(&["send", "--create", &queue, "x"]).prints("");
        scratch.run(&[&["recv", &queue, "--"], words].concat()).fails(1, says);
    }
    for word in ["bad", "good", "bad"] {
        scratch.run(&["send", &queue, word]).prints("");
    }
    let recv = ["recv", "-f", "--remove", "--timeout", "50ms", &queue, "--", "sh", "-c", script];
    let outcome = scratch.run(&recv);
    assert_eq!((outcome.code, &outcome.out[..]), (Some(124), &b"seen\nseen\nseen\n"[..]));
    let lost = outcome.err.lines().filter(|line| line.contains("is lost")).count();
    assert_eq!((lost, outcome.err.lines().count()), (2, 4), "{outcome:?}");
}

#[test]
fn its_standard_error_passes_through() {
    let scratch = Scratch::new();
    let queue = format!("mq:/poste-through-{}", std::process::id());
    scratch.run(&["send", "--create", &queue, "x"]).prints("");
    let outcome = scratch.run(&["recv", "--remove", &queue, "--", "sh", "-c", "echo hey >&2"]);
    assert_eq!((outcome.code, outcome.err.as_str()), (Some(0), "hey\n"), "{outcome:?}");
}

#[test]
fn it_dies_with_poste() {
    let scratch = Scratch::new();
    // And so does what it has started.
    let script = "sleep 60 & echo $$ $!; wait";
    for (verb, sending) in [("recv", "send"), ("reply", "call")] {
        for signal in ["KILL", "TERM", "INT"] {
            let script = if verb == "recv" { script } else { "sleep 60 & echo $$ $! >&2; wait" };
            let mut poste = scratch.start_bare(&[verb, "unix:./u", "--", "sh", "-c", script]);
            let caller = scratch.start(&[sending, "--timeout", "10s", "unix:./u", "x"]);
            let mut line = String::new();
            if verb == "recv" {
                BufReader::new(poste.stdout.take().unwrap()).read_line(&mut line).unwrap();
            } else {
                BufReader::new(poste.stderr.take().unwrap()).read_line(&mut line).unwrap();
            }
            assert_eq!(line.split_whitespace().count(), 2, "{line}");
            let killed = std::process::Command::new("kill")
                .args(["-s", signal, &poste.id().to_string()])
                .status();
            assert!(killed.unwrap().success());
            poste.wait().unwrap();
            let start = Instant::now();
            while line.split_whitespace().any(is_alive) {
                assert!(start.elapsed() < Duration::from_secs(5), "{verb} {signal}: {line} lives");
                std::thread::sleep(Duration::from_millis(5));
            }
            drop(caller);
            let _ = std::fs::remove_file(scratch.path("u"));
        }
    }
}

/// Whether a process runs; one that nobody has waited for doesn't.
fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}
