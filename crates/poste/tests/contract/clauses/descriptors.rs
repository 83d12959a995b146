//! Descriptors travel with their message as `OwnedFd`s: each leads where it led, with the right
//! message, whatever its priority and size. None is lost in silence, none leaks.

use std::fs::File;
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::ExitCode;
use std::time::Duration;

use poste::envelope::{HEADER_MAX, Header, Speaker};
use poste::{Kind, Options, Outgoing, Receiver, Sender};
use rustix::io::IoSlice;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::PATIENCE;
use crate::cell::{Cell, Clause, Form};
use crate::fixture::{self, Channel, Fixture};
use crate::leftovers::descriptors;
use crate::worker::Worker;

/// Sets of descriptors arrive whole, with their message.
pub(crate) static TRAVEL: Clause = Clause {
    name: "descriptors",
    applies: |capabilities, _| capabilities.descriptors,
    run: travel,
    ..Clause::PLAIN
};

/// A receiver at its limit says what is lost, and goes on. In a process of its own.
pub(crate) static LIMIT: Clause = Clause {
    name: "descriptor_limit",
    applies: |capabilities, form| capabilities.descriptors && form == Form::Enveloped,
    run: |cell| Worker::helper("starved", cell.fixture.name).finish(),
    ..Clause::PLAIN
};

/// What a peer sends unasked is closed. In a process of its own.
pub(crate) static UNASKED: Clause = Clause {
    name: "unasked_descriptors",
    applies: |capabilities, form| {
        capabilities.descriptors && capabilities.named && form == Form::Enveloped
    },
    run: |cell| Worker::helper("unasked", cell.fixture.name).finish(),
    ..Clause::PLAIN
};

/// Pipes: what is written into the first ends comes out of the second.
fn pipes(count: usize) -> (Vec<File>, Vec<File>) {
    let pipe = |_| pipe_with(PipeFlags::CLOEXEC).unwrap();
    (0..count).map(pipe).map(|(reader, writer)| (writer.into(), reader.into())).unzip()
}

/// Each of the descriptors that arrived leads to the pipe of its place.
fn lead_to(arrived: Vec<OwnedFd>, readers: Vec<File>) {
    assert_eq!(arrived.len(), readers.len(), "so many came");
    for (index, (descriptor, mut reader)) in arrived.into_iter().zip(readers).enumerate() {
        let flags = rustix::io::fcntl_getfd(&descriptor).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC), "closed on exec");
        rustix::io::write(&descriptor, index.to_string().as_bytes()).unwrap();
        drop(descriptor);
        let mut text = String::new();
        // It ends, since nobody has kept a copy.
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, index.to_string());
    }
}

fn borrow(writers: &[impl AsFd]) -> Vec<BorrowedFd<'_>> {
    writers.iter().map(AsFd::as_fd).collect()
}

fn travel(cell: &Cell) {
    let channel = cell.channel();
    let (mut sender, mut receiver) = channel.open();
    for count in [1, 20, 253] {
        let (writers, readers) = pipes(count);
        let body = format!("{count} of them");
        sender.send(Outgoing::from(&body).descriptors(&borrow(&writers))).unwrap();
        drop(writers);
        let mut message = receiver.recv_timeout(PATIENCE).unwrap();
        assert_eq!(message.text().unwrap(), body);
        let arrived = message.take_descriptors();
        assert!(message.take_descriptors().is_empty(), "they are taken once");
        lead_to(arrived, readers);
    }
    let null = File::open("/dev/null").unwrap();
    let error = sender.send(Outgoing::from("x").descriptors(&[null.as_fd(); 254])).unwrap_err();
    assert!(matches!(error.kind(), Kind::Limit { value: 253, .. }), "{error:?}");
    assert!(!error.hint().is_empty());
    // What is not taken is closed with its message.
    let (writers, mut readers) = pipes(1);
    sender.send(Outgoing::from("not taken").descriptors(&borrow(&writers))).unwrap();
    drop(writers);
    drop(receiver.recv_timeout(PATIENCE).unwrap().into_owned());
    assert_eq!(readers[0].read(&mut [0; 1]).unwrap(), 0);
    if cell.form == Form::Enveloped {
        by_priority(&mut sender, &mut receiver);
        with_large_messages(&mut sender, &mut receiver);
    }
    sender.send("last").unwrap();
    let mut last = receiver.recv_timeout(PATIENCE).unwrap().into_owned();
    assert_eq!(last.take_descriptors().len(), 0);
    assert_eq!(last.text().unwrap(), "last");
    drop((sender, receiver));
    refused_for_bodies_only(cell);
}

/// Urgent messages overtake others, and take their own descriptors along.
fn by_priority(sender: &mut Sender, receiver: &mut Receiver) {
    let highest = sender.facts().priority_max.min(9);
    let sent = [(0, 2), (highest / 2, 0), (highest, 1), (0, 0), (highest, 3)];
    let mut expected = Vec::new();
    for (index, (priority, count)) in sent.into_iter().enumerate() {
        let (writers, readers) = pipes(count);
        let body = index.to_string();
        let message = Outgoing::from(&body).priority(priority);
        sender.send(message.descriptors(&borrow(&writers))).unwrap();
        expected.push((priority, body, Some(readers)));
    }
    std::thread::sleep(Duration::from_millis(20));
    let mut order = Vec::new();
    for _ in 0..sent.len() {
        let mut message = receiver.recv_timeout(PATIENCE).unwrap();
        let index: usize = message.text().unwrap().parse().unwrap();
        assert_eq!(message.priority(), expected[index].0);
        order.push(index);
        let arrived = message.take_descriptors();
        lead_to(arrived, expected[index].2.take().expect("each comes once"));
    }
    assert_eq!(order, [2, 4, 1, 0, 3]);
}

/// A message of several pieces has its descriptors when it is whole.
fn with_large_messages(sender: &mut Sender, receiver: &mut Receiver) {
    let size = sender.facts().message_size.min(300_000);
    for round in 0..3 {
        let (writers, readers) = pipes(5);
        let body = vec![round; size];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let message = Outgoing::from(&body);
                sender.send(message.descriptors(&borrow(&writers))).unwrap();
            });
            let mut message = receiver.recv_timeout(PATIENCE).unwrap();
            assert!(message[..] == body[..], "{} bytes", message.len());
            let arrived = message.take_descriptors();
            assert_eq!(arrived.len(), 5, "in round {round}");
        });
        drop((writers, readers));
    }
}

/// A receiver that wants nothing but bodies gets no descriptors: the sender hears it, or they are
/// closed where the kernel is older.
fn refused_for_bodies_only(cell: &Cell) {
    let channel = cell.channel();
    let (mut sender, mut receiver) =
        channel.open_with(channel.options().body_only()).expect("it opens");
    let (writers, mut readers) = pipes(1);
    let sent = sender.send(Outgoing::from("refused").descriptors(&borrow(&writers)));
    drop(writers);
    match sent {
        Err(error) => assert_eq!(error.kind(), Kind::Refused, "{error}"),
        Ok(_) => {
            let mut message = receiver.recv_timeout(PATIENCE).unwrap();
            assert!(message.take_descriptors().is_empty());
        }
    }
    assert_eq!(readers[0].read(&mut [0; 1]).unwrap(), 0, "it is closed");
    sender.send("a body").unwrap();
    assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], b"a body");
}

/// The helper whose receiver may open no more descriptors.
pub(crate) fn starved(name: &str) -> ExitCode {
    let channel = Channel::new(fixture::named(name), Form::Enveloped);
    let (mut sender, mut receiver) = channel.open();
    sender.send("first").unwrap();
    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap().text().unwrap(), "first");
    let null = File::open("/dev/null").unwrap();
    let twenty = [null.as_fd(); 20];
    let limit = getrlimit(Resource::Nofile);
    let open = descriptors().len();
    let highest = null.as_raw_fd() as u64;
    for room in [0, 5, 19] {
        let current = Some(highest + 1 + room);
        sender.send(Outgoing::from("too many").descriptors(&twenty)).unwrap();
        sender.send("after them").unwrap();
        setrlimit(Resource::Nofile, Rlimit { current, ..limit }).unwrap();
        let lost = receiver.recv_timeout(PATIENCE).map(drop).unwrap_err();
        let after = receiver.recv_timeout(PATIENCE).map(|message| message.to_vec());
        setrlimit(Resource::Nofile, limit).unwrap();
        assert!(matches!(lost.kind(), Kind::Limit { name: "RLIMIT_NOFILE", .. }), "{lost:?}");
        assert!(!lost.hint().is_empty());
        assert_eq!(after.unwrap(), b"after them");
        assert_eq!(descriptors().len(), open, "none leaks, with room for {room}");
    }
    sender.send(Outgoing::from("enough").descriptors(&twenty)).unwrap();
    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap().take_descriptors().len(), 20);
    many_wait_in_the_kernel(&mut sender, &mut receiver, highest);
    ExitCode::SUCCESS
}

/// A receiver takes in no more descriptors at once than it has room for: what isn't delivered yet
/// stays in the kernel.
fn many_wait_in_the_kernel(sender: &mut Sender, receiver: &mut Receiver, highest: u64) {
    let limit = getrlimit(Resource::Nofile);
    let null = File::open("/dev/null").unwrap();
    let full = [null.as_fd(); 253];
    for _ in 0..6 {
        sender.send(Outgoing::from("full").descriptors(&full)).unwrap();
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(highest + 600), ..limit }).unwrap();
    for round in 0..6 {
        let count = receiver.recv_timeout(PATIENCE).map(|mut m| m.take_descriptors().len());
        assert_eq!(count.unwrap(), 253, "in round {round}");
    }
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// The helper whose peer sends descriptors that nobody asked for.
pub(crate) fn unasked(name: &str) -> ExitCode {
    let fixture = fixture::named(name);
    for body_only in [false, true] {
        hostile(fixture, body_only);
    }
    ExitCode::SUCCESS
}

fn hostile(fixture: &'static Fixture, body_only: bool) {
    let channel = Channel::new(fixture, Form::Enveloped);
    let options = if body_only { Options::new().body_only() } else { Options::new() };
    let (mut good, mut receiver) = channel.open_with(options).unwrap();
    good.send("first").unwrap();
    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap().text().unwrap(), "first");
    let null = File::open("/dev/null").unwrap();
    let set = [null.as_fd(); 253];
    let open = descriptors().len();
    let (plain, announcing) = (frame(0, b"valid"), frame(3, b"announced"));
    for round in 0..20 {
        let bad = Peer::of(&channel);
        match round % 4 {
            0 => bad.send(&[0x5a; 100], &set),
            1 => bad.send(&plain, &set),
            2 => {
                // A set with the beginning of a message that doesn't announce it, and one more.
                bad.send(&plain[..20], &set[..1]);
                bad.send(&plain[20..], &set);
                bad.send(&plain, &set);
            }
            // A set that never comes.
            _ => bad.send(&announcing, &[]),
        }
        good.send("good").unwrap();
        loop {
            let mut message = receiver.recv_timeout(PATIENCE).expect("no peer stops the receiver");
            assert!(message.take_descriptors().is_empty(), "nobody announced any");
            match message.text().unwrap() {
                "good" => break,
                text => assert_eq!(text, "valid"),
            }
        }
    }
    while receiver.recv_timeout(Duration::from_millis(20)).is_ok() {}
    assert_eq!(descriptors().len(), open, "none leaks: {:#?}", descriptors());
}

/// A whole message that announces so many descriptors.
fn frame(descriptors: u8, body: &[u8]) -> Vec<u8> {
    let mut head = [0; HEADER_MAX];
    let speaker = Some(Speaker { sender: 7, sequence: 1 });
    let header = Header { descriptors, speaker, ..Header::message(body.len() as u32) };
    let size = header.encode(&mut head);
    [&head[..size], body].concat()
}

/// A program that speaks with the receiver by plain system calls.
struct Peer(OwnedFd);

impl Peer {
    fn of(channel: &Channel) -> Peer {
        Peer(match channel.address().strip_prefix("dgram:") {
            Some(path) => {
                let socket = UnixDatagram::unbound().unwrap();
                socket.connect(path).unwrap();
                socket.into()
            }
            None => {
                let raw = Sender::open_with(channel.address(), &Options::new().raw());
                raw.and_then(Sender::into_descriptor).expect("a raw peer connects")
            }
        })
    }

    /// Sends bytes with descriptors. The receiver may have hung up on it, or take none.
    fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let mut memory = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut beside = SendAncillaryBuffer::new(&mut memory);
        if !descriptors.is_empty() {
            assert!(beside.push(SendAncillaryMessage::ScmRights(descriptors)));
        }
        let _ = sendmsg(&self.0, &[IoSlice::new(bytes)], &mut beside, SendFlags::NOSIGNAL);
    }
}
