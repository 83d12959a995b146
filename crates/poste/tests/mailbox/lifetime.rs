//! Coming and going: what is left by handles that close, processes that fork, run another program or
//! are killed while they make or remove a mailbox; and memory that is given back, or isn't there.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use poste::{Kind, Options, Receiver, Sender};
use poste_sys::testing::skip;

use crate::peer::{Name, Peer, say};

const PATIENCE: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_millis(200);

/// Where the table of participants begins in the header, and the size of a row: ring/layout.rs.
const TABLE: u64 = 256;
const ROW: u64 = 128;

fn lanes(name: &Name) -> usize {
    name.files().iter().filter(|file| file.contains("lane")).count()
}

#[test]
fn a_lane_goes_when_its_sender_is_gone_and_its_messages_are_read() {
    let name = Name::new("given-back");
    poste::create(&name, &Options::new()).unwrap();
    // Whoever comes last gives it back: the sender that finds it empty,
    let mut receiver = Receiver::open(&name).unwrap();
    let mut sender = Sender::open(&name).unwrap();
    sender.send("one").unwrap();
    receiver.recv_timeout(PATIENCE).unwrap();
    assert_eq!(lanes(&name), 1);
    drop(sender);
    assert_eq!(lanes(&name), 0);
    // the receiver that looks once more,
    Sender::open(&name).unwrap().send("two").unwrap();
    assert_eq!(lanes(&name), 1, "its message lies there");
    receiver.recv_timeout(PATIENCE).unwrap();
    assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
    assert_eq!(lanes(&name), 0);
    // the receiver that leaves after its last message,
    Sender::open(&name).unwrap().send("three").unwrap();
    receiver.recv_timeout(PATIENCE).unwrap();
    drop(receiver);
    assert_eq!(name.files(), ["header"]);
    // or whoever buries a dead sender.
    let mut sender = Peer::start("send", &[&name.0]);
    sender.expect("sent");
    assert_eq!(lanes(&name), 1);
    sender.kill();
    let receiver = Receiver::open(&name).unwrap();
    assert_eq!(lanes(&name), 0);
    drop(receiver);
}

#[test]
fn what_a_killed_maker_or_user_of_a_lane_left_goes() {
    let name = Name::new("litter");
    poste::create(&name, &Options::new()).unwrap();
    let folder = name.folder().unwrap();
    // As they would be after a kill between any two steps: a place that is nobody's, with files.
    let header = std::fs::File::options().write(true).open(folder.join("header")).unwrap();
    for (place, files) in [(5_u64, [".lane.5", "lane.5.0"]), (9, ["lane.9.0", "lane.9.1"])] {
        header.write_all_at(&1_u64.to_ne_bytes(), TABLE + place * ROW + 40).unwrap();
        for file in files {
            std::fs::write(folder.join(file), [0; 100]).unwrap();
        }
    }
    drop(Receiver::open(&name).unwrap());
    assert_eq!(name.files(), ["header"]);
}

#[test]
fn two_ends_of_a_kind_in_one_process_are_two() {
    let name = Name::new("two-ends");
    let mut senders = [Sender::create(&name).unwrap(), Sender::open(&name).unwrap()];
    let mut one = Receiver::open(&name).unwrap().manual();
    let mut two = Receiver::open(&name).unwrap().manual();
    for sender in &mut senders {
        sender.send("x").unwrap();
    }
    let first = one.recv_timeout(PATIENCE).unwrap().into_owned();
    let second = two.recv_timeout(PATIENCE).unwrap().into_owned();
    assert!(!first.redelivered() && !second.redelivered());
    assert_eq!(one.try_recv().unwrap_err().kind(), Kind::Empty);
    // What one has is not the other's to end, and comes to the other when the one is closed.
    drop(first);
    drop(one);
    let again = two.recv_timeout(PATIENCE).unwrap();
    assert!(again.redelivered());
    again.acknowledge().unwrap();
    second.acknowledge().unwrap();
    drop((senders, two));
    assert_eq!(name.files(), ["header"]);
}

#[test]
fn thousands_come_and_go_and_leave_nothing() {
    let count = if std::env::var_os("POSTE_LONG").is_some() { 50_000 } else { 2000 };
    let mut peer = Peer::start("attach", &[&format!("shm:test-attach-{}", std::process::id())]);
    peer.tell(&count.to_string());
    peer.expect("nothing is left");
}

/// The peer of the test above: a process of its own, so that its descriptors and mappings are its
/// own.
pub(crate) fn attach(address: &str, told: &str) {
    let count: u32 = told.parse().unwrap();
    let look = || {
        let names = |path: &str| std::fs::read_dir(path).unwrap().count();
        let mappings = std::fs::read_to_string("/proc/self/maps").unwrap();
        (names("/proc/self/fd"), mappings.lines().filter(|line| line.contains("/shm/")).count())
    };
    let before = look();
    let mut receiver = Receiver::create(address).unwrap();
    for round in 0..count {
        let mut sender = Sender::open(address).unwrap();
        sender.send(&round.to_le_bytes()).unwrap();
        drop((sender, Receiver::open(address).unwrap()));
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap()[..], round.to_le_bytes());
    }
    drop(receiver);
    assert_eq!(look(), before);
    poste::remove(address).unwrap();
    say("nothing is left");
}

#[test]
fn a_forked_child_is_not_its_parent() {
    let name = Name::new("forked");
    let mut parent = Peer::start("fork", &[&name.0]);
    let child = parent.expect("child ");
    let mut receiver = Receiver::open(&name).unwrap();
    assert_eq!(receiver.recv_timeout(SOON).unwrap_err().kind(), Kind::TimedOut, "it lives");
    parent.kill();
    // The child lives on, and holds the locks of its dead parent.
    let message = receiver.recv_timeout(PATIENCE).unwrap();
    assert_eq!((message.text().unwrap(), message.redelivered()), ("precious", true));
    message.acknowledge().unwrap();
    let child = child.parse().unwrap();
    let child = rustix::process::Pid::from_raw(child).unwrap();
    rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
    drop(receiver);
    assert_eq!(name.files(), ["header"]);
}

/// The peer of the test above.
pub(crate) fn fork(address: &str) {
    let mut sender = Sender::create(address).unwrap();
    let mut receiver = Receiver::open(address).unwrap().manual();
    sender.send("precious").unwrap();
    let message = receiver.try_recv().unwrap().into_owned();
    let mut ends = Some((sender, receiver, message));
    // Opening a sender has a thread that says so to the kernel, for some milliseconds.
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    while threads() > 2 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let code = poste_sys::testing::in_a_forked_child(|| {
        let (mut sender, mut receiver, message) = ends.take().unwrap();
        let refused = |kind: Kind| kind == Kind::NotSupported;
        assert!(refused(sender.send("from the child").unwrap_err().kind()));
        assert!(refused(sender.feed("from the child").and(sender.flush()).unwrap_err().kind()));
        assert!(refused(sender.loan(10).unwrap_err().kind()));
        assert!(refused(sender.pollable().unwrap_err().kind()));
        assert!(refused(receiver.try_recv().unwrap_err().kind()));
        assert!(refused(receiver.pollable().unwrap_err().kind()));
        assert!(refused(message.acknowledge().unwrap_err().kind()));
        // Closing the copies gives nothing back that is the parent's.
        drop((sender, receiver));
        // What it opens itself is its own.
        let mut own = Sender::open(address).unwrap();
        own.send("from the child's own").unwrap();
        let mut own = Receiver::open(address).unwrap();
        assert_eq!(own.try_recv().unwrap().text().unwrap(), "from the child's own");
        0
    });
    assert_eq!(code, 0, "the child did as it should");
    let child = poste_sys::testing::fork_and_sleep(Duration::from_secs(60));
    say(&format!("child {child}"));
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_process_that_became_another_program_is_no_participant() {
    let name = Name::new("exec");
    let mut peer = Peer::start("exec", &[&name.0]);
    peer.expect("ready");
    // The process lives, so only its locks tell: who comes sees them free at once, and who sleeps
    // looks now and then.
    let mut sleeper = Receiver::open(&name).unwrap();
    peer.tell("go");
    let message = sleeper.recv_timeout(PATIENCE).unwrap();
    assert_eq!((message.text().unwrap(), message.redelivered()), ("precious", true));
    message.acknowledge().unwrap();
    drop(sleeper);
    assert!(peer.0.try_wait().unwrap().is_none(), "it runs");
    assert_eq!(name.files(), ["header"]);
}

/// The peer of the test above.
pub(crate) fn exec(address: &str) {
    let mut sender = Sender::create(address).unwrap();
    let mut receiver = Receiver::open(address).unwrap().manual();
    sender.send("precious").unwrap();
    let _message = receiver.recv().unwrap().into_owned();
    say("ready");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    panic!("it is another program now: {}", Command::new("sleep").arg("60").exec());
}

#[test]
fn what_a_killed_maker_or_remover_of_a_mailbox_left_is_proved_and_taken_away() {
    let name = Name::new("making");
    for round in 0..60 {
        let mut peer = Peer::start("make", &[&name.0]);
        peer.expect("ready");
        std::thread::sleep(Duration::from_micros(round * 97 % 1500));
        peer.kill();
    }
    let mark = name.0.strip_prefix("shm:").unwrap().to_owned();
    let left = || {
        let garbage = poste::garbage().unwrap();
        garbage.into_iter().filter(|one| one.address.contains(&mark)).collect::<Vec<_>>()
    };
    for one in left() {
        assert!(!one.proof.is_empty());
        one.take_away().unwrap();
    }
    let _ = poste::remove(&name);
    drop(Receiver::create(&name).unwrap());
    let part = name.folder().unwrap().parent().unwrap().to_owned();
    let hidden = || -> BTreeSet<_> {
        let names = std::fs::read_dir(&part).unwrap().flatten();
        let names = names.map(|entry| entry.file_name().into_string().unwrap());
        names.filter(|name| name.contains(&mark) && name.starts_with('.')).collect()
    };
    assert_eq!(hidden(), BTreeSet::new());
    // What somebody is about to make is no garbage as long as that one lives.
    let half_made = part.join(format!(".{mark}.0123456789abcdef"));
    std::fs::create_dir(&half_made).unwrap();
    std::fs::write(half_made.join("header"), "half").unwrap();
    let maker = std::fs::File::open(&half_made).unwrap();
    rustix::fs::flock(&maker, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert_eq!(left().len(), 0);
    drop(maker);
    let garbage = left();
    assert_eq!(garbage.len(), 1);
    for one in garbage {
        one.take_away().unwrap();
    }
    assert_eq!(hidden(), BTreeSet::new());
}

/// The peer of the test above: makes and removes, again and again.
pub(crate) fn make(address: &str) {
    say("ready");
    loop {
        let _ = poste::create(address, &Options::new());
        let _ = poste::remove(address);
    }
}

#[test]
fn where_the_memory_is_full_it_is_an_error_and_no_signal() {
    let folder = std::env::temp_dir().join(format!("poste-full-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let mount = "mount -t tmpfs -o size=2m,mode=0700 none \"$1\" || exit 77; shift; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", mount, "sh"]).arg(&folder);
    let output = Peer::command(command, "full", &["shm:full"]).env("POSTE_DIR", &folder).output();
    std::fs::remove_dir(&folder).unwrap();
    let output = match output {
        Ok(output) if output.status.success() => output,
        // unshare itself ends with 1, and mount's refusal is told as 77.
        Ok(output) if [Some(1), Some(77)].contains(&output.status.code()) => {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            return skip("where_the_memory_is_full_it_is_an_error_and_no_signal", why.trim());
        }
        Ok(output) => panic!("{output:?}"),
        Err(error) => {
            return skip(
                "where_the_memory_is_full_it_is_an_error_and_no_signal",
                &error.to_string(),
            );
        }
    };
    assert!(String::from_utf8_lossy(&output.stdout).contains("all was said"), "{output:?}");
}

/// The peer of the test above: its runtime directory is 2 MiB small.
pub(crate) fn full(address: &str) {
    let mut receiver = Receiver::create(address).unwrap();
    let mut senders = Vec::new();
    let error = loop {
        match Sender::open(address) {
            Ok(sender) => senders.push(sender),
            Err(error) => break error,
        }
        assert!(senders.len() < 100, "2 MiB are full some day");
    };
    assert_eq!(error.errno(), Some(rustix::io::Errno::NOSPC.raw_os_error()), "{error}");
    assert!(error.hint().contains("df"), "{error}");
    assert!(senders.len() > 3, "there was room for some");
    // What is there works, to the last of its bytes.
    for sender in &mut senders {
        while sender.try_send(&[7; 3000]).is_ok() {}
        // A body for which the lane would have to grow.
        let error = sender.try_send(&[7; 1 << 20]).unwrap_err();
        assert_eq!(error.errno(), Some(rustix::io::Errno::NOSPC.raw_os_error()), "{error}");
    }
    let mut count = 0;
    while let Ok(message) = receiver.try_recv() {
        assert!(message.iter().all(|byte| *byte == 7));
        count += 1;
    }
    assert!(count > senders.len() * 50, "{count}");
    // What is given back can be taken.
    let room = senders.len();
    drop(senders);
    // A receiver keeps what it has mapped until it looks again.
    assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
    let mut again: Vec<_> = (0..room).map(|_| Sender::open(address).unwrap()).collect();
    again[0].send("x").unwrap();
    assert_eq!(receiver.try_recv().unwrap().text().unwrap(), "x");
    say("all was said");
}
