//! The mode is right from the first moment on.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::helper::{Folder, Helper};

#[test]
fn nobody_else_may_come_in_at_any_moment() {
    let folder = Folder::new();
    let mut helper = Helper::new(&folder.private("runtime"));
    helper.must("umask 0");
    for scheme in ["unix", "seqpacket", "dgram", "fifo"] {
        let path = folder.join(scheme);
        let (done, seen) = (AtomicBool::new(false), AtomicU32::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    if let Ok(stat) = fs::symlink_metadata(&path) {
                        assert_eq!(stat.mode() & 0o7777, 0o600, "{scheme}");
                        seen.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
            let order = if scheme == "fifo" { "make-again" } else { "again" };
            // A busy machine may not let the watcher see any of the first ones.
            for _ in 0..100 {
                let answer = helper.ask(&format!("{order} {scheme}:{}", path.display()));
                assert!(answer.starts_with("ok"), "{answer}");
                if seen.load(Ordering::Relaxed) >= 20 {
                    break;
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        assert!(seen.into_inner() > 0, "{scheme} was seen");
    }
    // What was asked for is what there is, whatever the umask takes away.
    helper.must("umask 077");
    for scheme in ["unix", "seqpacket", "dgram", "fifo"] {
        let path = folder.join(&format!("{scheme}-660"));
        helper.must(&format!("receive {scheme}:{}?mode=0660", path.display()));
        assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o7777, 0o660, "{scheme}");
    }
}
