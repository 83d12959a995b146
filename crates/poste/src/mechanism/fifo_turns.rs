//! Who may read a FIFO: anyone, one receiver with a claim, or several in turn under a lock.
//!
//! Two that read an enveloped FIFO at once would each get parts of messages: it has one receiver, or
//! several of which one at a time takes a whole message. Source: flock(2).

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use super::{Opening, path};
use crate::error::{Error, Kind};
use crate::name::claim::{self, Claim};

/// Whose turn it is to read.
pub(super) enum Place {
    /// Raw: whoever reads, reads.
    Anyone,
    /// The one receiver, while it has this claim.
    Alone { _claim: Box<Claim> },
    /// One of several. Each keeps a shared lock on the FIFO, so that nobody claims it alone, and
    /// takes a second one for its turn; for that it is open for writing too, so they see no end.
    InTurn(OwnedFd),
}

impl Place {
    /// Who comes alone claims first and then looks for those who share; who shares locks first and
    /// then looks for a claim: so at least one of two sees the other.
    pub(super) fn take(path: &Path, opening: &Opening<'_>) -> Result<Place, Error> {
        if opening.options.is_raw() {
            return Ok(Place::Anyone);
        }
        let key = reader_key(&path::key(path)?);
        if opening.options.shared {
            let descriptor = locked(path, OFlags::RDWR, FlockOperation::NonBlockingLockShared)?;
            return match claim::holder(&key)? {
                Some(owner) => Err(has_receiver(Some(owner.describe()))),
                None => Ok(Place::InTurn(descriptor)),
            };
        }
        let address = path::absolute_address(opening.address, path)?;
        let claim = Claim::take(&key, &address.to_string())?;
        // Nobody shares it; the lock itself isn't needed any longer.
        drop(locked(path, OFlags::RDONLY, FlockOperation::NonBlockingLockExclusive)?);
        Ok(Place::Alone { _claim: Box::new(claim) })
    }
}

/// The key of the claim of a FIFO's one receiver.
pub(super) fn reader_key(key: &str) -> String {
    format!("reader:{key}")
}

fn locked(path: &Path, access: OFlags, how: FlockOperation) -> Result<OwnedFd, Error> {
    let flags = access | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let descriptor =
        rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| Error::system(errno, ""))?;
    flock(&descriptor, how).map_err(|errno| match errno {
        Errno::WOULDBLOCK => has_receiver(None),
        _ => Error::system(errno, ""),
    })?;
    Ok(descriptor)
}

fn has_receiver(owner: Option<String>) -> Error {
    Error::new(Kind::NameInUse { owner }, "the FIFO has a receiver already")
        .with_hint("an enveloped FIFO has one, or several that all open it with ?shared")
}
