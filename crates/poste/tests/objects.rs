//! Looking at objects from a program: its own ends are seen, records come and go, garbage is proved.
//!
//! Each test runs in a process of its own, with a runtime directory of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use poste::{Kind, Object, Options, Receiver, Sender, State};

/// Runs a test in a process of its own, whose runtime directory is in the folder that it gets.
fn alone(name: &str, run: impl FnOnce(&Path)) {
    const MARK: &str = "POSTE_TEST_FOLDER";
    if let Some(folder) = std::env::var_os(MARK) {
        return run(&PathBuf::from(folder));
    }
    let folder = std::env::temp_dir().join(format!("poste-objects-{name}-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let folder = std::fs::canonicalize(folder).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env(MARK, &folder);
    let status = command.env("POSTE_DIR", folder.join("run")).status().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(status.success());
}

fn info(address: &str) -> Object {
    poste::info(address).unwrap().object
}

fn ends(object: &Object) -> Vec<&'static str> {
    let holders = object.holders.as_ref().unwrap().iter();
    holders.filter(|holder| holder.pid == std::process::id()).map(|holder| holder.end).collect()
}

fn records(folder: &Path) -> usize {
    std::fs::read_dir(folder.join("run/objects")).map_or(0, Iterator::count)
}

#[test]
fn ones_own_ends_are_seen_for_what_they_are() {
    alone("ones_own_ends_are_seen_for_what_they_are", |folder| {
        let mark = std::process::id();
        let at = |scheme: &str| format!("{scheme}:{}/{scheme}", folder.display());
        for (address, expected) in [
            (at("fifo"), &["receive", "send"][..]),
            (at("unix"), &["accept", "connect", "listen"]),
            (at("seqpacket"), &["accept", "connect", "listen"]),
            (at("dgram"), &["receive", "send"]),
            (format!("unix:@poste-objects-{mark}"), &["accept", "connect", "listen"]),
            (format!("mq:/poste-objects-{mark}"), &["receive", "send"]),
            ("tcp:127.0.0.1:0".to_owned(), &["accept", "connect", "listen"]),
            ("udp:127.0.0.1:0".to_owned(), &["receive"]),
        ] {
            let mut receiver = Receiver::create(&address).unwrap();
            let address = receiver.address().to_string();
            let mut sender = Sender::open(&address).unwrap();
            sender.send("x").unwrap();
            receiver.recv_timeout(Duration::from_secs(5)).unwrap();
            let object = info(&address);
            assert_eq!(ends(&object), expected, "{address}");
            assert_eq!(object.state, Some(State::Alive), "{address}");
            let listed = poste::list().unwrap();
            assert!(listed.iter().any(|object| object.address.to_string() == address), "{address}");
            drop((sender, receiver));
            // Queues and FIFOs stay; nobody has them open any more.
            if let Ok(object) = poste::info(&address) {
                assert_eq!(ends(&object.object), Vec::<&str>::new());
                poste::remove(&address).unwrap();
            }
            assert_eq!(poste::info(&address).unwrap_err().kind(), Kind::NotFound, "{address}");
        }
        assert_eq!(records(folder), 0);
        assert!(poste::garbage().unwrap().is_empty());
    });
}

#[test]
fn what_is_made_is_recorded_until_it_is_removed() {
    alone("what_is_made_is_recorded_until_it_is_removed", |folder| {
        let mark = std::process::id();
        let fifo = format!("fifo:{}/f", folder.display());
        let queues = [format!("mq:poste-objects-{mark}"), format!("sysv:{}", 0x7400_0000 + mark)];
        let all = [&fifo, &queues[0], &queues[1]];
        for address in all {
            poste::create(address, &Options::new()).unwrap();
            assert!(poste::create(address, &Options::new()).is_err());
            let object = info(address);
            assert!(object.age.unwrap() < Duration::from_secs(60), "{object:?}");
            assert_eq!(object.mode, Some(0o600));
        }
        assert_eq!(info(&queues[0]).address.to_string(), format!("mq:/poste-objects-{mark}"));
        assert_eq!(records(folder), 3);
        assert!(poste::garbage().unwrap().is_empty(), "what stays is no garbage");
        all.iter().for_each(|address| poste::remove(address).unwrap());
        assert_eq!(records(folder), 0);
    });
}

#[test]
fn a_record_whose_object_others_took_away_is_garbage() {
    alone("a_record_whose_object_others_took_away_is_garbage", |folder| {
        let path = folder.join("f");
        let address = format!("fifo:{}", path.display());
        poste::create(&address, &Options::new()).unwrap();
        std::fs::remove_file(&path).unwrap();
        let mut garbage = poste::garbage().unwrap();
        assert_eq!((garbage.len(), garbage[0].address.as_str()), (1, address.as_str()));
        // Made anew before it is taken away: then it stays, and so does its record.
        poste::create(&address, &Options::new()).unwrap();
        assert!(garbage.remove(0).take_away().is_err());
        assert_eq!(records(folder), 1);
        assert!(poste::garbage().unwrap().is_empty());
        poste::remove(&address).unwrap();
    });
}

#[test]
fn a_name_that_came_to_life_meanwhile_is_not_taken_away() {
    alone("a_name_that_came_to_life_meanwhile_is_not_taken_away", |folder| {
        // A claim whose owner never lived here, as a machine leaves it that was switched off.
        let address = format!("unix:{}/s", folder.display());
        let receiver = Receiver::create(&address).unwrap();
        let claim = std::fs::read_dir(folder.join("run/claims")).unwrap().next().unwrap().unwrap();
        let text = std::fs::read_to_string(claim.path()).unwrap();
        drop(receiver);
        let listener = std::os::unix::net::UnixListener::bind(folder.join("s")).unwrap();
        drop(listener);
        std::fs::write(claim.path(), &text).unwrap();
        let garbage = poste::garbage().unwrap();
        assert_eq!(garbage.len(), 1, "{garbage:?}");
        assert_eq!(garbage[0].address, address);
        let mut receiver = Receiver::open(&address).unwrap();
        for garbage in garbage {
            garbage.take_away().unwrap();
        }
        Sender::open(&address).unwrap().send("alive").unwrap();
        let message = receiver.recv_timeout(Duration::from_secs(5)).unwrap();
        assert_eq!(message.text().unwrap(), "alive");
    });
}

#[test]
fn without_a_runtime_directory_queues_are_made_all_the_same() {
    alone("without_a_runtime_directory_queues_are_made_all_the_same", |folder| {
        std::fs::write(folder.join("run"), "no directory").unwrap();
        let queue = format!("mq:/poste-objects-dir-{}", std::process::id());
        poste::create(&queue, &Options::new()).unwrap();
        assert_eq!(info(&queue).age, None);
        poste::remove(&queue).unwrap();
        assert_eq!(poste::garbage().unwrap_err().kind(), Kind::Permission);
    });
}
