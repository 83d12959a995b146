//! One cell of the table: a clause on a mechanism, in one form. It bounds the time that its trial
//! takes, keeps trials that measure time by themselves, and says what was skipped.

use std::panic::AssertUnwindSafe;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{OnceLock, PoisonError, RwLock};
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use poste::Capabilities;

use crate::clauses;
use crate::fixture::{self, Channel, Fixture};
use crate::letters::Random;

/// What stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Enveloped,
    Raw,
}

/// Something that the contract promises.
pub(crate) struct Clause {
    pub(crate) name: &'static str,
    /// Whether a mechanism that can do this has to keep it, in this form.
    pub(crate) applies: fn(&Capabilities, Form) -> bool,
    /// Whether it measures time or touches limits: nothing else runs meanwhile.
    pub(crate) alone: bool,
    /// What must be installed for it.
    pub(crate) needs: &'static [&'static str],
    pub(crate) run: fn(&Cell),
}

impl Clause {
    /// What most have in common.
    pub(crate) const PLAIN: Clause = Clause {
        name: "",
        applies: |_, form| form == Form::Enveloped,
        alone: false,
        needs: &[],
        run: |_| {},
    };
}

/// A clause on a mechanism.
#[derive(Clone, Copy)]
pub(crate) struct Cell {
    pub(crate) clause: &'static Clause,
    pub(crate) fixture: &'static Fixture,
    pub(crate) form: Form,
}

impl Cell {
    pub(crate) fn name(&self) -> String {
        let raw = if self.form == Form::Raw { "::raw" } else { "" };
        format!("{}::{}{raw}", self.clause.name, self.fixture.name)
    }

    pub(crate) fn capabilities(&self) -> &'static Capabilities {
        self.fixture.capabilities()
    }

    /// A channel that nobody has used, in this cell's form.
    pub(crate) fn channel(&self) -> Channel {
        Channel::new(self.fixture, self.form)
    }

    /// Random numbers that are this cell's own.
    pub(crate) fn random(&self) -> Random {
        let add = |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte));
        let name = self.name().bytes().fold(0, add);
        Random::new(seed() ^ name)
    }

    /// How late a wait may end, where the machine is busy.
    pub(crate) fn lateness(&self) -> Duration {
        Duration::from_millis(500) + self.capabilities().delay
    }

    fn lacks(&self) -> Option<String> {
        let missing = self.clause.needs.iter().find(|program| !is_installed(program));
        (self.fixture.lacks)().or(missing.map(|program| format!("{program} is not installed")))
    }

    /// Runs the trial in a thread of its own, which is left behind when it hangs.
    fn run(self) -> Result<(), Failed> {
        static ALONE: RwLock<()> = RwLock::new(());
        let (_together, _alone);
        if self.clause.alone {
            _alone = ALONE.write().unwrap_or_else(PoisonError::into_inner);
        } else {
            _together = ALONE.read().unwrap_or_else(PoisonError::into_inner);
        }
        let (done, finished) = channel();
        let trial = std::thread::Builder::new().name(self.name()).spawn(move || {
            let result = std::panic::catch_unwind(AssertUnwindSafe(|| (self.clause.run)(&self)));
            // Nobody listens only where the time was over.
            let _ = done.send(result.is_ok());
        })?;
        let limit = if is_long() { Duration::from_secs(900) } else { Duration::from_secs(40) };
        match finished.recv_timeout(limit) {
            Ok(true) => Ok(()),
            Ok(false) => {
                // What went wrong was printed when it did.
                drop(trial.join());
                Err(format!("see above; again with POSTE_SEED={}", seed()).into())
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                Err(format!("HANGS: not over after {limit:?}; POSTE_SEED={}", seed()).into())
            }
        }
    }
}

/// All cells that exist, as trials.
pub(crate) fn trials(args: &Arguments) -> Vec<Trial> {
    let mut trials = Vec::new();
    for clause in clauses::ALL {
        for fixture in fixture::all() {
            for form in [Form::Enveloped, Form::Raw] {
                let cell = Cell { clause, fixture, form };
                if (clause.applies)(cell.capabilities(), form) {
                    trials.push(trial(cell, args));
                }
            }
        }
    }
    trials
}

fn trial(cell: Cell, args: &Arguments) -> Trial {
    let trial = Trial::test(cell.name(), move || cell.run());
    let Some(reason) = cell.lacks() else { return trial };
    if !args.list && !args.is_filtered_out(&trial) {
        poste_sys::testing::skip(&cell.name(), &reason);
    }
    trial.with_ignored_flag(true)
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Whether the long forms are asked for.
pub(crate) fn is_long() -> bool {
    std::env::var_os("POSTE_LONG").is_some_and(|value| !value.is_empty() && value != "0")
}

/// Where all random numbers of this run begin.
pub(crate) fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| match std::env::var("POSTE_SEED") {
        Ok(text) => text.parse().expect("POSTE_SEED is a whole number"),
        Err(_) => {
            let time = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
            time.as_nanos() as u64 % 1_000_000_007
        }
    })
}
