//! The round trip of a small message: through poste, and through the same mechanism's plain system
//! calls, in one run, in turns, both processes on one processor.
//!
//! `cargo bench -p poste --bench round_trip [-- SCHEME…]`
//!
//! For each mechanism there are two ways of waiting: the plain blocking call, and poll with a
//! deadline before the call. The plain program does each by itself, poste's forms are `recv` and
//! `recv_deadline`. A receiver that listens waits on all its connections, so that its `recv` is
//! compared with poll and call. The plain program calls libc's own functions, through std, as a
//! program without poste would: on this class of machine the first return after a system call costs
//! more than everything that poste does, and code with the call inlined into the loop never pays it.
//! Each figure is the median over rounds of 1,000 round trips; the ratio is the median of the ratios
//! of neighbouring rounds. Beside a deadline stands what polling itself costs: the figure divided by
//! that of the blocking call, where both are measured.

use std::error::Error;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use poste::{Options, Receiver, Sender, Wait};
use poste_sys::{mqueue, sysv};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen,
    socket_with, socketpair,
};
use rustix::thread::{CpuSet, sched_setaffinity};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// With `-body`, poste takes bodies only, as the plain program does; else descriptors and the
/// sender's credentials too, which need `recvmsg`.
const SCHEMES: [&str; 14] = [
    "pipe",
    "pair",
    "pair-body",
    "fifo",
    "mq",
    "sysv",
    "unix",
    "unix-body",
    "seqpacket",
    "seqpacket-body",
    "dgram",
    "dgram-body",
    "tcp",
    "udp",
];

/// The mechanism without the suffix.
fn kind(scheme: &str) -> &str {
    scheme.strip_suffix("-body").unwrap_or(scheme)
}

fn options(scheme: &str) -> Options {
    let options = Options::new().create().patience(Wait::For(LIMIT));
    if scheme.ends_with("-body") { options.body_only() } else { options }
}

const SIZE: usize = 64;
const TRIPS: usize = 1000;
const ROUNDS: usize = 31;

fn main() -> Outcome<()> {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let [role, rest @ ..] = &arguments[..] {
        if role == "echo-plain" {
            return echo(&mut Plain::from_parent(&rest[0])?, &rest[1]);
        }
        if role == "echo-poste" {
            return echo(&mut Poste::in_child(&rest[0], &options(&rest[2]))?, &rest[1]);
        }
    }
    println!("round trip of {SIZE} bytes, both processes on processor 0, µs");
    println!(
        "{:<14} {:<10} {:>8} {:>8} {:>7}   deadline / blocking",
        "mechanism", "waiting", "plain", "poste", "ratio"
    );
    for scheme in SCHEMES {
        if !arguments.is_empty() && !arguments.iter().any(|wanted| wanted == scheme) {
            continue;
        }
        let mut blocking = None;
        for waiting in ["blocking", "deadline"] {
            let listens = matches!(kind(scheme), "unix" | "seqpacket" | "tcp");
            let can = match waiting {
                "blocking" => !listens,
                _ => scheme != "sysv",
            };
            if can {
                let row = compare(scheme, waiting)?;
                println!("{}", row.print(scheme, waiting, blocking.as_ref()));
                blocking = Some(row);
            }
        }
    }
    Ok(())
}

/// What one way of waiting costs: two times in µs, and the ratio.
struct Row {
    plain: f64,
    poste: f64,
    ratio: f64,
}

impl Row {
    /// With the row of the blocking call, where there is one, to tell what polling costs.
    fn print(&self, scheme: &str, waiting: &str, blocking: Option<&Row>) -> String {
        let Row { plain, poste, ratio } = self;
        let row = format!("{scheme:<14} {waiting:<10} {plain:>8.2} {poste:>8.2} {ratio:>7.3}");
        match blocking {
            None => row,
            Some(blocking) => {
                let (plain, poste) = (plain / blocking.plain, poste / blocking.poste);
                format!("{row}   plain {plain:.3}, poste {poste:.3}")
            }
        }
    }
}

/// Runs both in turns.
fn compare(scheme: &str, waiting: &str) -> Outcome<Row> {
    let (mut plain, mut plain_child) = Plain::with_child(kind(scheme), waiting)?;
    let (mut poste, mut poste_child) = Poste::with_child(scheme, waiting)?;
    pin(0)?;
    let how = How::of(waiting);
    let (mut plains, mut postes, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS + 2 {
        let first = round_trips(&mut plain, how)?;
        let second = round_trips(&mut poste, how)?;
        if round >= 2 {
            plains.push(first);
            postes.push(second);
            ratios.push(second / first);
        }
    }
    for child in [&mut plain_child, &mut poste_child] {
        child.kill()?;
        child.wait()?;
    }
    let (there, back) = addresses(kind(scheme));
    for address in [there, back] {
        // A killed child leaves its socket; a port leaves nothing, and says so.
        let _ = poste::remove(address);
    }
    for queue in GONE.lock().map_err(|_| "poisoned")?.drain(..) {
        sysv::remove(queue)?;
    }
    let [plain, poste, ratio] = [&mut plains, &mut postes, &mut ratios].map(|v| median(v));
    Ok(Row { plain, poste, ratio })
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The mean of one round, in µs.
fn round_trips(end: &mut impl End, how: How) -> Outcome<f64> {
    let mut message = [7; SIZE];
    let start = Instant::now();
    for trip in 0..TRIPS {
        message[0] = trip as u8;
        end.send(&message)?;
        let first = end.recv(how)?;
        assert_eq!(first, trip as u8, "the echo is what was sent");
    }
    Ok(start.elapsed().as_secs_f64() * 1e6 / TRIPS as f64)
}

fn echo(end: &mut impl End, waiting: &str) -> Outcome<()> {
    pin(0)?;
    let how = How::of(waiting);
    loop {
        let first = end.recv(how)?;
        let mut message = [7; SIZE];
        message[0] = first;
        end.send(&message)?;
    }
}

fn pin(processor: usize) -> Outcome<()> {
    let mut set = CpuSet::new();
    set.set(processor);
    Ok(sched_setaffinity(None, &set)?)
}

#[derive(Clone, Copy, PartialEq)]
enum How {
    Blocking,
    Deadline,
}

impl How {
    fn of(waiting: &str) -> How {
        if waiting == "blocking" { How::Blocking } else { How::Deadline }
    }
}

const LIMIT: Duration = Duration::from_secs(20);

trait End {
    fn send(&mut self, message: &[u8; SIZE]) -> Outcome<()>;
    /// Receives a message of the right size: its first byte.
    fn recv(&mut self, how: How) -> Outcome<u8>;
}

/// poste's two ends.
struct Poste {
    sender: Sender,
    receiver: Receiver,
}

impl End for Poste {
    fn send(&mut self, message: &[u8; SIZE]) -> Outcome<()> {
        self.sender.send(message)?;
        Ok(())
    }

    fn recv(&mut self, how: How) -> Outcome<u8> {
        let message = match how {
            How::Blocking => self.receiver.recv()?,
            How::Deadline => self.receiver.recv_deadline(Instant::now() + LIMIT)?,
        };
        assert_eq!(message.len(), SIZE);
        Ok(message[0])
    }
}

impl Poste {
    fn with_child(scheme: &str, waiting: &str) -> Outcome<(Poste, Child)> {
        let mut command = Command::new(std::env::current_exe()?);
        if scheme == "pipe" {
            let (sender, theirs) = poste::pipe()?;
            let (back, receiver) = poste::pipe()?;
            command.args(["echo-poste", "fd:0 fd:1", waiting, scheme]);
            command.stdin(theirs.into_descriptor()?).stdout(back.into_descriptor()?);
            return Ok((Poste { sender, receiver }, command.spawn()?));
        }
        if kind(scheme) == "pair" {
            let (ours, theirs) = poste::pair_with(&options(scheme))?;
            let (sender, receiver) = ours.split();
            command.args(["echo-poste", "fd:0 fd:0", waiting, scheme]);
            let (theirs, _) = theirs.split();
            command.stdin(theirs.into_descriptor()?);
            return Ok((Poste { sender, receiver }, command.spawn()?));
        }
        let (there, back) = addresses(kind(scheme));
        let receiver = Receiver::open_with(&back, &options(scheme))?;
        let back = receiver.address().to_string();
        command.args(["echo-poste", &format!("{there} {back}"), waiting, scheme]);
        command.stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut real = String::new();
        let mut byte = [0];
        let mut output = child.stdout.take().ok_or("no output")?;
        while output.read(&mut byte)? == 1 && byte[0] != b'\n' {
            real.push(byte[0].into());
        }
        let sender = Sender::open_with(&real, &options(scheme))?;
        Ok((Poste { sender, receiver }, child))
    }

    fn in_child(addresses: &str, options: &Options) -> Outcome<Poste> {
        let (there, back) = addresses.split_once(' ').ok_or("two addresses")?;
        let receiver = Receiver::open_with(there, options)?;
        if !there.starts_with("fd:") {
            println!("{}", receiver.address());
            std::io::stdout().flush()?;
        }
        let sender = Sender::open_with(back, options)?;
        Ok(Poste { sender, receiver })
    }
}

fn addresses(scheme: &str) -> (String, String) {
    let process = std::process::id();
    let directory = std::env::temp_dir();
    let name = |way: &str| match scheme {
        "mq" => format!("mq:/poste-bench-{process}-{way}"),
        "sysv" => format!("sysv:0x{:x}", 0x7057_0000 + process * 2 + u32::from(way == "back")),
        "tcp" | "udp" => format!("{scheme}:127.0.0.1:0"),
        _ => format!("{scheme}:{}/poste-bench-{process}-{scheme}-{way}", directory.display()),
    };
    (name("there"), name("back"))
}

/// The same over plain system calls. The child has its ends as standard input and output; System V
/// queues, which have no descriptor, it opens by key.
struct Plain {
    calls: Calls,
    /// Where messages come from and go to; for System V these are of no use.
    ends: Option<Ends>,
    buffer: Vec<u8>,
}

enum Calls {
    /// read and write.
    ReadWrite {
        from: File,
        to: File,
    },
    /// recv and send, which std calls so on this type, whatever socket it is.
    SendRecv {
        from: UnixDatagram,
        to: UnixDatagram,
    },
    Posix,
    SystemV {
        from: sysv::Queue,
        to: sysv::Queue,
        letter: sysv::Letter,
    },
}

/// As large as a POSIX queue wants it, and as what poste reads at once.
const BUFFER: usize = 8192;

impl Plain {
    fn new(scheme: &str, ends: Ends) -> Outcome<Plain> {
        let (from, to) = (ends.0.try_clone()?, ends.1.try_clone()?);
        let calls = match scheme {
            "pipe" | "fifo" => Calls::ReadWrite { from: from.into(), to: to.into() },
            "mq" => Calls::Posix,
            _ => Calls::SendRecv { from: from.into(), to: to.into() },
        };
        Ok(Plain { calls, ends: Some(ends), buffer: vec![0; BUFFER] })
    }

    fn system_v(from: i32, to: i32) -> Outcome<Plain> {
        let calls = Calls::SystemV {
            from: sysv::open(from, 0o600)?,
            to: sysv::open(to, 0o600)?,
            letter: sysv::Letter::new(BUFFER),
        };
        Ok(Plain { calls, ends: None, buffer: Vec::new() })
    }

    fn with_child(scheme: &str, waiting: &str) -> Outcome<(Plain, Child)> {
        let mut command = Command::new(std::env::current_exe()?);
        if scheme == "sysv" {
            let key = 0x7058_0000 + std::process::id() as i32 * 2;
            let queues = (sysv::create(key, 0o600)?, sysv::create(key + 1, 0o600)?);
            let plain = Plain::system_v(key + 1, key)?;
            let mut child = command
                .args(["echo-plain", &format!("sysv:{key}:{}", key + 1), waiting])
                .stdout(Stdio::piped())
                .spawn()?;
            // It says so when it has opened them; they go with this process's last look at them.
            child.stdout.take().ok_or("no output")?.read_exact(&mut [0])?;
            GONE.lock().map_err(|_| "poisoned")?.extend([queues.0, queues.1]);
            return Ok((plain, child));
        }
        let (ours, theirs) = two_ends(scheme)?;
        let plain = Plain::new(scheme, ours)?;
        command.args(["echo-plain", scheme, waiting]).stdin(theirs.0).stdout(theirs.1);
        Ok((plain, command.spawn()?))
    }

    fn from_parent(scheme: &str) -> Outcome<Plain> {
        if let Some(keys) = scheme.strip_prefix("sysv:") {
            let (from, to) = keys.split_once(':').ok_or("two keys")?;
            let plain = Plain::system_v(from.parse()?, to.parse()?)?;
            print!("+");
            std::io::stdout().flush()?;
            return Ok(plain);
        }
        let copy = |number: i32| poste_sys::descriptor::copy(number);
        Plain::new(scheme, (copy(0)?, copy(1)?))
    }
}

/// System V queues to be removed at the end.
static GONE: std::sync::Mutex<Vec<sysv::Queue>> = std::sync::Mutex::new(Vec::new());

/// What one side receives from and sends to.
type Ends = (OwnedFd, OwnedFd);

/// Two one-way channels: our ends and the child's.
fn two_ends(scheme: &str) -> Outcome<(Ends, Ends)> {
    let (there_in, there_out) = one_way(scheme, "there")?;
    let (back_in, back_out) = one_way(scheme, "back")?;
    if scheme == "pair" {
        // One socket, both ways, as poste's pair is.
        return Ok(((there_in.try_clone()?, there_in), (there_out.try_clone()?, there_out)));
    }
    Ok(((back_in, there_out), (there_in, back_out)))
}

/// A channel: what receives, and what sends.
fn one_way(scheme: &str, way: &str) -> Outcome<Ends> {
    let process = std::process::id();
    let path = std::env::temp_dir().join(format!("poste-plain-{process}-{way}"));
    let flags = SocketFlags::CLOEXEC;
    let unix = |kind| -> Outcome<Ends> {
        let name = SocketAddrUnix::new(&path)?;
        let receiver = socket_with(AddressFamily::UNIX, kind, flags, None)?;
        bind(&receiver, &name)?;
        let sender = socket_with(AddressFamily::UNIX, kind, flags, None)?;
        if kind == SocketType::DGRAM {
            connect(&sender, &name)?;
            std::fs::remove_file(&path)?;
            return Ok((receiver, sender));
        }
        listen(&receiver, 1)?;
        connect(&sender, &name)?;
        std::fs::remove_file(&path)?;
        Ok((accept_with(&receiver, flags)?, sender))
    };
    match scheme {
        "pipe" => Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?),
        "pair" => Ok(socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?),
        "fifo" => {
            rustix::fs::mkfifoat(
                rustix::fs::CWD,
                &path,
                rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            )?;
            let both = std::fs::OpenOptions::new().read(true).write(true).open(&path)?;
            let writer = std::fs::OpenOptions::new().write(true).open(&path)?;
            let reader = std::fs::File::open(&path)?;
            drop(both);
            std::fs::remove_file(&path)?;
            Ok((reader.into(), writer.into()))
        }
        "mq" => {
            let name = std::ffi::CString::new(format!("/poste-plain-{process}-{way}"))?;
            let receiver = mqueue::create(&name, mqueue::Access::Receive, 0o600, 10, BUFFER)?;
            let sender = mqueue::open(&name, mqueue::Access::Send)?;
            mqueue::unlink(&name)?;
            Ok((receiver, sender))
        }
        "unix" => unix(SocketType::STREAM),
        "seqpacket" => unix(SocketType::SEQPACKET),
        "dgram" => unix(SocketType::DGRAM),
        "tcp" => {
            let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
            let sender = std::net::TcpStream::connect(listener.local_addr()?)?;
            let (receiver, _) = listener.accept()?;
            sender.set_nodelay(true)?;
            Ok((receiver.into(), sender.into()))
        }
        "udp" => {
            let receiver = std::net::UdpSocket::bind("127.0.0.1:0")?;
            let sender = std::net::UdpSocket::bind("127.0.0.1:0")?;
            sender.connect(receiver.local_addr()?)?;
            Ok((receiver.into(), sender.into()))
        }
        _ => Err("no such mechanism".into()),
    }
}

impl End for Plain {
    fn send(&mut self, message: &[u8; SIZE]) -> Outcome<()> {
        match (&mut self.calls, &self.ends) {
            (Calls::ReadWrite { to, .. }, _) => {
                to.write_all(message)?;
            }
            (Calls::SendRecv { to, .. }, _) => {
                to.send(message)?;
            }
            (Calls::Posix, Some((_, to))) => mqueue::send(to.as_fd(), message, 0, true)?,
            (Calls::SystemV { to, letter, .. }, _) => {
                letter.write(1, [message, &[]]);
                sysv::send(*to, letter, true)?;
            }
            _ => unreachable!("only System V has no descriptors"),
        }
        Ok(())
    }

    fn recv(&mut self, how: How) -> Outcome<u8> {
        if let (How::Deadline, Some((from, _))) = (how, &self.ends) {
            let end = Instant::now() + LIMIT;
            let left = Timespec::try_from(end.saturating_duration_since(Instant::now()))?;
            poll(&mut [PollFd::from_borrowed_fd(from.as_fd(), PollFlags::IN)], Some(&left))?;
        }
        let wait = how == How::Blocking;
        let size = match (&mut self.calls, &self.ends) {
            (Calls::ReadWrite { from, .. }, _) => from.read(&mut self.buffer[..])?,
            (Calls::SendRecv { from, .. }, _) => from.recv(&mut self.buffer[..])?,
            (Calls::Posix, Some((from, _))) => {
                mqueue::receive(from.as_fd(), &mut self.buffer, wait)?.0
            }
            (Calls::SystemV { from, letter, .. }, _) => {
                sysv::receive(*from, letter, 0, true)?;
                assert_eq!(letter.bytes().len(), SIZE);
                return Ok(letter.bytes()[0]);
            }
            _ => unreachable!("only System V has no descriptors"),
        };
        assert_eq!(size, SIZE);
        Ok(self.buffer[0])
    }
}
