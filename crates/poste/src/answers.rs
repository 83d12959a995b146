//! Calls: a message with a number, and the answer that names it, over the way back of one end.
//!
//! One call at a time for each sender. An answer to an earlier call that was given up is passed
//! over. In raw mode the answer is whatever comes back first.

use crate::envelope::PieceKind;
use crate::error::{Error, Kind};
use crate::joining::{Joining, Origin};
use crate::limits::MESSAGE_MAX;
use crate::mechanism::{Arrival, News, RecvEnd};
use crate::message::OwnedMessage;
use crate::piece;
use crate::wait::Wait;

/// What a caller keeps to receive answers.
#[derive(Debug)]
pub(crate) struct Answers {
    arrival: Arrival,
    joining: Joining,
    /// The number of the last call.
    pub(crate) call: u64,
}

/// What an answer is, once it is whole: a message, or the error that was answered.
type Answer = Result<OwnedMessage, Error>;

impl Answers {
    /// Nothing called yet.
    pub(crate) fn new(message_max: Option<usize>) -> Answers {
        let joining = Joining::new(message_max.unwrap_or(MESSAGE_MAX));
        Answers { arrival: Arrival::default(), joining, call: 0 }
    }

    /// Waits for the answer to the last call.
    pub(crate) fn receive(&mut self, back: &mut dyn RecvEnd, is_raw: bool, wait: Wait) -> Answer {
        loop {
            match back.recv(&mut self.arrival, wait) {
                Ok(()) => {}
                Err(error) if error.is(&Kind::Empty) => {
                    return Err(Error::new(Kind::TimedOut, "no answer is there"));
                }
                Err(error) => return Err(error),
            }
            if self.arrival.news != News::Piece {
                continue;
            }
            let bytes = back.bytes(&self.arrival);
            if is_raw {
                return Ok(OwnedMessage::of(bytes.to_vec(), &mut self.arrival, 0));
            }
            if let Some(answer) = self.sort(bytes)? {
                return answer;
            }
        }
    }

    /// Looks at a piece: the answer, where it completes it.
    fn sort(&mut self, bytes: &[u8]) -> Result<Option<Answer>, Error> {
        let (header, length) = piece::open(bytes)?;
        let is_answer = matches!(header.kind, PieceKind::Reply | PieceKind::Error)
            && header.call.is_some_and(|call| call.call == self.call);
        if !is_answer {
            return Ok(None);
        }
        self.arrival.keep_descriptors(header.descriptors)?;
        let body = &bytes[length..];
        let body = match header.part {
            None => body.to_vec(),
            Some(part) => {
                let origin = Origin { source: 0, sender: 0, priority: 0 };
                let set = std::mem::take(&mut self.arrival.descriptors);
                match self.joining.add(origin, self.call, part, body, set)? {
                    None => return Ok(None),
                    Some(whole) => {
                        self.arrival.descriptors = whole.descriptors;
                        whole.body
                    }
                }
            }
        };
        if header.kind == PieceKind::Error {
            let text = String::from_utf8_lossy(&body).into_owned();
            return Ok(Some(Err(Error::new(Kind::Failed, text)
                .with_hint("the other side answered with this error; look there"))));
        }
        Ok(Some(Ok(OwnedMessage::of(body, &mut self.arrival, header.priority))))
    }
}
