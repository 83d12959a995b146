//! What the kernel vouches for about who sent something.

use crate::error::{Error, Kind};

/// Who sent a message, as far as the kernel vouches for it; what it doesn't say is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    pub(crate) pid: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    /// The process as the kernel numbers it for ever, where it says so.
    pub(crate) process: Option<u64>,
}

impl Credentials {
    /// This process's own.
    pub(crate) fn myself() -> Credentials {
        Credentials {
            pid: Some(std::process::id()),
            uid: Some(rustix::process::geteuid().as_raw()),
            gid: Some(rustix::process::getegid().as_raw()),
            process: None,
        }
    }

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

    /// Whether the process that connected still runs: that very one, not another that has its pid
    /// by now. `None` where the kernel doesn't say (datagrams; before Linux 6.9). SO_PEERPIDFD.
    ///
    /// ```
    /// # fn main() -> Result<(), poste::Error> {
    /// let (mut here, mut there) = poste::pair()?;
    /// here.send("from this process")?;
    /// assert_ne!(there.recv()?.sender().is_running(), Some(false));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn is_running(&self) -> Option<bool> {
        poste_sys::peer::is_running(self.pid?, self.process?).ok()
    }
}

/// Who may send to a receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Allowed {
    /// This user only.
    pub(crate) user: Option<u32>,
    /// Processes of this group only.
    pub(crate) group: Option<u32>,
    /// Unless one of those is named: this process's own user, and root.
    pub(crate) own_user: bool,
}

impl Allowed {
    /// Whether somebody with these credentials may send. Who isn't known may not, if it matters.
    pub(crate) fn allows(&self, who: &Credentials) -> bool {
        if self.own_user && self.user.is_none() && self.group.is_none() {
            let own = rustix::process::geteuid().as_raw();
            return who.uid.is_some_and(|uid| uid == own || uid == 0);
        }
        self.user.is_none_or(|uid| who.uid == Some(uid))
            && self.group.is_none_or(|gid| who.gid == Some(gid))
    }

    /// Refuses the peer of a connection that is someone else.
    pub(crate) fn check(&self, peer: &Credentials) -> Result<(), Error> {
        if self.allows(peer) {
            return Ok(());
        }
        let is_known = |id: Option<u32>| id.map_or("unknown".to_owned(), |id| id.to_string());
        let detail = format!(
            "the other side is user {} and group {}, and is not to be trusted here",
            is_known(peer.uid),
            is_known(peer.gid)
        );
        Err(Error::new(Kind::Permission, detail))
    }

    /// Whether it matters who sends.
    pub(crate) fn is_restricted(&self) -> bool {
        self.user.is_some() || self.group.is_some() || self.own_user
    }
}
