//! An object that is removed while somebody waits on it, in each form of waiting that can notice.

use std::thread;
use std::time::{Duration, Instant};

use poste::{Kind, Options, Receiver, Sender, Wait};

#[test]
fn a_fifo_that_is_removed_ends_every_wait() {
    let path = std::env::temp_dir().join(format!("poste-removed-{}", std::process::id()));
    let address = format!("fifo:{}", path.display());
    let long = Duration::from_secs(20);
    for wait in [Wait::Forever, Wait::For(long), Wait::Until(Instant::now() + long)] {
        let mut receiver = Receiver::create(&address).unwrap();
        let waiting = thread::spawn(move || receiver.recv_wait(wait).unwrap_err().kind());
        thread::sleep(Duration::from_millis(100));
        poste::remove(&address).unwrap();
        assert_eq!(waiting.join().unwrap(), Kind::Removed, "{wait:?}");
    }
}

/// A queue of this test alone, with room for one message.
fn queue(name: &str) -> (String, Sender, Receiver) {
    let address = format!("mq:/poste-removed-{}-{name}", std::process::id());
    let options = Options::new().capacity(1).create();
    let sender = Sender::open_with(&address, &options).unwrap();
    let receiver = Receiver::open(&address).unwrap();
    (address, sender, receiver)
}

#[test]
fn a_posix_queue_that_is_removed_ends_timed_waits() {
    let long = Duration::from_secs(60);
    for (at, wait) in
        [Wait::For(long), Wait::Until(Instant::now() + long), Wait::For(Duration::from_millis(400))]
            .into_iter()
            .enumerate()
    {
        let (address, _sender, mut receiver) = queue(&format!("empty-{at}"));
        let receiving = thread::spawn(move || receiver.recv_wait(wait).unwrap_err());
        let (full, mut sender, _receiver) = queue(&format!("full-{at}"));
        sender.try_send("1").unwrap();
        let sending = thread::spawn(move || sender.send_wait("2", wait).unwrap_err());
        thread::sleep(Duration::from_millis(100));
        poste::remove(&address).unwrap();
        poste::remove(&full).unwrap();
        for waiting in [receiving, sending] {
            let error = waiting.join().unwrap();
            assert_eq!(error.kind(), Kind::Removed, "{wait:?}");
            assert!(error.hint().contains("poste create"), "{error:?}");
        }
    }
}

#[test]
fn what_lies_in_a_removed_posix_queue_is_received_before_that_is_told() {
    for wait in [Wait::Forever, Wait::For(Duration::from_secs(60)), Wait::Not] {
        let (address, mut sender, mut receiver) = queue("filled");
        sender.try_send("1").unwrap();
        poste::remove(&address).unwrap();
        // Ends that were there before look once a second, also those that block: before they do.
        thread::sleep(Duration::from_millis(1100));
        assert_eq!(sender.send_wait("2", wait).unwrap_err().kind(), Kind::Removed, "{wait:?}");
        assert_eq!(receiver.recv_wait(wait).unwrap().text().unwrap(), "1");
        sender.send_wait("2", wait).unwrap();
        assert_eq!(receiver.recv_wait(wait).unwrap().text().unwrap(), "2");
        thread::sleep(Duration::from_millis(1100));
        assert_eq!(receiver.recv_wait(wait).unwrap_err().kind(), Kind::Removed, "{wait:?}");
    }
}
