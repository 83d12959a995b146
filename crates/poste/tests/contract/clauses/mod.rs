//! The clauses of the contract, one a file.

use std::time::Duration;

use crate::cell::Clause;
#[cfg(feature = "async-io")]
use crate::runtime::Smol;
#[cfg(feature = "tokio")]
use crate::runtime::Tokio;

mod both_ways;
mod boundaries;
mod clones;
mod closing;
pub(crate) mod descriptors;
mod empty;
mod feeding;
mod fidelity;
mod full;
#[cfg(feature = "futures")]
mod futures;
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
    #[cfg(feature = "tokio")]
    &futures::waiting::<Tokio>("tokio_waiting"),
    #[cfg(feature = "tokio")]
    &futures::full::<Tokio>("tokio_full"),
    #[cfg(feature = "tokio")]
    &futures::dropped_recv::<Tokio>("tokio_dropped_recv"),
    #[cfg(feature = "tokio")]
    &futures::dropped_send::<Tokio>("tokio_dropped_send"),
    #[cfg(feature = "tokio")]
    &futures::wake_ups::<Tokio>("tokio_wake_ups"),
    #[cfg(feature = "async-io")]
    &futures::waiting::<Smol>("async_io_waiting"),
    #[cfg(feature = "async-io")]
    &futures::full::<Smol>("async_io_full"),
    #[cfg(feature = "async-io")]
    &futures::dropped_recv::<Smol>("async_io_dropped_recv"),
    #[cfg(feature = "async-io")]
    &futures::dropped_send::<Smol>("async_io_dropped_send"),
    #[cfg(feature = "async-io")]
    &futures::wake_ups::<Smol>("async_io_wake_ups"),
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
