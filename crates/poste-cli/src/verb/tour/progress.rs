//! How far the tour is: one line on standard error, where that is a terminal; nothing elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use poste::mechanism::Mechanism;

/// The line; it goes when this is dropped.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Shows it.
    pub(super) fn begin(mechanisms: &[&'static Mechanism]) -> Progress {
        let bar = ProgressBar::new(mechanisms.len() as u64);
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos} of {len}  {wide_msg}") {
            bar.set_style(style.progress_chars("━━─"));
        }
        let shown = bar.clone();
        crate::signals::at_end(move || shown.finish_and_clear());
        Progress { bar }
    }

    /// What is done now.
    pub(super) fn at(&self, mechanism: &Mechanism, step: &str) {
        self.bar.set_message(format!("{}: {step}", mechanism.title));
        self.bar.tick();
    }

    /// One mechanism is done.
    pub(super) fn done(&self) {
        self.bar.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
