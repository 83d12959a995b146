//! What a run must not leave behind: objects with its names and keys, and descriptors of them.

use std::path::Path;
use std::process::{Command, ExitCode};

use crate::place::first_key;

/// Looks everywhere where an object of this process could be, and says what is there.
pub(crate) fn check() -> ExitCode {
    let ours = format!("poste-interop-{}-", std::process::id());
    let mut left = Vec::new();
    for folder in [std::env::temp_dir(), "/dev/shm".into(), "/dev/mqueue".into()] {
        let names = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        let paths = names.map(|entry| entry.path().display().to_string());
        left.extend(paths.filter(|path| path.contains(&ours)));
    }
    left.extend(unmounted_queues().lines().filter(|name| name.contains(&ours)).map(Into::into));
    for line in std::fs::read_to_string("/proc/sysvipc/msg").unwrap_or_default().lines().skip(1) {
        let key = line.split_whitespace().next().and_then(|key| key.parse::<i64>().ok());
        if key.is_some_and(|key| key as u32 >> 8 == first_key() >> 8) {
            left.push(format!("the System V queue {line}"));
        }
    }
    let descriptors = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let targets = targets.map(|target| target.display().to_string());
    left.extend(targets.filter(|target| target.contains(&ours)));
    for object in &left {
        eprintln!("LEFT BEHIND: {object}");
    }
    if left.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The POSIX queues, where no file system shows them: one is mounted privately, where that goes.
fn unmounted_queues() -> String {
    if Path::new("/dev/mqueue").is_dir() {
        return String::new();
    }
    let mount = "mount -t mqueue none /mnt && ls /mnt";
    let listed = Command::new("unshare").args(["-m", "sh", "-c", mount]).output();
    let listed = listed.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&listed).into_owned()
}
