//! A process's number proves nothing: one that is used again is not the owner, and an owner that
//! isn't to be seen lives all the same. In a namespace of their own numbers can be chosen.

mod command;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use command::{Outcome, Scratch, skip};

/// Runs a script where it is process 1, with a /proc of its own; `None`, said aloud, where that
/// can't be. `$0` is poste.
fn alone(scratch: &Scratch, test: &str, mount: &str, script: &str) -> Option<Outcome> {
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        let script = format!("{mount} && {script}");
        let words = ["-k", "2", "25", "sh", "-c", &script, env!("CARGO_BIN_EXE_poste")];
        command.args(["-p", "-f", "-m", "timeout"]).args(words);
        command.current_dir(scratch.path("")).env("POSTE_DIR", scratch.path("run"));
        command.output()
    };
    let needs = "[ -w /proc/sys/kernel/ns_last_pid ] && command -v setpriv";
    if !unshare(needs).is_ok_and(|output| output.status.success()) {
        skip(test, "it takes root, unshare and setpriv");
        return None;
    }
    Some(Outcome::of(&unshare(script).unwrap()))
}

#[test]
fn a_number_that_is_used_again_is_not_the_owner() {
    let scratch = Scratch::new();
    let name = format!("/poste-numbers-{}", std::process::id());
    scratch.run(&["semaphore", "create", &name]).prints("");
    // Kills the owner and starts another process that has its number; prints both.
    let script = format!(
        "again() {{
             kill -9 $owner; wait $owner 2> /dev/null
             for try in 1 2 3 4 5 6 7 8 9; do
                 echo $((owner - 1)) > /proc/sys/kernel/ns_last_pid; sleep 60 & new=$!
                 [ $new = $owner ] && break; kill $new
             done
             [ $new = $owner ] || echo 'no such number'
         }}
         \"$0\" recv -f unix:./x & owner=$!
         until [ -S x ]; do sleep 0.01; done
         again; \"$0\" recv --timeout 10s unix:./x & next=$!
         \"$0\" send --timeout 10s unix:./x 'to the next one'; wait $next; kill $new
         \"$0\" semaphore hold {name} -- sh -c 'touch held; exec sleep 60' & owner=$!
         until [ -e held ]; do sleep 0.01; done
         again; \"$0\" gc --yes | grep -c {name}; kill $new"
    );
    let test = "a_number_that_is_used_again_is_not_the_owner";
    let outcome = alone(&scratch, test, "mount -t proc proc /proc", &script);
    scratch.run(&["semaphore", "value", &name]).prints("1\n");
    scratch.run(&["semaphore", "remove", &name]).prints("");
    let Some(outcome) = outcome else { return };
    assert_eq!(String::from_utf8_lossy(&outcome.out), "to the next one\n1\n", "{outcome:?}");
}

/// /proc may hide processes, and those of the same user too that aren't to be looked into.
#[test]
fn an_owner_that_is_not_to_be_seen_lives() {
    let test = "an_owner_that_is_not_to_be_seen_lives";
    let scratch = Scratch::new();
    std::fs::set_permissions(scratch.path(""), PermissionsExt::from_mode(0o777)).unwrap();
    // A program that may be run and not read can't be looked into.
    for (name, mode) in [("seen", 0o755), ("hidden", 0o711)] {
        std::fs::copy(env!("CARGO_BIN_EXE_poste"), scratch.path(name)).unwrap();
        std::fs::set_permissions(scratch.path(name), PermissionsExt::from_mode(mode)).unwrap();
    }
    if !Path::new("/proc/1").exists() {
        return skip(test, "/proc is not mounted");
    }
    let script = "as='setpriv --reuid 65534 --regid 65534 --clear-groups env'
         $as ./hidden recv -f unix:./x & owner=$!
         until [ -S x ]; do sleep 0.01; done
         [ $($as ls /proc | grep -cx $owner) = 0 ] || echo 'it is seen'
         $as ./seen gc
         $as ./seen recv --timeout 0s unix:./x; echo $?
         $as ./seen send --timeout 10s unix:./x 'still mine'
         sleep 0.1; kill $owner; wait $owner 2> /dev/null";
    let mount = "mount -t proc -o hidepid=2 proc /proc";
    let Some(outcome) = alone(&scratch, test, mount, script) else { return };
    let printed = String::from_utf8_lossy(&outcome.out);
    assert_eq!(printed, "1\nstill mine\n", "{outcome:?}");
    assert!(outcome.err.contains("the name is in use by process"), "{outcome:?}");
}
