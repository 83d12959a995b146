//! Sequence numbers where messages may be lost or overtake each other: what is late, what is lost.

use std::collections::HashMap;

use crate::limits::{PRIORITY_MAX, SENDERS_MAX};

/// Draws a sender's number: random, so that two senders never meet.
pub(crate) fn draw() -> u64 {
    let mut bytes = [0; 8];
    loop {
        // Interrupted or cut short only before the kernel's pool is first filled.
        if rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) == Ok(8) {
            let number = u64::from_ne_bytes(bytes);
            if number != 0 {
                return number;
            }
        }
    }
}

/// What was seen of each sender.
#[derive(Debug, Default)]
pub(crate) struct Sequences {
    senders: HashMap<u64, Seen>,
    /// What the forgotten ones had lost.
    lost_before: u64,
}

#[derive(Debug, Default)]
struct Seen {
    highest: u64,
    received: u64,
    /// The last sequence of each priority that this sender has used.
    last: Vec<(u16, u64)>,
}

impl Sequences {
    /// Notes a whole message: whether it is in time. A late one is to be dropped: delivering it
    /// would turn the order of its sender and priority round.
    pub(crate) fn note(&mut self, sender: u64, sequence: u64, priority: u16) -> bool {
        // As many as are told apart: a peer that makes priorities up fills no memory.
        let priority = priority.min(PRIORITY_MAX);
        if self.senders.len() >= SENDERS_MAX && !self.senders.contains_key(&sender) {
            self.forget_one();
        }
        let seen = self.senders.entry(sender).or_default();
        seen.highest = seen.highest.max(sequence);
        match seen.last.iter_mut().find(|(level, _)| *level == priority) {
            Some((_, last)) if sequence <= *last => return false,
            Some((_, last)) => *last = sequence,
            None => seen.last.push((priority, sequence)),
        }
        seen.received += 1;
        true
    }

    /// How many messages are known to be lost, the late ones among them.
    pub(crate) fn lost(&self) -> u64 {
        self.senders.values().map(Seen::lost).fold(self.lost_before, u64::saturating_add)
    }

    fn forget_one(&mut self) {
        if let Some(sender) = self.senders.keys().next().copied() {
            let lost = self.senders.remove(&sender).map_or(0, |seen| seen.lost());
            self.lost_before = self.lost_before.saturating_add(lost);
        }
    }
}

impl Seen {
    fn lost(&self) -> u64 {
        self.highest.saturating_sub(self.received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_lost_and_the_late_are_dropped() {
        let mut sequences = Sequences::default();
        assert!(sequences.note(1, 1, 0));
        assert!(sequences.note(1, 4, 0));
        assert_eq!(sequences.lost(), 2);
        assert!(!sequences.note(1, 3, 0));
        assert!(!sequences.note(1, 4, 0));
        assert_eq!(sequences.lost(), 2);
        // A more urgent one that overtook is no reason to drop.
        assert!(sequences.note(1, 6, 5));
        assert!(sequences.note(1, 5, 0));
        assert_eq!(sequences.lost(), 2);
    }

    #[test]
    fn numbers_that_a_peer_makes_up_do_no_harm() {
        let mut sequences = Sequences::default();
        for sender in 0..2 {
            for priority in 0..1000 {
                sequences.note(sender, u64::MAX - 1000 + u64::from(priority), priority);
            }
        }
        assert_eq!(sequences.lost(), u64::MAX);
        assert!(sequences.senders.values().all(|seen| seen.last.len() <= 32));
        for sender in 0..SENDERS_MAX as u64 * 2 {
            sequences.note(sender, u64::MAX, 0);
        }
        assert_eq!(sequences.lost(), u64::MAX);
    }
}
