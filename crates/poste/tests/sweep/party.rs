//! A process of the sweep: this program again, which does what a script says. One act is a line:
//!
//! ```text
//! create | remove                     the mailbox itself
//! sender S | receiver R | manual R    opens a handle, by a letter of the alphabet
//! send S L | feed S L | flush S       sends the message L: NUMBER[@PRIORITY][:SIZE]
//! loan S L | narrow S L | forget S L  … in lent memory, lent too large, not sent after all
//! full S L                            is refused for want of room
//! take R | receive R                  takes a message and keeps it, or drops it at once
//! many R                              takes all that is there at once, and drops it
//! nothing R                           finds none
//! acknowledge | reject                the oldest that was kept
//! poll S | poll R                     asks for the descriptor
//! block S L | block R                 waits in the kernel, for good
//! close S                             drops the handle
//! ```

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::io::Write;

use poste::{Kind, Options, Outgoing, OwnedMessage, Receiver, Sender};
use poste_sys::testing::mark;

use crate::letter::Letter;

/// What marks the beginning and the end of what is stepped; nobody else sends it.
pub(crate) const MARK: i32 = 23;

/// A line of a script.
#[derive(Clone, Debug)]
enum Act {
    Create,
    Remove,
    Sender(char),
    Receiver(char),
    Manual(char),
    Send(char, Letter, Vec<u8>),
    Feed(char, Letter, Vec<u8>),
    Flush(char),
    Loan(char, Letter, Vec<u8>),
    Narrow(char, Letter, Vec<u8>),
    Forget(char, Vec<u8>),
    Full(char, Letter, Vec<u8>),
    Block(char, Option<(Letter, Vec<u8>)>),
    Take(char),
    Receive(char),
    Many(char),
    Nothing(char),
    Acknowledge,
    Reject,
    Poll(char),
    Close(char),
}

impl Act {
    fn parse(line: &str, base: u32) -> Act {
        let mut words = line.split(' ');
        let verb = words.next().unwrap_or("");
        let handle = words.next().and_then(|word| word.chars().next()).unwrap_or('?');
        let letter = words.next().map(|word| Letter::parse(handle, word, base));
        let letter = letter.map(|letter| (letter, letter.body()));
        match (verb, letter) {
            ("create", _) => Act::Create,
            ("remove", _) => Act::Remove,
            ("sender", _) => Act::Sender(handle),
            ("receiver", _) => Act::Receiver(handle),
            ("manual", _) => Act::Manual(handle),
            ("send", Some((letter, body))) => Act::Send(handle, letter, body),
            ("feed", Some((letter, body))) => Act::Feed(handle, letter, body),
            ("flush", _) => Act::Flush(handle),
            ("loan", Some((letter, body))) => Act::Loan(handle, letter, body),
            ("narrow", Some((letter, body))) => Act::Narrow(handle, letter, body),
            ("forget", Some((_, body))) => Act::Forget(handle, body),
            ("full", Some((letter, body))) => Act::Full(handle, letter, body),
            ("block", letter) => Act::Block(handle, letter),
            ("take", _) => Act::Take(handle),
            ("receive", _) => Act::Receive(handle),
            ("many", _) => Act::Many(handle),
            ("nothing", _) => Act::Nothing(handle),
            ("acknowledge", _) => Act::Acknowledge,
            ("reject", _) => Act::Reject,
            ("poll", _) => Act::Poll(handle),
            ("close", _) => Act::Close(handle),
            _ => panic!("no act: {line}"),
        }
    }
}

/// The acts of a script.
fn parse(script: &str, base: u32) -> Vec<Act> {
    script.lines().map(str::trim).filter(|l| !l.is_empty()).map(|l| Act::parse(l, base)).collect()
}

/// A process that plays.
struct Party {
    address: String,
    senders: BTreeMap<char, Sender>,
    receivers: BTreeMap<char, Receiver>,
    taken: VecDeque<OwnedMessage>,
}

/// What a role is started for: address, base of the numbers, the script before the mark, the script
/// between the marks; where there is none of those there are no marks.
pub(crate) fn play(words: &[&str]) {
    let &[address, base, before, stepped] = words else { panic!("four words: {words:?}") };
    let base = base.parse().expect("a number");
    let (before, stepped) = (parse(before, base), parse(stepped, base));
    let mut party = Party {
        address: address.to_owned(),
        senders: BTreeMap::new(),
        receivers: BTreeMap::new(),
        taken: VecDeque::new(),
    };
    for act in before {
        party.act(act);
    }
    if stepped.is_empty() {
        say("done");
    } else {
        let me = std::process::id();
        mark(me);
        for act in stepped {
            party.act(act);
        }
        mark(me);
    }
    // Until it is told to go, or killed; it goes without giving anything back.
    let mut line = String::new();
    if std::io::stdin().read_line(&mut line).is_ok() && line.is_empty() {
        std::process::exit(0);
    }
}

pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").expect("who started this process listens");
    out.flush().expect("who started this process listens");
}

impl Party {
    fn act(&mut self, act: Act) {
        match act {
            Act::Create => poste::create(&self.address, &Options::new()).expect("it is made"),
            Act::Remove => poste::remove(&self.address).expect("it is removed"),
            Act::Sender(handle) => {
                let sender = Sender::open(&self.address).expect("a sender opens");
                self.senders.insert(handle, sender);
            }
            Act::Receiver(handle) => {
                let receiver = Receiver::open(&self.address).expect("a receiver opens");
                self.receivers.insert(handle, receiver);
            }
            Act::Manual(handle) => {
                let receiver = Receiver::open(&self.address).expect("a receiver opens");
                self.receivers.insert(handle, receiver.manual());
            }
            Act::Send(handle, letter, body) => {
                let message = Outgoing::from(&body).priority(letter.priority);
                self.sender(handle).try_send(message).expect("there is room");
            }
            Act::Feed(handle, letter, body) => {
                let message = Outgoing::from(&body).priority(letter.priority);
                self.sender(handle).try_feed(message).expect("there is room");
            }
            Act::Flush(handle) => drop(self.sender(handle).flush().expect("it is flushed")),
            Act::Loan(handle, letter, body) => {
                let mut loan = self.sender(handle).try_loan(body.len()).expect("there is room");
                loan.copy_from_slice(&body);
                loan.priority(letter.priority).send().expect("it is sent");
            }
            // So large that the lane must grow.
            Act::Narrow(handle, letter, body) => {
                let mut loan = self.sender(handle).try_loan(70_000).expect("there is room");
                loan[..body.len()].copy_from_slice(&body);
                loan.shrink(body.len());
                loan.priority(letter.priority).send().expect("it is sent");
            }
            Act::Forget(handle, body) => {
                let mut loan = self.sender(handle).try_loan(body.len()).expect("there is room");
                loan.copy_from_slice(&body);
            }
            Act::Full(handle, letter, body) => {
                let message = Outgoing::from(&body).priority(letter.priority);
                let refused = self.sender(handle).try_send(message);
                assert!(
                    refused.is_err_and(|error| matches!(error.kind(), Kind::Full)),
                    "it is full"
                );
            }
            Act::Block(handle, Some((letter, body))) => {
                say("blocks");
                let message = Outgoing::from(&body).priority(letter.priority);
                self.sender(handle).send(message).expect("there is room at last");
            }
            Act::Block(handle, None) => {
                say("blocks");
                let message = self.receiver(handle).recv().expect("a message").into_owned();
                self.taken.push_back(message);
            }
            Act::Take(handle) => {
                let message = self.receiver(handle).try_recv().expect("a message").into_owned();
                self.taken.push_back(message);
            }
            Act::Receive(handle) => drop(self.receiver(handle).try_recv().expect("a message")),
            Act::Many(handle) => {
                self.receiver(handle).recv_many(100, |message| drop(message)).expect("messages");
            }
            Act::Nothing(handle) => {
                assert!(self.receiver(handle).try_recv().is_err(), "nothing is there");
            }
            Act::Acknowledge => self.oldest().acknowledge().expect("it is ended"),
            Act::Reject => self.oldest().reject().expect("it is given back"),
            Act::Poll(handle) => {
                if let Some(sender) = self.senders.get_mut(&handle) {
                    sender.pollable().expect("a descriptor");
                } else {
                    self.receiver(handle).pollable().expect("a descriptor");
                }
            }
            Act::Close(handle) => {
                drop(self.senders.remove(&handle));
                drop(self.receivers.remove(&handle));
            }
        }
    }

    fn sender(&mut self, handle: char) -> &mut Sender {
        self.senders.get_mut(&handle).expect("the script opened it")
    }

    fn receiver(&mut self, handle: char) -> &mut Receiver {
        self.receivers.get_mut(&handle).expect("the script opened it")
    }

    fn oldest(&mut self) -> OwnedMessage {
        self.taken.pop_front().expect("the script took one")
    }
}
