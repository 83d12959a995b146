//! Any bytes in the files of a mailbox, before and while it is used: errors or wrong messages, never a
//! panic, a hang or a read out of bounds. The input is a row of changes: which file (the header with
//! its table, or a lane with all its descriptors, of the sender that lives or of one that is gone),
//! where, what.

#![no_main]

use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use libfuzzer_sys::fuzz_target;
use poste::{Options, Outgoing, Receiver, Sender};

fuzz_target!(|input: &[u8]| {
    let directory = std::env::var_os("POSTE_DIR").expect("POSTE_DIR is a folder of its own");
    let folder = PathBuf::from(directory).join("shm/fuzz");
    // What the last input left can always be removed.
    let _ = poste::remove("shm:fuzz");
    poste::create("shm:fuzz", &Options::new().deliveries(3)).expect("there is room");
    let mut sender = Sender::open("shm:fuzz").expect("it was just made");
    let mut receiver = Receiver::open("shm:fuzz").expect("it was just made").manual();
    for number in 0..6_u8 {
        let body = [number; 90];
        let outgoing = Outgoing::from(&body).priority(u16::from(number % 3));
        sender.try_send(outgoing).expect("it is empty");
    }
    // What a sender that is gone has left: a lane without one.
    let _ = Sender::open("shm:fuzz").map(|mut sender| sender.try_send("left").is_ok());
    for change in input.chunks_exact(11) {
        let names = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        let mut files: Vec<_> = names.map(|file| file.path()).collect();
        files.sort();
        let at = u64::from(u16::from_le_bytes([change[1], change[2]])) * 8 % 36_864;
        let file = files.get(usize::from(change[0] >> 2) % files.len().max(1));
        let file = file.and_then(|file| std::fs::File::options().write(true).open(file).ok());
        // What is set aside is shorter, and nobody reads it.
        if let Some(file) = file.filter(|file| file.metadata().is_ok_and(|it| it.len() > at + 8)) {
            file.write_all_at(&change[3..], at).expect("it is long enough");
        }
        let _ = receiver.try_recv().map(|message| message.len());
        let _ = receiver.try_recv().map(poste::Message::acknowledge);
        let _ = sender.try_send(&[7; 5000]);
        let _ = receiver.try_recv().map(poste::Message::reject);
        let _ = (poste::info("shm:fuzz").is_ok(), receiver.facts(), sender.facts());
        if change[0] & 2 != 0 {
            let _ = Sender::open("shm:fuzz").map(|mut sender| sender.try_send("another").is_ok());
            let _ = Receiver::open("shm:fuzz").map(|mut receiver| receiver.try_recv().is_ok());
        }
    }
});
