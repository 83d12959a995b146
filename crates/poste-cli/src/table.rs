//! Rows in aligned columns, for people. The heading is for those who look at it: a terminal.

use std::io::{self, IsTerminal as _};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// The rows as text, below a heading where that is shown on a terminal.
pub(crate) fn render(heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if io::stdout().is_terminal() {
        table.set_header(heading);
    }
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2)).set_cell_alignment(CellAlignment::Left);
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// What stands where something isn't known.
pub(crate) fn known(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
