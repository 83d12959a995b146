//! `call` and `reply`, with each other and with plain programs at the other end.

mod command;

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::time::{Duration, Instant};

use command::{Outcome, Scratch, has};

const SOCKETS: &[&str] = &["unix:./u", "seqpacket:./s", "dgram:./d"];

/// Asks a `reply` that was started with these arguments, and waits for both.
#[track_caller]
fn ask(scratch: &Scratch, address: &str, reply: &[&str], call: &[&str]) -> Outcome {
    let server = scratch.start(&[&["reply", "-n", "1", address], reply].concat());
    let outcome = scratch.run(&[&["call", "--timeout", "10s", address], call].concat());
    let served = server.end();
    assert_eq!(served.code, Some(0), "{served:?}");
    outcome
}

#[test]
fn an_answer_comes_back_over_every_socket() {
    let scratch = Scratch::new();
    let abstract_name = format!("unix:@poste-calling-{}", std::process::id());
    for address in SOCKETS.iter().copied().chain([abstract_name.as_str()]) {
        for flags in [&[][..], &["--raw"], &["--c-string"]] {
            let echo = [&["--echo"], flags].concat();
            ask(&scratch, address, &echo, &[&["hello"], flags].concat()).prints("hello\n");
        }
        ask(&scratch, address, &["--body", "pong"], &["ping"]).prints("pong\n");
        ask(&scratch, address, &["--", "tr", "a-z", "A-Z"], &["hi"]).prints("HI\n");
    }
}

#[test]
fn an_answer_comes_back_over_the_network() {
    let scratch = Scratch::new();
    for scheme in ["tcp", "udp"] {
        let mut server = scratch.start_bare(&["reply", "--echo", &format!("{scheme}:127.0.0.1:0")]);
        let mut line = String::new();
        let mut err = std::io::BufReader::new(server.stderr.take().unwrap());
        std::io::BufRead::read_line(&mut err, &mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on ").unwrap();
        for body in ["one", "two"] {
            scratch.run(&["call", "--timeout", "10s", address, body]).prints(format!("{body}\n"));
        }
        server.kill().unwrap();
        server.wait().unwrap();
    }
}

#[test]
fn call_takes_the_formats_and_the_bodies_of_the_others() {
    let scratch = Scratch::new();
    let unix = "unix:./u";
    ask(&scratch, unix, &["--echo"], &["a\tb", "--format", "quoted"]).prints("\"a\\tb\"\n");
    ask(&scratch, unix, &["--echo"], &["ab", "--format", "exact"]).prints("ab");
    ask(&scratch, unix, &["--echo"], &["ab", "-0"]).prints("ab\0");
    ask(&scratch, unix, &["--echo"], &["ab", "--format", "hex"]).prints("6162\n");
    let json = String::from_utf8(ask(&scratch, unix, &["--echo"], &["ab", "--json"]).out).unwrap();
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&value["body"], &value["size"]), (&"ab".into(), &2.into()), "{json}");
    std::fs::write(scratch.path("file"), b"of a file\0").unwrap();
    let file = ["--file", "file", "--format", "hex"];
    ask(&scratch, unix, &["--echo"], &file).prints("6f6620612066696c6500\n");
    let server = scratch.start(&["reply", "-n", "1", "--echo", unix]);
    let call = ["call", "--timeout", "10s", "--format", "exact", unix];
    let body = vec![b'x'; 1 << 20];
    scratch.run_with(&call, &body).prints(&body);
    server.end().prints("");
}

#[test]
fn a_command_that_fails_is_1_for_its_caller() {
    let scratch = Scratch::new();
    for (command, words) in
        [(&["sh", "-c", "exit 3"][..], "exit status: 3"), (&["no-such-command"], "cannot run")]
    {
        let outcome = ask(&scratch, "unix:./u", &[&["--"], command].concat(), &["hi"]);
        outcome.fails(1, words);
    }
}

#[test]
fn what_a_command_answers_may_be_as_large_as_a_message() {
    let scratch = Scratch::new();
    let ask = |size: &str, zeros: &str| {
        let command = ["--message-size", size, "--", "head", "-c", zeros, "/dev/zero"];
        ask(&scratch, "unix:./u", &command, &["--message-size", size, "--format", "exact", "hi"])
    };
    ask("100", "100").prints([0; 100]);
    ask("100", "101").fails(1, "head printed more than 100 bytes");
    ask("17M", "17825792").prints(vec![0; 17 << 20]);
}

/// Without an envelope the end of the connection says that no answer comes; the server goes on.
#[test]
fn a_command_that_fails_ends_the_connection_of_a_raw_caller() {
    let scratch = Scratch::new();
    for address in ["unix:./u", "seqpacket:./s"] {
        let command = ["--", "sh", "-c", "read -r word; [ \"$word\" = good ] && echo well"];
        let server =
            scratch.start(&[&["reply", "--raw", "-n", "3", address], &command[..]].concat());
        for round in 0..2 {
            let start = Instant::now();
            let outcome = scratch.run(&["call", "--raw", "--timeout", "10s", address, "bad"]);
            outcome.fails(69, "gone");
            assert!(start.elapsed() < Duration::from_secs(9), "round {round} of {address}");
        }
        let call = ["call", "--raw", "--timeout", "10s", "--format", "exact", address];
        scratch.run_with(&call, b"good\n").prints("well\n");
        let served = server.end();
        assert_eq!((served.code, served.err.lines().count()), (Some(0), 2), "{served:?}");
    }
}

/// The server comes late, and is silent then: both count.
#[test]
fn a_call_has_one_time_for_connecting_and_for_its_answer() {
    let scratch = Scratch::new();
    let path = scratch.path("late");
    let server = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(2500));
        let listener = UnixListener::bind(path).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let mut read = [0; 16];
        while peer.read(&mut read).unwrap() > 0 {}
    });
    let start = Instant::now();
    let outcome = scratch.run(&["call", "--raw", "--timeout", "3s", "unix:./late", "hi"]);
    let took = start.elapsed();
    outcome.fails(124, "no answer");
    assert!(took < Duration::from_secs(5), "3 s and not 5.5: {took:?}");
    server.join().unwrap();
}

#[test]
fn what_is_no_call_is_passed_over() {
    let scratch = Scratch::new();
    let server = scratch.start(&["reply", "-n", "1", "--echo", "unix:./u"]);
    scratch.run(&["send", "--timeout", "10s", "unix:./u", "no call"]).prints("");
    scratch.run(&["call", "--timeout", "10s", "unix:./u", "a call"]).prints("a call\n");
    server.end().prints("");
}

#[test]
fn a_caller_that_has_gone_ends_nothing() {
    let scratch = Scratch::new();
    let server =
        scratch.start(&["reply", "-n", "2", "unix:./u", "--", "sh", "-c", "sleep .3; cat"]);
    while !scratch.path("u").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    scratch.run(&["call", "--timeout", "100ms", "unix:./u", "one"]).fails(124, "no answer");
    scratch.run(&["call", "--timeout", "10s", "unix:./u", "two"]).prints("two\n");
    assert_eq!(server.end().code, Some(0));
}

#[test]
fn no_answer_is_124_and_a_server_that_goes_69() {
    let scratch = Scratch::new();
    for address in SOCKETS {
        let receiver = scratch.start(&["recv", "-f", address]);
        let start = Instant::now();
        scratch.run(&["send", "--timeout", "10s", address, "is it there?"]).prints("");
        scratch.run(&["call", "--timeout", "200ms", address, "hi"]).fails(124, address);
        assert!(start.elapsed() < Duration::from_secs(10));
        drop(receiver);
    }
    for address in &SOCKETS[..2] {
        let receiver = scratch.start(&["recv", address]);
        scratch.run(&["call", "--timeout", "10s", address, "hi"]).fails(69, address);
        drop(receiver);
    }
}

#[test]
fn a_plain_server_is_called_raw() {
    let scratch = Scratch::new();
    let listener = UnixListener::bind(scratch.path("plain")).unwrap();
    let server = std::thread::spawn(move || {
        // One that answers what one read returns, without waiting for the end.
        let (mut peer, _) = listener.accept().unwrap();
        let mut read = [0; 64];
        let size = peer.read(&mut read).unwrap();
        peer.write_all(&read[..size]).unwrap();
        assert_eq!(peer.read(&mut read).unwrap(), 0);
        // One that reads up to the end first.
        let (mut peer, _) = listener.accept().unwrap();
        let mut whole = Vec::new();
        peer.read_to_end(&mut whole).unwrap();
        peer.write_all(&whole).unwrap();
        drop(peer);
        // One that exchanges C strings, the answer in two writes.
        let (mut peer, _) = listener.accept().unwrap();
        let size = peer.read(&mut read).unwrap();
        assert_eq!(&read[..size], b"word\0");
        peer.write_all(b"wo").unwrap();
        std::thread::sleep(Duration::from_millis(50));
        peer.write_all(b"rd\0").unwrap();
        // One that exchanges lines.
        let (mut peer, _) = listener.accept().unwrap();
        let size = peer.read(&mut read).unwrap();
        assert_eq!(&read[..size], b"GET\n");
        peer.write_all(b"one\ntwo\n").unwrap();
        // One that goes without a word.
        drop(listener.accept().unwrap());
    });
    let call = |flags: &[&str], body| {
        scratch.run(&[&["call", "--timeout", "10s", "unix:./plain", body], flags].concat())
    };
    call(&["--raw"], "ping").prints("ping\n");
    call(&["--raw", "--half-close"], "ping").prints("ping\n");
    call(&["--c-string"], "word").prints("word\n");
    call(&["--raw", "--lines"], "GET").prints("one\n");
    call(&["--raw"], "ping").fails(69, "gone");
    server.join().unwrap();
}

#[test]
fn a_plain_client_is_answered_raw() {
    let scratch = Scratch::new();
    let server =
        scratch.start(&["reply", "--raw", "-n", "2", "unix:./u", "--", "tr", "a-z", "A-Z"]);
    while !scratch.path("u").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut client = UnixStream::connect(scratch.path("u")).unwrap();
    client.write_all(b"hello").unwrap();
    let mut read = [0; 16];
    let size = client.read(&mut read).unwrap();
    assert_eq!(&read[..size], b"HELLO");
    // One that closes its half before it is answered.
    let mut client = UnixStream::connect(scratch.path("u")).unwrap();
    client.write_all(b"bye").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut whole = Vec::new();
    client.read_to_end(&mut whole).unwrap();
    assert_eq!(whole, b"BYE");
    server.end().prints("");
}

#[test]
fn netcat_and_python_are_at_the_other_end() {
    let scratch = Scratch::new();
    let shell = |line: &str| {
        let mut command = Command::new("timeout");
        command.args(["10", "sh", "-c", line]).current_dir(scratch.path(""));
        command.output().unwrap()
    };
    if has("nc", "netcat_and_python_are_at_the_other_end") {
        let server = scratch.start(&["reply", "--raw", "-n", "1", "--echo", "unix:./nc"]);
        while !scratch.path("nc").exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(shell("printf hello | nc -N -U nc").stdout, b"hello");
        server.end().prints("");
    }
    if has("python3", "netcat_and_python_are_at_the_other_end") {
        let mut python = Command::new("timeout");
        let script = "import socket
server = socket.socket(socket.AF_UNIX)
server.bind('py')
server.listen()
peer, _ = server.accept()
peer.sendall(peer.recv(256)[::-1])
peer.close()";
        let arguments = ["10", "python3", "-c", script];
        let mut python = python.args(arguments).current_dir(scratch.path("")).spawn().unwrap();
        scratch.run(&["call", "--raw", "--timeout", "10s", "unix:./py", "abc"]).prints("cba\n");
        assert!(python.wait().unwrap().success());
    }
}
