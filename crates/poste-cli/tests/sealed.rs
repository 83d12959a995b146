//! Sealed memory at a socket's address: `?sealed`.

mod command;

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use command::{Outcome, Scratch, skip};

#[test]
fn messages_pass_from_one_command_to_the_other() {
    let scratch = Scratch::new();
    for address in ["unix:./u?sealed", "seqpacket:./s?sealed&message-size=1M"] {
        let receiver = scratch.start(&["recv", "--timeout", "10s", address, "--json"]);
        scratch.run(&["send", "--timeout", "10s", "-p", "9", address, "hello"]).prints("");
        let outcome = receiver.end();
        let message: serde_json::Value = serde_json::from_slice(&outcome.out).unwrap();
        assert_eq!((&message["body"], &message["priority"]), (&"hello".into(), &9.into()));
        assert!(message["sender"]["pid"].is_u64(), "{message}");
    }
    // Many, from two senders one after the other, into a command each.
    let address = "unix:./u?sealed";
    let recv = ["recv", "-n", "6", "--timeout", "10s", address, "--", "tr", "a-z", "A-Z"];
    let receiver = scratch.start(&recv);
    for lines in ["a\nb\nc\n", "d\ne\nf\n"] {
        let send = ["send", "--timeout", "10s", "--lines", address];
        scratch.run_with(&send, lines.as_bytes()).prints("");
    }
    assert_eq!(receiver.end().out, b"ABCDEF");
    // Through a relay into a mailbox.
    scratch.run(&["create", "box"]).prints("");
    let relay = scratch.start(&["relay", "-n", "1", "--timeout", "10s", address, "box"]);
    scratch.run(&["send", "--timeout", "10s", address, "onward"]).prints("");
    assert_eq!(relay.end().code, Some(0));
    scratch.run(&["recv", "box"]).prints("onward\n");
}

#[test]
fn waits_end_when_they_are_over() {
    let scratch = Scratch::new();
    let address = "unix:./u?sealed";
    scratch.run(&["recv", "--timeout", "0s", address]).fails(124, "no message");
    scratch.run(&["recv", "--timeout", "50ms", address]).fails(124, "time is over");
    scratch.run(&["send", address, "x"]).fails(69, "unix:./u");
    scratch.run(&["send", "--timeout", "50ms", address, "x"]).fails(69, "unix:./u");
    // A receiver that is busy with another message gives no memory meanwhile.
    let recv = ["recv", "-n", "2", "--timeout", "10s", address, "--", "sleep", "1"];
    let receiver = scratch.start(&recv);
    scratch.run(&["send", "--timeout", "10s", address, "x"]).prints("");
    scratch.run(&["send", "--timeout", "0s", address, "y"]).fails(75, "unix:./u");
    scratch.run(&["send", "--timeout", "50ms", address, "y"]).fails(124, "unix:./u");
    scratch.run(&["send", "--timeout", "10s", address, "y"]).prints("");
    assert_eq!(receiver.end().code, Some(0));
    // Too large for the memory, as its receiver made it.
    let receiver = scratch.start(&["recv", "--timeout", "10s", "unix:./u?sealed&message-size=64K"]);
    let body = "x".repeat(70_000);
    scratch.run(&["send", "--timeout", "10s", address, &body]).fails(1, "limit is 65536");
    scratch.run(&["send", "--timeout", "10s", address, "small"]).prints("");
    assert_eq!(receiver.end().out, b"small\n");
}

#[test]
fn a_killed_side_is_news_to_the_other() {
    let scratch = Scratch::new();
    let address = "unix:./u?sealed";
    let mut receiver = scratch.start_bare(&["recv", "-f", address, "--", "sleep", "20"]);
    let sender = scratch.start(&["send", "--timeout", "10s", "--count", "100000", address, "x"]);
    let end = Instant::now() + Duration::from_secs(10);
    while std::fs::read_to_string(format!("/proc/{}/task/{0}/children", receiver.id()))
        .is_ok_and(|children| children.trim().is_empty())
    {
        assert!(Instant::now() < end, "the receiver has no message");
        std::thread::sleep(Duration::from_millis(5));
    }
    receiver.kill().unwrap();
    receiver.wait().unwrap();
    let outcome = sender.end();
    assert_eq!(outcome.code, Some(69), "{outcome:?}");
    // What a killed sender had sent comes; then the receiver waits for the next one.
    let receiver = scratch.start(&["recv", "-n", "2", "--timeout", "10s", address]);
    let script = "echo one; sleep 20";
    let mut command = Command::new("sh");
    let poste = env!("CARGO_BIN_EXE_poste");
    let line = format!("({script}) | exec '{poste}' send --timeout 10s --lines '{address}'");
    command.args(["-c", &line]).current_dir(scratch.path("."));
    let mut sender =
        command.env("POSTE_DIR", scratch.path("run")).process_group(0).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let group = format!("-{}", sender.id());
    assert!(Command::new("kill").args(["-9", "--", &group]).status().unwrap().success());
    sender.wait().unwrap();
    scratch.run(&["send", "--timeout", "10s", address, "two"]).prints("");
    assert_eq!(receiver.end().out, b"one\ntwo\n");
}

#[test]
fn what_it_has_no_use_for_is_2() {
    let scratch = Scratch::new();
    for (line, words) in [
        ("recv fifo:./f?sealed", "sealed"),
        ("recv jobs?sealed", "sealed"),
        ("send tcp:127.0.0.1:9?sealed x", "sealed"),
        ("send mq:/x?sealed x", "sealed"),
        ("recv dgram:./d?sealed", "sealed"),
        ("recv unix:./u?sealed=yes", "sealed"),
        ("recv --raw unix:./u?sealed", "--raw"),
        ("recv --connect unix:./u?sealed", "--connect"),
        ("send --listen unix:./u?sealed x", "--listen"),
        ("recv unix:./u?sealed&huge-pages", "huge-pages"),
        ("call unix:./u?sealed x", "one way"),
        ("reply unix:./u?sealed --echo", "one way"),
        ("relay --both unix:./u?sealed unix:./v", "one way"),
    ] {
        scratch.run(&line.split_whitespace().collect::<Vec<_>>()).fails(2, words);
    }
}

#[test]
fn another_user_is_refused() {
    let test = "another_user_is_refused";
    if !rustix::process::geteuid().is_root() {
        return skip(test, "only root can be somebody else");
    }
    let scratch = Scratch::new();
    let mode = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(&scratch.path("."), 0o755);
    let program = scratch.path("poste");
    std::fs::copy(env!("CARGO_BIN_EXE_poste"), &program).unwrap();
    let address = "unix:./open?sealed&mode=0666";
    let receiver = scratch.start(&["recv", "--timeout", "10s", address]);
    let end = Instant::now() + Duration::from_secs(5);
    while !scratch.path("open").exists() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut command = Command::new(&program);
    command.args(["send", "--timeout", "5s", "unix:./open?sealed", "in"]).uid(65_534).gid(65_534);
    let Ok(output) = command.current_dir(scratch.path(".")).output() else {
        return skip(test, "no other user can run a program here");
    };
    // Its receiver is root, whom it may trust; it isn't trusted itself.
    Outcome::of(&output).fails(69, "gave no memory");
    scratch.run(&["send", "--timeout", "5s", "unix:./open?sealed", "own"]).prints("");
    assert_eq!(receiver.end().out, b"own\n");
}
