//! What is typed: the verbs, their flags and examples, and which of them contradict each other.
//!
//! Help, completions and man pages are made from here. clap's own errors become the two lines that
//! every failure has. What an address or an option means is not known here.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::{ContextKind, ErrorKind};
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::exit::{Code, Failure, Stop};
use crate::verb::tour::PeerArgs;
use crate::{duration, later};

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
    /// Make the object at an address
    #[command(after_help = CREATE_EXAMPLES)]
    Create(Create),
    /// Take objects away
    #[command(after_help = REMOVE_EXAMPLES)]
    Remove(Remove),
    /// Show what each mechanism can do
    #[command(after_help = CAPABILITIES_EXAMPLES)]
    Capabilities(Capabilities),
    /// Prove what each mechanism can do, with real processes, and measure what it costs
    #[command(after_help = TOUR_EXAMPLES)]
    Tour(Tour),
    /// One of the tour's own processes
    #[command(hide = true)]
    TourPeer(PeerArgs),
}

/// What `send` takes.
#[derive(Args, Debug)]
pub(crate) struct Send {
    /// Where to, as in mq:/jobs, fifo:./log, unix:/run/x or tcp:127.0.0.1:8888
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
    /// Take the object away at the end
    #[arg(long)]
    pub remove: bool,
    /// Which raw System V messages: 0 any, N that type, -N the lowest type up to N
    #[arg(long = "type", value_name = "N", allow_negative_numbers = true)]
    pub message_type: Option<i64>,
    #[command(flatten)]
    pub channel: Channel,
    #[arg(last = true, hide = true)]
    pub command: Vec<OsString>,
}

/// What `send` and `recv` have in common: how the channel is opened, and how long to wait.
#[derive(Args, Debug)]
pub(crate) struct Channel {
    /// For each message, as in 250ms, 5s, 2m; 0s: do not wait; without it: as long as it takes
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub timeout: Option<Duration>,
    /// No envelope: the mechanism's own bytes, for a peer that knows nothing of poste
    #[arg(long)]
    pub raw: bool,
    /// Raw, and the peer exchanges NUL-terminated strings
    #[arg(long)]
    pub c_string: bool,
    /// Make the object where it is absent
    #[arg(long)]
    pub create: bool,
    /// Take the socket's address and wait for others (what recv does by itself)
    #[arg(long, conflicts_with = "connect")]
    pub listen: bool,
    /// Go to the socket's address (what send does by itself)
    #[arg(long)]
    pub connect: bool,
    #[command(flatten)]
    pub attributes: Attributes,
}

/// What an object has when it is made.
#[derive(Args, Debug)]
pub(crate) struct Attributes {
    /// How much it holds: messages on mq, bytes elsewhere
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
  poste send --create mq:/hello 'good day' && poste recv --remove mq:/hello
  poste recv unix:./inbox & poste send --timeout 5s unix:./inbox hello; wait
  poste tour

Exit codes: 0 done, 1 failed, 2 usage, 69 nobody at the other end, 75 full,
124 timed out, 130 interrupted";

const SEND_EXAMPLES: &str = "\
Examples:
  poste send --create mq:/hello 'good day' && poste recv --remove mq:/hello
  poste send --create -p 9 sysv:0x6c urgent && poste recv --remove sysv:0x6c
  poste recv --create -n 2 fifo:./a & seq 2 | poste send --lines --create fifo:./a; wait";

const RECV_EXAMPLES: &str = "\
Examples:
  poste recv unix:./inbox & poste send --timeout 5s unix:./inbox hello; wait
  poste recv --create --json fifo:./a & poste send --create fifo:./a hi; wait
  poste recv --raw -f --timeout 10ms udp:127.0.0.1:0 || echo 'nobody wrote'";

const CREATE_EXAMPLES: &str = "\
Examples:
  poste create fifo:./log && poste remove fifo:./log
  poste create --capacity 4 --message-size 1K mq:/few && poste remove mq:/few";

const REMOVE_EXAMPLES: &str = "\
Examples:
  poste create fifo:./a; poste create fifo:./b; poste remove fifo:./a fifo:./b";

const CAPABILITIES_EXAMPLES: &str = "\
Examples:
  poste capabilities
  poste capabilities --json";

const TOUR_EXAMPLES: &str = "\
Examples:
  poste tour
  poste tour --only unix,tcp
  poste tour --json --only mq | cut -c 1-80";

/// Reads the command line.
pub(crate) fn parse() -> Result<Verb, Stop> {
    CommandLine::try_parse().map(|line| line.verb).map_err(stop)
}

/// Help and version are printed; everything else becomes the two lines.
fn stop(error: clap::Error) -> Stop {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // Nobody reads it any more: then there is nothing left to do, either.
        let _ = error.print();
        return Stop::Quiet;
    }
    Stop::Failed(usage(&error))
}

/// A usage error: clap's first paragraph is what failed; its tips, or the help, are the hint.
fn usage(error: &clap::Error) -> Failure {
    let context = |kind| error.get(kind).map(ToString::to_string);
    let refused = match error.kind() {
        ErrorKind::InvalidSubcommand => {
            context(ContextKind::InvalidSubcommand).and_then(|name| later::verb(&name))
        }
        ErrorKind::UnknownArgument => {
            context(ContextKind::InvalidArg).and_then(|name| later::option(&name))
        }
        _ => None,
    };
    if let Some(refused) = refused {
        return refused;
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Failure::new(Code::Usage, "the verb is missing", "the verbs: poste --help");
    }
    let text = error.render().to_string();
    let (first, rest) = text.split_once("\n\n").unwrap_or((&text, ""));
    let what = words(first.trim_start_matches("error: "));
    let tips: Vec<_> = rest.lines().filter_map(|line| line.trim().strip_prefix("tip: ")).collect();
    let usage = rest.lines().find_map(|line| line.trim().strip_prefix("Usage: "));
    let mut hints: Vec<_> = tips.iter().map(|tip| (*tip).to_owned()).collect();
    if let (Some(usage), true) = (usage, hints.is_empty()) {
        hints.push(format!("usage: {usage}"));
    }
    hints.push(format!("more: poste {}--help", verb_typed()));
    Failure::new(Code::Usage, what, hints.join("; "))
}

/// The verb that was typed, and a space; nothing where it is none.
fn verb_typed() -> String {
    let typed = std::env::args_os().nth(1).and_then(|word| word.into_string().ok());
    typed
        .filter(|word| CommandLine::command().find_subcommand(word).is_some())
        .map_or_else(String::new, |word| word + " ")
}

/// A text of several lines on one.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// An address as text: bytes that are no UTF-8 are spelt `%XX`, as addresses spell any byte.
fn address_text() -> impl clap::builder::TypedValueParser<Value = String> {
    use clap::builder::TypedValueParser as _;
    clap::builder::OsStringValueParser::new().map(|text: OsString| spell(&text))
}

fn spell(text: &OsStr) -> String {
    text.as_bytes().utf8_chunks().fold(String::new(), |mut spelt, chunk| {
        spelt.push_str(chunk.valid());
        for byte in chunk.invalid() {
            spelt.push_str(&format!("%{byte:02X}"));
        }
        spelt
    })
}

fn size(text: &str) -> Result<usize, String> {
    poste::parse_size(text).ok_or_else(|| "a size is written as 64, 8K or 1.5MiB".to_owned())
}

/// A priority of any height: what is too high for the mechanism fails later, and otherwise.
fn priority(text: &str) -> Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("a priority is a whole number from 0".to_owned());
    }
    Ok(text.parse().unwrap_or(u64::MAX))
}

fn count(text: &str) -> Result<u64, String> {
    text.parse().ok().filter(|&count| count > 0).ok_or_else(|| "count from 1".to_owned())
}

fn mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|&mode| mode <= 0o777 && text.bytes().all(|digit| digit.is_ascii_digit()))
        .ok_or_else(|| "permission bits are octal, as in 0600".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clap_finds_no_fault_with_it() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn any_byte_can_be_typed_in_an_address() {
        assert_eq!(spell(OsStr::from_bytes(b"fifo:a\xffb")), "fifo:a%FFb");
    }
}
