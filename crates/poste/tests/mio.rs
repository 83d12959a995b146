//! The descriptor of an end in somebody else's loop: mio's `SourceFd`, which waits for edges.
//!
//! Source: mio's documentation of `Poll`: after an event, go on until nothing more can be done.

use std::os::fd::{AsRawFd, RawFd};
use std::thread;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use poste::{Kind, Options, Receiver, Sender};

/// Longer than any event takes to come, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many messages go through; the channels have room for a few.
const COUNT: u32 = 2000;

/// One end's loop.
struct Loop {
    poll: Poll,
    events: Events,
    told: u32,
}

impl Loop {
    fn of(descriptor: RawFd) -> Loop {
        let poll = Poll::new().unwrap();
        let mut source = SourceFd(&descriptor);
        poll.registry().register(&mut source, Token(7), Interest::READABLE).unwrap();
        Loop { poll, events: Events::with_capacity(4), told: 0 }
    }

    /// Waits until it is told that the end may go on.
    fn wait(&mut self, what: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.poll.poll(&mut self.events, Some(left)) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                done => done.unwrap(),
            }
            let event = self.events.iter().next().unwrap_or_else(|| panic!("never told of {what}"));
            assert!(event.token() == Token(7) && event.is_readable(), "{event:?}");
            self.told += 1;
            return;
        }
    }
}

/// Takes the object away, however the test ends.
struct Cleanup(String);

impl Drop for Cleanup {
    fn drop(&mut self) {
        let _ = poste::remove(&self.0);
    }
}

/// As large as keeps any channel from holding many.
fn body(number: u32) -> Vec<u8> {
    number.to_ne_bytes().repeat(250)
}

/// A thread receives what this one sends, each in a loop of mio's that is asked only after `Empty`
/// or `Full`: a word that comes too early or not at all leaves one of them waiting for good.
fn goes_through(address: &str, options: &Options) {
    let _cleanup = Cleanup(address.to_owned());
    let mut receiver = Receiver::open_with(address, &options.clone().create()).unwrap();
    let mut sender = Sender::open_with(address, options).unwrap();
    thread::scope(|scope| {
        let receiving = scope.spawn(move || {
            let mut waiting = Loop::of(receiver.pollable().unwrap().as_raw_fd());
            for number in 0..COUNT {
                loop {
                    match receiver.try_recv() {
                        Ok(message) => break assert_eq!(&*message, body(number), "{number}"),
                        Err(error) => assert_eq!(error.kind(), Kind::Empty, "{error}"),
                    }
                    waiting.wait("a message");
                }
                if number % 500 == 499 {
                    // So that the sender has filled whatever room there is.
                    thread::sleep(Duration::from_millis(100));
                }
            }
            (receiver, waiting.told)
        });
        let mut waiting = Loop::of(sender.pollable().unwrap().as_raw_fd());
        for number in 0..COUNT {
            while let Err(error) = sender.try_send(&body(number)) {
                assert_eq!(error.kind(), Kind::Full, "{error}");
                waiting.wait("room");
            }
            if number % 500 == 0 {
                // So that the receiver has found nothing.
                thread::sleep(Duration::from_millis(100));
            }
        }
        sender.flush_timeout(PATIENCE).unwrap();
        let (_receiver, told) = receiving.join().unwrap();
        assert!(told > 0, "the receiver waited");
        assert!(waiting.told > 0, "the sender waited");
    });
}

#[test]
fn a_unix_socket_in_a_loop_of_mios() {
    let address = format!("unix:@poste-mio-{}", std::process::id());
    goes_through(&address, &Options::new());
}

#[test]
fn a_posix_queue_in_a_loop_of_mios() {
    let address = format!("mq:/poste-mio-{}", std::process::id());
    let options = Options::new().capacity(4).message_size(2048);
    if let Err(error) = poste::create(&address, &options) {
        return poste_sys::testing::skip("a_posix_queue_in_a_loop_of_mios", &error.to_string());
    }
    goes_through(&address, &options);
}

#[test]
fn a_system_v_queue_in_a_loop_of_mios() {
    let address = format!("sysv:{}", 0x7600_0000 + std::process::id());
    goes_through(&address, &Options::new());
}

#[test]
fn a_mailbox_in_a_loop_of_mios() {
    let address = format!("shm:poste-mio-{}", std::process::id());
    goes_through(&address, &Options::new());
}
