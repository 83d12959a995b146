//! What is typed for semaphores and memory, which programs use directly: no address, but a name.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::values::{mode, size};
use crate::duration;

/// What is done with a semaphore.
#[derive(Debug, Subcommand)]
pub(crate) enum Semaphore {
    /// Make a semaphore, which must not be there yet
    #[command(after_help = SEMAPHORE_CREATE_EXAMPLES)]
    Create(SemaphoreCreate),
    /// Take a permit, waiting for one
    #[command(after_help = SEMAPHORE_WAIT_EXAMPLES)]
    Wait(SemaphoreWait),
    /// Give a permit
    #[command(after_help = SEMAPHORE_POST_EXAMPLES)]
    Post(Name),
    /// Print how many permits there are
    #[command(after_help = SEMAPHORE_VALUE_EXAMPLES)]
    Value(Name),
    /// Take the name away; who has it open keeps it
    #[command(after_help = SEMAPHORE_REMOVE_EXAMPLES)]
    Remove(Name),
    /// Run a command under a permit, given back however the command ends
    ///
    /// Ends as the command did: its exit code, 128+N for signal N, 127 where there is no such
    /// command. If this program is killed, the command dies with it, and a record stays that proves
    /// the permit lost; what the command started itself goes on.
    #[command(after_help = SEMAPHORE_HOLD_EXAMPLES)]
    Hold(SemaphoreHold),
}

/// The name of a semaphore or a memory, and nothing else.
#[derive(Args, Debug)]
pub(crate) struct Name {
    /// Its name, with the slash at its front or without
    pub name: String,
}

/// What `semaphore create` takes.
#[derive(Args, Debug)]
pub(crate) struct SemaphoreCreate {
    /// Its name, with the slash at its front or without
    pub name: String,
    /// How many permits there are at first
    #[arg(long, value_name = "N", default_value = "1")]
    #[arg(value_parser = clap::value_parser!(u32).range(..=i64::from(i32::MAX)))]
    pub value: u32,
    /// Permission bits in octal; who may not read and write can't use it
    #[arg(long, value_name = "MODE", value_parser = mode, default_value = "0600")]
    pub mode: u32,
}

/// What `semaphore wait` takes.
#[derive(Args, Debug)]
pub(crate) struct SemaphoreWait {
    /// Its name, with the slash at its front or without
    pub name: String,
    /// As in 250ms, 5s, 2m; 0s: do not wait; without it: as long as it takes
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub timeout: Option<Duration>,
}

/// What `semaphore hold` takes.
#[derive(Args, Debug)]
pub(crate) struct SemaphoreHold {
    /// Its name, with the slash at its front or without
    pub name: String,
    /// Make it with value 1 where it is absent
    #[arg(long)]
    pub create: bool,
    /// How long to wait for the permit, as in 250ms, 5s, 2m; 0s: do not wait
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub timeout: Option<Duration>,
    /// The command and its arguments, after --
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// What is done with a memory.
#[derive(Debug, Subcommand)]
pub(crate) enum Memory {
    /// Write bytes; what is absent is made as large as they need, what is there is never resized
    #[command(after_help = MEMORY_WRITE_EXAMPLES)]
    Write(MemoryWrite),
    /// Print bytes, and nothing else
    #[command(after_help = MEMORY_READ_EXAMPLES)]
    Read(MemoryRead),
    /// Take the name away; who has it open keeps it
    #[command(after_help = MEMORY_REMOVE_EXAMPLES)]
    Remove(Name),
}

/// What `memory write` takes.
#[derive(Args, Debug)]
pub(crate) struct MemoryWrite {
    /// Its name, with the slash at its front or without
    pub name: String,
    /// What is written; without it, standard input
    #[arg(allow_hyphen_values = false)]
    pub text: Option<OsString>,
    /// Where the first byte goes, as in 64, 8K
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "0")]
    pub offset: usize,
    /// Add the NUL that ends a string in C
    #[arg(long)]
    pub c_string: bool,
    /// Permission bits in octal of what is made
    #[arg(long, value_name = "MODE", value_parser = mode, default_value = "0600")]
    pub mode: u32,
}

/// What `memory read` takes.
#[derive(Args, Debug)]
pub(crate) struct MemoryRead {
    /// Its name, with the slash at its front or without
    pub name: String,
    /// Where the first byte is, as in 64, 8K
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "0")]
    pub offset: usize,
    /// How many bytes; without it, all up to the end
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub length: Option<usize>,
    /// Print what stands before the first NUL (or all, where there is none), and a newline
    #[arg(long)]
    pub c_string: bool,
}

const SEMAPHORE_CREATE_EXAMPLES: &str = "\
Examples:
  poste semaphore create s3 && poste semaphore remove s3
  poste semaphore create --value 0 /s4 && poste semaphore remove /s4";

const SEMAPHORE_WAIT_EXAMPLES: &str = "\
Examples:
  poste semaphore create s5; poste semaphore wait s5; poste semaphore remove s5
  poste semaphore wait --timeout 5s absent || echo 'no permit'";

const SEMAPHORE_POST_EXAMPLES: &str = "\
Examples:
  poste semaphore create s6; poste semaphore post s6; poste semaphore remove s6";

const SEMAPHORE_VALUE_EXAMPLES: &str = "\
Examples:
  poste semaphore create s7; poste semaphore value s7; poste semaphore remove s7";

const SEMAPHORE_REMOVE_EXAMPLES: &str = "\
Examples:
  poste semaphore create s8 && poste semaphore remove s8";

const SEMAPHORE_HOLD_EXAMPLES: &str = "\
Examples:
  poste semaphore hold --create s9 -- date && poste semaphore remove s9
  poste semaphore hold --timeout 5s absent -- date || echo 'not run'";

const MEMORY_WRITE_EXAMPLES: &str = "\
Examples:
  poste memory write --c-string m2 hello && poste memory remove m2
  poste memory write --offset 4095 m3 x && poste memory remove m3";

const MEMORY_READ_EXAMPLES: &str = "\
Examples:
  poste memory write m4 hi && poste memory read m4; poste memory remove m4
  poste memory read --offset 64 --length 4 absent || echo 'nothing there'";

const MEMORY_REMOVE_EXAMPLES: &str = "\
Examples:
  poste memory write m5 hello && poste memory remove m5";
