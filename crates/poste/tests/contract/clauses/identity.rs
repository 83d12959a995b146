//! Who sent a message is what the kernel vouches for, and nothing where it doesn't: process, user
//! and group of whoever connected, or of who sent the datagram.

use poste::Identity;
use rustix::process::{getegid, geteuid, getpid};

use super::PATIENCE;
use crate::cell::{Cell, Clause};
use crate::letters::Letters;
use crate::worker::{Job, Worker};

pub(crate) static CLAUSE: Clause =
    Clause { name: "identity", applies: |_, _| true, run, ..Clause::PLAIN };

fn run(cell: &Cell) {
    let identity = cell.capabilities().identity;
    let channel = cell.channel();
    let (mut sender, mut receiver) = channel.open();
    sender.send("from this process").unwrap();
    let message = receiver.recv_timeout(PATIENCE).unwrap();
    let who = *message.sender();
    if identity == Identity::Unknown {
        assert_eq!((who.pid(), who.uid(), who.gid()), (None, None, None));
        assert_eq!(who.is_running(), None);
        return;
    }
    let myself = getpid().as_raw_nonzero().get() as u32;
    assert_eq!(who.pid(), Some(myself));
    assert_eq!((who.uid(), who.gid()), (Some(geteuid().as_raw()), Some(getegid().as_raw())));
    assert_ne!(who.is_running(), Some(false), "this process runs");
    if channel.has_address() && identity != Identity::SameProcess {
        of_another_process(cell);
    }
}

/// A process that has ended is known to have, whatever became of its number.
fn of_another_process(cell: &Cell) {
    let channel = cell.channel();
    let mut receiver = channel.receiver();
    let letters = Letters { seed: cell.random().next(), size_max: 100 };
    let job = Job { letters, writer: 0, count: 1, storm: false, may_lose: false };
    let mut writer = Worker::writer(&channel, || unreachable!("it has an address"), job);
    let who = *receiver.recv_timeout(PATIENCE).unwrap().sender();
    assert!(who.pid().is_some_and(|pid| pid != std::process::id()), "{who:?}");
    writer.finish();
    assert_ne!(who.is_running(), Some(true), "it has ended");
}
