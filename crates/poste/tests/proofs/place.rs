//! An address that is nobody else's, and that is free again at the end.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A place for one channel.
pub(crate) struct Place {
    /// The address to open; a port is chosen by the kernel.
    pub(crate) address: String,
    folder: PathBuf,
}

impl Place {
    /// A place for a mechanism, by its scheme; `unix-abstract` is a name outside the file system.
    pub(crate) fn new(scheme: &str) -> Place {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // Only the number itself matters: nothing is published with it.
        let (process, number) = (std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let name = format!("poste-proofs-{process}-{number}");
        let folder = std::env::temp_dir().join(&name);
        std::fs::create_dir(&folder).expect("a folder in the temporary one");
        let address = match scheme {
            "mq" => format!("mq:/{name}"),
            "sysv" => format!("sysv:{:#x}", 0x5000_0000 | (process & 0xffff) << 12 | number),
            "unix-abstract" => format!("unix:@{name}"),
            "tcp" | "udp" => format!("{scheme}:127.0.0.1:0"),
            _ => format!("{scheme}:{}/channel", folder.display()),
        };
        Place { address, folder }
    }

    /// A folder that goes with it.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A socket took its name away when it was closed, and a port leaves nothing.
        let _ = poste::remove(&self.address);
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
