//! How the program ends: its exit code, and the two lines that every failure writes.
//!
//! The first line says what failed, on which address, with the system's own reason; the second,
//! `hint:`, the command or setting that mends it. There is always one.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use poste::{Error, Kind};

/// The exit codes: what a script can decide on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// It was tried and failed.
    Failed = 1,
    /// It makes no sense, or cannot be had: nothing was tried.
    Usage = 2,
    /// Nobody is at the other end.
    Nobody = 69,
    /// Full: trying again helps.
    Full = 75,
    /// The time was over.
    TimedOut = 124,
}

/// The exit code of what SIGINT ended.
const INTERRUPTED: u8 = 130;

/// Why a verb ends before its end.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Nothing is left to do: help was shown, or nobody reads our output any more.
    Quiet,
    /// It failed.
    Failed(Failure),
}

/// A failure: its code and its two lines.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    what: String,
    hint: String,
    /// What the library called it, where the library said it.
    kind: Option<Kind>,
}

impl Failure {
    /// A failure in our own words.
    pub(crate) fn new(code: Code, what: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure { code: code as u8, what: what.into(), hint: hint.into(), kind: None }
    }

    /// A command that was run ended otherwise than with 0: so does poste.
    pub(crate) fn of_command(
        code: u8,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) -> Failure {
        Failure { code, what: what.into(), hint: hint.into(), kind: None }
    }

    /// The same failure with another hint.
    pub(crate) fn with_hint(self, hint: impl Into<String>) -> Failure {
        Failure { hint: hint.into(), ..self }
    }

    /// The same failure with another exit code.
    pub(crate) fn with_code(self, code: Code) -> Failure {
        Failure { code: code as u8, ..self }
    }

    /// The same failure, with what follows from it.
    pub(crate) fn and(self, consequence: &str) -> Failure {
        Failure { what: format!("{}; {consequence}", self.what), ..self }
    }

    /// Whether another message may fare better.
    pub(crate) fn is_about_the_message(&self) -> bool {
        matches!(self.kind, Some(Kind::TooLarge { .. } | Kind::NotSupported))
    }

    /// What failed, in words.
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    /// Whether the library gave this reason.
    pub(crate) fn is(&self, kind: &Kind) -> bool {
        self.kind.as_ref() == Some(kind)
    }

    /// One failure for several: the first one's lines, and how many failed.
    pub(crate) fn of_several(mut failures: Vec<Failure>, tried: usize) -> Option<Failure> {
        let count = failures.len();
        let first = (count > 0).then(|| failures.swap_remove(0))?;
        if tried == 1 {
            return Some(first);
        }
        let what = format!("{} ({count} of {tried} failed)", first.what);
        Some(Failure { code: Code::Failed as u8, what, ..first })
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Failed(failure)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Failed(error.into())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let kind = error.kind();
        let address = error.address().unwrap_or("ADDRESS");
        // Whoever looks for what isn't there has to read how it is made.
        let says_enough = match kind {
            Kind::NotFound => error.hint().contains("create"),
            _ => !error.hint().is_empty(),
        };
        let hint = if says_enough { error.hint().to_owned() } else { default_hint(&kind, address) };
        Failure { code: code_of(&kind) as u8, what: error.to_string(), hint, kind: Some(kind) }
    }
}

fn code_of(kind: &Kind) -> Code {
    match kind {
        Kind::Full => Code::Full,
        Kind::Empty | Kind::TimedOut => Code::TimedOut,
        Kind::Disconnected | Kind::NoReceiver => Code::Nobody,
        Kind::Invalid | Kind::NotSupported => Code::Usage,
        _ => Code::Failed,
    }
}

fn default_hint(kind: &Kind, address: &str) -> String {
    match kind {
        Kind::Full => format!("make room: poste recv {address}, or wait for it: --timeout 5s"),
        Kind::Empty => "wait for a message: --timeout 5s, or without --timeout for ever".to_owned(),
        Kind::TimedOut => "allow more time: --timeout 1m, or without --timeout for ever".to_owned(),
        Kind::Disconnected => "start the other end again, and then this one".to_owned(),
        Kind::NoReceiver => {
            format!("start a receiver: poste recv {address}, or wait for one: --timeout 10s")
        }
        Kind::NotFound => format!("create it: poste create {address}, or add --create"),
        Kind::NameInUse { .. } => {
            format!("take another name, or if nobody needs it: poste remove {address}")
        }
        Kind::TooLarge { .. } => "send less at once: --lines, or --raw --file FILE".to_owned(),
        Kind::Limit { raise_with, .. } => raise_with.clone(),
        Kind::NotSupported => "what each mechanism can do: poste capabilities".to_owned(),
        Kind::Invalid => "forms and examples: poste --help".to_owned(),
        Kind::Mismatch => {
            format!("use what is there by leaving the attributes out, or: poste remove {address}")
        }
        Kind::Permission => "run it as the owner, or create it with a wider --mode".to_owned(),
        Kind::Corrupt => "a peer that knows nothing of poste is spoken to with --raw".to_owned(),
        Kind::Removed => format!("create it again: poste create {address}"),
        Kind::Refused | Kind::Failed => "the program at the other end knows why".to_owned(),
        _ => "the call that failed is the last one in: strace -f poste …".to_owned(),
    }
}

/// Writes the two lines where it failed, and says the exit code.
pub(crate) fn report(result: Result<(), Stop>) -> ExitCode {
    match result {
        Ok(()) | Err(Stop::Quiet) => ExitCode::SUCCESS,
        Err(Stop::Failed(failure)) => {
            // Who interrupts it knows why it ends.
            if failure.code != INTERRUPTED {
                say(&failure.what, &failure.hint);
            }
            ExitCode::from(failure.code)
        }
    }
}

/// The two lines. That standard error is closed is nothing that could be reported.
pub(crate) fn say(what: &str, hint: &str) {
    let lines = format!("poste: {}\nhint: {}\n", one_line(what), one_line(hint));
    let _ = std::io::stderr().write_all(lines.as_bytes());
}

/// Keeps a text on its line and the terminal safe, whatever a name or a peer brought in.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            let _ = write!(line, "{}", letter.escape_default());
        } else {
            line.push(letter);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_hint_of_one_line() {
        let limit = Kind::Limit { name: "x", value: 1, raise_with: "sysctl".to_owned() };
        for kind in [
            Kind::Full,
            Kind::Empty,
            Kind::TimedOut,
            Kind::Disconnected,
            Kind::NoReceiver,
            Kind::NotFound,
            Kind::NameInUse { owner: None },
            Kind::TooLarge { size: 2, limit: 1 },
            limit,
            Kind::NotSupported,
            Kind::Invalid,
            Kind::Refused,
            Kind::Failed,
            Kind::Mismatch,
            Kind::Permission,
            Kind::Corrupt,
            Kind::Removed,
            Kind::System,
        ] {
            let failure = Failure::from(Error::new(kind.clone(), "").on("open", &"mq:/x"));
            assert!(!failure.hint.is_empty() && !failure.hint.contains('\n'), "{kind:?}");
        }
    }

    #[test]
    fn what_is_not_there_names_create() {
        let error = Error::new(Kind::NotFound, "").with_hint("look elsewhere");
        assert!(Failure::from(error.on("open", &"mq:/x")).hint.contains("create mq:/x"));
    }

    #[test]
    fn a_text_stays_on_its_line() {
        assert_eq!(one_line("a\nb\u{1b}[1m"), "a\\nb\\u{1b}[1m");
    }
}
