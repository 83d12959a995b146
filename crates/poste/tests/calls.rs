//! Calls and answers over every mechanism with a way back, enveloped and raw.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use poste::{Kind, Options, Outgoing, Peers, Receiver, Sender, Wait};

const TIME: Wait = Wait::For(Duration::from_secs(10));

fn addresses(name: &str) -> Vec<String> {
    let process = std::process::id();
    let path = std::env::temp_dir().join(format!("poste-calls-{process}-{name}"));
    let path = path.display();
    vec![
        format!("unix:{path}-stream"),
        format!("unix:@poste-calls-{process}-{name}"),
        format!("seqpacket:{path}-packet"),
        format!("dgram:{path}-datagram"),
        "tcp:127.0.0.1:0".to_owned(),
        "udp:127.0.0.1:0".to_owned(),
    ]
}

/// Answers so many questions in reverse; the question "fail" with an error.
fn serve(mut server: Receiver, questions: usize) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for _ in 0..questions {
            let mut question = server.recv().unwrap();
            if &question[..] == b"fail" {
                question.reply_error("as you wish").unwrap();
                continue;
            }
            let answer: Vec<u8> = question.iter().rev().copied().collect();
            question.reply(&answer).unwrap();
            let again = question.reply("again").unwrap_err();
            assert_eq!(again.kind(), Kind::NotSupported);
        }
    })
}

#[test]
fn a_call_gets_its_own_answer() {
    for address in addresses("own") {
        let server = Receiver::create(&address).unwrap();
        let address = server.address().to_string();
        let thread = serve(server, 3 * 4 + 1);
        let clients: Vec<_> = (0..3).map(|_| Sender::open(&address).unwrap()).collect();
        for (index, mut client) in clients.into_iter().enumerate() {
            for size in [0, 1, 5000, 20_000] {
                let body: Vec<u8> = (0..size).map(|at| (at + index) as u8).collect();
                let answer = client.call(&body, TIME).unwrap();
                assert!(answer.iter().eq(body.iter().rev()), "{address} {size}");
            }
        }
        let mut client = Sender::open(&address).unwrap();
        let error = client.call("fail", TIME).unwrap_err();
        assert_eq!(error.kind(), Kind::Failed);
        assert!(error.to_string().contains("as you wish"), "{error}");
        thread.join().unwrap();
    }
}

#[test]
fn a_large_question_and_a_large_answer_come_whole() {
    for address in addresses("large") {
        if address.starts_with("udp") || address.starts_with("dgram") {
            // Nobody reads the answer's datagrams while the queue is full; their limit is its.
            continue;
        }
        let server = Receiver::create(&address).unwrap();
        let address = server.address().to_string();
        let thread = serve(server, 1);
        let body: Vec<u8> = (0..1_000_000).map(|at| (at % 251) as u8).collect();
        let answer = Sender::open(&address).unwrap().call(&body, TIME).unwrap();
        assert!(answer.iter().eq(body.iter().rev()), "{address}");
        thread.join().unwrap();
    }
}

#[test]
fn a_late_answer_is_passed_over_and_a_missing_one_times_out() {
    for address in addresses("late") {
        let mut server = Receiver::create(&address).unwrap();
        let mut client = Sender::open(server.address().to_string()).unwrap();
        let soon = Wait::For(Duration::from_millis(20));
        assert_eq!(client.call("first", soon).unwrap_err().kind(), Kind::TimedOut, "{address}");
        server.recv().unwrap().reply("too late").unwrap();
        let thread = serve(server, 1);
        assert_eq!(client.call("on", TIME).unwrap().text().unwrap(), "no", "{address}");
        thread.join().unwrap();
    }
}

#[test]
fn raw_calls_are_bytes_there_and_back() {
    for address in addresses("raw") {
        let raw = Options::new().create().raw();
        let mut server = Receiver::open_with(&address, &raw).unwrap();
        let address = server.address().to_string();
        let thread = thread::spawn(move || {
            let mut question = server.recv().unwrap();
            assert_eq!(&question[..], b"ping");
            question.reply("pong").unwrap();
            server
        });
        let mut client = Sender::open_with(&address, &raw).unwrap();
        assert_eq!(client.call("ping", TIME).unwrap().text().unwrap(), "pong", "{address}");
        drop(thread.join().unwrap());
    }
}

#[test]
fn what_has_no_way_back_says_so() {
    let (mut sender, mut receiver) = poste::pipe().unwrap();
    assert_eq!(sender.call("?", TIME).unwrap_err().kind(), Kind::NotSupported);
    sender.send("no call").unwrap();
    let mut message = receiver.recv().unwrap();
    assert_eq!(message.reply("!").unwrap_err().kind(), Kind::NotSupported);
}

#[test]
fn a_server_that_goes_ends_the_call() {
    let address = format!("unix:@poste-calls-{}-gone", std::process::id());
    let mut server = Receiver::create(&address).unwrap();
    let mut client = Sender::open(&address).unwrap();
    let thread = thread::spawn(move || assert_eq!(server.recv().unwrap()[..], *b"?"));
    assert_eq!(client.call("?", TIME).unwrap_err().kind(), Kind::Disconnected);
    thread.join().unwrap();
}

#[test]
fn a_message_says_whether_it_is_a_call() {
    let address = format!("unix:@poste-calls-{}-is", std::process::id());
    let mut server = Receiver::create(&address).unwrap();
    let mut client = Sender::open(&address).unwrap();
    client.send("no call").unwrap();
    assert!(!server.recv().unwrap().is_call());
    let soon = Wait::For(Duration::from_millis(20));
    assert_eq!(client.call("?", soon).unwrap_err().kind(), Kind::TimedOut);
    let mut question = server.recv().unwrap();
    assert!(question.is_call());
    question.reply("!").unwrap();
    assert!(!question.is_call());
}

#[test]
fn connections_are_accepted_by_themselves_and_go_both_ways() {
    for address in addresses("duplex") {
        let mut server = Receiver::create(&address).unwrap();
        let address = server.address().to_string();
        let sender = Sender::open(&address).unwrap();
        if !sender.capabilities().connections {
            assert_eq!(sender.into_duplex().unwrap_err().kind(), Kind::NotSupported, "{address}");
            assert_eq!(server.accept(TIME).unwrap_err().kind(), Kind::NotSupported, "{address}");
            continue;
        }
        let mut here = sender.into_duplex().unwrap();
        let mut there = server.accept(TIME).unwrap();
        let soon = Wait::For(Duration::from_millis(20));
        assert_eq!(server.accept(soon).unwrap_err().kind(), Kind::TimedOut, "{address}");
        assert_eq!(server.accept(Wait::Not).unwrap_err().kind(), Kind::Empty, "{address}");
        for body in ["one", "two"] {
            here.send(body).unwrap();
            assert_eq!(there.recv().unwrap().text().unwrap(), body, "{address}");
            there.send(body).unwrap();
            assert_eq!(here.recv().unwrap().text().unwrap(), body, "{address}");
        }
        // The end of one direction leaves the other as it is.
        let (onward, mut back) = here.split();
        drop(onward);
        assert_eq!(there.recv().unwrap_err().kind(), Kind::Disconnected, "{address}");
        there.send("last").unwrap();
        assert_eq!(back.recv().unwrap().text().unwrap(), "last", "{address}");
    }
}

#[test]
fn a_connected_sender_sees_that_the_other_side_is_gone() {
    for address in addresses("peers") {
        let server = Receiver::create(&address).unwrap();
        let sender = Sender::open(server.address().to_string()).unwrap();
        if !sender.capabilities().connections {
            continue;
        }
        assert_ne!(sender.facts().peers, Peers::AllGone, "{address}");
        drop(server);
        assert_eq!(sender.facts().peers, Peers::AllGone, "{address}");
    }
}

/// An answer takes descriptors and its priority along, also one in pieces; where descriptors don't
/// travel it is refused, and nothing is dropped in silence.
#[test]
fn an_answer_takes_descriptors_along() {
    for address in addresses("descriptors") {
        for size in [1, 200_000] {
            let mut server = Receiver::create(&address).unwrap();
            let address = server.address().to_string();
            let thread = thread::spawn(move || {
                let mut question = server.recv().unwrap();
                let (mut reader, writer) = UnixStream::pair().unwrap();
                let body = vec![7; size];
                let answer = Outgoing::from(&body[..]).priority(5);
                let sent = question.reply(answer.descriptors(&[writer.as_fd()]));
                drop((question, writer));
                let mut text = String::new();
                if sent.is_ok() {
                    reader.read_to_string(&mut text).unwrap();
                }
                (sent.map_err(|error| error.kind()), text)
            });
            let mut client = Sender::open(&address).unwrap();
            let can = client.capabilities().descriptors;
            let wait = if can { TIME } else { Wait::For(Duration::from_millis(200)) };
            if !can {
                client.call("give", wait).unwrap_err();
                assert_eq!(thread.join().unwrap().0, Err(Kind::NotSupported), "{address}");
                continue;
            }
            let mut answer = client.call("give", wait).unwrap();
            assert_eq!((answer.len(), answer.priority()), (size, 5), "{address}");
            let descriptors = answer.take_descriptors();
            assert_eq!(descriptors.len(), 1, "{address}");
            for descriptor in descriptors {
                File::from(descriptor).write_all(b"through it").unwrap();
            }
            assert_eq!(thread.join().unwrap(), (Ok(()), "through it".to_owned()), "{address}");
        }
    }
}

/// A receiver that connects has one way back; when the caller stops reading in the middle of an
/// answer nothing else can follow on it.
#[test]
fn an_answer_that_is_cut_short_is_an_error_and_ends_the_way_back() {
    thread::scope(|scope| {
        scope.spawn(|| cut_short(Options::new()));
        scope.spawn(|| cut_short(Options::new().raw()));
    });
}

fn cut_short(options: Options) {
    let raw = options.is_raw();
    let address = format!("unix:@poste-calls-{}-cut-{raw}", std::process::id());
    let mut client = Sender::open_with(&address, &options.clone().listen()).unwrap();
    let mut server = Receiver::open_with(&address, &options.connect()).unwrap();
    client.send("first").unwrap();
    assert_eq!(&server.recv().unwrap()[..], b"first");
    let (cut, is_cut) = channel();
    let thread = thread::spawn(move || {
        let error = server.recv().unwrap().reply(&vec![7; 3_000_000]).unwrap_err();
        assert_eq!(error.kind(), Kind::TimedOut, "{error}");
        cut.send(()).unwrap();
        let error = server.recv().unwrap().reply("it can't follow").unwrap_err();
        assert_eq!(error.kind(), Kind::Disconnected, "{error}");
    });
    // It asks, and looks for no answer.
    let error = client.call("give me much", Wait::Not).unwrap_err();
    assert_eq!(error.kind(), Kind::TimedOut, "{error}");
    is_cut.recv().unwrap();
    loop {
        match client.call("again", TIME) {
            // Bytes as they come are an answer each.
            Ok(bytes) => assert!(raw && bytes.iter().all(|byte| *byte == 7)),
            // Who listens may see the end before it asks: then it waits for another to come.
            Err(error) => {
                let kind = error.kind();
                break assert!(matches!(kind, Kind::Disconnected | Kind::NoReceiver), "{error}");
            }
        }
    }
    thread.join().unwrap();
}

/// One who asks and asks and takes no answer in holds up nobody: it is told from its queue, not
/// from a time.
#[test]
fn a_datagram_caller_that_reads_nothing_is_full() {
    let path = std::env::temp_dir().join(format!("poste-calls-{}-deaf", std::process::id()));
    let address = format!("dgram:{}", path.display());
    let raw = Options::new().raw();
    let mut server = Receiver::open_with(&address, &raw).unwrap();
    let mut client = Sender::open_with(&address, &raw).unwrap();
    // So that it can be answered.
    assert_eq!(client.call("?", Wait::Not).unwrap_err().kind(), Kind::TimedOut);
    let error = loop {
        let mut question = server.recv().unwrap();
        if let Err(error) = question.reply("!") {
            break error;
        }
        client.send("?").unwrap();
    };
    assert_eq!(error.kind(), Kind::Full, "{error}");
}
