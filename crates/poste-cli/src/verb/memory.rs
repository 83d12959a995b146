//! `poste memory`: writes, reads and takes away POSIX shared memory.
//!
//! What is there is never resized; what is absent is made as large as the bytes need, with them in
//! it before anybody sees it. Nothing is printed where not everything asked for is there.
//! Sources: shm_overview(7).

use std::os::unix::ffi::OsStrExt as _;

use poste::{Error, Kind};

use crate::args::direct::{Memory, MemoryRead, MemoryWrite};
use crate::exit::{Code, Failure, Stop};
use crate::input::{CHUNK, Stream};
use crate::output::{self, Output};

/// The most that is taken from standard input: it is held until its size is known.
const INPUT_MAX: usize = 1 << 30;

/// How often a name may go and come back before that is an error.
const TRIES: usize = 10;

/// Does what was asked for.
pub(crate) fn run(args: &Memory) -> Result<(), Stop> {
    match args {
        Memory::Write(args) => write(args),
        Memory::Read(args) => read(args),
        Memory::Remove(args) => Ok(poste::Memory::remove(&args.name)?),
    }
}

/// Writes into what is there, or makes it.
fn write(args: &MemoryWrite) -> Result<(), Stop> {
    let bytes = bytes(args)?;
    let mut result = Ok(());
    for _ in 0..TRIES {
        match poste::Memory::open(&args.name) {
            Err(error) if error.kind() == Kind::NotFound => {}
            opened => return Ok(opened?.write(args.offset, &bytes)?),
        }
        result = make(args, &bytes);
        match &result {
            Err(error) if matches!(error.kind(), Kind::NameInUse { .. }) => {}
            _ => break,
        }
    }
    Ok(result?)
}

fn make(args: &MemoryWrite, bytes: &[u8]) -> Result<(), Error> {
    let size = args.offset.saturating_add(bytes.len());
    poste::Memory::create_filled(&args.name, size, args.mode, args.offset, bytes).map(drop)
}

/// The text, else standard input.
fn bytes(args: &MemoryWrite) -> Result<Vec<u8>, Failure> {
    let mut bytes = match &args.text {
        Some(text) => text.as_bytes().to_vec(),
        None => Stream::standard()?.read_whole(INPUT_MAX, |input| {
            let what =
                format!("cannot write {}: {input} has more than {INPUT_MAX} bytes", args.name);
            Failure::new(Code::Failed, what, "a program makes larger ones: poste::Memory::create")
        })?,
    };
    if args.c_string {
        bytes.push(0);
    }
    Ok(bytes)
}

/// Prints what was asked for, where all of it is there.
fn read(args: &MemoryRead) -> Result<(), Stop> {
    let memory = poste::Memory::open(&args.name)?;
    let size = memory.size()?;
    let length = args.length.unwrap_or_else(|| size.saturating_sub(args.offset));
    let end = args.offset.saturating_add(length);
    if end > size {
        let what = format!("cannot read {}: it has {size} bytes, and not {end}", args.name);
        let hint = "read less: --offset and --length, or nothing of both for all of it";
        return Err(Failure::new(Code::Failed, what, hint).into());
    }
    let mut out = Output::open();
    let mut string = Vec::new();
    let mut chunk = vec![0; CHUNK];
    let mut at = args.offset;
    while at < end {
        let part = &mut chunk[..CHUNK.min(end - at)];
        memory.read(at, part)?;
        at += part.len();
        if !args.c_string {
            out.write(part)?;
            continue;
        }
        let nul = part.iter().position(|byte| *byte == 0);
        string.extend_from_slice(&part[..nul.unwrap_or(part.len())]);
        if nul.is_some() {
            break;
        }
    }
    if args.c_string {
        string = output::shown(&string).into_owned();
        string.push(b'\n');
        out.write(&string)?;
    }
    out.flush()
}
