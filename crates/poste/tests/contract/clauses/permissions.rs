//! Who may send: what is made has mode 0600, and a receiver may require a user or a group. Where
//! nobody vouches for who sends, requiring it is refused.

use std::process::ExitCode;
use std::time::Duration;

use poste::{Identity, Kind, Options, Sender};
use poste_sys::testing::skip;
use rustix::process::{getegid, geteuid};

use super::PATIENCE;
use crate::cell::{Cell, Clause, Form};
use crate::fixture::Channel;
use crate::leftovers;
use crate::worker::{STRANGER, Worker};

/// Other users can't send to what was made with the usual mode.
pub(crate) static MODE: Clause = Clause {
    name: "mode",
    applies: |capabilities, form| {
        form == Form::Enveloped && capabilities.named && !capabilities.network
    },
    run: mode,
    ..Clause::PLAIN
};

/// A receiver hears those whom it wants to hear.
pub(crate) static REQUIRED: Clause =
    Clause { name: "required_user", applies: |_, _| true, run: required, ..Clause::PLAIN };

/// How long something is waited for that must not come.
const SOON: Duration = Duration::from_millis(100);

/// The helper that another user runs: it sends, and says how that ended.
pub(crate) fn stranger(address: &str) -> ExitCode {
    let sent = Sender::open(address).and_then(|mut sender| sender.send("from a stranger"));
    match sent {
        Ok(_) => eprintln!("result sent"),
        Err(error) => eprintln!("result {}", error.kind().code()),
    }
    ExitCode::SUCCESS
}

/// What became of a stranger's message; `None`, said aloud, where there can be no stranger.
fn result_of_a_stranger(cell: &Cell, address: &str) -> Option<String> {
    match Worker::of_another_user("stranger", address, None) {
        Some(stranger) => Some(heard(stranger)),
        None => {
            skip(&cell.name(), "no other user can run the tests' program (not root?)");
            None
        }
    }
}

fn heard(mut stranger: Worker) -> String {
    let result = stranger.hear("result ").expect("it says how it ended");
    stranger.finish();
    result
}

fn mode(cell: &Cell) {
    let is_inside = cell.capabilities().identity == Identity::SameProcess;
    let channel = cell.channel();
    let mut receiver = channel.receiver();
    if is_inside || is_abstract(&channel) {
        return;
    }
    let Some(result) = result_of_a_stranger(cell, channel.address()) else { return };
    if cell.capabilities().one_user {
        assert_eq!(result, "not_found", "a stranger's names are other names");
        // Who names our directory instead of its own is not let in.
        let ours = leftovers::runtime_directory().expect("the mailbox lies there");
        let result = Worker::of_another_user("stranger", channel.address(), Some(&ours));
        assert_eq!(heard(result.expect("as above")), "permission");
    } else {
        assert_eq!(result, "permission");
    }
    assert_eq!(receiver.recv_timeout(SOON).unwrap_err().kind(), Kind::TimedOut);
    // An object that survives its receiver is there with the mode it was made with.
    drop(receiver);
    let channel = cell.channel();
    let options = channel.options();
    if cell.capabilities().one_user {
        let error = channel.receiver_with(&options.mode(0o660)).map(drop).unwrap_err();
        assert_eq!(error.kind(), Kind::NotSupported, "it is for one user: {error}");
        return;
    }
    if cell.fixture.mechanism().settings.contains(&"mode") {
        let mut receiver = channel.receiver_with(&options.mode(0o666)).unwrap();
        let result = result_of_a_stranger(cell, channel.address());
        assert_eq!(result.as_deref(), Some("sent"), "mode 0666 lets others send");
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap().text().unwrap(), "from a stranger");
    }
}

fn is_abstract(channel: &Channel) -> bool {
    channel.wanted().is_some_and(|address| address.contains('@'))
}

fn required(cell: &Cell) {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let mine = [Options::new().require_user(uid), Options::new().require_group(gid)];
    let others = [Options::new().require_user(uid + 1), Options::new().require_group(gid + 1)];
    if cell.capabilities().identity == Identity::Unknown {
        for options in mine.iter().chain(&others) {
            let error = cell.channel().open_with(form(cell, options)).map(drop).unwrap_err();
            assert_eq!(error.kind(), Kind::NotSupported, "{error}");
            assert!(!error.hint().is_empty());
        }
        return;
    }
    for options in mine {
        let (mut sender, mut receiver) = cell.channel().open_with(form(cell, &options)).unwrap();
        for round in 0..3 {
            sender.send(&format!("mine {round}")).unwrap();
            let message = receiver.recv_timeout(PATIENCE).unwrap();
            assert_eq!(message.text().unwrap(), format!("mine {round}"));
        }
    }
    for options in others {
        let channel = cell.channel();
        if !channel.has_address() || cell.capabilities().identity == Identity::SameProcess {
            let error = channel.open_with(form(cell, &options)).map(drop).unwrap_err();
            assert_eq!(error.kind(), Kind::Permission, "{error}");
            continue;
        }
        let mut receiver = channel.receiver_with(&form(cell, &options)).unwrap();
        let mut sender = channel.sender();
        // A connection that is refused is closed, perhaps while it sends.
        let _ = sender.send_timeout("not heard", PATIENCE);
        assert_eq!(receiver.recv_timeout(SOON).unwrap_err().kind(), Kind::TimedOut);
        assert!(receiver.counters().corrupt > 0, "it is counted");
        if cell.capabilities().connections {
            // Nor does a sender speak to a receiver that is someone else.
            let error = Sender::open_with(channel.address(), &form(cell, &options)).unwrap_err();
            assert_eq!(error.kind(), Kind::Permission, "{error}");
        }
    }
    if cell.form == Form::Enveloped && cell.capabilities().identity != Identity::SameProcess {
        strangers_are_refused(cell, uid);
    }
}

fn form(cell: &Cell, options: &Options) -> Options {
    if cell.form == Form::Raw { options.clone().raw() } else { options.clone() }
}

/// Others are refused though the mode would let them.
fn strangers_are_refused(cell: &Cell, uid: u32) {
    let channel = cell.channel();
    if !channel.has_address() {
        return;
    }
    let open = if is_abstract(&channel) { Options::new() } else { Options::new().mode(0o666) };
    let mut receiver = channel.receiver_with(&open.clone().require_user(uid)).unwrap();
    let Some(_) = result_of_a_stranger(cell, channel.address()) else { return };
    assert_eq!(receiver.recv_timeout(SOON).unwrap_err().kind(), Kind::TimedOut);
    channel.sender().send("from a friend").unwrap();
    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap().text().unwrap(), "from a friend");
    drop(receiver);
    let channel = cell.channel();
    let mut receiver = channel.receiver_with(&open.require_user(STRANGER)).unwrap();
    assert!(result_of_a_stranger(cell, channel.address()).is_some());
    let message = receiver.recv_timeout(PATIENCE).unwrap();
    assert_eq!(message.sender().uid(), Some(STRANGER));
    assert_eq!(message.sender().gid(), Some(STRANGER));
    assert_eq!(message.text().unwrap(), "from a stranger");
}
