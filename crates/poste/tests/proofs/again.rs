//! This program again, as another process: started in a role, and never outliving its trial.
//!
//! A helper is killed where its trial fails, where it isn't done in time, and where this program
//! dies. So it may use the blocking calls, as a user's program does; the trial limits its waits.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::{Signal, set_parent_process_death_signal};

/// How long anything may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

const ROLE: &str = "POSTE_ROLE";

/// What this process was started for, where it is a helper: the role, and what it needs to know.
pub(crate) fn role() -> Option<(String, Vec<String>)> {
    let role = std::env::var(ROLE).ok()?;
    set_parent_process_death_signal(Some(Signal::KILL)).expect("a signal that exists");
    Some((role, std::env::args().skip(1).collect()))
}

/// Whether the full forms are asked for.
pub(crate) fn is_long() -> bool {
    std::env::var_os("POSTE_LONG").is_some_and(|value| !value.is_empty() && value != "0")
}

/// A command that starts a helper.
pub(crate) fn command(role: &str, words: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("/proc is mounted"));
    command.env(ROLE, role).args(words);
    command
}

/// A helper that runs.
pub(crate) struct Helper(pub(crate) Child);

impl Helper {
    /// Starts it. The command goes, and with it what it holds of the helper's descriptors.
    pub(crate) fn start(mut command: Command) -> Helper {
        Helper(command.spawn().expect("this program can be started again"))
    }

    /// Waits until it has done its part.
    pub(crate) fn finish(mut self) {
        let end = Instant::now() + LIMIT;
        loop {
            match self.0.try_wait().expect("it can be waited for") {
                Some(status) => break assert!(status.success(), "a helper failed: {status}"),
                None => assert!(Instant::now() < end, "a helper is not done after {LIMIT:?}"),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // One that is over already can't be killed any more.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
