//! The project's own chores, as a library so that the tests can run them too.

#![forbid(unsafe_code)]

pub mod house;
pub mod suite;
pub mod tidy;

/// The root of the workspace.
pub const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
