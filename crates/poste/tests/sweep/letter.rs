//! The messages of the sweep: a body says who sent it and which it is, and all of its bytes follow
//! from that, so that a torn one shows.

use std::fmt;

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Letter {
    /// The handle that sends it.
    pub(crate) sender: char,
    pub(crate) number: u32,
    pub(crate) priority: u16,
    /// Bytes, at least [`Letter::HEAD`].
    pub(crate) size: usize,
}

impl Letter {
    /// The bytes that say which letter it is.
    pub(crate) const HEAD: usize = 16;

    /// Reads `NUMBER[@PRIORITY][:SIZE]`.
    pub(crate) fn parse(sender: char, text: &str, base: u32) -> Letter {
        let (text, size) = text.split_once(':').unwrap_or((text, "90"));
        let (number, priority) = text.split_once('@').unwrap_or((text, "0"));
        Letter {
            sender,
            number: base + number.parse::<u32>().expect("a letter's number"),
            priority: priority.parse().expect("a letter's priority"),
            size: size.parse().expect("a letter's size"),
        }
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.size);
        body.extend_from_slice(&u32::from(self.sender).to_le_bytes());
        body.extend_from_slice(&self.number.to_le_bytes());
        body.extend_from_slice(&u32::from(self.priority).to_le_bytes());
        body.extend_from_slice(&(self.size as u32).to_le_bytes());
        let (number, sender) = (self.number as usize, self.sender as usize);
        body.extend((Letter::HEAD..self.size).map(|at| (at * 31 + number * 17 + sender) as u8));
        body
    }

    /// The letter that a body is.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn read(body: &[u8]) -> Result<Letter, String> {
        let word = |at: usize| {
            let bytes = body.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map(u32::from_le_bytes).ok_or_else(|| format!("{} bytes came", body.len()))
        };
        let letter = Letter {
            sender: char::from_u32(word(0)?).ok_or("a body's head is torn")?,
            number: word(4)?,
            priority: word(8)? as u16,
            size: word(12)? as usize,
        };
        if letter.size != body.len() || letter.size > 1 << 20 || letter.body() != body {
            return Err(format!("the body of {letter} is torn"));
        }
        Ok(letter)
    }
}

impl fmt::Display for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.sender.escape_default(), self.number)
    }
}
