//! What one trial is: named, bounded in time, and skipped aloud where the machine lacks something.

use std::panic::AssertUnwindSafe;
use std::sync::mpsc::channel;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};

use crate::machine::Need;

/// No single wait of a test, and no foreign program, takes longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A trial of its own, beside the table of peers.
#[derive(Clone, Copy)]
pub(crate) struct Test {
    pub(crate) name: &'static str,
    pub(crate) needs: &'static [Need],
    pub(crate) run: fn(),
}

impl Test {
    pub(crate) fn trial(self, args: &Arguments) -> Trial {
        trial(self.name.to_owned(), self.needs, args, self.run)
    }
}

/// A trial that ends within four limits, and is ignored where something is missing.
pub(crate) fn trial(
    name: String,
    needs: &[Need],
    args: &Arguments,
    run: impl FnOnce() + Send + 'static,
) -> Trial {
    let title = name.clone();
    let trial = Trial::test(name.clone(), move || bounded(name, run));
    if args.list || args.is_filtered_out(&trial) {
        return trial;
    }
    match needs.iter().find_map(|need| need.missing()) {
        Some(reason) => {
            poste_sys::testing::skip(&title, &reason);
            trial.with_ignored_flag(true)
        }
        None => trial,
    }
}

/// Runs it in a thread of its own, which is left behind when it hangs.
fn bounded(name: String, run: impl FnOnce() + Send + 'static) -> Result<(), Failed> {
    let (done, finished) = channel();
    std::thread::Builder::new().name(name).spawn(move || {
        let result = std::panic::catch_unwind(AssertUnwindSafe(run));
        // Nobody listens only where the time was over.
        let _ = done.send(result.is_ok());
    })?;
    match finished.recv_timeout(LIMIT * 4) {
        Ok(true) => Ok(()),
        Ok(false) => Err("what went wrong stands above".into()),
        Err(_) => Err("it hangs".into()),
    }
}
