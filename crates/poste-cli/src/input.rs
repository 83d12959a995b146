//! Where the bodies of `send` and `call` come from: an argument, a file, or standard input.
//!
//! A file of any size goes through a buffer of [`CHUNK`] bytes; only what must be one message is
//! held as a whole, up to a limit.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use poste::Wait;
use rustix::event::PollFlags;

use crate::exit::{Code, Failure};

/// What one read takes in.
pub(crate) const CHUNK: usize = 64 << 10;

/// Where bodies come from.
#[derive(Debug)]
pub(crate) enum Input {
    /// The command line.
    Argument(Vec<u8>),
    /// A file or standard input.
    Stream(Stream),
}

/// A file that is read once, from its beginning to its end.
#[derive(Debug)]
pub(crate) struct Stream {
    file: File,
    name: String,
}

impl Input {
    /// The body that was typed, else what the file holds, else standard input.
    pub(crate) fn open(body: Option<&OsString>, file: Option<&PathBuf>) -> Result<Input, Failure> {
        Ok(match (body, file) {
            (Some(body), _) => Input::Argument(body.clone().into_vec()),
            (None, Some(path)) if path != Path::new("-") => Input::Stream(Stream::of_file(path)?),
            _ => Input::Stream(Stream::standard()?),
        })
    }

    /// All of it as one body. A stream of more than `limit` bytes is read no further; what is said
    /// of it is `beyond`, given the stream's name.
    pub(crate) fn whole(
        self,
        limit: usize,
        beyond: impl FnOnce(&str) -> Failure,
    ) -> Result<Vec<u8>, Failure> {
        match self {
            Input::Argument(body) => Ok(body),
            Input::Stream(mut stream) => stream.read_whole(limit, beyond),
        }
    }
}

impl Stream {
    fn of_file(path: &Path) -> Result<Stream, Failure> {
        let name = path.display().to_string();
        match File::open(path) {
            Ok(file) => Ok(Stream { file, name }),
            Err(error) => Err(failed("open", &name, &error)),
        }
    }

    /// Standard input without the buffer that the standard library puts before it.
    pub(crate) fn standard() -> Result<Stream, Failure> {
        let name = "standard input".to_owned();
        match std::io::stdin().as_fd().try_clone_to_owned() {
            Ok(descriptor) => Ok(Stream { file: descriptor.into(), name }),
            Err(error) => Err(failed("open", &name, &error)),
        }
    }

    /// What one read returns; nothing at the end.
    pub(crate) fn read<'a>(&mut self, chunk: &'a mut [u8]) -> Result<&'a [u8], Failure> {
        loop {
            match self.file.read(chunk) {
                Ok(size) => return Ok(&chunk[..size]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    let _ = Wait::Forever.until_ready(self.file.as_fd(), PollFlags::IN);
                }
                Err(error) => return Err(failed("read", &self.name, &error)),
            }
        }
    }

    /// What it is called.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Everything, if that is no more than `limit` bytes.
    pub(crate) fn read_whole(
        &mut self,
        limit: usize,
        beyond: impl FnOnce(&str) -> Failure,
    ) -> Result<Vec<u8>, Failure> {
        let mut whole = Vec::new();
        loop {
            let start = whole.len();
            let room = limit.saturating_add(1).saturating_sub(start).min(CHUNK);
            whole.resize(start + room, 0);
            let size = self.read(&mut whole[start..])?.len();
            whole.truncate(start + size);
            match size {
                _ if whole.len() > limit => return Err(beyond(&self.name)),
                0 => return Ok(whole),
                _ => {}
            }
        }
    }

    /// Whether a read would return at once.
    pub(crate) fn is_ready(&self) -> bool {
        Wait::Not.until_ready(self.file.as_fd(), PollFlags::IN).unwrap_or(true)
    }
}

fn failed(action: &str, name: &str, error: &std::io::Error) -> Failure {
    let hint = match error.kind() {
        std::io::ErrorKind::NotFound => "check the path; a body itself is typed without --file",
        std::io::ErrorKind::PermissionDenied => "let this user read it: chmod u+r FILE",
        _ => "give a file that can be read from beginning to end",
    };
    Failure::new(Code::Failed, format!("cannot {action} {name}: {error}"), hint)
}
