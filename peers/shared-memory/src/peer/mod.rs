//! The channels that are compared, all behind two traits: what one message costs through each.

use std::error::Error;

#[cfg(feature = "aeron")]
pub mod aeron;
pub mod bare;
pub mod claims;
pub mod iceoryx;
pub mod ipmpsc;
pub mod poste;
pub mod shmem_ipc;

pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// What all the channels of a row have in common.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Bytes of a body, a multiple of 8.
    pub size: usize,
    /// How many processes send.
    pub senders: usize,
}

impl Setup {
    /// How many messages a channel holds, where that can be chosen.
    pub fn depth(self) -> usize {
        match self.size {
            0..=1024 => 1024,
            1025..=4096 => 256,
            4097..=65536 => 16,
            _ => 4,
        }
    }
}

/// The sending side. `fill` writes every word of the body.
pub trait Sender {
    /// Sends one message, and lets its receiver see it.
    fn send(&mut self, number: u64) -> Outcome<()>;

    /// Sends so many at once, where the channel has a way to; else one after the other.
    fn batch(&mut self, first: u64, count: u64) -> Outcome<()> {
        (first..first + count).try_for_each(|number| self.send(number))
    }
}

/// The receiving side. `check` reads every word of the body.
pub trait Receiver {
    /// Takes one message.
    fn receive(&mut self) -> Outcome<u64>;

    /// Takes at least one, and all that are there where the channel has a way to: how many.
    fn receive_many(&mut self) -> Outcome<u64> {
        self.receive().map(|_| 1)
    }
}

/// Writes every word of a body: its number, and one more each.
#[inline]
pub fn fill(body: &mut [u8], number: u64) {
    for (at, word) in body.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&number.wrapping_add(at as u64).to_le_bytes());
    }
}

/// Reads every word of a body, and says its number.
///
/// # Panics
/// If the size or the sum isn't what was sent: then nothing that was measured is worth a figure.
#[inline]
pub fn check(body: &[u8], size: usize) -> u64 {
    assert_eq!(body.len(), size, "a message of another size");
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or_default());
    let number = word(&body[..8]);
    let sum = body.chunks_exact(8).fold(0, |sum: u64, bytes| sum.wrapping_add(word(bytes)));
    let words = size as u64 / 8;
    assert_eq!(sum, number.wrapping_mul(words).wrapping_add(words * (words - 1) / 2), "torn");
    number
}
