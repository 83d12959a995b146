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

/// More than have an inotify instance each, so that several share one.
#[test]
fn a_removed_fifo_is_told_to_its_receiver_among_many() {
    if !is_alone("a_removed_fifo_is_told_to_its_receiver_among_many") {
        return;
    }
    const COUNT: usize = 150;
    let folder = Folder::new("many");
    let address = |number| folder.address(number);
    let open = |number| Some(Receiver::create(address(number)).unwrap());
    let mut receivers: Vec<_> = (0..COUNT).map(open).collect();
    let mut sender = Sender::open(address(140)).unwrap();
    sender.send("here").unwrap();
    let set = WaitSet::new().unwrap();
    for (key, receiver) in receivers.iter_mut().flatten().enumerate() {
        set.add(key as u64, receiver).unwrap();
    }
    // Asks whoever is said to be ready, until nobody is: what they say.
    let said = |receivers: &mut [Option<Receiver>], wait| {
        let (mut ready, mut news, mut wait) = (Vec::new(), Vec::new(), wait);
        while set.wait(&mut ready, wait).is_ok() {
            for &key in &ready {
                match receivers[key as usize].as_mut().unwrap().try_recv() {
                    Ok(message) => news.push((key, message.text().unwrap().to_owned())),
                    Err(error) if error.kind() == Kind::Empty => {}
                    Err(error) => {
                        news.push((key, format!("{:?}", error.kind())));
                        // It stays so.
                        assert!(set.remove(key));
                    }
                }
            }
            wait = Wait::For(Duration::from_millis(100));
        }
        news
    };
    assert_eq!(said(&mut receivers, Wait::For(PATIENCE)), [(140, "here".to_owned())]);
    for number in [0, 149, 17, 18, 75] {
        poste::remove(address(number)).unwrap();
        let news = said(&mut receivers, Wait::For(PATIENCE));
        assert_eq!(news, [(number as u64, "Removed".to_owned())]);
        let again = receivers[number].as_mut().unwrap().try_recv().unwrap_err();
        assert_eq!(again.kind(), Kind::Removed, "it says so as often as it is asked");
    }
    // Receivers that go leave the others on watch.
    receivers[20..60].fill_with(|| None);
    poste::remove(address(100)).unwrap();
    assert_eq!(said(&mut receivers, Wait::For(PATIENCE)), [(100, "Removed".to_owned())]);
    // One whose writer is there hears of it when that one goes.
    poste::remove(address(140)).unwrap();
    assert_eq!(said(&mut receivers, Wait::For(Duration::from_millis(300))), []);
    sender.send("still here").unwrap();
    sender.close().unwrap();
    let news = said(&mut receivers, Wait::For(PATIENCE));
    assert_eq!(news, [(140, "still here".to_owned()), (140, "Removed".to_owned())]);
}

/// A child that was forked and asks what it inherited reads away no news of its parent's.
#[test]
fn a_forked_child_takes_no_news_of_a_removed_fifo() {
    if !is_alone("a_forked_child_takes_no_news_of_a_removed_fifo") {
        return;
    }
    // In a child of its own, which has one thread.
    let code = poste_sys::testing::in_a_forked_child(|| {
        a_forked_child_looks();
        0
    });
    assert_eq!(code, 0);
}

fn a_forked_child_looks() {
    let folder = Folder::new("forked");
    let polled = |number| {
        let mut receiver = Receiver::create(folder.address(number)).unwrap();
        receiver.pollable().unwrap();
        receiver
    };
    let mut inherited: Vec<Receiver> = (0..40).map(polled).collect();
    let (mut go, mut wait) = poste::pipe().unwrap();
    let child = poste_sys::testing::fork(|| {
        wait.recv_timeout(PATIENCE).unwrap();
        for receiver in &mut inherited {
            // What there is to say of the others' names comes with what they share.
            assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
        }
    });
    // They share with those that the child has, which knows nothing of them.
    let mut later: Vec<Receiver> = (40..80).map(polled).collect();
    for number in 40..80 {
        poste::remove(folder.address(number)).unwrap();
    }
    go.send("go").unwrap();
    let child = rustix::process::Pid::from_raw(child as i32).unwrap();
    let ended = rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty());
    assert_eq!(ended.unwrap().unwrap().1.exit_status(), Some(0), "the child is done");
    for receiver in &mut later {
        assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Removed);
    }
    drop(inherited);
}

/// A folder of FIFOs that goes with the test.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let name = format!("poste-polling-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn address(&self, number: usize) -> String {
        format!("fifo:{}/{number}", self.0.display())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
