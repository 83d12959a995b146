//! What the tour found, as a table for people and as an object of JSON for each mechanism.
//!
//! The table is one where it fits the terminal, else two: what each can do, and what it costs.
//! Piped it is as on a terminal of 120 columns.

use std::io::IsTerminal as _;

use comfy_table::{
    Attribute, Cell, CellAlignment, Color, ContentArrangement, LineStyle, Table, TableStyle,
};
use serde_json::{Value, json};

use super::ledger::Fault;
use super::measure::{Flow, RoundTrip};
use super::proofs::{Proof, SUBJECTS, grouped};
use super::roles::SIZE;
use super::{Findings, Found, Visit};
use crate::output::object;

/// The width to keep where there is no terminal, in columns.
const WIDTH: u16 = 120;

/// Lines above, below, and under the header.
const STYLE: TableStyle = TableStyle::new()
    .top_border(LineStyle::none().fill('─').junction('─'))
    .header_separator(LineStyle::none().fill('─').junction('─'))
    .bottom_border(LineStyle::none().fill('─').junction('─'));

/// The objects of JSON, one a line.
pub(super) fn json(visits: &[Visit]) -> String {
    visits.iter().map(|visit| format!("{}\n", object(&fields(visit)))).collect()
}

fn fields(visit: &Visit) -> Vec<(&'static str, Value)> {
    let mechanism = visit.mechanism;
    let mut fields =
        vec![("mechanism", json!(mechanism.scheme)), ("title", json!(mechanism.title))];
    let findings = match &visit.found {
        Found::Absent(why) => {
            fields.extend([("here", json!(false)), ("reason", json!(why))]);
            return fields;
        }
        Found::Here(findings) => findings,
    };
    fields.push(("here", json!(true)));
    for (subject, proof) in SUBJECTS.iter().zip(&findings.proofs) {
        if let Ok(Proof::Can(_, value) | Proof::Cannot(_, value) | Proof::Open(value)) = proof {
            fields.push((subject.field, value.clone()));
        }
    }
    if let Ok(trip) = &findings.one_core {
        fields.push(("round_trip_one_core_us", micros(trip.median)));
        fields.push(("round_trip_one_core_processor_us", micros(trip.processor)));
        fields.push(("round_trips_one_core", json!(trip.count)));
    }
    if let Some(Ok(trip)) = &findings.two_cores {
        fields.push(("round_trip_two_cores_us", micros(trip.median)));
        fields.push(("round_trip_two_cores_processor_us", micros(trip.processor)));
        fields.push(("round_trips_two_cores", json!(trip.count)));
    }
    if let Ok(flow) = &findings.one_way {
        fields.push(("messages_per_second", json!(flow.per_second.round())));
        fields.push(("message_processor_us", micros(flow.processor)));
        fields.push(("messages_received", json!(flow.received)));
        fields.push(("messages_lost", json!(flow.lost)));
    }
    let failures = visit.failures();
    let failures = failures.iter().map(|(step, Fault(why))| json!({ "step": step, "reason": why }));
    fields.push(("failures", Value::Array(failures.collect())));
    fields
}

fn micros(time: std::time::Duration) -> Value {
    json!((time.as_secs_f64() * 1e9).round() / 1e3)
}

/// The table with all that has to be said about it.
pub(super) fn text(visits: &[Visit], processors: &[usize]) -> String {
    let width = Table::new().width().unwrap_or(WIDTH);
    let mut text = laid_out(visits, width);
    for visit in visits {
        let scheme = visit.mechanism.scheme;
        if let Found::Absent(why) = &visit.found {
            text.push_str(&format!("{scheme} is not here: {why}\n"));
        }
        for (step, Fault(why)) in visit.failures() {
            text.push_str(&format!("{scheme}: {step} FAILED: {why}\n"));
        }
    }
    text.push_str(&legend(visits, processors, usize::from(width)));
    text
}

/// Which columns a table shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Can,
    Costs,
}

/// The first layout that fits.
fn laid_out(visits: &[Visit], width: u16) -> String {
    let one: &[&[Part]] = &[&[Part::Can, Part::Costs]];
    let apart: &[&[Part]] = &[&[Part::Can], &[Part::Costs]];
    let layouts = [(one, true), (apart, true), (apart, false)];
    let texts = layouts.map(|(tables, titles)| {
        tables.iter().map(|parts| table(visits, parts, titles)).collect::<Vec<_>>()
    });
    let fits = |tables: &&Vec<Table>| {
        let mut lines = tables.iter().flat_map(|table| {
            let mut plain = table.clone();
            plain.force_no_tty();
            plain.lines().collect::<Vec<_>>()
        });
        lines.all(|line| line.trim_end().chars().count() <= usize::from(width))
    };
    let chosen = texts.iter().find(fits).or(texts.last());
    let tables = chosen.into_iter().flatten().map(|table| {
        let lines = table.lines().map(|line| format!("{}\n", line.trim_end()));
        lines.collect::<String>()
    });
    tables.collect::<Vec<_>>().join("\n")
}

fn table(visits: &[Visit], parts: &[Part], titles: bool) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE).set_content_arrangement(ContentArrangement::Disabled);
    if !is_coloured() {
        table.force_no_tty();
    }
    let mut header = vec!["\nscheme".to_owned()];
    if titles {
        header.push("\nmechanism".to_owned());
    }
    for part in parts {
        header.extend(headers(*part));
    }
    let first_number = if titles { 2 } else { 1 };
    table.set_header(header);
    for visit in visits {
        let mut row = vec![Cell::new(visit.mechanism.scheme).add_attribute(Attribute::Bold)];
        if titles {
            row.push(Cell::new(visit.mechanism.title));
        }
        for part in parts {
            row.extend(cells(visit, *part));
        }
        table.add_row(row);
    }
    for (place, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if place >= first_number {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn is_coloured() -> bool {
    let set = |variable| std::env::var_os(variable).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    std::io::stdout().is_terminal() && !set("NO_COLOR") && !dumb
}

fn headers(part: Part) -> Vec<String> {
    match part {
        Part::Can => SUBJECTS.iter().map(|subject| subject.header.to_owned()).collect(),
        Part::Costs => [
            "round trip\n1 core, µs",
            "round trip\n2 cores, µs",
            "its CPU\nµs",
            "one way\nk msg/s",
            "its CPU\nµs",
        ]
        .map(str::to_owned)
        .to_vec(),
    }
}

fn cells(visit: &Visit, part: Part) -> Vec<Cell> {
    match (&visit.found, part) {
        (Found::Absent(_), Part::Can) => {
            let mut cells = vec![nothing(); SUBJECTS.len()];
            cells[0] = Cell::new("not here").fg(Color::Yellow);
            cells
        }
        (Found::Absent(_), Part::Costs) => vec![nothing(); 5],
        (Found::Here(findings), Part::Can) => findings.proofs.iter().map(proof).collect(),
        (Found::Here(findings), Part::Costs) => costs(findings),
    }
}

fn proof(proof: &Result<Proof, Fault>) -> Cell {
    let with = |mark: &str, text: &str| format!("{text} {mark}").trim().to_owned();
    match proof {
        Ok(Proof::Can(text, _)) => Cell::new(with("✓", text)).fg(Color::Green),
        Ok(Proof::Cannot(text, _)) => Cell::new(with("✗", text)).fg(Color::Yellow),
        Ok(Proof::Open(_)) => nothing(),
        Err(_) => failed(),
    }
}

fn costs(findings: &Findings) -> Vec<Cell> {
    let time = |trip: &Result<RoundTrip, Fault>, of: fn(&RoundTrip) -> std::time::Duration| {
        trip.as_ref().map_or_else(|_| failed(), |trip| Cell::new(short_micros(of(trip))))
    };
    let two_cores = |of| findings.two_cores.as_ref().map_or_else(nothing, |trip| time(trip, of));
    let (rate, processor) = match &findings.one_way {
        Ok(flow) => (Cell::new(rate(flow)), Cell::new(short_micros(flow.processor))),
        Err(_) => (failed(), nothing()),
    };
    vec![
        time(&findings.one_core, |trip| trip.median),
        two_cores(|trip| trip.median),
        two_cores(|trip| trip.processor),
        rate,
        processor,
    ]
}

fn rate(flow: &Flow) -> String {
    grouped((flow.per_second / 1e3).round() as u64)
}

/// Three digits or so: more would be noise.
fn short_micros(time: std::time::Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    match micros {
        ..10.0 => format!("{micros:.2}"),
        ..100.0 => format!("{micros:.1}"),
        _ => grouped(micros.round() as u64),
    }
}

fn nothing() -> Cell {
    Cell::new("–").fg(Color::DarkGrey)
}

fn failed() -> Cell {
    Cell::new("FAILED").fg(Color::Red).add_attribute(Attribute::Bold)
}

/// What the figures are, on which machine, and what to try next.
fn legend(visits: &[Visit], processors: &[usize], width: usize) -> String {
    let mut notes = vec![PROVED.to_owned()];
    for visit in visits.iter().filter(|visit| visit.mechanism.capabilities.may_lose) {
        notes.push(losing(visit));
    }
    if visits.iter().any(|visit| visit.mechanism.settings.contains(&"spin")) {
        notes.push("shm: who waits looks again for some µs before it sleeps.".to_owned());
    }
    if visits.iter().any(|visit| visit.mechanism.scheme == "local") {
        notes.push("local: inside one process, its peers are threads.".to_owned());
    }
    let mut lines = wrapped(&notes.join(" "), width);
    lines.extend(wrapped(&circumstances(processors), width));
    lines.push(String::new());
    lines.extend(NEXT.iter().map(|&line| line.to_owned()));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// What a mark in the table means.
const PROVED: &str = "✓ proved just now by checked messages between real processes: answered \
    (over so many channels), several writers at once (nothing lost, torn or out of order), the \
    highest priority first, the largest message (one byte more was refused), a writer killed while \
    it sent (nothing torn, all there that it had reported as sent). ✗ another writer was refused.";

/// What a mechanism lost that may lose messages.
fn losing(visit: &Visit) -> String {
    let scheme = visit.mechanism.scheme;
    let lost = match &visit.found {
        Found::Here(findings) => findings.one_way.as_ref().ok(),
        Found::Absent(_) => None,
    };
    let lost = lost.map_or_else(String::new, |flow| {
        let share = 100 * flow.lost / (flow.lost + flow.received).max(1);
        format!(" one way as fast as it went {share} % did not arrive;")
    });
    format!("{scheme} may lose messages:{lost} its largest is what one datagram holds.")
}

/// Each line works as typed.
const NEXT: [&str; 3] = [
    "Next:",
    "  poste send --create jobs 'good day' && poste recv --remove jobs",
    "  poste recv unix:./inbox & poste send --timeout 5s unix:./inbox hello; wait",
];

/// On what machine what was measured.
fn circumstances(processors: &[usize]) -> String {
    let system = rustix::system::uname();
    let (release, machine) = (system.release().to_string_lossy(), system.machine());
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let build = if cfg!(debug_assertions) { " (a debug build: --release is faster)" } else { "" };
    let cores = match processors {
        [first, second] => format!(
            "1 core: both sides on processor {first}; 2 cores: on {first} and {second}. What waking \
             the other side takes is included."
        ),
        _ => "This program may use one processor only.".to_owned(),
    };
    format!(
        "Measured{build} on Linux {release}, {}, {count} processors: messages of {SIZE} bytes in \
         blocking calls; a round trip's median; one way where the kernel puts the processes. \
         {cores} CPU: user and system time of both sides, of a round trip on 2 cores and of a \
         message.",
        machine.to_string_lossy()
    )
}

/// A paragraph in lines of at most `width` characters.
fn wrapped(paragraph: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in paragraph.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
