//! `poste completions`: what a shell needs to complete the command's words.

use clap_complete::{Shell, generate};

use crate::args::{self, CompletedShell, Completions};
use crate::exit::Stop;
use crate::output::Output;

/// Prints it.
pub(crate) fn run(args: &Completions) -> Result<(), Stop> {
    let shell = match args.shell {
        CompletedShell::Bash => Shell::Bash,
        CompletedShell::Zsh => Shell::Zsh,
        CompletedShell::Fish => Shell::Fish,
    };
    let mut text = Vec::new();
    generate(shell, &mut args::command(), "poste", &mut text);
    let mut out = Output::open();
    out.write(&text)?;
    out.flush()
}
