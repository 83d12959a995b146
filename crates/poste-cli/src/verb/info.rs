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
        _ => Value::Null,
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
    let details = it.details.iter().map(|(name, detail)| match value(detail) {
        Value::String(text) => (*name, one_line(&text)),
        other => (*name, other.to_string()),
    });
    rows.extend(details);
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
