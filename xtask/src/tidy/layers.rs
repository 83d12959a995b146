//! Rules about who may use whom: the layer table of ARCHITECTURE.md, and the order of the crates.

use super::Fault;
use crate::house::{File, House};

const TABLE: &str = "ARCHITECTURE.md";
const SOURCE: &str = "crates/poste/src/";

/// Each crate may use those before it.
const ORDER: &[&str] = &["poste-sys", "poste", "poste-bench", "poste-cli"];

/// One row of the table: `| L2 | … | `mechanism/*` `inbox` |`.
#[derive(Debug)]
struct Row {
    layer: u32,
    line: usize,
    /// Paths below the source folder without `.rs`; a star at the end stands for any name.
    files: Vec<String>,
}

/// Every file of the library stands in the table, and uses its own layer and lower ones.
pub(super) fn layers(house: &House) -> Vec<Fault> {
    let Some(table) = house.file(TABLE) else {
        return vec![Fault::at(TABLE, 0, "is missing; it holds the layer table")];
    };
    let rows = read_table(&table.text);
    if rows.is_empty() {
        return vec![Fault::at(TABLE, 0, "has no rows that begin with | L0 |")];
    }
    let mut faults = Vec::new();
    let files: Vec<_> = house.rust(SOURCE).collect();
    for row in &rows {
        for name in &row.files {
            if !files.iter().any(|file| matches(name, module(file))) {
                let text = format!("`{name}` is no file of {SOURCE}; take it out of the table");
                faults.push(Fault::at(TABLE, row.line, text));
            }
        }
    }
    for file in files {
        match layer_of(&rows, module(file)) {
            Some(layer) => check_uses(&rows, file, layer, &mut faults),
            None => {
                let text = format!("add `{}` to a row of the layer table in {TABLE}", module(file));
                faults.push(Fault::at(&file.path, 1, text));
            }
        }
    }
    faults
}

fn read_table(text: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let layer = cells.next().and_then(|cell| cell.strip_prefix('L')?.parse().ok());
        let (Some(layer), Some(files)) = (layer, cells.next()) else { continue };
        // What stands between backticks is every second part.
        let files = files.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        rows.push(Row { layer, line: index + 1, files });
    }
    rows
}

/// A file's name as the table says it.
fn module(file: &File) -> &str {
    file.path.strip_prefix(SOURCE).unwrap_or(&file.path).trim_end_matches(".rs")
}

/// An entry without a star goes before one with it.
fn layer_of(rows: &[Row], module: &str) -> Option<u32> {
    let find = |is_it: &dyn Fn(&String) -> bool| {
        rows.iter().find(|row| row.files.iter().any(is_it)).map(|row| row.layer)
    };
    find(&|name| name == module).or_else(|| find(&|name| matches(name, module)))
}

fn matches(name: &str, module: &str) -> bool {
    match name.strip_suffix('*') {
        Some(beginning) => module.starts_with(beginning),
        None => name == module,
    }
}

fn check_uses(rows: &[Row], file: &File, layer: u32, faults: &mut Vec<Fault>) {
    // Tests stand last in a file, and may use everything.
    let code = file.code.split("#[cfg(test)]").next().unwrap_or("");
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|letter: char| letter.is_alphanumeric() || "_$".contains(letter)) {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        for path in paths(&code[at + "crate::".len()..]) {
            let used = used_layer(rows, &path);
            match used {
                Some(used) if used <= layer => {}
                Some(used) => {
                    let text = format!(
                        "layer {layer} uses crate::{path} of layer {used}; move what both need \
                         down, or this file up"
                    );
                    faults.push(Fault::at(&file.path, line, text));
                }
                None => {
                    let text = format!("crate::{path} names no file; say the file, not the root");
                    faults.push(Fault::at(&file.path, line, text));
                }
            }
        }
    }
}

/// The module paths of a use: `a::b` of `a::b::C`, and each of `{a, b::c}`.
fn paths(text: &str) -> Vec<String> {
    match text.strip_prefix('{') {
        None => vec![path(text)],
        Some(group) => {
            let mut depth = 1;
            let inside: String = group
                .chars()
                .take_while(|letter| {
                    depth += i32::from(*letter == '{') - i32::from(*letter == '}');
                    depth > 0
                })
                .collect();
            let mut depth = 0;
            let parts = inside.split(|letter| {
                depth += i32::from(letter == '{') - i32::from(letter == '}');
                letter == ',' && depth == 0
            });
            parts.map(str::trim).filter(|part| !part.is_empty()).map(path).collect()
        }
    }
}

/// The leading lower-case segments: modules and functions, no types.
fn path(text: &str) -> String {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let mut segments = Vec::new();
    for segment in text.split("::") {
        let name: String = segment.chars().take_while(|letter| is_name(*letter)).collect();
        let is_last = name.len() < segment.len();
        if !name.starts_with(|first: char| first.is_ascii_lowercase()) {
            break;
        }
        segments.push(name);
        if is_last {
            break;
        }
    }
    segments.join("/")
}

/// The layer of the longest beginning of a path that is a file.
fn used_layer(rows: &[Row], path: &str) -> Option<u32> {
    let mut path = path;
    while !path.is_empty() {
        let folder = format!("{path}/mod");
        if let Some(layer) = layer_of(rows, path).or_else(|| layer_of(rows, &folder)) {
            return Some(layer);
        }
        path = path.rsplit_once('/').map_or("", |(beginning, _)| beginning);
    }
    None
}

/// A crate needs only those before it.
pub(super) fn crate_order(house: &House) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (place, name) in ORDER.iter().enumerate() {
        let path = format!("crates/{name}/Cargo.toml");
        let Some(manifest) = house.file(&path) else { continue };
        let mut counts = false;
        for (index, line) in manifest.text.lines().enumerate() {
            if line.starts_with('[') {
                counts = line.ends_with("dependencies]") && !line.contains("dev-");
            }
            let used = line.split(['.', ' ', '=']).next().unwrap_or("");
            let Some(used_place) = ORDER.iter().position(|other| *other == used) else { continue };
            if counts && used_place >= place {
                let text = format!("{name} may not use {used}: {}", ORDER.join(" ← "));
                faults.push(Fault::at(&path, index + 1, text));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "| layer | files |\n|---|---|\n| L0 | `wait` |\n| L2 | `mechanism/*` |\n\
                        | L3 | `sender` |\n";

    fn faults(table: &str, path: &str, text: &str) -> Vec<Fault> {
        layers(&House::of(&[
            (TABLE, table),
            ("crates/poste/src/mechanism/mod.rs", ""),
            ("crates/poste/src/sender.rs", "use crate::mechanism::{Frame, wire};\n"),
            ("crates/poste/src/wait.rs", ""),
            (path, text),
        ]))
    }

    #[test]
    fn using_lower_layers_is_right() {
        let text = "use crate::{wait::Wait, mechanism::{Frame, wire}};\n// crate::sender\n\
                    #[cfg(test)]\nmod tests { use crate::sender::Sender; }\n";
        assert_eq!(faults(GOOD, "crates/poste/src/mechanism/pipe.rs", text), []);
    }

    #[test]
    fn using_a_higher_layer_is_found() {
        for text in
            ["\nuse crate::sender::Sender;\n", "\nuse crate::{wait::Wait, sender::Sender};\n"]
        {
            let faults = faults(GOOD, "crates/poste/src/mechanism/pipe.rs", text);
            assert_eq!(faults.len(), 1, "{text}");
            assert_eq!(faults[0].line, 2);
        }
        let faults = faults(GOOD, "crates/poste/src/mechanism/pipe.rs", "fn f(_: crate::Error) {}");
        assert!(faults[0].text.contains("say the file"));
    }

    #[test]
    fn a_file_outside_the_table_is_found() {
        assert_eq!(faults(GOOD, "crates/poste/src/new.rs", "").len(), 1);
    }

    #[test]
    fn a_row_without_a_file_is_found() {
        let table = format!("{GOOD}| L4 | `gone` |\n");
        let faults = faults(&table, "crates/poste/src/mechanism/pipe.rs", "");
        assert_eq!((faults.len(), faults[0].line), (1, 6));
    }

    #[test]
    fn a_crate_that_uses_a_later_one_is_found() {
        let bad = "[dependencies]\nposte-cli.workspace = true\n";
        let good =
            "[dependencies]\nposte-sys.workspace = true\n[dev-dependencies]\nposte-cli = 1\n";
        assert_eq!(crate_order(&House::of(&[("crates/poste/Cargo.toml", bad)])).len(), 1);
        assert_eq!(crate_order(&House::of(&[("crates/poste/Cargo.toml", good)])), []);
    }
}
