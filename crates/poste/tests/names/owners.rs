//! Whose a name is: the living keep it, the dead are proved dead and leave it at once.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use poste::{Options, Semaphore};
use poste_sys::testing::skip;

use crate::helper::{Folder, Helper, STRANGER, names_in};

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
pub(crate) fn claim_file(runtime: &Path) -> PathBuf {
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

/// The kernel cuts a program's name after 15 bytes, in the middle of a letter if need be, and /proc
/// shows it so.
#[test]
fn a_name_that_is_no_text_costs_a_living_owner_nothing() {
    let folder = Folder::new();
    let runtime = folder.private("runtime");
    let lock = format!("poste-torn-{}", std::process::id());
    let semaphore = Semaphore::create(&lock, 1).unwrap();
    for (while_claiming, later) in [("torn", "torn"), ("torn", "sound"), ("sound", "torn")] {
        let address = format!("unix:{}", folder.join("x").display());
        let mut owner = Helper::new(&runtime);
        owner.must(&format!("rename {while_claiming}"));
        owner.must(&format!("receive {address}"));
        owner.must(&format!("hold {lock}"));
        owner.must(&format!("rename {later}"));
        let mut next = Helper::new(&runtime);
        next.refuses(&format!("receive {address}"), "name_in_use");
        assert_eq!(next.must("gc"), "0", "{while_claiming}, then {later}");
        assert_eq!(semaphore.value(), 0);
        next.must(&format!("connect {address}"));
        next.must("send to its owner");
        assert_eq!(owner.must("recv"), "to its owner");
        owner.kill();
        // What it had is free as soon as it is gone.
        next.must(&format!("receive {address}"));
        assert_eq!((next.must("gc").as_str(), semaphore.value()), ("1", 1));
    }
    Semaphore::remove(&lock).unwrap();
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
