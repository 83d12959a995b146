//! Every limit of the library, in one place, with its reason. Sizes are bytes.

use std::time::Duration;

/// The largest message unless asked otherwise: a sender's mistake must not fill a receiver's memory.
pub const MESSAGE_MAX: usize = 16 << 20;

/// The largest piece that poste sends over a stream or in a packet, header included.
///
/// A packet of this size fits the default socket buffer (212,992) and a datagram of UDP (65,507);
/// a piece of it is also what one read of a stream takes in.
pub const PIECE_MAX: usize = 65_000;

/// What one read of a byte stream asks for at most, and what the sender's outbox gathers.
pub const READ_MAX: usize = 64 << 10;

/// What a receiver's first read of a byte stream asks for; it grows while reads come back full.
pub const READ_FIRST: usize = 4 << 10;

/// Messages up to this size are gathered and written with one plain call: copying them costs less
/// than what `writev` costs more than `write`.
pub const GATHER_MAX: usize = 4 << 10;

/// The kernel's promise that a write to a pipe is never torn apart: pipe(7), PIPE_BUF.
pub const PIPE_ATOMIC: usize = 4096;

/// How many unfinished messages a receiver keeps: one for each of a thousand writers.
pub const HALVES_MAX: usize = 1024;

/// How many bytes unfinished messages may hold together, as a multiple of the largest message.
pub const HALVES_MESSAGES: usize = 4;

/// Priorities mean the same everywhere up to this one; POSIX queues alone go further.
pub const PRIORITY_MAX: u16 = 31;

/// The highest priority of a POSIX queue: mq_overview(7), MQ_PRIO_MAX less one.
pub const PRIORITY_MAX_POSIX: u16 = 32_767;

/// While so few messages lie in user space, a receiver looks into the kernel before it delivers the
/// next one, so that a more urgent message that has just arrived goes first.
pub const LOOK_BELOW: usize = 16;

/// With more of them it looks after each such number of messages, so that batches stay cheap.
pub const LOOK_EVERY: u32 = 64;

/// How many packets are taken in before one is delivered, as long as they hold no more than
/// [`READ_MAX`] together: the window in which the more urgent goes first.
pub const PACKETS_AT_ONCE: usize = 64;

/// The largest raw packet that can be received: twice what an ordinary sender can send (its socket
/// buffer, `net.core.wmem_max`, 4 MiB on many machines). The memory is reserved, not touched.
pub const RAW_PACKET_MAX: usize = 8 << 20;

/// How many events one `epoll_wait` takes.
pub const EVENTS_AT_ONCE: usize = 64;

/// How long opening goes on trying while a listener is there and has no room for one more.
pub const BUSY_PATIENCE: Duration = Duration::from_secs(5);

/// How long a connection over a network may take to come about, unless asked otherwise.
pub const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// How many connections wait to be accepted before the kernel refuses more; the kernel cuts it to
/// `net.core.somaxconn`.
pub const BACKLOG: i32 = 4096;

/// How many senders' last sequence numbers a receiver of datagrams remembers.
pub const SENDERS_MAX: usize = 4096;

/// The most descriptors that one message may carry: unix(7), SCM_MAX_FD.
pub const DESCRIPTORS_MAX: usize = 253;

/// How many descriptors may lie undelivered in user space before a connection is read further: less
/// than what an ordinary process may open (RLIMIT_NOFILE, 1024), though several connections have
/// some.
pub const DESCRIPTORS_AHEAD: usize = 64;

/// How many descriptors unfinished messages may hold together: those of four full messages.
pub const HALVES_DESCRIPTORS: usize = 4 * DESCRIPTORS_MAX;

/// How many messages a channel inside one process holds unless asked otherwise.
pub const LOCAL_CAPACITY: usize = 1024;

/// How many messages a POSIX queue holds unless asked otherwise: what every machine allows (the
/// kernel's default of `fs.mqueue.msg_max`); less where this machine allows less.
pub const QUEUE_CAPACITY: usize = 10;

/// The largest message of a POSIX queue, envelope included, unless asked otherwise: the kernel's
/// default of `fs.mqueue.msgsize_max`; less where this machine allows less.
pub const QUEUE_MESSAGE_SIZE: usize = 8 << 10;

/// How often an end tries to open, and then to make, a queue that others make and remove meanwhile.
pub const QUEUE_TRIES: usize = 100;

/// How often who waits on a POSIX queue looks whether it still has a name: the kernel doesn't wake
/// them when it goes. A look costs less than a microsecond.
pub const REMOVAL_LOOK: Duration = Duration::from_secs(1);

/// What a receiver of a System V queue first has room for; it grows when a larger message comes.
pub const LETTER_FIRST: usize = 64 << 10;

/// The first pause of a timed wait where the kernel has nothing to wait on; each is twice as long
/// as the one before.
pub const PAUSE_MIN: Duration = Duration::from_micros(50);

/// The longest such pause. A pause and a call cost 20 to 27 µs of processor here (2 virtual cores,
/// Linux 6.18): pauses of 2 ms took 1.1 % of a processor, of 4 ms 0.7 %, of 8 ms 0.3 %.
pub const PAUSE_MAX: Duration = Duration::from_millis(8);

/// How late such a wait may notice something: the longest pause, and what a loaded machine adds.
pub const PAUSE_DELAY: Duration = Duration::from_millis(10);

/// How long at least a sender of a System V queue may be at one message before a receiver with a bell
/// takes it for killed: a message takes microseconds. Where one waits for room the queue is full, and
/// no receiver of it looks for senders.
pub const BELL_PATIENCE: Duration = Duration::from_secs(1);

/// The stack of a thread that waits on a System V queue: it calls nothing deep.
pub const HELPER_STACK: usize = 64 << 10;

/// How often what is there is compared with what was asked for, with a pause between: its maker may
/// be between making it and giving it its mode and capacity.
pub const QUEUE_LOOKS: usize = 3;

/// How many descriptors a lane of a mailbox has unless its capacity asks for more: the depth at
/// which a sender seldom waits for a receiver that runs.
pub const LANE_DESCRIPTORS: u64 = 1024;

/// The size of a lane's file when it is made, in bytes: it stays within a processor's second cache,
/// and reserving it takes some 60 µs.
pub const LANE_SIZE: usize = 256 << 10;

/// The largest message that a mailbox can be made for; a lane may come to four times that.
pub const MAILBOX_MESSAGE_MAX: usize = 1 << 30;

/// The largest capacity that a mailbox can be made with: its descriptors take 32 bytes each.
pub const MAILBOX_CAPACITY_MAX: usize = 1 << 20;

/// How often opening a mailbox goes on trying while others make and remove it.
pub const MAILBOX_TRIES: usize = 100;

/// Messages up to this size are copied out of shared memory; larger ones are lent in place.
pub const LEND_ABOVE: usize = 4 << 10;

/// How many messages in a row a receiver takes from one lane while others may have some as urgent.
pub const LANE_STREAK: u32 = 64;

/// How many messages fed to a lane are held back at most: what the receiver gets at once.
pub const HELD_MAX: usize = 64;

/// How many messages a receiver claims from a mailbox at once at most: so many it may have to hand
/// out again, marked, when it dies.
pub const CLAIMED_MAX: usize = 256;

/// The largest sealed memory that a sender takes from its receiver unshown, in bytes.
pub const SEALED_MAX: usize = 64 << 20;

/// How often the other side of sealed memory may ring in vain before a wait that is over ends.
pub const RINGS_MAX: u32 = 64;

/// How long an end in shared memory looks again before it sleeps: 20 µs find almost every answer of
/// a peer that runs, 5 µs half of them.
pub const SPIN_TIME: Duration = Duration::from_micros(20);

/// How many looks lie between two yields.
pub const YIELD_EVERY: u32 = 32;

/// A yield that took so long shows that others want the processor.
pub const YIELD_LONG: Duration = Duration::from_micros(50);

/// How many waits at most go to sleep at once after looking again was in vain.
pub const SPIN_SKIP_MAX: u32 = 64;

/// A receiver that has taken so many messages without sleeping tells senders that they need not look
/// whether it does; telling them that it may again costs it 12 us.
pub const AWAKE_AFTER: u32 = 256;

/// How often a receiver that only ever looks, and never waits, sees to the dead.
pub const RECOVER_EVERY: Duration = Duration::from_millis(10);

/// How long a sleeper sleeps at most where it can't be told of every death (a process of another
/// pid namespace).
pub const BLIND_SLEEP: Duration = Duration::from_millis(50);

/// How long a sleeper in shared memory sleeps at most before it looks again by itself: what a peer's
/// slip in a word, or a handle that was lost by exec(2), can cost. A look takes some 20 µs.
pub const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// How soon somebody looks again after a dead one whom another is burying: burying takes less, unless
/// that one is stopped, or killed too. Each look is twice as late as the one before.
pub const BURIED_AFTER: Duration = Duration::from_millis(1);

/// How many datagrams' sources a receiver remembers, to answer them.
pub const SOURCES_MAX: usize = 1024;

/// How long an answer waits for a caller that doesn't read: a slow one must not hold up the others.
pub const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// How long closing a connection waits for one who takes nothing in, where what was sent would be
/// lost: longer than a busy machine needs, and short enough for a program that wants to end.
pub const LINGER: Duration = Duration::from_secs(1);

/// How many inotify instances the readers of FIFOs in one process have before they share: a user has
/// 128 for all programs, and who shares is woken by what happens to others.
pub const FIFO_NAMES_APART: usize = 16;

/// How many readers of FIFOs share an inotify instance at most: the kernel lets one file wake no more
/// than 50 epolls through three others (an end's own, what its user polls, a set of those, and the
/// loop that the set stands in).
pub const FIFO_NAMES_TOGETHER: usize = 32;
