//! `poste gc`: what the dead have provably left; with `--yes` it is taken away.

use poste::Garbage;
use serde_json::json;

use crate::args::Gc;
use crate::exit::{Failure, Stop, one_line};
use crate::notice;
use crate::output::{Output, object};
use crate::table;

/// Shows what there is, and takes away as much as it can where that is asked for.
pub(crate) fn run(args: &Gc) -> Result<(), Stop> {
    let garbage = poste::garbage()?;
    let tried = garbage.len();
    let mut failures = Vec::new();
    let (mut rows, mut lines) = (Vec::new(), String::new());
    for garbage in garbage {
        let fields = [("address", json!(garbage.address)), ("proof", json!(garbage.proof))];
        let row = vec![one_line(&garbage.address), garbage.proof.clone()];
        if let Some(failure) = take_away(args, garbage) {
            failures.push(failure);
            continue;
        }
        lines.push_str(&format!("{}\n", object(&fields)));
        rows.push(row);
    }
    if let Some(failure) = Failure::of_several(failures, tried) {
        return Err(failure.into());
    }
    let mut out = Output::open();
    let text = if args.json { lines } else { table::render(&["ADDRESS", "PROOF"], &rows) };
    out.write(text.as_bytes())?;
    out.flush()?;
    if tried > 0 && !args.yes {
        notice::dry_run();
    }
    Ok(())
}

fn take_away(args: &Gc, garbage: Garbage) -> Option<Failure> {
    if args.yes { garbage.take_away().err().map(Failure::from) } else { None }
}
