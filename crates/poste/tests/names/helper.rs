//! A helper: this program again, with a runtime directory that its test gives it. It reads orders line
//! by line and answers each on its standard error. And the folders that tests work in.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use poste::{Error, Memory, Options, Permit, Receiver, Semaphore, Sender, Wait};
use poste_sys::testing::skip;
use rustix::time::{ClockId, clock_gettime};

pub(crate) const HELPER: &str = "POSTE_NAMES_HELPER";
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The user that is nobody's friend.
pub(crate) const STRANGER: u32 = 65_534;

/// A folder of a test's own, which goes with it.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("poste-names-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A folder in it that this user alone may enter.
    pub(crate) fn private(&self, name: &str) -> PathBuf {
        let path = self.join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        path
    }

    /// A folder in it where everybody may write, as in /tmp.
    pub(crate) fn public(&self, name: &str) -> PathBuf {
        let path = self.private(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o1777)).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// A process that opens and closes what it is told to.
pub(crate) struct Helper {
    pub(crate) child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStderr>,
}

impl Helper {
    pub(crate) fn new(runtime: &Path) -> Helper {
        Helper::start(Helper::command().env("POSTE_DIR", runtime))
    }

    pub(crate) fn command() -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["as_a_helper", "--exact", "--nocapture"]).env(HELPER, "1");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn start(command: &mut Command) -> Helper {
        let mut child = command.spawn().unwrap();
        let (orders, answers) = (child.stdin.take().unwrap(), child.stderr.take().unwrap());
        Helper { child, orders, answers: BufReader::new(answers) }
    }

    /// One that another user runs; `None`, said aloud, where that can't be.
    pub(crate) fn of_a_stranger(test: &str) -> Option<Helper> {
        Helper::of_user(STRANGER, test)
    }

    /// One of a further user, no friend of the first.
    pub(crate) fn of_another_stranger(test: &str) -> Option<Helper> {
        Helper::of_user(STRANGER - 1, test)
    }

    fn of_user(user: u32, test: &str) -> Option<Helper> {
        let mut command = Helper::command();
        command.uid(user).gid(user).env("POSTE_DIR", "/nowhere");
        if rustix::process::geteuid().is_root() && can_run(&mut command) {
            return Some(Helper::start(&mut command));
        }
        skip(test, "no other user can run the tests' program (not root?)");
        None
    }

    pub(crate) fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    pub(crate) fn answer(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.answers.read_line(&mut line).unwrap() > 0, "the helper has ended");
            match line.strip_prefix("= ") {
                Some(answer) => return answer.trim_end().to_owned(),
                None => eprint!("a helper says: {line}"),
            }
        }
    }

    pub(crate) fn ask(&mut self, order: &str) -> String {
        self.order(order);
        self.answer()
    }

    /// An order that must be followed: what it answers after `ok`.
    pub(crate) fn must(&mut self, order: &str) -> String {
        let answer = self.ask(order);
        match answer.strip_prefix("ok") {
            Some(rest) => rest.trim().to_owned(),
            None => panic!("{order}: {answer}"),
        }
    }

    /// An order that must be refused, with an error of this code: its text.
    pub(crate) fn refuses(&mut self, order: &str, code: &str) -> String {
        let answer = self.ask(order);
        match answer.strip_prefix(code) {
            Some(rest) => rest.trim().to_owned(),
            None => panic!("{order}: {answer:?} instead of {code}"),
        }
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn can_run(command: &mut Command) -> bool {
    let listed = Command::new(command.get_program())
        .arg("--list")
        .stdout(Stdio::null())
        .uid(STRANGER)
        .gid(STRANGER)
        .status();
    listed.is_ok_and(|status| status.success())
}

/// What a helper has open.
#[derive(Default)]
pub(crate) struct Open {
    receivers: Vec<Receiver>,
    senders: Vec<Sender>,
}

impl Open {
    pub(crate) fn follow(&mut self, line: &str) -> Result<String, Error> {
        let (order, rest) = line.split_once(' ').unwrap_or((line, ""));
        match order {
            // So that two helpers follow an order in the same moment.
            "at" => {
                let (moment, order) = rest.split_once(' ').unwrap();
                let moment: u64 = moment.parse().unwrap();
                while now() < moment {
                    std::hint::spin_loop();
                }
                return self.follow(order);
            }
            "receive" => self.receivers.push(Receiver::create(rest)?),
            "open" => self.receivers.push(Receiver::open(rest)?),
            "create" => poste::create(rest, &Options::new())?,
            "create-new" => {
                self.receivers.push(Receiver::open_with(rest, &Options::new().create_new())?);
            }
            "remove" => poste::remove(rest)?,
            "memory-again" => {
                for _ in 0..200 {
                    Memory::create(rest, 64)?;
                    Memory::remove(rest)?;
                }
            }
            "semaphore-again" => {
                for _ in 0..200 {
                    Semaphore::create(rest, 1)?;
                    Semaphore::remove(rest)?;
                }
            }
            "make-memory" => drop(Memory::create(rest, 64)?),
            "remove-memory" => Memory::remove(rest)?,
            "make-semaphore" => drop(Semaphore::create(rest, 1)?),
            "remove-semaphore" => Semaphore::remove(rest)?,
            "permit" => drop(Permit::take(&Semaphore::open(rest)?, Wait::Not)?),
            // A permit that is kept as long as this process lives.
            "hold" => {
                let semaphore = Box::leak(Box::new(Semaphore::open(rest)?));
                std::mem::forget(Permit::take(semaphore, Wait::Not)?);
            }
            "gc" => {
                let garbage = poste::garbage()?;
                let count = garbage.len();
                garbage.into_iter().try_for_each(poste::Garbage::take_away)?;
                return Ok(count.to_string());
            }
            "rename" => {
                let name = if rest == "torn" { b"poste-abcdefgh\xc3" } else { b"poste-abcdefghi" };
                fs::write("/proc/self/comm", name).unwrap();
            }
            "again" => {
                for _ in 0..200 {
                    drop(Receiver::create(rest)?);
                }
            }
            "make-again" => {
                for _ in 0..200 {
                    poste::create(rest, &Options::new())?;
                    poste::remove(rest)?;
                }
            }
            "connect" => self.senders.push(Sender::open(rest)?),
            "connect-or-make" => self.senders.push(Sender::create(rest)?),
            "send" => {
                self.senders.last_mut().unwrap().send_timeout(rest, Duration::from_millis(200))?;
            }
            "recv" => {
                let message = self.receivers.last_mut().unwrap().recv_timeout(PATIENCE)?;
                return Ok(message.text()?.to_owned());
            }
            "close" => (self.receivers, self.senders) = (Vec::new(), Vec::new()),
            "fork" => return Ok(poste_sys::testing::fork_and_sleep(PATIENCE * 3).to_string()),
            "umask" => {
                let mask = u32::from_str_radix(rest, 8).unwrap();
                rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
            }
            other => panic!("no order {other}"),
        }
        Ok(String::new())
    }
}

pub(crate) fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
