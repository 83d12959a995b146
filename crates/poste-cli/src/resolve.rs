//! From what was typed to what the library takes: addresses, options, times.
//!
//! What contradicts itself or belongs to the library alone is refused here, before anything is
//! opened; what a mechanism has no use for the library refuses.

use std::time::Duration;

use poste::mechanism::{self, Mechanism};
use poste::{Address, Options, Role, Wait};

use crate::args::{Attributes, Call, Channel, Printing, Recv, Relay, Reply, Send};
use crate::exit::{Code, Failure};
use crate::later;

/// Mechanisms without a name that a command could be given.
const LIBRARY_ONLY: &[&str] = &["local", "pair", "pipe"];

/// An address that exists as a mechanism, and how it is to be opened.
#[derive(Debug)]
pub(crate) struct Target {
    /// Where.
    pub address: Address,
    /// What it is made of.
    pub mechanism: &'static Mechanism,
    /// How.
    pub options: Options,
    /// The end that is opened makes the name, and takes it away when it closes.
    pub makes_name: bool,
}

/// Where a `send` goes.
pub(crate) fn sending(args: &Send) -> Result<Target, Failure> {
    let (address, mechanism) = place(&args.address)?;
    let channel = &args.channel;
    if args.message_type.is_some() {
        check_type(channel, mechanism)?;
    }
    let mut options = opening(channel);
    if is_raw(channel) {
        options = options.raw();
    }
    let makes_name = channel.listen && mechanism.capabilities.made_by_listening;
    Ok(Target { address, mechanism, options, makes_name })
}

/// Where a `recv` listens.
pub(crate) fn receiving(args: &Recv) -> Result<Vec<Target>, Failure> {
    check_lines(args.printing.lines, is_raw(&args.channel))?;
    args.addresses.iter().map(|text| receiving_one(args, text)).collect()
}

fn receiving_one(args: &Recv, text: &str) -> Result<Target, Failure> {
    let (address, mechanism) = place(text)?;
    let channel = &args.channel;
    let mut options = opening(channel);
    if let Some(message_type) = args.message_type {
        check_type(channel, mechanism)?;
        options = options.message_type(message_type);
    }
    if !args.follow {
        options = options.take(args.count.unwrap_or(1));
    }
    let options = framed(options, mechanism, is_raw(channel), mark(&args.printing, channel));
    let makes_name = !channel.connect && mechanism.capabilities.made_by_listening;
    Ok(Target { address, mechanism, options, makes_name })
}

/// Whom a `call` asks.
pub(crate) fn calling(args: &Call) -> Result<Target, Failure> {
    let channel = &args.channel;
    check_lines(args.printing.lines, is_raw(channel))?;
    let (address, mechanism) = place(&args.address)?;
    check_way_back(&address, mechanism)?;
    let can = &mechanism.capabilities;
    if args.half_close && can.named && !can.connections {
        return Err(Failure::new(
            Code::Usage,
            format!("{}: has no connection to close one half of", mechanism.scheme),
            "leave --half-close out",
        ));
    }
    let mark = mark(&args.printing, channel);
    let mut options = framed(opening(channel), mechanism, is_raw(channel), mark);
    if args.half_close {
        options = options.half_close();
    }
    let makes_name = channel.listen && mechanism.capabilities.made_by_listening;
    Ok(Target { address, mechanism, options, makes_name })
}

/// Where a `reply` is asked.
pub(crate) fn answering(args: &Reply) -> Result<Target, Failure> {
    let channel = &args.channel;
    check_lines(args.lines, is_raw(channel))?;
    let (address, mechanism) = place(&args.address)?;
    check_way_back(&address, mechanism)?;
    let mark = mark_of(args.lines, channel.c_string);
    let options = framed(opening(channel), mechanism, is_raw(channel), mark);
    let makes_name = !channel.connect && mechanism.capabilities.made_by_listening;
    Ok(Target { address, mechanism, options, makes_name })
}

/// Where a `relay` receives, and where it sends.
pub(crate) fn relaying(args: &Relay) -> Result<(Target, Target), Failure> {
    let is_raw = (args.raw || args.raw_from, args.raw || args.raw_to);
    check_lines(args.lines, is_raw.0 || is_raw.1)?;
    let role = args.connect.then_some(Role::Connect);
    let mut from = relaying_one(args, &args.from, is_raw.0, role)?;
    let role = args.listen.then_some(Role::Listen);
    let mut to = relaying_one(args, &args.to, is_raw.1, role)?;
    if from.address.bare() == to.address.bare() {
        return Err(Failure::new(
            Code::Usage,
            format!("cannot relay {} to itself: it would go round for ever", from.address),
            "give another address to send to",
        ));
    }
    if let Some(count) = args.count {
        from.options = from.options.take(count);
    }
    from.makes_name = !args.connect && from.mechanism.capabilities.made_by_listening;
    to.makes_name = args.listen && to.mechanism.capabilities.made_by_listening;
    Ok((from, to))
}

fn relaying_one(
    args: &Relay,
    text: &str,
    is_raw: bool,
    role: Option<Role>,
) -> Result<Target, Failure> {
    let (address, mechanism) = place(text)?;
    let mut options = Options::new().patience(args.timeout.map_or(Wait::Not, Wait::For));
    if args.create {
        options = options.create();
    }
    options = match role {
        Some(Role::Listen) => options.listen(),
        Some(Role::Connect) => options.connect(),
        None => options,
    };
    let options = framed(options, mechanism, is_raw, mark_of(args.lines, false));
    Ok(Target { address, mechanism, options, makes_name: false })
}

/// Where a `relay` accepts connections, and where it connects each of them to. What passes is not
/// looked at, so both have to mean the same by it.
pub(crate) fn relaying_both(args: &Relay) -> Result<(Target, Target), Failure> {
    let (from, to) = relaying(args)?;
    let refused = |what: String, hint: &str| Err(Failure::new(Code::Usage, what, hint));
    for end in [&from, &to] {
        if is_sealed(&end.address) {
            let what = format!("cannot join {}: sealed memory goes one way", end.address);
            return refused(what, "leave out sealed, or --both");
        }
        if !end.mechanism.capabilities.connections || !end.mechanism.capabilities.named {
            let what = format!("{}: has no connections that go both ways", end.address.scheme());
            return refused(what, "use unix:, seqpacket: or tcp:, or leave --both out");
        }
    }
    if args.raw_from || args.raw_to {
        let what = "--both relays connections as they are: no end can have an envelope alone";
        return refused(what.to_owned(), "give --raw, or neither of --raw-from and --raw-to");
    }
    let boundaries = |end: &Target| end.mechanism.capabilities.raw_boundaries;
    if boundaries(&from) != boundaries(&to) {
        let what = "--both cannot join a byte stream and packets";
        return refused(what.to_owned(), "use unix: and tcp:, or seqpacket: at both ends");
    }
    let raw = |end: Target| Target { options: end.options.raw(), ..end };
    Ok((raw(from), raw(to)))
}

/// The framing: raw where that was asked for, cut at the mark where bytes have no other boundaries.
fn framed(options: Options, mechanism: &Mechanism, is_raw: bool, mark: Option<u8>) -> Options {
    match mark {
        _ if !is_raw => options,
        Some(mark) if !mechanism.capabilities.raw_boundaries => options.delimited(mark),
        _ => options.raw(),
    }
}

fn check_lines(lines: bool, is_raw: bool) -> Result<(), Failure> {
    if !lines || is_raw {
        return Ok(());
    }
    Err(Failure::new(
        Code::Usage,
        "--lines says where raw messages end; poste's own know it",
        "leave --lines out, or add --raw",
    ))
}

/// Whether messages go through memory that only one side writes.
fn is_sealed(address: &Address) -> bool {
    address.options().iter().any(|(name, _)| name == "sealed")
}

/// Answers need a way back. What a descriptor has is seen when it is opened.
fn check_way_back(address: &Address, mechanism: &Mechanism) -> Result<(), Failure> {
    if is_sealed(address) {
        return Err(Failure::new(
            Code::Usage,
            format!("cannot call over {address}: sealed memory goes one way"),
            "leave out sealed",
        ));
    }
    let can = &mechanism.capabilities;
    if can.way_back || !can.named { Ok(()) } else { Err(later::calls(mechanism.scheme)) }
}

/// Which byte ends a raw message on a byte stream, if one does.
fn mark(printing: &Printing, channel: &Channel) -> Option<u8> {
    mark_of(printing.lines, printing.null || channel.c_string)
}

fn mark_of(lines: bool, null: bool) -> Option<u8> {
    match (lines, null) {
        (true, _) => Some(b'\n'),
        (_, true) => Some(0),
        _ => None,
    }
}

/// What ends a raw body on its way out: the NUL of a C string; on a byte stream a line's line feed.
pub(crate) fn ending(lines: bool, c_string: bool, mechanism: &Mechanism) -> &'static [u8] {
    match (lines, c_string) {
        (true, _) if !mechanism.capabilities.raw_boundaries => b"\n",
        (_, true) => b"\0",
        _ => b"",
    }
}

/// Whether the mechanism's own bytes are wanted.
pub(crate) fn is_raw(channel: &Channel) -> bool {
    channel.raw || channel.c_string
}

/// How long each message may take.
pub(crate) fn wait(channel: &Channel) -> Wait {
    within(channel.timeout)
}

/// How long `--timeout` allows: `0s` is not to wait at all.
pub(crate) fn within(timeout: Option<Duration>) -> Wait {
    match timeout {
        None => Wait::Forever,
        Some(Duration::ZERO) => Wait::Not,
        Some(time) => Wait::For(time),
    }
}

/// An address that a command can use, and its mechanism.
pub(crate) fn place(text: &str) -> Result<(Address, &'static Mechanism), Failure> {
    let address = Address::parse(text).map_err(|error| error.on("read", &text))?;
    let scheme = address.scheme();
    if LIBRARY_ONLY.contains(&scheme) {
        return Err(Failure::new(
            Code::Usage,
            format!("cannot use {address}: {scheme}: belongs to programs that use the library"),
            "a descriptor that the shell hands over is fd:N, as in: poste recv --raw fd:0",
        ));
    }
    match mechanism::find(scheme) {
        Some(mechanism) => Ok((address, mechanism)),
        None => Err(later::mechanism(scheme).unwrap_or_else(|| unknown(&address))),
    }
}

fn unknown(address: &Address) -> Failure {
    let known: Vec<_> = mechanism::ALL
        .iter()
        .map(|mechanism| mechanism.scheme)
        .filter(|scheme| !LIBRARY_ONLY.contains(scheme))
        .collect();
    Failure::new(
        Code::Usage,
        format!("cannot use {address}: no mechanism is called {}", address.scheme()),
        format!("there are {}", known.join(", ")),
    )
}

/// The attributes of what is made.
pub(crate) fn attributes(attributes: &Attributes) -> Options {
    let mut options = Options::new();
    if let Some(capacity) = attributes.capacity {
        options = options.capacity(capacity);
    }
    if let Some(size) = attributes.message_size {
        options = options.message_size(size);
    }
    if let Some(mode) = attributes.mode {
        options = options.mode(mode);
    }
    options
}

/// How an end is opened, but for its framing. Opening tries for as long as a message may take; that
/// somebody is there at once is asked of sockets only where no time is given.
fn opening(channel: &Channel) -> Options {
    let mut options = attributes(&channel.attributes);
    if channel.create {
        options = options.create();
    }
    if channel.listen {
        options = options.listen();
    }
    if channel.connect {
        options = options.connect();
    }
    options.patience(channel.timeout.map_or(Wait::Not, Wait::For))
}

/// Message types belong to raw System V messages.
fn check_type(channel: &Channel, mechanism: &Mechanism) -> Result<(), Failure> {
    if !mechanism.settings.contains(&"type") {
        return Err(Failure::new(
            Code::Usage,
            format!("{}: messages have no type", mechanism.scheme),
            "leave --type out, or use sysv:",
        ));
    }
    if !is_raw(channel) {
        return Err(Failure::new(
            Code::Usage,
            "--type belongs to raw messages; poste uses types of its own",
            "add --raw, or use --priority",
        ));
    }
    Ok(())
}
