//! The table's row: a foreign program that sends to a channel and receives from it, tried with every
//! size that the channel has, in both directions.

use std::fs::File;

use libtest_mimic::{Arguments, Trial};
use poste::{Kind, Level, Options, Receiver, Sender};

use crate::machine::Need;
use crate::place::{PAIR, PIPE, Place, over_in_words, wait_until};
use crate::stranger::{Stranger, file_of};
use crate::trial::{LIMIT, trial};

/// Around a page, which is also PIPE_BUF; two of them; more than a pipe or a socket holds.
const SIZES_STREAM: &[usize] = &[1, 4095, 4096, 4097, 8192, 1 << 20];
const SIZES_MESSAGE: &[usize] = &[0, 1, 4095, 4096, 4097, 8192];

/// A foreign program over one channel. Its commands are lines of shell; the variables in them are
/// those of [`Place::environment`] and `$size`.
#[derive(Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// Where it meets poste: one of the addresses in [`crate::place`].
    pub(crate) over: &'static str,
    pub(crate) needs: &'static [Need],
    /// Takes its standard input to the channel, and ends. Empty: it can't.
    pub(crate) sends: &'static str,
    /// Takes what the channel has to its standard output: up to the end, or one message.
    pub(crate) receives: &'static str,
    /// Receives for ever.
    pub(crate) is_endless: bool,
    /// What it is tried with; empty: all that the channel has.
    pub(crate) sizes: &'static [usize],
    /// A body of a size.
    pub(crate) body: fn(usize) -> Vec<u8>,
    /// What stands on the channel for a body.
    pub(crate) wire: fn(&[u8]) -> Vec<u8>,
}

impl Peer {
    /// What most have in common.
    pub(crate) const PLAIN: Peer = Peer {
        name: "",
        over: "",
        needs: &[],
        sends: "",
        receives: "",
        is_endless: false,
        sizes: &[],
        body: bytes,
        wire: <[u8]>::to_vec,
    };

    /// Its trials: one for each direction.
    pub(crate) fn trials(self, args: &Arguments) -> Vec<Trial> {
        let mut trials = Vec::new();
        let directions: [(&str, &str, fn(&Peer, usize)); 2] = [
            (self.sends, "to_poste", Peer::to_poste),
            (self.receives, "from_poste", Peer::from_poste),
        ];
        for (line, direction, run) in directions {
            if !line.is_empty() {
                let name = format!("{}::{}::{direction}", self.name, over_in_words(self.over));
                let all = move || self.sizes().into_iter().for_each(|size| run(&self, size));
                trials.push(trial(name, self.needs, args, all));
            }
        }
        trials
    }

    fn sizes(&self) -> Vec<usize> {
        if !self.sizes.is_empty() {
            return self.sizes.to_vec();
        }
        let capabilities = Place::new(self.over).capabilities();
        let all = if capabilities.raw_boundaries { SIZES_MESSAGE } else { SIZES_STREAM };
        all.iter().copied().filter(|size| *size > 0 || capabilities.raw_empty).collect()
    }

    /// The program sends, poste receives.
    fn to_poste(&self, size: usize) {
        let place = Place::made(self.over);
        let body = (self.body)(size);
        let wire = (self.wire)(&body);
        let (mut receiver, mut sender) = self.start_sending(&place, &body);
        let came = collect(&mut receiver, wire.len());
        assert!(came == wire, "{} bytes were sent, and {} came", wire.len(), came.len());
        // Some end only when they see our end: as long as we receive, we answer theirs.
        wait_until("the program ends", || {
            match receiver.try_recv() {
                Err(error) if matches!(error.kind(), Kind::Empty | Kind::Disconnected) => {}
                Err(error) => panic!("{error}"),
                Ok(more) => panic!("after {} bytes {} more came", wire.len(), more.len()),
            }
            sender.has_ended()
        });
        sender.finish();
    }

    /// poste sends, the program receives.
    fn from_poste(&self, size: usize) {
        let place = Place::made(self.over);
        let body = (self.body)(size);
        let (mut sender, receiver) = self.start_receiving(&place, size);
        let level = sender.send_timeout(&(self.wire)(&body), LIMIT).unwrap();
        assert_eq!(level, Level::Queued);
        sender.close().unwrap();
        let came = if self.is_endless { receiver.finish_after(size) } else { receiver.finish() };
        assert!(came == body, "{size} bytes were sent, and {} came", came.len());
    }

    fn start_sending(&self, place: &Place, body: &[u8]) -> (Receiver, Stranger) {
        let (receiver, theirs) = match self.over {
            PIPE => {
                let (theirs, receiver) = poste::pipe_with(&Options::new().raw()).unwrap();
                (receiver, theirs)
            }
            PAIR => {
                let (here, there) = poste::pair_with(&Options::new().raw()).unwrap();
                (here.split().1, there.split().0)
            }
            _ => return (place.receiver(), Stranger::start(place, self.sends, body)),
        };
        let output = theirs.into_descriptor().unwrap();
        (receiver, Stranger::start_on(place, self.sends, file_of(place, body), Some(output)))
    }

    fn start_receiving(&self, place: &Place, size: usize) -> (Sender, Stranger) {
        let line = format!("size={size}; {}", self.receives);
        let (sender, theirs) = match self.over {
            PIPE => poste::pipe_with(&Options::new().raw()).unwrap(),
            PAIR => {
                let (here, there) = poste::pair_with(&Options::new().raw()).unwrap();
                (here.split().0, there.split().1)
            }
            _ => {
                let receiver = Stranger::start(place, &line, b"");
                return (place.sender(), receiver);
            }
        };
        let input = theirs.into_descriptor().unwrap();
        (sender, Stranger::start_on(place, &line, input, None::<File>))
    }
}

/// Receives until so many bytes are here. Where messages have boundaries it is one; on a byte stream
/// one is what one read returns.
fn collect(receiver: &mut Receiver, size: usize) -> Vec<u8> {
    let mut came = receiver.recv_timeout(LIMIT).unwrap().to_vec();
    while !receiver.capabilities().raw_boundaries && came.len() < size {
        came.extend_from_slice(&receiver.recv_timeout(LIMIT).unwrap());
    }
    came
}

/// Every byte there is, NUL and line feed included, in no simple order.
pub(crate) fn bytes(size: usize) -> Vec<u8> {
    let mut state = size as u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..size).map(|_| next()).collect()
}

/// Letters and digits, for programs that know lines only.
pub(crate) fn text(size: usize) -> Vec<u8> {
    let letters = b"abcdefghijklmnopqrstuvwxyz012345";
    bytes(size).into_iter().map(|byte| letters[usize::from(byte) % letters.len()]).collect()
}

/// A body as a line.
pub(crate) fn line(body: &[u8]) -> Vec<u8> {
    [body, b"\n"].concat()
}
