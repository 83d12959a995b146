//! Descriptors that have come beside bytes, until the message that they belong to is delivered.
//!
//! Sets are numbered as they come; the inbox numbers the headers that lay claim to one in the same
//! way. Messages are delivered by priority, so a set is found by its number and not by its place.
//! What no header lays claim to is closed.

use std::os::fd::OwnedFd;

use super::Arrival;
use crate::limits::DESCRIPTORS_AHEAD;

/// The sets of one connection, or of one socket that receives datagrams.
#[derive(Debug, Default)]
pub(super) struct DescriptorSets {
    sets: Vec<Set>,
    /// The number of the last one, counting those that were announced and never came.
    received: u64,
}

#[derive(Debug)]
struct Set {
    number: u64,
    descriptors: Vec<OwnedFd>,
    /// This process could not take all of them.
    is_cut: bool,
}

impl DescriptorSets {
    /// A set came beside a part of a byte stream; which header claims it is known later.
    pub(super) fn push(&mut self, descriptors: Vec<OwnedFd>, is_cut: bool) {
        self.received += 1;
        self.sets.push(Set { number: self.received, descriptors, is_cut });
    }

    /// A set came with a packet that claims it under this number.
    pub(super) fn push_claimed(&mut self, number: u64, descriptors: Vec<OwnedFd>, is_cut: bool) {
        self.received = number;
        self.sets.push(Set { number, descriptors, is_cut });
    }

    /// After a read: headers have claimed the sets up to `claimed`, and one that has begun may claim
    /// one more. What none can claim is closed, and what was claimed and never sent is counted.
    pub(super) fn settle(&mut self, claimed: u64, has_beginning: bool) {
        let claimable = claimed + u64::from(has_beginning);
        while self.received > claimable {
            self.received -= 1;
            self.sets.pop();
        }
        self.received = self.received.max(claimed);
    }

    /// Gives a message the set of its number.
    #[inline]
    pub(super) fn give(&mut self, number: u64, arrival: &mut Arrival) {
        // Not always the first: an urgent message goes before those that came earlier.
        if let Some(index) = self.sets.iter().position(|set| set.number == number) {
            let set = self.sets.remove(index);
            arrival.descriptors = set.descriptors;
            arrival.descriptors_lost = set.is_cut;
        }
    }

    /// Whether so many lie here that nothing more is to be taken in before some are delivered.
    #[inline]
    pub(super) fn are_many(&self) -> bool {
        !self.sets.is_empty()
            && self.sets.iter().map(|set| set.descriptors.len()).sum::<usize>() > DESCRIPTORS_AHEAD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<OwnedFd> {
        vec![std::fs::File::open("/dev/null").unwrap().into()]
    }

    fn given(sets: &mut DescriptorSets, number: u64) -> usize {
        let mut arrival = Arrival::default();
        sets.give(number, &mut arrival);
        arrival.descriptors.len()
    }

    #[test]
    fn what_nobody_claims_is_closed_and_the_next_set_is_the_next_claims() {
        let mut sets = DescriptorSets::default();
        sets.push(file(), false);
        sets.settle(0, false);
        assert!(sets.sets.is_empty());
        sets.push(file(), false);
        sets.settle(1, false);
        assert_eq!(given(&mut sets, 1), 1);
    }

    #[test]
    fn a_beginning_may_still_claim_a_set_but_only_once() {
        let mut sets = DescriptorSets::default();
        sets.push(file(), false);
        sets.settle(0, true);
        sets.push(file(), false);
        sets.settle(0, true);
        assert_eq!(sets.sets.len(), 1);
        sets.settle(0, false);
        assert!(sets.sets.is_empty(), "it has ended, and claimed nothing");
    }

    #[test]
    fn a_claim_without_a_set_takes_none_of_a_later_one() {
        let mut sets = DescriptorSets::default();
        sets.settle(1, false);
        sets.push(file(), true);
        sets.settle(2, false);
        assert_eq!((given(&mut sets, 1), given(&mut sets, 2)), (0, 1));
    }
}
