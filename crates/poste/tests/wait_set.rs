//! `WaitSet`: thousands of entries, changed while a thread waits, told in turn, with timers.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use poste::{Kind, Options, Receiver, Sender, Wait, WaitSet, Waitable};
use poste_sys::testing::skip;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const PATIENCE: Duration = Duration::from_secs(20);

/// What is ready within a time, sorted.
fn ready(set: &WaitSet, wait: Wait) -> Vec<u64> {
    let mut keys = Vec::new();
    match set.wait(&mut keys, wait) {
        Ok(()) => {}
        Err(error) => assert!(matches!(error.kind(), Kind::TimedOut | Kind::Empty), "{error}"),
    }
    keys.sort_unstable();
    keys
}

/// Whether this process may open so many descriptors; if not, says that the test is skipped.
fn may_open(count: u64, test: &str) -> bool {
    let limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|maximum| maximum < count) {
        let reason = format!("this process may not open {count} descriptors (ulimit -Hn)");
        skip(test, &reason);
        return false;
    }
    if limit.current.is_some_and(|current| current < count) {
        let current = limit.maximum.or(Some(count));
        setrlimit(Resource::Nofile, Rlimit { current, ..limit }).unwrap();
    }
    true
}

fn event(value: u32) -> OwnedFd {
    eventfd(value, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
}

fn ring(event: &OwnedFd) {
    rustix::io::write(event, &1_u64.to_ne_bytes()).unwrap();
}

fn silence(event: &OwnedFd) {
    rustix::io::read(event, &mut [0; 8]).unwrap();
}

#[test]
fn five_thousand_entries_tell_only_who_is_ready() {
    if !may_open(14_000, "five_thousand_entries_tell_only_who_is_ready") {
        return;
    }
    let set = WaitSet::new().unwrap();
    let events: Vec<OwnedFd> = (0..5000).map(|_| event(0)).collect();
    for (key, event) in events.iter().enumerate() {
        set.add_readable(key as u64, event).unwrap();
    }
    assert_eq!(set.len(), 5000);
    assert_eq!(ready(&set, Wait::Not), []);
    for key in [0, 4999, 77, 2500] {
        ring(&events[key]);
        assert_eq!(ready(&set, Wait::For(PATIENCE)), [key as u64]);
        // Level-triggered: as often as it is asked.
        assert_eq!(ready(&set, Wait::Not), [key as u64]);
        silence(&events[key]);
        assert_eq!(ready(&set, Wait::Not), []);
    }
    for key in (0..5000).filter(|key| key % 2 == 1) {
        assert!(set.remove(key));
        assert!(!set.remove(key), "once");
    }
    events.iter().for_each(ring);
    let told = told_within(&set, 2500_usize.div_ceil(64));
    assert_eq!(told.len(), 2500);
    assert!(told.keys().all(|key| key % 2 == 0));
}

/// How often each key was told in so many waits.
fn told_within(set: &WaitSet, waits: usize) -> BTreeMap<u64, usize> {
    let (mut told, mut keys) = (BTreeMap::new(), Vec::new());
    for _ in 0..waits {
        set.wait(&mut keys, Wait::For(PATIENCE)).unwrap();
        keys.iter().for_each(|key| *told.entry(*key).or_default() += 1);
    }
    told
}

#[test]
fn nobody_starves_among_those_that_are_always_ready() {
    if !may_open(14_000, "nobody_starves_among_those_that_are_always_ready") {
        return;
    }
    let set = WaitSet::new().unwrap();
    let events: Vec<OwnedFd> = (0..1000).map(|_| event(1)).collect();
    for (key, event) in events.iter().enumerate() {
        set.add_readable(key as u64, event).unwrap();
    }
    let told = told_within(&set, 10 * 1000_usize.div_ceil(64));
    assert_eq!(told.len(), 1000);
    let (least, most) = (told.values().min().unwrap(), told.values().max().unwrap());
    assert!(*least >= 9 && *most <= 12, "{least} to {most} times");
    // A timer that is due isn't kept waiting by them.
    set.add_timer(5000, Instant::now()).unwrap();
    assert!(ready(&set, Wait::For(PATIENCE)).contains(&5000));
}

#[test]
fn a_thread_that_waits_learns_of_what_another_adds_and_removes() {
    let set = WaitSet::new().unwrap();
    let rounds = 500;
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let (mut keys, mut seen) = (Vec::new(), Vec::new());
            while seen.len() < rounds {
                set.wait(&mut keys, Wait::For(PATIENCE)).unwrap();
                for key in &keys {
                    assert_eq!(*key, seen.len() as u64, "told what is not there");
                    assert!(set.remove(*key));
                    seen.push(*key);
                }
            }
        });
        for key in 0..rounds as u64 {
            let event = event(u32::from(key % 3 == 0));
            match key % 3 {
                // Ready when it is added, later, or as a timer.
                0 | 1 => set.add_readable(key, &event).unwrap(),
                _ => set.add_interval(key, Duration::from_micros(300)).unwrap(),
            }
            if key % 3 == 1 {
                ring(&event);
            }
            let end = Instant::now() + PATIENCE;
            while !set.is_empty() {
                assert!(Instant::now() < end, "{key} was not told");
                std::thread::yield_now();
            }
        }
        waiting.join().unwrap();
    });
}

#[test]
fn what_was_removed_is_not_told_whoever_changes_the_set() {
    let set = WaitSet::new().unwrap();
    let is_over = AtomicBool::new(false);
    let always = event(1);
    set.add_readable(u64::MAX, &always).unwrap();
    std::thread::scope(|scope| {
        // Entries that are ready come and go all the time; keys are used again.
        scope.spawn(|| {
            for round in 0..2000 {
                let key = round % 7;
                let event = event(1);
                set.add_readable(key, &event).unwrap();
                assert!(set.remove(key));
            }
            is_over.store(true, Ordering::SeqCst);
        });
        let mut keys = Vec::new();
        while !is_over.load(Ordering::SeqCst) {
            set.wait(&mut keys, Wait::For(PATIENCE)).unwrap();
            assert!(keys.iter().all(|key| *key < 7 || *key == u64::MAX), "{keys:?}");
        }
    });
    assert_eq!(ready(&set, Wait::Not), [u64::MAX]);
}

/// Whether another loop would be told that something in the set is ready.
fn shows(set: &WaitSet) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(set.pollable(), PollFlags::IN)];
    poll(&mut polled, Some(&Timespec::default())) == Ok(1)
}

#[test]
fn what_was_removed_leaves_nothing_in_the_set() {
    let set = WaitSet::new().unwrap();
    let (reading, writing) = rustix::pipe::pipe().unwrap();
    let pipe = std::fs::read_link(format!("/proc/self/fd/{}", reading.as_raw_fd())).unwrap();
    let open_of_it = || {
        let all = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        all.filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|to| to == pipe)).count()
    };
    rustix::io::write(&writing, b"ready").unwrap();
    for _ in 0..3 {
        set.add_readable(1, &reading).unwrap();
        assert!(shows(&set) && open_of_it() == 3);
        assert!(set.remove(1));
        // It is ready still, and open, and no business of the set's: who waits isn't kept busy.
        assert!(!shows(&set) && open_of_it() == 2);
    }
    set.add_timer(2, Instant::now() + Duration::from_millis(5)).unwrap();
    assert!(set.remove(2));
    std::thread::sleep(Duration::from_millis(20));
    assert!(!shows(&set), "the timer is still set");
    // One that is woken for nothing waits on, and no longer than it was told.
    let (start, time) = (Instant::now(), Duration::from_millis(100));
    let mut keys = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while start.elapsed() < time * 3 {
                // Due at once, and gone as likely before it is told as after.
                set.add_timer(3, Instant::now()).unwrap();
                set.remove(3);
            }
        });
        while start.elapsed() < time * 3 {
            match set.wait(&mut keys, Wait::For(time)) {
                Ok(()) => assert_eq!(keys, [3], "woken, and nothing is ready"),
                Err(error) => assert_eq!(error.kind(), Kind::TimedOut),
            }
        }
    });
}

#[test]
fn timers_are_told_in_time_once_or_in_their_rhythm() {
    let set = WaitSet::new().unwrap();
    let start = Instant::now();
    let at = |milliseconds| start + Duration::from_millis(milliseconds);
    set.add_timer(3, at(60)).unwrap();
    set.add_timer(1, at(20)).unwrap();
    set.add_timer(2, at(20)).unwrap();
    set.add_timer(9, at(40)).unwrap();
    assert!(set.remove(9));
    assert_eq!(set.add_timer(1, start).unwrap_err().kind(), Kind::Invalid);
    let mut order = Vec::new();
    let mut keys = Vec::new();
    while order.len() < 3 {
        set.wait(&mut keys, Wait::For(PATIENCE)).unwrap();
        let due = if keys.contains(&3) { at(60) } else { at(20) };
        assert!(Instant::now() >= due, "too early: {keys:?}");
        order.extend_from_slice(&keys);
    }
    assert_eq!(order, [1, 2, 3]);
    assert!(set.is_empty(), "once");
    assert_eq!(ready(&set, Wait::For(Duration::from_millis(30))), []);

    // An interval goes on; what passed while nobody waited is told once.
    let every = Duration::from_millis(10);
    let start = Instant::now();
    set.add_interval(4, every).unwrap();
    for count in 1..=5 {
        assert_eq!(ready(&set, Wait::For(PATIENCE)), [4]);
        assert!(start.elapsed() >= every * count);
    }
    std::thread::sleep(every * 5);
    assert_eq!(ready(&set, Wait::Not), [4]);
    assert_eq!(set.len(), 1);
    assert!(set.remove(4));
    assert_eq!(ready(&set, Wait::For(every * 3)), []);
    assert_eq!(set.add_interval(5, Duration::ZERO).unwrap_err().kind(), Kind::Invalid);
    assert_eq!(set.add_interval(5, Duration::MAX).unwrap_err().kind(), Kind::Invalid);
    // A moment that is over, and one that is further than a life.
    set.add_timer(6, Instant::now() - Duration::from_secs(1)).unwrap();
    set.add_timer(7, Instant::now() + Duration::from_secs(1 << 33)).unwrap();
    assert_eq!(ready(&set, Wait::For(PATIENCE)), [6]);
    // The last that is added may be the first.
    set.add_timer(8, Instant::now() + Duration::from_millis(10)).unwrap();
    assert_eq!(ready(&set, Wait::For(PATIENCE)), [8]);
}

#[test]
fn the_wait_itself_has_its_time() {
    let set = WaitSet::new().unwrap();
    let mut keys = vec![7];
    assert_eq!(set.wait(&mut keys, Wait::Not).unwrap_err().kind(), Kind::Empty);
    assert_eq!(keys, [], "what it held before is gone");
    let (start, time) = (Instant::now(), Duration::from_millis(30));
    assert_eq!(set.wait(&mut keys, Wait::For(time)).unwrap_err().kind(), Kind::TimedOut);
    assert!(start.elapsed() >= time);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(time);
            set.wake();
        });
        set.wait(&mut keys, Wait::Forever).unwrap();
        assert_eq!(keys, [], "woken, and nothing is ready");
    });
    set.wake();
    set.wake();
    set.wait(&mut keys, Wait::Forever).unwrap();
    assert_eq!(set.wait(&mut keys, Wait::Not).unwrap_err().kind(), Kind::Empty, "once for all");
}

#[test]
fn ends_of_several_mechanisms_wait_together_and_their_ends_are_told() {
    let (mut to_pipe, mut from_pipe) = poste::pipe().unwrap();
    let (mut to_local, mut from_local) = poste::local().unwrap();
    let address = format!("unix:@poste-wait-set-{}", std::process::id());
    let mut listening = Receiver::create(&address).unwrap();
    let set = WaitSet::new().unwrap();
    set.add(1, &mut from_pipe).unwrap();
    set.add(2, &mut from_local).unwrap();
    set.add(3, &mut listening).unwrap();
    assert_eq!(ready(&set, Wait::Not), []);
    let mut connected = Sender::open(&address).unwrap();
    connected.send("three").unwrap();
    to_local.send("two").unwrap();
    to_pipe.send("one").unwrap();
    assert_eq!(ready(&set, Wait::For(PATIENCE)), [1, 2, 3]);
    assert_eq!(from_pipe.try_recv().unwrap().text().unwrap(), "one");
    assert_eq!(from_local.try_recv().unwrap().text().unwrap(), "two");
    assert_eq!(listening.recv_timeout(PATIENCE).unwrap().text().unwrap(), "three");
    assert_eq!(ready(&set, Wait::Not), []);

    // Senders wait for room.
    set.add(10, &mut to_pipe).unwrap();
    assert_eq!(ready(&set, Wait::For(PATIENCE)), [10]);
    while to_pipe.try_send(&[0; 4000]).is_ok() {}
    assert_eq!(ready(&set, Wait::Not), [1]);
    while from_pipe.try_recv().is_ok() {}
    assert_eq!(ready(&set, Wait::For(PATIENCE)), [10]);
    assert!(set.remove(10));

    // A peer that goes is news.
    drop(to_pipe);
    assert_eq!(ready(&set, Wait::For(PATIENCE)), [1]);
    while from_pipe.try_recv().is_ok() {}
    assert_eq!(from_pipe.try_recv().unwrap_err().kind(), Kind::Disconnected);
    assert!(set.remove(1));
    drop(to_local);
    assert_eq!(ready(&set, Wait::For(PATIENCE)), [2]);
    // An end that is dropped in the set is told no more, and what it was is taken out later.
    drop(from_local);
    assert_eq!(ready(&set, Wait::Not), []);
    assert!(set.remove(2));
    drop(connected);
    listening.recv_timeout(Duration::from_millis(10)).unwrap_err();
    assert_eq!(ready(&set, Wait::Not), []);
}

#[test]
fn plain_descriptors_and_files_wait_too() {
    let set = WaitSet::new().unwrap();
    let (here, there) = UnixStream::pair().unwrap();
    set.add_readable(1, &here).unwrap();
    set.add_writable(2, &here).unwrap();
    assert_eq!(ready(&set, Wait::For(PATIENCE)), [2]);
    rustix::io::write(&there, b"x").unwrap();
    assert_eq!(ready(&set, Wait::For(PATIENCE)), [1, 2]);
    assert!(set.remove(2));
    drop(there);
    assert_eq!(ready(&set, Wait::For(PATIENCE)), [1]);
    assert!(set.remove(1));
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    let plain = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
    set.add_readable(3, &file).unwrap();
    set.add_readable(4, &plain).unwrap();
    assert_eq!(ready(&set, Wait::Not), [3, 4], "a file is always ready");
    assert!(set.remove(3) && set.remove(4) && set.is_empty());
    // So is an end over one.
    let raw = Options::new().raw();
    let mut end = Receiver::open_with(format!("fd:{}", plain.as_raw_fd()), &raw).unwrap();
    set.add(5, &mut end).unwrap();
    assert_eq!(ready(&set, Wait::Not), [5]);
}

#[test]
fn a_set_waits_in_a_set_and_in_any_other_loop() {
    let (mut inner, outer) = (WaitSet::new().unwrap(), WaitSet::new().unwrap());
    let (mut sender, mut receiver) = poste::local().unwrap();
    inner.add(1, &mut receiver).unwrap();
    outer.add(2, &mut inner).unwrap();
    assert_eq!(ready(&outer, Wait::Not), []);
    sender.send("x").unwrap();
    assert_eq!(ready(&outer, Wait::For(PATIENCE)), [2]);
    assert_eq!(ready(&inner, Wait::Not), [1]);
    receiver.try_recv().unwrap();
    assert_eq!(ready(&outer, Wait::Not), []);
    inner.add_timer(3, Instant::now() + Duration::from_millis(10)).unwrap();
    let mut polled = [PollFd::from_borrowed_fd(inner.pollable(), PollFlags::IN)];
    assert_eq!(poll(&mut polled, None), Ok(1));
    assert_eq!(ready(&inner, Wait::Not), [3]);
}

/// Each takes as many epolls of its own as there are.
#[test]
fn sets_stand_in_one_another_three_deep_and_no_deeper() {
    let folder = std::env::temp_dir().join(format!("poste-deep-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let address = |scheme: &str| format!("{scheme}:{}/{scheme}", folder.display());
    let mut listens = Sender::open_with(address("seqpacket"), &Options::new().listen()).unwrap();
    let mut connections = Receiver::create(address("unix")).unwrap();
    let mut reader = Receiver::create(address("fifo")).unwrap();
    let mut writer = Sender::open(address("fifo")).unwrap();
    let ends: [&mut dyn Waitable; 4] = [&mut listens, &mut connections, &mut reader, &mut writer];
    let mut sets = [(); 4].map(|()| WaitSet::new().unwrap());
    let [first, second, third, fourth] = &mut sets;
    for (key, end) in ends.into_iter().enumerate() {
        first.add(key as u64, end).unwrap();
    }
    second.add(0, first).unwrap();
    third.add(0, second).unwrap();
    let too_deep = fourth.add(0, third).unwrap_err();
    assert_eq!(too_deep.kind(), Kind::Invalid, "{too_deep}");
    assert!(too_deep.hint().contains("one set"), "{too_deep:?}");
    assert_eq!(first.add(9, second).unwrap_err().kind(), Kind::Invalid, "a circle");
    let mut sender = Sender::open(address("unix")).unwrap();
    sender.send("x").unwrap();
    assert_eq!(ready(third, Wait::For(PATIENCE)), [0]);
    drop((listens, connections, reader, writer));
    std::fs::remove_dir_all(&folder).unwrap();
}
