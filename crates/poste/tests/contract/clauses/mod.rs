//! The clauses of the contract, one a file.

use std::time::Duration;

use crate::cell::Clause;

mod both_ways;
mod boundaries;
mod clones;
mod closing;
pub(crate) mod descriptors;
mod empty;
mod feeding;
mod fidelity;
mod full;
mod garbage;
mod held;
mod identity;
mod interrupted;
mod killed;
pub(crate) mod leaks;
mod many_senders;
mod order;
mod outsized;
pub(crate) mod permissions;
mod plain_peers;
mod pollable;
mod priority;
mod refusals;
mod replaced;
mod sharing;
mod streams;
mod taking;
#[cfg(feature = "tokio")]
mod tokio;
mod turns;
mod wait_set;
mod waking;

/// Every clause.
pub(crate) static ALL: &[&Clause] = &[
    &boundaries::CLAUSE,
    &both_ways::CLAUSE,
    &clones::CLAUSE,
    &closing::RECEIVER_GONE,
    &closing::SENDERS_GONE,
    &closing::PEERS,
    &descriptors::TRAVEL,
    &descriptors::LIMIT,
    &descriptors::UNASKED,
    &empty::CLAUSE,
    &feeding::CLAUSE,
    &fidelity::CLAUSE,
    &full::CLAUSE,
    &full::LATENESS,
    &garbage::CLAUSE,
    &held::CLAUSE,
    &identity::CLAUSE,
    &interrupted::CLAUSE,
    &killed::WRITER,
    &killed::READER,
    &leaks::CLAUSE,
    &many_senders::CLAUSE,
    &order::CLAUSE,
    &outsized::CLAUSE,
    &permissions::MODE,
    &permissions::REQUIRED,
    &plain_peers::CLAUSE,
    &pollable::RECEIVER,
    &pollable::SENDER,
    &priority::ORDER,
    &priority::OVERTAKING,
    &priority::LIMIT,
    &refusals::CLAUSE,
    &replaced::CLAUSE,
    &sharing::CLAUSE,
    &streams::CLAUSE,
    &taking::CLAUSE,
    #[cfg(feature = "tokio")]
    &tokio::WAITING,
    #[cfg(feature = "tokio")]
    &tokio::FULL,
    #[cfg(feature = "tokio")]
    &tokio::DROPPED_RECV,
    #[cfg(feature = "tokio")]
    &tokio::DROPPED_SEND,
    #[cfg(feature = "tokio")]
    &tokio::WAKE_UPS,
    &turns::CLAUSE,
    &wait_set::WAITING,
    &wait_set::FULL,
    &wait_set::WAKE_UPS,
    &wait_set::EDGES,
    &wait_set::SHARED,
    &waking::CLAUSE,
];

/// How long a trial waits for what must come: much longer than it can take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
