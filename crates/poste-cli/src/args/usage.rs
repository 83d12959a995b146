//! clap's errors become the two lines that every failure has.

use clap::error::{ContextKind, ErrorKind};

use crate::exit::{Code, Failure, Stop};
use crate::later;

/// Help and version are printed; everything else becomes the two lines.
pub(super) fn stop(error: clap::Error) -> Stop {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // Nobody reads it any more: then there is nothing left to do, either.
        let _ = error.print();
        return Stop::Quiet;
    }
    Stop::Failed(usage(&error))
}

/// A usage error: clap's first paragraph is what failed; its tips, or the help, are the hint.
fn usage(error: &clap::Error) -> Failure {
    let context = |kind| error.get(kind).map(ToString::to_string);
    let refused = match error.kind() {
        ErrorKind::InvalidSubcommand => {
            context(ContextKind::InvalidSubcommand).and_then(|name| later::verb(&name))
        }
        ErrorKind::UnknownArgument => {
            context(ContextKind::InvalidArg).and_then(|name| later::option(&name))
        }
        _ => None,
    };
    if let Some(refused) = refused {
        return refused;
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let hint = format!("the verbs: poste {}--help", verb_typed());
        return Failure::new(Code::Usage, "the verb is missing", hint);
    }
    let text = error.render().to_string();
    let (first, rest) = text.split_once("\n\n").unwrap_or((&text, ""));
    let what = words(first.trim_start_matches("error: "));
    let tips: Vec<_> = rest.lines().filter_map(|line| line.trim().strip_prefix("tip: ")).collect();
    let usage = rest.lines().find_map(|line| line.trim().strip_prefix("Usage: "));
    let mut hints: Vec<_> = tips.iter().map(|tip| (*tip).to_owned()).collect();
    if let (Some(usage), true) = (usage, hints.is_empty()) {
        hints.push(format!("usage: {usage}"));
    }
    hints.push(format!("more: poste {}--help", verb_typed()));
    Failure::new(Code::Usage, what, hints.join("; "))
}

/// The verb that was typed, and a space; nothing where it is none.
fn verb_typed() -> String {
    let typed = std::env::args_os().nth(1).and_then(|word| word.into_string().ok());
    typed
        .filter(|word| super::command().find_subcommand(word).is_some())
        .map_or_else(String::new, |word| word + " ")
}

/// A text of several lines on one.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
