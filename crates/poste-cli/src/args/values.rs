//! How the values of arguments are spelt: addresses, sizes, priorities, counts and modes.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

/// An address as text: bytes that are no UTF-8 are spelt `%XX`, as addresses spell any byte.
pub(super) fn address_text() -> impl clap::builder::TypedValueParser<Value = String> {
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

pub(super) fn size(text: &str) -> Result<usize, String> {
    poste::parse_size(text).ok_or_else(|| "a size is written as 64, 8K or 1.5MiB".to_owned())
}

/// A priority of any height: what is too high for the mechanism fails later, and otherwise.
pub(super) fn priority(text: &str) -> Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("a priority is a whole number from 0".to_owned());
    }
    Ok(text.parse().unwrap_or(u64::MAX))
}

pub(super) fn count(text: &str) -> Result<u64, String> {
    text.parse().ok().filter(|&count| count > 0).ok_or_else(|| "count from 1".to_owned())
}

pub(super) fn mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|&mode| mode <= 0o777 && text.bytes().all(|digit| digit.is_ascii_digit()))
        .ok_or_else(|| "permission bits are octal, as in 0600".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_byte_can_be_typed_in_an_address() {
        assert_eq!(spell(OsStr::from_bytes(b"fifo:a\xffb")), "fifo:a%FFb");
    }
}
