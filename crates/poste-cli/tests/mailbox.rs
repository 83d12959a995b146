//! Mailboxes from a shell: `poste send jobs hello`, and a job queue without a server.

mod command;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use command::{Outcome, Scratch, skip};

/// The objects that a command printed as JSON, one a line.
#[track_caller]
fn objects(outcome: &Outcome) -> Vec<serde_json::Value> {
    assert_eq!((outcome.code, outcome.err.as_str()), (Some(0), ""), "{outcome:?}");
    let text = std::str::from_utf8(&outcome.out).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What `info` says of a mailbox.
#[track_caller]
fn info(scratch: &Scratch, name: &str) -> serde_json::Value {
    objects(&scratch.run(&["info", "--json", name])).remove(0)
}

/// Waits until something is so, as it will be soon.
#[track_caller]
fn until(is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(15), "it never comes");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The first line that a child prints: it has begun.
fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

#[test]
fn a_bare_word_is_a_mailbox_that_stays() {
    let scratch = Scratch::new();
    scratch.run(&["send", "--create", "jobs", "hello"]).prints("");
    scratch.run(&["send", "-p", "9", "shm:jobs", "urgent"]).prints("");
    let came = objects(&scratch.run(&["recv", "-n", "2", "--json", "jobs"]));
    let first = serde_json::json!(["urgent", 9, 6, false]);
    let second = serde_json::json!(["hello", 0, 5, false]);
    for (came, expected) in came.iter().zip([first, second]) {
        let said = ["body", "priority", "size", "redelivered"].map(|name| came[name].clone());
        assert_eq!(serde_json::json!(said), expected);
        assert!(came["sequence"].as_u64() > Some(0), "{came}");
    }
    scratch.run(&["recv", "--timeout", "0s", "jobs"]).fails(124, "shm:jobs");
    scratch.run(&["create", "jobs"]).fails(1, "in use");
    scratch.run(&["remove", "jobs"]).prints("");
    scratch.run(&["send", "jobs", "x"]).fails(1, "poste create shm:jobs");
}

#[test]
fn raw_is_the_bytes_alone() {
    let scratch = Scratch::new();
    scratch.run_with(&["send", "--create", "--raw", "--lines", "box"], b"a\n\nb").prints("");
    scratch.run(&["send", "--c-string", "-p", "3", "box", "word"]).prints("");
    scratch.run(&["recv", "--raw", "--format", "hex", "box"]).prints("776f726400\n");
    let quoted = ["recv", "--raw", "-n", "3", "--format", "quoted", "box"];
    scratch.run(&quoted).prints("\"a\"\n\"\"\n\"b\"\n");
    scratch.run(&["send", "--raw", "box", "x"]).prints("");
    scratch.run(&["recv", "box"]).fails(1, "--raw");
}

#[test]
fn capacity_is_messages_and_full_is_75() {
    let scratch = Scratch::new();
    scratch.run(&["create", "--capacity", "2", "few"]).prints("");
    scratch.run(&["send", "--count", "2", "few", "x"]).prints("");
    scratch.run(&["send", "--timeout", "0s", "few", "y"]).fails(75, "poste recv shm:few");
    scratch.run(&["send", "--timeout", "50ms", "few", "y"]).fails(124, "shm:few");
    let sender = scratch.start(&["send", "few", "y"]);
    scratch.run(&["recv", "-n", "3", "few"]).prints("x\nx\ny\n");
    sender.end().prints("");
    scratch.run(&["recv", "--create", "--capacity", "3", "few"]).fails(1, "capacity is 2");
}

#[test]
fn a_message_that_is_too_large_names_the_limit() {
    let scratch = Scratch::new();
    scratch.run(&["create", "--message-size", "1K", "small"]).prints("");
    let body = [b'x'; 1025];
    scratch.run_with(&["send", "small"], &body).fails(1, "1024");
    scratch.run_with(&["send", "small"], &body[..1024]).prints("");
    let hex = scratch.run(&["recv", "--format", "exact", "small"]);
    assert!(hex.out == body[..1024], "{hex:?}");
    scratch.run(&["create", "--message-size", "900G", "big"]).fails(1, "message-size");
}

#[test]
fn who_waits_when_it_is_removed_ends_with_1() {
    let scratch = Scratch::new();
    scratch.run(&["create", "--capacity", "1", "jobs"]).prints("");
    let receiver = scratch.start(&["recv", "-f", "jobs"]);
    let there = |end: &str| info(&scratch, "jobs")["holders"].to_string().contains(end);
    until(|| there("receive"));
    scratch.run(&["remove", "jobs"]).prints("");
    receiver.end().fails(1, "poste create shm:jobs");
    scratch.run(&["send", "--create", "jobs?capacity=1", "x"]).prints("");
    let sender = scratch.start(&["send", "jobs", "y"]);
    until(|| there("send"));
    scratch.run(&["remove", "jobs"]).prints("");
    sender.end().fails(1, "poste create shm:jobs");
}

#[test]
fn a_failed_command_gives_its_message_back() {
    let scratch = Scratch::new();
    scratch.run(&["send", "--create", "jobs", "job"]).prints("");
    scratch.run(&["recv", "jobs", "--", "false"]).fails(1, "given back to shm:jobs");
    scratch.run(&["recv", "jobs", "--", "no-such-command"]).fails(1, "given back to shm:jobs");
    scratch.run(&["recv", "jobs", "--", "sh", "-c", "kill -9 $$"]).fails(1, "given back");
    let script = "cat; echo \" $POSTE_REDELIVERED\"";
    scratch.run(&["recv", "jobs", "--", "sh", "-c", script]).prints("job 1\n");
    scratch.run(&["recv", "--timeout", "0s", "jobs"]).fails(124, "no message");
}

#[test]
fn follow_goes_on_after_a_failure_with_the_same_message() {
    let scratch = Scratch::new();
    scratch.run_with(&["send", "--create", "--lines", "jobs"], b"one\ntwo").prints("");
    // The first time that it sees "one" it fails.
    let script = "read word; echo $word $POSTE_REDELIVERED; \
                  test $word = two || test $POSTE_REDELIVERED = 1";
    let recv = ["recv", "-f", "--timeout", "200ms", "jobs", "--", "sh", "-c", script];
    let outcome = scratch.run(&recv);
    assert_eq!(outcome.out, b"one 0\none 1\ntwo 0\n", "{outcome:?}");
    assert_eq!(outcome.code, Some(124), "{outcome:?}");
    let notice = outcome.err.lines().next().unwrap();
    assert!(notice.starts_with("notice: sh failed") && notice.contains("given back"), "{notice}");
}

#[test]
fn a_message_that_fails_too_often_is_set_aside_where_info_shows_it() {
    let scratch = Scratch::new();
    scratch.run(&["create", "jobs?deliveries=2"]).prints("");
    scratch.run_with(&["send", "--lines", "jobs"], b"poison\ngood").prints("");
    let script = "read word; echo $word; test $word = good";
    let outcome = scratch.run(&["recv", "-f", "--timeout", "0s", "jobs", "--", "sh", "-c", script]);
    assert_eq!(outcome.out, b"poison\npoison\ngood\n", "{outcome:?}");
    let info = info(&scratch, "jobs");
    assert_eq!((&info["depth"], &info["set_aside"]), (&0.into(), &1.into()), "{info}");
    assert_eq!((&info["deliveries"], &info["redelivered"]), (&2.into(), &1.into()), "{info}");
    // It is a file, to be looked at and sent again.
    let folder = info["set_aside_in"].as_str().unwrap();
    let script = format!("cat '{folder}'/aside.*");
    let kept = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(kept.stdout, b"poison");
}

#[test]
fn a_mailbox_is_made_on_huge_pages_and_info_shows_it() {
    let (scratch, memory) = (Scratch::new(), tempfile::tempdir_in("/dev/shm").unwrap());
    let run = |arguments: &[&str]| {
        let mut command = scratch.poste(arguments);
        Outcome::of(&command.env("POSTE_DIR", memory.path().join("run")).output().unwrap())
    };
    let made = run(&["create", "jobs?huge-pages"]);
    if made.code == Some(1) {
        assert!(made.err.contains("huge page"), "{made:?}");
        assert!(made.err.contains("hint: ") && made.err.contains("huge-pages"), "{made:?}");
        return skip("a_mailbox_is_made_on_huge_pages_and_info_shows_it", &made.err);
    }
    made.prints("");
    run(&["send", "jobs?huge-pages", "hello"]).prints("");
    let told = run(&["info", "jobs", "--json"]).out;
    let info: serde_json::Value = serde_json::from_slice(&told).unwrap();
    assert_eq!((&info["huge_pages"], &info["memory"]), (&2_097_152.into(), &2_097_152.into()));
    run(&["recv", "jobs"]).prints("hello\n");
    run(&["create", "small"]).prints("");
    run(&["send", "small?huge-pages", "hello"]).fails(1, "huge pages");
}

/// A worker that says which message it has, and then works for longer than any test.
fn stuck(scratch: &Scratch) -> (Child, String) {
    let script = "read word; echo $word $POSTE_REDELIVERED; exec sleep 20";
    let mut worker = scratch.start_bare(&["recv", "jobs", "--", "sh", "-c", script]);
    let word = first_line(&mut worker);
    (worker, word)
}

#[test]
fn what_a_killed_worker_had_comes_to_the_other() {
    let scratch = Scratch::new();
    scratch.run(&["create", "jobs"]).prints("");
    scratch.run_with(&["send", "--lines", "jobs"], b"1\n2\n3\n4").prints("");
    let (mut victim, had) = stuck(&scratch);
    assert_eq!(had, "1 0");
    // The other one takes the rest, sleeps, and learns of the death.
    let script = "read word; echo $word $POSTE_REDELIVERED";
    let recv = ["recv", "-n", "4", "--timeout", "15s", "jobs", "--", "sh", "-c", script];
    let mut other = scratch.start_bare(&recv);
    let mut lines = BufReader::new(other.stdout.take().unwrap()).lines();
    for expected in ["2 0", "3 0", "4 0"] {
        assert_eq!(lines.next().unwrap().unwrap(), expected);
    }
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "1 1");
    assert!(other.wait().unwrap().success());
    let info = info(&scratch, "jobs");
    assert_eq!((&info["depth"], &info["taken"]), (&0.into(), &0.into()), "{info}");
}

#[test]
fn what_a_worker_had_comes_again_however_it_ends() {
    let scratch = Scratch::new();
    scratch.run(&["send", "--create", "jobs", "job"]).prints("");
    for (signal, expected) in [("KILL", "job 0"), ("TERM", "job 1"), ("INT", "job 1")] {
        let (mut worker, had) = stuck(&scratch);
        assert_eq!(had, expected);
        let killed = std::process::Command::new("kill")
            .args(["-s", signal, &worker.id().to_string()])
            .status();
        assert!(killed.unwrap().success());
        worker.wait().unwrap();
    }
    let came = objects(&scratch.run(&["recv", "--json", "--timeout", "5s", "jobs"]));
    assert_eq!((&came[0]["body"], &came[0]["redelivered"]), (&"job".into(), &true.into()));
}

#[test]
fn what_could_not_be_written_out_is_not_acknowledged() {
    let scratch = Scratch::new();
    scratch.run_with(&["send", "--create", "--lines", "jobs"], b"one\ntwo\nthree").prints("");
    let mut full = scratch.poste(&["recv", "-n", "3", "jobs"]);
    full.stdout(std::fs::File::create("/dev/full").unwrap()).stderr(Stdio::piped());
    Outcome::of(&full.output().unwrap()).fails(1, "standard output");
    let mut closed = scratch.poste(&["recv", "-f", "jobs"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    closed.stdout(writer).stderr(Stdio::piped());
    Outcome::of(&closed.output().unwrap()).prints("");
    scratch.run(&["recv", "-n", "3", "jobs"]).prints("one\ntwo\nthree\n");
    scratch.run(&["recv", "--timeout", "0s", "jobs"]).fails(124, "no message");
}

#[test]
fn messages_are_relayed_into_a_mailbox_and_out_of_it() {
    let scratch = Scratch::new();
    let queue = format!("mq:/poste-relayed-{}", std::process::id());
    scratch.run(&["send", "--create", "-p", "5", &queue, "word"]).prints("");
    scratch.run(&["relay", "-n", "1", "--create", &queue, "jobs"]).prints("");
    scratch.run(&["remove", &queue]).prints("");
    // Nobody takes it at the other end: it is still there.
    scratch.run(&["relay", "-n", "1", "jobs", "unix:./nobody"]).fails(69, "unix:./nobody");
    let receiver = scratch.start(&["recv", "--json", "--timeout", "10s", "unix:./u"]);
    scratch.run(&["relay", "-n", "1", "--timeout", "10s", "jobs", "unix:./u"]).prints("");
    let came = objects(&receiver.end());
    assert_eq!((&came[0]["body"], &came[0]["priority"]), (&"word".into(), &5.into()));
    // What the other end has no room for comes again.
    scratch.run(&["create", "--capacity", "1", "few"]).prints("");
    scratch.run_with(&["send", "--lines", "jobs"], b"one\ntwo").prints("");
    let relay = ["relay", "--timeout", "50ms", "jobs", "few"];
    scratch.run(&relay).fails(124, "comes again");
    scratch.run(&["recv", "few"]).prints("one\n");
    let came = objects(&scratch.run(&["recv", "--json", "jobs"]));
    assert_eq!((&came[0]["body"], &came[0]["redelivered"]), (&"two".into(), &true.into()));
}

#[test]
fn of_several_mailboxes_whichever_has_one() {
    let scratch = Scratch::new();
    scratch.run(&["create", "one"]).prints("");
    scratch.run(&["create", "two"]).prints("");
    let receiver = scratch.start(&["recv", "--timeout", "10s", "-n", "2", "--json", "one", "two"]);
    scratch.run(&["send", "two", "b"]).prints("");
    scratch.run(&["send", "one", "a"]).prints("");
    let came = objects(&receiver.end());
    for came in &came {
        let expected = if came["body"] == "a" { "shm:one" } else { "shm:two" };
        assert_eq!(came["address"], expected, "{came}");
    }
    assert_eq!(came.len(), 2);
}

#[test]
fn info_and_list_say_what_lies_there_and_who_takes_part() {
    let scratch = Scratch::new();
    scratch.run_with(&["send", "--create", "--lines", "jobs"], b"one\nthree\nfive").prints("");
    let (worker, _) = stuck(&scratch);
    let seen = info(&scratch, "jobs");
    for (name, value) in [("depth", 2), ("bytes", 9), ("taken", 1), ("dead", 0), ("waiting", 0)] {
        assert_eq!(seen[name], value, "{name}: {seen}");
    }
    assert_eq!(seen["lanes"].as_array().unwrap().len(), 1, "{seen}");
    let lane = &seen["lanes"][0];
    assert_eq!((&lane["state"], &lane["depth"]), (&"sender gone".into(), &2.into()), "{seen}");
    let receiver = serde_json::json!([{"receiver": worker.id(), "state": "alive", "taken": 1}]);
    assert_eq!(seen["receivers"], receiver);
    let listed = objects(&scratch.run(&["list", "--json", "--mechanism", "shm"]));
    assert_eq!((listed.len(), &listed[0]["address"]), (1, &"shm:jobs".into()));
    assert_eq!((&listed[0]["depth"], &listed[0]["alive"]), (&2.into(), &true.into()));
    let people = String::from_utf8(scratch.run(&["info", "jobs"]).out).unwrap();
    let line = people.lines().find(|line| line.starts_with("receivers")).unwrap();
    assert!(line.ends_with(&format!("receiver {}, alive, taken 1", worker.id())), "{people}");
    let one_that_waits = scratch.start_bare(&["recv", "--timeout", "20s", "-n", "9", "jobs"]);
    until(|| info(&scratch, "jobs")["waiting"] == 1);
    let seen = info(&scratch, "jobs");
    assert_eq!((&seen["depth"], &seen["bytes"]), (&0.into(), &0.into()), "{seen}");
    for mut child in [one_that_waits, worker] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn gc_proves_its_dead_and_buries_them() {
    let scratch = Scratch::new();
    scratch.run(&["send", "--create", "jobs", "job"]).prints("");
    let (mut worker, _) = stuck(&scratch);
    scratch.run(&["gc"]).prints("");
    worker.kill().unwrap();
    worker.wait().unwrap();
    let seen = info(&scratch, "jobs");
    assert_eq!((&seen["dead"], &seen["taken"]), (&1.into(), &1.into()), "{seen}");
    assert_eq!((&seen["alive"], &seen["holders"]), (&false.into(), &serde_json::json!([])));
    assert_eq!(seen["receivers"][0]["state"], "dead", "{seen}");
    let found = objects(&scratch.run(&["gc", "--json"]));
    let proof = format!("process {}, which received from it, is gone", worker.id());
    assert_eq!((found.len(), &found[0]["address"]), (1, &"shm:jobs".into()));
    assert!(found[0]["proof"].as_str().unwrap().starts_with(&proof), "{found:?}");
    assert_eq!(objects(&scratch.run(&["gc", "--json", "--yes"])), found);
    let seen = info(&scratch, "jobs");
    assert_eq!((&seen["dead"], &seen["depth"]), (&0.into(), &1.into()), "{seen}");
    assert_eq!(seen["redelivered"], 1, "{seen}");
    scratch.run(&["gc", "--json"]).prints("");
}
