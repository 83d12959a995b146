//! What is measured: the rows of the table.

use poste::Spin;

use crate::peer::poste::How;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Microseconds there and back, message by message.
    RoundTrip,
    /// Messages a second, or bytes; one by one.
    OneByOne,
    /// The same, as many at once as each side has a way for.
    Batches,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum With {
    Poste(Spin, How),
    Bare { sleeps: bool },
    Claims,
    Aeron,
    Iceoryx { events: bool },
    ShmemIpc,
    Ipmpsc,
}

#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub name: &'static str,
    pub with: With,
}

/// Rows that are compared with each other; the first is what the others are divided by.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    pub name: &'static str,
    pub work: Work,
    pub size: usize,
    pub senders: usize,
    /// Both processes on one processor; else one each, or wherever four senders come to run.
    pub one_core: bool,
    pub rows: &'static [Row],
}

const fn row(name: &'static str, with: With) -> Row {
    Row { name, with }
}

const BARE: Row = row("bare ring", With::Bare { sleeps: false });
const CLAIMS: Row = row("bare ring of claims", With::Claims);
const FUTEX: Row = row("bare futex ring", With::Bare { sleeps: true });
const POSTE: Row = row("poste", With::Poste(Spin::WhileItPays, How::Send));
const SPIN: Row = row("poste, always spin", With::Poste(Spin::Always, How::Send));
const NEVER: Row = row("poste, never spin", With::Poste(Spin::Never, How::Send));
const BATCH: Row = row("poste, feed and recv_many", With::Poste(Spin::WhileItPays, How::Batch));
const LOAN: Row = row("poste, loans", With::Poste(Spin::WhileItPays, How::Loan));
const AERON: Row = row("Aeron IPC", With::Aeron);
const POLLED: Row = row("iceoryx2, polled", With::Iceoryx { events: false });
const EVENTS: Row = row("iceoryx2, events", With::Iceoryx { events: true });
const SHMEM: Row = row("shmem-ipc", With::ShmemIpc);
const IPMPSC: Row = row("ipmpsc", With::Ipmpsc);

const ONE: &[Row] = &[BARE, CLAIMS, POSTE, AERON, POLLED, SHMEM, IPMPSC];
const MANY: &[Row] = &[BARE, CLAIMS, BATCH, AERON];
const LARGE: &[Row] = &[BARE, LOAN, POSTE, POLLED, SHMEM, IPMPSC];
const FOUR: &[Row] = &[POSTE, BATCH, AERON, POLLED, IPMPSC];

const fn group(name: &'static str, work: Work, size: usize, rows: &'static [Row]) -> Group {
    Group { name, work, size, senders: 1, one_core: false, rows }
}

pub static GROUPS: &[Group] = &[
    group(
        "round trip, 64 B, two cores",
        Work::RoundTrip,
        64,
        &[BARE, CLAIMS, SPIN, POSTE, NEVER, AERON, POLLED, EVENTS, SHMEM, IPMPSC],
    ),
    Group {
        one_core: true,
        ..group(
            "round trip, 64 B, one core",
            Work::RoundTrip,
            64,
            &[FUTEX, NEVER, POSTE, EVENTS, SHMEM, IPMPSC],
        )
    },
    group("one way, 64 B, one by one", Work::OneByOne, 64, ONE),
    group("one way, 64 B, batches", Work::Batches, 64, MANY),
    group("one way, 1 KiB, one by one", Work::OneByOne, 1024, ONE),
    group("one way, 1 KiB, batches", Work::Batches, 1024, MANY),
    group("one way, 64 KiB", Work::OneByOne, 64 << 10, LARGE),
    group("one way, 1 MiB", Work::OneByOne, 1 << 20, LARGE),
    Group { senders: 4, ..group("four to one, 64 B", Work::Batches, 64, FOUR) },
    Group { senders: 4, ..group("four to one, 4 KiB", Work::Batches, 4096, FOUR) },
];

impl Group {
    pub fn unit(&self) -> &'static str {
        match self.work {
            Work::RoundTrip => "µs",
            _ if self.size < 65536 => "M/s",
            _ => "GB/s",
        }
    }
}
