//! The end that sends to a socket's address: it connects and says hello when it is opened, and takes
//! the memory when it is first sent through, so that opening waits for nobody.
//!
//! Until then its room is not known: what is too large is refused once it is. Sources: unix(7).

use super::ends::{Room, Sending};
use super::{Line, forked};
use crate::capabilities::Peers;
use crate::error::{Error, Kind};
use crate::mechanism::{Frame, Pollable, SendEnd};
use crate::options::Options;
use crate::wait::{Halt, Wait};

/// The sending end.
pub(super) struct Connecting {
    stage: Stage,
    options: Options,
    life: poste_sys::fork::Life,
}

enum Stage {
    /// It has said hello; what is polled, once it was asked for.
    Asked(Box<Line>, Option<Room>),
    Joined(Box<Sending>),
    /// The other side had nothing for it.
    Over,
}

impl Connecting {
    /// Over a connection.
    pub(super) fn new(mut line: Line, options: Options) -> Result<Connecting, Error> {
        line.ask(Wait::Not)?;
        let stage = Stage::Asked(Box::new(line), None);
        Ok(Connecting { stage, options, life: poste_sys::fork::Life::this() })
    }

    /// The end with its memory, which it waits for.
    fn joined(&mut self, wait: Wait) -> Result<&mut Sending, Error> {
        if let Stage::Asked(line, _) = &mut self.stage {
            if !self.life.lasts() {
                return Err(forked());
            }
            let taken = match line.take(&self.options, wait) {
                // The connection doesn't know that this is a send.
                Err(error) if error.is_passing() => return Err(Halt::Later.sending(wait)),
                taken => taken,
            };
            let asked = std::mem::replace(&mut self.stage, Stage::Over);
            if let Stage::Asked(line, room) = asked {
                let mut end = Sending::new(*line, taken.map_err(explained)?, room);
                end.show_room()?;
                self.stage = Stage::Joined(Box::new(end));
            }
        }
        match &mut self.stage {
            Stage::Joined(end) => Ok(end),
            _ => Err(Error::new(Kind::Disconnected, "")),
        }
    }
}

/// Why there is no memory.
fn explained(error: Error) -> Error {
    if !error.is(&Kind::Disconnected) {
        return error;
    }
    Error::new(Kind::Disconnected, "the receiver ended the connection and gave no memory")
        .with_hint("it may not allow this user, or not be opened with ?sealed")
}

impl SendEnd for Connecting {
    fn send(&mut self, frame: &Frame<'_>, wait: Wait) -> Result<usize, Error> {
        let wait = wait.begin();
        self.joined(wait)?.send(frame, wait)
    }

    fn pollable(&mut self) -> Result<Pollable<'_>, Error> {
        match &mut self.stage {
            Stage::Asked(line, room) => {
                let made = match room.take() {
                    Some(room) => room,
                    None => Room::new(line)?,
                };
                Ok(room.insert(made).pollable())
            }
            Stage::Joined(end) => end.pollable(),
            Stage::Over => Err(Error::new(Kind::Disconnected, "")),
        }
    }

    fn flush(&mut self, wait: Wait) -> Result<(), Error> {
        match &mut self.stage {
            Stage::Joined(end) => end.flush(wait),
            // Nothing is held.
            _ => Ok(()),
        }
    }

    fn loan(&mut self, size: usize, wait: Wait) -> Result<(), Error> {
        let wait = wait.begin();
        self.joined(wait)?.loan(size, wait)
    }

    fn lent(&self) -> &[u8] {
        match &self.stage {
            Stage::Joined(end) => end.lent(),
            _ => &[],
        }
    }

    fn lent_mut(&mut self) -> &mut [u8] {
        match &mut self.stage {
            Stage::Joined(end) => end.lent_mut(),
            _ => &mut [],
        }
    }

    fn send_loan(&mut self, size: usize, frame: &Frame<'_>) -> Result<(), Error> {
        self.joined(Wait::Not)?.send_loan(size, frame)
    }

    fn peers(&self) -> Peers {
        match &self.stage {
            Stage::Asked(..) => Peers::Present(1),
            Stage::Joined(end) => end.peers(),
            Stage::Over => Peers::AllGone,
        }
    }
}
