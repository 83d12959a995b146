//! Addresses: `SCHEME:REST[?option=value&…]`. Parsing and printing are inverse.
//!
//! This file knows the grammar only; what REST means is the mechanism's business, and what the
//! options mean is [`crate::Options`]'.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Kind};

/// Where a channel is.
///
/// ```
/// use poste::Address;
/// # fn main() -> Result<(), poste::Error> {
/// let address: Address = "fifo:/run/log%3f?mode=0600".parse()?;
/// assert_eq!(address.scheme(), "fifo");
/// assert_eq!(address.rest(), b"/run/log?");
/// assert_eq!(address.options(), [("mode".to_owned(), "0600".to_owned())]);
/// assert_eq!(address.to_string(), "fifo:/run/log%3F?mode=0600");
/// assert_eq!("jobs".parse::<Address>()?.to_string(), "shm:jobs"); // a bare word is a mailbox
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    scheme: String,
    rest: Vec<u8>,
    options: Vec<(String, String)>,
}

/// The longest address that is read: longer than any path.
const ADDRESS_MAX: usize = 16 << 10;

impl Address {
    /// An address made of its parts; `rest` may hold any bytes.
    ///
    /// # Errors
    /// `Invalid` where the scheme is not a word of lower-case letters and digits.
    pub fn new(scheme: &str, rest: impl Into<Vec<u8>>) -> Result<Address, Error> {
        if !is_scheme(scheme) {
            return Err(invalid(format!("{scheme:?} is no scheme")));
        }
        Ok(Address { scheme: scheme.to_owned(), rest: rest.into(), options: Vec::new() })
    }

    /// The mechanism's name: what stands before the colon.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// What the mechanism finds the channel by: a path, a name, a key, a host and port.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        &self.rest
    }

    /// The rest as text, where it is UTF-8.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.rest).ok()
    }

    /// The options as they stand there, in their order; one without a value has an empty one.
    #[must_use]
    pub fn options(&self) -> &[(String, String)] {
        &self.options
    }

    /// The same address with another rest: the port taken, the path made absolute.
    #[must_use]
    pub fn with_rest(&self, rest: impl Into<Vec<u8>>) -> Address {
        Address { rest: rest.into(), ..self.clone() }
    }

    /// The same address without options.
    #[must_use]
    pub fn bare(&self) -> Address {
        Address { options: Vec::new(), ..self.clone() }
    }

    /// Reads an address.
    ///
    /// # Errors
    /// `Invalid`, with the reason in words.
    pub fn parse(text: &str) -> Result<Address, Error> {
        if text.len() > ADDRESS_MAX {
            return Err(invalid(format!("an address has at most {ADDRESS_MAX} bytes")));
        }
        let (place, options) = match text.split_once('?') {
            Some((place, options)) => (place, parse_options(options)?),
            None => (text, Vec::new()),
        };
        let (scheme, rest) = match place.split_once(':') {
            Some((scheme, rest)) if is_scheme(scheme) => (scheme, rest),
            Some((scheme, _)) => {
                return Err(invalid(format!("{scheme:?} is no scheme")));
            }
            None if is_word(place) => ("shm", place),
            None => {
                return Err(invalid(format!("{text:?} is no address: SCHEME:REST")).with_hint(
                    "say how to get there, as in fifo:PATH or mq:/NAME; a mailbox is a word",
                ));
            }
        };
        Ok(Address { scheme: scheme.to_owned(), rest: decode(rest)?, options })
    }
}

fn parse_options(text: &str) -> Result<Vec<(String, String)>, Error> {
    text.split('&')
        .filter(|option| !option.is_empty())
        .map(|option| {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let text = |part: &str| {
                String::from_utf8(decode(part)?)
                    .map_err(|_| invalid(format!("the option {part:?} is no UTF-8")))
            };
            if name.is_empty() {
                return Err(invalid(format!("the option {option:?} has no name")));
            }
            Ok((text(name)?, text(value)?))
        })
        .collect()
}

fn is_scheme(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('.')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn invalid(detail: String) -> Error {
    Error::new(Kind::Invalid, detail)
}

/// `%XX` is any byte; everything else is itself.
fn decode(text: &str) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            .ok_or_else(|| {
                invalid(format!("{text:?}: two hexadecimal digits must follow a percent sign"))
                    .with_hint("write %25 for a percent sign")
            })?;
        bytes.push(byte);
        rest = &after[2..];
    }
    Ok(bytes)
}

/// Prints bytes so that [`decode`] gives them back; `special` are those that have a meaning there.
fn encode(bytes: &[u8], special: &[char], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            if letter == '%' || letter == '?' || letter.is_control() || special.contains(&letter) {
                let mut buffer = [0; 4];
                for byte in letter.encode_utf8(&mut buffer).bytes() {
                    write!(f, "%{byte:02X}")?;
                }
            } else {
                write!(f, "{letter}")?;
            }
        }
        for byte in chunk.invalid() {
            write!(f, "%{byte:02X}")?;
        }
    }
    Ok(())
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.scheme)?;
        encode(&self.rest, &[], f)?;
        for (index, (name, value)) in self.options.iter().enumerate() {
            f.write_str(if index == 0 { "?" } else { "&" })?;
            encode(name.as_bytes(), &['&', '='], f)?;
            if !value.is_empty() {
                f.write_str("=")?;
                encode(value.as_bytes(), &['&'], f)?;
            }
        }
        Ok(())
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Address, Error> {
        Address::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read_back() {
        for text in [
            "fifo:/a b/ü",
            "unix:@abstract",
            "tcp:[::1]:0",
            "sysv:/path#1",
            "mq:/x?mode=0600&check",
            "dgram:%00%FF",
            "fifo:a%25b%3Fc",
            "pipe:",
        ] {
            assert_eq!(Address::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "Ab:x", ":x", "fifo:%", "fifo:%g0", "fifo:%+1", "a/b", "../x", "mq:x?=1"] {
            assert_eq!(Address::parse(text).unwrap_err().kind(), Kind::Invalid, "{text}");
        }
    }
}
