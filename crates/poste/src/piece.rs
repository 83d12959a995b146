//! A piece that arrived, taken apart: what holds for messages and for answers alike.

use crate::envelope::{Header, body_check};
use crate::error::{Error, Kind};
use crate::mechanism::RAW_HINT;

/// Takes a piece apart: its header, and the header's size. Its size and, where it has one, the check
/// of its body are right.
///
/// # Errors
/// `Corrupt` where it is none.
#[inline(always)]
pub(crate) fn open(bytes: &[u8]) -> Result<(Header, usize), Error> {
    let (header, length) = Header::decode(bytes).map_err(|fault| corrupt(fault.text()))?;
    let body = &bytes[length..];
    if body.len() != header.size as usize {
        return Err(corrupt("its envelope's size is not that of the piece".to_owned()));
    }
    if header.body_check.is_some_and(|check| check != body_check(body)) {
        return Err(corrupt("the check of its body is wrong".to_owned()));
    }
    Ok((header, length))
}

#[cold]
fn corrupt(detail: String) -> Error {
    Error::new(Kind::Corrupt, detail).with_hint(RAW_HINT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{HEADER_MAX, PieceKind};

    #[test]
    fn a_piece_of_a_wrong_size_or_with_a_wrong_check_is_none() {
        let mut bytes = [0; HEADER_MAX + 5];
        let header = Header {
            kind: PieceKind::Reply,
            body_check: Some(body_check(b"hello")),
            ..Header::message(5)
        };
        let length = header.encode(&mut bytes);
        bytes[length..length + 5].copy_from_slice(b"hello");
        let whole = &mut bytes[..length + 5];
        assert_eq!(open(whole).unwrap(), (header, length));
        assert_eq!(open(&whole[..length + 4]).unwrap_err().kind(), Kind::Corrupt);
        whole[length] ^= 1;
        assert_eq!(open(whole).unwrap_err().kind(), Kind::Corrupt);
    }
}
