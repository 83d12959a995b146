//! What the kernel vouches for about who sent something.

/// Who sent a message, as far as the kernel vouches for it; what it doesn't say is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    pub(crate) pid: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
}

impl Credentials {
    /// The process that connected or sent. It may be gone by now, and its number reused.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Its effective user at that time.
    #[must_use]
    pub fn uid(&self) -> Option<u32> {
        self.uid
    }

    /// Its effective group at that time.
    #[must_use]
    pub fn gid(&self) -> Option<u32> {
        self.gid
    }
}
