//! Runs the tests, shows what they print, and closes with what passed, failed and was skipped.
//!
//! libtest knows no skipping at run time. A test that lacks something of the machine says so in one
//! line, `SKIPPED: <its name>: <reason>`, on standard error and at the end of the file that the
//! environment names in `POSTE_SKIPPED` (libtest swallows what a passing test prints), and returns.
//! For libtest it has passed; here it is counted as skipped. Ignored tests are skipped too; a test
//! program of our own that can say "ignored" at run time does both, and counts once.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;

/// Names the file to which skipped tests add their line.
pub const SKIPPED: &str = "POSTE_SKIPPED";

/// Every feature is tested; what the library is without them, tidy's clippy builds.
const FEATURES: &str = "--features=poste/tokio,poste/async-io";

/// The test program that steps through the mailbox's instructions; its tests' names begin so.
const SWEEP: &str = "sweep";

/// The modules of the models, as they stand in their tests' names.
const MODEL: &str = "model";

type Environment = &'static [(&'static str, &'static str)];

/// What `cargo test` is told once.
#[derive(Debug)]
struct Run {
    arguments: &'static [&'static str],
    /// What is set for it alone.
    environment: Environment,
    filters: Vec<String>,
}

/// What is to be run.
#[derive(Debug)]
pub struct Suite {
    /// One after the other.
    runs: Vec<Run>,
    /// Not every test is meant.
    is_filtered: bool,
    environment: Environment,
}

impl Suite {
    /// Every test of the workspace, the documentation's examples included, or those whose names hold
    /// one of the filters.
    #[must_use]
    pub fn whole(filters: Vec<String>) -> Suite {
        Suite::of(&["--workspace", FEATURES], filters, &[])
    }

    /// The long forms: `POSTE_LONG=1` makes the contract tests repeat more and send more, the proofs
    /// of the mailbox kill more, and the property tests try more cases.
    #[must_use]
    pub fn long(filters: Vec<String>) -> Suite {
        let tests = &["--package", "poste", "--package", "poste-cli", "--tests", FEATURES];
        Suite::of(tests, filters, &[("POSTE_LONG", "1"), ("PROPTEST_CASES", "20000")])
    }

    /// The tests, and what is shown of builds of their own alone: the instructions of the mailbox, in
    /// release; and the models, in every order of steps, with loom's atomics.
    fn of(tests: &'static [&'static str], filters: Vec<String>, environment: Environment) -> Suite {
        let mut runs = Vec::new();
        let naming = |name: &str| -> Vec<String> {
            filters.iter().filter(|filter| filter.contains(name)).cloned().collect()
        };
        let is_filtered = !filters.is_empty();
        if !is_filtered || !naming(SWEEP).is_empty() {
            let arguments = &["--release", "--package", "poste", "--test", SWEEP];
            runs.push(Run { arguments, environment: &[], filters: filters.clone() });
        }
        let models = if is_filtered { naming(MODEL) } else { vec![format!("{MODEL}::")] };
        if !models.is_empty() {
            runs.push(Run {
                arguments: &["--release", "--package", "poste", "--lib"],
                environment: &[
                    ("RUSTFLAGS", "--cfg poste_loom"),
                    ("CARGO_TARGET_DIR", "target/loom"),
                    // It would count for more than the first.
                    ("CARGO_ENCODED_RUSTFLAGS", "--cfg\x1fposte_loom"),
                ],
                filters: models,
            });
        }
        runs.insert(0, Run { arguments: tests, environment: &[], filters });
        Suite { runs, is_filtered, environment }
    }
}

/// Builds and runs a suite, and prints its closing lines: whether nothing failed.
///
/// # Errors
/// Where cargo can't be started or the list of what was skipped can't be read.
pub fn run(suite: &Suite) -> io::Result<bool> {
    // Tests of the library start the command, and cargo builds it only for its own package's tests.
    let mut build = cargo();
    if !build.args(["build", "--workspace", FEATURES]).status()?.success() {
        let mut tally = Tally::default();
        tally.failures.push("the workspace, which does not build".to_owned());
        tally.failed = 1;
        return tally.close(&mut io::stdout().lock());
    }
    let list = SkipList::new()?;
    let mut tally = Tally::default();
    let mut succeeded = true;
    for run in &suite.runs {
        let mut tests = cargo();
        tests.arg("test").args(run.arguments).arg("--no-fail-fast");
        tests.arg("--").args(&run.filters);
        tests.envs(suite.environment.iter().chain(run.environment).copied());
        tests.env(SKIPPED, &list.path);
        let before = tally.passed + tally.failed;
        succeeded &= stream(&mut tests, |line| tally.note(line))?;
        if !suite.is_filtered && tally.passed + tally.failed == before {
            tally.failed += 1;
            tally.failures.push(format!("`cargo test {}`: no test ran", run.arguments.join(" ")));
        }
    }
    for line in list.read()?.lines() {
        tally.note_listed(line);
    }
    if !succeeded && tally.failed == 0 {
        tally.failed = 1;
        tally.failures.push("a test program that did not build, or ended without a result".into());
    }
    tally.close(&mut io::stdout().lock())
}

fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(crate::ROOT).stdin(Stdio::null());
    cargo
}

/// Runs a command, passes its output on line by line, and shows each line to `note`.
fn stream(command: &mut Command, mut note: impl FnMut(&str)) -> io::Result<bool> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (sender, lines) = mpsc::channel();
    let (output, errors) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        let aside = sender.clone();
        scope.spawn(move || errors.map(|pipe| pass_on(pipe, &mut io::stderr(), &aside)));
        scope.spawn(move || output.map(|pipe| pass_on(pipe, &mut io::stdout(), &sender)));
        for line in lines {
            note(&line);
        }
    });
    Ok(child.wait()?.success())
}

fn pass_on(pipe: impl io::Read, to: &mut impl Write, lines: &mpsc::Sender<String>) {
    let mut pipe = BufReader::new(pipe);
    let mut line = Vec::new();
    while pipe.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        // Nobody may be reading any more; the tests are to be counted all the same.
        let _ = to.write_all(&line).and_then(|()| to.flush());
        let _ = lines.send(String::from_utf8_lossy(&line).trim_end().to_owned());
        line.clear();
    }
}

/// What the tests have said so far.
#[derive(Debug, Default)]
struct Tally {
    passed: usize,
    failed: usize,
    failures: Vec<String>,
    /// Ignored by the test program, with the reason: it has not counted them as passed.
    ignored: Vec<(String, String)>,
    ignored_count: usize,
    /// Skipped at run time, with their reasons: counted as passed, but for those that the program
    /// says are ignored as well.
    skipped: BTreeMap<String, Vec<String>>,
}

impl Tally {
    /// Takes one line of output in.
    fn note(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            let count = |what| count_before(result, what).unwrap_or(0);
            self.passed += count("passed");
            self.failed += count("failed");
            self.ignored_count += count("ignored");
        } else if let Some((name, how)) = test_line(line) {
            if how.starts_with("ignored") {
                let reason = how.trim_start_matches("ignored").trim_start_matches(", ");
                let reason = if reason.is_empty() { "ignored" } else { reason };
                self.ignored.push((name.trim().to_owned(), reason.to_owned()));
            } else if how.starts_with("FAILED") {
                self.failures.push(name.to_owned());
            }
        } else {
            self.note_skip(line);
        }
    }

    /// Takes a line `SKIPPED: <name>: <reason>` in, once.
    fn note_skip(&mut self, line: &str) {
        if let Some(skip) = line.strip_prefix("SKIPPED: ") {
            self.note_listed(skip);
        }
    }

    /// Takes a line of the list in, once. All that stands there was skipped, also where a test left
    /// the first word out.
    fn note_listed(&mut self, line: &str) {
        let skip = line.strip_prefix("SKIPPED: ").unwrap_or(line);
        let (name, reason) = skip.split_once(": ").unwrap_or((skip, "no reason given"));
        let reasons = self.skipped.entry(name.to_owned()).or_default();
        if !reasons.iter().any(|known| known == reason) {
            reasons.push(reason.to_owned());
        }
    }

    /// Prints the lists and the last line: whether nothing failed.
    fn close(&self, out: &mut impl Write) -> io::Result<bool> {
        let is_skipped_only = |name: &String| self.ignored.iter().all(|(other, _)| other != name);
        let skipped_only = self.skipped.keys().filter(|name| is_skipped_only(name)).count();
        let skipped = self.ignored_count + skipped_only;
        let passed = self.passed.saturating_sub(skipped_only);
        writeln!(out)?;
        for name in &self.failures {
            writeln!(out, "failed: {name}")?;
        }
        for (name, reason) in &self.ignored {
            if !self.skipped.contains_key(name) {
                writeln!(out, "skipped: {name}: {reason}")?;
            }
        }
        for (name, reasons) in &self.skipped {
            writeln!(out, "skipped: {name}: {}", reasons.join("; "))?;
        }
        writeln!(out, "{passed} passed, {} failed, {skipped} skipped", self.failed)?;
        Ok(self.failed == 0)
    }
}

/// `test NAME ... HOW`, as libtest prints it.
fn test_line(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("test ")?.rsplit_once(" ... ")
}

/// The number before a word: `5 passed; 0 failed`.
fn count_before(text: &str, word: &str) -> Option<usize> {
    let mut before = "";
    for part in text.split([' ', ';', '.']).filter(|part| !part.is_empty()) {
        if part == word {
            return before.parse().ok();
        }
        before = part;
    }
    None
}

/// The file that skipped tests write to; it goes when the run is over.
struct SkipList {
    path: PathBuf,
}

impl SkipList {
    fn new() -> io::Result<SkipList> {
        let folder = Path::new(crate::ROOT).canonicalize()?.join("target");
        std::fs::create_dir_all(&folder)?;
        let path = folder.join(format!("skipped-{}", std::process::id()));
        File::create(&path)?;
        Ok(SkipList { path })
    }

    fn read(&self) -> io::Result<String> {
        std::fs::read_to_string(&self.path)
    }
}

impl Drop for SkipList {
    fn drop(&mut self) {
        // What is left in target/ harms nobody.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_of_their_own_run_where_they_are_meant() {
        let filters = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let shown = |words: &[&str]| -> Vec<_> {
            let runs = Suite::whole(filters(words)).runs.into_iter();
            runs.map(|run| (run.environment.is_empty(), run.filters.join(" "))).collect()
        };
        let run = |has_std_atomics, words: &str| (has_std_atomics, words.to_owned());
        assert_eq!(shown(&[]), [run(true, ""), run(true, ""), run(false, "model::")]);
        assert_eq!(shown(&["order"]), [run(true, "order")]);
        assert_eq!(
            shown(&["order", "ring::model"]),
            [run(true, "order ring::model"), run(false, "ring::model")]
        );
        assert_eq!(shown(&["sweep::copies"]).len(), 2);
    }

    fn closing(lines: &[&str]) -> (String, bool) {
        let mut tally = Tally::default();
        lines.iter().for_each(|line| tally.note(line));
        let mut out = Vec::new();
        let is_good = tally.close(&mut out).unwrap();
        (String::from_utf8(out).unwrap(), is_good)
    }

    #[test]
    fn results_of_all_programs_are_added_up() {
        let (text, is_good) = closing(&[
            "test one ... ok",
            "test two ... ignored, takes an hour",
            "test result: ok. 4 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; in 0.0s",
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out",
        ]);
        assert_eq!(text, "\nskipped: two: takes an hour\n7 passed, 0 failed, 1 skipped\n");
        assert!(is_good);
    }

    #[test]
    fn what_was_skipped_has_not_passed() {
        let (text, _) = closing(&[
            "SKIPPED: killed: strace is missing",
            "SKIPPED: killed: strace is missing",
            "test result: ok. 4 passed; 0 failed; 0 ignored",
        ]);
        assert_eq!(text, "\nskipped: killed: strace is missing\n3 passed, 0 failed, 1 skipped\n");
    }

    #[test]
    fn what_stands_in_the_list_was_skipped() {
        let mut tally = Tally::default();
        tally.note("test result: ok. 4 passed; 0 failed; 0 ignored");
        tally.note_listed("SKIPPED: one: strace is missing");
        tally.note_listed("two: python3 is missing");
        let mut out = Vec::new();
        tally.close(&mut out).unwrap();
        assert!(String::from_utf8(out).unwrap().ends_with("2 passed, 0 failed, 2 skipped\n"));
    }

    #[test]
    fn what_says_both_counts_once() {
        let (text, _) = closing(&[
            "SKIPPED: killed::mq: strace is missing",
            "test killed::mq ... ignored",
            "test result: ok. 4 passed; 0 failed; 1 ignored",
        ]);
        assert_eq!(
            text,
            "\nskipped: killed::mq: strace is missing\n4 passed, 0 failed, 1 skipped\n"
        );
    }

    #[test]
    fn a_failure_is_named_and_counted() {
        let (text, is_good) = closing(&[
            "test order::mq ... FAILED",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured",
        ]);
        assert_eq!(text, "\nfailed: order::mq\n2 passed, 1 failed, 0 skipped\n");
        assert!(!is_good);
    }
}
