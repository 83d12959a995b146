//! The rings of a mailbox in shared memory: pure arithmetic over a mapping, without one system call.
//!
//! A mailbox has one *lane* for each sender. A lane is a ring of descriptors, each 32 bytes, and a
//! ring of bodies; a descriptor says where its body lies, and holds the one word that decides whose
//! the message is. Only the lane's sender writes descriptors and bodies; anybody moves a message on
//! from *ready*, with one compare-and-swap on that word. So a dead sender or receiver blocks nobody:
//!
//! ```text
//! sender                    receiver r                 recovery, when r is dead
//! (written) ─▶ ready ─▶ taken by r ─▶ done            taken by r ─▶ ready, one delivery more
//!                ▲            │
//!                └────────────┘ given back
//! ```
//!
//! `ready` is stored last and is the commit point. Every position is a number that only grows, and a
//! word carries the low half of its message's number, so that what is left from the lap before is
//! never taken for news. What peers wrote is read once, checked, and never indexes unchecked.
//!
//! [`layout`] draws the bytes, [`lane`] is what all see, [`producer`] the sending side, [`claim`] the receiving one, [`wake`]
//! says who is to be woken, [`recover`] undoes what the dead have taken.

pub(crate) mod claim;
pub(crate) mod lane;
pub(crate) mod layout;
#[cfg(all(test, poste_loom))]
mod model;
pub(crate) mod producer;
pub(crate) mod recover;
pub(crate) mod wake;
