//! Two who claim a name in the same moment: one has it, each time, and nothing is left behind.

use std::path::Path;

use poste::{Kind, Options, Sender};

use crate::helper::{Folder, Helper, names_in, now};

/// Two processes claim a name in the same moment, again and again: one has it each time. `after` is
/// what the winner then does to give it back.
fn race(claim: &str, address: &str, after: &str, runtime: &Path) {
    let long =
        std::env::var_os("POSTE_LONG").is_some_and(|value| !value.is_empty() && value != "0");
    let rounds = if long { 10_000 } else { 1000 };
    let mut helpers = [Helper::new(runtime), Helper::new(runtime)];
    let mut wins = [0, 0];
    for round in 0..rounds {
        // Not always quite the same moment: the first steps of the one meet all of the other.
        let moment = now() + 300_000;
        for (index, helper) in helpers.iter_mut().enumerate() {
            let shift = round % 20 * 10_000 * index as u64;
            helper.order(&format!("at {} {claim} {address}", moment + shift));
        }
        let answers: Vec<_> = helpers.iter_mut().map(Helper::answer).collect();
        let winners: Vec<_> = (0..2).filter(|index| answers[*index].starts_with("ok")).collect();
        let [winner] = winners[..] else { panic!("round {round} of {address}: {answers:?}") };
        assert!(answers[1 - winner].starts_with("name_in_use"), "{address}: {answers:?}");
        wins[winner] += 1;
        helpers[winner].must(after);
    }
    eprintln!("{address}: {wins:?}");
    assert_eq!(names_in(&runtime.join("claims")), [""; 0], "{address} leaves no claim behind");
}

#[test]
fn one_of_two_who_claim_a_socket_at_once_has_it() {
    let folder = Folder::new();
    let runtime = folder.private("runtime");
    let place = folder.private("place");
    for scheme in ["unix", "seqpacket", "dgram"] {
        race("receive", &format!("{scheme}:{}/x", place.display()), "close", &runtime);
        assert_eq!(names_in(&place), [""; 0], "{scheme} leaves no orphan");
    }
    for scheme in ["unix", "seqpacket", "dgram"] {
        let address = format!("{scheme}:@poste-names-{}", std::process::id());
        race("receive", &address, "close", &runtime);
    }
}

#[test]
fn one_of_two_who_claim_a_port_at_once_has_it() {
    let folder = Folder::new();
    let runtime = folder.private("runtime");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    race("receive", &format!("tcp:{free}"), "close", &runtime);
    let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    race("receive", &format!("udp:{free}"), "close", &runtime);
}

#[test]
fn one_of_two_who_make_a_memory_or_a_semaphore_at_once_has_made_it() {
    let folder = Folder::new();
    let runtime = folder.private("runtime");
    let name = format!("/poste-names-{}", std::process::id());
    race("make-memory", &name, &format!("remove-memory {name}"), &runtime);
    race("make-semaphore", &name, &format!("remove-semaphore {name}"), &runtime);
    let left = names_in(Path::new("/dev/shm"));
    assert!(!left.iter().any(|file| file.ends_with(&name[1..])), "{left:?}");
}

#[test]
fn one_of_two_who_read_a_fifo_at_once_has_it() {
    let folder = Folder::new();
    let (runtime, place) = (folder.private("runtime"), folder.private("place"));
    let address = format!("fifo:{}/x", place.display());
    poste::create(&address, &Options::new()).unwrap();
    race("open", &address, "close", &runtime);
    assert_eq!(names_in(&place), ["x"]);
}

#[test]
fn one_of_two_who_make_an_object_at_once_has_made_it() {
    let folder = Folder::new();
    let (runtime, place) = (folder.private("runtime"), folder.private("place"));
    let key = 0x6000_0000 | std::process::id();
    for address in [
        format!("fifo:{}/x", place.display()),
        format!("mq:/poste-names-{}", std::process::id()),
        format!("sysv:{key:#x}"),
    ] {
        race("create", &address, &format!("remove {address}"), &runtime);
        assert_eq!(names_in(&place), [""; 0]);
        let error = Sender::open(&address).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound, "no orphan");
        poste::create(&address, &Options::new()).unwrap();
        Helper::new(&runtime).refuses(&format!("create-new {address}"), "name_in_use");
        poste::remove(&address).unwrap();
    }
    // A mailbox is in the runtime directory.
    race("create", "shm:race", "remove shm:race", &runtime);
    Helper::new(&runtime).refuses("open shm:race", "not_found");
}
