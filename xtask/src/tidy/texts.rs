//! Rules about what may stand in a file.

use super::Fault;
use crate::house::{File, House};

/// Where alone `unsafe` may stand: in poste-sys, and where a peer that poste is compared with has no
/// safe calls. No user of poste gets the latter.
const UNSAFE_HOMES: &[&str] = &["crates/poste-sys/", "peers/"];

/// The roots that must forbid it, so that the compiler keeps the rule too.
const FORBIDDING: &[&str] = &[
    "crates/poste/src/lib.rs",
    "crates/poste-cli/src/main.rs",
    "xtask/src/lib.rs",
    "xtask/src/main.rs",
];

/// A file longer than this is named, as a thing to think about; it breaks no rule.
const LARGE: usize = 600;

/// Only poste-sys has `unsafe`.
pub(super) fn unsafe_in_one_crate(house: &House) -> Vec<Fault> {
    let at_home = |file: &&File| UNSAFE_HOMES.iter().any(|home| file.path.starts_with(home));
    let elsewhere = house.rust("").filter(|file| !at_home(file));
    elsewhere
        .flat_map(|file| {
            lines_with_word(file, "unsafe").map(|line| {
                let text = "unsafe belongs into crates/poste-sys, behind a safe function";
                Fault::at(&file.path, line, text)
            })
        })
        .collect()
}

/// The other crates forbid `unsafe`.
pub(super) fn unsafe_is_forbidden(house: &House) -> Vec<Fault> {
    let attribute = "#![forbid(unsafe_code)]";
    FORBIDDING
        .iter()
        .filter(|path| !house.file(path).is_some_and(|file| file.code.contains(attribute)))
        .map(|path| Fault::at(path, 1, format!("add {attribute} below the header")))
        .collect()
}

/// Each `unsafe` block has one reason, directly above the statement that it stands in.
pub(super) fn unsafe_has_reasons(house: &House) -> Vec<Fault> {
    let mut faults = Vec::new();
    for file in UNSAFE_HOMES.iter().flat_map(|home| house.rust(home)) {
        let code: Vec<_> = file.code.lines().collect();
        let text: Vec<_> = file.text.lines().collect();
        for (index, line) in code.iter().enumerate() {
            if !opens_unsafe(line) {
                continue;
            }
            let reasons = reasons_above(&code, &text, index);
            if reasons != 1 {
                let text = format!(
                    "{reasons} reasons for this unsafe; write one line // SAFETY: above the \
                     statement, which names the invariant and who keeps it"
                );
                faults.push(Fault::at(&file.path, index + 1, text));
            }
        }
    }
    faults
}

/// Blocks, implementations and foreign functions; an `unsafe fn` has a section of its own.
fn opens_unsafe(code: &str) -> bool {
    ["unsafe {", "unsafe impl", "unsafe extern"].iter().any(|form| code.contains(form))
}

/// How many reasons stand in the comment above the statement that line `index` belongs to.
fn reasons_above(code: &[&str], text: &[&str], index: usize) -> usize {
    let mut start = index;
    while start > 0 {
        let before = code[start - 1].trim();
        if before.is_empty() || before.ends_with([';', '{', '}', ',']) || before.ends_with("=>") {
            break;
        }
        start -= 1;
    }
    let comment = text[..start].iter().rev().take_while(|line| line.trim().starts_with("//"));
    comment.filter(|line| line.trim().starts_with("// SAFETY:")).count()
}

/// Nothing is left for later in the code.
pub(super) fn nothing_unfinished(house: &House) -> Vec<Fault> {
    let macros = ["todo!", "unimplemented!", "dbg!"];
    let marks = [concat!("FIX", "ME"), concat!("X", "XX"), concat!("TO", "DO")];
    let mut faults = Vec::new();
    for file in &house.files {
        for (index, line) in file.code.lines().enumerate() {
            for found in macros.iter().filter(|found| line.contains(**found)) {
                let text = format!("finish what {found} stands for, or leave it out");
                faults.push(Fault::at(&file.path, index + 1, text));
            }
        }
        for (index, line) in file.text.lines().enumerate() {
            for found in marks.iter().filter(|found| has_word(line, found)) {
                let text = format!("{found}: do it, or write an issue and drop the mark");
                faults.push(Fault::at(&file.path, index + 1, text));
            }
        }
    }
    faults
}

/// No file speaks of places that exist on one developer's machine only.
pub(super) fn stands_alone(house: &House) -> Vec<Fault> {
    let places = [concat!("../sh", "ared"), concat!("/wo", "rk/"), concat!("/ho", "me/")];
    let mut faults = Vec::new();
    for file in &house.files {
        for (index, line) in file.text.lines().enumerate() {
            for place in places.iter().filter(|place| line.contains(**place)) {
                let text = format!("{place} is nowhere for a reader; say here what it says there");
                faults.push(Fault::at(&file.path, index + 1, text));
            }
        }
    }
    faults
}

/// A test that is skipped says so in one way, so that all of them are counted.
pub(super) fn one_way_to_skip(house: &House) -> Vec<Fault> {
    let list = concat!("POSTE_SK", "IPPED");
    let is_it =
        |path: &str| path == "crates/poste-sys/src/testing.rs" || path.starts_with("xtask/");
    let mut faults = Vec::new();
    for file in house.files.iter().filter(|file| !file.code.is_empty() && !is_it(&file.path)) {
        for (index, line) in file.text.lines().enumerate() {
            if line.contains(list) && line.contains("env") {
                let text = "call poste_sys::testing::skip instead".to_owned();
                faults.push(Fault::at(&file.path, index + 1, text));
            }
        }
    }
    faults
}

/// Files that have grown long.
#[must_use]
pub fn large_files(house: &House) -> Vec<Fault> {
    let size = |file: &File| file.text.lines().count();
    house
        .rust("")
        .filter(|file| size(file) > LARGE)
        .map(|file| Fault::at(&file.path, 0, format!("{} lines: one subject?", size(file))))
        .collect()
}

fn lines_with_word<'a>(file: &'a File, word: &'a str) -> impl Iterator<Item = usize> {
    let lines = file.code.lines().enumerate();
    lines.filter(move |(_, line)| has_word(line, word)).map(|(index, _)| index + 1)
}

fn has_word(line: &str, word: &str) -> bool {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(is_part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_elsewhere_is_found() {
        let bad = "// unsafe in a comment\nfn f() {\n    unsafe { g() }\n}\n";
        let house = House::of(&[("crates/poste/src/a.rs", bad), ("crates/poste-sys/b.rs", bad)]);
        let faults = unsafe_in_one_crate(&house);
        assert_eq!(faults.len(), 1);
        assert_eq!((faults[0].path.as_str(), faults[0].line), ("crates/poste/src/a.rs", 3));
        assert_eq!(faults[0].to_string().split_once(": ").unwrap().0, "crates/poste/src/a.rs:3");
    }

    #[test]
    fn a_root_that_forbids_nothing_is_found() {
        let good = "#![forbid(unsafe_code)]\n";
        let mut samples: Vec<_> = FORBIDDING.iter().map(|path| (*path, good)).collect();
        assert_eq!(unsafe_is_forbidden(&House::of(&samples)), []);
        samples[0].1 = "// #![forbid(unsafe_code)]\n";
        assert_eq!(unsafe_is_forbidden(&House::of(&samples)).len(), 1);
    }

    #[test]
    fn a_reason_is_one_and_directly_above() {
        let faults = |text: &str| {
            let house = House::of(&[("crates/poste-sys/src/a.rs", text)]);
            unsafe_has_reasons(&house).len()
        };
        assert_eq!(faults("f();\n// SAFETY: so.\nlet x =\n    unsafe { g() };\n"), 0);
        assert_eq!(faults("// SAFETY: so, and\n// more of it.\nunsafe { g() };\n"), 0);
        assert_eq!(faults("unsafe { g() };\n"), 1);
        assert_eq!(faults("// SAFETY: a.\n// SAFETY: b.\nunsafe { g() };\n"), 1);
        assert_eq!(faults("// SAFETY: a.\nf();\nunsafe { g() };\n"), 1);
        assert_eq!(faults("unsafe impl Send for X {}\n"), 1);
    }

    #[test]
    fn what_is_unfinished_is_found() {
        let mark = concat!("// FIX", "ME later\n");
        for bad in ["fn f() { todo!() }\n", "dbg!(x);\n", "unimplemented!();\n", mark] {
            assert_eq!(nothing_unfinished(&House::of(&[("a.rs", bad)])).len(), 1, "{bad}");
        }
        assert_eq!(nothing_unfinished(&House::of(&[("a.rs", "f(\"todo!\");\n")])), []);
    }

    #[test]
    fn a_second_way_to_skip_is_found() {
        let bad = concat!("fn skip() { std::env::var_os(\"POSTE_SK", "IPPED\"); }\n");
        let found = |path| one_way_to_skip(&House::of(&[(path, bad)])).len();
        assert_eq!(found("crates/poste/tests/a.rs"), 1);
        assert_eq!(found("crates/poste-sys/src/testing.rs"), 0);
    }

    #[test]
    fn another_ones_folder_is_found() {
        let bad = concat!("see ../sh", "ared/PAGE.md\n");
        assert_eq!(stands_alone(&House::of(&[("README.md", bad)])).len(), 1);
        assert_eq!(stands_alone(&House::of(&[("README.md", "see docs/\n")])), []);
    }

    #[test]
    fn a_long_file_is_named() {
        let long = "x\n".repeat(LARGE + 1);
        assert_eq!(large_files(&House::of(&[("a.rs", &long), ("b.rs", "x\n")])).len(), 1);
    }
}
