//! Children: an end is handed to one child by one line on each side, and to no other; the end of
//! the channel comes when the last writer is gone.
//!
//! This program starts itself again as a child, with the role in `POSTE_CHILDREN_ROLE`.

use std::os::fd::AsRawFd;
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use poste::{Duplex, Kind, Options, Outgoing, Receiver, Sender};
use poste_sys::testing::skip;
use rustix::pipe::{PipeFlags, pipe_with};

const ROLE: &str = "POSTE_CHILDREN_ROLE";
const PATIENCE: Duration = Duration::from_secs(10);

/// This program again, as a child with a role.
fn child(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["in_a_child", "--exact", "--nocapture"]).env(ROLE, role);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn finish(mut child: Child) {
    assert!(child.wait().unwrap().success(), "the child failed");
}

/// What a child does; nothing where this is no child.
#[test]
fn in_a_child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    match role.as_str() {
        "receiver" => {
            let mut receiver = Receiver::inherited().unwrap();
            // Once: the second time there is none, also when the first is gone.
            assert_eq!(Receiver::inherited().unwrap_err().kind(), Kind::NotFound);
            assert_eq!(Sender::inherited().unwrap_err().kind(), Kind::NotFound);
            assert_eq!(Duplex::inherited().unwrap_err().kind(), Kind::NotFound);
            assert_eq!(receiver.recv().unwrap().text().unwrap(), "one");
            assert_eq!(&receiver.recv().unwrap()[..], vec![7; 200_000]);
            assert_eq!(receiver.recv().unwrap_err().kind(), Kind::Disconnected);
            let open = descriptors();
            drop(receiver);
            assert_eq!(descriptors(), open - 1, "its number is closed with it");
            assert_eq!(Receiver::inherited().unwrap_err().kind(), Kind::NotFound);
        }
        "sender" => {
            let mut sender = Sender::inherited().unwrap();
            for index in 0..3 {
                sender.send(&format!("letter {index}")).unwrap();
            }
            sender.feed("held").unwrap();
            sender.close().unwrap();
            // Nothing of it in a grandchild, whatever its environment says.
            let mut parent = child("grandchild");
            finish(parent.spawn().unwrap());
        }
        "duplex" => {
            let mut parent = Duplex::inherited().unwrap();
            loop {
                let mut message = match parent.recv() {
                    Ok(message) => message,
                    Err(error) => break assert_eq!(error.kind(), Kind::Disconnected),
                };
                for file in message.take_descriptors() {
                    rustix::io::write(&file, b"written by a child").unwrap();
                }
                let answer = format!("{}!", message.text().unwrap());
                parent.send(&answer).unwrap();
            }
        }
        "lines" => {
            let mut receiver = Receiver::inherited().unwrap();
            assert_eq!(receiver.recv().unwrap().text().unwrap(), "a");
            assert_eq!(receiver.recv().unwrap().text().unwrap(), "b");
            assert_eq!(receiver.recv().unwrap_err().kind(), Kind::Disconnected);
        }
        "one" => {
            let mut receiver = Receiver::inherited().unwrap();
            assert_eq!(receiver.recv().unwrap().text().unwrap(), "first");
        }
        "grandchild" => {
            assert!(std::env::var_os("POSTE_INHERITED").is_some(), "the test is of use");
            assert_eq!(Sender::inherited().unwrap_err().kind(), Kind::NotFound);
        }
        "nothing" => {
            assert_eq!(std::env::var_os("POSTE_INHERITED"), None);
            assert_eq!(Receiver::inherited().unwrap_err().kind(), Kind::NotFound);
        }
        other => panic!("no role {other}"),
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn a_child_takes_over_a_receiver_once() {
    let (mut sender, receiver) = poste::pipe().unwrap();
    let mut command = child("receiver");
    let started = receiver.spawn(&mut command).unwrap();
    sender.send("one").unwrap();
    sender.send(&vec![7; 200_000]).unwrap();
    drop(sender);
    finish(started);
}

#[test]
fn a_child_takes_over_a_sender_and_its_end_is_heard_though_the_command_lives() {
    let (sender, mut receiver) = poste::pipe().unwrap();
    let mut command = child("sender");
    let started = sender.spawn(&mut command).unwrap();
    for index in 0..3 {
        assert_eq!(receiver.recv().unwrap().text().unwrap(), format!("letter {index}"));
    }
    assert_eq!(receiver.recv().unwrap().text().unwrap(), "held");
    assert_eq!(receiver.recv().unwrap_err().kind(), Kind::Disconnected);
    finish(started);
    // The same command again: it has nothing more to hand down.
    finish(command.env(ROLE, "nothing").spawn().unwrap());
}

#[test]
fn one_command_hands_down_one_end_after_the_other() {
    let mut command = child("receiver");
    for _ in 0..3 {
        let (mut sender, receiver) = poste::pipe().unwrap();
        let started = receiver.spawn(&mut command).unwrap();
        sender.send("one").unwrap();
        sender.send(&vec![7; 200_000]).unwrap();
        drop(sender);
        finish(started);
    }
}

#[test]
fn a_side_of_a_pair_or_of_two_pipes_is_both_ends_in_the_child() {
    for make in [poste::pair, poste::pipes] {
        let (mut ours, theirs) = make().unwrap();
        let started = theirs.spawn(&mut child("duplex")).unwrap();
        for round in 0..10 {
            ours.send(&format!("round {round}")).unwrap();
            let answer = ours.recv_timeout(PATIENCE).unwrap();
            assert_eq!(answer.text().unwrap(), format!("round {round}!"));
        }
        drop(ours);
        finish(started);
    }
}

#[test]
fn descriptors_travel_to_a_child_over_its_side_of_a_pair() {
    use std::io::Read;
    let (mut ours, theirs) = poste::pair().unwrap();
    let started = theirs.spawn(&mut child("duplex")).unwrap();
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let mut reader = std::fs::File::from(reader);
    let borrowed = [std::os::fd::AsFd::as_fd(&writer)];
    ours.send(Outgoing::from("write").descriptors(&borrowed)).unwrap();
    assert_eq!(ours.recv_timeout(PATIENCE).unwrap().text().unwrap(), "write!");
    drop((ours, writer));
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "written by a child");
    finish(started);
}

#[test]
fn how_an_end_was_opened_the_child_learns() {
    let (mut sender, receiver) = poste::pipe_with(&Options::new().delimited(b'\n')).unwrap();
    let started = receiver.spawn(&mut child("lines")).unwrap();
    sender.send("a\nb\n").unwrap();
    drop(sender);
    finish(started);
}

/// Who wants one message and leaves it to a child: what follows is for the next reader.
#[test]
fn a_child_takes_no_more_than_its_parent_wanted() {
    let (out, into) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let mut sender = Sender::open(format!("fd:{}", into.as_raw_fd())).unwrap();
    for body in ["first", "second"] {
        sender.send(body).unwrap();
    }
    let address = format!("fd:{}", out.as_raw_fd());
    let receiver = Receiver::open_with(&address, &Options::new().take(1)).unwrap();
    finish(receiver.spawn(&mut child("one")).unwrap());
    let mut left = [0; 100];
    // Nothing may be left: that is no reason to wait.
    let is_there = rustix::io::ioctl_fionread(&out).unwrap() > 0;
    let size = if is_there { rustix::io::read(&out, &mut left).unwrap() } else { 0 };
    assert!(left[..size].ends_with(b"second"), "{:?}", left[..size].escape_ascii().to_string());
}

#[test]
fn what_is_no_descriptor_or_was_read_ahead_is_refused() {
    let (sender, receiver) = poste::local().unwrap();
    let error = sender.spawn(&mut Command::new("true")).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::Unsupported, "{error}");
    drop(receiver);
    let (mut sender, mut receiver) = poste::pipe().unwrap();
    sender.send("one").unwrap();
    sender.send("two").unwrap();
    assert_eq!(receiver.recv().unwrap().text().unwrap(), "one");
    let error = receiver.spawn(&mut Command::new("true")).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("read ahead"), "{error}");
}

#[test]
fn a_program_that_is_not_there_leaves_nothing_open() {
    let (sender, mut receiver) = poste::pipe().unwrap();
    let mut command = Command::new("/nowhere/at/all");
    let error = sender.spawn(&mut command).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    assert_eq!(receiver.recv().unwrap_err().kind(), Kind::Disconnected);
}

#[test]
fn the_end_comes_at_once_though_an_unrelated_child_lives() {
    let (sender, mut receiver) = poste::pipe().unwrap();
    let (ours, mut theirs) = poste::pair().unwrap();
    let mut unrelated = Command::new("sleep").arg("60").spawn().unwrap();
    let writer = sender.try_clone().unwrap();
    let (stop, stopped) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let mut last = writer.spawn(Command::new("cat").stdin(stop)).unwrap();
    drop(sender);
    assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty, "a child may still write");
    drop(stopped);
    last.wait().unwrap();
    let start = Instant::now();
    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap_err().kind(), Kind::Disconnected);
    drop(ours);
    assert_eq!(theirs.recv_timeout(PATIENCE).unwrap_err().kind(), Kind::Disconnected);
    assert!(start.elapsed() < Duration::from_millis(50), "{:?}", start.elapsed());
    unrelated.kill().unwrap();
    unrelated.wait().unwrap();
}

/// In the short form 400 children, in the long one 10,000; from four threads at once.
#[test]
fn no_child_has_a_descriptor_that_it_was_not_given() {
    let long =
        std::env::var_os("POSTE_LONG").is_some_and(|value| !value.is_empty() && value != "0");
    let count = if long { 10_000 } else { 400 };
    let started = AtomicUsize::new(0);
    from_outside();
    // What would stray into children: ends of every thread, all the time.
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let started = &started;
            scope.spawn(move || {
                while started.fetch_add(1, Ordering::Relaxed) < count {
                    let kept = poste::pair().unwrap();
                    let given = started.load(Ordering::Relaxed) + thread;
                    look_into_a_child(given % 4);
                    drop(kept);
                }
            });
        }
    });
}

/// Starts a shell with so many ends, and sees to it that it has no more descriptors.
fn look_into_a_child(given: usize) {
    // The shell lists them itself; the folder that it reads is one of them.
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "echo /proc/$$/fd/*; echo \"${POSTE_INHERITED-}\""]);
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let (output, numbers): (Output, usize) = match given {
        1 => {
            let (_sender, receiver) = poste::pipe().unwrap();
            (receiver.spawn(&mut shell).unwrap().wait_with_output().unwrap(), 1)
        }
        2 => {
            let (_ours, theirs) = poste::pipes().unwrap();
            (theirs.spawn(&mut shell).unwrap().wait_with_output().unwrap(), 2)
        }
        3 => {
            let (_ours, theirs) = poste::pair().unwrap();
            (theirs.spawn(&mut shell).unwrap().wait_with_output().unwrap(), 1)
        }
        _ => (shell.output().unwrap(), 0),
    };
    let text = String::from_utf8(output.stdout).unwrap();
    let (listed, told) = text.split_once('\n').unwrap();
    let listed: Vec<_> = listed.split(' ').filter_map(|path| path.rsplit('/').next()).collect();
    let told: Vec<_> = told.trim().split(';').filter(|entry| !entry.is_empty()).collect();
    assert_eq!(told.len(), numbers, "{text}");
    for entry in told {
        let number = entry.split(['=', ':']).nth(1).unwrap();
        assert!(listed.contains(&number), "{number} is not open: {text}");
    }
    // Standard input, output and errors, the folder, and what was given.
    let foreign = from_outside().iter().filter(|number| listed.contains(&number.as_str())).count();
    assert_eq!(listed.len(), 4 + numbers + foreign, "a stray descriptor: {text}");
}

/// What this program itself was started with besides standard input, output and errors: whoever
/// runs the tests lets all children have that.
fn from_outside() -> &'static [String] {
    static NUMBERS: OnceLock<Vec<String>> = OnceLock::new();
    NUMBERS.get_or_init(|| {
        let files = std::fs::read_dir("/proc/self/fdinfo").unwrap().flatten();
        let files = files.filter(|file| {
            let info = std::fs::read_to_string(file.path()).unwrap_or_default();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
            let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
            flags.is_some_and(|flags| flags & rustix::fs::OFlags::CLOEXEC.bits() == 0)
        });
        let numbers = files.map(|file| file.file_name().to_string_lossy().into_owned());
        numbers.filter(|number| number.parse::<u32>().is_ok_and(|number| number > 2)).collect()
    })
}

#[test]
fn the_examples_run() {
    let folder = std::env::current_exe().unwrap();
    let folder = folder.parent().and_then(|deps| deps.parent()).unwrap().join("examples");
    let expected = [
        ("parent_child", "job 1\n"),
        ("worker_pool", "worker 3: 4² = 16\n"),
        ("request_reply", "144\n"),
        ("sealed", "307200 bytes of shade 3\n"),
        ("select_loop", "a note: that was all\n"),
    ];
    for (name, line) in expected {
        let path = folder.join(name);
        if !path.is_file() {
            let reason = format!("{} is built by cargo test without --test", path.display());
            skip("the_examples_run", &reason);
            return;
        }
        let output = Command::new(path).stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains(line), "{name}: {text}");
    }
    let address = format!("mq:/poste-hello-{}", std::process::id());
    let hello =
        |verb: &str| Command::new(folder.join("hello")).args([verb, &address]).output().unwrap();
    assert!(hello("send").status.success());
    assert_eq!(hello("recv").stdout, b"hello\n");
    poste::remove(&address).unwrap();
}
