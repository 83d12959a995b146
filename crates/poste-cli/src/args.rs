//! What is typed: the verbs, their flags and examples, and which of them contradict each other.
//!
//! Help, completions and man pages are made from here. clap's own errors become the two lines that
//! every failure has. What an address or an option means is not known here.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use self::direct::{Memory, Semaphore};
use self::values::{address_text, count, mode, priority, size};
use crate::duration;
use crate::exit::Stop;
use crate::verb::tour::PeerArgs;

pub(crate) mod direct;
mod usage;
mod values;

/// Pass messages over every mechanism of this machine.
#[derive(Debug, Parser)]
#[command(name = "poste", version, after_help = ROOT_EXAMPLES, max_term_width = 100)]
struct CommandLine {
    #[command(subcommand)]
    verb: Verb,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Send messages to an address
    #[command(after_help = SEND_EXAMPLES)]
    Send(Send),
    /// Receive messages from one address or several
    #[command(after_help = RECV_EXAMPLES)]
    Recv(Recv),
    /// Ask a question and print the answer
    #[command(after_help = CALL_EXAMPLES)]
    Call(Call),
    /// Answer questions
    #[command(after_help = REPLY_EXAMPLES)]
    Reply(Reply),
    /// Move messages from one address to another
    #[command(after_help = RELAY_EXAMPLES)]
    Relay(Relay),
    /// Make the object at an address
    #[command(after_help = CREATE_EXAMPLES)]
    Create(Create),
    /// Take objects away
    #[command(after_help = REMOVE_EXAMPLES)]
    Remove(Remove),
    /// List the objects of this machine, whoever made them
    #[command(after_help = LIST_EXAMPLES, visible_alias = "ls")]
    List(List),
    /// Show all that is known of one object
    #[command(after_help = INFO_EXAMPLES)]
    Info(Info),
    /// Show the system's limits, what is used of them, and what raises them
    #[command(after_help = LIMITS_EXAMPLES)]
    Limits(Limits),
    /// Find what the dead have left, and take it away
    #[command(after_help = GC_EXAMPLES)]
    Gc(Gc),
    /// Show what each mechanism can do
    #[command(after_help = CAPABILITIES_EXAMPLES)]
    Capabilities(Capabilities),
    /// POSIX semaphores: permits that processes take and give
    #[command(subcommand, after_help = SEMAPHORE_EXAMPLES)]
    Semaphore(Semaphore),
    /// POSIX shared memory: bytes that processes share
    #[command(subcommand, after_help = MEMORY_EXAMPLES)]
    Memory(Memory),
    /// Prove what each mechanism can do, with real processes, and measure what it costs
    #[command(after_help = TOUR_EXAMPLES)]
    Tour(Tour),
    /// One of the tour's own processes
    #[command(hide = true)]
    TourPeer(PeerArgs),
    /// Print what a shell needs to complete these words
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(Completions),
    /// Print the manual
    #[command(after_help = MAN_EXAMPLES)]
    Man(Man),
}

/// What `send` takes.
#[derive(Args, Debug)]
pub(crate) struct Send {
    /// Where to, as in jobs (a mailbox), mq:/jobs, fifo:./log, unix:/run/x or tcp:127.0.0.1:8888
    #[arg(value_parser = address_text())]
    pub address: String,
    /// The body; without it and without --file, standard input is sent as one message
    #[arg(allow_hyphen_values = false, conflicts_with_all = ["file", "lines", "null"])]
    pub body: Option<OsString>,
    /// Send what this file holds (- is standard input)
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Send one message per line
    #[arg(long, conflicts_with = "null")]
    pub lines: bool,
    /// Send one message per NUL-terminated record
    #[arg(short = '0', long)]
    pub null: bool,
    /// 0 (default) to 31, mq: to 32767; the higher first
    #[arg(short, long, value_name = "N", value_parser = priority, default_value = "0")]
    pub priority: u64,
    /// Send the same message so many times
    #[arg(long, value_name = "N", value_parser = count, conflicts_with_all = ["lines", "null"])]
    pub count: Option<u64>,
    /// The type of a raw System V message, from 1
    #[arg(long = "type", value_name = "N", conflicts_with = "priority")]
    #[arg(value_parser = clap::value_parser!(i64).range(1..))]
    pub message_type: Option<i64>,
    #[command(flatten)]
    pub channel: Channel,
}

/// What `recv` takes.
#[derive(Args, Debug)]
pub(crate) struct Recv {
    /// Where from; of several, whichever has a message
    #[arg(required = true, value_name = "ADDRESS", value_parser = address_text())]
    pub addresses: Vec<String>,
    /// Receive so many messages
    #[arg(short = 'n', long, value_name = "N", value_parser = count, conflicts_with = "follow")]
    pub count: Option<u64>,
    /// Receive for ever
    #[arg(short, long)]
    pub follow: bool,
    #[command(flatten)]
    pub printing: Printing,
    /// Take the object away at the end
    #[arg(long)]
    pub remove: bool,
    /// Which raw System V messages: 0 any, N that type, -N the lowest type up to N
    #[arg(long = "type", value_name = "N", allow_negative_numbers = true)]
    pub message_type: Option<i64>,
    #[command(flatten)]
    pub channel: Channel,
    /// Run this for each message, with the body on its standard input
    #[arg(last = true, value_name = "COMMAND", conflicts_with_all = ["format", "json"])]
    pub command: Vec<OsString>,
}

/// How messages are printed, and where raw ones end.
#[derive(Args, Debug)]
pub(crate) struct Printing {
    /// How bodies are printed
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
    /// The same as --format json: one object per line
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
    /// End each message with NUL; with --raw on a byte stream, messages end at NUL too
    #[arg(short = '0', long, conflicts_with = "lines")]
    pub null: bool,
    /// With --raw on a byte stream: a message is a line
    #[arg(long)]
    pub lines: bool,
}

/// What `call` takes.
#[derive(Args, Debug)]
pub(crate) struct Call {
    /// Whom to ask, as in unix:/run/x or tcp:127.0.0.1:8888
    #[arg(value_parser = address_text())]
    pub address: String,
    /// The question; without it and without --file, standard input is
    #[arg(allow_hyphen_values = false, conflicts_with = "file")]
    pub body: Option<OsString>,
    /// Ask what this file holds (- is standard input)
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// When the question is sent, close this half: for peers that read up to the end first
    #[arg(long)]
    pub half_close: bool,
    #[command(flatten)]
    pub printing: Printing,
    #[command(flatten)]
    pub channel: Channel,
}

/// What `reply` takes.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("answer").required(true).args(["echo", "body", "command"]))]
pub(crate) struct Reply {
    /// Where to be asked
    #[arg(value_parser = address_text())]
    pub address: String,
    /// The answer is the question
    #[arg(long)]
    pub echo: bool,
    /// The answer is this text
    #[arg(long, value_name = "TEXT")]
    pub body: Option<OsString>,
    /// The answer is what this prints, with the question on its standard input
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
    /// Answer so many questions; without it, for ever
    #[arg(short = 'n', long, value_name = "N", value_parser = count)]
    pub count: Option<u64>,
    /// With --raw on a byte stream: questions and answers are lines
    #[arg(long)]
    pub lines: bool,
    #[command(flatten)]
    pub channel: Channel,
}

/// What `relay` takes.
#[derive(Args, Debug)]
pub(crate) struct Relay {
    /// Where messages are received; a socket is listened on
    #[arg(value_parser = address_text())]
    pub from: String,
    /// Where they are sent; a socket is connected to
    #[arg(value_parser = address_text())]
    pub to: String,
    /// Also from TO to FROM: each connection to FROM gets one to TO
    #[arg(long, conflicts_with_all = ["connect", "listen", "count"])]
    pub both: bool,
    /// No envelope at either end
    #[arg(long, conflicts_with_all = ["raw_from", "raw_to"])]
    pub raw: bool,
    /// No envelope at FROM
    #[arg(long, conflicts_with = "raw_to")]
    pub raw_from: bool,
    /// No envelope at TO
    #[arg(long)]
    pub raw_to: bool,
    /// Where a byte stream is raw: messages are lines
    #[arg(long)]
    pub lines: bool,
    /// Relay so many messages
    #[arg(short = 'n', long, value_name = "N", value_parser = count)]
    pub count: Option<u64>,
    /// For each message, and for TO to be there at the beginning
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub timeout: Option<Duration>,
    /// Make queues and FIFOs that are absent
    #[arg(long)]
    pub create: bool,
    /// Connect to FROM instead of listening on it
    #[arg(long)]
    pub connect: bool,
    /// Listen on TO instead of connecting to it
    #[arg(long)]
    pub listen: bool,
}

/// What `send`, `recv`, `call` and `reply` have in common: how the channel is opened, and how long to wait.
#[derive(Args, Debug)]
pub(crate) struct Channel {
    /// For each message, as in 250ms, 5s, 2m; 0s: do not wait; without it: as long as it takes
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub timeout: Option<Duration>,
    /// No envelope: the mechanism's own bytes, for a peer that knows nothing of poste
    #[arg(long)]
    pub raw: bool,
    /// Raw, and the peer exchanges NUL-terminated strings: one NUL is added to what is sent, and
    /// what comes ends at its first
    #[arg(long)]
    pub c_string: bool,
    /// Make the object where it is absent
    #[arg(long)]
    pub create: bool,
    /// Take the socket's address and wait for others (what recv and reply do by themselves)
    #[arg(long, conflicts_with = "connect")]
    pub listen: bool,
    /// Go to the socket's address (what send and call do by themselves)
    #[arg(long)]
    pub connect: bool,
    #[command(flatten)]
    pub attributes: Attributes,
}

/// What an object has when it is made.
#[derive(Args, Debug)]
pub(crate) struct Attributes {
    /// How much it holds: messages on mq, and on shm from each sender at once; else bytes
    #[arg(long, value_name = "N", value_parser = size)]
    pub capacity: Option<usize>,
    /// The largest message, as in 64, 8K, 1MiB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub message_size: Option<usize>,
    /// Permission bits in octal [default: 0600]
    #[arg(long, value_name = "MODE", value_parser = mode)]
    pub mode: Option<u32>,
}

/// What `create` takes.
#[derive(Args, Debug)]
pub(crate) struct Create {
    /// Where
    #[arg(value_parser = address_text())]
    pub address: String,
    #[command(flatten)]
    pub attributes: Attributes,
}

/// What `remove` takes.
#[derive(Args, Debug)]
pub(crate) struct Remove {
    /// Which objects
    #[arg(required = true, value_name = "ADDRESS", value_parser = address_text())]
    pub addresses: Vec<String>,
}

/// What `list` takes.
#[derive(Args, Debug)]
pub(crate) struct List {
    /// Only those of one mechanism, by its scheme
    #[arg(long, value_name = "NAME")]
    pub mechanism: Option<String>,
    /// One JSON object per line
    #[arg(long)]
    pub json: bool,
}

/// What `info` takes.
#[derive(Args, Debug)]
pub(crate) struct Info {
    /// Which object
    #[arg(value_parser = address_text())]
    pub address: String,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

/// What `limits` takes.
#[derive(Args, Debug)]
pub(crate) struct Limits {
    /// One JSON object per line
    #[arg(long)]
    pub json: bool,
}

/// What `gc` takes.
#[derive(Args, Debug)]
pub(crate) struct Gc {
    /// Take it away; without this it is only shown
    #[arg(long)]
    pub yes: bool,
    /// One JSON object per line
    #[arg(long)]
    pub json: bool,
}

/// What `completions` takes.
#[derive(Args, Debug)]
pub(crate) struct Completions {
    /// Which shell
    #[arg(value_enum)]
    pub shell: CompletedShell,
}

/// The shells that words are completed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompletedShell {
    /// The GNU shell
    Bash,
    /// The Z shell
    Zsh,
    /// The friendly interactive shell
    Fish,
}

/// What `man` takes.
#[derive(Args, Debug)]
pub(crate) struct Man {
    /// Write a page for each verb into this directory instead
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

/// What `capabilities` takes.
#[derive(Args, Debug)]
pub(crate) struct Capabilities {
    /// One JSON object per line
    #[arg(long)]
    pub json: bool,
}

/// What `tour` takes.
#[derive(Args, Debug)]
pub(crate) struct Tour {
    /// Visit these mechanisms only, as in mq,sysv
    #[arg(long, value_name = "SCHEME", num_args = 1.., value_delimiter = ',')]
    pub only: Vec<String>,
    /// One JSON object per mechanism
    #[arg(long)]
    pub json: bool,
    /// The tour's own directory: it starts itself again with this
    #[arg(long, hide = true, value_name = "DIRECTORY")]
    pub inside: Option<PathBuf>,
}

/// How a message is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// The body and a newline
    Text,
    /// The body's bytes and nothing else
    Exact,
    /// One line in double quotes
    Quoted,
    /// Lower-case hexadecimal
    Hex,
    /// One JSON object
    Json,
}

// Each line works as typed in a shell; none is so long that a terminal of 80 columns breaks it.

const ROOT_EXAMPLES: &str = "\
Examples:
  poste send --create jobs 'good day' && poste recv --remove jobs
  poste recv unix:./inbox & poste send --timeout 5s unix:./inbox hello; wait
  poste tour

A bare word is a mailbox in shared memory: jobs is shm:jobs.

Exit codes: 0 done, 1 failed, 2 usage, 69 nobody at the other end, 75 full,
124 timed out, 130 interrupted";

const SEND_EXAMPLES: &str = "\
Examples:
  poste send --create jobs 'good day' && poste recv --remove jobs
  poste send --create mq:/hello 'good day' && poste recv --remove mq:/hello
  poste send --create -p 9 sysv:0x6c urgent && poste recv --remove sysv:0x6c
  poste recv --create -n 2 fifo:./a & seq 2 | poste send --lines --create fifo:./a; wait";

const RECV_EXAMPLES: &str = "\
Examples:
  poste recv unix:./inbox & poste send --timeout 5s unix:./inbox hello; wait
  poste recv --create --json fifo:./a & poste send --create fifo:./a hi; wait
  poste recv --raw -f --timeout 10ms udp:127.0.0.1:0 || echo 'nobody wrote'
  poste send --create todo resize; poste recv --remove todo -- tr a-z A-Z
  poste recv unix:./jobs -- tr a-z A-Z & poste send --timeout 5s unix:./jobs hi; wait
  poste recv 'unix:./m?sealed' & poste send --timeout 5s 'unix:./m?sealed' hi; wait

A message is acknowledged when COMMAND ends with 0. Otherwise, and if this program
is killed, a mailbox (shm:) hands it out again, to any receiver, with
POSTE_REDELIVERED=1; made with ?deliveries=N it does so N times in all and then
sets the message aside, where poste info shows it. Elsewhere it is lost.

With ?sealed at both ends, messages at unix: and seqpacket: go through memory that
neither side can cut short under the other: for two that don't trust each other.";

const CALL_EXAMPLES: &str = "\
Examples:
  poste call --timeout 5s unix:./q hello & poste reply -n 1 --echo unix:./q; wait
  poste call --timeout 5s unix:./up hi & poste reply -n 1 unix:./up -- tr a-z A-Z; wait";

const REPLY_EXAMPLES: &str = "\
Examples:
  poste reply -n 1 --body pong unix:./p & poste call --timeout 5s unix:./p ping; wait
  poste reply -n 1 unix:./wc -- wc -c & poste call --timeout 5s unix:./wc hello; wait";

const RELAY_EXAMPLES: &str = "\
Examples:
  poste relay -n 1 --raw-from --lines --create fd:0 mq:/a </etc/passwd; poste recv --remove mq:/a
  poste relay --timeout 10ms --create fifo:./in mq:/out || poste remove fifo:./in mq:/out";

const CREATE_EXAMPLES: &str = "\
Examples:
  poste create 'work?deliveries=3' && poste remove work
  poste create fifo:./log && poste remove fifo:./log
  poste create --capacity 4 --message-size 1K mq:/few && poste remove mq:/few

A mailbox is made with ?deliveries=N so that a message given back N times is set
aside, and with ?huge-pages so that messages lie on pages of 2 MiB; where the
kernel gives none, that is an error.";

const REMOVE_EXAMPLES: &str = "\
Examples:
  poste create fifo:./a; poste create fifo:./b; poste remove fifo:./a fifo:./b";

const LIST_EXAMPLES: &str = "\
Examples:
  poste list
  poste ls --mechanism mq
  poste list --json --mechanism unix";

const INFO_EXAMPLES: &str = "\
Examples:
  poste send --create box hello && poste info box && poste remove box
  poste create mq:/jobs && poste info mq:/jobs && poste remove mq:/jobs
  poste create sysv:0x6d; poste info --json sysv:0x6d; poste remove sysv:0x6d";

const LIMITS_EXAMPLES: &str = "\
Examples:
  poste limits
  poste limits --json";

const GC_EXAMPLES: &str = "\
Examples:
  poste gc
  poste gc --yes

It takes away what poste's dead have left: sockets, locks, half-made objects.
Queues, FIFOs and mailboxes stay, with their messages, until they are removed.";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  poste completions bash > poste.bash
  poste completions zsh > _poste
  poste completions fish > poste.fish";

const MAN_EXAMPLES: &str = "\
Examples:
  poste man > poste.1
  poste man --directory ./pages";

const CAPABILITIES_EXAMPLES: &str = "\
Examples:
  poste capabilities
  poste capabilities --json";

const SEMAPHORE_EXAMPLES: &str = "\
Examples:
  poste semaphore hold --create s1 -- date && poste semaphore remove s1
  poste semaphore create --value 3 s2 && poste semaphore remove s2";

const MEMORY_EXAMPLES: &str = "\
Examples:
  poste memory write m1 hello && poste memory read m1 && poste memory remove m1";

const TOUR_EXAMPLES: &str = "\
Examples:
  poste tour
  poste tour --only unix,tcp
  poste tour --json --only mq | cut -c 1-80";

/// All of it, for what is made from it.
pub(crate) fn command() -> clap::Command {
    CommandLine::command()
}

/// Reads the command line.
pub(crate) fn parse() -> Result<Verb, Stop> {
    CommandLine::try_parse().map(|line| line.verb).map_err(usage::stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clap_finds_no_fault_with_it() {
        CommandLine::command().debug_assert();
    }
}
