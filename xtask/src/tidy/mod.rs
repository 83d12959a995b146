//! The rules of the house that a program can keep. Each is one function with a name; what it says
//! names the place and the way to mend it.
//!
//! To add a rule: write the function, give it a line in [`RULES`], and a bad sample in the tests
//! that shows that it can fail.

use std::fmt;

use crate::house::House;

mod layers;
mod pages;
mod texts;
mod tools;

pub use texts::large_files;

/// A rule.
#[derive(Debug)]
pub struct Rule {
    /// Its name.
    pub name: &'static str,
    /// Looks for what breaks it.
    pub check: fn(&House) -> Vec<Fault>,
    /// What it says depends on the version of the toolchain.
    pub depends_on_toolchain: bool,
}

/// The toolchain whose rustfmt and clippy are kept to: another may see things differently, and a
/// test must not fail for that.
pub const TOOLCHAIN: &str = "1.95";

/// All of them.
pub static RULES: &[Rule] = &[
    rule("formatting", tools::formatting).of_toolchain(),
    rule("clippy", tools::clippy).of_toolchain(),
    rule("layers", layers::layers),
    rule("crate order", layers::crate_order),
    rule("unsafe in poste-sys", texts::unsafe_in_one_crate),
    rule("forbid(unsafe_code)", texts::unsafe_is_forbidden),
    rule("reasons for unsafe", texts::unsafe_has_reasons),
    rule("dependency budget", tools::dependency_budget),
    rule("nothing unfinished", texts::nothing_unfinished),
    rule("stands alone", texts::stands_alone),
    rule("one way to skip", texts::one_way_to_skip),
    rule("first two commands", pages::first_commands),
    rule("links", pages::links),
];

const fn rule(name: &'static str, check: fn(&House) -> Vec<Fault>) -> Rule {
    Rule { name, check, depends_on_toolchain: false }
}

impl Rule {
    const fn of_toolchain(self) -> Rule {
        Rule { depends_on_toolchain: true, ..self }
    }
}

/// What breaks a rule, and how to mend it.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file; for what is in no file, the command that said it.
    pub path: String,
    /// The line, from 1; 0 for what is in no line.
    pub line: usize,
    /// What is wrong, and what to do.
    pub text: String,
}

impl Fault {
    fn at(path: &str, line: usize, text: impl Into<String>) -> Fault {
        Fault { path: path.to_owned(), line, text: text.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.text),
            line => write!(f, "{}:{line}: {}", self.path, self.text),
        }
    }
}
