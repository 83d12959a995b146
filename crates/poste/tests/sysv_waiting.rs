//! Waiting on System V queues with a descriptor: the bell and the thread, whoever sends, whoever is
//! killed.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};
use poste::{Kind, Options, Outgoing, Receiver, Sender, Wait, WaitSet};
use poste_sys::sysv::{self, Letter};
use poste_sys::testing::skip;

const PATIENCE: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(30);

/// What a helper of this program is to do, and where.
const ROLE: &str = "POSTE_WAITING_ROLE";

/// A queue that is there as long as this value.
struct Queue(String, i32);

impl Queue {
    fn new(number: u32) -> Queue {
        let key = 0x3000_0000 | number << 22 | (std::process::id() & 0x3f_ffff);
        Queue(format!("sysv:{key:#x}"), key as i32)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // The queue may be gone.
        let _ = poste::remove(&self.0);
    }
}

fn watched(receiver: &mut Receiver) -> WaitSet {
    let set = WaitSet::new().unwrap();
    set.add(0, receiver).unwrap();
    set
}

fn is_ready(set: &WaitSet, time: Duration) -> bool {
    match set.wait(&mut Vec::new(), Wait::For(time)) {
        Ok(()) => true,
        Err(error) if matches!(error.kind(), Kind::TimedOut | Kind::Empty) => false,
        Err(error) => panic!("{error}"),
    }
}

/// Receives as a program does that only polls.
fn polled(receiver: &mut Receiver, set: &WaitSet) -> Vec<u8> {
    let end = Instant::now() + PATIENCE;
    loop {
        assert!(is_ready(set, PATIENCE) && Instant::now() < end, "no wake-up");
        match receiver.try_recv() {
            Ok(message) => return message.to_vec(),
            Err(error) => assert_eq!(error.kind(), Kind::Empty, "{error}"),
        }
    }
}

/// Whether the threads that poste started in this process are these: soon, since one gives itself
/// its name, and one that was joined may be seen a moment longer.
#[track_caller]
fn assert_threads(expected: &[&str]) {
    let end = Instant::now() + PATIENCE;
    while threads() != expected {
        assert!(Instant::now() < end, "{:?} instead of {expected:?}", threads());
        std::thread::yield_now();
    }
}

fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.map(|name| name.trim().to_owned()).filter(|name| name.starts_with("poste-")).collect()
}

fn main() -> ExitCode {
    if let Ok(role) = std::env::var(ROLE) {
        help(&role);
        return ExitCode::SUCCESS;
    }
    let mut args = Arguments::from_args();
    // One after the other: threads and bells are the whole process's.
    args.test_threads = Some(1);
    let trial = |name: &str, run: fn()| {
        Trial::test(name, move || {
            run();
            Ok(())
        })
    };
    let trials = vec![
        trial("a_message_that_came_before_the_bell_is_told", early),
        trial("senders_of_other_programs_wake_through_a_thread_that_goes_again", foreign),
        trial("an_empty_raw_message_is_handed_on_in_its_turn", empty),
        trial("an_empty_message_that_nobody_received_goes_back", put_back),
        trial("a_receive_that_was_not_announced_is_in_order", unannounced),
        trial("a_queue_that_is_removed_is_told", removed),
        trial("a_full_queue_is_told_when_there_is_room_for_what_was_refused", room),
        trial("a_receiver_that_is_killed_leaves_a_bell_that_is_taken_away", killed_receiver),
        trial("senders_that_are_killed_at_any_moment_leave_nobody_waiting", killed_senders),
        trial("a_sender_that_has_no_descriptor_left_wakes_all_the_same", starved_sender),
        trial("who_is_stopped_while_sending_costs_a_receiver_nothing_for_long", stopped_sender),
        trial("a_forked_childs_copy_disturbs_nobody", forked),
        trial("pythons_asyncio_is_told", python),
    ];
    libtest_mimic::run(&args, trials).exit_code()
}

/// What a helper does, in a process of its own.
fn help(role: &str) {
    let parent_dies = rustix::process::Signal::KILL;
    rustix::process::set_parent_process_death_signal(Some(parent_dies)).unwrap();
    let address = std::env::var("POSTE_WAITING_ADDRESS").unwrap();
    match role {
        "receiver" => {
            let mut receiver = Receiver::open(&address).unwrap();
            let set = watched(&mut receiver);
            println!("waits");
            set.wait(&mut Vec::new(), Wait::Forever).unwrap();
            println!("told");
            std::thread::sleep(PATIENCE);
        }
        "sender" => {
            let mut sender = Sender::open(&address).unwrap();
            println!("sends");
            for count in 0_u64.. {
                sender.send(&count.to_le_bytes()).unwrap();
                // A little slower than a receiver, which then finds nothing again and again.
                let end = Instant::now() + Duration::from_nanos(count % 2048);
                while Instant::now() < end {
                    std::hint::spin_loop();
                }
            }
        }
        "starved" => {
            let mut sender = Sender::open(&address).unwrap();
            println!("sends");
            let taken: Vec<_> =
                std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
            for count in 0_u64..8 {
                std::thread::sleep(SHORT);
                sender.send(&count.to_le_bytes()).unwrap();
            }
            drop(taken);
        }
        other => panic!("no role {other}"),
    }
}

struct Helper(Child, Box<dyn Iterator<Item = String>>);

impl Helper {
    fn start(role: &str, queue: &Queue) -> Helper {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(ROLE, role).env("POSTE_WAITING_ADDRESS", &queue.0);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut helper = Helper(child, Box::new(lines.map_while(Result::ok)));
        assert!(helper.1.next().is_some(), "the helper begins");
        helper
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The bells of a process.
fn bells_of(pid: u32) -> Vec<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    let set = |name| std::env::var_os(name).map(PathBuf::from);
    let places = [
        set("POSTE_DIR"),
        set("XDG_RUNTIME_DIR").map(|folder| folder.join("poste")),
        Some(format!("/run/user/{uid}/poste").into()),
        Some(format!("/dev/shm/poste-{uid}").into()),
    ];
    let inside = |folder: PathBuf| std::fs::read_dir(folder).into_iter().flatten().flatten();
    let lines = places.into_iter().flatten().flat_map(|place| inside(place.join("bells")));
    let bells = lines.flat_map(|line| inside(line.path()).collect::<Vec<_>>());
    let is_its = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.trim_start_matches('.').starts_with(&format!("{pid}-"))
    };
    bells.map(|bell| bell.path()).filter(is_its).collect()
}

fn early() {
    let queue = Queue::new(1);
    let mut receiver = Receiver::create(&queue.0).unwrap();
    let mut sender = Sender::open(&queue.0).unwrap();
    sender.send("before").unwrap();
    let set = watched(&mut receiver);
    assert_eq!(polled(&mut receiver, &set), b"before");
    assert!(!is_ready(&set, SHORT), "quiet");
    // A bell needs no thread.
    assert_threads(&[]);
    assert_eq!(bells_of(std::process::id()).len(), 1);
    sender.send("after").unwrap();
    assert_eq!(polled(&mut receiver, &set), b"after");
    // Where only the first of two is received, the second is told.
    sender.send("one").unwrap();
    sender.send("two").unwrap();
    assert_eq!(polled(&mut receiver, &set), b"one");
    assert!(is_ready(&set, Duration::ZERO));
    assert_eq!(polled(&mut receiver, &set), b"two");
    drop(receiver);
    assert_eq!(bells_of(std::process::id()), [] as [PathBuf; 0], "it goes with its receiver");
}

/// What a program does that knows nothing of poste.
fn foreign_send(queue: &Queue, message_type: isize, body: &[u8]) {
    let mut letter = Letter::new(body.len());
    letter.write(message_type, [body, b""]);
    sysv::send(sysv::open(queue.1, 0o200).unwrap(), &letter, true).unwrap();
}

fn foreign() {
    let queue = Queue::new(2);
    let mut raw = Receiver::open_with(&queue.0, &Options::new().raw().create()).unwrap();
    let set = watched(&mut raw);
    assert_threads(&["poste-sysv"]);
    for round in 0..50_u8 {
        assert!(!is_ready(&set, Duration::from_millis(u64::from(round % 5))));
        foreign_send(&queue, 5, &[round]);
        assert_eq!(polled(&mut raw, &set), [round]);
    }
    drop(raw);
    // It ends with its receiver.
    assert_threads(&[]);
    // Only a type that was asked for wakes.
    let options = Options::new().raw().message_type(7);
    let mut sevens = Receiver::open_with(&queue.0, &options).unwrap();
    let set = watched(&mut sevens);
    foreign_send(&queue, 6, b"not yours");
    assert!(!is_ready(&set, SHORT));
    foreign_send(&queue, 7, b"yours");
    assert_eq!(polled(&mut sevens, &set), b"yours");
    drop(sevens);
    // Others may send here: their poste rings no bell of ours.
    let shared = Queue::new(3);
    let mut open = Receiver::open_with(&shared.0, &Options::new().mode(0o622).create()).unwrap();
    let set = watched(&mut open);
    assert_threads(&["poste-sysv"]);
    Sender::open(&shared.0).unwrap().send("an envelope").unwrap();
    assert_eq!(polled(&mut open, &set), b"an envelope");
    drop(open);
    assert_threads(&[]);
}

fn empty() {
    let queue = Queue::new(4);
    let mut raw = Receiver::open_with(&queue.0, &Options::new().raw().create()).unwrap();
    let set = watched(&mut raw);
    for message_type in 1..200 {
        foreign_send(&queue, message_type, b"");
        if message_type % 2 == 0 {
            foreign_send(&queue, 999, b"behind it");
        }
        assert!(is_ready(&set, PATIENCE));
        let message = raw.try_recv().unwrap();
        assert_eq!((message.len(), message.message_type()), (0, Some(message_type as i64)));
        if message_type % 2 == 0 {
            assert_eq!(polled(&mut raw, &set), b"behind it");
        }
    }
}

fn put_back() {
    let queue = Queue::new(5);
    let options = Options::new().raw().create();
    let mut raw = Receiver::open_with(&queue.0, &options).unwrap();
    let set = watched(&mut raw);
    foreign_send(&queue, 3, b"");
    assert!(is_ready(&set, PATIENCE));
    drop(raw);
    let mut next = Receiver::open_with(&queue.0, &options).unwrap();
    let message = next.try_recv().unwrap();
    assert_eq!((message.len(), message.message_type()), (0, Some(3)));
}

/// While the thread waits, a receive that nobody asked for gets what comes, in order.
fn unannounced() {
    let queue = Queue::new(6);
    let mut raw = Receiver::open_with(&queue.0, &Options::new().raw().create()).unwrap();
    let _set = watched(&mut raw);
    for round in 1..300_isize {
        // Without a pause, so that the thread is anywhere on its way.
        foreign_send(&queue, round, if round % 3 == 0 { b"body" } else { b"" });
        foreign_send(&queue, round + 1000, if round % 2 == 0 { b"body" } else { b"" });
        for expected in [round, round + 1000] {
            let message = raw.try_recv().unwrap();
            assert_eq!(message.message_type(), Some(expected as i64));
        }
        assert_eq!(raw.try_recv().unwrap_err().kind(), Kind::Empty);
    }
    // A receive that waits by itself.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(SHORT);
            foreign_send(&queue, 1, b"");
        });
        assert_eq!(raw.recv_timeout(PATIENCE).unwrap().len(), 0);
    });
}

fn removed() {
    for options in [Options::new(), Options::new().raw()] {
        let queue = Queue::new(7);
        let mut receiver = Receiver::open_with(&queue.0, &options.create()).unwrap();
        let set = watched(&mut receiver);
        assert!(!is_ready(&set, SHORT));
        poste::remove(&queue.0).unwrap();
        assert!(is_ready(&set, PATIENCE));
        assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Removed);
        assert!(is_ready(&set, PATIENCE), "it stays news");
    }
}

fn room() {
    let queue = Queue::new(8);
    let options = Options::new().raw().capacity(1000).create();
    let mut receiver = Receiver::open_with(&queue.0, &options).unwrap();
    let mut sender = Sender::open_with(&queue.0, &options).unwrap();
    let set = WaitSet::new().unwrap();
    set.add(0, &mut sender).unwrap();
    assert!(is_ready(&set, PATIENCE));
    // While there is room nobody looks.
    assert_threads(&[]);
    for _ in 0..9 {
        sender.try_send(&[0; 100]).unwrap();
    }
    assert_eq!(sender.try_send(&[0; 500]).unwrap_err().kind(), Kind::Full);
    assert!(!is_ready(&set, SHORT));
    receiver.try_recv().unwrap();
    assert!(!is_ready(&set, SHORT), "room, but not for what was refused");
    for _ in 0..4 {
        receiver.try_recv().unwrap();
    }
    assert!(is_ready(&set, PATIENCE));
    sender.try_send(&[0; 500]).unwrap();
    assert_threads(&["poste-sysv-room"]);
    drop(sender);
    // It ends with its sender.
    assert_threads(&[]);
    // Made when it is full already.
    while Sender::open_with(&queue.0, &options).unwrap().try_send(&[0; 1]).is_ok() {}
    let mut sender = Sender::open_with(&queue.0, &options).unwrap();
    let set = WaitSet::new().unwrap();
    set.add(0, &mut sender).unwrap();
    assert!(!is_ready(&set, SHORT));
    receiver.try_recv().unwrap();
    assert!(is_ready(&set, PATIENCE));
}

fn killed_receiver() {
    let queue = Queue::new(9);
    let mut receiver = Receiver::create(&queue.0).unwrap();
    let set = watched(&mut receiver);
    let mut sender = Sender::open(&queue.0).unwrap();
    for round in 0..2 {
        let helper = Helper::start("receiver", &queue);
        let pid = helper.0.id();
        assert_eq!(bells_of(pid).len(), 1);
        let mine = |garbage: &poste::Garbage| garbage.address.contains(&format!("/{pid}-"));
        assert!(!poste::garbage().unwrap().iter().any(mine), "the living keep theirs");
        drop(helper);
        assert_eq!(bells_of(pid).len(), 1, "it was killed");
        if round == 0 {
            let garbage = poste::garbage().unwrap().into_iter().find(mine).expect("it is found");
            garbage.take_away().unwrap();
        } else {
            // Who rings takes it away too; the living are woken all the same.
            sender.send("x").unwrap();
            assert_eq!(polled(&mut receiver, &set), b"x");
        }
        assert_eq!(bells_of(pid), [] as [PathBuf; 0]);
    }
}

/// Whatever a sender was doing when it was killed: what lies in the queue is told.
fn killed_senders() {
    let queue = Queue::new(10);
    let mut receiver = Receiver::create(&queue.0).unwrap();
    let set = watched(&mut receiver);
    let rounds = if std::env::var_os("POSTE_LONG").is_some() { 1000 } else { 40 };
    for round in 0..rounds {
        let helper = Helper::start("sender", &queue);
        // It sends all the time while this end takes all the time; most often it is killed just when
        // this end has found nothing and rests.
        let end = Instant::now() + Duration::from_micros(1000 + round * 37 % 5000);
        let at_the_latest = end + Duration::from_millis(10);
        let mut count = 0_u64;
        while Instant::now() < end {
            if is_ready(&set, Duration::from_millis(1)) {
                // A sender that is as fast as this end never lets it find nothing.
                while Instant::now() < at_the_latest {
                    let Ok(message) = receiver.try_recv() else { break };
                    assert_eq!(message[..], count.to_le_bytes());
                    count += 1;
                }
            }
        }
        drop(helper);
        while sysv::status(sysv::open(queue.1, 0o400).unwrap()).unwrap().depth > 0 {
            assert_eq!(polled(&mut receiver, &set), count.to_le_bytes());
            count += 1;
        }
    }
    // The dead that were counted as sending are forgotten, and then nothing wakes any more.
    let end = Instant::now() + PATIENCE;
    while is_ready(&set, Duration::from_millis(200)) {
        assert!(receiver.try_recv().is_err_and(|error| error.kind() == Kind::Empty));
        assert!(Instant::now() < end, "it never becomes quiet");
    }
}

/// Ringing takes descriptors, which a message that was sent can't wait for.
fn starved_sender() {
    let queue = Queue::new(14);
    let mut receiver = Receiver::create(&queue.0).unwrap();
    let set = watched(&mut receiver);
    let _helper = Helper::start("starved", &queue);
    for count in 0_u64..8 {
        assert_eq!(polled(&mut receiver, &set), count.to_le_bytes());
    }
}

fn stopped_sender() {
    let queue = Queue::new(11);
    let mut receiver = Receiver::create(&queue.0).unwrap();
    let set = watched(&mut receiver);
    let helper = Helper::start("sender", &queue);
    assert!(is_ready(&set, PATIENCE));
    for _ in 0..6 {
        helper.signal(rustix::process::Signal::STOP);
        std::thread::sleep(Duration::from_millis(1));
        while receiver.try_recv().is_ok() {}
        let end = Instant::now() + PATIENCE;
        while is_ready(&set, Duration::from_millis(100)) {
            while receiver.try_recv().is_ok() {}
            assert!(Instant::now() < end, "it never becomes quiet");
        }
        helper.signal(rustix::process::Signal::CONT);
        polled(&mut receiver, &set);
    }
}

fn forked() {
    let queue = Queue::new(12);
    for options in [Options::new().create(), Options::new().raw().create()] {
        let mut receiver = Receiver::open_with(&queue.0, &options).unwrap();
        let mut sender = Sender::open_with(&queue.0, &options).unwrap();
        let set = watched(&mut receiver);
        let pid = poste_sys::testing::fork_and_sleep(Duration::from_secs(20));
        sender.send("x").unwrap();
        assert_eq!(polled(&mut receiver, &set), b"x");
        drop(receiver);
        assert_threads(&[]);
        let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap();
    }
}

/// The descriptor in another program's loop: as its standard input.
fn python() {
    let name = "pythons_asyncio_is_told";
    if !Command::new("python3").arg("--version").output().is_ok_and(|done| done.status.success()) {
        return skip(name, "python3 is not installed");
    }
    let program = "import asyncio
async def main():
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(0, told.set)
    print('waits', flush=True)
    await told.wait()
    loop.remove_reader(0)
    print('told', flush=True)
asyncio.run(main())";
    let queue = Queue::new(13);
    for options in [Options::new().create(), Options::new().raw().create()] {
        let mut receiver = Receiver::open_with(&queue.0, &options).unwrap();
        let descriptor = receiver.pollable().unwrap().try_clone_to_owned().unwrap();
        let mut child = Command::new("python3")
            .args(["-c", program])
            .stdin(Stdio::from(descriptor))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "waits");
        std::thread::sleep(SHORT);
        assert_eq!(child.try_wait().unwrap(), None, "nothing was sent yet");
        let mut sender = Sender::open_with(&queue.0, &options).unwrap();
        sender.send(Outgoing::from("hello")).unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "told");
        assert!(child.wait().unwrap().success());
        assert_eq!(&receiver.try_recv().unwrap()[..], b"hello");
    }
}
