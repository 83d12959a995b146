//! A log file goes line by line through each mechanism, from one process to another, and arrives as
//! it was: the same hash, the same order. Where the mechanism may lose, what was received and what
//! was counted as lost is what was sent, and each line stands at its place.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use libtest_mimic::Trial;
use poste::{Error, Kind, Receiver, Sender};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::again::{Helper, LIMIT, command, is_long};
use crate::place::Place;

/// How the lines go, and how the two processes meet.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    meeting: Meeting,
    manner: &'static str,
}

#[derive(Clone, Copy)]
enum Meeting {
    /// At an address that the receiver takes.
    Address,
    /// The other process has its end as its standard input.
    Inherited(fn() -> Result<(OwnedFd, Receiver), Error>),
    /// It is another thread.
    Inside,
}

/// Many lines with one call.
const FED: &str = "fed";
/// A line with one call.
const SENT: &str = "sent";
/// The same, with a mark at the end that is repeated until somebody saw it.
const MARKED: &str = "marked";

static WAYS: &[Way] = &[
    Way { name: "pipe", meeting: Meeting::Inherited(through_a_pipe), manner: FED },
    Way { name: "pair", meeting: Meeting::Inherited(through_a_pair), manner: FED },
    Way { name: "fd", meeting: Meeting::Inherited(through_a_descriptor), manner: SENT },
    Way { name: "fifo", meeting: Meeting::Address, manner: FED },
    Way { name: "mq", meeting: Meeting::Address, manner: SENT },
    Way { name: "sysv", meeting: Meeting::Address, manner: SENT },
    Way { name: "unix", meeting: Meeting::Address, manner: FED },
    Way { name: "unix-abstract", meeting: Meeting::Address, manner: SENT },
    Way { name: "seqpacket", meeting: Meeting::Address, manner: SENT },
    Way { name: "dgram", meeting: Meeting::Address, manner: SENT },
    Way { name: "tcp", meeting: Meeting::Address, manner: FED },
    Way { name: "udp", meeting: Meeting::Address, manner: MARKED },
    Way { name: "local", meeting: Meeting::Inside, manner: SENT },
];

/// One trial for each way.
pub(crate) fn trials() -> Vec<Trial> {
    let file = Arc::new(Mutex::new(None));
    let trial = |way: &Way| {
        let (way, file) = (*way, Arc::clone(&file));
        Trial::test(format!("log_lines::{}", way.name), move || {
            // Made by the first trial, and gone with the last.
            let mut made = file.lock().unwrap_or_else(PoisonError::into_inner);
            let log = Arc::clone(made.get_or_insert_with(|| Arc::new(Log::write())));
            drop(made);
            go(way, &log);
            Ok(())
        })
    };
    WAYS.iter().map(trial).collect()
}

fn go(way: Way, log: &Log) {
    match way.meeting {
        Meeting::Address => {
            let place = Place::new(way.name);
            let receiver = Receiver::create(&place.address).unwrap();
            let address = receiver.address().to_string();
            let words = [&address, log.path(), way.manner];
            let helper = Helper::start(command("send_lines", &words));
            receive(receiver, log, way.manner == MARKED);
            helper.finish();
        }
        Meeting::Inherited(open) => {
            let (theirs, receiver) = open().unwrap();
            let mut command = command("send_lines", &["fd:0", log.path(), way.manner]);
            command.stdin(theirs);
            let helper = Helper::start(command);
            receive(receiver, log, false);
            helper.finish();
        }
        Meeting::Inside => {
            let (sender, receiver) = poste::local().unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| send_over(sender, log.path(), way.manner));
                receive(receiver, log, false);
            });
        }
    }
}

fn through_a_pipe() -> Result<(OwnedFd, Receiver), Error> {
    let (sender, receiver) = poste::pipe()?;
    Ok((sender.into_descriptor()?, receiver))
}

fn through_a_pair() -> Result<(OwnedFd, Receiver), Error> {
    let (ours, theirs) = poste::pair()?;
    Ok((theirs.split().0.into_descriptor()?, ours.split().1))
}

/// Both ends find it as a descriptor that they were started with.
fn through_a_descriptor() -> Result<(OwnedFd, Receiver), Error> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    let receiver = Receiver::open(format!("fd:{}", ours.as_raw_fd()))?;
    Ok((theirs, receiver))
}

/// What no line is.
const MARK: &[u8] = b"\0the end";

/// The sending process.
pub(crate) fn send(address: &str, file: &str, manner: &str) {
    send_over(Sender::open(address).unwrap(), file, manner);
}

fn send_over(mut sender: Sender, file: &str, manner: &str) {
    let mut lines = Lines::of(file);
    while let Some(line) = lines.next() {
        if manner == FED {
            sender.feed(line).unwrap();
        } else {
            sender.send(line).unwrap();
        }
    }
    if manner == MARKED {
        // It fails when the receiver has seen one, and gone.
        while sender.send(MARK).is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    sender.close().unwrap();
}

/// The receiving process: what arrives is what the file has.
fn receive(mut receiver: Receiver, log: &Log, may_lose: bool) {
    let (mut hash, mut lines) = (Hash::default(), Lines::of(log.path()));
    let (mut received, mut read) = (0, 0);
    while may_lose || received < log.lines {
        let message = match receiver.recv_timeout(LIMIT) {
            Ok(message) => message,
            Err(error) => panic!("after {received} of {} lines: {error:?}", log.lines),
        };
        let number = message.sequence();
        if may_lose && *message == *MARK {
            assert!(number > log.lines);
            // This mark was received as well, and marks before it may be lost.
            assert_eq!(received + 1 + receiver.counters().lost, number);
            break;
        }
        received += 1;
        hash.add(&message);
        assert!(number > read, "line {number} after line {read}");
        assert!(may_lose || number == received, "line {number} instead of {received}");
        while read + 1 < number {
            lines.next();
            read += 1;
        }
        read += 1;
        assert!(lines.next() == Some(&message[..]), "line {read} is another");
    }
    let counters = receiver.counters();
    assert_eq!((counters.corrupt, counters.unfinished), (0, 0));
    if may_lose {
        assert!(received > 0);
        println!("{}: {received} lines received, {} lost", receiver.address(), counters.lost);
        return;
    }
    assert!(hash == log.hash, "the hash is another");
    assert_eq!(counters.lost, 0);
    let error = receiver.recv_timeout(Duration::from_millis(20)).unwrap_err();
    assert!(matches!(error.kind(), Kind::TimedOut | Kind::Disconnected), "{error:?}");
}

/// The lines of a file, without their ends.
struct Lines {
    file: BufReader<File>,
    line: Vec<u8>,
}

impl Lines {
    fn of(path: &str) -> Lines {
        Lines { file: BufReader::new(File::open(path).expect("the log file")), line: Vec::new() }
    }

    fn next(&mut self) -> Option<&[u8]> {
        self.line.clear();
        let count = self.file.read_until(b'\n', &mut self.line).expect("it can be read");
        (count > 0).then(|| &self.line[..count - 1])
    }
}

/// A log file, of which every run makes the same.
struct Log {
    path: PathBuf,
    lines: u64,
    hash: Hash,
    _place: Place,
}

impl Log {
    fn write() -> Log {
        let place = Place::new("file");
        let path = place.folder().join("log");
        let lines = if is_long() { 1_000_000 } else { 100_000 };
        let mut file = BufWriter::new(File::create(&path).expect("a file in our folder"));
        let (mut hash, mut line) = (Hash::default(), Vec::new());
        for number in 0..lines {
            line.clear();
            compose(&mut line, number);
            hash.add(&line);
            line.push(b'\n');
            file.write_all(&line).expect("room on the disk");
        }
        file.flush().expect("room on the disk");
        Log { path, lines, hash, _place: place }
    }

    fn path(&self) -> &str {
        self.path.to_str().expect("the temporary folder's name is text")
    }
}

const WORDS: [&str; 8] = [
    " GET /index.html",
    " 200",
    " retry",
    " user=m\u{fc}nch",
    " 12.5ms",
    " cache miss",
    " \t",
    " ok",
];

/// Writes a line of 20 to 300 bytes; now and then one is empty.
fn compose(line: &mut Vec<u8>, number: u64) {
    let mut random = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    random ^= random >> 29;
    if random % 97 == 0 {
        return;
    }
    let size = 20 + (random >> 8) as usize % 281;
    write!(line, "{:010} INFO", 1_773_000_000 + number / 40).expect("memory takes it");
    while line.len() < size {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(number | 1);
        line.extend_from_slice(WORDS[(random >> 61) as usize].as_bytes());
    }
    line.truncate(size);
}

/// FNV-1a over lines and their ends.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Hash(u64);

impl Default for Hash {
    fn default() -> Hash {
        Hash(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    fn add(&mut self, line: &[u8]) {
        for byte in line.iter().chain(b"\n") {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
