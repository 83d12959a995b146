//! Whatever a peer of the same user writes into a mailbox: others get errors, or wrong messages, but
//! never a panic, a hang or a read out of bounds.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use poste::{Options, Outgoing, Receiver, Sender};

use crate::peer::Name;

/// A generator of numbers that repeats by its seed.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new() -> Dice {
        let seed = std::env::var("POSTE_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or(u64::from(std::process::id()) << 16 | 0xbad);
        println!("POSTE_SEED={seed}");
        Dice(seed | 1)
    }

    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    /// A word that may do harm.
    pub(crate) fn word(&mut self) -> u64 {
        match self.roll(6) {
            0 => 0,
            1 => u64::MAX,
            2 => self.roll(4096),
            3 => 1 << self.roll(64),
            4 => u64::MAX - self.roll(100),
            _ => self.roll(u64::MAX >> 12) << self.roll(12),
        }
    }
}

/// Runs something that must end in time.
pub(crate) fn in_time(what: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        what();
        let _ = done.send(());
    });
    match ended.recv_timeout(Duration::from_secs(60)) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        _ => thread.join().expect("no panic"),
    }
}

/// Writes a word over one of a file's, among the first `size` bytes.
fn spoil(name: &Name, file: &str, size: u64, dice: &mut Dice) {
    let Some(folder) = name.folder() else { return };
    let Ok(file) = File::options().write(true).open(folder.join(file)) else { return };
    let at = dice.roll(size / 8) * 8;
    file.write_all_at(&dice.word().to_ne_bytes(), at).unwrap();
}

/// Everything that an end does, for a short time, whatever comes of it.
fn use_it(name: &Name, dice: &mut Dice) {
    let soon = Duration::from_millis(1);
    if let Ok(mut sender) = Sender::create(name) {
        for _ in 0..4 {
            let body = vec![7; dice.roll(9000) as usize];
            let priority = dice.roll(32) as u16;
            let _ = sender.send_timeout(Outgoing::from(&body).priority(priority), soon);
        }
        let _ = sender.try_loan(5000).map(poste::Loan::send);
        let _ = sender.facts();
    }
    if let Ok(receiver) = Receiver::create(name) {
        let mut receiver = receiver.manual();
        for _ in 0..20 {
            let Ok(message) = receiver.recv_timeout(soon) else { continue };
            assert!(message.iter().map(|byte| u64::from(*byte)).sum::<u64>() < u64::MAX);
            let _ = if dice.roll(4) == 0 { message.reject() } else { message.acknowledge() };
        }
        let _ = receiver.facts();
    }
}

#[test]
fn a_spoilt_image_is_an_error_or_a_wrong_message() {
    in_time(|| {
        let mut dice = Dice::new();
        for _ in 0..150 {
            let name = Name::new("spoilt");
            poste::create(&name, &Options::new().deliveries(4)).unwrap();
            let mut sender = Sender::open(&name).unwrap();
            for number in 0..20_u16 {
                sender.send(Outgoing::from(&[number as u8; 100]).priority(number % 3)).unwrap();
            }
            drop(sender);
            let lane = name.files().into_iter().find(|file| file.starts_with("lane")).unwrap();
            for _ in 0..1 + dice.roll(3) {
                match dice.roll(3) {
                    0 => spoil(&name, "header", 1024, &mut dice),
                    1 => spoil(&name, &lane, 208, &mut dice),
                    _ => spoil(&name, &lane, 4096 + 40 * 32, &mut dice),
                }
            }
            use_it(&name, &mut dice);
        }
    });
}

#[test]
fn bytes_that_change_under_way_do_no_harm() {
    in_time(|| {
        let name = Arc::new(Name::new("flipped"));
        poste::create(name.as_ref(), &Options::new()).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let users: Vec<_> = (0..2)
            .map(|number| {
                let (name, over) = (Arc::clone(&name), Arc::clone(&over));
                std::thread::spawn(move || {
                    let mut dice = Dice(number * 2 + 77);
                    while !over.load(Ordering::Relaxed) {
                        use_it(&name, &mut dice);
                    }
                })
            })
            .collect();
        let mut dice = Dice::new();
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end {
            for file in name.files() {
                // The whole of its words, or those that are used the most.
                let size = match (file == "header", dice.roll(4)) {
                    (_, 0) => 36_864,
                    (true, _) => 2048,
                    (false, _) => 8192,
                };
                spoil(&name, &file, size, &mut dice);
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        over.store(true, Ordering::Relaxed);
        for user in users {
            user.join().expect("no panic");
        }
    });
}
