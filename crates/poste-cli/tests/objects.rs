//! Looking at objects: what `list`, `info` and `limits` show agrees with the system's own tools.

mod command;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use command::objects::{by_address, has, is_root, list, real, receiver};
use command::{Outcome, Scratch, skip};
use serde_json::Value;

/// A program of another language that makes its objects, says so, and lives until it is dropped.
struct Peer(Child);

impl Peer {
    fn start(mut command: Command) -> Peer {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the peer starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Peer(child)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It takes its objects away when its input ends.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

const C_PEER: &str = r#"
#include <mqueue.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/msg.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct mq_attr attributes = {.mq_maxmsg = 3, .mq_msgsize = 64};
    mqd_t queue = mq_open(argv[1], O_RDWR | O_CREAT | O_EXCL, 0640, &attributes);
    if (queue < 0 || mq_send(queue, "hello", 5, 1)) return 1;
    int letters = msgget(atoi(argv[2]), 0640 | IPC_CREAT | IPC_EXCL);
    struct { long type; char text[8]; } letter = {1, "seven!"};
    if (letters < 0 || msgsnd(letters, &letter, 7, 0)) return 2;
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    strcpy(name.sun_path, argv[3]);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&name, sizeof name) || listen(listener, 5)) return 3;
    puts("ready");
    fflush(stdout);
    while (getchar() != EOF) {}
    mq_unlink(argv[1]);
    msgctl(letters, IPC_RMID, NULL);
    unlink(argv[3]);
    return 0;
}
"#;

const PYTHON_PEER: &str = r#"
import os, socket, sys
path, name = sys.argv[1:]
packets = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
packets.bind("py-packets")  # relative to the folder it runs in
packets.listen()
datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
datagrams.bind("\0" + name)
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sender.connect("\0" + name)
tcp = socket.socket()
tcp.bind(("127.0.0.1", 0))
tcp.listen()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", 0))
os.mkfifo(path + "/py-fifo", 0o620)
fifo = os.open(path + "/py-fifo", os.O_RDWR)
os.write(fifo, b"12345")
with open(path + "/ports", "w") as ports:
    print(tcp.getsockname()[1], udp.getsockname()[1], file=ports)
print("ready", flush=True)
sys.stdin.read()
"#;

fn c_peer(scratch: &Scratch, queue: &str, key: u32) -> Peer {
    let source = scratch.path("peer.c");
    std::fs::write(&source, C_PEER).unwrap();
    let program = scratch.path("peer");
    let built = Command::new("cc").arg("-o").args([&program, &source]).arg("-lrt").status();
    assert!(built.unwrap().success());
    let mut command = Command::new(program);
    command.args([queue, &key.to_string()]).arg(scratch.path("c-socket"));
    Peer::start(command)
}

fn python_peer(scratch: &Scratch, name: &str) -> Peer {
    let mut command = Command::new("python3");
    command.args(["-c", PYTHON_PEER]).arg(scratch.path("")).arg(name);
    command.current_dir(scratch.path(""));
    Peer::start(command)
}

fn holds(object: &Value, pid: u32, end: &str) -> bool {
    let holders = object["holders"].as_array().unwrap();
    holders.iter().any(|holder| holder["pid"] == pid && holder["end"] == end)
}

#[test]
fn everybodys_objects_are_listed_as_the_systems_tools_see_them() {
    let name = "everybodys_objects_are_listed_as_the_systems_tools_see_them";
    if let Some(missing) = ["cc", "python3", "ipcs", "ss"].into_iter().find(|tool| !has(tool)) {
        return skip(name, &format!("{missing} is missing"));
    }
    let scratch = Scratch::new();
    let mark = std::process::id();
    let (key_c, key_poste) = (0x7100_0000 + mark, 0x7200_0000 + mark);
    let (queue_c, queue_poste) = (format!("/poste-c-{mark}"), format!("/poste-own-{mark}"));
    let c = c_peer(&scratch, &queue_c, key_c);
    let python = python_peer(&scratch, &format!("poste-py-{mark}"));
    let mut own = receiver(&scratch, "own-socket");
    let made = [format!("mq:{queue_poste}"), format!("sysv:{key_poste}"), "fifo:./own".to_owned()];
    for address in &made {
        scratch.run(&["create", address]).prints("");
    }
    scratch.run(&["send", "--raw", &made[0], "four"]).prints("");
    let listed = list(&scratch);
    let at = |address: &str| listed.get(address).unwrap_or_else(|| panic!("{address}: {listed:?}"));

    let queue = at(&format!("mq:{queue_c}"));
    assert_eq!(
        (&queue["depth"], &queue["capacity"], &queue["bytes"]),
        (&1.into(), &3.into(), &5.into())
    );
    assert_eq!((&queue["message_size"], &queue["mode"]), (&64.into(), &"0640".into()));
    assert!(holds(queue, c.0.id(), "both") && queue["state"] == "alive", "{queue}");
    let queue = at(&format!("mq:{queue_poste}"));
    assert_eq!((&queue["depth"], &queue["bytes"]), (&1.into(), &4.into()));
    assert_eq!((&queue["mode"], &queue["mechanism"]), (&"0600".into(), &"mq".into()));
    assert!(queue["age_seconds"].as_u64().unwrap() < 60, "{queue}");

    let ipcs = Command::new("ipcs").arg("-q").output().unwrap().stdout;
    let ipcs = String::from_utf8(ipcs).unwrap();
    for (key, mode, bytes, depth) in [(key_c, "640", 7, 1), (key_poste, "600", 0, 0)] {
        let object = at(&format!("sysv:{key:#x}"));
        assert_eq!((&object["bytes"], &object["depth"]), (&bytes.into(), &depth.into()));
        let line = ipcs.lines().find(|line| line.contains(&format!("{key:#010x}"))).expect(&ipcs);
        let words: Vec<_> = line.split_whitespace().collect();
        let shown = [object["bytes"].to_string(), object["depth"].to_string()];
        assert_eq!(words[3..], [mode, shown[0].as_str(), shown[1].as_str()], "{line}");
        assert_eq!(object["mode"], format!("0{mode}"));
        assert_eq!(object["owner"], words[2]);
    }

    let here = real(&scratch);
    let ss = Command::new("ss").args(["-xlnH"]).output().unwrap().stdout;
    let ss = String::from_utf8(ss).unwrap();
    for (address, pid, path) in [
        (format!("unix:{here}/c-socket"), c.0.id(), "/c-socket"),
        (format!("unix:{here}/own-socket"), own.id(), "own-socket"),
        (format!("seqpacket:{here}/py-packets"), python.0.id(), "py-packets"),
    ] {
        let object = at(&address);
        assert!(holds(object, pid, "listen") && object["state"] == "alive", "{object}");
        assert!(ss.contains(path), "{path}: {ss}");
    }
    let datagrams = at(&format!("dgram:@poste-py-{mark}"));
    assert!(holds(datagrams, python.0.id(), "receive") && holds(datagrams, python.0.id(), "send"));
    let ports = std::fs::read_to_string(scratch.path("ports")).unwrap();
    let ports: Vec<_> = ports.split_whitespace().collect();
    assert!(holds(at(&format!("tcp:127.0.0.1:{}", ports[0])), python.0.id(), "listen"));
    assert!(holds(at(&format!("udp:127.0.0.1:{}", ports[1])), python.0.id(), "receive"));
    let fifo = at(&format!("fifo:{here}/py-fifo"));
    assert!(holds(fifo, python.0.id(), "both") && fifo["mode"] == "0600", "{fifo}");
    assert_eq!((&fifo["bytes"], &fifo["alive"]), (&5.into(), &true.into()));
    let fifo = at(&format!("fifo:{here}/own"));
    assert_eq!((&fifo["state"], &fifo["holders"]), (&"unused".into(), &Value::Array(vec![])));

    mounted_queues_agree(&scratch, name, [&queue_c, &queue_poste], &listed);
    own.kill();
    let removed = [&["remove"][..], &made.iter().map(String::as_str).collect::<Vec<_>>()].concat();
    scratch.run(&removed).prints("");
    drop((c, python));
    let left = list(&scratch);
    for address in listed.keys().filter(|address| address.contains(&mark.to_string())) {
        assert!(!left.contains_key(address), "{address}");
    }
}

/// Where the queues' file system can be mounted privately, it shows the same, and nothing is unseen.
fn mounted_queues_agree(
    scratch: &Scratch,
    name: &str,
    queues: [&str; 2],
    listed: &BTreeMap<String, Value>,
) {
    std::fs::create_dir(scratch.path("queues")).unwrap();
    let script = "mount -t mqueue none queues && cat queues$1 queues$2 && \
                  exec \"$0\" list --json --mechanism mq";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, env!("CARGO_BIN_EXE_poste")]).args(queues);
    command.current_dir(scratch.path("")).env("POSTE_DIR", scratch.path("run"));
    let output = command.output().unwrap();
    if !output.status.success() {
        return skip(name, "no mqueue file system can be mounted here");
    }
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let text = String::from_utf8(output.stdout).unwrap();
    let (sizes, lines): (Vec<_>, Vec<_>) = text.lines().partition(|it| it.starts_with("QSIZE:"));
    let seen = by_address(lines.join("\n").as_bytes());
    for (queue, size) in queues.into_iter().zip(sizes) {
        let address = format!("mq:{queue}");
        let bytes = size["QSIZE:".len()..].split_whitespace().next().unwrap();
        assert_eq!(seen[&address]["bytes"].to_string(), bytes, "{size}");
        for field in ["depth", "capacity", "bytes", "message_size", "mode", "uid", "holders"] {
            assert_eq!(seen[&address][field], listed[&address][field], "{field}");
        }
    }
}

#[test]
fn without_rights_list_says_what_it_could_not_see() {
    let name = "without_rights_list_says_what_it_could_not_see";
    if !is_root() || !has("setpriv") {
        return skip(name, "it takes root and setpriv to become another user");
    }
    let scratch = Scratch::new();
    let mark = std::process::id();
    let queue = format!("mq:/poste-rights-{mark}");
    scratch.run(&["create", &queue]).prints("");
    let mut own = receiver(&scratch, "own-socket");
    // That user may not enter where the program and the scratch directory are.
    let folder = std::env::temp_dir().join(format!("poste-rights-{mark}"));
    std::fs::create_dir(&folder).unwrap();
    let program = folder.join("poste");
    std::fs::copy(env!("CARGO_BIN_EXE_poste"), &program).unwrap();
    let list = "exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$0\" list --json";
    // Where no file system shows the queues: they are unmounted in a namespace of its own.
    let unmount = format!("umount -a -t mqueue; {list}");
    let can_unmount = Command::new("unshare").args(["-m", "true"]).status();
    let is_alone = can_unmount.is_ok_and(|status| status.success());
    let mut command = if is_alone { Command::new("unshare") } else { Command::new("sh") };
    match is_alone {
        true => command.args(["-m", "sh", "-c", &unmount]),
        false => command.args(["-c", list]),
    };
    command.arg(&program).env("POSTE_DIR", folder.join("run")).current_dir("/");
    let outcome = Outcome::of(&command.output().unwrap());
    std::fs::remove_dir_all(&folder).unwrap();
    own.kill();
    scratch.run(&["remove", &queue]).prints("");

    assert_eq!((outcome.code, outcome.err.lines().count()), (Some(0), 1), "{outcome:?}");
    assert!(outcome.err.contains("other users' processes"), "{outcome:?}");
    if !is_alone && std::fs::read_to_string("/proc/mounts").unwrap().contains(" mqueue ") {
        skip(name, "an mqueue file system is mounted, so nothing is said of one");
    } else {
        assert!(outcome.err.contains("mqueue"), "{outcome:?}");
    }
    // The kernel shows the socket by its name, but not who has it.
    let listed = by_address(&outcome.out);
    let socket = listed.iter().find(|(address, _)| address.contains(&real(&scratch)));
    if let Some((_, socket)) = socket {
        assert_eq!(
            (&socket["state"], &socket["holders"]),
            (&"alive".into(), &Value::Array(vec![]))
        );
    }
}

#[test]
fn info_says_all_that_is_known_of_one() {
    let scratch = Scratch::new();
    let key = 0x7300_0000 + std::process::id();
    let address = format!("sysv:{key:#x}");
    scratch.run(&["create", "--capacity", "1000", &format!("sysv:{key}")]).prints("");
    scratch.run(&["send", "--raw", &address, "abc"]).prints("");
    let outcome = scratch.run(&["info", "--json", &format!("sysv:{key}")]);
    scratch.run(&["remove", &address]).prints("");
    assert_eq!((outcome.code, outcome.err.as_str()), (Some(0), ""), "{outcome:?}");
    let info: Value = serde_json::from_slice(&outcome.out).unwrap();
    assert_eq!((&info["address"], &info["capacity"]), (&address.into(), &1000.into()));
    assert_eq!((&info["bytes"], &info["mode"]), (&3.into(), &"0600".into()));
    assert!(info["last_sender"].is_u64() && info.get("last_receiver").is_none(), "{info}");
    assert!(info.get("holders").is_none() && info.get("alive").is_none(), "{info}");
    let limits = info["limits"].as_array().unwrap();
    assert!(limits.iter().any(|limit| limit["name"] == "kernel.msgmax"), "{info}");

    scratch.run(&["info", &format!("sysv:{key}")]).fails(1, "create");
    scratch.run(&["info", "fifo:./no"]).fails(1, "create");
    scratch.run(&["info", "unix:./no"]).fails(1, "create");
    scratch.run(&["info", "tcp:127.0.0.1:1"]).fails(1, "create");
    scratch.run(&["info", "pipe:"]).fails(2, "fd:");
    scratch.run(&["info", "fd:0"]).fails(2, "no objects");
    scratch.run(&["list", "--mechanism", "bogus"]).fails(2, "bogus");
    // A FIFO that nobody has open and that others made is found by its address.
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        scratch.path("others"),
        rustix::fs::Mode::from_raw_mode(0o600),
    )
    .unwrap();
    let info = scratch.run(&["info", "--json", "fifo:./others"]);
    let info: Value = serde_json::from_slice(&info.out).unwrap();
    assert_eq!(info["address"], format!("fifo:{}/others", real(&scratch)));
}

#[test]
fn limits_have_the_systems_own_names_and_values() {
    let scratch = Scratch::new();
    let outcome = scratch.run(&["limits", "--json"]);
    assert_eq!((outcome.code, outcome.err.as_str()), (Some(0), ""), "{outcome:?}");
    let mut count = 0;
    for line in String::from_utf8(outcome.out).unwrap().lines() {
        let limit: Value = serde_json::from_str(line).unwrap();
        let name = limit["name"].as_str().unwrap();
        let command = limit["raise_with"].as_str().unwrap();
        count += 1;
        if name.starts_with("RLIMIT_") {
            assert!(command.starts_with("ulimit "), "{line}");
            continue;
        }
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        let value = std::fs::read_to_string(path).expect(name);
        let value = value.split_whitespace().last().unwrap();
        assert_eq!(limit["value"].to_string(), value, "{line}");
        assert!(command.starts_with(&format!("sysctl -w {name}=")), "{line}");
    }
    assert!(count > 10);
}

#[test]
fn completions_and_pages_are_made_of_the_same_words() {
    let scratch = Scratch::new();
    for shell in ["bash", "zsh", "fish"] {
        let outcome = scratch.run(&["completions", shell]);
        let text = String::from_utf8(outcome.out).unwrap();
        assert!(text.contains("mechanism") && text.contains("limits"), "{shell}");
    }
    scratch.run(&["completions", "tcsh"]).fails(2, "tcsh");
    let page = String::from_utf8(scratch.run(&["man"]).out).unwrap();
    assert!(page.contains(".TH poste 1") && page.contains("poste\\-list"), "{page}");
    scratch.run(&["man", "--directory", "./pages"]).prints("");
    for page in ["poste.1", "poste-send.1", "poste-gc.1"] {
        assert!(scratch.path("pages").join(page).exists(), "{page}");
    }
    std::fs::write(scratch.path("file"), "").unwrap();
    scratch.run(&["man", "--directory", "./file"]).fails(1, "file");
}
