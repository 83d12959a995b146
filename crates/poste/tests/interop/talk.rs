//! Questions and answers on one connection, or between two addresses: a foreign program that serves
//! and one that asks, each tried with poste at the other end.

use std::thread;

use libtest_mimic::{Arguments, Trial};
use poste::{Kind, Options, Sender, Wait};

use crate::machine::Need;
use crate::place::{Place, over_in_words};
use crate::stranger::Stranger;
use crate::trial::{LIMIT, trial};

/// A foreign program that answers in capitals, or asks for them. Its commands are lines of shell, as
/// a [`Peer`](crate::peer::Peer)'s are.
#[derive(Clone, Copy)]
pub(crate) struct Talk {
    pub(crate) name: &'static str,
    /// Where it meets poste: one of the addresses in [`crate::place`].
    pub(crate) over: &'static str,
    pub(crate) needs: &'static [Need],
    /// Answers one question and ends. Empty: it can't.
    pub(crate) serves: &'static str,
    /// Reads up to the end of the question before it answers.
    pub(crate) wants_end: bool,
    /// Asks what stands on its standard input, and prints the answer. Empty: it can't.
    pub(crate) asks: &'static str,
    /// Goes on waiting when it has its answer.
    pub(crate) is_endless: bool,
    /// What stands on the channel for a body.
    pub(crate) wire: fn(&[u8]) -> Vec<u8>,
}

const QUESTION: &[u8] = b"is anybody there?\0";
const ANSWER: &[u8] = b"IS ANYBODY THERE?\0";

impl Talk {
    /// What most have in common.
    pub(crate) const PLAIN: Talk = Talk {
        name: "",
        over: "",
        needs: &[],
        serves: "",
        wants_end: false,
        asks: "",
        is_endless: false,
        wire: <[u8]>::to_vec,
    };

    /// Its trials: poste asks, and poste answers.
    pub(crate) fn trials(self, args: &Arguments) -> Vec<Trial> {
        let mut trials = Vec::new();
        let sides: [(&str, &str, fn(&Talk)); 2] =
            [(self.serves, "answers", Talk::answers), (self.asks, "asks", Talk::asks)];
        for (line, side, run) in sides {
            if !line.is_empty() {
                let end = if self.wants_end { "_at_the_end" } else { "" };
                let name = format!("{}::{}::{side}{end}", self.name, over_in_words(self.over));
                trials.push(trial(name, self.needs, args, move || run(&self)));
            }
        }
        trials
    }

    /// The program serves, poste calls it.
    fn answers(&self) {
        let place = Place::new(self.over);
        let server = Stranger::start(&place, self.serves, b"");
        place.wait_for_receiver();
        let options = Options::new().raw().patience(Wait::For(LIMIT));
        let options = if self.wants_end { options.half_close() } else { options };
        let mut sender = Sender::open_with(&place.address, &options).unwrap();
        let answer = sender.call(&(self.wire)(QUESTION), Wait::For(LIMIT)).unwrap();
        assert_eq!(answer[..], (self.wire)(ANSWER));
        server.finish();
        if !matches!(place.scheme(), "dgram" | "udp") {
            let gone = sender.call("more", Wait::For(LIMIT)).unwrap_err();
            assert_eq!(gone.kind(), Kind::Disconnected);
        }
    }

    /// Two of the program ask, poste answers each on its own connection.
    fn asks(&self) {
        let place = Place::new(self.over);
        let mut receiver = place.receiver();
        let clients = [0, 1].map(|_| Stranger::start(&place, self.asks, QUESTION));
        for _ in &clients {
            let mut question = receiver.recv_timeout(LIMIT).unwrap();
            assert_eq!(question[..], (self.wire)(QUESTION));
            question.reply(&(self.wire)(ANSWER)).unwrap();
        }
        // Some wait for our end after theirs, which only one who receives sees.
        let receiving = thread::spawn(move || {
            let more = receiver.recv_timeout(std::time::Duration::from_millis(200));
            assert_eq!(more.map(|more| more.to_vec()).unwrap_err().kind(), Kind::TimedOut);
        });
        for client in clients {
            let size = ANSWER.len();
            let came = if self.is_endless { client.finish_after(size) } else { client.finish() };
            assert_eq!(came, ANSWER);
        }
        receiving.join().unwrap();
    }
}
