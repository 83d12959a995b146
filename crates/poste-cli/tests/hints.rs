//! Hints that name what really mends it.

mod command;

use std::process::{Command, Stdio};

use command::{Outcome, Scratch};

#[test]
fn an_input_of_unknown_size_is_not_given_one() {
    let scratch = Scratch::new();
    let queue = format!("mq:/poste-cli-hints-{}", std::process::id());
    scratch.run(&["create", &queue, "--message-size", "64"]).prints("");
    for (arguments, words) in [
        (&["send", &queue][..], "standard input has more than 32 bytes"),
        (&["send", &queue, "--raw"], "standard input has more than 64 bytes"),
        (&["send", &queue, "--lines"], "a line of standard input has more than 32 bytes"),
        (&["send", &queue, "-0", "--raw"], "a record of standard input has more than 64 bytes"),
    ] {
        let outcome = scratch.run_with(arguments, &[b'x'; 100]);
        assert!(outcome.err.contains("larger message size"), "{outcome:?}");
        outcome.fails(1, words);
    }
    // One whose size is known is given it.
    scratch.run(&["send", &queue, &"x".repeat(33)]).fails(1, "a message of 33 bytes");
    scratch.run(&["remove", &queue]).prints("");
}

#[test]
fn a_line_that_is_too_long_is_not_blamed_on_the_envelope() {
    let scratch = Scratch::new();
    let receive =
        ["recv", "--raw", "--lines", "--message-size", "8", "--timeout", "3s", "unix:./u"];
    let child = scratch.start(&receive);
    scratch.run_with(&["send", "--raw", "--timeout", "10s", "unix:./u"], &[b'x'; 100]);
    let outcome = child.end();
    assert!(outcome.err.contains("larger --message-size"), "{outcome:?}");
    assert!(!outcome.err.contains("--raw"), "{outcome:?}");
    assert_eq!(outcome.code, Some(124), "{outcome:?}");
}

#[test]
fn descriptors_that_ran_out_are_named() {
    let scratch = Scratch::new();
    for limit in 4..8 {
        // Whoever runs the tests may have left descriptors open that are no concern of this.
        let closed = "exec 3<&- 4<&- 5<&- 6<&- 7<&- 8<&- 9<&-";
        let line =
            format!("{closed}; ulimit -n {limit}; exec \"$0\" recv --timeout 0s fifo:./f --create");
        let mut shell = Command::new("sh");
        shell.args(["-c", &line, env!("CARGO_BIN_EXE_poste")]).stdin(Stdio::null());
        shell.current_dir(scratch.path("")).env("POSTE_DIR", scratch.path("run"));
        let outcome = Outcome::of(&shell.output().unwrap());
        assert!(outcome.err.contains("ulimit -n"), "{limit}: {outcome:?}");
        outcome.fails(1, "RLIMIT_NOFILE");
    }
}

#[test]
fn an_abstract_name_has_a_name() {
    let scratch = Scratch::new();
    for scheme in ["unix", "seqpacket", "dgram"] {
        let address = format!("{scheme}:@");
        for arguments in [&["recv", "--timeout", "0s", &address][..], &["send", &address, "x"]] {
            let outcome = scratch.run(arguments);
            assert!(outcome.err.contains("unix:@jobs"), "{outcome:?}");
            outcome.fails(2, "name is missing");
        }
    }
}

/// In a user namespace of its own, which has a limit of its own.
#[test]
fn a_fifo_that_cannot_be_watched_names_the_limit_of_inotify() {
    let test = "a_fifo_that_cannot_be_watched_names_the_limit_of_inotify";
    let set = "echo 0 > /proc/sys/user/max_inotify_instances";
    let made =
        Command::new("unshare").args(["-Ur", "sh", "-c", set]).stderr(Stdio::null()).status();
    if !made.is_ok_and(|status| status.success()) {
        return command::skip(test, "unshare -U makes no user namespace here");
    }
    let scratch = Scratch::new();
    scratch.run(&["create", "fifo:./f"]).prints("");
    let poste = env!("CARGO_BIN_EXE_poste");
    let line = format!("{set} && exec {poste} send --timeout 5s fifo:./f x");
    let mut limited = Command::new("timeout");
    limited.args(["20", "unshare", "-Ur", "sh", "-c", &line]).stdin(Stdio::null());
    limited.current_dir(scratch.path("")).env("POSTE_DIR", scratch.path("run"));
    let outcome = Outcome::of(&limited.output().unwrap());
    assert!(outcome.err.contains("sysctl -w fs.inotify.max_user_instances"), "{outcome:?}");
    outcome.fails(1, "fs.inotify.max_user_instances");
}
