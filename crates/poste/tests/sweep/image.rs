//! A mailbox's files read as bytes, by the drawings in ring/layout.rs and nothing else of the
//! library: which messages lie there, whatever the code that sends and receives makes of them. Where
//! nobody works, the library's own invariants are tried too.

use std::fs;
use std::path::Path;

use poste_sys::mapping::{Access, Mapping};

use crate::letter::Letter;
use crate::ring::lane::Lane;
use crate::ring::layout::{
    HEADER_SIZE, LANE_MAGIC, MAGIC, PARTICIPANTS, Part, Place, State, Word, descriptor, header,
    lane, participant, participant_at,
};

/// A message in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lying {
    pub(crate) letter: Letter,
    /// It was handed out already, so that it is to come marked.
    pub(crate) was_out: bool,
}

/// A mailbox's header.
pub(crate) struct Header(Vec<u8>);

fn word(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..at + 8).and_then(|word| word.try_into().ok());
    word.map_or(0, u64::from_ne_bytes)
}

impl Header {
    /// The header of the mailbox in a folder; `None`: there is none.
    ///
    /// # Errors
    /// It is there, and no header.
    pub(crate) fn read(folder: &Path) -> Result<Option<Header>, String> {
        let Ok(bytes) = fs::read(folder.join("header")) else { return Ok(None) };
        if bytes.len() < HEADER_SIZE || word(&bytes, header::MAGIC) != MAGIC {
            return Err(format!("the header is {} bytes and not whole", bytes.len()));
        }
        Ok(Some(Header(bytes)))
    }

    /// Whether it says that the mailbox was removed.
    pub(crate) fn is_removed(&self) -> bool {
        word(&self.0, header::LIFE) != 0
    }

    /// How many receivers have said that they sleep.
    pub(crate) fn asleep(&self) -> u32 {
        (0..PARTICIPANTS / 64).map(|at| word(&self.0, header::ASLEEP + at * 8).count_ones()).sum()
    }

    /// The files of the lanes in use.
    fn lanes(&self) -> impl Iterator<Item = String> {
        (0..PARTICIPANTS).filter_map(|place| {
            let says = |field| word(&self.0, participant_at(place) + field);
            let part = Part::of(says(participant::STATE));
            let number = says(participant::LANE);
            matches!(part, Part::Sender | Part::Orphan).then(|| format!("lane.{place}.{number}"))
        })
    }
}

/// Whether a sender has said that it waits.
pub(crate) fn is_wanted(folder: &Path) -> bool {
    let Ok(Some(header)) = Header::read(folder) else { return false };
    let lanes: Vec<_> = header.lanes().collect();
    let wanted = |name: &String| fs::read(folder.join(name)).map(|b| word(&b, lane::WANTED) != 0);
    lanes.iter().any(|name| wanted(name).unwrap_or(false))
}

/// Every message that is published and not done, lane by lane.
///
/// # Errors
/// What is wrong with the bytes.
pub(crate) fn messages(folder: &Path) -> Result<Vec<Lying>, String> {
    let mut lying = Vec::new();
    let Some(header) = Header::read(folder)? else { return Ok(lying) };
    for name in header.lanes() {
        let bytes = match fs::read(folder.join(&name)) {
            Ok(bytes) => bytes,
            // It may be given back between the two looks, where others work.
            Err(_) => return Err(format!("{name} is missing")),
        };
        if word(&bytes, lane::MAGIC) != LANE_MAGIC {
            return Err(format!("{name} is no lane"));
        }
        let (slots, bodies) = (word(&bytes, lane::SLOTS), word(&bytes, lane::BODIES) as usize);
        let head = word(&bytes, lane::HEAD);
        for number in head..head + slots {
            let at = lane::DESCRIPTORS + (number & (slots - 1)) as usize * descriptor::SIZE;
            let said = Word::read(word(&bytes, at + descriptor::WORD));
            if said.number() != number as u32 {
                break;
            }
            match said.state() {
                State::Done => continue,
                State::Unknown => return Err(format!("message {number} of {name} has no state")),
                State::Ready | State::Taken => {}
            }
            let place = Place::read(word(&bytes, at + descriptor::PLACE));
            let start = bodies + place.offset;
            let body = bytes.get(start..start + place.size);
            let body = body.ok_or_else(|| format!("message {number} lies outside of {name}"))?;
            let letter = Letter::read(body).map_err(|fault| format!("in {name}: {fault}"))?;
            if letter.priority != u16::from(said.priority()) {
                return Err(format!("{letter} has priority {}", said.priority()));
            }
            let was_out = said.state() == State::Taken || said.deliveries() > 0;
            lying.push(Lying { letter, was_out });
        }
    }
    Ok(lying)
}

/// The invariants of every lane, as the library's own function has them.
///
/// # Errors
/// Which doesn't hold.
pub(crate) fn check_lanes(folder: &Path) -> Result<(), String> {
    let Some(header) = Header::read(folder)? else { return Ok(()) };
    for name in header.lanes() {
        let file = fs::File::options().read(true).write(true).open(folder.join(&name));
        let file = file.map_err(|error| format!("{name}: {error}"))?;
        let size = file.metadata().map_err(|error| error.to_string())?.len() as usize;
        let slots = word(&fs::read(folder.join(&name)).unwrap_or_default(), lane::SLOTS);
        let control = Lane::control_size(slots);
        let map = Mapping::new(file.into(), 0, control, Access::Write);
        let map = map.map_err(|errno| format!("{name}: {errno}"))?;
        let lane = Lane::over(map, slots).map_err(|fault| format!("{name}: {fault}"))?;
        lane.check(size.saturating_sub(control)).map_err(|fault| format!("{name}: {fault}"))?;
    }
    Ok(())
}
