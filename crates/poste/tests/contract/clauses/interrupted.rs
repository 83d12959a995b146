//! Signals that interrupt every call, a thousand a second at both ends, lose and disturb nothing.

use super::PATIENCE;
use crate::cell::{Cell, Clause, Form};
use crate::letters::Letters;
use crate::worker::{Job, Worker};

pub(crate) static CLAUSE: Clause = Clause {
    name: "interrupted",
    applies: |capabilities, form| {
        // A storm is a process's own: where both ends are in this one it would strike all trials.
        form == Form::Enveloped
            && capabilities.identity != poste::Identity::SameProcess
            && !capabilities.may_lose
    },
    run,
    ..Clause::PLAIN
};

fn run(cell: &Cell) {
    let channel = cell.channel();
    let size_max = if cell.capabilities().pieces { 150_000 } else { 4000 };
    let letters = Letters { seed: cell.random().next(), size_max };
    let count = if crate::cell::is_long() { 20_000 } else { 400 };
    let job = Job { letters, writer: 0, count, storm: true, may_lose: false };
    let (mut writer, mut reader);
    let to_read = Job { writer: 1, ..job };
    if channel.has_address() {
        reader = Worker::reader(&channel, || unreachable!("it opens its own"), to_read);
        let address = reader.hear("at ").unwrap_or_else(|| panic!("{}", reader.log()));
        channel.is_at(address);
        writer = Worker::writer(&channel, || unreachable!("it opens its own"), job);
    } else {
        let (sender, receiver) = channel.open();
        reader = Worker::reader(&channel, || receiver, to_read);
        writer = Worker::writer(&channel, || sender, job);
    }
    assert!(writer.ends_within(PATIENCE * 3), "the writer hangs: {}", reader.log());
    writer.finish();
    assert!(reader.ends_within(PATIENCE), "the reader hangs at {}", reader.count("got"));
    reader.finish();
    assert_eq!(reader.count("got"), count as usize);
}
