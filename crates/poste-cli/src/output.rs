//! What goes to standard output: messages in the format asked for, and lines of JSON.
//!
//! Written through one buffer, which is emptied before the program waits. That nobody reads it any
//! more ends the program quietly; any other failure to write is an error.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use poste::{Credentials, Message, OwnedMessage, Priorities};
use serde_json::{Value, json};

use crate::args::{Format, Printing};
use crate::exit::{Code, Failure, Stop};
use crate::sources::Origin;

/// Standard output.
#[derive(Debug)]
pub(crate) struct Output {
    out: BufWriter<Stdout>,
    /// Something was written that isn't out yet: `Stdout` keeps the beginning of a line, and the
    /// buffer before it is empty then.
    is_pending: bool,
}

impl Output {
    /// Opens it.
    pub(crate) fn open() -> Output {
        let out = BufWriter::with_capacity(64 << 10, io::stdout());
        Output { out, is_pending: false }
    }

    /// Writes bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.is_pending = true;
        self.out.write_all(bytes).map_err(|error| lost(&error))
    }

    /// Whether something was written that isn't out yet.
    pub(crate) fn is_pending(&self) -> bool {
        self.is_pending
    }

    /// Brings out what was written.
    pub(crate) fn flush(&mut self) -> Result<(), Stop> {
        self.is_pending = false;
        self.out.flush().map_err(|error| lost(&error))
    }
}

fn lost(error: &io::Error) -> Stop {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Stop::Quiet;
    }
    let what = format!("cannot write to standard output: {error}");
    Failure::new(Code::Failed, what, "give the output a place with room, as in > FILE").into()
}

/// How messages are printed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    format: Format,
    /// What ends each message.
    end: &'static [u8],
    /// A terminal would obey control characters.
    escapes: bool,
    /// Messages have no envelope: what it would say isn't known.
    raw: bool,
}

impl Style {
    /// What was asked for: each message ends with NUL or in the format's own way.
    pub(crate) fn new(printing: &Printing, raw: bool) -> Style {
        let format = if printing.json { Format::Json } else { printing.format };
        let end: &[u8] = match format {
            _ if printing.null => b"\0",
            Format::Exact => b"",
            _ => b"\n",
        };
        let escapes = format == Format::Text && io::stdout().is_terminal();
        Style { format, end, escapes, raw }
    }

    /// Prints a message.
    pub(crate) fn print(
        self,
        out: &mut Output,
        shown: &Shown<'_>,
        origin: Origin<'_>,
    ) -> Result<(), Stop> {
        let body = shown.body;
        match self.format {
            Format::Text if self.escapes => out.write(escaped(body, Escaping::Terminal).as_bytes()),
            Format::Text | Format::Exact => out.write(body),
            Format::Quoted => {
                out.write(format!("\"{}\"", escaped(body, Escaping::Quoted)).as_bytes())
            }
            Format::Hex => out.write(hex(body).as_bytes()),
            Format::Json => out.write(object(&self.fields(shown, origin)).as_bytes()),
        }?;
        out.write(self.end)
    }

    fn fields(self, shown: &Shown<'_>, origin: Origin<'_>) -> Vec<(&'static str, Value)> {
        let mut fields = match std::str::from_utf8(shown.body) {
            Ok(text) => vec![("body", json!(text))],
            Err(_) => vec![("body_base64", json!(BASE64.encode(shown.body)))],
        };
        fields.push(("size", json!(shown.body.len())));
        if has_priority(self.raw, origin) {
            fields.push(("priority", json!(shown.priority)));
        }
        let from = shown.sender;
        let known = [("pid", from.pid()), ("uid", from.uid()), ("gid", from.gid())];
        let known = known.into_iter().filter_map(|(name, id)| Some((name.to_owned(), json!(id?))));
        let sender = Value::Object(known.collect());
        if sender != json!({}) {
            fields.push(("sender", sender));
        }
        if shown.sequence > 0 {
            fields.push(("sequence", json!(shown.sequence)));
        }
        fields.push(("redelivered", json!(shown.redelivered)));
        if origin.is_one_of_several {
            fields.push(("address", json!(origin.address.to_string())));
        }
        if let (Some(message_type), true) = (shown.message_type, self.raw) {
            fields.push(("type", json!(message_type)));
        }
        fields
    }
}

/// A text as it may be shown: on a terminal without what it would obey, else as it is.
pub(crate) fn shown(text: &[u8]) -> Cow<'_, [u8]> {
    if !io::stdout().is_terminal() {
        return Cow::Borrowed(text);
    }
    Cow::Owned(escaped(text, Escaping::Terminal).into_owned().into_bytes())
}

/// Whether the priority of a message is known: the envelope says it, or the mechanism keeps it.
pub(crate) fn has_priority(is_raw: bool, origin: Origin<'_>) -> bool {
    !is_raw || matches!(origin.capabilities.priorities, Priorities::Native(_))
}

/// What is shown of a message, be it lent or kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown<'a> {
    pub body: &'a [u8],
    pub priority: u16,
    pub sequence: u64,
    pub sender: &'a Credentials,
    pub redelivered: bool,
    pub message_type: Option<i64>,
}

impl Shown<'_> {
    /// As a C string: it ends at its first NUL. What a peer that sends a whole `char[256]` has behind
    /// that is no part of it.
    pub(crate) fn as_c_string(self) -> Self {
        let end = self.body.iter().position(|byte| *byte == 0).unwrap_or(self.body.len());
        Shown { body: &self.body[..end], ..self }
    }
}

impl<'a> From<&'a Message<'_>> for Shown<'a> {
    fn from(message: &'a Message<'_>) -> Self {
        Shown {
            body: message,
            priority: message.priority(),
            sequence: message.sequence(),
            sender: message.sender(),
            redelivered: message.redelivered(),
            message_type: message.message_type(),
        }
    }
}

impl<'a> From<&'a OwnedMessage> for Shown<'a> {
    fn from(message: &'a OwnedMessage) -> Self {
        Shown {
            body: message,
            priority: message.priority(),
            sequence: message.sequence(),
            sender: message.sender(),
            redelivered: message.redelivered(),
            message_type: message.message_type(),
        }
    }
}

/// An object of JSON on one line, its fields in the order given.
pub(crate) fn object(fields: &[(&str, Value)]) -> String {
    let fields: Vec<_> =
        fields.iter().map(|(name, value)| format!("{}:{value}", json!(name))).collect();
    format!("{{{}}}", fields.join(","))
}

/// Which characters are escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escaping {
    /// Everything that would not stand on one line between double quotes.
    Quoted,
    /// What a terminal would obey.
    Terminal,
}

/// The body as text in which control characters, and what is no UTF-8, are spelt out.
fn escaped(body: &[u8], how: Escaping) -> Cow<'_, str> {
    let mut text = String::with_capacity(body.len() + 2);
    for chunk in body.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '"' | '\\' if how == Escaping::Quoted => text.extend(['\\', letter]),
                '\n' | '\t' if how == Escaping::Terminal => text.push(letter),
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                '\r' => text.push_str("\\r"),
                _ if letter.is_control() => {
                    spell(&mut text, letter.encode_utf8(&mut [0; 4]).as_bytes());
                }
                _ => text.push(letter),
            }
        }
        spell(&mut text, chunk.invalid());
    }
    Cow::Owned(text)
}

fn spell(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(text, "\\x{byte:02x}");
    }
}

fn hex(body: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    body.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_is_one_line_that_shows_every_byte() {
        let body = b"a\n\t\r\"\\\x00\x1b\x7f\xff\xc3\xa4\xe2\x82";
        let expected = r#"a\n\t\r\"\\\x00\x1b\x7f\xffä\xe2\x82"#;
        assert_eq!(escaped(body, Escaping::Quoted), expected);
    }

    #[test]
    fn a_terminal_obeys_nothing() {
        let body = "\u{1b}[2J\rx\u{9b}31m\n\"\\\tü".as_bytes();
        let expected = "\\x1b[2J\\rx\\xc2\\x9b31m\n\"\\\tü";
        assert_eq!(escaped(body, Escaping::Terminal), expected);
    }

    #[test]
    fn hexadecimal_is_lower_case() {
        assert_eq!(hex(b"\x00\xab\xff"), "00abff");
    }

    #[test]
    fn an_object_keeps_its_order() {
        assert_eq!(object(&[("z", json!(1)), ("a", json!("\"\n"))]), r#"{"z":1,"a":"\"\n"}"#);
    }
}
