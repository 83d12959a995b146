//! The vectors of docs/vectors.txt, both ways; and the Python of docs/protocol.md against them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use poste::envelope::{CallBlock, Fault, HEADER_MAX, Header, Part, PieceKind, Speaker, body_check};
use poste_sys::testing::skip;

#[test]
fn every_vector_holds_both_ways() {
    let text = std::fs::read_to_string(docs("vectors.txt")).unwrap();
    let records = records(&text);
    assert!(records.len() > 20, "{} records", records.len());
    for record in &records {
        match record.get("fault") {
            Some(fault) => is_broken(record, fault),
            None => is_whole(record),
        }
    }
}

/// Encoding the fields gives the bytes, and decoding the bytes gives the fields.
fn is_whole(record: &Record<'_>) {
    let name = record["name"];
    let body = bytes(record["body"]);
    let pair = |field| {
        let (low, high) = record.get(field)?.split_once(' ')?;
        Some((low.parse().unwrap(), high.parse().unwrap()))
    };
    let number = |field| record.get(field).map_or(0, |number| number.parse().unwrap());
    let header = Header {
        kind: kind(record["kind"]),
        descriptors: number("descriptors") as u8,
        priority: number("priority"),
        size: body.len() as u32,
        speaker: pair("identity").map(|(sender, sequence)| Speaker { sender, sequence }),
        part: pair("part").map(|(total, offset)| Part { total, offset }),
        call: pair("call").map(|(call, deadline)| CallBlock { call, deadline }),
        body_check: record.get("check").map(|check| u32::from_str_radix(check, 16).unwrap()),
    };
    let mut buffer = [0; HEADER_MAX];
    let length = header.encode(&mut buffer);
    let piece = bytes(record["bytes"]);
    assert_eq!([&buffer[..length], &body].concat(), piece, "{name}");
    assert_eq!(Header::decode(&piece), Ok((header, length)), "{name}");
    if let Some(check) = header.body_check {
        assert_eq!(body_check(&body), check, "{name}");
    }
}

fn is_broken(record: &Record<'_>, fault: &str) {
    let found = match Header::decode(&bytes(record["bytes"])) {
        Ok(_) => "none".to_owned(),
        Err(Fault::Short(need)) => format!("short {need}"),
        Err(Fault::Magic) => "magic".to_owned(),
        Err(Fault::Version(version)) => format!("version {version}"),
        Err(Fault::Field(field)) => format!("field {field}"),
        Err(Fault::Check) => "check".to_owned(),
    };
    assert_eq!(found, fault, "{}", record["name"]);
}

#[test]
fn the_python_of_the_page_agrees() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors.py");
    let mut python = Command::new("python3");
    python.arg(script).args([docs("protocol.md"), docs("vectors.txt")]);
    match python.output() {
        Err(_) => skip("vectors::the_python_of_the_page_agrees", "python3 is missing"),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{said}");
            assert!(output.stdout.ends_with(b" vectors\n"));
        }
    }
}

type Record<'a> = HashMap<&'a str, &'a str>;

/// Records are separated by empty lines; a line is a name and a value.
fn records(text: &str) -> Vec<Record<'_>> {
    let mut records = vec![Record::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match line.split_once(' ') {
            Some((name, value)) => {
                records.last_mut().unwrap().insert(name, value.trim());
            }
            None => records.push(Record::new()),
        }
    }
    records.retain(|record| !record.is_empty());
    records
}

fn kind(name: &str) -> PieceKind {
    match name {
        "message" => PieceKind::Message,
        "hello" => PieceKind::Hello,
        "taken" => PieceKind::Taken,
        "granted" => PieceKind::Granted,
        "acknowledged" => PieceKind::Acknowledged,
        "refused" => PieceKind::Refused,
        "reply" => PieceKind::Reply,
        "error" => PieceKind::Error,
        "withdraw" => PieceKind::Withdraw,
        other => panic!("{other} is no kind"),
    }
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let digits = hexadecimal.trim_matches('-').as_bytes();
    let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)
}
