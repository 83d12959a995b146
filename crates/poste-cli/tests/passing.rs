//! Messages from one command to another: bodies, formats, raw mode, sizes.

mod command;

use std::io::Read as _;
use std::process::Stdio;

use command::{Outcome, Scratch};

/// Sends with these arguments to a `recv` with those, and says what it printed.
#[track_caller]
fn pass(scratch: &Scratch, address: &str, send: &[&str], input: &[u8], recv: &[&str]) -> Vec<u8> {
    let receiver = scratch.start(&[&["recv", "--timeout", "10s", address], recv].concat());
    let send = [&["send", "--timeout", "10s", address], send].concat();
    scratch.run_with(&send, input).prints("");
    let outcome = receiver.end();
    assert_eq!((outcome.code, outcome.err.as_str()), (Some(0), ""), "{outcome:?}");
    outcome.out
}

/// A System V key that no other test has.
fn sysv(base: u32) -> String {
    format!("sysv:{}", base + std::process::id())
}

#[test]
fn a_body_arrives_over_every_mechanism() {
    let scratch = Scratch::new();
    let mark = std::process::id();
    scratch.run(&["create", "fifo:./f"]).prints("");
    for address in ["fifo:./f", "unix:./u", "seqpacket:./s", "dgram:./d"] {
        assert_eq!(pass(&scratch, address, &["hello"], b"", &[]), b"hello\n", "{address}");
    }
    assert_eq!(pass(&scratch, &format!("unix:@poste-{mark}"), &["hi"], b"", &[]), b"hi\n");
    for queue in [format!("mq:/poste-body-{mark}"), sysv(0x7000_0000)] {
        scratch.run(&["send", "--create", &queue, "hello"]).prints("");
        scratch.run(&["recv", "--remove", &queue]).prints("hello\n");
    }
}

#[test]
fn formats_are_exact() {
    let scratch = Scratch::new();
    let queue = format!("mq:/poste-formats-{}", std::process::id());
    scratch.run(&["create", &queue]).prints("");
    let body = b"a\n\"\\\x00\xff";
    for (flags, expected) in [
        (&["--format", "text"][..], &b"a\n\"\\\x00\xff\n"[..]),
        (&["--format", "exact"], body),
        (&["--format", "quoted"], b"\"a\\n\\\"\\\\\\x00\\xff\"\n"),
        (&["--format", "hex"], b"610a225c00ff\n"),
        (&["-0"], b"a\n\"\\\x00\xff\0"),
        (&["-0", "--format", "hex"], b"610a225c00ff\0"),
    ] {
        scratch.run_with(&["send", &queue], body).prints("");
        scratch.run(&[&["recv", &queue], flags].concat()).prints(expected);
    }
    scratch.run(&["send", "-p", "7", &queue, "hi"]).prints("");
    let rest = "\"sequence\":1,\"redelivered\":false}\n";
    let expected = format!("{{\"body\":\"hi\",\"size\":2,\"priority\":7,{rest}");
    scratch.run(&["recv", "--json", &queue]).prints(expected);
    scratch.run_with(&["send", "--raw", &queue], b"\xff").prints("");
    let expected = "{\"body_base64\":\"/w==\",\"size\":1,\"priority\":0,\"redelivered\":false}\n";
    scratch.run(&["recv", "--raw", "--format", "json", "--remove", &queue]).prints(expected);
}

/// Also where a body is as large as the output's buffer, and its last line has no end.
#[test]
fn what_came_is_out_before_the_next_wait() {
    let scratch = Scratch::new();
    let mut body = vec![b'x'; 64 << 10];
    body[1000] = b'\n';
    body[65_000] = b'\n';
    let recv = ["recv", "--timeout", "10s", "-n", "2", "--format", "exact", "unix:./u"];
    let mut receiver = scratch.start_bare(&recv);
    scratch.run_with(&["send", "--timeout", "10s", "unix:./u"], &body).prints("");
    let mut came = vec![0; body.len()];
    receiver.stdout.take().unwrap().read_exact(&mut came).unwrap();
    assert!(came == body);
    // Only now comes the one that it has waited for.
    scratch.run(&["send", "unix:./u", "more"]).prints("");
    receiver.wait().unwrap();
}

#[test]
fn lines_and_records_are_messages() {
    let scratch = Scratch::new();
    let quoted = ["-n", "3", "--format", "quoted"];
    let out = pass(&scratch, "unix:./u", &["--lines"], b"one\r\n\nlast", &quoted);
    assert_eq!(out, b"\"one\\r\"\n\"\"\n\"last\"\n");
    let out = pass(&scratch, "unix:./u", &["-0"], b"one\n\0\0last\0", &quoted);
    assert_eq!(out, b"\"one\\n\"\n\"\"\n\"last\"\n");
    let out = pass(&scratch, "unix:./u", &["same", "--count", "3"], b"", &["-n", "3"]);
    assert_eq!(out, b"same\nsame\nsame\n");
}

#[test]
fn many_lines_arrive_as_they_are() {
    let scratch = Scratch::new();
    let lines: String = (0..50_000).map(|n| format!("{n} {}\n", "x".repeat(n % 90))).collect();
    std::fs::write(scratch.path("lines"), &lines).unwrap();
    for address in ["unix:./u", "dgram:./d"] {
        let send = ["--lines", "--file", "lines"];
        let out = pass(&scratch, address, &send, b"", &["-n", "50000"]);
        assert!(out == lines.as_bytes(), "{address}: {} bytes", out.len());
    }
}

#[test]
fn raw_is_bytes_and_marks_are_kept_on_streams_only() {
    let scratch = Scratch::new();
    let recv = ["--raw", "--lines", "-n", "2", "--format", "quoted"];
    let out = pass(&scratch, "unix:./u", &["--raw", "--lines"], b"a\nb\n", &recv);
    assert_eq!(out, b"\"a\"\n\"b\"\n");
    let recv = ["--raw", "-n", "2", "--format", "quoted"];
    let out = pass(&scratch, "dgram:./d", &["--raw", "--lines"], b"a\nb\n", &recv);
    assert_eq!(out, b"\"a\"\n\"b\"\n");
    for address in ["unix:./u", "dgram:./d"] {
        let recv = ["--c-string", "--format", "quoted"];
        let out = pass(&scratch, address, &["--c-string", "word"], b"", &recv);
        assert_eq!(out, b"\"word\"\n", "{address}");
    }
    let recv = ["--raw", "--format", "hex"];
    assert_eq!(pass(&scratch, "dgram:./d", &["--c-string", "a"], b"", &recv), b"6100\n");
    let receiver = scratch.start(&["recv", "--raw", "--timeout", "15s", "seqpacket:./s"]);
    let send = ["send", "--raw", "--timeout", "15s", "seqpacket:./s", ""];
    scratch.run(&send).fails(2, "empty");
    drop(receiver);
}

#[test]
fn raw_types_of_system_v() {
    let scratch = Scratch::new();
    let queue = sysv(0x7100_0000);
    scratch.run(&["create", &queue]).prints("");
    for message_type in ["9", "3", "5"] {
        scratch.run(&["send", "--raw", "--type", message_type, &queue, message_type]).prints("");
    }
    scratch.run(&["recv", "--raw", "--type", "-5", &queue]).prints("3\n");
    scratch.run(&["recv", "--raw", "--type", "5", &queue]).prints("5\n");
    let json = scratch.run(&["recv", "--raw", "--json", "--remove", &queue]);
    assert!(String::from_utf8_lossy(&json.out).contains("\"type\":9"), "{json:?}");
}

#[test]
fn of_several_addresses_whichever_has_one() {
    let scratch = Scratch::new();
    let queue = sysv(0x7200_0000);
    scratch.run(&["create", &queue]).prints("");
    let both = ["recv", "--timeout", "10s", "--json", "-n", "2", "unix:./u", &queue];
    let receiver = scratch.start(&both);
    scratch.run(&["send", "--timeout", "10s", "unix:./u", "one"]).prints("");
    scratch.run(&["send", &queue, "two"]).prints("");
    let out = String::from_utf8(receiver.end().out).unwrap();
    assert!(out.contains("\"body\":\"one\"") && out.contains("\"body\":\"two\""), "{out}");
    assert!(out.lines().all(|line| line.contains("\"address\":\"")), "{out}");
    scratch.run(&["remove", &queue]).prints("");
}

#[test]
fn addresses_of_all_mechanisms_wait_together() {
    let scratch = Scratch::new();
    let mark = std::process::id();
    let made = ["fifo:./f".to_owned(), format!("mq:/poste-together-{mark}"), sysv(0x7500_0000)];
    made.iter().for_each(|address| scratch.run(&["create", address]).prints(""));
    let listening = ["unix:./u", "seqpacket:./s", "dgram:./d"].map(str::to_owned);
    let all: Vec<&str> = made.iter().chain(&listening).map(String::as_str).collect();
    let rounds = 3;
    let count = (all.len() * rounds).to_string();
    let flags = ["recv", "--json", "--timeout", "15s", "-n", &count];
    let receiver = scratch.start(&[&flags[..], &all].concat());
    // One at a time, the last one first: each wakes the receiver by itself.
    for round in 0..rounds {
        for address in all.iter().rev() {
            let body = format!("{round} to {address}");
            scratch.run(&["send", "--timeout", "15s", address, &body]).prints("");
        }
    }
    let outcome = receiver.end();
    assert_eq!((outcome.code, outcome.err.as_str()), (Some(0), ""), "{outcome:?}");
    let lines = String::from_utf8(outcome.out).unwrap();
    for address in &all {
        let from_it = lines.lines().filter(|line| line.contains(&format!("to {address}\"")));
        let rest = address.rsplit(['/', ':']).next().unwrap();
        let rest = rest.parse().map_or(rest.to_owned(), |key: u32| format!("{key:#x}"));
        let says_where = |line: &&str| line.contains("\"address\"") && line.contains(&rest);
        assert_eq!(from_it.filter(says_where).count(), rounds, "{address}: {lines}");
    }
    made.iter().for_each(|address| scratch.run(&["remove", address]).prints(""));
}

#[test]
fn one_that_is_always_ready_doesnt_starve_the_others() {
    let scratch = Scratch::new();
    let mark = std::process::id();
    let (busy, calm) = (format!("mq:/poste-busy-{mark}"), sysv(0x7600_0000));
    scratch.run(&["send", "--create", "--count", "10", &busy, "busy"]).prints("");
    scratch.run(&["send", "--create", "--count", "2", &calm, "calm"]).prints("");
    let outcome = scratch.run(&["recv", "--remove", "-n", "5", &busy, &calm]);
    let out = String::from_utf8(outcome.out).unwrap();
    assert_eq!(out.matches("calm").count(), 2, "{out}");
}

/// A shell after ssh, or a program run by node, leaves its standard input so.
#[test]
fn a_standard_input_that_does_not_block_is_read_to_its_end() {
    let scratch = Scratch::new();
    let queue = format!("mq:/poste-nonblocking-{}", std::process::id());
    scratch.run(&["create", &queue]).prints("");
    let server = scratch.start(&["reply", "--echo", "-n", "1", "unix:./u"]);
    let memory = format!("/poste-nonblocking-{}", std::process::id());
    let verbs: [&[&str]; 3] = [
        &["send", "--timeout", "10s", &queue],
        &["call", "--timeout", "10s", "unix:./u"],
        &["memory", "write", &memory],
    ];
    for arguments in verbs {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        rustix::io::ioctl_fionbio(&reader, true).unwrap();
        let mut command = scratch.poste(arguments);
        command.stdin(reader).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        // The command keeps a copy of the reading end otherwise.
        drop(command);
        for part in ["in ", "two parts"] {
            std::thread::sleep(std::time::Duration::from_millis(100));
            rustix::io::write(&writer, part.as_bytes()).unwrap();
        }
        drop(writer);
        let outcome = Outcome::of(&child.wait_with_output().unwrap());
        assert_eq!((outcome.code, outcome.err.as_str()), (Some(0), ""), "{arguments:?}");
        let answers = arguments[0] == "call";
        assert_eq!(outcome.out, if answers { &b"in two parts\n"[..] } else { b"" });
    }
    server.end().prints("");
    scratch.run(&["recv", "--remove", &queue]).prints("in two parts\n");
    scratch.run(&["memory", "remove", &memory]).prints("");
}
