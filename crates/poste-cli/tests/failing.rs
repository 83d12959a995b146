//! Exit codes and the two lines.

mod command;

use std::process::Command;

use command::{Scratch, skip};

/// One who listens and doesn't accept, with as many waiting as it wants: the time that was given
/// holds all the same.
#[test]
fn a_busy_listener_is_waited_for_no_longer_than_was_asked() {
    let scratch = Scratch::new();
    let name = rustix::net::SocketAddrUnix::new(scratch.path("x")).unwrap();
    let listener = rustix::net::socket(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        None,
    )
    .unwrap();
    rustix::net::bind(&listener, &name).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let _waiting = std::os::unix::net::UnixStream::connect(scratch.path("x")).unwrap();
    scratch.run(&["send", "--timeout", "0s", "unix:./x", "b"]).fails(75, "unix:./x");
    scratch.run(&["send", "--timeout", "200ms", "unix:./x", "b"]).fails(124, "unix:./x");
    scratch.run(&["call", "--timeout", "200ms", "unix:./x", "b"]).fails(124, "unix:./x");
}

/// What no packet can carry is refused before anything is sent, with the limit.
#[test]
fn a_raw_packet_that_is_too_large_is_named_with_its_limit() {
    let scratch = Scratch::new();
    std::fs::write(scratch.path("large"), vec![b'x'; 6_000_000]).unwrap();
    for address in ["dgram:./d", "seqpacket:./s"] {
        let receiver = scratch.start(&["recv", "--raw", "-n", "2", address]);
        let send = ["send", "--raw", "--timeout", "10s", address];
        scratch.run(&[&send[..], &["there?"]].concat()).prints("");
        for flags in [&["--timeout", "5s"][..], &[]] {
            let send = ["send", "--raw", "--file", "large", address];
            scratch.run(&[&send[..], flags].concat()).fails(1, "?capacity=");
        }
        scratch.run(&[&send[..], &["there"]].concat()).prints("");
        receiver.end().prints("there?\nthere\n");
    }
    let send = ["send", "--raw", "--file", "large", "udp:127.0.0.1:9"];
    scratch.run(&send).fails(1, "the limit is 65507");
}

#[test]
fn what_makes_no_sense_is_2() {
    let scratch = Scratch::new();
    for (line, words) in [
        ("", "verb"),
        ("bogus", "bogus"),
        ("send", "<ADDRESS>"),
        ("send fifo:x --bogus", "--bogus"),
        ("send fifo:x body --file f", "--file"),
        ("send fifo:x body --lines", "--lines"),
        ("send fifo:x body -0", "--null"),
        ("send fifo:x --lines -0", "--null"),
        ("send fifo:x --lines --count 2", "--count"),
        ("send fifo:x body --count 0", "count from 1"),
        ("send fifo:x body -p high", "--priority"),
        ("send fifo:x body --timeout 5", "the unit is missing"),
        ("send fifo:x body --raw --type 3", "no type"),
        ("send sysv:1 body --type 3", "--raw"),
        ("send unix:x body --listen --connect", "--connect"),
        ("send fifo:x?bogus=1 body", "bogus"),
        ("recv fifo:x -n 0", "count from 1"),
        ("recv fifo:x -n 1 -f", "--follow"),
        ("recv fifo:x --lines", "--raw"),
        ("recv fifo:x --format xml", "xml"),
        ("recv bogus:x", "bogus"),
        ("recv Fifo:x", "scheme"),
        ("recv pipe:", "fd:"),
        ("recv pair:", "fd:"),
        ("send local:x y", "fd:"),
        ("remove local:x", "fd:"),
        ("create unix:./u", "receiver"),
        ("create fifo:./f --capacity 8K", "capacity"),
        ("create fifo:./f --mode 999", "octal"),
        ("create a/b", "a/b"),
        ("create .hidden", "mailbox"),
        ("create shm:a/b", "letters"),
        ("create -", "hyphen"),
        ("create jobs --mode 0666", "one user"),
        ("create jobs --capacity 0", "room for a message"),
        ("create jobs --message-size 0", "room for a message"),
        ("create jobs?deliveries=0", "deliveries"),
        ("create jobs?huge-pages=2M", "huge-pages"),
        ("create mq:/x?huge-pages", "huge-pages"),
        ("send jobs x --listen", "listen"),
        ("send jobs x --raw --type 3", "no type"),
        ("recv jobs --lines", "--raw"),
        ("send fifo:x y --ack", "not built yet"),
        ("recv fifo:x --json -- cat", "--json"),
        ("call unix:x body --file f", "--file"),
        ("call unix:x body --timeout 5", "the unit is missing"),
        ("call unix:x body --lines", "--raw"),
        ("call udp:127.0.0.1:9 body --half-close", "half"),
        ("call sysv:1 x", "not built yet"),
        ("reply mq:x --echo", "not built yet"),
        ("call jobs x", "not built yet"),
        ("reply jobs --echo", "not built yet"),
        ("reply unix:x", "--echo"),
        ("reply unix:x --echo --body y", "--body"),
        ("reply unix:x --echo -- cat", "COMMAND"),
        ("reply unix:x --echo -n 0", "count from 1"),
        ("relay fifo:x", "<TO>"),
        ("relay fifo:x fifo:y --raw --raw-to", "--raw"),
        ("relay fifo:x fifo:y --lines", "--raw"),
        ("relay mq:/x mq:/x", "itself"),
        ("relay jobs shm:jobs", "itself"),
        ("relay unix:x bogus:y", "bogus"),
        ("relay --both unix:x fifo:y", "connections"),
        ("relay --both unix:x jobs", "connections"),
        ("relay --both udp:127.0.0.1:0 tcp:127.0.0.1:9", "connections"),
        ("relay --both unix:x seqpacket:y", "packets"),
        ("relay --both --raw-to unix:x unix:y", "envelope"),
        ("recv task:x", "not built yet"),
        ("send signal:1 1", "not built yet"),
        ("recv nats://h/x", "not built yet"),
        ("call fifo:x y", "not built yet"),
    ] {
        scratch.run(&line.split_whitespace().collect::<Vec<_>>()).fails(2, words);
    }
}

#[test]
fn what_is_not_there_is_1_and_names_create() {
    let scratch = Scratch::new();
    for line in [
        "send fifo:./x y",
        "recv fifo:./x",
        "remove fifo:./x",
        "recv mq:/poste-no-such",
        "send no-such y",
        "recv no-such",
        "info no-such",
        "remove shm:no-such",
        "relay unix:./y mq:/poste-no-such",
    ] {
        scratch.run(&line.split_whitespace().collect::<Vec<_>>()).fails(1, "create");
    }
    scratch.run(&["send", "fifo:./x", "--file", "nowhere"]).fails(1, "nowhere");
}

#[test]
fn what_is_there_is_not_created() {
    let scratch = Scratch::new();
    scratch.run(&["create", "fifo:./x"]).prints("");
    scratch.run(&["create", "fifo:./x"]).fails(1, "in use");
}

#[test]
fn remove_does_what_it_can() {
    let scratch = Scratch::new();
    scratch.run(&["create", "fifo:./b"]).prints("");
    scratch.run(&["remove", "fifo:./a", "fifo:./b", "fifo:./c"]).fails(1, "2 of 3 failed");
    assert!(!scratch.path("b").exists());
}

#[test]
fn nobody_is_69() {
    let scratch = Scratch::new();
    for address in ["unix:./x", "seqpacket:./x", "dgram:./x", "tcp:127.0.0.1:1"] {
        scratch.run(&["send", address, "y"]).fails(69, address);
        scratch.run(&["send", "--timeout", "50ms", address, "y"]).fails(69, address);
    }
    scratch.run(&["call", "unix:./x", "y"]).fails(69, "poste reply");
    scratch.run(&["call", "--timeout", "5s", "udp:127.0.0.1:1", "y"]).fails(69, "udp:");
    scratch.run(&["relay", "unix:./a", "unix:./x"]).fails(69, "unix:./x");
    scratch.run(&["relay", "--both", "unix:./a", "unix:./x"]).fails(69, "unix:./x");
    scratch.run(&["relay", "--connect", "unix:./x", "udp:127.0.0.1:9"]).fails(69, "unix:./x");
    assert!(!scratch.path("a").exists());
    scratch.run(&["create", "fifo:./f"]).prints("");
    scratch.run(&["send", "--timeout", "50ms", "fifo:./f", "y"]).fails(69, "fifo:./f");
}

#[test]
fn time_is_124_and_full_75() {
    let scratch = Scratch::new();
    let queue = format!("mq:/poste-full-{}", std::process::id());
    scratch.run(&["create", "--capacity", "1", &queue]).prints("");
    scratch.run(&["recv", "--timeout", "0s", &queue]).fails(124, &queue);
    scratch.run(&["recv", "--timeout", "50ms", &queue]).fails(124, &queue);
    scratch.run(&["send", &queue, "one"]).prints("");
    scratch.run(&["send", "--timeout", "0s", &queue, "two"]).fails(75, &queue);
    scratch.run(&["send", "--timeout", "50ms", &queue, "two"]).fails(124, &queue);
    scratch.run(&["send", "-p", "32768", &queue, "two"]).fails(1, "32767");
    scratch.run(&["send", "-p", "99999", &queue, "two"]).fails(1, "32767");
    scratch.run(&["recv", "--remove", &queue]).prints("one\n");
    scratch.run(&["recv", &queue]).fails(1, "create");
}

#[test]
fn a_large_message_names_the_ways_out() {
    let scratch = Scratch::new();
    let receiver = scratch.start(&["recv", "--timeout", "15s", "unix:./u"]);
    let body = vec![b'x'; (16 << 20) + 1];
    let outcome = scratch.run_with(&["send", "--timeout", "15s", "unix:./u"], &body);
    outcome.fails(1, "--lines");
    assert!(outcome.err.contains("--raw") && outcome.err.contains("16777216"), "{outcome:?}");
    drop(receiver);
}

#[test]
fn the_end_of_the_other_side_is_0_for_follow_and_69_for_a_count() {
    let scratch = Scratch::new();
    for (flags, code) in [(&["-f"][..], 0), (&["-n", "2"], 69)] {
        let sender = scratch.start(&["send", "--listen", "unix:./u", "one"]);
        let recv = ["recv", "--connect", "--timeout", "10s", "unix:./u"];
        let outcome = scratch.run(&[&recv, flags].concat());
        assert_eq!((outcome.code, &outcome.out[..]), (Some(code), &b"one\n"[..]), "{outcome:?}");
        assert_eq!(outcome.err.lines().count(), if code == 0 { 0 } else { 2 }, "{outcome:?}");
        sender.end().prints("");
    }
}

#[test]
fn a_receiver_that_goes_in_the_middle_is_69_and_the_next_one_gets_none_of_it() {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    let scratch = Scratch::new();
    let body = vec![b'x'; 3_000_000];
    scratch.run(&["create", "fifo:./f"]).prints("");
    for (line, path) in [
        ("send fifo:./f", "f"),
        ("send --raw fifo:./f", "f"),
        ("send --listen unix:./s", "s"),
        ("send --raw --listen unix:./s", "s"),
    ] {
        let path = scratch.path(path);
        let reading = std::thread::spawn(move || {
            let mut some = vec![0; 100_000];
            if path.ends_with("f") {
                std::fs::File::open(&path).unwrap().read_exact(&mut some).unwrap();
                return;
            }
            let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
            loop {
                match UnixStream::connect(&path) {
                    Ok(mut stream) => return stream.read_exact(&mut some).unwrap(),
                    Err(error) => assert!(std::time::Instant::now() < end, "{error}"),
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        });
        let words: Vec<_> = line.split(' ').collect();
        scratch.run_with(&words, &body).fails(69, "gone");
        reading.join().unwrap();
    }
}

/// What can't be noted in the runtime directory is refused, and nothing is made or taken.
#[test]
fn a_full_runtime_directory_is_named() {
    let test = "a_full_runtime_directory_is_named";
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.path("full")).unwrap();
    let mount = "mount -t tmpfs -o size=64k,mode=0700 none full";
    let can_mount = Command::new("unshare")
        .args(["-m", "sh", "-c", mount])
        .current_dir(scratch.path(""))
        .output();
    if !can_mount.is_ok_and(|output| output.status.success()) {
        return skip(test, "no file system can be mounted here");
    }
    let name = format!("/poste-full-{}", std::process::id());
    scratch.run(&["semaphore", "create", &name]).prints("");
    let run = |words: &str| {
        // A command that succeeds makes the directories.
        let script = format!(
            "{mount}; \"$0\" semaphore hold {name} -- \"$0\" recv --timeout 0s unix:./y
             cat /dev/zero > full/filler
             exec \"$0\" {words} 2> said"
        );
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &script, env!("CARGO_BIN_EXE_poste")]);
        command.current_dir(scratch.path("")).env("POSTE_DIR", scratch.path("full"));
        let code = command.output().unwrap().status.code();
        (code, std::fs::read_to_string(scratch.path("said")).unwrap())
    };
    for words in ["recv --timeout 0s unix:./x", &format!("semaphore hold {name} -- true")] {
        let (code, said) = run(words);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("No space left") && said.contains("hint: make room there"), "{said}");
    }
    assert!(!scratch.path("x").exists());
    scratch.run(&["semaphore", "value", &name]).prints("1\n");
    scratch.run(&["semaphore", "remove", &name]).prints("");
}
