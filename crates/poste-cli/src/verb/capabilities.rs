//! `poste capabilities`: what each mechanism can do, as the library's table says.
//!
//! For people a table with a column for each mechanism, in as many parts as the terminal needs;
//! with `--json` one object per mechanism.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use poste::mechanism::{ALL, Mechanism};
use poste::{Identity, Priorities, Redelivers, Unit};
use serde_json::{Value, json};

use crate::args::Capabilities;
use crate::exit::Stop;
use crate::output::{Output, object};

/// Prints the table.
pub(crate) fn run(args: &Capabilities) -> Result<(), Stop> {
    let mut out = Output::open();
    if args.json {
        for mechanism in ALL {
            let mut fields = vec![("mechanism", json!(mechanism.scheme))];
            fields.extend(fields_of(mechanism));
            out.write(format!("{}\n", object(&fields)).as_bytes())?;
        }
    } else {
        out.write(tables(Table::new().width()).as_bytes())?;
    }
    out.flush()
}

/// What a mechanism can do, each with its name: the one list that both forms print.
fn fields_of(mechanism: &Mechanism) -> Vec<(&'static str, Value)> {
    let can = &mechanism.capabilities;
    vec![
        ("raw_boundaries", json!(can.raw_boundaries)),
        ("raw_empty", json!(can.raw_empty)),
        ("pieces", json!(can.pieces)),
        ("connections", json!(can.connections)),
        ("many_senders", json!(can.many_senders)),
        ("many_receivers", json!(can.many_receivers)),
        ("way_back", json!(can.way_back)),
        ("priorities", json!(can.priorities.max())),
        ("native_priorities", json!(matches!(can.priorities, Priorities::Native(_)))),
        ("identity", json!(identity(can.identity))),
        ("descriptors", json!(can.descriptors)),
        ("pollable", json!(can.pollable)),
        ("delay_seconds", json!(can.delay.as_secs_f64())),
        ("named", json!(can.named)),
        ("one_user", json!(can.one_user)),
        ("made_by_listening", json!(can.made_by_listening)),
        ("survives_its_users", json!(can.survives_its_users)),
        ("may_lose", json!(can.may_lose)),
        ("network", json!(can.network)),
        ("capacity", json!(can.capacity.map(unit))),
        ("redelivers", json!(redelivers(can.redelivers))),
    ]
}

fn identity(identity: Identity) -> &'static str {
    match identity {
        Identity::Unknown => "unknown",
        Identity::Connection => "connection",
        Identity::Message => "message",
        Identity::SameProcess => "same process",
    }
}

fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Messages => "messages",
        Unit::Bytes => "bytes",
    }
}

fn redelivers(redelivers: Redelivers) -> &'static str {
    match redelivers {
        Redelivers::Never => "never",
        Redelivers::WhileTheSenderLives => "while the sender lives",
        Redelivers::Always => "always",
    }
}

/// The table in as many parts as fit into `width`, each with as many mechanisms as it can hold.
fn tables(width: Option<u16>) -> String {
    let mut text = String::new();
    let mut rest = ALL;
    while !rest.is_empty() {
        let fits = |count: &usize| {
            let table = table(&rest[..*count]);
            width.is_none_or(|width| table.lines().all(|line| line.len() <= usize::from(width)))
        };
        let count = (1..=rest.len()).rev().find(fits).unwrap_or(1);
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&table(&rest[..count]));
        rest = &rest[count..];
    }
    text
}

fn table(mechanisms: &[&'static Mechanism]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    let names = mechanisms.iter().map(|mechanism| mechanism.scheme);
    table.set_header(std::iter::once("").chain(names));
    let columns: Vec<_> = mechanisms.iter().map(|mechanism| fields_of(mechanism)).collect();
    for (row, (name, _)) in fields_of(mechanisms[0]).iter().enumerate() {
        let cells = columns.iter().map(|column| cell(&column[row].1));
        table.add_row(std::iter::once(name.replace('_', " ")).chain(cells));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2)).set_cell_alignment(CellAlignment::Left);
    }
    let lines = table.lines().map(|line| format!("{}\n", line.trim_end()));
    lines.collect()
}

fn cell(value: &Value) -> String {
    match value {
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) | Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string().trim_end_matches(".0").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_terminal_gets_several_tables() {
        for width in [40, 80, 1000] {
            assert!(tables(Some(width)).lines().all(|line| line.len() <= usize::from(width)));
        }
        for mechanism in ALL {
            assert!(tables(None).contains(mechanism.scheme));
        }
    }
}
