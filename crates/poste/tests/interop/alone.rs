//! A trial in a process of its own, whose queues nobody else sees: for a key that the whole world
//! uses, and for the folder in which the kernel shows POSIX queues.

use std::path::PathBuf;
use std::process::Command;

const MARK: &str = "POSTE_INTEROP_ALONE";

/// Runs the trial of this name in this program started anew, in IPC and mount namespaces of its
/// own, with the folder of its POSIX queues.
pub(crate) fn alone(name: &str, trial: fn(PathBuf)) {
    if let Some(folder) = std::env::var_os(MARK) {
        return trial(folder.into());
    }
    let folder = crate::machine::folder(&format!("mqueue-{}", name.replace(':', "-")));
    std::fs::create_dir_all(&folder).unwrap();
    let mount = format!("mount -t mqueue none \"${MARK}\" && exec \"$@\"");
    let done = Command::new("unshare")
        .args(["-rim", "sh", "-c", &mount, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(MARK, &folder)
        .output();
    // Mounted it was only there.
    std::fs::remove_dir(&folder).unwrap();
    let done = done.unwrap();
    let text = [done.stdout, done.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(done.status.success() && text.contains("1 passed"), "{text}");
}
