//! What this machine has: programs, the modules of its Python, and our C programs, compiled once.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{LazyLock, Mutex, OnceLock, PoisonError};

/// Something that a trial can't do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Need {
    /// A program on the path.
    Program(&'static str),
    /// A Python that can import this.
    Python(&'static str),
    /// A Perl that can load this.
    Perl(&'static str),
    /// A netcat with this option: there are several kinds.
    Netcat(&'static str),
    /// A socat with this kind of address.
    Socat(&'static str),
    /// Namespaces of its own.
    Alone,
}

impl Need {
    /// A compiler, for our C programs.
    pub(crate) const C: Need = Need::Program("gcc");

    /// What is missing, in words; looked for once.
    pub(crate) fn missing(self) -> Option<String> {
        static KNOWN: LazyLock<Mutex<HashMap<Need, Option<String>>>> =
            LazyLock::new(Mutex::default);
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(self).or_insert_with(|| self.look()).clone()
    }

    fn look(self) -> Option<String> {
        let (is_there, what) = match self {
            Need::Program(name) => (is_installed(name), format!("{name} is not installed")),
            Need::Python(module) => (
                succeeds(python(), &["-c", &format!("import {module}")]),
                format!("Python's {module} is not installed (POSTE_PYTHON names another Python)"),
            ),
            Need::Perl(module) => (
                succeeds("perl", &[&format!("-M{module}"), "-e", "1"]),
                format!("Perl's {module} is not installed"),
            ),
            Need::Netcat(option) => (
                says("nc", "-h", option),
                format!("no nc that knows {option} is installed (netcat-openbsd)"),
            ),
            Need::Socat(address) => {
                (says("socat", "-hh", address), format!("socat with {address} is not installed"))
            }
            Need::Alone => {
                (succeeds("unshare", &["-rim", "true"]), "unshare -rim doesn't work here".into())
            }
        };
        (!is_there).then_some(what)
    }
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Whether a program's help has a word.
fn says(program: &str, help: &str, word: &str) -> bool {
    let output = Command::new(program).arg(help).stdin(Stdio::null()).output();
    output.is_ok_and(|output| {
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).contains(word)
    })
}

/// The Python that tests start.
pub(crate) fn python() -> &'static str {
    static PYTHON: OnceLock<String> = OnceLock::new();
    PYTHON.get_or_init(|| std::env::var("POSTE_PYTHON").unwrap_or_else(|_| "python3".to_owned()))
}

/// Where the sources of the foreign programs are.
pub(crate) fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop")
}

/// Where this process keeps what is to be gone at its end.
pub(crate) fn folder(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("poste-interop-{}-{name}", std::process::id()))
}

/// The folder of the compiled C programs; the first who asks compiles them.
pub(crate) fn c_programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let folder = folder("c");
        std::fs::create_dir_all(&folder).unwrap();
        let sources = std::fs::read_dir(sources().join("c")).unwrap();
        let sources = sources.map(|entry| entry.unwrap().path());
        for source in sources.filter(|path| path.extension().is_some_and(|end| end == "c")) {
            let mut gcc = Command::new("gcc");
            gcc.args(["-O1", "-Wall", "-Wno-unused-result", "-o"]);
            gcc.arg(folder.join(source.file_stem().unwrap())).arg(&source).arg("-lrt");
            assert!(gcc.status().unwrap().success(), "gcc {}", source.display());
        }
        folder
    })
}

/// Takes away what was compiled.
pub(crate) fn clean_up() {
    // Nothing is there where nobody asked; what stays is found by the check for leftovers.
    let _ = std::fs::remove_dir_all(folder("c"));
}
