//! A foreign program at work: a line of shell that a person could have typed.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};

use crate::place::{Place, wait_until};
use crate::trial::LIMIT;

/// A program that was started, and ends within [`LIMIT`], by itself or by timeout(1): also where
/// this process is killed.
pub(crate) struct Stranger {
    line: String,
    child: Child,
    output: PathBuf,
    errors: PathBuf,
}

impl Stranger {
    /// Starts a line of shell with these bytes as its standard input.
    pub(crate) fn start(place: &Place, line: &str, input: &[u8]) -> Stranger {
        Stranger::start_on(place, line, file_of(place, input), None::<File>)
    }

    /// Starts a line of shell with a descriptor as its standard input, and perhaps one as its
    /// output. This process keeps no copy of what it gives away.
    pub(crate) fn start_on(
        place: &Place,
        line: &str,
        input: impl Into<Stdio>,
        output: Option<impl Into<Stdio>>,
    ) -> Stranger {
        let (kept, errors) = (fresh(place, "output"), fresh(place, "errors"));
        let file = File::create(&kept).unwrap();
        let mut command = Command::new("timeout");
        command.args(["--kill-after=1", &LIMIT.as_secs().to_string(), "sh", "-c", line]);
        command.envs(place.environment(line)).stdin(input);
        command.stdout(output.map_or(file.into(), Into::into));
        command.stderr(File::create(&errors).unwrap());
        let child = command.spawn().unwrap();
        Stranger { line: line.to_owned(), child, output: kept, errors }
    }

    /// Whether it has ended, well or not.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until it has ended well: what it wrote.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let status = self.child.wait().unwrap();
        let errors = std::fs::read_to_string(&self.errors).unwrap();
        match status.code() {
            Some(0) => std::fs::read(&self.output).unwrap(),
            Some(124) => panic!("{} has not ended after {LIMIT:?}\n{errors}", self.line),
            _ => panic!("{} ended with {status}\n{errors}", self.line),
        }
    }

    /// Waits until it has ended well: the text that it wrote.
    pub(crate) fn finish_text(self) -> String {
        String::from_utf8(self.finish()).unwrap()
    }

    /// Waits until it has written so much, and ends it: for programs that never end.
    pub(crate) fn finish_after(self, size: usize) -> Vec<u8> {
        self.wait_for_output(size);
        std::fs::read(&self.output).unwrap()
    }

    /// Waits until it has written so much.
    pub(crate) fn wait_for_output(&self, size: usize) {
        wait_until(&format!("{} has written {size} bytes", self.line), || {
            std::fs::metadata(&self.output).unwrap().len() >= size as u64
        });
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // timeout(1) ends with it all that it has started.
            if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::TERM);
            }
            let _ = self.child.wait();
        }
    }
}

/// A file at a place that holds these bytes, open for reading.
pub(crate) fn file_of(place: &Place, bytes: &[u8]) -> File {
    let path = fresh(place, "input");
    std::fs::write(&path, bytes).unwrap();
    File::open(path).unwrap()
}

fn fresh(place: &Place, what: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    place.folder().join(format!("{what}-{}", COUNT.fetch_add(1, Ordering::Relaxed)))
}
