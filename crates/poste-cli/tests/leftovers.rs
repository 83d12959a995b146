//! What the dead leave: `list` says so and why, `gc` takes it away, and nothing else.

mod command;

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Command;

use command::objects::{Killed, by_address, has, list, real, receiver};
use command::{Scratch, skip};
use serde_json::Value;

#[test]
fn a_killed_receivers_socket_is_left_over_and_a_living_ones_stays() {
    let scratch = Scratch::new();
    let mut dead = receiver(&scratch, "dead");
    let mut living = receiver(&scratch, "living");
    let pid = dead.id();
    dead.kill();
    let here = real(&scratch);
    let (left, kept) = (format!("unix:{here}/dead"), format!("unix:{here}/living"));
    let listed = list(&scratch);
    assert_eq!(
        (&listed[&left]["state"], &listed[&left]["alive"]),
        (&"left over".into(), &false.into())
    );
    assert_eq!(listed[&kept]["state"], "alive");

    let dry = scratch.run(&["gc", "--json"]);
    let found = by_address(&dry.out);
    assert_eq!((dry.code, found.keys().collect::<Vec<_>>()), (Some(0), vec![&left]), "{dry:?}");
    let proof = found[&left]["proof"].as_str().unwrap();
    assert!(proof.contains(&pid.to_string()) && proof.contains("gone"), "{proof}");
    assert!(scratch.path("dead").exists(), "a dry run takes nothing away");
    let claims = || std::fs::read_dir(scratch.path("run/claims")).unwrap().count();
    assert_eq!(claims(), 2);

    let done = scratch.run(&["gc", "--yes"]);
    assert!(done.code == Some(0) && done.err.is_empty(), "{done:?}");
    assert!(String::from_utf8(done.out).unwrap().starts_with(&left));
    assert!(!scratch.path("dead").exists() && scratch.path("living").exists());
    assert_eq!(claims(), 1);
    scratch.run(&["gc", "--yes"]).prints("");
    scratch.run(&["send", &kept, "still here"]).prints("");
    let mut printed = [0; 11];
    living.0.stdout.as_mut().unwrap().read_exact(&mut printed).unwrap();
    assert_eq!(&printed, b"still here\n");
    living.kill();
    // Removing what a dead one left takes its claim as well.
    scratch.run(&["remove", "unix:./living"]).prints("");
    assert_eq!(claims(), 0);
}

#[test]
fn gc_leaves_what_others_made_and_what_stays_by_design() {
    let scratch = Scratch::new();
    let queue = format!("mq:/poste-gc-{}", std::process::id());
    scratch.run(&["send", "--create", &queue, "kept"]).prints("");
    scratch.run(&["create", "fifo:./kept"]).prints("");
    drop(std::os::unix::net::UnixListener::bind(scratch.path("others")).unwrap());
    scratch.run(&["gc", "--yes"]).prints("");
    assert!(scratch.path("kept").exists() && scratch.path("others").exists());
    let info = scratch.run(&["info", "--json", "unix:./others"]);
    let info: Value = serde_json::from_slice(&info.out).unwrap();
    assert_eq!((&info["state"], &info["alive"]), (&"unused".into(), &false.into()));
    scratch.run(&["recv", "--remove", &queue]).prints("kept\n");

    // The record of what others took away is garbage.
    std::fs::remove_file(scratch.path("kept")).unwrap();
    let found = by_address(&scratch.run(&["gc", "--json"]).out);
    let address = format!("fifo:{}/kept", real(&scratch));
    assert!(found[&address]["proof"].as_str().unwrap().contains("record"), "{found:?}");
    scratch.run(&["gc", "--yes", "--json"]);
    assert_eq!(std::fs::read_dir(scratch.path("run/objects")).unwrap().count(), 0);
}

#[test]
fn a_lost_permit_is_given_back() {
    let scratch = Scratch::new();
    let name = format!("poste-gc-permit-{}", std::process::id());
    let hold = ["semaphore", "hold", "--create", &name, "--", "sh", "-c", "echo held; sleep 60"];
    let mut dead = Killed(scratch.start_bare(&hold));
    let mut line = String::new();
    BufReader::new(dead.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "held\n");
    scratch.run(&["gc", "--yes"]).prints("");
    dead.kill();
    // Its command dies with it, a moment later; the permit is lost only then.
    let address = format!("semaphore:/{name}");
    let found = (0..500).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        by_address(&scratch.run(&["gc", "--json"]).out).remove(&address)
    });
    assert!(found.unwrap()["proof"].as_str().unwrap().contains(&dead.id().to_string()));
    scratch.run(&["semaphore", "value", &name]).prints("0\n");
    assert_eq!(scratch.run(&["gc", "--yes"]).code, Some(0));
    scratch.run(&["semaphore", "value", &name]).prints("1\n");
    scratch.run(&["gc"]).prints("");
    scratch.run(&["semaphore", "remove", &name]).prints("");
}

/// `poste` killed as it enters a system call for the `number`th time: whether it came so far.
fn is_killed_at(scratch: &Scratch, call: &str, number: usize, arguments: &[&str]) -> bool {
    let mut command = Command::new("strace");
    // What this machine doesn't have is passed over.
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace=?{call}")]);
    command.args(["-e", &format!("inject=?{call}:signal=KILL:when={number}")]);
    command.arg(env!("CARGO_BIN_EXE_poste")).args(arguments);
    command.current_dir(scratch.path("")).env("POSTE_DIR", scratch.path("run"));
    let output = command.output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!err.contains("strace:"), "{err}");
    !output.status.success()
}

/// The calls that make, note, place and take away.
const CALLS: &[&str] = &[
    "openat",
    "mkdir",
    "mkdirat",
    "mknodat",
    "pwrite64",
    "ftruncate",
    "chmod",
    "fchmodat",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "flock",
    "fcntl",
    "close",
];

/// The files of poste's own that are hidden in a folder.
fn hidden(scratch: &Scratch, folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(scratch.path(folder)).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    names.filter(|name| name.starts_with('.')).collect()
}

#[test]
fn whatever_a_killed_maker_leaves_is_taken_away() {
    let name = "whatever_a_killed_maker_leaves_is_taken_away";
    if !has("strace") {
        return skip(name, "strace is missing");
    }
    let scratch = Scratch::new();
    let mut left = 0;
    let turns = CALLS.iter().flat_map(|call| {
        let numbers = (1..)
            .take_while(|number| is_killed_at(&scratch, call, *number, &["create", "fifo:./half"]));
        numbers.map(move |number| format!("{call} {number}"))
    });
    for number in turns {
        left += usize::from(!hidden(&scratch, "").is_empty());
        let done = scratch.run(&["gc", "--yes", "--json"]);
        assert_eq!((done.code, done.err.as_str()), (Some(0), ""), "{number}: {done:?}");
        let found = [hidden(&scratch, ""), hidden(&scratch, "run/objects")];
        let is_made = scratch.path("half").exists();
        if is_made {
            // It was made after all: it stays, and is known.
            let address = format!("fifo:{}/half", real(&scratch));
            assert!(list(&scratch).contains_key(&address), "{number}");
            scratch.run(&["remove", "fifo:./half"]).prints("");
            scratch.run(&["gc", "--yes"]);
        } else {
            assert_eq!(found, [vec![], vec![]] as [Vec<String>; 2], "{number}: {done:?}");
        }
        let records = std::fs::read_dir(scratch.path("run/objects")).into_iter().flatten();
        assert_eq!(records.count(), 0, "{number}");
    }
    assert!(left > 0, "none was killed over a half-made FIFO");
}

#[test]
fn a_killed_gc_leaves_nothing_that_the_next_one_cannot_take() {
    let name = "a_killed_gc_leaves_nothing_that_the_next_one_cannot_take";
    if !has("strace") {
        return skip(name, "strace is missing");
    }
    let scratch = Scratch::new();
    let mut killed = 0;
    for call in CALLS {
        for number in 1..=5 {
            let mut dead = receiver(&scratch, "dead");
            dead.kill();
            let is_killed = is_killed_at(&scratch, call, number, &["gc", "--yes"]);
            killed += usize::from(is_killed);
            let done = scratch.run(&["gc", "--yes"]);
            assert_eq!((done.code, done.err.as_str()), (Some(0), ""), "{call} {number}: {done:?}");
            assert!(!scratch.path("dead").exists(), "{call} {number}");
            assert_eq!(hidden(&scratch, ""), Vec::<String>::new(), "{call} {number}");
            let claims = std::fs::read_dir(scratch.path("run/claims")).unwrap();
            assert_eq!(claims.count(), 0, "{call} {number}");
            if !is_killed {
                break;
            }
        }
    }
    assert!(killed > 10, "{killed}");
}
