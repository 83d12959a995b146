//! From what was typed to what the library takes: addresses, options, times.
//!
//! What contradicts itself or belongs to the library alone is refused here, before anything is
//! opened; what a mechanism has no use for the library refuses.

use poste::mechanism::{self, Mechanism};
use poste::{Address, Options, Wait};

use crate::args::{Attributes, Channel, Recv, Send};
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
    if args.lines && !is_raw(&args.channel) {
        return Err(Failure::new(
            Code::Usage,
            "--lines says where raw messages end; poste's own know it",
            "leave --lines out, or add --raw",
        ));
    }
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
    let is_stream = !mechanism.capabilities.raw_boundaries;
    options = match mark(args) {
        Some(mark) if is_raw(channel) && is_stream => options.delimited(mark),
        _ if is_raw(channel) => options.raw(),
        _ => options,
    };
    let makes_name = !channel.connect && mechanism.capabilities.made_by_listening;
    Ok(Target { address, mechanism, options, makes_name })
}

/// Which byte ends a raw message on a byte stream, if one does.
fn mark(args: &Recv) -> Option<u8> {
    match (args.lines, args.null || args.channel.c_string) {
        (true, _) => Some(b'\n'),
        (_, true) => Some(0),
        _ => None,
    }
}

/// Whether the mechanism's own bytes are wanted.
pub(crate) fn is_raw(channel: &Channel) -> bool {
    channel.raw || channel.c_string
}

/// How long each message may take.
pub(crate) fn wait(channel: &Channel) -> Wait {
    channel.timeout.map_or(Wait::Forever, Wait::For)
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
