//! What a run must not leave behind: objects of its own in the kernel's name spaces, and open
//! descriptors. Others' objects are none of its business: only names and keys of ours are looked at.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use crate::fixture::{PREFIX, key_base};

/// What is there, in words.
pub(crate) type Objects = BTreeSet<String>;

/// What of this process is there now.
pub(crate) fn look() -> Objects {
    let mut objects = Objects::new();
    let ours = format!("{PREFIX}{}-", std::process::id());
    let folders = [std::env::temp_dir(), "/dev/shm".into(), "/dev/mqueue".into()];
    for folder in folders.into_iter().chain(runtime_parts()) {
        let names = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        for name in names.filter(|name| name.contains(&ours)) {
            objects.insert(format!("{}/{name}", folder.display()));
        }
    }
    objects.extend(unmounted_queues(&ours));
    let queues = std::fs::read_to_string("/proc/sysvipc/msg").unwrap_or_default();
    for line in queues.lines().skip(1) {
        let key = line.split_whitespace().next().and_then(|key| key.parse::<i64>().ok());
        if key.is_some_and(|key| key as u32 >> 12 == key_base() >> 12) {
            objects.insert(format!("the System V queue {line}"));
        }
    }
    objects.extend(descriptors());
    objects
}

/// Takes away what is proved to be left by killed helpers: that they may leave so much is promised.
pub(crate) fn take_what_the_killed_left() {
    let ours = format!("{PREFIX}{}-", std::process::id());
    let garbage = poste::garbage().expect("the runtime directory is to be read");
    for one in garbage.into_iter().filter(|one| one.address.contains(&ours)) {
        one.take_away().expect("it can be taken away");
    }
}

/// Where poste keeps its claims, its records and its mailboxes; only one of these is in use.
fn runtime_parts() -> Vec<PathBuf> {
    let parts = |place: PathBuf| ["claims", "objects", "shm"].map(|part| place.join(part));
    runtime_directories().into_iter().flat_map(parts).collect()
}

/// The runtime directory that is in use.
pub(crate) fn runtime_directory() -> Option<PathBuf> {
    runtime_directories().into_iter().find(|place| place.is_dir())
}

/// Where it may be.
fn runtime_directories() -> Vec<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    let set = |name| std::env::var_os(name).map(PathBuf::from);
    let places = [
        set("POSTE_DIR"),
        set("XDG_RUNTIME_DIR").map(|directory| directory.join("poste")),
        Some(format!("/run/user/{uid}/poste").into()),
        Some(format!("/dev/shm/poste-{uid}").into()),
    ];
    places.into_iter().flatten().collect()
}

/// The POSIX queues, where no file system shows them: one is mounted privately, where that goes.
fn unmounted_queues(ours: &str) -> Objects {
    if std::path::Path::new("/dev/mqueue").is_dir() {
        return Objects::new();
    }
    let mount = "mount -t mqueue none /mnt && ls /mnt";
    let listed = Command::new("unshare").args(["-m", "sh", "-c", mount]).output();
    let listed = listed.map(|output| output.stdout).unwrap_or_default();
    let names = String::from_utf8_lossy(&listed).into_owned();
    names.lines().filter(|name| name.contains(ours)).map(|name| format!("mq:/{name}")).collect()
}

/// This process's open descriptors, and what each is.
pub(crate) fn descriptors() -> Objects {
    let own = std::fs::read_dir("/proc/self/fd").expect("/proc is mounted");
    own.flatten()
        .filter_map(|entry| {
            let target = std::fs::read_link(entry.path()).ok()?;
            let target = target.to_string_lossy().into_owned();
            // The folder being read has a descriptor itself.
            (!target.ends_with("/fd"))
                .then(|| format!("descriptor {} {target}", entry.file_name().to_string_lossy()))
        })
        .collect()
}

/// Says what is there now and was not before.
pub(crate) fn compare(before: &Objects, after: &Objects) -> ExitCode {
    let left: Vec<_> = after.difference(before).collect();
    if left.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("LEFT BEHIND by this run:");
    left.iter().for_each(|object| eprintln!("  {object}"));
    ExitCode::FAILURE
}
