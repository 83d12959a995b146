//! Programs that only ever poll: they are told of what no descriptor of the kernel's shows.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use poste::{Kind, Options, Receiver, Sender, Wait, WaitSet};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const PATIENCE: Duration = Duration::from_secs(20);

/// Runs the rest of a test in a process of its own: whether this is that one.
fn is_alone(test: &str) -> bool {
    if std::env::var_os("POSTE_POLLING_ALONE").is_some() {
        return true;
    }
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    command.args(["--exact", test, "--nocapture"]).env("POSTE_POLLING_ALONE", "1");
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    false
}

#[test]
fn connections_that_wait_for_a_descriptor_are_told_when_there_is_one() {
    if !is_alone("connections_that_wait_for_a_descriptor_are_told_when_there_is_one") {
        return;
    }
    let address = format!("unix:@poste-polling-{}", std::process::id());
    let mut receiver = Receiver::create(&address).unwrap();
    let set = WaitSet::new().unwrap();
    set.add(0, &mut receiver).unwrap();
    let mut sender = Sender::open(&address).unwrap();
    sender.send("it waits").unwrap();
    // Nothing that the receiver knows of gives a descriptor back.
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(100), maximum }).unwrap();
    let taken: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    let mut ready = Vec::new();
    let start = Instant::now();
    for _ in 0..3 {
        set.wait(&mut ready, Wait::For(PATIENCE)).expect("it looks again now and then");
        assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
    }
    assert!(start.elapsed() >= Duration::from_millis(200), "with pauses: {:?}", start.elapsed());
    drop(taken);
    let end = Instant::now() + PATIENCE;
    loop {
        set.wait(&mut ready, Wait::For(PATIENCE)).expect("it is told");
        match receiver.try_recv() {
            Ok(message) => break assert_eq!(message.text().unwrap(), "it waits"),
            Err(error) => assert!(error.kind() == Kind::Empty && Instant::now() < end, "{error}"),
        }
    }
    let quiet = set.wait(&mut ready, Wait::For(Duration::from_millis(300)));
    assert_eq!(quiet.unwrap_err().kind(), Kind::TimedOut, "nobody waits any more");
}

#[test]
fn a_fifos_sender_is_told_of_a_reader_whose_open_waits_for_it() {
    let path = std::env::temp_dir().join(format!("poste-polling-{}", std::process::id()));
    let address = format!("fifo:{}", path.display());
    let mut sender = Sender::open_with(&address, &Options::new().raw().create()).unwrap();
    let set = WaitSet::new().unwrap();
    set.add(0, &mut sender).unwrap();
    let mut cat = Command::new("cat").arg(&path).stdout(Stdio::piped()).spawn().unwrap();
    let (mut ready, end) = (Vec::new(), Instant::now() + PATIENCE);
    loop {
        set.wait(&mut ready, Wait::For(PATIENCE)).expect("it is told");
        match sender.try_send("to a cat") {
            Ok(_) => break,
            Err(error) => {
                assert!(error.kind() == Kind::NoReceiver && Instant::now() < end, "{error}");
            }
        }
    }
    sender.close().unwrap();
    let mut read = String::new();
    std::io::Read::read_to_string(&mut cat.stdout.take().unwrap(), &mut read).unwrap();
    assert_eq!(read, "to a cat");
    assert!(cat.wait().unwrap().success());
    poste::remove(&address).unwrap();
}

#[test]
fn a_sender_that_listens_is_told_of_room_once_somebody_has_connected() {
    let address = format!("unix:@poste-polling-listens-{}", std::process::id());
    let mut sender = Sender::open_with(&address, &Options::new().listen()).unwrap();
    let set = WaitSet::new().unwrap();
    set.add(0, &mut sender).unwrap();
    let mut ready = Vec::new();
    assert_eq!(set.wait(&mut ready, Wait::Not).unwrap_err().kind(), Kind::Empty);
    for _ in 0..2 {
        let mut receiver = Receiver::open_with(&address, &Options::new().connect()).unwrap();
        set.wait(&mut ready, Wait::For(PATIENCE)).expect("that somebody connects");
        // The first send may find that the last one is gone.
        while sender.try_send("first").is_err() {}
        assert_eq!(receiver.recv_timeout(PATIENCE).unwrap().text().unwrap(), "first");
        while sender.try_send(&[0; 5000]).is_ok() {}
        assert_eq!(set.wait(&mut ready, Wait::Not).unwrap_err().kind(), Kind::Empty, "full");
        std::thread::scope(|scope| {
            scope.spawn(|| while receiver.recv_timeout(Duration::from_millis(100)).is_ok() {});
            set.wait(&mut ready, Wait::For(PATIENCE)).expect("that there is room");
        });
        sender.flush_timeout(PATIENCE).unwrap();
    }
}
