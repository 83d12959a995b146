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

/// Who may send to a receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Allowed {
    /// This user only.
    pub(crate) user: Option<u32>,
    /// Processes of this group only.
    pub(crate) group: Option<u32>,
}

impl Allowed {
    /// Whether somebody with these credentials may send. Who isn't known may not, if it matters.
    pub(crate) fn allows(&self, who: &Credentials) -> bool {
        self.user.is_none_or(|uid| who.uid == Some(uid))
            && self.group.is_none_or(|gid| who.gid == Some(gid))
    }

    /// Whether it matters who sends.
    pub(crate) fn is_restricted(&self) -> bool {
        self.user.is_some() || self.group.is_some()
    }
}
