//! Everything that the tour makes: its directory, its objects, its processes; and that all of it
//! goes, whichever way the tour ends.
//!
//! The tour starts itself again (exec) with its own directory as poste's runtime directory, so that
//! the claims of its sockets and FIFOs lie there too. A peer dies with the tour, by its parent-death
//! signal. What a SIGKILL of the tour leaves is its directory and a queue or two.
//! Sources: prctl(2) (PR_SET_PDEATHSIG), exec(3).

use std::convert::Infallible;
use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};

use poste::mechanism::Mechanism;
use poste::{Kind, Options};

use super::ledger::Fault;
use crate::exit::{Code, Failure, Stop};

/// How often another name is tried where one is taken, and how often the directory is taken away.
const TRIES_MAX: u32 = 100;

/// What stands before the process number in the directory's name.
const PREFIX: &str = "poste-tour-";

/// What is there now.
static HOUSE: Mutex<House> =
    Mutex::new(House { directory: None, objects: Vec::new(), children: Vec::new(), names: 0 });

struct House {
    directory: Option<PathBuf>,
    /// Addresses of objects that have to be removed.
    objects: Vec<String>,
    children: Vec<Child>,
    /// How many names were given out.
    names: u32,
}

/// Starts this program again, in a directory of its own: returns only where that failed.
pub(super) fn move_in() -> Result<Infallible, Stop> {
    let home = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let directories = home.into_iter().chain([std::env::temp_dir(), PathBuf::from("/dev/shm")]);
    let mut why = String::new();
    for home in directories.filter(|home| home.is_absolute()) {
        let directory = home.join(format!("{PREFIX}{}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&directory) {
            Ok(()) => return Err(start_again(&directory)),
            Err(error) => why = format!("{}: {error}", directory.display()),
        }
    }
    Err(no_room(&why))
}

fn start_again(directory: &Path) -> Stop {
    let arguments = std::env::args_os().skip(1);
    let error = match std::env::current_exe() {
        Ok(program) => Command::new(program)
            .args(arguments)
            .arg("--inside")
            .arg(directory)
            .env("POSTE_DIR", directory.join("poste"))
            .exec(),
        Err(error) => error,
    };
    let _ = std::fs::remove_dir(directory);
    let what = format!("tour: this program cannot start itself again: {error}");
    Failure::new(Code::Failed, what, "is it still where it was? try: command -v poste").into()
}

fn no_room(why: &str) -> Stop {
    let what = format!("tour: no directory for its sockets and FIFOs: {why}");
    Failure::new(Code::Failed, what, "name one that you may write in: TMPDIR=/some/where").into()
}

/// The house for as long as it stands; what is in it goes when this is dropped.
#[derive(Debug)]
pub(super) struct Tenancy(());

/// Takes over the directory that [`move_in`] made for this very process.
pub(super) fn settle(directory: &Path) -> Result<Tenancy, Stop> {
    let name = format!("{PREFIX}{}", std::process::id());
    if directory.file_name() != Some(OsStr::new(&name)) {
        return Err(no_room(&format!("{} is not of this process", directory.display())));
    }
    house().directory = Some(directory.to_owned());
    crate::signals::at_end(|| {
        let mut house = house();
        house.clear();
        // Locked for ever: nothing new is made while the program ends.
        std::mem::forget(house);
    });
    Ok(Tenancy(()))
}

impl Drop for Tenancy {
    fn drop(&mut self) {
        house().clear();
    }
}

/// Starts a process that goes when the tour does: its number, and what it reports.
pub(super) fn start(mut command: Command) -> Result<(u32, Option<ChildStderr>), Fault> {
    let mut house = house();
    let mut child = command.spawn().map_err(|error| Fault(format!("no new process: {error}")))?;
    let found = (child.id(), child.stderr.take());
    house.children.push(child);
    Ok(found)
}

/// Kills a process.
pub(super) fn kill(id: u32) {
    let mut house = house();
    if let Some(at) = house.children.iter().position(|child| child.id() == id) {
        end(&mut house.children.swap_remove(at));
    }
}

/// A new address of a mechanism, and its object where poste makes it by itself.
pub(super) fn address(mechanism: &Mechanism) -> Result<String, poste::Error> {
    for _ in 1..TRIES_MAX {
        match place(mechanism) {
            Err(error) if matches!(error.kind(), Kind::NameInUse { .. }) => {}
            done => return done,
        }
    }
    place(mechanism)
}

fn place(mechanism: &Mechanism) -> Result<String, poste::Error> {
    let mut house = house();
    house.names += 1;
    let address = house.name(mechanism.scheme);
    if !mechanism.capabilities.made_by_listening {
        poste::create(&address, &Options::new())?;
        house.objects.push(address.clone());
    }
    Ok(address)
}

/// Between two checks: no process and no object stays.
pub(super) fn sweep() {
    house().sweep();
}

impl House {
    /// An address that nobody else should have.
    fn name(&self, scheme: &str) -> String {
        let (process, number) = (std::process::id(), self.names);
        match scheme {
            "tcp" | "udp" => format!("{scheme}:127.0.0.1:0"),
            // The upper half tells ours from the keys that people and ftok choose.
            "sysv" => format!("sysv:{:#x}", 0x7057_0000 ^ (process << 8) ^ number),
            "mq" => format!("mq:/{PREFIX}{process}-{number}"),
            // It lies in the runtime directory, which is the tour's own.
            "shm" => format!("shm:{number}"),
            _ => {
                let directory = self.directory.as_deref().unwrap_or(Path::new("."));
                format!("{scheme}:{}/{number}", directory.display())
            }
        }
    }

    fn sweep(&mut self) {
        for child in &mut self.children {
            end(child);
        }
        self.children.clear();
        for address in self.objects.drain(..) {
            // Nothing could be done about a reason here; the tests see that nothing stays.
            let _ = poste::remove(address);
        }
    }

    fn clear(&mut self) {
        self.sweep();
        let Some(directory) = self.directory.take() else { return };
        // Another thread may be making something there, until the directory is gone.
        for _ in 0..TRIES_MAX {
            match std::fs::remove_dir_all(&directory) {
                Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {}
                _ => return,
            }
        }
    }
}

fn end(child: &mut Child) {
    // Both fail only where it is gone already.
    let _ = child.kill();
    let _ = child.wait();
}

fn house() -> MutexGuard<'static, House> {
    HOUSE.lock().unwrap_or_else(PoisonError::into_inner)
}
