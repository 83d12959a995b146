//! A named byte stream is an ordinary file to others: `cat` reads what a raw sender sends, a shell
//! writes what a raw receiver receives, whoever opens it first.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::PATIENCE;
use crate::cell::{Cell, Clause, Form};

pub(crate) static CLAUSE: Clause = Clause {
    name: "plain_peers",
    applies: |capabilities, form| {
        form == Form::Raw
            && capabilities.named
            && !capabilities.connections
            && !capabilities.raw_boundaries
    },
    needs: &["cat", "sh", "timeout"],
    run,
    ..Clause::PLAIN
};

fn run(cell: &Cell) {
    for reader_first in [true, false] {
        let channel = cell.channel();
        poste::create(channel.address(), &poste::Options::new()).unwrap();
        channel.is_at(channel.address().to_owned());
        let path = channel.folder().join("fifo");
        let pause = || std::thread::sleep(Duration::from_millis(60));
        let cat = || {
            let mut command = Command::new("timeout");
            command.args(["10", "cat"]).arg(&path).stdin(Stdio::null()).stdout(Stdio::piped());
            command.spawn().unwrap()
        };
        let early = reader_first.then(cat);
        pause();
        let mut sender = channel.sender();
        std::thread::scope(|scope| {
            // Where nobody reads yet this waits, and must find a reader that itself waits for us.
            scope.spawn(move || sender.send_timeout("to a stranger", PATIENCE / 2).unwrap());
            pause();
            let cat = early.unwrap_or_else(cat).wait_with_output().unwrap();
            assert_eq!(cat.stdout, b"to a stranger");
        });
        let mut receiver = channel.receiver();
        let write = "printf 'from a stranger' > \"$0\"";
        let mut shell = Command::new("timeout");
        let status = shell.args(["10", "sh", "-c", write]).arg(&path).status().unwrap();
        assert!(status.success());
        assert_eq!(&receiver.recv_timeout(PATIENCE).unwrap()[..], b"from a stranger");
    }
}
