//! Programs in C, written as every course writes them, compiled by these tests.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use poste::{Kind, Options, Outgoing, Receiver, Sender};

use crate::alone::alone;
use crate::machine::Need;
use crate::peer::Peer;
use crate::place::{FIFO, PAIR, PIPE, POSIX_QUEUE, Place, SYSV_QUEUE, wait_until};
use crate::place::{TCP, UDP, UNIX, UNIX_ABSTRACT, UNIX_DATAGRAM, UNIX_PACKET};
use crate::stranger::Stranger;
use crate::talk::Talk;
use crate::trial::{LIMIT, Test};

const C: Peer = Peer { name: "c", needs: &[Need::C], ..Peer::PLAIN };

pub(crate) const PEERS: &[Peer] = &[
    Peer { over: PIPE, sends: r#""$c/copy""#, receives: r#""$c/copy""#, ..C },
    Peer { over: PAIR, sends: r#""$c/copy""#, receives: r#""$c/copy""#, ..C },
    Peer {
        over: FIFO,
        sends: r#""$c/fifo" send "$path""#,
        receives: r#""$c/fifo" receive "$path""#,
        ..C
    },
    Peer {
        over: POSIX_QUEUE,
        sends: r#""$c/posix_queue" send "$name""#,
        receives: r#""$c/posix_queue" receive "$name""#,
        ..C
    },
    Peer {
        over: SYSV_QUEUE,
        sends: r#""$c/sysv_queue" send "$key""#,
        receives: r#""$c/sysv_queue" receive "$key""#,
        ..C
    },
    Peer {
        over: UNIX,
        sends: r#""$c/unix_socket" stream send "$path""#,
        receives: r#""$c/unix_socket" stream receive "$path""#,
        ..C
    },
    Peer {
        over: UNIX_ABSTRACT,
        sends: r#""$c/unix_socket" stream send "@$word""#,
        receives: r#""$c/unix_socket" stream receive "@$word""#,
        ..C
    },
    Peer {
        over: UNIX_PACKET,
        sends: r#""$c/unix_socket" seqpacket send "$path""#,
        receives: r#""$c/unix_socket" seqpacket receive "$path""#,
        ..C
    },
    Peer {
        over: UNIX_DATAGRAM,
        sends: r#""$c/unix_socket" dgram send "$path""#,
        receives: r#""$c/unix_socket" dgram receive "$path""#,
        ..C
    },
    Peer {
        over: TCP,
        sends: r#""$c/inet_socket" tcp send "$host" "$port""#,
        receives: r#""$c/inet_socket" tcp receive "$host" "$port""#,
        ..C
    },
    Peer {
        over: UDP,
        sends: r#""$c/inet_socket" udp send "$host" "$port""#,
        receives: r#""$c/inet_socket" udp receive "$host" "$port""#,
        ..C
    },
];

const TALK: Talk = Talk { name: "c", needs: &[Need::C], ..Talk::PLAIN };

pub(crate) const TALKS: &[Talk] = &[
    Talk {
        over: UNIX,
        serves: r#""$c/unix_server" "$path""#,
        asks: r#""$c/unix_client" "$path""#,
        ..TALK
    },
    Talk {
        over: UNIX_PACKET,
        serves: r#""$c/unix_server" "$path" seqpacket"#,
        asks: r#""$c/unix_client" "$path" seqpacket"#,
        ..TALK
    },
    Talk {
        over: UNIX_DATAGRAM,
        serves: r#""$c/unix_datagram_server" "$path""#,
        asks: r#""$c/unix_datagram_client" "$path""#,
        ..TALK
    },
    Talk {
        over: TCP,
        serves: r#""$c/tcp_server" "$host" "$port""#,
        asks: r#""$c/tcp_client" "$host" "$port""#,
        ..TALK
    },
    Talk {
        over: UDP,
        serves: r#""$c/udp_server" "$host" "$port""#,
        asks: r#""$c/udp_client" "$host" "$port""#,
        ..TALK
    },
];

pub(crate) const TESTS: &[Test] = &[
    test("c::a_child_reads_a_string_with_its_nul", a_child_reads_a_string_with_its_nul),
    test("c::strings_come_one_by_one_without_their_nul", strings_come_one_by_one_without_their_nul),
    test("c::two_pipes_there_and_back", two_pipes_there_and_back),
    test("c::a_socket_pair_there_and_back", a_socket_pair_there_and_back),
    test("c::a_fifo_reader_reads_once", a_fifo_reader_reads_once),
    test("c::a_fifo_writer_opens_first", a_fifo_writer_opens_first),
    test("c::a_fifo_server_reopens_for_each_request", a_fifo_server_reopens_for_each_request),
    test("c::a_posix_queue_of_10_by_256", a_posix_queue_of_10_by_256),
    test("c::a_posix_queue_with_default_attributes", a_posix_queue_with_default_attributes),
    Test { name: KEY_1234, needs: &[Need::C, Need::Alone], run: || alone(KEY_1234, key_1234) },
    test("c::an_accepted_client_gets_its_answer", an_accepted_client_gets_its_answer),
    test("c::a_datagram_without_a_name_has_no_answer", a_datagram_without_a_name_has_no_answer),
];

const fn test(name: &'static str, run: fn()) -> Test {
    Test { name, needs: &[Need::C], run }
}

const KEY_1234: &str = "c::the_system_v_key_1234";

fn raw() -> Options {
    Options::new().raw()
}

fn strings() -> Options {
    Options::new().delimited(0)
}

fn a_child_reads_a_string_with_its_nul() {
    let place = Place::new(PIPE);
    let (mut sender, receiver) = poste::pipe_with(&raw()).unwrap();
    let input = receiver.into_descriptor().unwrap();
    let child = Stranger::start_on(&place, r#""$c/pipe_child""#, input, None::<File>);
    sender.send_timeout("hello\0", LIMIT).unwrap();
    assert_eq!(child.finish_text(), "child received: hello (6 bytes)\n");
    let gone = sender.send_timeout("anybody?\0", LIMIT).unwrap_err();
    assert_eq!(gone.kind(), Kind::Disconnected);
}

fn strings_come_one_by_one_without_their_nul() {
    let place = Place::new(PIPE);
    let (sender, mut receiver) = poste::pipe_with(&strings()).unwrap();
    let output = sender.into_descriptor().unwrap();
    let input = File::open("/dev/null").unwrap();
    let parent = Stranger::start_on(&place, r#""$c/pipe_parent""#, input, Some(output));
    for expected in ["hello", "", "how are you"] {
        assert_eq!(receiver.recv_timeout(LIMIT).unwrap().text().unwrap(), expected);
    }
    assert_eq!(receiver.recv_timeout(LIMIT).unwrap_err().kind(), Kind::Disconnected);
    parent.finish();
}

fn two_pipes_there_and_back() {
    let place = Place::new(PIPE);
    let (mut here, there) = poste::pipes_with(&strings()).unwrap();
    let (output, input) = there.split();
    let (output, input) = (output.into_descriptor().unwrap(), input.into_descriptor().unwrap());
    let child = Stranger::start_on(&place, r#""$c/shout" 0 1"#, input, Some(output));
    for (question, answer) in [("hello\0", "HELLO"), ("again\0", "AGAIN")] {
        here.send_timeout(question, LIMIT).unwrap();
        assert_eq!(here.recv_timeout(LIMIT).unwrap().text().unwrap(), answer);
    }
    let (sender, mut receiver) = here.split();
    sender.close().unwrap();
    assert_eq!(receiver.recv_timeout(LIMIT).unwrap_err().kind(), Kind::Disconnected);
    child.finish();
}

fn a_socket_pair_there_and_back() {
    let place = Place::new(PAIR);
    let (mut here, there) = poste::pair_with(&raw()).unwrap();
    // Of the two halves the sending one has something to say when it goes: it is handed over.
    let input = there.split().0.into_descriptor().unwrap();
    let child = Stranger::start_on(&place, r#""$c/shout" 0 0"#, input, None::<File>);
    for (question, answer) in [("hello\0", "HELLO\0"), ("again\0", "AGAIN\0")] {
        here.send_timeout(question, LIMIT).unwrap();
        assert_eq!(here.recv_timeout(LIMIT).unwrap().text().unwrap(), answer);
    }
    let (sender, mut receiver) = here.split();
    sender.close().unwrap();
    assert_eq!(receiver.recv_timeout(LIMIT).unwrap_err().kind(), Kind::Disconnected);
    child.finish();
}

fn a_fifo_reader_reads_once() {
    let place = Place::new(FIFO);
    let reader = Stranger::start(&place, r#""$c/fifo_reader" "$path""#, b"");
    // The reader makes the FIFO.
    wait_until("the FIFO is there", || std::fs::exists(place.value("path")).unwrap());
    let mut sender = place.sender();
    sender.send_timeout("Hello\0", LIMIT).unwrap();
    assert_eq!(reader.finish_text(), "Received: Hello (6 bytes)\n");
    // Nobody reads any more: the next message waits for the next reader.
    let short = std::time::Duration::from_millis(20);
    let nobody = sender.send_timeout("more\0", short).unwrap_err();
    assert_eq!(nobody.kind(), Kind::NoReceiver);
    let reader = Stranger::start(&place, r#""$c/fifo_reader" "$path""#, b"");
    sender.send_timeout("more\0", LIMIT).unwrap();
    assert_eq!(reader.finish_text(), "Received: more (5 bytes)\n");
}

fn a_fifo_writer_opens_first() {
    let place = Place::new(FIFO);
    let writer = Stranger::start(&place, r#""$c/fifo_writer" "$path""#, b"");
    writer.wait_for_output("opening\n".len());
    let mut receiver = Receiver::open_with(&place.address, &strings()).unwrap();
    let message = receiver.recv_timeout(LIMIT).unwrap().into_owned();
    assert_eq!(message.text().unwrap(), "Hello from the writer");
    writer.finish();
    assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
    // The next writer finds the same receiver.
    let writer = Stranger::start(&place, r#""$c/fifo_writer" "$path""#, b"");
    assert_eq!(receiver.recv_timeout(LIMIT).unwrap().len(), "Hello from the writer".len());
    writer.finish();
}

/// Between two requests the server has the FIFO closed: a request then waits for it, and none is
/// lost, as long as each has a sender of its own.
fn a_fifo_server_reopens_for_each_request() {
    let place = Place::made(FIFO);
    let server = Stranger::start(&place, r#""$c/fifo_server" "$path" 3"#, b"");
    let mut expected = String::new();
    for request in ["one", "two", "three"] {
        let mut sender = place.sender();
        sender.send_timeout(&format!("{request}\0"), LIMIT).unwrap();
        sender.close().unwrap();
        expected += &format!("request: {request} ({} bytes)\n", request.len() + 1);
        // Until it has closed the FIFO, what is written there is lost.
        server.wait_for_output(expected.len());
    }
    assert_eq!(server.finish_text(), expected);
}

fn a_posix_queue_of_10_by_256() {
    let place = Place::new(POSIX_QUEUE);
    // C makes it, with its own mode; poste uses what is there.
    Stranger::start(&place, r#""$c/queue_10x256" send "$name""#, b"").finish();
    let mut receiver = place.receiver();
    let facts = receiver.facts();
    assert_eq!((facts.message_size, facts.capacity), (256, Some(10)));
    let message = receiver.recv_timeout(LIMIT).unwrap();
    assert_eq!((message.text().unwrap(), message.priority()), ("Hello from C\0", 7));
    // The other way round, up to the last byte.
    let mut sender = place.sender();
    let too_large = sender.send_timeout(&[b'x'; 257], LIMIT).unwrap_err();
    assert_eq!(too_large.kind(), Kind::TooLarge { size: 257, limit: 256 });
    let mut body = "x".repeat(255);
    body.push('\0');
    sender.send_timeout(Outgoing::from(&body).priority(3), LIMIT).unwrap();
    let reader = Stranger::start(&place, r#""$c/queue_10x256" receive "$name""#, b"");
    let expected = format!("Received: {} (256 bytes, priority 3)\n", &body[..255]);
    assert_eq!(reader.finish_text(), expected);
}

fn a_posix_queue_with_default_attributes() {
    let place = Place::new(POSIX_QUEUE);
    let reader = Stranger::start(&place, r#""$c/queue_default" receive "$name""#, b"");
    let options = raw().create();
    wait_until("the queue is there", || Sender::open_with(&place.address, &raw()).is_ok());
    let mut sender = Sender::open_with(&place.address, &options).unwrap();
    sender.send_timeout("Hello", LIMIT).unwrap();
    assert_eq!(reader.finish_text(), "Received: Hello (5 bytes)\n");
    // poste makes it, C opens it with O_CREAT.
    poste::remove(&place.address).unwrap();
    let mut receiver = Receiver::open_with(&place.address, &options).unwrap();
    Stranger::start(&place, r#""$c/queue_default" send "$name""#, b"").finish();
    assert_eq!(receiver.recv_timeout(LIMIT).unwrap().text().unwrap(), "Hello");
}

fn key_1234(_: PathBuf) {
    let place = Place::new(SYSV_QUEUE);
    Stranger::start(&place, r#""$c/message_1234" send"#, b"").finish();
    let mut receiver = Receiver::open_with("sysv:1234", &raw()).unwrap();
    let message = receiver.recv_timeout(LIMIT).unwrap();
    assert_eq!((message.message_type(), message.priority(), message.len()), (Some(1), 0, 256));
    assert!(message.starts_with(b"Hello from C\0"));
    // Of another type: the program in C waits for its own.
    let mut sender = Sender::open_with("sysv:0x4d2", &raw()).unwrap();
    sender.send_timeout(Outgoing::from("other\0").message_type(2), LIMIT).unwrap();
    sender.send_timeout("Hello from poste\0", LIMIT).unwrap();
    let reader = Stranger::start(&place, r#""$c/message_1234" receive"#, b"");
    assert_eq!(reader.finish_text(), "Received: Hello from poste (17 bytes)\n");
    // It has removed the queue.
    assert_eq!(receiver.recv_timeout(LIMIT).unwrap_err().kind(), Kind::Removed);
}

/// As a server that inetd has started does it: on the accepted connection.
fn an_accepted_client_gets_its_answer() {
    let place = Place::new(UNIX);
    let listener = std::os::unix::net::UnixListener::bind(place.value("path")).unwrap();
    let client = Stranger::start(&place, r#""$c/unix_client" "$path""#, b"hello\0");
    let connection = OwnedFd::from(listener.accept().unwrap().0);
    let address = format!("fd:{}", connection.as_raw_fd());
    let mut receiver = Receiver::open_with(address, &raw()).unwrap();
    let mut question = receiver.recv_timeout(LIMIT).unwrap();
    assert_eq!(question.text().unwrap(), "hello\0");
    question.reply("Hello from poste").unwrap();
    assert_eq!(client.finish_text(), "Hello from poste");
}

/// Who has no address is told apart from who is gone.
fn a_datagram_without_a_name_has_no_answer() {
    let place = Place::new(UNIX_DATAGRAM);
    let mut receiver = place.receiver();
    let client = Stranger::start(&place, r#""$c/unix_socket" dgram send "$path""#, b"hello");
    let mut question = receiver.recv_timeout(LIMIT).unwrap();
    let nowhere = question.reply("anybody?").unwrap_err();
    assert_eq!(nowhere.kind(), Kind::NotSupported);
    client.finish();
    // The next one has a name, but does not wait for its answer.
    let line = r#"timeout 0.1 "$c/unix_datagram_client" "$path" || true"#;
    let client = Stranger::start(&place, line, b"hello");
    let mut question = receiver.recv_timeout(LIMIT).unwrap();
    client.finish();
    let gone = question.reply("anybody?").unwrap_err();
    assert!(matches!(gone.kind(), Kind::Disconnected | Kind::NoReceiver), "{gone}");
}
