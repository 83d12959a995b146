//! Headers that this program can't use, and single words that a peer got wrong: each is an error or
//! no matter, for who comes and for who is there; nobody hangs, and only `remove` removes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use poste::{Kind, Options, Outgoing, Receiver, Sender};

use crate::hostile::in_time;
use crate::peer::Name;

/// Offsets in the header, as ring/layout.rs draws it.
const VERSION: u64 = 8;
const PAGE: u64 = 16;
const BOOT: u64 = 40;
const MESSAGE_SIZE: u64 = 56;
const LIFE: u64 = 136;

fn header(name: &Name) -> File {
    let path = name.folder().unwrap().join("header");
    File::options().read(true).write(true).open(path).unwrap()
}

fn read(file: &File, at: u64) -> u64 {
    let mut word = [0; 8];
    file.read_exact_at(&mut word, at).unwrap();
    u64::from_ne_bytes(word)
}

fn write(file: &File, at: u64, word: u64) {
    file.write_all_at(&word.to_ne_bytes(), at).unwrap();
}

/// Opening it is refused with this kind, in words that name the cause; and it can be removed.
fn refused(kind: &Kind, why: &str, spoil: impl FnOnce(&File)) {
    let name = Name::new("refused");
    poste::create(&name, &Options::new()).unwrap();
    spoil(&header(&name));
    let errors = [
        Sender::open(&name).unwrap_err(),
        Receiver::open(&name).unwrap_err(),
        Sender::create(&name).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), *kind, "{error}");
        assert!(error.to_string().contains(why) && !error.hint().is_empty(), "{error}");
    }
    assert_eq!(name.files().len(), 1, "it is left as it is");
    poste::remove(&name).unwrap();
    assert_eq!(name.folder(), None);
}

#[test]
fn a_header_that_is_not_ours_is_refused_and_can_be_removed() {
    refused(&Kind::Mismatch, "another version", |file| {
        write(file, VERSION, read(file, VERSION) + (1 << 32));
    });
    refused(&Kind::Mismatch, "byte order", |file| {
        write(file, VERSION, read(file, VERSION).swap_bytes());
    });
    refused(&Kind::Mismatch, "page size", |file| write(file, PAGE, 65_536));
    refused(&Kind::Mismatch, "last start", |file| write(file, BOOT, !read(file, BOOT)));
    refused(&Kind::Corrupt, "no mailbox's", |file| write(file, 0, 0x6c69_6d20_7361_7769));
    refused(&Kind::Corrupt, "beyond every limit", |file| write(file, MESSAGE_SIZE, u64::MAX / 3));
    refused(&Kind::Corrupt, "too short", |file| file.set_len(4096).unwrap());
    refused(&Kind::Corrupt, "too short", |file| file.set_len(0).unwrap());
    refused(&Kind::Corrupt, "no mailbox's", |file| {
        let size = file.metadata().unwrap().len();
        let garbage: Vec<_> = (0..size).map(|at| (at * 31 + 7) as u8).collect();
        file.write_all_at(&garbage, 0).unwrap();
    });
}

#[test]
fn a_folder_without_a_header_is_an_error_and_can_be_removed() {
    let name = Name::new("no-header");
    poste::create(&name, &Options::new()).unwrap();
    std::fs::remove_file(name.folder().unwrap().join("header")).unwrap();
    assert_eq!(Sender::open(&name).unwrap_err().kind(), Kind::Corrupt);
    poste::remove(&name).unwrap();
    assert_eq!(name.folder(), None);
}

#[test]
fn a_slip_in_life_removes_nothing() {
    let name = Name::new("life");
    let mut receiver = Receiver::create(&name).unwrap();
    let mut sender = Sender::open(&name).unwrap();
    let file = header(&name);
    for word in (0..64).map(|bit| 1 << bit).chain([u64::MAX, 7, 0]) {
        write(&file, LIFE, word);
        sender.send("still here").unwrap();
        assert_eq!(receiver.try_recv().unwrap().text().unwrap(), "still here");
        Sender::open(&name).unwrap().send("new").unwrap();
        assert_eq!(receiver.try_recv().unwrap().text().unwrap(), "new");
    }
    // A removal whose mark was lost is noticed nevertheless.
    std::fs::remove_dir_all(name.folder().unwrap()).unwrap();
    let error = receiver.recv_timeout(Duration::from_secs(20)).unwrap_err();
    assert_eq!(error.kind(), Kind::Removed);
}

/// Uses what is open, and opens more, whatever comes of it; in a time that doesn't depend on it.
fn use_all(name: &Name, sender: &mut Sender, receiver: &mut Receiver) {
    let soon = Duration::from_micros(300);
    for priority in [0, 9] {
        let _ = sender.send_timeout(Outgoing::from(&[7; 700]).priority(priority), soon);
        let _ = sender.feed("fed").and_then(|_| sender.flush());
        let _ = sender.try_loan(9000).map(poste::Loan::send);
    }
    for _ in 0..8 {
        if let Ok(message) = receiver.recv_timeout(soon) {
            assert!(message.iter().map(|byte| u64::from(*byte)).sum::<u64>() < u64::MAX);
            let _ = message.acknowledge();
        }
    }
    let _ = (sender.facts(), receiver.facts(), sender.pollable().is_ok());
    if let (Ok(mut sender), Ok(mut receiver)) = (Sender::open(name), Receiver::open(name)) {
        let _ = sender.try_send("from another");
        for _ in 0..3 {
            let _ = receiver.try_recv();
        }
    }
}

/// Every word of the header and of a lane's, and those of some rows, one after the other, wrong in
/// several ways, before and while others use them.
#[test]
fn no_single_word_hangs_or_breaks_who_reads_it() {
    in_time(|| {
        let rows = |begin: u64, size: u64, count: u64| (begin..begin + size * count).step_by(8);
        let header: Vec<_> = rows(0, 256, 1).chain(rows(256, 128, 4)).collect();
        let lane: Vec<_> = rows(0, 256, 1).chain(rows(4096, 32, 4)).collect();
        for (file, words) in [("header", header), ("lane", lane)] {
            for at in words {
                for way in 0..5 {
                    one_word(file, at, way);
                }
            }
        }
    });
}

fn one_word(file: &str, at: u64, way: u64) {
    let name = Name::new("word");
    poste::create(&name, &Options::new().deliveries(3)).unwrap();
    let mut sender = Sender::open(&name).unwrap();
    let mut receiver = Receiver::open(&name).unwrap().manual();
    for number in 0..3_u8 {
        sender.send(Outgoing::from(&[number; 100]).priority(number.into())).unwrap();
    }
    let _taken = receiver.try_recv().unwrap().into_owned();
    let files = name.files();
    let file = files.iter().find(|name| name.starts_with(file)).unwrap();
    let path = name.folder().unwrap().join(file);
    let file = File::options().read(true).write(true).open(path).unwrap();
    let old = read(&file, at);
    let word = match way {
        0 => 0,
        1 => u64::MAX,
        2 => old ^ 1 << (at * 7 % 64),
        3 => old.wrapping_add(1),
        _ => old.rotate_left(32) ^ 0x0101_0101_0101_0101,
    };
    write(&file, at, word);
    use_all(&name, &mut sender, &mut receiver);
    write(&file, at, old);
    use_all(&name, &mut sender, &mut receiver);
    drop((sender, receiver));
    assert!(name.folder().is_some(), "only remove removes: word {at} of {path:?}", path = name.0);
}
