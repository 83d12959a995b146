//! The end of one side is news to the other: `Disconnected` where nobody can come any more, and
//! waiting for the next one where somebody can. No call hangs on who is gone.

use std::time::{Duration, Instant};

use poste::{Kind, Peers};

use super::PATIENCE;
use crate::cell::{Cell, Clause};

/// A sender whose receiver is gone learns it, or fills what waits for the next receiver.
pub(crate) static RECEIVER_GONE: Clause =
    Clause { name: "receiver_gone", applies: |_, _| true, run: receiver_gone, ..Clause::PLAIN };

/// A receiver whose senders are all gone gets what they sent, and then waits for the next one, or
/// learns that there can be none.
pub(crate) static SENDERS_GONE: Clause =
    Clause { name: "senders_gone", applies: |_, _| true, run: senders_gone, ..Clause::PLAIN };

/// Who is at the other end is told: nobody yet, somebody, all gone.
pub(crate) static PEERS: Clause = Clause { name: "peers", run: peers, ..Clause::PLAIN };

fn receiver_gone(cell: &Cell) {
    let channel = cell.channel();
    let (mut sender, mut receiver) = channel.open();
    sender.send("seen").unwrap();
    receiver.recv_timeout(PATIENCE).unwrap();
    drop(receiver);
    let capabilities = cell.capabilities();
    let body = [5; 100];
    let start = Instant::now();
    let error = loop {
        match sender.send_timeout(&body, Duration::from_millis(50)) {
            Ok(_) => assert!(start.elapsed() < PATIENCE, "it sends to nobody without end"),
            Err(error) => break error,
        }
        if capabilities.may_lose && start.elapsed() > Duration::from_millis(300) {
            return;
        }
    };
    let waits = capabilities.survives_its_users || (channel.has_address() && is_local(cell));
    let expected = match error.kind() {
        Kind::TimedOut => waits,
        Kind::NoReceiver => channel.has_address() && !capabilities.connections,
        Kind::Disconnected => !waits,
        _ => false,
    };
    assert!(expected, "{error:?}");
    if !capabilities.may_lose {
        // And so it stays. Over UDP the network says it now and then.
        let again = sender.send_timeout(&body, Duration::from_millis(50)).unwrap_err();
        assert_eq!(again.kind(), error.kind());
    }
    if waits {
        let mut receiver = channel.receiver();
        assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], body, "what was queued stays");
    } else if error.kind() == Kind::NoReceiver && !capabilities.may_lose {
        // Without a connection the next receiver is as good as the first.
        let mut receiver = channel.receiver();
        sender.send("to the next").unwrap();
        assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], b"to the next");
    }
}

fn senders_gone(cell: &Cell) {
    let channel = cell.channel();
    let (mut sender, mut receiver) = channel.open();
    sender.send("one").unwrap();
    drop(sender);
    assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], b"one", "sent before the end");
    let start = Instant::now();
    let error = receiver.recv_timeout(Duration::from_millis(100)).unwrap_err();
    if !channel.has_address() {
        assert_eq!(error.kind(), Kind::Disconnected);
        assert!(start.elapsed() < Duration::from_millis(90), "the news comes at once");
        assert_eq!(receiver.recv().unwrap_err().kind(), Kind::Disconnected);
        assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Disconnected);
        assert_eq!(receiver.iter().count(), 0);
        return;
    }
    assert_eq!(error.kind(), Kind::TimedOut, "another may come: {error}");
    assert!(start.elapsed() >= Duration::from_millis(100));
    assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
    for _ in 0..3 {
        let mut next = channel.sender();
        next.send("two").unwrap();
        assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], b"two");
        drop(next);
        assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
    }
}

fn peers(cell: &Cell) {
    let channel = cell.channel();
    if !channel.has_address() {
        let (sender, mut receiver) = channel.open();
        drop(sender);
        assert_eq!(receiver.recv().unwrap_err().kind(), Kind::Disconnected);
        assert!(matches!(receiver.facts().peers, Peers::AllGone | Peers::Unknown));
        return;
    }
    let mut receiver = channel.receiver();
    let before = receiver.facts().peers;
    assert!(matches!(before, Peers::NobodyYet | Peers::Unknown), "{before:?}");
    let mut sender = channel.sender();
    sender.send("one").unwrap();
    receiver.recv_timeout(PATIENCE).unwrap();
    let during = receiver.facts().peers;
    assert!(matches!(during, Peers::Present(1) | Peers::Unknown), "{during:?}");
    drop(sender);
    assert_eq!(
        receiver.recv_timeout(Duration::from_millis(50)).unwrap_err().kind(),
        Kind::TimedOut
    );
    let after = receiver.facts().peers;
    assert!(matches!(after, Peers::AllGone | Peers::Unknown), "{after:?}");
    let is_known = [before, during, after].map(|peers| peers != Peers::Unknown);
    assert!(is_known == [true; 3] || is_known == [false; 3], "known always or never");
    if cell.capabilities().connections {
        assert_eq!(before, Peers::NobodyYet, "connections are counted");
    }
}

/// What is inside one process lives as long as any of its ends.
fn is_local(cell: &Cell) -> bool {
    cell.capabilities().identity == poste::Identity::SameProcess
}
