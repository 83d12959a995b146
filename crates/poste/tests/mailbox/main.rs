//! Mailboxes in shared memory: what the contract tests don't ask of every mechanism.

mod basics;
mod drowsy;
mod headers;
mod hostile;
mod huge_pages;
mod lifetime;
mod peer;
mod sealed;
mod sealed_address;
mod told;
