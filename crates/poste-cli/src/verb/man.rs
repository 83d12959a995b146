//! `poste man`: the manual's first page, or all of its pages into a directory.

use std::io;

use clap_mangen::Man as Page;

use crate::args::{self, Man};
use crate::exit::{Code, Failure, Stop};
use crate::output::Output;

/// Prints or writes it.
pub(crate) fn run(args: &Man) -> Result<(), Stop> {
    if let Some(directory) = &args.directory {
        let done = std::fs::create_dir_all(directory)
            .and_then(|()| clap_mangen::generate_to(args::command(), directory));
        return done.map_err(|error| {
            let what = format!("cannot write pages into {}: {error}", directory.display());
            Failure::new(Code::Failed, what, "name a directory of your own").into()
        });
    }
    let mut text = Vec::new();
    Page::new(args::command()).render(&mut text).map_err(|error: io::Error| {
        Failure::new(Code::Failed, format!("cannot make the page: {error}"), "try again")
    })?;
    let mut out = Output::open();
    out.write(&text)?;
    out.flush()
}
