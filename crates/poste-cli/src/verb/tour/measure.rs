//! A first cost: what a round trip and a message take, between two processes that only do this.
//!
//! Both are started by the tour, which waits for their figures meanwhile and takes no part. Every
//! figure is measured here and now; what a quieter machine gives, `poste bench` will say.

use std::time::Duration;

use poste::mechanism::Mechanism;

use super::ledger::Fault;
use super::peer::Peer;
use super::roles::{Role, Task};
use super::ways::{self, Out};

/// For how long each figure is measured.
const TIME: Duration = Duration::from_millis(200);

/// What a round trip costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct RoundTrip {
    /// How many were made.
    pub count: u64,
    /// The median of their times.
    pub median: Duration,
    /// Processor time of both processes, for each.
    pub processor: Duration,
}

/// What sending one way costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Flow {
    /// How many messages arrived.
    pub received: u64,
    /// How many were lost.
    pub lost: u64,
    /// How many arrived in a second.
    pub per_second: f64,
    /// Processor time of both processes, for each message that arrived.
    pub processor: Duration,
}

/// Measures round trips, each side on the processor named.
pub(super) fn round_trip(
    mechanism: &'static Mechanism,
    processors: [usize; 2],
) -> Result<RoundTrip, Fault> {
    let [(from, to), (its_from, its_to)] = ways::two_ways(mechanism)?;
    let task = |role, processor| Task {
        milliseconds: TIME.as_millis() as u64,
        processor: Some(processor),
        ..Task::new(role)
    };
    let ping = Peer::start(mechanism, task(Role::Ping, processors[0]), Some(from), to)?;
    let its_to = its_to.at(ping.ready()?);
    let echo = Peer::start(mechanism, task(Role::Echo, processors[1]), Some(its_from), its_to)?;
    let done = ping.done(TIME);
    let [count, median, processor] = done.map_err(|fault| echo.complaint().unwrap_or(fault))?;
    let [its_processor] = echo.done(Duration::ZERO)?;
    let processor = Duration::from_nanos((processor + its_processor) / count.max(1));
    Ok(RoundTrip { count, median: Duration::from_nanos(median), processor })
}

/// Measures small messages one way, each by itself; the peers run where the kernel puts them.
pub(super) fn one_way(mechanism: &'static Mechanism) -> Result<Flow, Fault> {
    let (to, from) = ways::one_way(mechanism)?;
    let sink = Peer::start(mechanism, Task::new(Role::Sink), Some(from), Out::Hello)?;
    let to = to.at(sink.ready()?);
    let task = Task { milliseconds: TIME.as_millis() as u64, ..Task::new(Role::Stream) };
    let stream = Peer::start(mechanism, task, None, to)?;
    let done = stream.done(TIME);
    let [_sent, its_processor] = done.map_err(|fault| sink.complaint().unwrap_or(fault))?;
    let [received, lost, elapsed, processor] = sink.done(Duration::ZERO)?;
    if received == 0 {
        return Err(Fault::new("not one message arrived"));
    }
    Ok(Flow {
        received,
        lost,
        per_second: received as f64 / Duration::from_nanos(elapsed).as_secs_f64(),
        processor: Duration::from_nanos((processor + its_processor) / received),
    })
}
