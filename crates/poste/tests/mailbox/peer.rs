//! Mailboxes of a test's own, and other processes: this test program, started again as a peer.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A mailbox's address that is nobody else's; the mailbox goes with the value.
pub(crate) struct Name(pub(crate) String);

impl Name {
    pub(crate) fn new(what: &str) -> Name {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Name(format!("shm:test-{what}-{}-{number}", std::process::id()))
    }

    /// Its folder, where it is there.
    pub(crate) fn folder(&self) -> Option<PathBuf> {
        let uid = rustix::process::geteuid().as_raw();
        let set = |name| std::env::var_os(name).map(PathBuf::from);
        let runtime = [
            set("POSTE_DIR"),
            set("XDG_RUNTIME_DIR").map(|directory| directory.join("poste")),
            Some(PathBuf::from(format!("/run/user/{uid}/poste"))),
            Some(PathBuf::from(format!("/dev/shm/poste-{uid}"))),
        ];
        let name = self.0.strip_prefix("shm:").unwrap();
        let mut folders = runtime.into_iter().flatten().map(|place| place.join("shm").join(name));
        folders.find(|folder| folder.is_dir())
    }

    /// The files of its folder.
    pub(crate) fn files(&self) -> Vec<String> {
        let files = self.folder().and_then(|folder| std::fs::read_dir(folder).ok());
        let names = files.into_iter().flatten().flatten().map(|file| file.file_name());
        names.map(|name| name.into_string().unwrap()).collect()
    }

    /// With settings.
    pub(crate) fn with(&self, settings: &str) -> String {
        format!("{}?{settings}", self.0)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = poste::remove(&self.0);
    }
}

/// The variable that makes this program a peer: what it is to do.
const ROLE: &str = "POSTE_MAILBOX_ROLE";

/// Another process, killed when the value is dropped.
pub(crate) struct Peer(pub(crate) Child);

impl Peer {
    /// Starts this program as a peer.
    pub(crate) fn start(role: &str, arguments: &[&str]) -> Peer {
        let program = Command::new(std::env::current_exe().unwrap());
        let mut command = Peer::arguments(program, role, arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Peer(command.spawn().unwrap())
    }

    /// Starts this program as a peer of another user.
    pub(crate) fn start_as(uid: u32, role: &str, arguments: &[&str]) -> Peer {
        use std::os::unix::process::CommandExt;
        let program = Command::new(std::env::current_exe().unwrap());
        let mut command = Peer::arguments(program, role, arguments);
        command.uid(uid).gid(uid).stdin(Stdio::piped()).stdout(Stdio::piped());
        Peer(command.spawn().unwrap())
    }

    /// A command that runs this program as a peer: `wrapper` is a program that runs what its
    /// arguments say.
    pub(crate) fn command(mut wrapper: Command, role: &str, arguments: &[&str]) -> Command {
        wrapper.arg(std::env::current_exe().unwrap());
        Peer::arguments(wrapper, role, arguments)
    }

    /// What another process is told that makes a mailbox on huge pages in a runtime directory.
    pub(crate) fn huge_pages_in(runtime: &std::path::Path) -> String {
        let program = Command::new(std::env::current_exe().unwrap());
        let mut command = Peer::arguments(program, "huge-pages", &["shm:none"]);
        command.env("POSTE_DIR", runtime).stdin(Stdio::piped()).stdout(Stdio::piped());
        Peer(command.spawn().unwrap()).expect("told ")
    }

    fn arguments(mut command: Command, role: &str, arguments: &[&str]) -> Command {
        command
            .args(["--exact", "peer::main", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env("POSTE_MAILBOX_ARGUMENTS", arguments.join("\n"));
        command
    }

    /// Tells it a line.
    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.0.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Waits until it says this line; where `line` ends with a space, what follows it.
    pub(crate) fn expect(&mut self, line: &str) -> String {
        use std::io::Read;
        let out = self.0.stdout.as_mut().unwrap();
        let mut said = String::new();
        let mut byte = [0];
        while out.read(&mut byte).unwrap() == 1 {
            said.push(char::from(byte[0]));
            if byte[0] == b'\n' {
                match said.trim_end().rsplit_once(line) {
                    Some((_, rest)) if rest.is_empty() || line.ends_with(' ') => {
                        return rest.to_owned();
                    }
                    _ => {}
                }
                said.clear();
            }
        }
        panic!("the peer ended without saying {line:?}");
    }

    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Says a line to who started this peer.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

/// What this program does as a peer; nothing as a test.
#[test]
fn main() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let arguments = std::env::var("POSTE_MAILBOX_ARGUMENTS").unwrap();
    let arguments: Vec<_> = arguments.split('\n').collect();
    let address = arguments[0];
    match role.as_str() {
        // Takes one message and keeps it.
        "hoard" => {
            let mut receiver = poste::Receiver::create(address).unwrap().manual();
            say("ready");
            let message = receiver.recv().unwrap().into_owned();
            say(message.text().unwrap());
            std::thread::sleep(std::time::Duration::from_secs(60));
        }
        // The same, and a child of it keeps its descriptors.
        "hoard-with-child" => {
            let mut receiver = poste::Receiver::create(address).unwrap().manual();
            say("ready");
            let message = receiver.recv().unwrap().into_owned();
            let _ = poste_sys::testing::fork_and_sleep(std::time::Duration::from_secs(30));
            say(message.text().unwrap());
            std::thread::sleep(std::time::Duration::from_secs(60));
        }
        // Sends what it is told.
        "send" => {
            let mut sender = poste::Sender::create(address).unwrap();
            for body in &arguments[1..] {
                sender.send(*body).unwrap();
            }
            say("sent");
            std::thread::sleep(std::time::Duration::from_secs(60));
        }
        // Sends back what comes.
        "echo" => {
            let mut receiver = poste::Receiver::create(address).unwrap();
            let mut sender = poste::Sender::create(arguments[1]).unwrap();
            say("ready");
            loop {
                let message = receiver.recv().unwrap();
                sender.send(&message).unwrap();
            }
        }
        "attach" => {
            let mut told = String::new();
            std::io::stdin().read_line(&mut told).unwrap();
            crate::lifetime::attach(address, told.trim());
        }
        "huge-pages" => {
            let told = match poste::create(address, &poste::Options::new().huge_pages()) {
                Ok(()) => poste::remove(address).map(|()| "made".to_owned()).unwrap(),
                Err(error) => format!("{error}; {}", error.hint()),
            };
            say(&format!("told {told}"));
        }
        "fork" => crate::lifetime::fork(address),
        "bursts" => crate::drowsy::bursts(address, arguments[1]),
        "exec" => crate::lifetime::exec(address),
        "make" => crate::lifetime::make(address),
        "no-bell" => crate::told::no_bell(address),
        "no-descriptors" => crate::told::no_descriptors(address),
        "full" => crate::lifetime::full(address),
        "sealed-at" => crate::sealed_address::send(address, arguments[1]),
        "sealed-from" => crate::sealed_address::receive(address),
        "sealed-sender" => crate::sealed::sender(address),
        other => panic!("{other}?"),
    }
}
