//! `poste send`: sends a body, a file, or one message per line.
//!
//! With `--timeout` each message is sent by itself, so that each has its own time. Without it
//! messages are fed in batches, which are sent before the program waits for more input.

use poste::limits::RAW_PACKET_MAX;
use poste::{Level, Outgoing, Sender, Wait};

use crate::args::Send;
use crate::exit::{Code, Failure, Stop};
use crate::input::{CHUNK, Input, Stream};
use crate::resolve::{self, Target};
use crate::{notice, signals};

/// Opens the input and the channel, and sends what there is.
pub(crate) fn run(args: &Send) -> Result<(), Stop> {
    let target = resolve::sending(args)?;
    let priority = priority(args, &target)?;
    let input = Input::open(args.body.as_ref(), args.file.as_ref())?;
    let mut post = Post::open(args, &target, priority)?;
    let sent = send(args, &target, input, &mut post).and_then(|()| post.flush());
    post.close();
    signals::forget_all();
    sent
}

/// Sends the input in the way that the arguments and the mechanism ask for.
fn send(args: &Send, target: &Target, input: Input, post: &mut Post) -> Result<(), Stop> {
    let is_raw_stream = args.channel.raw && !target.mechanism.capabilities.raw_boundaries;
    let plain = is_raw_stream && !args.channel.c_string;
    match (input, mark(args)) {
        (Input::Argument(body), _) => post.repeat(&body, args.count),
        // On a byte stream raw lines keep their marks: nothing has to be cut up.
        (Input::Stream(stream), Some(_)) if plain => copy(stream, post),
        (Input::Stream(stream), None) if plain && args.count.is_none() => copy(stream, post),
        (Input::Stream(stream), Some(mark)) => records(stream, mark, target, post),
        (Input::Stream(mut stream), None) => {
            let sender = &post.sender;
            let body =
                stream.read_whole(body_max(sender), |input| beyond(sender, target, input))?;
            post.repeat(&body, args.count)
        }
    }
}

/// Which byte ends a message in the input, if one does.
fn mark(args: &Send) -> Option<u8> {
    match (args.lines, args.null) {
        (true, _) => Some(b'\n'),
        (_, true) => Some(0),
        _ => None,
    }
}

/// Bytes as they come.
fn copy(mut stream: Stream, post: &mut Post) -> Result<(), Stop> {
    let mut chunk = vec![0; CHUNK];
    loop {
        match stream.read(&mut chunk)? {
            [] => return Ok(()),
            bytes => post.send(bytes)?,
        }
        // All of the input is for one receiver.
        post.goes_on = true;
    }
}

/// One message for what stands before each mark; what stands after the last one is a message too.
fn records(mut stream: Stream, mark: u8, target: &Target, post: &mut Post) -> Result<(), Stop> {
    let limit = body_max(&post.sender);
    let mut chunk = vec![0; CHUNK];
    let mut begun = Vec::new();
    loop {
        if !stream.is_ready() {
            post.flush()?;
        }
        let mut rest = stream.read(&mut chunk)?;
        if rest.is_empty() {
            break;
        }
        while let Some(at) = rest.iter().position(|byte| *byte == mark) {
            if begun.is_empty() {
                post.post(&rest[..at])?;
            } else {
                begun.extend_from_slice(&rest[..at]);
                post.post(&begun)?;
                begun.clear();
            }
            rest = &rest[at + 1..];
        }
        begun.extend_from_slice(rest);
        if begun.len() > limit {
            // Too large already, wherever it ends. What was fed before it is sent.
            post.flush()?;
            let record = if mark == b'\n' { "a line" } else { "a record" };
            let input = format!("{record} of {}", stream.name());
            return Err(beyond(&post.sender, target, &input).into());
        }
    }
    if begun.is_empty() { Ok(()) } else { post.post(&begun) }
}

/// The priority, which is no larger than any mechanism's; the library knows this one's.
fn priority(args: &Send, target: &Target) -> Result<u16, Failure> {
    u16::try_from(args.priority).map_err(|_| {
        let max = target.mechanism.capabilities.priorities.max();
        Failure::new(
            Code::Failed,
            format!("cannot send to {}: the priority is above the highest, {max}", target.address),
            format!("use a priority from 0 to {max}"),
        )
    })
}

/// The largest body that is worth reading: what is larger is refused.
pub(super) fn body_max(sender: &Sender) -> usize {
    match sender.facts().message_size {
        usize::MAX => RAW_PACKET_MAX,
        size => size,
    }
}

/// An input that is larger than any message, by how much isn't known.
pub(super) fn beyond(sender: &Sender, target: &Target, input: &str) -> Failure {
    let (address, limit) = (sender.address(), body_max(sender));
    let can = sender.capabilities();
    // A raw packet is as large as the socket's buffer allows.
    let is_of_buffer = can.pieces && can.raw_boundaries && !can.network;
    let of_buffer = format!(
        "allow it: {}?capacity=SIZE (up to net.core.wmem_max), or send less at once",
        address.bare()
    );
    let hint = if can.pieces && !target.options.is_raw() {
        "send it in several messages (--lines), raw (--raw), or allow larger ones at both ends \
         (--message-size)"
    } else if is_of_buffer {
        &of_buffer
    } else if target.mechanism.settings.contains(&"message-size") && !can.network {
        "make the channel anew with a larger message size (--message-size), or send less at once"
    } else {
        "send less at once, or use a mechanism that cuts messages up, such as unix:"
    };
    let what = format!(
        "cannot send to {address}: {input} has more than {limit} bytes, the limit is {limit}"
    );
    Failure::new(Code::Failed, what, hint)
}

/// A sender, and what all its messages have in common.
#[derive(Debug)]
struct Post {
    sender: Sender,
    wait: Wait,
    priority: u16,
    message_type: Option<i64>,
    /// Ends each message with NUL, in this memory.
    c_string: Option<Vec<u8>>,
    /// What is sent next goes on with what was sent before.
    goes_on: bool,
    /// The time was over in the middle of a message.
    is_cut: bool,
}

impl Post {
    fn open(args: &Send, target: &Target, priority: u16) -> Result<Post, Stop> {
        if target.makes_name {
            signals::remove_made_at_end(&target.address);
        }
        let sender = Sender::open_with(target.address.to_string(), &target.options)?;
        notice::opened(&target.address, sender.address(), sender.capabilities());
        Ok(Post {
            sender,
            wait: resolve::wait(&args.channel),
            priority,
            message_type: args.message_type,
            c_string: args.channel.c_string.then(Vec::new),
            goes_on: false,
            is_cut: false,
        })
    }

    /// Posts a message so many times.
    fn repeat(&mut self, body: &[u8], count: Option<u64>) -> Result<(), Stop> {
        (0..count.unwrap_or(1)).try_for_each(|_| self.post(body))
    }

    /// Posts a message: by itself where it has a time of its own, else with others.
    fn post(&mut self, body: &[u8]) -> Result<(), Stop> {
        let Some(mut string) = self.c_string.take() else { return self.post_as_is(body) };
        string.clear();
        string.extend_from_slice(body);
        string.push(0);
        let posted = self.post_as_is(&string);
        self.c_string = Some(string);
        posted
    }

    fn post_as_is(&mut self, body: &[u8]) -> Result<(), Stop> {
        if self.wait != Wait::Forever {
            return self.send(body);
        }
        match self.sender.feed(outgoing(body, self.priority, self.message_type)) {
            Ok(_) => Ok(()),
            Err(error) => {
                // What was fed before it is sent, whatever is wrong with this one.
                let _ = self.sender.flush();
                Err(error.into())
            }
        }
    }

    /// Sends bytes now.
    fn send(&mut self, body: &[u8]) -> Result<(), Stop> {
        let mut outgoing = outgoing(body, self.priority, self.message_type);
        if self.goes_on {
            outgoing = outgoing.goes_on();
        }
        match self.sender.send_wait(outgoing, self.wait)? {
            Level::Held => self.finish(Wait::Not),
            _ => Ok(()),
        }
    }

    /// Sends what was fed.
    fn flush(&mut self) -> Result<(), Stop> {
        self.finish(self.wait)
    }

    /// Sends what is held, or learns why it doesn't go.
    fn finish(&mut self, wait: Wait) -> Result<(), Stop> {
        match self.sender.flush_wait(wait)? {
            Level::Held => Err(self.cut_short().into()),
            _ => Ok(()),
        }
    }

    /// Closes the sender; what was said to be no message doesn't become one.
    fn close(self) {
        if self.is_cut {
            self.sender.abandon();
        }
    }

    fn cut_short(&mut self) -> Failure {
        self.is_cut = true;
        let address = self.sender.address();
        Failure::new(
            Code::TimedOut,
            format!(
                "cannot send to {address}: the time was over in the middle of a message; \
                 the connection is closed, and what arrived of it is no message"
            ),
            "allow more time: --timeout 1m, or without --timeout for ever",
        )
    }
}

fn outgoing(body: &[u8], priority: u16, message_type: Option<i64>) -> Outgoing<'_> {
    let outgoing = Outgoing::from(body).priority(priority);
    match message_type {
        Some(message_type) => outgoing.message_type(message_type),
        None => outgoing,
    }
}
