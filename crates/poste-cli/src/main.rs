//! The command `poste`.

#![forbid(unsafe_code)]

fn main() {}
