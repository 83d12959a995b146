//! The command as tests call it: in a directory of its own, with a time limit.

#![allow(dead_code, missing_docs, unreachable_pub)]

pub mod objects;

use std::io::Write as _;
use std::process::{Child, Command, Output, Stdio};

pub use poste_sys::testing::skip;

/// A scratch directory in which commands run.
pub struct Scratch(tempfile::TempDir);

impl Scratch {
    pub fn new() -> Scratch {
        Scratch(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    /// `poste` with these arguments, ended after 20 seconds.
    pub fn poste(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["20", env!("CARGO_BIN_EXE_poste")]).args(arguments);
        command.current_dir(self.0.path()).env("POSTE_DIR", self.path("run")).stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Outcome {
        Outcome::of(&self.poste(arguments).output().unwrap())
    }

    pub fn run_with(&self, arguments: &[&str], input: &[u8]) -> Outcome {
        let mut child = self.piped(arguments);
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writing = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().unwrap();
        // A command that fails early reads no further.
        let _ = writing.join().unwrap();
        Outcome::of(&output)
    }

    pub fn start(&self, arguments: &[&str]) -> Running {
        self.start_command(self.poste(arguments))
    }

    pub fn start_command(&self, mut command: Command) -> Running {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let pid = child.id();
        let ending = std::thread::spawn(move || child.wait_with_output().unwrap());
        Running { pid, ending: Some(ending) }
    }

    /// The same, as a direct child, so that signals reach it.
    pub fn start_bare(&self, arguments: &[&str]) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_poste"));
        command.args(arguments).current_dir(self.0.path()).env("POSTE_DIR", self.path("run"));
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn piped(&self, arguments: &[&str]) -> Child {
        let mut command = self.poste(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }
}

/// A command that runs beside the test; what it writes is read meanwhile.
pub struct Running {
    pid: u32,
    ending: Option<std::thread::JoinHandle<Output>>,
}

impl Running {
    pub fn end(mut self) -> Outcome {
        Outcome::of(&self.ending.take().unwrap().join().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(ending) = self.ending.take() {
            // `timeout` passes SIGTERM on; it would leave the command behind at SIGKILL.
            let _ = Command::new("kill").arg(self.pid.to_string()).stderr(Stdio::null()).status();
            let _ = ending.join();
        }
    }
}

/// What a command left: exit code, and both outputs.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub out: Vec<u8>,
    pub err: String,
}

impl Outcome {
    pub fn of(output: &Output) -> Outcome {
        let err = String::from_utf8(output.stderr.clone()).unwrap();
        Outcome { code: output.status.code(), out: output.stdout.clone(), err }
    }

    /// It worked, said nothing beside, and printed this.
    #[track_caller]
    pub fn prints(&self, expected: impl AsRef<[u8]>) {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""), "{self:?}");
        let shown = |bytes: &[u8]| bytes.escape_ascii().to_string();
        assert_eq!(shown(&self.out), shown(expected.as_ref()));
    }

    /// It failed with this code, two lines, and nothing on its output; `words` stand in them.
    #[track_caller]
    pub fn fails(&self, code: i32, words: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        let lines: Vec<_> = self.err.lines().collect();
        assert_eq!(lines.len(), 2, "{self:?}");
        assert!(lines[0].starts_with("poste: ") && lines[1].len() > "hint: ".len(), "{self:?}");
        assert!(lines[1].starts_with("hint: ") && self.err.contains(words), "{words:?} {self:?}");
        assert!(self.out.is_empty(), "{self:?}");
    }
}

/// Whether a program is there; else the test says that it was skipped.
pub fn has(program: &str, test: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .stdout(Stdio::null())
        .status();
    if found.is_ok_and(|status| status.success()) {
        return true;
    }
    skip(test, &format!("{program} is missing"));
    false
}
