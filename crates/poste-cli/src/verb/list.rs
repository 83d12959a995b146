//! `poste list`: the objects of this machine, whoever made them, and what could not be seen.

use std::time::Duration;

use poste::mechanism::{self, ALL};
use poste::{Object, State};
use serde_json::{Value, json};

use crate::args::List;
use crate::exit::{Code, Failure, Stop, one_line};
use crate::output::{Output, object};
use crate::table::{self, known};
use crate::{later, notice};

/// Prints a line for each object.
pub(crate) fn run(args: &List) -> Result<(), Stop> {
    let listing = match &args.mechanism {
        Some(scheme) => poste::listing(&[find(scheme)?])?,
        None => poste::listing(ALL)?,
    };
    let mut out = Output::open();
    if args.json {
        for it in &listing.objects {
            out.write(format!("{}\n", object(&fields(it))).as_bytes())?;
        }
    } else {
        let rows: Vec<_> = listing.objects.iter().map(row).collect();
        out.write(table::render(HEADING, &rows).as_bytes())?;
    }
    out.flush()?;
    notice::unseen(&listing.unseen);
    Ok(())
}

fn find(scheme: &str) -> Result<&'static mechanism::Mechanism, Failure> {
    mechanism::find(scheme).ok_or_else(|| {
        let known: Vec<_> = ALL.iter().map(|mechanism| mechanism.scheme).collect();
        later::mechanism(scheme).unwrap_or_else(|| {
            Failure::new(
                Code::Usage,
                format!("no mechanism is called {scheme}"),
                format!("there are {}", known.join(", ")),
            )
        })
    })
}

/// What is known of an object, each with its name: the one list that `list` and `info` print.
pub(super) fn fields(it: &Object) -> Vec<(&'static str, Value)> {
    let holders = it.holders.as_ref().map(|holders| {
        let each = holders
            .iter()
            .map(|holder| json!({"pid": holder.pid, "command": holder.command, "end": holder.end}));
        each.collect::<Value>()
    });
    let fields = [
        ("address", Some(json!(it.address.to_string()))),
        ("mechanism", Some(json!(it.mechanism))),
        ("depth", it.depth.map(Value::from)),
        ("capacity", it.capacity.map(Value::from)),
        ("bytes", it.bytes.map(Value::from)),
        ("message_size", it.message_size.map(Value::from)),
        ("mode", it.mode.map(|mode| json!(format!("{mode:04o}")))),
        ("owner", it.owner.clone().map(Value::from)),
        ("uid", it.uid.map(Value::from)),
        ("age_seconds", it.age.map(|age| json!(age.as_secs()))),
        ("holders", holders),
        ("alive", it.alive.map(Value::from)),
        ("state", it.state.map(|state| json!(state.text()))),
    ];
    fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

const HEADING: &[&str] =
    &["ADDRESS", "STATE", "DEPTH", "CAPACITY", "BYTES", "MODE", "OWNER", "AGE", "HELD BY"];

fn row(it: &Object) -> Vec<String> {
    vec![
        it.address.to_string(),
        known(it.state.map(State::text)),
        known(it.depth),
        known(it.capacity),
        known(it.bytes),
        known(it.mode.map(|mode| format!("{mode:04o}"))),
        owner(it),
        known(it.age.map(age)),
        held_by(it, 3),
    ]
}

/// The owner's name, or number.
pub(super) fn owner(it: &Object) -> String {
    known(it.owner.clone().or_else(|| Some(it.uid?.to_string())))
}

/// How long, in the one unit that says most.
pub(super) fn age(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3_600 => format!("{}m", seconds / 60),
        seconds @ 3_600..86_400 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// Who holds it, at most so many by name.
pub(super) fn held_by(it: &Object, most: usize) -> String {
    let Some(holders) = &it.holders else { return "-".to_owned() };
    let name = |command: &str| one_line(command);
    let mut words: Vec<_> = holders
        .iter()
        .take(most)
        .map(|holder| format!("{} {} ({})", name(&holder.command), holder.pid, holder.end))
        .collect();
    if holders.len() > most {
        words.push(format!("{} more", holders.len() - most));
    }
    if words.is_empty() { "-".to_owned() } else { words.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        for (seconds, expected) in [(0, "0s"), (59, "59s"), (60, "1m"), (7_200, "2h")] {
            assert_eq!(age(Duration::from_secs(seconds)), expected);
        }
        assert_eq!(age(Duration::from_secs(1_000_000)), "11d");
    }
}
