//! Sealed memory between two that don't trust each other.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use poste::{Duplex, Kind, Options, Outgoing, Receiver, Sender, Wait};
use poste_sys::testing::skip;
use rustix::fs::{MemfdFlags, SealFlags};

use crate::hostile::{Dice, in_time};
use crate::peer::Peer;

const PATIENCE: Wait = Wait::For(Duration::from_secs(20));
const SOON: Duration = Duration::from_millis(50);

/// Both ends in one process.
fn both(options: &Options) -> (Sender, Receiver) {
    let (here, there) = poste::pair().unwrap();
    let theirs = options.clone();
    let sender = std::thread::spawn(move || Sender::sealed(there, &theirs, PATIENCE).unwrap());
    let receiver = Receiver::sealed(here, options, PATIENCE).unwrap();
    (sender.join().unwrap(), receiver)
}

#[test]
fn messages_go_through_sealed_memory() {
    let (mut sender, mut receiver) = both(&Options::new());
    for round in 0..3000_u32 {
        let size = round as usize * 37 % 60_000;
        let body: Vec<u8> = (0..size).map(|at| (at as u32 * 7 + round) as u8).collect();
        if round % 3 == 0 {
            let mut loan = sender.loan(size + 10).unwrap();
            loan[..size].copy_from_slice(&body);
            loan.shrink(size);
            loan.send().unwrap();
        } else {
            sender.send(&body).unwrap();
        }
        let message = receiver.recv_wait(PATIENCE).unwrap();
        assert_eq!((message[..] == body[..], message.sequence()), (true, u64::from(round) + 1));
        assert_eq!(message.sender().pid(), Some(std::process::id()));
    }
    for priority in [0, 31, 5] {
        sender.send(Outgoing::from("x").priority(priority)).unwrap();
    }
    for priority in [31, 5, 0] {
        assert_eq!(receiver.recv_wait(PATIENCE).unwrap().priority(), priority);
    }
    assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
    assert_eq!(receiver.recv_timeout(SOON).unwrap_err().kind(), Kind::TimedOut);
    let limit = 64_u64 << 10;
    let error = sender.send(&vec![0; limit as usize + 1]).unwrap_err();
    assert_eq!(error.kind(), Kind::TooLarge { size: limit + 1, limit });
}

#[test]
fn each_side_waits_for_the_other_and_loses_nothing() {
    let (mut sender, mut receiver) = both(&Options::new().capacity(16));
    let count = 30_000_u32;
    let thread = std::thread::spawn(move || {
        for number in 0..count {
            sender.send(&number.to_le_bytes()).unwrap();
            if number % 5000 == 0 {
                std::thread::sleep(Duration::from_millis(3));
            }
        }
    });
    for number in 0..count {
        if number % 7000 == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(receiver.recv_wait(PATIENCE).unwrap()[..], number.to_le_bytes());
    }
    thread.join().unwrap();
    assert_eq!(receiver.recv().unwrap_err().kind(), Kind::Disconnected);
}

fn is_readable(descriptor: std::os::fd::BorrowedFd<'_>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let none = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)], Some(&none)).unwrap() > 0
}

#[test]
fn a_descriptor_tells_of_messages_of_room_and_of_the_end() {
    let (mut sender, mut receiver) = both(&Options::new().capacity(16));
    sender.send("before").unwrap();
    assert!(is_readable(receiver.pollable().unwrap()), "it lay there before");
    assert!(is_readable(sender.pollable().unwrap()), "there is room");
    for _ in 0..3 {
        while sender.try_send("x").is_ok() {}
        assert!(!is_readable(sender.pollable().unwrap()), "it is full");
        for _ in 0..2 {
            assert!(is_readable(receiver.pollable().unwrap()));
            receiver.try_recv().unwrap();
        }
        assert!(is_readable(receiver.pollable().unwrap()), "there are more");
        while receiver.try_recv().is_ok() {}
        assert!(!is_readable(receiver.pollable().unwrap()), "there is none");
        assert!(is_readable(sender.pollable().unwrap()), "there is room again");
    }
    drop(sender);
    assert!(is_readable(receiver.pollable().unwrap()));
    assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Disconnected);
    let (mut sender, receiver) = both(&Options::new());
    drop(receiver);
    assert!(is_readable(sender.pollable().unwrap()));
    let error = loop {
        if let Err(error) = sender.send("to nobody") {
            break error;
        }
    };
    assert_eq!(error.kind(), Kind::Disconnected);
}

/// What a maker that doesn't keep the rules offers, and how it is refused.
fn offered(file: &OwnedFd, sizes: [u64; 2]) -> Kind {
    let (mut here, there) = poste::pair().unwrap();
    let sender = std::thread::spawn(move || Sender::sealed(there, &Options::new(), PATIENCE));
    here.recv().unwrap();
    let body: Vec<u8> = sizes.into_iter().flat_map(u64::to_le_bytes).collect();
    let descriptors = [file.as_fd()];
    here.send(Outgoing::from(&body).descriptors(&descriptors)).unwrap();
    let error = sender.join().unwrap().unwrap_err();
    assert!(error.to_string().contains("sealed memory"), "{error}");
    error.kind()
}

#[test]
fn memory_that_is_not_as_it_must_be_is_refused() {
    let (slots, bodies) = (1024, 256 << 10);
    // The size that these numbers come to: a page, the descriptors, the bodies.
    let size = 4096 + slots * 32 + bodies;
    let make = |size: u64, seals: SealFlags| {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("test", flags).unwrap();
        rustix::fs::ftruncate(&file, size).unwrap();
        rustix::fs::fcntl_add_seals(&file, seals).unwrap();
        file
    };
    let (shrink, grow, seal) = (SealFlags::SHRINK, SealFlags::GROW, SealFlags::SEAL);
    let all = shrink | grow | seal;
    let right = [slots, bodies];
    for seals in [SealFlags::empty(), shrink | grow, shrink | seal, grow | seal] {
        assert_eq!(offered(&make(size, seals), right), Kind::Corrupt, "{seals:?}");
    }
    for size in [0, size - 4096, size + 4096] {
        assert_eq!(offered(&make(size, all), right), Kind::Corrupt, "{size}");
    }
    let path = std::env::temp_dir().join(format!("poste-sealed-{}", std::process::id()));
    let plain = std::fs::File::create_new(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    plain.set_len(size).unwrap();
    assert_eq!(offered(&plain.into(), right), Kind::Corrupt, "a file can't be sealed");
    for wrong in [[0, bodies], [3, bodies], [1 << 40, bodies], [slots, 1], [slots, u64::MAX]] {
        assert_eq!(offered(&make(size, all), wrong), Kind::Corrupt, "{wrong:?}");
    }
    let large = 1_u64 << 30;
    let file = make(4096 + slots * 32 + large, all);
    assert!(matches!(offered(&file, [slots, large]), Kind::Limit { .. }), "too much to take");
    // Memory that can't be written: it would be SIGBUS, or SIGSEGV.
    let file = make(size, SealFlags::WRITE | all);
    assert!(!matches!(offered(&file, right), Kind::Limit { .. }));
    // Memory that was left out is taken, or refused; a head of 0 isn't one of ours.
    assert_eq!(offered(&make(size, all), right), Kind::Corrupt);
}

/// The same from the other side: a receiver that writes nonsense, and a sender that works.
#[test]
fn whatever_a_receiver_writes_does_its_sender_no_harm() {
    in_time(|| {
        let mut dice = Dice::new();
        let (slots, bodies) = (1024_u64, 256_u64 << 10);
        for round in 0..40 {
            let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
            let memory = rustix::fs::memfd_create("test", flags).unwrap();
            rustix::fs::ftruncate(&memory, 4096 + slots * 32 + bodies).unwrap();
            rustix::io::pwrite(&memory, &slots.to_ne_bytes(), 128).unwrap();
            let all = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
            rustix::fs::fcntl_add_seals(&memory, all).unwrap();
            let (mut here, there) = poste::pair().unwrap();
            let sender = std::thread::spawn(|| Sender::sealed(there, &Options::new(), PATIENCE));
            here.recv().unwrap();
            let body: Vec<u8> = [slots, bodies].into_iter().flat_map(u64::to_le_bytes).collect();
            let descriptors = [memory.as_fd()];
            here.send(Outgoing::from(&body).descriptors(&descriptors)).unwrap();
            let mut sender = sender.join().unwrap().unwrap();
            let end = Instant::now() + Duration::from_millis(20);
            while Instant::now() < end {
                for _ in 0..8 {
                    let at = if round % 2 == 0 { dice.roll(33) } else { 512 + dice.roll(4096) } * 8;
                    let word = dice.word();
                    rustix::io::pwrite(&memory, &word.to_ne_bytes(), at).unwrap();
                }
                let _ = here.try_send("");
                let _ = sender.send_timeout(&[7; 9000], Duration::from_micros(200));
                let _ = sender.try_loan(5000).map(poste::Loan::send);
                let _ = sender.pollable();
            }
        }
    });
}

#[test]
fn who_says_nothing_or_something_else_gets_no_memory() {
    let (mut here, there) = poste::pair().unwrap();
    let error = Receiver::sealed(there, &Options::new(), Wait::For(SOON)).unwrap_err();
    assert_eq!(error.kind(), Kind::TimedOut);
    assert_eq!(here.recv_timeout(SOON).unwrap_err().kind(), Kind::Disconnected);
    let (mut here, there) = poste::pair().unwrap();
    here.send("let me in").unwrap();
    let error = Receiver::sealed(there, &Options::new(), PATIENCE).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    let (here, there) = poste::pair().unwrap();
    drop(here);
    let error = Sender::sealed(there, &Options::new(), PATIENCE).unwrap_err();
    assert_eq!(error.kind(), Kind::Disconnected);
    let (here, there) = poste::pipes().unwrap();
    let sender = std::thread::spawn(|| Sender::sealed(there, &Options::new(), PATIENCE));
    let error = Receiver::sealed(here, &Options::new(), PATIENCE).unwrap_err();
    assert_eq!(error.kind(), Kind::Permission, "over a pipe nobody vouches for anybody: {error}");
    assert!(sender.join().unwrap().is_err());
}

#[test]
fn another_user_is_refused_on_both_sides() {
    let uid = rustix::process::geteuid().as_raw();
    let other = Options::new().require_user(uid + 1);
    let (here, there) = poste::pair().unwrap();
    let sender = std::thread::spawn(|| Sender::sealed(there, &Options::new(), PATIENCE));
    let error = Receiver::sealed(here, &other, PATIENCE).unwrap_err();
    assert_eq!(error.kind(), Kind::Permission);
    assert_eq!(sender.join().unwrap().unwrap_err().kind(), Kind::Disconnected);
    let (here, there) = poste::pair().unwrap();
    let sender = std::thread::spawn(move || Sender::sealed(there, &other, PATIENCE));
    let receiver = Receiver::sealed(here, &Options::new(), PATIENCE);
    assert_eq!(sender.join().unwrap().unwrap_err().kind(), Kind::Permission);
    drop(receiver);
    let name = "sealed::another_user_is_refused_on_both_sides";
    if uid != 0 {
        return skip(name, "only root can be somebody else");
    }
    let socket =
        format!("unix:{}/poste-sealed-{}", std::env::temp_dir().display(), std::process::id());
    let mut listener = Receiver::open_with(&socket, &Options::new().create().mode(0o666)).unwrap();
    let mut stranger = Peer::start_as(65_534, "sealed-sender", &[&socket]);
    let Ok(connection) = listener.accept(Wait::For(Duration::from_secs(5))) else {
        return skip(name, "no other user can run the tests' program");
    };
    let error = Receiver::sealed(connection, &Options::new(), PATIENCE).unwrap_err();
    assert_eq!(error.kind(), Kind::Permission, "{error}");
    stranger.expect("refused");
}

/// The peer of two tests: sends as long as it can.
pub(crate) fn sender(address: &str) {
    let connection: Duplex = Sender::open(address).unwrap().into_duplex().unwrap();
    let options = Options::new().require_user(0);
    match Sender::sealed(connection, &options, PATIENCE) {
        Ok(mut sender) => while sender.send("on and on").is_ok() {},
        Err(_) => crate::peer::say("refused"),
    }
}

#[test]
fn a_killed_sender_is_the_end_after_what_it_sent() {
    let socket =
        format!("unix:{}/poste-sealed-kill-{}", std::env::temp_dir().display(), std::process::id());
    let mut listener = Receiver::create(&socket).unwrap();
    for round in 0..10 {
        let mut peer = Peer::start("sealed-sender", &[&socket]);
        let connection = listener.accept(PATIENCE).unwrap();
        let options = Options::new().require_user(rustix::process::geteuid().as_raw());
        let mut receiver = Receiver::sealed(connection, &options, PATIENCE).unwrap();
        for _ in 0..round * 50 + 1 {
            assert_eq!(receiver.recv_wait(PATIENCE).unwrap().text().unwrap(), "on and on");
        }
        peer.kill();
        let end = loop {
            match receiver.recv_wait(PATIENCE) {
                Ok(message) => assert_eq!(message.text().unwrap(), "on and on"),
                Err(error) => break error,
            }
        };
        assert_eq!(end.kind(), Kind::Disconnected);
    }
}

/// One side writes nonsense into the memory, and rings, while the other works.
#[test]
fn whatever_the_other_side_writes_does_no_harm() {
    in_time(|| {
        let mut dice = Dice::new();
        for round in 0..40 {
            let (here, mut there) = poste::pair().unwrap();
            let receiver = std::thread::spawn(|| {
                let options = Options::new();
                Receiver::sealed(here, &options, PATIENCE).unwrap()
            });
            // A sender that doesn't keep the rules: it has the memory and the connection.
            there.send("poste-sealed 1").unwrap();
            let memory = there.recv_wait(PATIENCE).unwrap().take_descriptors().pop().unwrap();
            let mut receiver = receiver.join().unwrap();
            let refused = rustix::fs::ftruncate(&memory, 0).unwrap_err();
            assert_eq!(refused, rustix::io::Errno::PERM, "it is sealed");
            let end = Instant::now() + Duration::from_millis(20);
            while Instant::now() < end {
                for _ in 0..8 {
                    let at = if round % 2 == 0 { dice.roll(33) } else { 512 + dice.roll(64) } * 8;
                    let word = match dice.roll(3) {
                        0 => dice.word(),
                        // A message that may be: ready, somewhere.
                        1 => (1024 + dice.roll(16)) << 32 | 1,
                        _ => dice.roll(300_000) << 26 | dice.roll(70_000),
                    };
                    rustix::io::pwrite(&memory, &word.to_ne_bytes(), at).unwrap();
                }
                let _ = there.try_send("");
                let _ = receiver.try_recv().map(|message| message.len());
                let _ =
                    receiver.recv_timeout(Duration::from_micros(100)).map(|message| message.len());
            }
        }
    });
}
