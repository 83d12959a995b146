//! Mailboxes whose bodies lie on huge pages.

use std::time::Duration;

use poste::{Detail, Kind, Options, Receiver, Sender};
use poste_sys::mapping::HUGE_PAGE;
use poste_sys::testing::skip;

use crate::peer::{Name, Peer};

const PATIENCE: Duration = Duration::from_secs(20);

/// A mailbox on huge pages; nothing, after saying so, where the kernel gives none.
fn make(what: &str, test: &str) -> Option<Name> {
    let name = Name::new(what);
    match poste::create(&name, &Options::new().huge_pages()) {
        Ok(()) => Some(name),
        Err(error) => {
            assert!(error.to_string().contains("huge page"), "{error}");
            assert!(error.hint().contains("huge-pages"), "{}", error.hint());
            assert!(name.files().is_empty(), "nothing of it is left");
            skip(&format!("huge_pages::{test}"), &error.to_string());
            None
        }
    }
}

/// What `info` says of a mailbox under this name.
fn detail(name: &Name, what: &str) -> Option<u64> {
    let details = poste::info(name).unwrap().object.details;
    details.into_iter().find_map(|(name, detail)| match detail {
        Detail::Number(number) if name == what => Some(number),
        _ => None,
    })
}

/// How many bytes of this process's mappings of lanes lie on huge pages, for each mapping.
fn mapped() -> Vec<usize> {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let (mut is_lane, mut sizes) = (false, Vec::new());
    for line in maps.lines() {
        if let Some(size) = line.strip_prefix("ShmemPmdMapped:").filter(|_| is_lane) {
            let kibibytes = size.trim().trim_end_matches(" kB").parse::<usize>().unwrap();
            sizes.extend((kibibytes > 0).then_some(kibibytes << 10));
        } else if line.split_ascii_whitespace().next().is_some_and(|word| word.contains('-')) {
            is_lane = line.contains("/lane.");
        }
    }
    sizes
}

#[test]
fn lanes_lie_on_huge_pages_and_grow_by_them() {
    let Some(name) = make("huge", "lanes_lie_on_huge_pages_and_grow_by_them") else { return };
    let mut receiver = Receiver::open(&name).unwrap();
    let mut sender = Sender::open(&name).unwrap();
    let memory = || detail(&name, "memory").unwrap() as usize;
    assert_eq!((detail(&name, "huge_pages"), memory()), (Some(HUGE_PAGE as u64), HUGE_PAGE));
    for round in 0..40_usize {
        // The last ones need more than a lane begins with.
        let size = round * round * 2000;
        let body: Vec<u8> = (0..size).map(|at| (at + round) as u8).collect();
        sender.send(&body).unwrap();
        assert!(receiver.recv_timeout(PATIENCE).unwrap()[..] == body[..], "{round}");
    }
    let size = memory();
    assert!(size > HUGE_PAGE && size % HUGE_PAGE == 0, "{size}");
    let mapped = mapped();
    assert!(mapped.len() >= 2, "who sends and who receives: {mapped:?}");
    assert!(mapped.contains(&size), "all of it: {mapped:?}");
}

#[test]
fn what_lies_on_huge_pages_survives_its_users() {
    let Some(name) = make("huge-kill", "what_lies_on_huge_pages_survives_its_users") else {
        return;
    };
    crate::basics::follow_a_killed_sender(&name);
}

#[test]
fn a_mailbox_is_used_as_it_was_made() {
    let Some(name) = make("huge-made", "a_mailbox_is_used_as_it_was_made") else { return };
    drop(Sender::open(&name).unwrap());
    drop(Sender::open(name.with("huge-pages")).unwrap());
    let plain = Name::new("small");
    poste::create(&plain, &Options::new()).unwrap();
    let error = Sender::open(plain.with("huge-pages")).unwrap_err();
    assert_eq!(error.kind(), Kind::Mismatch, "{error}");
    assert_eq!(detail(&plain, "huge_pages"), None);
}

/// On a file system that is no memory there are none, and that is said.
#[test]
fn where_there_are_no_huge_pages_it_is_an_error_with_a_hint() {
    let directory = std::env::temp_dir().join(format!("poste-huge-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let mut permissions = std::fs::metadata(&directory).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o700);
    std::fs::set_permissions(&directory, permissions).unwrap();
    let told = Peer::huge_pages_in(&directory);
    let left = std::fs::read_dir(directory.join("shm")).map_or(0, Iterator::count);
    std::fs::remove_dir_all(&directory).unwrap();
    assert_eq!(left, 0);
    if told == "made" {
        let name = "huge_pages::where_there_are_no_huge_pages_it_is_an_error_with_a_hint";
        return skip(name, "the directory for temporary files has huge pages");
    }
    assert!(told.contains("huge page") && told.contains("leave out huge-pages"), "{told}");
}
