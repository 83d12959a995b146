//! What others plant where poste looks is refused: directories, links, objects that were there first.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use poste::Options;
use poste_sys::testing::skip;

use crate::helper::{Folder, Helper, STRANGER, names_in};
use crate::owners::claim_file;

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
    // One that is another after chdir, and for each process.
    let told = Helper::new(Path::new("run")).refuses(&order, "invalid");
    assert!(told.contains("POSTE_DIR is relative: run"), "{told}");
    assert!(!Path::new("run").exists());
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
    // Where a mailbox would be, and the record of a permit.
    symlink(&real, parts.join("shm")).unwrap();
    Helper::new(&parts).refuses("create shm:x", "permission");
    symlink(&real, parts.join("permits")).unwrap();
    let name = format!("poste-parts-{}", std::process::id());
    poste::Semaphore::create(&name, 1).unwrap();
    Helper::new(&parts).refuses(&format!("permit {name}"), "permission");
    poste::Semaphore::remove(&name).unwrap();
    // An object that can't be recorded is made all the same, and nothing behind the link.
    symlink(&real, parts.join("objects")).unwrap();
    Helper::new(&parts).must(&format!("create fifo:{}", folder.join("fifo").display()));
    assert_eq!(names_in(&real), [""; 0], "nothing is made through a link");
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

/// What is sent would go to whoever is behind the link, and not to who was meant.
#[test]
fn a_link_that_a_stranger_has_planted_is_not_followed_to_a_socket() {
    let folder = Folder::new();
    let mut helper = Helper::new(&folder.private("runtime"));
    let mut receiver = Helper::new(&folder.join("runtime"));
    let public = folder.public("public");
    for scheme in ["unix", "seqpacket", "dgram"] {
        let (real, link) = (folder.join(scheme), public.join(scheme));
        receiver.must(&format!("receive {scheme}:{}", real.display()));
        symlink(&real, &link).unwrap();
        let order = format!("connect {scheme}:{}", link.display());
        // One's own is followed.
        helper.must(&order);
        helper.must("send through my own link");
        assert_eq!(receiver.must("recv"), "through my own link");
        if std::os::unix::fs::lchown(&link, Some(STRANGER), Some(STRANGER)).is_err() {
            let test = "a_link_that_a_stranger_has_planted_is_not_followed_to_a_socket";
            return skip(test, "only root can give an object away");
        }
        let told = helper.refuses(&order, "permission");
        assert!(told.contains("65534"), "it says whose it is: {told}");
    }
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
    // Also where a sender alone may come in: the kernel doesn't tell one whose it is. (Root may ask.)
    let Some(mut other) = Helper::of_another_stranger(test) else { return };
    let queue = format!("sysv:{key:#x}");
    stranger.must(&format!("create {queue}?mode=0622"));
    let told = other.refuses(&format!("connect-or-make {queue}"), "permission");
    assert!(told.contains("65534"), "it says whose it is: {told}");
    other.must(&format!("connect {queue}"));
    stranger.must(&format!("remove {queue}"));
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
