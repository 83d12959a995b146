//! Names: claimed by one, never taken from the living, free when their owner is dead; and whatever
//! others plant where poste looks is refused.
//!
//! Everything is done by helpers, this program again, each with a runtime directory that its test
//! gives it. A helper reads orders line by line and answers each on its standard error.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use poste::{Error, Kind, Options, Receiver, Sender};
use rustix::time::{ClockId, clock_gettime};

const HELPER: &str = "POSTE_NAMES_HELPER";
const PATIENCE: Duration = Duration::from_secs(10);

/// The user that is nobody's friend.
const STRANGER: u32 = 65_534;

/// A folder of a test's own, which goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("poste-names-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A folder in it that this user alone may enter.
    fn private(&self, name: &str) -> PathBuf {
        let path = self.join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        path
    }

    /// A folder in it where everybody may write, as in /tmp.
    fn public(&self, name: &str) -> PathBuf {
        let path = self.private(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o1777)).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// A process that opens and closes what it is told to.
struct Helper {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStderr>,
}

impl Helper {
    fn new(runtime: &Path) -> Helper {
        Helper::start(Helper::command().env("POSTE_DIR", runtime))
    }

    fn command() -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["as_a_helper", "--exact", "--nocapture"]).env(HELPER, "1");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    fn start(command: &mut Command) -> Helper {
        let mut child = command.spawn().unwrap();
        let (orders, answers) = (child.stdin.take().unwrap(), child.stderr.take().unwrap());
        Helper { child, orders, answers: BufReader::new(answers) }
    }

    /// One that another user runs; `None`, said aloud, where that can't be.
    fn of_a_stranger(test: &str) -> Option<Helper> {
        let mut command = Helper::command();
        command.uid(STRANGER).gid(STRANGER).env("POSTE_DIR", "/nowhere");
        if rustix::process::geteuid().is_root() && can_run(&mut command) {
            return Some(Helper::start(&mut command));
        }
        skip(test, "no other user can run the tests' program (not root?)");
        None
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.answers.read_line(&mut line).unwrap() > 0, "the helper has ended");
            match line.strip_prefix("= ") {
                Some(answer) => return answer.trim_end().to_owned(),
                None => eprint!("a helper says: {line}"),
            }
        }
    }

    fn ask(&mut self, order: &str) -> String {
        self.order(order);
        self.answer()
    }

    /// An order that must be followed: what it answers after `ok`.
    fn must(&mut self, order: &str) -> String {
        let answer = self.ask(order);
        match answer.strip_prefix("ok") {
            Some(rest) => rest.trim().to_owned(),
            None => panic!("{order}: {answer}"),
        }
    }

    /// An order that must be refused, with an error of this code: its text.
    fn refuses(&mut self, order: &str, code: &str) -> String {
        let answer = self.ask(order);
        match answer.strip_prefix(code) {
            Some(rest) => rest.trim().to_owned(),
            None => panic!("{order}: {answer:?} instead of {code}"),
        }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn can_run(command: &mut Command) -> bool {
    let listed = Command::new(command.get_program())
        .arg("--list")
        .stdout(Stdio::null())
        .uid(STRANGER)
        .gid(STRANGER)
        .status();
    listed.is_ok_and(|status| status.success())
}

/// What a helper does; nothing where this is none.
#[test]
fn as_a_helper() {
    if std::env::var_os(HELPER).is_none() {
        return;
    }
    let mut open = Open::default();
    for line in std::io::stdin().lines().map_while(Result::ok) {
        match open.follow(&line) {
            Ok(answer) => eprintln!("= ok {answer}"),
            Err(error) => eprintln!("= {} {error}", error.kind().code()),
        }
    }
}

/// What a helper has open.
#[derive(Default)]
struct Open {
    receivers: Vec<Receiver>,
    senders: Vec<Sender>,
}

impl Open {
    fn follow(&mut self, line: &str) -> Result<String, Error> {
        let (order, rest) = line.split_once(' ').unwrap_or((line, ""));
        match order {
            // So that two helpers follow an order in the same moment.
            "at" => {
                let (moment, order) = rest.split_once(' ').unwrap();
                let moment: u64 = moment.parse().unwrap();
                while now() < moment {
                    std::hint::spin_loop();
                }
                return self.follow(order);
            }
            "receive" => self.receivers.push(Receiver::create(rest)?),
            "open" => self.receivers.push(Receiver::open(rest)?),
            "create" => poste::create(rest, &Options::new())?,
            "create-new" => {
                self.receivers.push(Receiver::open_with(rest, &Options::new().create_new())?);
            }
            "remove" => poste::remove(rest)?,
            "again" => {
                for _ in 0..200 {
                    drop(Receiver::create(rest)?);
                }
            }
            "make-again" => {
                for _ in 0..200 {
                    poste::create(rest, &Options::new())?;
                    poste::remove(rest)?;
                }
            }
            "connect" => self.senders.push(Sender::open(rest)?),
            "send" => {
                self.senders.last_mut().unwrap().send_timeout(rest, Duration::from_millis(200))?;
            }
            "recv" => {
                let message = self.receivers.last_mut().unwrap().recv_timeout(PATIENCE)?;
                return Ok(message.text()?.to_owned());
            }
            "close" => (self.receivers, self.senders) = (Vec::new(), Vec::new()),
            "fork" => return Ok(poste_sys::testing::fork_and_sleep(PATIENCE * 3).to_string()),
            "umask" => {
                let mask = u32::from_str_radix(rest, 8).unwrap();
                rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
            }
            other => panic!("no order {other}"),
        }
        Ok(String::new())
    }
}

fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn skip(test: &str, reason: &str) {
    eprintln!("SKIPPED: {test}: {reason}");
    if let Some(path) = std::env::var_os("POSTE_SKIPPED") {
        let mut file = fs::File::options().append(true).create(true).open(path).unwrap();
        writeln!(file, "{test}: {reason}").unwrap();
    }
}

/// Two processes claim a name in the same moment, again and again: one has it each time. `after` is
/// what the winner then does to give it back.
fn race(claim: &str, address: &str, after: &str, runtime: &Path) {
    let long =
        std::env::var_os("POSTE_LONG").is_some_and(|value| !value.is_empty() && value != "0");
    let rounds = if long { 1000 } else { 100 };
    let mut helpers = [Helper::new(runtime), Helper::new(runtime)];
    let mut wins = [0, 0];
    for round in 0..rounds {
        // Not always quite the same moment: the first steps of the one meet all of the other.
        let moment = now() + 300_000;
        for (index, helper) in helpers.iter_mut().enumerate() {
            let shift = round % 20 * 10_000 * index as u64;
            helper.order(&format!("at {} {claim} {address}", moment + shift));
        }
        let answers: Vec<_> = helpers.iter_mut().map(Helper::answer).collect();
        let winners: Vec<_> = (0..2).filter(|index| answers[*index].starts_with("ok")).collect();
        let [winner] = winners[..] else { panic!("round {round} of {address}: {answers:?}") };
        assert!(answers[1 - winner].starts_with("name_in_use"), "{address}: {answers:?}");
        wins[winner] += 1;
        helpers[winner].must(after);
    }
    eprintln!("{address}: {wins:?}");
    assert_eq!(names_in(&runtime.join("claims")), [""; 0], "{address} leaves no claim behind");
}

#[test]
fn one_of_two_who_claim_a_socket_at_once_has_it() {
    let folder = Folder::new();
    let runtime = folder.private("runtime");
    let place = folder.private("place");
    for scheme in ["unix", "seqpacket", "dgram"] {
        race("receive", &format!("{scheme}:{}/x", place.display()), "close", &runtime);
        assert_eq!(names_in(&place), [""; 0], "{scheme} leaves no orphan");
    }
    race("receive", &format!("unix:@poste-names-{}", std::process::id()), "close", &runtime);
}

#[test]
fn one_of_two_who_claim_a_port_at_once_has_it() {
    let folder = Folder::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    race("receive", &format!("tcp:{free}"), "close", &folder.private("runtime"));
}

#[test]
fn one_of_two_who_read_a_fifo_at_once_has_it() {
    let folder = Folder::new();
    let (runtime, place) = (folder.private("runtime"), folder.private("place"));
    let address = format!("fifo:{}/x", place.display());
    poste::create(&address, &Options::new()).unwrap();
    race("open", &address, "close", &runtime);
    assert_eq!(names_in(&place), ["x"]);
}

#[test]
fn one_of_two_who_make_an_object_at_once_has_made_it() {
    let folder = Folder::new();
    let (runtime, place) = (folder.private("runtime"), folder.private("place"));
    let key = 0x6000_0000 | std::process::id();
    for address in [
        format!("fifo:{}/x", place.display()),
        format!("mq:/poste-names-{}", std::process::id()),
        format!("sysv:{key:#x}"),
    ] {
        race("create", &address, &format!("remove {address}"), &runtime);
        assert_eq!(names_in(&place), [""; 0]);
        let error = Sender::open(&address).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound, "no orphan");
        poste::create(&address, &Options::new()).unwrap();
        Helper::new(&runtime).refuses(&format!("create-new {address}"), "name_in_use");
        poste::remove(&address).unwrap();
    }
}

#[test]
fn a_foreign_server_keeps_its_name_and_its_clients() {
    let folder = Folder::new();
    let mut helper = Helper::new(&folder.private("runtime"));
    let path = folder.join("stream");
    let server = UnixListener::bind(&path).unwrap();
    for scheme in ["unix", "seqpacket", "dgram"] {
        helper.refuses(&format!("receive {scheme}:{}", path.display()), "name_in_use");
    }
    let client = UnixStream::connect(&path).unwrap();
    server.set_nonblocking(true).unwrap();
    // The look whether anybody is there may have connected too.
    assert!(server.accept().is_ok());
    drop((client, server));
    let path = folder.join("datagrams");
    let server = UnixDatagram::bind(&path).unwrap();
    for scheme in ["unix", "seqpacket", "dgram"] {
        helper.refuses(&format!("receive {scheme}:{}", path.display()), "name_in_use");
    }
    UnixDatagram::unbound().unwrap().send_to(b"x", &path).unwrap();
    assert_eq!(server.recv(&mut [0; 9]).unwrap(), 1);
}

#[test]
fn what_a_dead_foreign_server_left_is_taken_over() {
    let folder = Folder::new();
    let mut helper = Helper::new(&folder.private("runtime"));
    for scheme in ["unix", "seqpacket", "dgram"] {
        let path = folder.join(scheme);
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        helper.must(&format!("receive {scheme}:{}", path.display()));
        helper.must(&format!("connect {scheme}:{}", path.display()));
        helper.must("send heard");
        assert_eq!(helper.must("recv"), "heard");
    }
    // What is no socket is nobody's to take.
    let file = folder.join("file");
    fs::write(&file, "precious").unwrap();
    helper.refuses(&format!("receive unix:{}", file.display()), "name_in_use");
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

#[test]
fn a_killed_owners_name_is_free_at_once_though_its_forked_child_lives() {
    let folder = Folder::new();
    let runtime = folder.private("runtime");
    let fifo = format!("fifo:{}", folder.join("fifo").display());
    poste::create(&fifo, &Options::new()).unwrap();
    for with_child in [false, true] {
        for scheme in ["unix", "seqpacket", "dgram", "fifo"] {
            let address = format!("{scheme}:{}", folder.join(scheme).display());
            let mut owner = Helper::new(&runtime);
            owner.must(&format!("receive {address}"));
            let child = with_child.then(|| owner.must("fork"));
            let mut next = Helper::new(&runtime);
            let pid = owner.child.id();
            let told = next.refuses(&format!("receive {address}"), "name_in_use");
            assert!(told.contains(&format!("process {pid} (")), "it names the owner: {told}");
            owner.kill();
            let start = Instant::now();
            next.must(&format!("receive {address}"));
            assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
            let mut sender = Helper::new(&runtime);
            sender.must(&format!("connect {address}"));
            sender.must("send to the next one");
            assert_eq!(next.must("recv"), "to the next one", "{address}, {child:?}");
            // The dead owner's child doesn't take its successor's name along, nor keeps it.
            let mut third = Helper::new(&runtime);
            third.refuses(&format!("receive {address}"), "name_in_use");
            next.must("close");
            third.must(&format!("receive {address}"));
            third.must("close");
            if let Some(child) = child {
                let child = rustix::process::Pid::from_raw(child.parse().unwrap()).unwrap();
                rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
            }
        }
    }
    assert_eq!(names_in(&runtime.join("claims")), [""; 0]);
}

/// The claim's file, where there is one.
fn claim_file(runtime: &Path) -> PathBuf {
    let claims = runtime.join("claims");
    let [name] = &names_in(&claims)[..] else { panic!("one claim: {:?}", names_in(&claims)) };
    claims.join(name)
}

#[test]
fn a_reused_number_is_not_the_owner() {
    let folder = Folder::new();
    let runtime = folder.private("runtime");
    let address = format!("unix:{}", folder.join("x").display());
    let mut owner = Helper::new(&runtime);
    owner.must(&format!("receive {address}"));
    let child = owner.must("fork");
    let pid = owner.child.id();
    owner.kill();
    // The lock is held by the child, and the record now names a process that lives and started at
    // another time: as after the dead owner's number was used again.
    let file = claim_file(&runtime);
    let record = fs::read_to_string(&file).unwrap();
    let reused =
        record.replace(&format!("owner {pid} "), &format!("owner {} ", std::process::id()));
    assert_ne!(record, reused);
    fs::write(&file, reused).unwrap();
    let mut next = Helper::new(&runtime);
    next.must(&format!("receive {address}"));
    let child = rustix::process::Pid::from_raw(child.parse().unwrap()).unwrap();
    rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
}

/// A dead owner's object is known by more than its number, which the next object may have.
#[test]
fn a_foreign_server_is_not_taken_for_what_a_dead_owner_left() {
    let folder = Folder::new();
    let runtime = folder.private("runtime");
    let path = folder.join("x");
    for _ in 0..50 {
        let mut owner = Helper::new(&runtime);
        owner.must(&format!("receive unix:{}", path.display()));
        let number = fs::symlink_metadata(&path).unwrap().ino();
        owner.kill();
        std::thread::sleep(Duration::from_millis(20));
        fs::remove_file(&path).unwrap();
        let server = UnixListener::bind(&path).unwrap();
        let is_reused = fs::symlink_metadata(&path).unwrap().ino() == number;
        Helper::new(&runtime).refuses(&format!("receive unix:{}", path.display()), "name_in_use");
        UnixStream::connect(&path).unwrap();
        drop(server);
        fs::remove_file(&path).unwrap();
        if is_reused {
            return;
        }
    }
    let test = "a_foreign_server_is_not_taken_for_what_a_dead_owner_left";
    skip(test, "this file system doesn't use the numbers of its objects again");
}

#[test]
fn a_lock_file_of_another_user_proves_nothing() {
    let folder = Folder::new();
    let runtime = folder.private("runtime");
    let address = format!("unix:{}", folder.join("x").display());
    let mut owner = Helper::new(&runtime);
    owner.must(&format!("receive {address}"));
    owner.kill();
    if let Err(error) = chown(claim_file(&runtime), Some(STRANGER), Some(STRANGER)) {
        return skip("a_lock_file_of_another_user_proves_nothing", &error.to_string());
    }
    let mut next = Helper::new(&runtime);
    let told = next.refuses(&format!("receive {address}"), "permission");
    assert!(told.contains("65534"), "it says whose it is: {told}");
}

#[test]
fn a_squatted_runtime_directory_is_refused() {
    let folder = Folder::new();
    let order = format!("receive unix:{}", folder.join("x").display());
    let real = folder.private("real");
    let link = folder.join("link");
    symlink(&real, &link).unwrap();
    Helper::new(&link).refuses(&order, "permission");
    let open = folder.private("open");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let told = Helper::new(&open).refuses(&order, "permission");
    assert!(told.contains(&*open.to_string_lossy()), "it says which: {told}");
    let file = folder.join("file");
    fs::write(&file, "").unwrap();
    Helper::new(&file).refuses(&order, "permission");
    // Its parts as well.
    let parts = folder.private("parts");
    symlink(&real, parts.join("claims")).unwrap();
    Helper::new(&parts).refuses(&order, "permission");
    // And where it is found by other ways.
    let xdg = folder.private("xdg");
    symlink(&real, xdg.join("poste")).unwrap();
    let mut command = Helper::command();
    command.env_remove("POSTE_DIR").env("XDG_RUNTIME_DIR", &xdg);
    Helper::start(&mut command).refuses(&order, "permission");
    assert_eq!(names_in(&real), [""; 0], "nothing is made through a link");
    assert!(!folder.join("x").exists());
    if chown(&real, Some(STRANGER), Some(STRANGER)).is_err() {
        return skip("a_squatted_runtime_directory_is_refused", "only root can give one away");
    }
    let told = Helper::new(&real).refuses(&order, "permission");
    assert!(told.contains("65534"), "it says whose it is: {told}");
}

#[test]
fn links_at_the_paths_of_sockets_and_claims_lead_nowhere() {
    let folder = Folder::new();
    let runtime = folder.private("runtime");
    let target = folder.join("target");
    let link = folder.join("link");
    symlink(&target, &link).unwrap();
    let mut helper = Helper::new(&runtime);
    for scheme in ["unix", "seqpacket", "dgram"] {
        helper.refuses(&format!("receive {scheme}:{}", link.display()), "name_in_use");
        assert!(!target.exists(), "nothing is made behind a link");
    }
    // Also where the link leads to what a dead server left.
    drop(UnixListener::bind(&target).unwrap());
    helper.refuses(&format!("receive unix:{}", link.display()), "name_in_use");
    assert!(target.exists() && fs::symlink_metadata(&link).is_ok());
    // The claim's own file.
    let address = format!("unix:{}", folder.join("x").display());
    helper.must(&format!("receive {address}"));
    let claim = claim_file(&runtime);
    helper.must("close");
    let precious = folder.join("precious");
    fs::write(&precious, "precious").unwrap();
    symlink(&precious, &claim).unwrap();
    assert!(!helper.ask(&format!("receive {address}")).starts_with("ok"));
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
}

#[test]
fn what_strangers_plant_in_the_place_of_a_fifo_is_refused() {
    let folder = Folder::new();
    let mut helper = Helper::new(&folder.private("runtime"));
    let public = folder.public("public");
    let real = format!("fifo:{}", folder.join("real").display());
    poste::create(&real, &Options::new()).unwrap();
    let link = public.join("link");
    symlink(folder.join("real"), &link).unwrap();
    // A link of one's own is followed.
    helper.must(&format!("open fifo:{}", link.display()));
    helper.must("close");
    let theirs = public.join("theirs");
    let address = format!("fifo:{}", theirs.display());
    poste::create(&address, &Options::new().mode(0o666)).unwrap();
    let given = chown(&theirs, Some(STRANGER), Some(STRANGER))
        .and_then(|()| std::os::unix::fs::lchown(&link, Some(STRANGER), Some(STRANGER)));
    if given.is_err() {
        let test = "what_strangers_plant_in_the_place_of_a_fifo_is_refused";
        return skip(test, "only root can give an object away");
    }
    for order in ["open", "receive", "connect"] {
        helper.refuses(&format!("{order} fifo:{}", link.display()), "permission");
    }
    helper.refuses(&format!("receive {address}"), "permission");
    // Opened where it is, it is trusted.
    helper.must(&format!("open {address}"));
}

#[test]
fn a_file_put_in_the_place_of_a_fifo_is_not_written_to() {
    let folder = Folder::new();
    let mut helper = Helper::new(&folder.private("runtime"));
    let (path, precious) = (folder.join("x"), folder.join("precious"));
    let address = format!("fifo:{}", path.display());
    poste::create(&address, &Options::new()).unwrap();
    helper.must(&format!("connect {address}"));
    fs::write(&precious, "precious").unwrap();
    fs::remove_file(&path).unwrap();
    symlink(&precious, &path).unwrap();
    assert!(!helper.ask("send overwritten").starts_with("ok"));
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
}

#[test]
fn names_that_a_stranger_has_taken_first_are_not_used() {
    let test = "names_that_a_stranger_has_taken_first_are_not_used";
    let Some(mut stranger) = Helper::of_a_stranger(test) else { return };
    let folder = Folder::new();
    let mut helper = Helper::new(&folder.private("runtime"));
    let number = std::process::id();
    let key = 0x6800_0000 | number;
    for queue in [format!("mq:/poste-squatted-{number}"), format!("sysv:{key:#x}")] {
        stranger.must(&format!("create {queue}?mode=0666"));
        for order in ["receive", "create-new"] {
            let told = helper.ask(&format!("{order} {queue}"));
            assert!(told.starts_with("permission") || told.starts_with("name_in_use"), "{told}");
        }
        helper.must(&format!("open {queue}"));
        helper.must("close");
        stranger.must(&format!("remove {queue}"));
    }
    let taken = format!("@poste-squatted-{number}");
    for scheme in ["unix", "seqpacket"] {
        stranger.must(&format!("receive {scheme}:{taken}"));
        helper.refuses(&format!("receive {scheme}:{taken}"), "name_in_use");
        helper.refuses(&format!("connect {scheme}:{taken}"), "permission");
        stranger.must("close");
        // Nor does one who may come to an abstract name get heard.
        helper.must(&format!("receive {scheme}:{taken}"));
        let _ = stranger.ask(&format!("connect {scheme}:{taken}"));
        let _ = stranger.ask("send from a stranger");
        helper.must(&format!("connect {scheme}:{taken}"));
        helper.must("send from a friend");
        assert_eq!(helper.must("recv"), "from a friend");
        helper.must("close");
        stranger.must("close");
    }
}

#[test]
fn nobody_else_may_come_in_at_any_moment() {
    let folder = Folder::new();
    let mut helper = Helper::new(&folder.private("runtime"));
    helper.must("umask 0");
    for scheme in ["unix", "seqpacket", "dgram", "fifo"] {
        let path = folder.join(scheme);
        let (done, seen) = (AtomicBool::new(false), AtomicU32::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    if let Ok(stat) = fs::symlink_metadata(&path) {
                        assert_eq!(stat.mode() & 0o7777, 0o600, "{scheme}");
                        seen.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
            let order = if scheme == "fifo" { "make-again" } else { "again" };
            // A busy machine may not let the watcher see any of the first ones.
            for _ in 0..100 {
                let answer = helper.ask(&format!("{order} {scheme}:{}", path.display()));
                assert!(answer.starts_with("ok"), "{answer}");
                if seen.load(Ordering::Relaxed) >= 20 {
                    break;
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        assert!(seen.into_inner() > 0, "{scheme} was seen");
    }
    // What was asked for is what there is, whatever the umask takes away.
    helper.must("umask 077");
    for scheme in ["unix", "seqpacket", "dgram", "fifo"] {
        let path = folder.join(&format!("{scheme}-660"));
        helper.must(&format!("receive {scheme}:{}?mode=0660", path.display()));
        assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o7777, 0o660, "{scheme}");
    }
}
