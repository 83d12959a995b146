//! `poste limits`: the limits of the system, what is used of each and by whom, and what raises it.

use poste::SystemLimit;
use serde_json::{Value, json};

use crate::args::Limits;
use crate::exit::{Stop, one_line};
use crate::output::{Output, object};
use crate::table::{self, known};

/// Prints them.
pub(crate) fn run(args: &Limits) -> Result<(), Stop> {
    let limits = poste::limits();
    let mut out = Output::open();
    if args.json {
        for limit in &limits {
            out.write(format!("{}\n", object(&fields(limit))).as_bytes())?;
        }
    } else {
        out.write(table(&limits).as_bytes())?;
    }
    out.flush()
}

/// What is known of a limit.
pub(super) fn fields(limit: &SystemLimit) -> Vec<(&'static str, Value)> {
    let fields = [
        ("name", Some(json!(limit.name))),
        ("value", Some(json!(limit.value))),
        ("used", limit.used.map(Value::from)),
        ("used_by", limit.used_by.clone().map(Value::from)),
        ("raise_with", Some(json!(limit.raise_with))),
    ];
    fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// The limits for people.
pub(super) fn table(limits: &[SystemLimit]) -> String {
    let rows: Vec<_> = limits.iter().map(row).collect();
    table::render(&["LIMIT", "VALUE", "USED", "BY", "RAISE IT WITH"], &rows)
}

fn row(limit: &SystemLimit) -> Vec<String> {
    let value =
        if limit.value == u64::MAX { "unlimited".to_owned() } else { limit.value.to_string() };
    let used_by = limit.used_by.as_deref().map(one_line);
    vec![limit.name.to_owned(), value, known(limit.used), known(used_by), limit.raise_with.clone()]
}
