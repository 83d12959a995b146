//! `poste info`: everything that is known of one object, and the limits that hold it.

use poste::{Detail, Info, State};
use serde_json::{Value, json};

use super::{limits, list};
use crate::args;
use crate::exit::{Stop, one_line};
use crate::output::{Output, object};
use crate::table::{self, known};
use crate::{notice, resolve};

/// Prints it.
pub(crate) fn run(args: &args::Info) -> Result<(), Stop> {
    let (address, _) = resolve::place(&args.address)?;
    let info = poste::info(address.to_string())?;
    let mut out = Output::open();
    let text = if args.json { format!("{}\n", object(&fields(&info))) } else { for_people(&info) };
    out.write(text.as_bytes())?;
    out.flush()?;
    notice::unseen(&info.unseen);
    Ok(())
}

fn fields(info: &Info) -> Vec<(&'static str, Value)> {
    let mut fields = list::fields(&info.object);
    fields.extend(info.object.details.iter().map(|(name, detail)| (*name, value(detail))));
    let limits = info.limits.iter().map(|limit| {
        let fields = limits::fields(limit).into_iter();
        Value::Object(fields.map(|(name, value)| (name.to_owned(), value)).collect())
    });
    fields.push(("limits", limits.collect()));
    fields
}

fn value(detail: &Detail) -> Value {
    match detail {
        Detail::Number(number) => json!(number),
        Detail::Text(text) => json!(text),
        Detail::Rows(rows) => rows.iter().map(|row| object_of(row)).collect(),
        _ => Value::Null,
    }
}

fn object_of(row: &[(&'static str, Detail)]) -> Value {
    Value::Object(row.iter().map(|(name, detail)| ((*name).to_owned(), value(detail))).collect())
}

/// A detail as lines, the first one with its name.
fn lines(name: &'static str, detail: &Detail) -> Vec<(&'static str, String)> {
    match detail {
        Detail::Rows(rows) => {
            let words = |row: &Vec<(&str, Detail)>| {
                let words = row.iter().map(|(name, detail)| match detail {
                    Detail::Text(text) => one_line(text),
                    _ => format!("{name} {}", value(detail)),
                });
                words.collect::<Vec<_>>().join(", ")
            };
            let names = std::iter::once(name).chain(std::iter::repeat(""));
            names.zip(rows.iter().map(words)).collect()
        }
        Detail::Text(text) => vec![(name, one_line(text))],
        other => vec![(name, value(other).to_string())],
    }
}

fn for_people(info: &Info) -> String {
    let it = &info.object;
    let mut rows = vec![
        ("address", it.address.to_string()),
        ("mechanism", it.mechanism.to_owned()),
        ("state", known(it.state.map(State::text))),
        ("depth", known(it.depth)),
        ("capacity", known(it.capacity)),
        ("bytes", known(it.bytes)),
        ("message size", known(it.message_size)),
        ("mode", known(it.mode.map(|mode| format!("{mode:04o}")))),
        ("owner", list::owner(it)),
        ("age", known(it.age.map(list::age))),
        ("held by", list::held_by(it, usize::MAX)),
    ];
    rows.extend(it.details.iter().flat_map(|(name, detail)| lines(name, detail)));
    let rows: Vec<_> = rows
        .into_iter()
        .filter(|(_, value)| value != "-")
        .map(|(name, value)| vec![name.replace('_', " "), value])
        .collect();
    let mut text = table::render(&["", ""], &rows);
    if !info.limits.is_empty() {
        text.push('\n');
        text.push_str(&limits::table(&info.limits));
    }
    text
}
