//! Shared memory against bare rings in shared memory, in one run: `cargo bench -p poste --bench shm`.
//!
//! Two processes, or five. The sender writes every word of every message, the receiver sums them all
//! and checks the sum. Runs are interleaved and repeated; medians are shown. `bare` is a ring of two
//! indices and slots of one size, which never sleeps, has one sender and one receiver, no priorities
//! and no recovery: the least that a ring can do. `bare-futex` sleeps at once.
//! Arguments: a part of the name of a row, `--repeat N`, `--time MILLISECONDS`.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use poste::{Options, Receiver, Sender, Spin};
use poste_sys::atomic::{Ordering, fence};
use poste_sys::mapping::{Access, Mapping, reserve};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// Microseconds there and back.
    RoundTrip,
    /// Millions of messages a second, or GB/s.
    OneWay,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum With {
    Poste(Spin, How),
    Bare,
    BareFutex,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Send,
    Feed,
    Loan,
    /// As `Loan`, in a mailbox on huge pages.
    LoanHuge,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    name: &'static str,
    work: Work,
    with: With,
    size: usize,
    senders: usize,
    same_core: bool,
}

const fn row(
    name: &'static str,
    work: Work,
    with: With,
    size: usize,
    senders: usize,
    same_core: bool,
) -> Row {
    Row { name, work, with, size, senders, same_core }
}

const ALWAYS: With = With::Poste(Spin::Always, How::Send);
const PAYS: With = With::Poste(Spin::WhileItPays, How::Send);
const NEVER: With = With::Poste(Spin::Never, How::Send);
const FED: With = With::Poste(Spin::WhileItPays, How::Feed);
const LOAN: With = With::Poste(Spin::WhileItPays, How::Loan);
const HUGE: With = With::Poste(Spin::WhileItPays, How::LoanHuge);

static ROWS: &[Row] = &[
    row("round trip, two cores, bare", Work::RoundTrip, With::Bare, 64, 1, false),
    row("round trip, two cores, spin", Work::RoundTrip, ALWAYS, 64, 1, false),
    row("round trip, two cores, default", Work::RoundTrip, PAYS, 64, 1, false),
    row("round trip, two cores, never spin", Work::RoundTrip, NEVER, 64, 1, false),
    row("round trip, same core, bare-futex", Work::RoundTrip, With::BareFutex, 64, 1, true),
    row("round trip, same core, never spin", Work::RoundTrip, NEVER, 64, 1, true),
    row("round trip, same core, default", Work::RoundTrip, PAYS, 64, 1, true),
    row("one way 64, bare", Work::OneWay, With::Bare, 64, 1, false),
    row("one way 64, send", Work::OneWay, PAYS, 64, 1, false),
    row("one way 64, feed and recv_many", Work::OneWay, FED, 64, 1, false),
    row("one way 1024, bare", Work::OneWay, With::Bare, 1024, 1, false),
    row("one way 1024, send", Work::OneWay, PAYS, 1024, 1, false),
    row("one way 1024, feed and recv_many", Work::OneWay, FED, 1024, 1, false),
    row("one way 65536, bare", Work::OneWay, With::Bare, 65536, 1, false),
    row("one way 65536, loan", Work::OneWay, LOAN, 65536, 1, false),
    row("one way 65536, loan, huge pages", Work::OneWay, HUGE, 65536, 1, false),
    row("one way 1048576, bare", Work::OneWay, With::Bare, 1 << 20, 1, false),
    row("one way 1048576, loan", Work::OneWay, LOAN, 1 << 20, 1, false),
    row("one way 1048576, loan, huge pages", Work::OneWay, HUGE, 1 << 20, 1, false),
    row("four to one 64, send", Work::OneWay, PAYS, 64, 4, false),
    row("four to one 4096, send", Work::OneWay, PAYS, 4096, 4, false),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "peer") {
        return peer(&arguments[1..]);
    }
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)?.parse::<u64>().ok()
    };
    let repeat = value("--repeat").unwrap_or(3);
    let time = Duration::from_millis(value("--time").unwrap_or(300));
    let filter = arguments
        .iter()
        .find(|argument| !argument.starts_with("--") && argument.parse::<u64>().is_err());
    let rows: Vec<_> = ROWS
        .iter()
        .enumerate()
        .filter(|(_, row)| filter.is_none_or(|filter| row.name.contains(filter.as_str())))
        .filter(|(_, row)| is_possible(row))
        .collect();
    let mut results = vec![Vec::new(); ROWS.len()];
    for _ in 0..repeat {
        for (index, row) in &rows {
            results[*index].push(measure(*index, row, time));
        }
    }
    for (index, row) in rows {
        let results = &mut results[index];
        results.sort_by(f64::total_cmp);
        let median = results[results.len() / 2];
        let unit = match row.work {
            Work::RoundTrip => "µs",
            Work::OneWay if row.size < 65536 => "M/s",
            Work::OneWay => "GB/s",
        };
        println!("{:40} {median:9.3} {unit}", row.name);
    }
    attach();
    cost();
    idle();
}

/// The processor time of a process whose receiver waits five seconds for nothing, its watcher
/// included.
fn idle() {
    let name = format!("shm:bench-idle-{}", std::process::id());
    let mut receiver = Receiver::create(&name).unwrap();
    let mut sender = Sender::open(&name).unwrap();
    // What the first sleep makes (the watcher's thread) is not what idling costs.
    for _ in 0..3 {
        receiver.recv_timeout(Duration::from_millis(20)).unwrap_err();
    }
    let used = || {
        let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Duration::new(used.tv_sec as u64, used.tv_nsec as u32)
    };
    let sleeper = std::thread::spawn(move || {
        receiver.recv().unwrap();
        receiver
    });
    std::thread::sleep(Duration::from_millis(100));
    let before = used();
    std::thread::sleep(Duration::from_secs(5));
    let time = used() - before;
    sender.send("enough").unwrap();
    drop((sender, sleeper.join().unwrap()));
    poste::remove(&name).unwrap();
    println!("{:40} {:9.1} µs of processor time", "idle for 5 s", time.as_secs_f64() * 1e6);
}

/// What a message costs its two sides together in processor time, in one thread, so that no cache
/// line travels and nobody waits: the best of many rounds.
fn cost() {
    let name = format!("shm:bench-cost-{}", std::process::id());
    let mut receiver = Receiver::create(&name).unwrap();
    let mut sender = Sender::open(&name).unwrap();
    let mut ring = Ring::new(&format!("bench-cost-{}", std::process::id()), 64, false);
    let mut best = [f64::MAX; 5];
    let mut body = [0; 64];
    let count = 256;
    for _ in 0..3000 {
        let mut timed = |index: usize, what: &mut dyn FnMut()| {
            let start = Instant::now();
            what();
            let time = start.elapsed().as_secs_f64() * 1e9 / count as f64;
            best[index] = best[index].min(time);
        };
        timed(0, &mut || {
            (0..count).for_each(|number| ring.send(number, 64));
            (0..count).for_each(|_| _ = ring.receive(64));
        });
        timed(1, &mut || {
            for number in 0..count {
                fill(&mut body, number);
                sender.send(&body).unwrap();
            }
            (0..count).for_each(|_| _ = check(&receiver.recv().unwrap(), 64));
        });
        timed(3, &mut || {
            for number in 0..count {
                fill(&mut body, number);
                sender.send(&body).unwrap();
            }
        });
        timed(4, &mut || {
            (0..count).for_each(|_| _ = check(&receiver.recv().unwrap(), 64));
        });
        timed(2, &mut || {
            for number in 0..count {
                fill(&mut body, number);
                sender.feed(&body).unwrap();
            }
            sender.flush().unwrap();
            let mut left = count as usize;
            while left > 0 {
                left -= receiver.recv_many(64, |message| _ = check(&message, 64)).unwrap();
            }
        });
    }
    for (what, best) in
        ["bare", "send, recv", "feed, recv_many", "send alone", "recv alone"].iter().zip(best)
    {
        println!("both sides of a message, {what:17} {best:9.1} ns");
    }
    drop((sender, receiver));
    poste::remove(&name).unwrap();
    std::fs::remove_file(ring_path(&format!("bench-cost-{}", std::process::id()))).unwrap();
}

/// How long it takes to make a mailbox, and to attach to it.
fn attach() {
    let name = format!("shm:bench-attach-{}", std::process::id());
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let timed = |what: &mut dyn FnMut()| {
        let start = Instant::now();
        what();
        start.elapsed().as_secs_f64() * 1e6
    };
    let mut times = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..200 {
        times[0].push(timed(&mut || poste::create(&name, &Options::new()).unwrap()));
        let (mut sender, mut receiver) = (None, None);
        times[1].push(timed(&mut || sender = Some(Sender::open(&name).unwrap())));
        times[2].push(timed(&mut || receiver = Some(Receiver::open(&name).unwrap())));
        times[3].push(timed(&mut || drop((sender.take(), receiver.take()))));
        poste::remove(&name).unwrap();
    }
    for (what, times) in
        ["create", "attach sender", "attach receiver", "detach both"].iter().zip(times)
    {
        println!("{what:40} {:9.1} µs", median(times));
    }
}

fn pin(row: &Row, receiver: bool) {
    if row.senders > 1 {
        return;
    }
    let mut set = rustix::thread::CpuSet::new();
    set.set(usize::from(receiver && !row.same_core));
    rustix::thread::sched_setaffinity(None, &set).unwrap();
}

fn free() {
    let mut set = rustix::thread::CpuSet::new();
    for cpu in 0..rustix::thread::CpuSet::MAX_CPU {
        set.set(cpu);
    }
    rustix::thread::sched_setaffinity(None, &set).unwrap();
}

fn start(index: usize, there: &str, back: &str) -> Child {
    let me = std::env::current_exe().unwrap();
    Command::new(me).args(["peer", &index.to_string(), there, back]).spawn().unwrap()
}

fn measure(index: usize, row: &Row, time: Duration) -> f64 {
    let there = format!("bench-there-{}", std::process::id());
    let back = format!("bench-back-{}", std::process::id());
    let mut incoming = Channel::new(row, &back, Side::Receiver);
    let mut outgoing = Channel::new(row, &there, Side::Both);
    free();
    let peers: Vec<_> = (0..row.senders).map(|_| start(index, &there, &back)).collect();
    pin(row, true);
    // The peers say that they are there.
    for _ in 0..row.senders {
        incoming.receive(row.size);
    }
    let result = match row.work {
        Work::RoundTrip => {
            outgoing.become_sender(row);
            let (mut times, end) = (Vec::new(), Instant::now() + time);
            while Instant::now() < end {
                let start = Instant::now();
                for number in 0..20 {
                    outgoing.send(number, row.size, false);
                    incoming.receive(row.size);
                }
                times.push(start.elapsed().as_secs_f64() / 20.0 * 1e6);
            }
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        }
        Work::OneWay => {
            let mut count = 0_u64;
            let start = Instant::now();
            while start.elapsed() < time {
                for _ in 0..(64 * 1024 / row.size).clamp(1, 64) {
                    count += incoming.receive_many(row);
                }
            }
            let seconds = start.elapsed().as_secs_f64();
            let messages = count as f64 / seconds;
            if row.size < 65536 { messages / 1e6 } else { messages * row.size as f64 / 1e9 }
        }
    };
    for mut peer in peers {
        peer.kill().unwrap();
        peer.wait().unwrap();
    }
    incoming.remove(&back);
    outgoing.remove(&there);
    result
}

/// The other process: echoes, or sends without end.
fn peer(arguments: &[String]) {
    let row = &ROWS[arguments[0].parse::<usize>().unwrap()];
    pin(row, false);
    let mut outgoing = Channel::new(row, &arguments[2], Side::Sender);
    let mut incoming = Channel::new(row, &arguments[1], Side::Receiver);
    outgoing.send(1, row.size, false);
    match row.work {
        Work::RoundTrip => loop {
            let number = incoming.receive(row.size);
            outgoing.send(number, row.size, false);
        },
        Work::OneWay => {
            let fed = matches!(row.with, With::Poste(_, How::Feed));
            for number in 0.. {
                outgoing.send(number, row.size, fed);
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Sender,
    Receiver,
    Both,
}

/// How a row's mailbox is made.
fn making(row: &Row) -> Options {
    match row.with {
        With::Poste(_, How::LoanHuge) => Options::new().huge_pages(),
        _ => Options::new(),
    }
}

/// Whether this machine has what a row needs.
fn is_possible(row: &Row) -> bool {
    let name = format!("shm:bench-try-{}", std::process::id());
    let made = poste::create(&name, &making(row));
    if let Err(error) = &made {
        println!("{:40} left out: {error}", row.name);
    }
    poste::remove(&name).is_ok() && made.is_ok()
}

/// One direction, over poste or bare.
struct Channel {
    sender: Option<Sender>,
    receiver: Option<Receiver>,
    ring: Option<Ring>,
    how: How,
    body: Vec<u8>,
}

impl Channel {
    fn new(row: &Row, name: &str, side: Side) -> Channel {
        let mut channel = Channel {
            sender: None,
            receiver: None,
            ring: None,
            how: How::Send,
            body: vec![0; row.size],
        };
        match row.with {
            With::Poste(spin, how) => {
                channel.how = how;
                let options = making(row).create().spin(spin);
                let address = format!("shm:{name}");
                match side {
                    Side::Sender => {
                        channel.sender = Some(Sender::open_with(&address, &options).unwrap())
                    }
                    Side::Receiver => {
                        channel.receiver = Some(Receiver::open_with(&address, &options).unwrap());
                    }
                    Side::Both => {}
                }
            }
            With::Bare => channel.ring = Some(Ring::new(name, row.size, false)),
            With::BareFutex => channel.ring = Some(Ring::new(name, row.size, true)),
        }
        if side == Side::Both && channel.ring.is_none() {
            let address = format!("shm:{name}");
            let _ = poste::create(&address, &making(row));
        }
        channel
    }

    fn become_sender(&mut self, row: &Row) {
        if let With::Poste(spin, _) = row.with {
            let address = format!("shm:bench-there-{}", std::process::id());
            self.sender = Some(Sender::open_with(address, &Options::new().spin(spin)).unwrap());
        }
    }

    fn send(&mut self, number: u64, size: usize, fed: bool) {
        if let Some(ring) = &mut self.ring {
            return ring.send(number, size);
        }
        let Some(sender) = &mut self.sender else { panic!("no sender") };
        if matches!(self.how, How::Loan | How::LoanHuge) {
            let mut loan = sender.loan(size).unwrap();
            fill(&mut loan, number);
            loan.send().unwrap();
            return;
        }
        fill(&mut self.body, number);
        if fed {
            sender.feed(&self.body).unwrap();
        } else {
            sender.send(&self.body).unwrap();
        }
    }

    fn receive(&mut self, size: usize) -> u64 {
        match (&mut self.ring, &mut self.receiver) {
            (Some(ring), _) => ring.receive(size),
            (None, Some(receiver)) => check(&receiver.recv().unwrap(), size),
            _ => panic!("no receiver"),
        }
    }

    fn receive_many(&mut self, row: &Row) -> u64 {
        match (&mut self.receiver, row.with) {
            (Some(receiver), With::Poste(_, How::Feed)) => {
                let each = |message: poste::Message<'_>| {
                    check(&message, row.size);
                };
                receiver.recv_many(64, each).unwrap() as u64
            }
            _ => {
                self.receive(row.size);
                1
            }
        }
    }

    fn remove(self, name: &str) {
        drop((self.sender, self.receiver));
        match self.ring {
            Some(_) => std::fs::remove_file(ring_path(name)).unwrap(),
            None => poste::remove(format!("shm:{name}")).unwrap(),
        }
    }
}

/// Writes every word of a body.
fn fill(body: &mut [u8], number: u64) {
    for (at, word) in body.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&number.wrapping_add(at as u64).to_le_bytes());
    }
}

/// Reads every word of a body: its number.
fn check(body: &[u8], size: usize) -> u64 {
    assert_eq!(body.len(), size);
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    let number = word(&body[..8]);
    let sum = body.chunks_exact(8).fold(0, |sum: u64, bytes| sum.wrapping_add(word(bytes)));
    let words = size as u64 / 8;
    assert_eq!(sum, number.wrapping_mul(words).wrapping_add(words * (words - 1) / 2));
    number
}

fn ring_path(name: &str) -> PathBuf {
    PathBuf::from("/dev/shm").join(name)
}

/// The least that a ring can be: two indices, slots of one size, one sender, one receiver.
struct Ring {
    map: Mapping,
    slots: u64,
    size: usize,
    futex: bool,
    sent: u64,
    received: u64,
    /// What the other index was, last time it was looked at.
    seen: u64,
}

const SENT: usize = 0;
const RECEIVED: usize = 128;
const WAITING_RECEIVER: usize = 256;
const WAITING_SENDER: usize = 384;
const SLOTS: usize = 4096;

impl Ring {
    fn new(name: &str, size: usize, futex: bool) -> Ring {
        let options = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(ring_path(name));
        let file = OwnedFd::from(options.unwrap());
        let slots = match size {
            0..=1024 => 1024,
            1025..=65536 => 16,
            _ => 4,
        };
        let bytes = SLOTS + (size * slots).next_multiple_of(4096);
        reserve(file.as_fd(), bytes).unwrap();
        let map = Mapping::new(file, 0, bytes, Access::Write).unwrap();
        Ring { map, slots: slots as u64, size, futex, sent: 0, received: 0, seen: 0 }
    }

    fn slot(&self, index: u64) -> usize {
        SLOTS + (index % self.slots) as usize * self.size
    }

    fn wait(&self, waiting: usize, ready: impl Fn() -> bool) {
        while !ready() {
            if self.futex {
                let word = self.map.half(waiting);
                word.store(1, Ordering::Relaxed);
                fence(Ordering::SeqCst);
                if !ready() {
                    let _ = poste_sys::futex::wait(word, 1, None);
                }
                word.store(0, Ordering::Relaxed);
            } else {
                std::hint::spin_loop();
            }
        }
    }

    fn wake(&self, waiting: usize) {
        if self.futex {
            fence(Ordering::SeqCst);
            let word = self.map.half(waiting);
            if word.load(Ordering::Relaxed) == 1 {
                word.store(0, Ordering::Relaxed);
                poste_sys::futex::wake(word);
            }
        }
    }

    fn send(&mut self, number: u64, size: usize) {
        if self.sent - self.seen >= self.slots {
            let received = self.map.word(RECEIVED);
            self.wait(WAITING_SENDER, || self.sent - received.load(Ordering::Acquire) < self.slots);
            self.seen = received.load(Ordering::Acquire);
        }
        let at = self.slot(self.sent);
        fill(self.map.slice_mut(at, size).unwrap(), number);
        self.sent += 1;
        self.map.word(SENT).store(self.sent, Ordering::Release);
        self.wake(WAITING_RECEIVER);
    }

    fn receive(&mut self, size: usize) -> u64 {
        if self.received >= self.seen {
            let sent = self.map.word(SENT);
            self.wait(WAITING_RECEIVER, || sent.load(Ordering::Acquire) > self.received);
            self.seen = sent.load(Ordering::Acquire);
        }
        let number = check(self.map.slice(self.slot(self.received), size).unwrap(), size);
        self.received += 1;
        self.map.word(RECEIVED).store(self.received, Ordering::Release);
        self.wake(WAITING_SENDER);
        number
    }
}
