//! The mode is right from the first moment on.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use poste_sys::testing::skip;

use crate::helper::{Folder, Helper};

/// Has the helper follow an order again and again, and looks at the mode all the time.
fn watch(helper: &mut Helper, path: &Path, order: &str) {
    let (done, seen) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if let Ok(stat) = fs::symlink_metadata(path) {
                    assert_eq!(stat.mode() & 0o7777, 0o600, "{order}");
                    seen.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        // A busy machine may not let the watcher see any of the first ones.
        for _ in 0..100 {
            let answer = helper.ask(order);
            assert!(answer.starts_with("ok"), "{answer}");
            if seen.load(Ordering::Relaxed) >= 20 {
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(seen.into_inner() > 0, "{order}: it was seen");
}

#[test]
fn nobody_else_may_come_in_at_any_moment() {
    let folder = Folder::new();
    let mut helper = Helper::new(&folder.private("runtime"));
    helper.must("umask 0");
    for scheme in ["unix", "seqpacket", "dgram", "fifo"] {
        let path = folder.join(scheme);
        let order = if scheme == "fifo" { "make-again" } else { "again" };
        watch(&mut helper, &path, &format!("{order} {scheme}:{}", path.display()));
    }
    let name = format!("poste-modes-{}", std::process::id());
    watch(&mut helper, &Path::new("/dev/shm").join(&name), &format!("memory-again {name}"));
    let semaphore = format!("/dev/shm/sem.{name}");
    watch(&mut helper, Path::new(&semaphore), &format!("semaphore-again {name}"));
    // What was asked for is what there is, whatever the umask takes away.
    helper.must("umask 077");
    for scheme in ["unix", "seqpacket", "dgram", "fifo"] {
        let path = folder.join(&format!("{scheme}-660"));
        helper.must(&format!("receive {scheme}:{}?mode=0660", path.display()));
        assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o7777, 0o660, "{scheme}");
    }
}

#[test]
fn nobody_else_may_come_to_a_queue_at_any_moment() {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let Some(mount) = mounts.find(|words| words.get(2) == Some(&"mqueue")) else {
        let test = "nobody_else_may_come_to_a_queue_at_any_moment";
        return skip(test, "no mqueue file system is mounted to see a queue's mode by");
    };
    let folder = Folder::new();
    let mut helper = Helper::new(&folder.private("runtime"));
    helper.must("umask 0");
    let name = format!("poste-modes-{}", std::process::id());
    let path = Path::new(mount[1]).join(&name);
    watch(&mut helper, &path, &format!("make-again mq:/{name}"));
    helper.must("umask 077");
    helper.must(&format!("create mq:/{name}?mode=0660"));
    assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o7777, 0o660);
    helper.must(&format!("remove mq:/{name}"));
}
