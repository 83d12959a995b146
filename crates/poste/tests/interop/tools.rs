//! The system's own tools see, make and remove the queues that poste uses.

use std::path::PathBuf;

use poste::{Kind, Options, Receiver, Sender};

use crate::alone::alone;
use crate::machine::Need;
use crate::place::{Place, SYSV_QUEUE};
use crate::stranger::Stranger;
use crate::trial::{LIMIT, Test};

pub(crate) const TESTS: &[Test] = &[
    Test { name: IPCS, needs: &[Need::Program("ipcs"), Need::Alone], run: || alone(IPCS, ipcs) },
    Test {
        name: IPCMK,
        needs: &[Need::Program("ipcmk"), Need::Alone],
        run: || alone(IPCMK, ipcmk),
    },
    Test { name: MQUEUE, needs: &[Need::Alone], run: || alone(MQUEUE, mqueue) },
];

const IPCS: &str = "tools::ipcs_sees_and_ipcrm_removes_our_queue";
const IPCMK: &str = "tools::ipcmk_makes_a_queue_that_we_use";
const MQUEUE: &str = "tools::the_kernel_shows_our_posix_queue_as_a_file";

/// What a line of shell prints.
fn say(place: &Place, line: &str) -> String {
    Stranger::start(place, line, b"").finish_text()
}

/// The columns of a queue's line in `ipcs -q`: key, number, owner, mode, bytes, messages.
fn ipcs_line(place: &Place, column: usize, value: &str) -> Option<Vec<String>> {
    let lines = say(place, "ipcs -q");
    let mut lines = lines.lines().map(|line| line.split_whitespace().map(str::to_owned).collect());
    lines.find(|columns: &Vec<String>| columns.get(column).is_some_and(|found| found == value))
}

fn ipcs(_: PathBuf) {
    let place = Place::made(SYSV_QUEUE);
    let mut sender = place.sender();
    sender.send_timeout("hello", LIMIT).unwrap();
    sender.send_timeout("world!", LIMIT).unwrap();
    let columns = ipcs_line(&place, 0, place.value("key")).expect("ipcs shows the key");
    assert_eq!(columns[3..], ["600", "11", "2"]);
    let mut receiver = place.receiver();
    assert_eq!(receiver.recv_timeout(LIMIT).unwrap().text().unwrap(), "hello");
    say(&place, r#"ipcrm -Q "$key""#);
    assert_eq!(ipcs_line(&place, 0, place.value("key")), None);
    assert_eq!(receiver.recv_timeout(LIMIT).unwrap_err().kind(), Kind::Removed);
    assert_eq!(sender.send_timeout("more", LIMIT).unwrap_err().kind(), Kind::Removed);
    let gone = Sender::open_with(&place.address, &Options::new().raw()).unwrap_err();
    assert_eq!(gone.kind(), Kind::NotFound);
}

fn ipcmk(_: PathBuf) {
    let place = Place::new(SYSV_QUEUE);
    let made = say(&place, "ipcmk -Q -p 0600");
    let number = made.trim().rsplit(' ').next().expect("it prints a number").to_owned();
    let key = ipcs_line(&place, 1, &number).expect("ipcs shows the number")[0].clone();
    let address = format!("sysv:{key}");
    let mut receiver = Receiver::open_with(&address, &Options::new().raw()).unwrap();
    let mut sender = Sender::open_with(&address, &Options::new().raw()).unwrap();
    sender.send_timeout("hello", LIMIT).unwrap();
    assert_eq!(receiver.recv_timeout(LIMIT).unwrap().text().unwrap(), "hello");
    poste::remove(&address).unwrap();
    assert_eq!(ipcs_line(&place, 1, &number), None);
}

fn mqueue(folder: PathBuf) {
    let place = Place::new("mq:$name");
    let file = folder.join(place.value("name").trim_start_matches('/'));
    poste::create(&place.address, &Options::new().mode(0o640)).unwrap();
    let mut sender = place.sender();
    sender.send_timeout("hello", LIMIT).unwrap();
    let show = format!("stat -c %a {0}; cat {0}", file.display());
    let shown = say(&place, &show);
    assert!(shown.starts_with("640\nQSIZE:"), "{shown}");
    // A file may be removed, and made: with the attributes that the system gives.
    let mut receiver = place.receiver();
    say(&place, &format!("rm {}", file.display()));
    assert_eq!(receiver.recv_timeout(LIMIT).unwrap().text().unwrap(), "hello");
    let gone = Receiver::open_with(&place.address, &Options::new().raw()).unwrap_err();
    assert_eq!(gone.kind(), Kind::NotFound);
    say(&place, &format!("umask 077; touch {}", file.display()));
    let mut receiver = place.receiver();
    place.sender().send_timeout("again", LIMIT).unwrap();
    assert_eq!(receiver.recv_timeout(LIMIT).unwrap().text().unwrap(), "again");
    let listed = say(&place, &format!("ls {}", folder.display()));
    assert!(listed.contains(place.value("word")), "{listed}");
}
