//! The checker: a process for which everybody else in a mailbox is dead. It opens the mailbox, which
//! recovers it, takes all that lies there, and compares that with what its files held before. Then it
//! sends and receives something new, and looks whether all was given back.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use poste::{Kind, Outgoing, Receiver, Sender};

use crate::image::{self, Header, Lying};
use crate::letter::Letter;
use crate::party::say;
use crate::stage::folder;

/// No mailbox of the sweep holds so many messages.
const MANY: usize = 1000;

/// What lay in a mailbox and came out of it.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) letters: Vec<Letter>,
    /// Half-made files and folders that the dead left, which nobody takes for anything else.
    pub(crate) half_made: usize,
}

/// A checker's life: checks whenever it is told to, until its input ends.
pub(crate) fn live(words: &[&str]) {
    let &[address] = words else { panic!("an address: {words:?}") };
    let runtime = PathBuf::from(std::env::var_os("POSTE_DIR").expect("it is set"));
    for _ in std::io::stdin().lock().lines() {
        match check(&runtime, address) {
            Ok(found) => {
                let letters = found.letters.iter().map(|l| format!(" {}{}", l.sender, l.number));
                say(&format!("ok {}{}", found.half_made, letters.collect::<String>()));
            }
            Err(fault) => say(&format!("fault {}", fault.replace('\n', " "))),
        }
    }
}

/// Reads a checker's answer: how much was left half made, and the letters.
pub(crate) fn read(answer: &str) -> Result<(usize, Vec<(char, u32)>), String> {
    let Some(answer) = answer.strip_prefix("ok ") else {
        return Err(answer.strip_prefix("fault ").unwrap_or(answer).to_owned());
    };
    let mut words = answer.split(' ');
    let half_made = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
    let letter = |word: &str| {
        let mut letters = word.chars();
        (letters.next().unwrap_or('?'), letters.as_str().parse().unwrap_or(0))
    };
    Ok((half_made, words.map(letter).collect()))
}

fn check(runtime: &Path, address: &str) -> Result<Found, String> {
    let folder = folder(runtime);
    let is_removed = Header::read(&folder)?.is_some_and(|header| header.is_removed());
    image::check_lanes(&folder)?;
    let lying = if is_removed { Vec::new() } else { image::messages(&folder)? };
    let text = |error: poste::Error| error.to_string();
    let mut receiver = Receiver::create(address).map_err(text)?;
    image::check_lanes(&folder).map_err(|fault| format!("recovered, {fault}"))?;
    let came = drain(&mut receiver)?;
    let aside = aside(&folder)?;
    compare(&lying, &came, &aside)?;
    use_it(address, &mut receiver)?;
    drop(receiver);
    let half_made = leftovers(runtime)?;
    let letters = came.iter().map(|one| one.letter).chain(aside).collect();
    Ok(Found { letters, half_made })
}

/// Takes all that is there.
fn drain(receiver: &mut Receiver) -> Result<Vec<Lying>, String> {
    let mut came = Vec::new();
    while came.len() < MANY {
        match receiver.try_recv() {
            Ok(message) => {
                let letter = Letter::read(&message)?;
                if letter.priority != message.priority() {
                    return Err(format!("{letter} came with priority {}", message.priority()));
                }
                came.push(Lying { letter, was_out: message.redelivered() });
                message.acknowledge().map_err(|error| error.to_string())?;
            }
            Err(error) if matches!(error.kind(), Kind::Empty) => return Ok(came),
            Err(error) => return Err(error.to_string()),
        }
    }
    Err("messages come without end".to_owned())
}

/// The letters that were set aside.
pub(crate) fn aside(folder: &Path) -> Result<Vec<Letter>, String> {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_one = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with("aside.");
    let aside = files.filter(|file| is_one(&file.file_name()));
    aside.map(|file| Letter::read(&std::fs::read(file.path()).unwrap_or_default())).collect()
}

/// Each came once, or was set aside; marked, if it was out before; in order.
fn compare(lying: &[Lying], came: &[Lying], aside: &[Letter]) -> Result<(), String> {
    for (index, one) in came.iter().enumerate() {
        let letter = one.letter;
        if came[..index].iter().any(|other| other.letter == letter) {
            return Err(format!("{letter} came twice"));
        }
        if aside.contains(&letter) {
            return Err(format!("{letter} was set aside and came"));
        }
        let Some(before) = lying.iter().find(|lying| lying.letter == letter) else {
            return Err(format!("{letter} came and did not lie there"));
        };
        if before.was_out != one.was_out {
            return Err(format!(
                "{letter} is marked: {}, was out: {}",
                one.was_out, before.was_out
            ));
        }
        let is_later = |other: &&Lying| {
            let other = other.letter;
            other.priority > letter.priority
                || (other.sender, other.priority) == (letter.sender, letter.priority)
                    && other.number < letter.number
        };
        if let Some(late) = came[index + 1..].iter().find(is_later) {
            return Err(format!("{letter} came before {}", late.letter));
        }
    }
    for Lying { letter, .. } in lying {
        if !came.iter().any(|came| came.letter == *letter) && !aside.contains(letter) {
            return Err(format!("{letter} is lost"));
        }
    }
    Ok(())
}

/// New messages come through.
fn use_it(address: &str, receiver: &mut Receiver) -> Result<(), String> {
    let text = |error: poste::Error| error.to_string();
    let new = |number, priority, size| Letter { sender: 'z', number, priority, size };
    let letters = [new(1, 0, 5000), new(2, 31, 40), new(3, 0, 16)];
    let mut sender = Sender::open(address).map_err(text)?;
    for letter in letters {
        let body = letter.body();
        sender.try_send(Outgoing::from(&body).priority(letter.priority)).map_err(text)?;
    }
    let came: Vec<_> = drain(receiver)?.into_iter().map(|c| (c.letter, c.was_out)).collect();
    if came != [(letters[1], false), (letters[0], false), (letters[2], false)] {
        return Err(format!("of new messages there came {came:?}"));
    }
    drop(sender);
    drain(receiver).map(drop)
}

/// Nothing is left of a mailbox that nobody uses but its header, and what was set aside. Says how
/// much the dead have left half made: their names begin with a dot.
pub(crate) fn leftovers(runtime: &Path) -> Result<usize, String> {
    let mut half_made = 0;
    for folder in [folder(runtime), runtime.join("shm")] {
        for file in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') {
                half_made += 1;
            } else if name != "header" && name != "m" && !name.starts_with("aside.") {
                return Err(format!("{name} is left behind"));
            }
        }
    }
    Ok(half_made)
}
