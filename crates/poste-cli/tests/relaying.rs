//! `relay`: one way between any two, both ways between connections.

mod command;

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use command::{Running, Scratch};

fn wait_for(scratch: &Scratch, name: &str) {
    let start = Instant::now();
    while !scratch.path(name).exists() {
        assert!(start.elapsed() < Duration::from_secs(10), "{name}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A relay that listens on `unix:./in`, once it does.
fn relay(scratch: &Scratch, arguments: &[&str]) -> Running {
    let relay = scratch.start(&[&["relay", "--timeout", "15s"], arguments].concat());
    wait_for(scratch, "in");
    relay
}

#[test]
fn messages_go_from_any_to_any() {
    let scratch = Scratch::new();
    let mark = std::process::id();
    let queue = |name| format!("mq:/poste-relay-{name}-{mark}");
    let key = |base: u32| format!("sysv:{}", base + mark);
    let ends = |n: usize| -> Vec<String> {
        let sockets = ["unix", "seqpacket", "dgram"].map(|kind| format!("{kind}:./{kind}{n}"));
        let fifo = format!("fifo:./fifo{n}");
        [&sockets[..], &[fifo, queue(["a", "b"][n]), key([0x7300_0000, 0x7400_0000][n])]].concat()
    };
    for (index, from) in ends(0).iter().enumerate() {
        for to in ends(1).iter().skip(index % 2).step_by(2) {
            let kept =
                |address: &str| !["unix", "seqpa", "dgram"].iter().any(|s| address.starts_with(s));
            for address in [from, to].into_iter().filter(|address| kept(address)) {
                scratch.run(&["create", address]).prints("");
            }
            let receiver = scratch.start(&["recv", "-n", "3", "--timeout", "15s", to]);
            let relay = scratch.start(&["relay", "-n", "3", "--timeout", "15s", from, to]);
            let input = b"one\ntwo\n\n";
            scratch.run_with(&["send", "--lines", "--timeout", "15s", from], input).prints("");
            relay.end().prints("");
            let outcome = receiver.end();
            assert_eq!(outcome.out, b"one\ntwo\n\n", "{from} {to} {outcome:?}");
            for address in [from, to].into_iter().filter(|address| kept(address)) {
                scratch.run(&["remove", address]).prints("");
            }
        }
    }
}

#[test]
fn priorities_are_kept_and_capped() {
    let scratch = Scratch::new();
    let mark = std::process::id();
    let (from, to) = (format!("mq:/poste-capped-{mark}"), format!("sysv:{}", 0x7500_0000 + mark));
    scratch.run(&["create", &from]).prints("");
    for (priority, body) in [("3", "low"), ("9", "high"), ("1000", "highest")] {
        scratch.run(&["send", "-p", priority, &from, body]).prints("");
    }
    scratch.run(&["relay", "-n", "3", "--create", &from, &to]).prints("");
    let out = scratch.run(&["recv", "-n", "3", "--json", "--remove", &to]).out;
    let out = String::from_utf8(out).unwrap();
    let found: Vec<_> = out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|value| (value["body"].as_str().unwrap().to_owned(), value["priority"].clone()))
        .collect();
    let expected = [("highest", 31), ("high", 9), ("low", 3)];
    assert_eq!(found, expected.map(|(body, priority)| (body.to_owned(), priority.into())));
    scratch.run(&["remove", &from]).prints("");
}

#[test]
fn one_end_or_both_may_be_raw() {
    let scratch = Scratch::new();
    let queue = format!("mq:/poste-relay-raw-{}", std::process::id());
    scratch.run(&["create", &queue]).prints("");
    for (relaying, sending, receiving) in [
        ("--raw-from", &["--raw"][..], &[][..]),
        ("--raw-to", &[], &["--raw"]),
        ("--raw", &["--raw"], &["--raw"]),
    ] {
        let relay = relay(&scratch, &["-n", "1", relaying, "unix:./in", &queue]);
        scratch.run(&[&["send", "unix:./in", "hello"], sending].concat()).prints("");
        relay.end().prints("");
        scratch.run(&[&["recv", "--timeout", "0s", &queue], receiving].concat()).prints("hello\n");
    }
    // Lines are cut from a byte stream, and keep their ends on another.
    let relay = relay(&scratch, &["-n", "2", "--raw-from", "--lines", "unix:./in", &queue]);
    let mut plain = UnixStream::connect(scratch.path("in")).unwrap();
    plain.write_all(b"one\ntw").unwrap();
    plain.write_all(b"o\n").unwrap();
    relay.end().prints("");
    scratch.run(&["recv", "-n", "2", "--remove", &queue]).prints("one\ntwo\n");
}

#[test]
fn raw_bytes_larger_than_a_queue_takes_are_cut() {
    let scratch = Scratch::new();
    let queue = format!("mq:/poste-relay-cut-{}", std::process::id());
    scratch.run(&["create", "--message-size", "1K", &queue]).prints("");
    let relay = relay(&scratch, &["--raw", "unix:./in", &queue]);
    let body = vec![b'x'; 5000];
    scratch.run_with(&["send", "--raw", "unix:./in"], &body).prints("");
    let recv = ["recv", "--raw", "-n", "5", "--format", "exact", "--timeout", "10s", "--remove"];
    let outcome = scratch.run(&[&recv[..], &[&queue]].concat());
    assert_eq!((outcome.code, outcome.out.len()), (Some(0), 5000), "{outcome:?}");
    drop(relay);
}

#[test]
fn what_cannot_go_on_is_said_and_the_rest_goes_on() {
    let scratch = Scratch::new();
    let queue = format!("mq:/poste-relay-large-{}", std::process::id());
    scratch.run(&["create", "--message-size", "256", &queue]).prints("");
    let relay = relay(&scratch, &["-n", "2", "unix:./in", &queue]);
    scratch.run(&["send", "unix:./in", &"x".repeat(300)]).prints("");
    scratch.run(&["send", "unix:./in", "small"]).prints("");
    let outcome = relay.end();
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.err.starts_with("notice: ") && outcome.err.contains("is lost"), "{outcome:?}");
    scratch.run(&["recv", "--remove", &queue]).prints("small\n");
}

#[test]
fn a_full_end_makes_it_wait() {
    let scratch = Scratch::new();
    let queue = format!("mq:/poste-relay-full-{}", std::process::id());
    scratch.run(&["create", "--capacity", "1", &queue]).prints("");
    let relay = relay(&scratch, &["unix:./in", &queue]);
    let lines: String = (0..200).map(|n| format!("{n} {}\n", "x".repeat(4000))).collect();
    let input = lines.clone().into_bytes();
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| scratch.run_with(&["send", "--lines", "unix:./in"], &input));
        std::thread::sleep(Duration::from_millis(200));
        assert!(!sending.is_finished(), "the sender waits too");
        let received = scratch.run(&["recv", "-n", "200", "--timeout", "10s", &queue]);
        assert!(received.out == lines.as_bytes(), "{:?}", received.err);
        sending.join().unwrap().prints("");
    });
    drop(relay);
    scratch.run(&["remove", &queue]).prints("");
}

#[test]
fn a_connected_end_that_goes_is_69() {
    let scratch = Scratch::new();
    // The one that it sends to, while nothing is to be sent.
    for flags in [&[][..], &["--raw"]] {
        let receiver = scratch.start(&["recv", "unix:./out"]);
        let relay = relay(&scratch, &[&["unix:./in", "unix:./out"], flags].concat());
        drop(receiver);
        relay.end().fails(69, "unix:./out");
        assert!(!scratch.path("in").exists());
    }
    // The one that it receives from.
    let sender = scratch.start(&["send", "--listen", "unix:./from", "last"]);
    wait_for(&scratch, "from");
    let queue = format!("mq:/poste-relay-gone-{}", std::process::id());
    let relay = ["relay", "--connect", "--create", "unix:./from", &queue];
    scratch.run(&relay).fails(69, "unix:./from");
    sender.end().prints("");
    scratch.run(&["recv", "--remove", &queue]).prints("last\n");
}

#[test]
fn listening_ends_and_fifos_wait_for_the_next() {
    let scratch = Scratch::new();
    scratch.run(&["create", "fifo:./out"]).prints("");
    let fifo = scratch.start(&["relay", "unix:./in", "fifo:./out"]);
    wait_for(&scratch, "in");
    for body in ["one", "two"] {
        scratch.run(&["send", "unix:./in", body]).prints("");
        scratch.run(&["recv", "--timeout", "10s", "fifo:./out"]).prints(format!("{body}\n"));
    }
    drop(fifo);
    let listening = relay(&scratch, &["--listen", "unix:./in", "unix:./there"]);
    for body in ["one", "two"] {
        let receiver = scratch.start(&["recv", "--connect", "--timeout", "10s", "unix:./there"]);
        scratch.run(&["send", "unix:./in", body]).prints("");
        receiver.end().prints(format!("{body}\n"));
    }
    drop(listening);
}

#[test]
fn a_signal_ends_it_and_takes_the_socket_away() {
    let scratch = Scratch::new();
    for both in [false, true] {
        let receiver = scratch.start(&["recv", "-f", "unix:./out"]);
        wait_for(&scratch, "out");
        let flags: &[&str] = if both { &["--both"] } else { &[] };
        let arguments = [&["relay", "unix:./in", "unix:./out"], flags].concat();
        let mut relay = scratch.start_bare(&arguments);
        wait_for(&scratch, "in");
        let pid = relay.id().to_string();
        std::process::Command::new("kill").args(["-s", "INT", &pid]).status().unwrap();
        assert_eq!(relay.wait().unwrap().code(), Some(130));
        assert!(!scratch.path("in").exists());
        drop(receiver);
    }
}

#[test]
fn calls_and_answers_pass_both_ways() {
    let scratch = Scratch::new();
    for (from, to) in [("unix:./in", "unix:./out"), ("seqpacket:./in", "seqpacket:./out")] {
        for flags in [&[][..], &["--raw"]] {
            let server =
                scratch.start(&[&["reply", to], flags, &["--", "tr", "a-z", "A-Z"]].concat());
            wait_for(&scratch, "out");
            let relay = relay(&scratch, &[&["--both", from, to], flags].concat());
            for body in ["one", "two", "three"] {
                let call = [&["call", "--timeout", "10s", from, body], flags].concat();
                scratch.run(&call).prints(format!("{}\n", body.to_uppercase()));
            }
            drop((relay, server));
            assert!(!scratch.path("in").exists());
        }
    }
}

#[test]
fn the_end_of_one_direction_passes_and_the_other_goes_on() {
    let scratch = Scratch::new();
    let listener = UnixListener::bind(scratch.path("plain")).unwrap();
    let relay = relay(&scratch, &["--both", "--raw", "unix:./in", "unix:./plain"]);
    let body: Vec<u8> = (0..3_000_000).map(|at| (at % 251) as u8).collect();
    let server = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut peer, _) = listener.accept().unwrap();
            let mut whole = Vec::new();
            peer.read_to_end(&mut whole).unwrap();
            whole.reverse();
            peer.write_all(&whole).unwrap();
        }
    });
    for _ in 0..2 {
        let mut client = UnixStream::connect(scratch.path("in")).unwrap();
        client.write_all(&body).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut whole = Vec::new();
        client.read_to_end(&mut whole).unwrap();
        assert!(whole.iter().eq(body.iter().rev()));
    }
    server.join().unwrap();
    drop(relay);
}

/// A server at `./out` and a relay between: each line of a client comes back from there.
struct Between {
    scratch: Scratch,
    relay: std::process::Child,
}

impl Drop for Between {
    fn drop(&mut self) {
        // It has ended already where all went well.
        let _ = self.relay.kill();
        let _ = self.relay.wait();
    }
}

impl Between {
    /// A relay to a server that listens there by then.
    fn new(scratch: Scratch) -> Between {
        Between::of("unix", scratch)
    }

    fn of(scheme: &str, scratch: Scratch) -> Between {
        let [from, to] = ["in", "out"].map(|name| format!("{scheme}:./{name}"));
        let relay = scratch.start_bare(&["relay", "--both", "--raw", &from, &to]);
        wait_for(&scratch, "in");
        Between { scratch, relay }
    }

    fn client(&self) -> UnixStream {
        let client = UnixStream::connect(self.scratch.path("in")).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client
    }

    /// What it has said when it is ended.
    fn end(mut self) -> String {
        let pid = self.relay.id().to_string();
        std::process::Command::new("kill").arg(&pid).status().unwrap();
        let mut said = String::new();
        self.relay.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(self.relay.wait().unwrap().code(), Some(143), "{said}");
        said
    }
}

/// Whether what is written at one side comes out at the other.
fn passes(from: &mut UnixStream, to: &mut UnixStream) -> bool {
    from.write_all(b"a line").unwrap();
    let mut read = [0; 6];
    to.read_exact(&mut read).is_ok() && &read == b"a line"
}

fn accept(server: &UnixListener) -> UnixStream {
    let (stream, _) = server.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

#[test]
fn a_connection_that_finds_nobody_ends_alone() {
    let scratch = Scratch::new();
    let server = UnixListener::bind(scratch.path("out")).unwrap();
    let between = Between::new(scratch);
    let (mut first, mut behind_first) = (between.client(), accept(&server));
    assert!(passes(&mut first, &mut behind_first) && passes(&mut behind_first, &mut first));
    drop(server);
    std::fs::remove_file(between.scratch.path("out")).unwrap();
    let mut second = between.client();
    assert_eq!(second.read(&mut [0; 9]).unwrap(), 0, "it is closed");
    assert!(passes(&mut first, &mut behind_first) && passes(&mut behind_first, &mut first));
    let server = UnixListener::bind(between.scratch.path("out")).unwrap();
    let (mut third, mut behind_third) = (between.client(), accept(&server));
    assert!(passes(&mut third, &mut behind_third) && passes(&mut first, &mut behind_first));
    let said = between.end();
    assert!(said.contains("notice: ") && said.contains("is closed"), "{said}");
}

/// How many descriptors a process has open, and how many threads.
fn open_in(pid: u32) -> (u64, usize) {
    let count = |what| std::fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count();
    (count("fd") as u64, count("task"))
}

#[test]
fn where_no_descriptor_is_left_who_comes_waits_or_ends_alone_and_the_others_go_on() {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
    let scratch = Scratch::new();
    let server = UnixListener::bind(scratch.path("out")).unwrap();
    let between = Between::new(scratch);
    let (mut first, mut behind_first) = (between.client(), accept(&server));
    assert!(passes(&mut first, &mut behind_first));
    let pid = Pid::from_raw(between.relay.id() as i32);
    for left in 0..12 {
        let (open, _) = open_in(between.relay.id());
        // So many more: from none to almost all that a connection takes.
        let limit = Rlimit { current: Some(open + left), ..getrlimit(Resource::Nofile) };
        let before = prlimit(pid, Resource::Nofile, limit).unwrap();
        let mut second = between.client();
        std::thread::sleep(Duration::from_millis(20));
        // The first goes on whatever becomes of the second, also where it has to wait for room.
        let body = vec![left as u8; 700_000];
        std::thread::scope(|scope| {
            scope.spawn(|| first.write_all(&body).unwrap());
            std::thread::sleep(Duration::from_millis(20));
            let mut read = vec![0; body.len()];
            behind_first.read_exact(&mut read).unwrap();
            assert!(read == body, "with {left} descriptors left");
        });
        prlimit(pid, Resource::Nofile, before).unwrap();
        // Served now, by one who ends it at once, or closed: it doesn't hang.
        server.set_nonblocking(true).unwrap();
        second.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let start = Instant::now();
        while second.read(&mut [0; 9]).is_err() {
            assert!(start.elapsed() < Duration::from_secs(10), "with {left} descriptors left");
            while server.accept().is_ok() {}
        }
        while server.accept().is_ok() {}
        server.set_nonblocking(false).unwrap();
    }
    let (mut third, mut behind_third) = (between.client(), accept(&server));
    assert!(passes(&mut third, &mut behind_third));
    let said = between.end();
    assert!(said.contains("is closed") && !said.contains("panic"), "{said}");
}

#[test]
fn one_who_reads_nothing_holds_up_nobody_else() {
    let scratch = Scratch::new();
    let server = UnixListener::bind(scratch.path("out")).unwrap();
    let between = Between::new(scratch);
    let (stuck, _behind_stuck) = (between.client(), accept(&server));
    stuck.set_nonblocking(true).unwrap();
    let (mut first, mut behind_first) = (between.client(), accept(&server));
    // Until nothing goes in any more, and then some.
    for _ in 0..20 {
        while (&stuck).write(&[0; 65536]).is_ok() {}
        assert!(passes(&mut first, &mut behind_first) && passes(&mut behind_first, &mut first));
    }
    drop(between.end());
}

#[test]
fn packets_and_descriptors_wait_for_room_and_keep_their_order() {
    let scratch = Scratch::new();
    let at = |name| format!("seqpacket:{}", scratch.path(name).display());
    let raw = poste::Options::new().raw();
    let mut server = poste::Receiver::open_with(at("out"), &raw).unwrap();
    let relay = relay(&scratch, &["--both", "--raw", "seqpacket:./in", "seqpacket:./out"]);
    let mut client = poste::Sender::open_with(at("in"), &raw).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let file = std::fs::File::open("/dev/null").unwrap();
            let descriptors = [std::os::fd::AsFd::as_fd(&file)];
            for number in 0..3000_u32 {
                let body = number.to_le_bytes().repeat(100);
                let message = poste::Outgoing::from(&body);
                let taken: &[_] = if number % 50 == 0 { &descriptors } else { &[] };
                client.send(message.descriptors(taken)).unwrap();
            }
        });
        std::thread::sleep(Duration::from_millis(200));
        for number in 0..3000_u32 {
            let mut message = server.recv_timeout(Duration::from_secs(10)).unwrap();
            assert!(message[..] == number.to_le_bytes().repeat(100), "{number} is not in order");
            let count = message.take_descriptors().len();
            assert_eq!(count, usize::from(number % 50 == 0), "of {number}");
        }
    });
    drop(relay);
}

#[test]
fn no_more_than_two_hundred_connections_are_joined_at_once() {
    let scratch = Scratch::new();
    let server = UnixListener::bind(scratch.path("out")).unwrap();
    let between = Between::new(scratch);
    let mut joined: Vec<_> = (0..200).map(|_| (between.client(), accept(&server))).collect();
    for (client, behind) in &mut joined {
        assert!(passes(client, behind));
    }
    let (_, threads) = open_in(between.relay.id());
    assert!(threads < 10, "{threads} threads for 200 connections");
    let mut late = between.client();
    server.set_nonblocking(true).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(server.accept().is_err(), "one more waits");
    server.set_nonblocking(false).unwrap();
    drop(joined.pop());
    assert!(passes(&mut late, &mut accept(&server)), "until there is a place");
    drop((joined, late));
    assert_eq!(between.end().lines().count(), 2);
}

/// Who sends descriptors learns nothing of where they go: the relay says what stays behind.
#[test]
fn descriptors_that_cannot_go_on_are_said() {
    let scratch = Scratch::new();
    let queue = format!("mq:/poste-relay-descriptors-{}", std::process::id());
    scratch.run(&["create", &queue]).prints("");
    let relay = relay(&scratch, &["-n", "2", "unix:./in", &queue]);
    let mut sender = poste::Sender::open(format!("unix:{}", scratch.path("in").display())).unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    let descriptors = [std::os::fd::AsFd::as_fd(&file); 2];
    sender.send(poste::Outgoing::from("with two").descriptors(&descriptors)).unwrap();
    sender.send("with none").unwrap();
    let outcome = relay.end();
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let words = "notice: a message's descriptors, 2 of them, can't go on to mq:";
    assert!(outcome.err.starts_with(words) && outcome.err.lines().count() == 1, "{outcome:?}");
    scratch.run(&["recv", "-n", "2", "--remove", &queue]).prints("with two\nwith none\n");
}

/// Who sends it sees only that the connection ends, and so does who waits for it.
#[test]
fn why_a_connection_ends_is_said_where_no_side_went() {
    let scratch = Scratch::new();
    let [from, to] =
        ["in", "out"].map(|name| format!("seqpacket:{}", scratch.path(name).display()));
    let raw = poste::Options::new().raw();
    let mut server = poste::Receiver::open_with(&to, &raw).unwrap();
    let between = Between::of("seqpacket", scratch);
    let open = |options: &poste::Options| poste::Sender::open_with(&from, options).unwrap();
    // The relay's own socket has the system's size.
    let mut client = open(&raw.clone().capacity(400_000));
    let (size, mut system) = (300_000, open(&raw));
    let holds = |sender: &poste::Sender| sender.facts().capacity.is_some_and(|room| room > size);
    if !holds(&client) || holds(&system) {
        poste_sys::testing::skip(
            "why_a_connection_ends_is_said_where_no_side_went",
            "net.core.wmem_max gives no room for the packet, or net.core.wmem_default does",
        );
        return;
    }
    client.send(&vec![0; size]).unwrap();
    system.send("another").unwrap();
    assert_eq!(server.recv_timeout(Duration::from_secs(10)).unwrap().text().unwrap(), "another");
    let said = between.end();
    assert!(
        said.contains("300000 bytes is too large") && said.contains("connection ends"),
        "{said}"
    );
}
