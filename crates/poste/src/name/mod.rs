//! Names: claiming them, proving who is dead, and knowing what poste made.
//!
//! A claim is a lock on a small file in the runtime directory. The file says who holds it, because a
//! lock alone can't: a forked child keeps the lock of its dead parent. Whoever wants a name that is
//! locked reads who that was, and takes over when the kernel says that this process is gone.
//!
//! The registry keeps a small file for each object that outlives its maker. Descriptors and sockets
//! say who has an object open.

pub(crate) mod claim;
pub(crate) mod descriptors;
pub(crate) mod owner;
pub(crate) mod registry;
pub(crate) mod runtime;
pub(crate) mod shm_file;
pub(crate) mod unix_diag;
