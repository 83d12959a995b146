//! What a channel cannot do is refused: settings that a mechanism has no use for when it is opened,
//! the rest at the call, with nothing sent.

use std::os::fd::AsFd;

use poste::{Kind, Options, Outgoing, Sender};

use super::PATIENCE;
use crate::cell::{Cell, Clause};

pub(crate) static CLAUSE: Clause = Clause { name: "refusals", run, ..Clause::PLAIN };

fn run(cell: &Cell) {
    let channel = cell.channel();
    let capabilities = cell.capabilities();
    let settings = cell.fixture.mechanism().settings;
    if let Some(wanted) = channel.wanted() {
        let all = [
            ("capacity", Options::new().capacity(4096)),
            ("message-size", Options::new().message_size(64)),
            ("mode", Options::new().mode(0o600)),
            ("shared", Options::new().shared()),
            ("type", Options::new().message_type(1)),
            ("listen", Options::new().listen()),
        ];
        for (name, options) in all.iter().filter(|(name, _)| !settings.contains(name)) {
            let error = Sender::open_with(wanted, &options.clone().create()).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{name}: {error}");
            let error = channel.receiver_with(options).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{name}: {error}");
            assert!(error.to_string().contains(name), "it says what: {error}");
        }
        for option in ["nonsense", "mode=rw", "capacity=-1", "create=no"] {
            let error = Sender::open(format!("{wanted}?{option}")).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{option}: {error}");
        }
        // Nobody made it, nobody listens.
        let absent = Sender::open(wanted).map(drop);
        if !wanted.ends_with(":0") {
            let kind = absent.unwrap_err().kind();
            assert!(matches!(kind, Kind::NotFound | Kind::NoReceiver), "{kind:?}");
        }
    }
    let (mut sender, mut receiver) = channel.open();
    let file = std::io::stderr();
    let descriptors = [file.as_fd()];
    let outgoing = Outgoing::from("with a descriptor").descriptors(&descriptors);
    if !capabilities.descriptors {
        assert_eq!(sender.send(outgoing).unwrap_err().kind(), Kind::NotSupported);
        assert_eq!(sender.feed(outgoing).unwrap_err().kind(), Kind::NotSupported);
    }
    let error = sender.send(Outgoing::from("typed").message_type(3)).unwrap_err();
    assert_eq!(error.kind(), Kind::NotSupported, "only raw System V messages have types");
    if !capabilities.many_senders {
        assert_eq!(sender.try_clone().unwrap_err().kind(), Kind::NotSupported);
    }
    if !capabilities.many_receivers {
        assert_eq!(receiver.try_clone().unwrap_err().kind(), Kind::NotSupported);
    }
    if channel.has_address() {
        if !capabilities.many_receivers {
            let error = channel.receiver_with(&Options::new()).unwrap_err();
            assert!(matches!(error.kind(), Kind::NameInUse { .. }), "a second receiver: {error}");
        }
        // What is there is never made again.
        let kind = poste::create(channel.address(), &Options::new()).unwrap_err().kind();
        assert!(matches!(kind, Kind::NameInUse { .. } | Kind::NotSupported), "{kind:?}");
    }
    if !capabilities.pollable {
        assert_eq!(receiver.pollable().unwrap_err().kind(), Kind::NotSupported);
    }
    sender.send("after it").unwrap();
    assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], b"after it");
    assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty, "what is refused is not sent");
}
