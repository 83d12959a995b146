//! `poste tour` as a person runs it: everything is proved, and nothing stays behind.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use poste::mechanism::ALL;

/// The tour in a runtime directory of its own, which must be empty afterwards.
fn tour(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_poste"));
    command.arg("tour").args(arguments).env("XDG_RUNTIME_DIR", directory);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it to its end, and sees to it that nothing stays.
fn run(arguments: &[&str]) -> (Output, Duration) {
    let directory = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let child = tour(directory.path(), arguments).spawn().unwrap();
    let id = child.id();
    let output = child.wait_with_output().unwrap();
    nothing_stays(id, directory.path());
    (output, begun.elapsed())
}

fn nothing_stays(id: u32, directory: &Path) {
    let left: Vec<_> = std::fs::read_dir(directory).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    for number in 0..500 {
        let queue = format!("mq:/poste-tour-{id}-{number}");
        assert!(poste::remove(&queue).is_err(), "{queue} was there");
    }
    let queues = std::fs::read_to_string("/proc/sysvipc/msg").unwrap_or_default();
    for key in queues.lines().skip(1).filter_map(|line| line.split_whitespace().next()) {
        let key: i32 = key.parse().unwrap();
        assert_ne!((key as u32 ^ 0x7057_0000) >> 8, id, "the queue {key:#x} was there");
    }
    assert_eq!(peers_of(id), 0, "processes are left");
}

/// How many processes of this tour are alive.
fn peers_of(id: u32) -> usize {
    let wanted = format!("--tour\0{id}\0");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .filter(|line| String::from_utf8_lossy(line).contains(&wanted))
        .count()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn every_mechanism_is_in_the_table_and_proved() {
    let (output, time) = run(&[]);
    let (table, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{table}{errors}");
    assert_eq!(errors, "");
    assert!(!table.contains("FAILED") && !table.contains('\u{1b}'), "{table}");
    for mechanism in ALL {
        let starts = |line: &str| line.split_whitespace().next() == Some(mechanism.scheme);
        assert!(table.lines().any(starts), "{} is missing:\n{table}", mechanism.scheme);
    }
    let widest = table.lines().map(|line| line.chars().count()).max().unwrap();
    assert!(widest <= 120, "{widest} columns:\n{table}");
    assert!(time < Duration::from_secs(30), "it took {time:?}");
}

#[test]
fn json_says_the_same_in_one_object_a_line() {
    let (output, _) = run(&["--json", "--only", "fifo,pair", "--only", "mq", "local", "udp"]);
    let lines = text(&output.stdout);
    assert!(output.status.success(), "{lines}{}", text(&output.stderr));
    let found: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let schemes: Vec<_> = found.iter().map(|each| each["mechanism"].as_str().unwrap()).collect();
    assert_eq!(schemes, ["fifo", "pair", "mq", "local", "udp"]);
    for each in &found {
        if each["here"] == false {
            assert!(!each["reason"].as_str().unwrap().is_empty());
            continue;
        }
        assert_eq!(each["failures"], serde_json::json!([]), "{each}");
        assert!(each["round_trip_one_core_us"].as_f64().unwrap() > 0.0, "{each}");
        assert!(each["messages_per_second"].as_f64().unwrap() > 0.0, "{each}");
        assert!(each["message_processor_us"].as_f64().unwrap() > 0.0, "{each}");
        assert!(each["largest_message"].as_u64().unwrap() > 1000, "{each}");
    }
}

#[test]
fn what_the_machine_lacks_is_shown_with_the_reason_and_fails_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_poste");
    let script = format!("ulimit -q 0 && exec '{program}' tour --only mq pipe");
    let output = Command::new("bash")
        .args(["-c", &script])
        .env("XDG_RUNTIME_DIR", directory.path())
        .output()
        .unwrap();
    let table = text(&output.stdout);
    assert!(output.status.success(), "{table}{}", text(&output.stderr));
    assert!(table.contains("mq is not here:") && table.contains("RLIMIT_MSGQUEUE"), "{table}");
}

#[test]
fn an_unknown_mechanism_is_a_usage_error() {
    let (output, _) = run(&["--only", "pigeon"]);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(errors.contains("pigeon") && errors.contains("hint: there are pipe"), "{errors}");
}

#[test]
fn control_c_in_the_middle_leaves_nothing() {
    for (only, pause) in [("mq,sysv", 100), ("fifo,unix", 300), ("sysv,seqpacket", 700)] {
        interrupted(only, Duration::from_millis(pause), "-INT", Some(130));
    }
    interrupted("dgram,mq", Duration::from_millis(400), "-TERM", Some(143));
}

#[test]
fn no_peer_outlives_a_killed_tour() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = tour(directory.path(), &["--only", "unix"]).spawn().unwrap();
    wait_for_peers(&child);
    child.kill().unwrap();
    child.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while peers_of(child.id()) > 0 {
        assert!(Instant::now() < deadline, "processes are left");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn interrupted(only: &str, pause: Duration, signal: &str, code: Option<i32>) {
    let directory = tempfile::tempdir().unwrap();
    let child = tour(directory.path(), &["--only", only]).spawn().unwrap();
    wait_for_peers(&child);
    std::thread::sleep(pause);
    let id = child.id();
    assert!(Command::new("kill").args([signal, &id.to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), code, "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "");
    nothing_stays(id, directory.path());
}

fn wait_for_peers(child: &Child) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while peers_of(child.id()) == 0 {
        assert!(Instant::now() < deadline, "it starts no process");
        std::thread::sleep(Duration::from_millis(2));
    }
}
