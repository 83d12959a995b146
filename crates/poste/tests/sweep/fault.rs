//! A fault, seeded on purpose: a sender that publishes a message before it has copied the body. The
//! sweep must find it, and must find nothing in the same steps in their right order. The fault is in
//! this test alone: it works on a lane with the library's ring, compiled into this program.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use poste_sys::mapping::{Access, Mapping};
use poste_sys::testing::mark;

use crate::copies;
use crate::letter::Letter;
use crate::operations::{Fate, Operation};
use crate::ring::lane::Lane;
use crate::ring::layout::Place;
use crate::ring::producer::{Kind, Producer};
use crate::tally::{ALL, Tally};

/// The lane of a sender that is gone, gone on with by this program itself.
const OPERATION: Operation = Operation {
    name: "send_by_hand",
    cast: &[("sender v\nsend v 1", Fate::Dead)],
    before: "v1",
    after: "v1 a2",
    ..crate::operations::PLAIN
};

/// What comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Copy,
    Publish,
}

/// The stepped process: one message, sent by hand.
pub(crate) fn send(words: &[&str], order: Order) {
    let &[folder] = words else { panic!("a folder: {words:?}") };
    let mut producer = resume(Path::new(folder));
    let letter = Letter { sender: 'a', number: 2, priority: 0, size: 90 };
    let body = letter.body();
    let me = std::process::id();
    mark(me);
    let offset = producer.room_for(body.len()).expect("there is room");
    let copy = |producer: &mut Producer| {
        producer.body(offset, body.len()).expect("there is room").copy_from_slice(&body);
    };
    if order == Order::Copy {
        copy(&mut producer);
    }
    let place = Place { offset, size: body.len() };
    producer.write(place, Kind { priority: 0, raw: false }, 1, 1);
    producer.publish();
    if order == Order::Publish {
        copy(&mut producer);
    }
    mark(me);
}

/// The one lane of a mailbox.
fn resume(folder: &Path) -> Producer {
    let names = fs::read_dir(folder).expect("a mailbox's folder").flatten();
    let lane = names.map(|file| file.path()).find(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("lane."))
    });
    let file = fs::File::options().read(true).write(true).open(lane.expect("a lane"));
    let file = OwnedFd::from(file.expect("it opens"));
    let size = rustix::fs::fstat(&file).expect("it is there").st_size as usize;
    let slots = poste::limits::LANE_DESCRIPTORS;
    let control = Lane::control_size(slots);
    let copy = file.try_clone().expect("one more descriptor");
    let words = Mapping::new(copy, 0, control, Access::Write).expect("it is mapped");
    let bodies = Mapping::new(file, control, size - control, Access::Write).expect("it is mapped");
    let lane = Arc::new(Lane::over(words, slots).expect("a lane"));
    Producer::resume(lane, bodies, slots).expect("a whole lane")
}

/// The fault is found.
pub(crate) fn is_caught() -> Result<(), String> {
    let tally = Tally::new();
    match copies::sweep_role("publish_first", &OPERATION, &tally) {
        Err(fault) if fault.contains("torn") => {
            println!("publish before copy was found: {fault}");
            Ok(())
        }
        Err(fault) => Err(format!("something else was found: {fault}")),
        Ok(()) => Err("a message was published before it was copied, and nobody saw it".to_owned()),
    }
}

/// Without the fault nothing is.
pub(crate) fn is_all() -> Result<(), String> {
    copies::sweep_role("copy_first", &OPERATION, &ALL)
}
