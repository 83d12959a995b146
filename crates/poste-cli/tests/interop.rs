//! The command in raw mode against programs that know nothing of poste: lines of shell as people
//! type them. The foreign programs are those of the library's tests (`crates/poste/tests/interop`),
//! which cover many more.

mod command;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use command::{Outcome, Scratch};
use poste_sys::testing::skip;

/// Where a foreign program meets the command, and its two lines. `x` is a path in the scratch
/// directory; `$n`, `$host` and `$port` are nobody else's.
struct Peer {
    address: &'static str,
    sends: &'static str,
    receives: &'static str,
}

const IN_C: &[Peer] = &[
    Peer { address: "fifo:./x", sends: "$c/fifo send x", receives: "$c/fifo receive x" },
    Peer {
        address: "mq:/poste-$n",
        sends: "$c/posix_queue send /poste-$n",
        receives: "$c/posix_queue receive /poste-$n",
    },
    Peer {
        address: "sysv:$n",
        sends: "$c/sysv_queue send $n",
        receives: "$c/sysv_queue receive $n",
    },
    Peer {
        address: "unix:./x",
        sends: "$c/unix_socket stream send x",
        receives: "$c/unix_socket stream receive x",
    },
    Peer {
        address: "seqpacket:./x",
        sends: "$c/unix_socket seqpacket send x",
        receives: "$c/unix_socket seqpacket receive x",
    },
    Peer {
        address: "dgram:./x",
        sends: "$c/unix_socket dgram send x",
        receives: "$c/unix_socket dgram receive x",
    },
    Peer {
        address: "tcp:$host:$port",
        sends: "$c/inet_socket tcp send $host $port",
        receives: "$c/inet_socket tcp receive $host $port",
    },
    Peer {
        address: "udp:$host:$port",
        sends: "$c/inet_socket udp send $host $port",
        receives: "$c/inet_socket udp receive $host $port",
    },
];

const IN_PYTHON: &[Peer] = &[
    Peer {
        address: "fifo:./x",
        sends: "python3 $py/copy.py > x",
        receives: "python3 $py/copy.py < x",
    },
    Peer {
        address: "unix:./x",
        sends: "python3 $py/sockets.py send unix x",
        receives: "python3 $py/sockets.py receive unix x",
    },
    Peer {
        address: "seqpacket:./x",
        sends: "python3 $py/sockets.py send seqpacket x",
        receives: "python3 $py/sockets.py receive seqpacket x",
    },
    Peer {
        address: "dgram:./x",
        sends: "python3 $py/sockets.py send dgram x",
        receives: "python3 $py/sockets.py receive dgram x",
    },
    Peer {
        address: "tcp:$host:$port",
        sends: "python3 $py/sockets.py send tcp $host $port",
        receives: "python3 $py/sockets.py receive tcp $host $port",
    },
    Peer {
        address: "udp:$host:$port",
        sends: "python3 $py/sockets.py send udp $host $port",
        receives: "python3 $py/sockets.py receive udp $host $port",
    },
];

const IN_SHELL: &[Peer] = &[Peer { address: "fifo:./x", sends: "cat > x", receives: "cat x" }];

/// Words that the lines below use: wait until a file has so many bytes, and until somebody listens
/// at the place. What runs beside a line ends with it.
const WORDS: &str = r#"
    has() { until [ -e "$1" ] && [ "$(stat -c %s "$1")" -ge "$2" ]; do sleep 0.01; done; }
    is_bound() {
        until [ -e x ] || grep -q ": $bound " /proc/net/tcp /proc/net/udp; do sleep 0.01; done
    }
    trap 'kill $! 2> ended' EXIT
"#;

fn is_there(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../poste/tests/interop")
}

/// The programs in C, compiled by the first who asks; without a compiler the test is skipped.
fn c_programs(test: &str) -> Option<&'static Path> {
    static PROGRAMS: OnceLock<Option<PathBuf>> = OnceLock::new();
    let programs = PROGRAMS.get_or_init(|| is_there("gcc", &["--version"]).then(compile));
    if programs.is_none() {
        skip(test, "gcc is missing");
    }
    programs.as_deref()
}

fn compile() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop-c");
    std::fs::create_dir_all(&folder).unwrap();
    for source in std::fs::read_dir(sources().join("c")).unwrap() {
        let source = source.unwrap().path();
        if source.extension().is_some_and(|end| end == "c") {
            let program = folder.join(source.file_stem().unwrap());
            let mut gcc = Command::new("gcc");
            gcc.args(["-w", "-o"]).arg(program).arg(&source).arg("-lrt");
            assert!(gcc.status().unwrap().success(), "{}", source.display());
        }
    }
    folder
}

/// Runs a line of shell in a scratch directory, for at most 30 seconds.
fn shell(scratch: &Scratch, c: &Path, line: &str) -> Outcome {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    let host = [127, 1, (process >> 8) as u8, process as u8];
    let port = 20_000 + count % 10_000;
    let program = Path::new(env!("CARGO_BIN_EXE_poste")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let output = Command::new("timeout")
        .args(["--kill-after=1", "30", "sh", "-c", &format!("{WORDS}\n{line}")])
        .current_dir(scratch.path(""))
        .env("PATH", format!("{}:{path}", program.display()))
        .env("c", c)
        .env("py", sources().join("py"))
        .env("n", (0x1000_0000 + (process & 0xf_ffff) * 256 + count % 256).to_string())
        .env("host", Ipv4Addr::from(host).to_string())
        .env("port", port.to_string())
        // As the kernel's tables show it.
        .env("bound", format!("{:08X}:{port:04X}", u32::from_ne_bytes(host)))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Outcome::of(&output)
}

/// Sends every size to the peer and from it, and compares byte for byte.
fn transfer(peers: &[Peer], c: &Path, sizes_max: usize) {
    for peer in peers {
        let scheme = peer.address.split(':').next().unwrap();
        let capabilities = &poste::mechanism::find(scheme).unwrap().capabilities;
        let sizes: &[usize] = match (capabilities.raw_boundaries, capabilities.raw_empty) {
            (true, true) => &[4097, 0, 1, 4095, 4096, 8192],
            (true, false) => &[4097, 1, 4095, 4096, 8192],
            (false, _) => &[4097, 1, 4095, 4096, 8192, 1 << 20],
        };
        for size in &sizes[..sizes.len().min(sizes_max)] {
            let scratch = Scratch::new();
            let body: Vec<u8> = (0..*size).map(|at| (at * 31 % 251) as u8).collect();
            std::fs::write(scratch.path("body"), &body).unwrap();
            let (Peer { address, sends, receives }, one) = (peer, capabilities.raw_boundaries);
            let (make, take_away) = match scheme {
                "fifo" | "mq" | "sysv" => ("poste create", "poste remove"),
                _ => (":", ":"),
            };
            let is_bound = if make == ":" { "is_bound" } else { ":" };
            let to_peer = format!(
                "{make} {address}; {receives} > came 2> said & {wait}
                 poste send --raw --timeout 20s {address} --file body && wait $!
                 {take_away} {address}; cmp body came",
                // For the other sockets the command tries until somebody is there.
                wait = if scheme == "udp" { "is_bound" } else { "" },
            );
            // A byte stream's messages are what the reads return, however many those are: it follows
            // until all has come.
            let ends = if one { ":" } else { "has came $(stat -c %s body) && kill $!" };
            let from_peer = format!(
                "{make} {address}; poste recv --raw --timeout 20s --format exact {follow} \\
                    {address} > came 2> said & {is_bound}; {{ {sends} < body; }}; {ends}; wait $!
                 {take_away} {address}; cmp body came",
                follow = if one { "-n 1" } else { "-f" },
            );
            for line in [to_peer, from_peer] {
                let _ = std::fs::remove_file(scratch.path("x"));
                let outcome = shell(&scratch, c, &line);
                assert_eq!(outcome.code, Some(0), "{size} bytes: {line}\n{outcome:?}");
                assert_eq!((outcome.err.as_str(), &outcome.out[..]), ("", &b""[..]), "{line}");
            }
        }
    }
}

/// Runs each line and compares what it prints.
fn try_lines(c: &Path, lines: &[(&str, &str)]) {
    for (line, expected) in lines {
        let outcome = shell(&Scratch::new(), c, line);
        let printed = String::from_utf8_lossy(&outcome.out);
        assert_eq!((&*printed, outcome.err.as_str()), (*expected, ""), "{line}");
    }
}

#[test]
fn bytes_go_to_and_come_from_programs_in_c() {
    if let Some(c) = c_programs("bytes_go_to_and_come_from_programs_in_c") {
        transfer(IN_C, c, usize::MAX);
    }
}

#[test]
fn bytes_go_to_and_come_from_python() {
    if is_there("python3", &["-c", "import socket"]) {
        transfer(IN_PYTHON, Path::new(""), 2);
    } else {
        skip("bytes_go_to_and_come_from_python", "python3 is missing");
    }
}

#[test]
fn bytes_go_to_and_come_from_the_shell() {
    transfer(IN_SHELL, Path::new(""), usize::MAX);
}

#[test]
fn strings_go_to_and_come_from_programs_in_c() {
    let Some(c) = c_programs("strings_go_to_and_come_from_programs_in_c") else { return };
    try_lines(
        c,
        &[
            (
                "poste send --c-string fd:1 hello | $c/pipe_child",
                "child received: hello (6 bytes)\n",
            ),
            ("$c/pipe_parent | poste recv --c-string -n 3 fd:0", "hello\n\nhow are you\n"),
            (
                "$c/fifo_reader x & until [ -p x ]; do sleep 0.01; done
                 poste send --c-string fifo:x hello; wait",
                "Received: hello (6 bytes)\n",
            ),
            (
                "mkfifo x; $c/fifo_writer x & poste recv --c-string fifo:x",
                "opening\nHello from the writer\n",
            ),
            // A server that opens the FIFO anew for each: one command a request.
            (
                "mkfifo x; $c/fifo_server x 3 > served &
                 for request in one two three; do
                     poste send --c-string fifo:x $request
                     until grep -q $request served; do sleep 0.01; done
                 done; wait; cat served",
                "request: one (4 bytes)\nrequest: two (4 bytes)\nrequest: three (6 bytes)\n",
            ),
            (
                "$c/queue_10x256 send /poste-$n
                 poste recv --c-string --json --remove mq:/poste-$n",
                "{\"body\":\"Hello from C\",\"size\":12,\"priority\":7,\"redelivered\":false}\n",
            ),
            (
                "poste create --capacity 10 --message-size 256 mq:/poste-$n
                 poste send --c-string -p 3 mq:/poste-$n hello
                 $c/queue_10x256 receive /poste-$n; poste remove mq:/poste-$n",
                "Received: hello (6 bytes, priority 3)\n",
            ),
            (
                "poste send --raw --create mq:/poste-$n Hello
                 $c/queue_default receive /poste-$n; $c/queue_default send /poste-$n
                 poste recv --raw --remove mq:/poste-$n",
                "Received: Hello (5 bytes)\nHello\n",
            ),
            (
                "poste recv --c-string unix:x > came & is_bound
                 printf 'hello\\0' | $c/unix_client x; wait; cat came",
                "hello\n",
            ),
            (
                "poste recv --c-string tcp:$host:$port > came 2> said & is_bound
                 printf 'hello\\0' | $c/tcp_client $host $port; wait; cat came",
                "hello\n",
            ),
        ],
    );
}

/// What lies behind the NUL of a buffer that is sent whole is no part of the string.
#[test]
fn a_string_in_a_buffer_that_a_program_in_c_sends_whole_ends_at_its_nul() {
    let test = "a_string_in_a_buffer_that_a_program_in_c_sends_whole_ends_at_its_nul";
    let Some(c) = c_programs(test) else { return };
    let (json, text) = ("--json -n 1", "-n 2");
    let printed = "{\"body\":\"Hello from C\",\"size\":12,\"priority\":0,\"redelivered\":false}\n";
    try_lines(
        c,
        &[
            (
                &format!(
                    "poste create --message-size 256 mq:/poste-$n
                     for one in 1 2 3; do $c/whole_buffer mq /poste-$n; done
                     poste recv --c-string {json} mq:/poste-$n
                     poste recv --c-string {text} --remove mq:/poste-$n"
                ),
                &format!("{printed}Hello from C\nHello from C\n"),
            ),
            (
                "poste create sysv:$n; for one in 1 2; do $c/whole_buffer sysv $n; done
                 poste recv --c-string --format exact sysv:$n; echo
                 poste recv --c-string --remove sysv:$n -- wc -c",
                "Hello from C\n12\n",
            ),
            (
                "poste recv --c-string --format quoted dgram:x > came & is_bound
                 $c/whole_buffer dgram x; wait; cat came",
                "\"Hello from C\"\n",
            ),
            (
                "poste recv --c-string udp:$host:$port > came 2> said & is_bound
                 $c/whole_buffer udp $host $port; wait; cat came",
                "Hello from C\n",
            ),
        ],
    );
}

#[test]
fn questions_go_to_and_come_from_programs_in_c() {
    let Some(c) = c_programs("questions_go_to_and_come_from_programs_in_c") else { return };
    let servers = [
        ("unix:x", "$c/unix_server x"),
        ("seqpacket:x", "$c/unix_server x seqpacket"),
        ("dgram:x", "$c/unix_datagram_server x"),
        ("tcp:$host:$port", "$c/tcp_server $host $port"),
        ("udp:$host:$port", "$c/udp_server $host $port"),
    ];
    for (address, server) in servers {
        let line = format!(
            "{server} > said & is_bound; poste call --c-string --timeout 10s {address} hello; wait"
        );
        try_lines(c, &[(&line, "HELLO\n")]);
        // The client of the same name, twice, and one who answers.
        let client = server.replace("server", "client");
        let line = format!(
            "poste reply --raw --body HELLO -n 2 {address} & is_bound
             for client in 1 2; do printf 'hello\\0' | {client}; echo; done; wait"
        );
        try_lines(c, &[(&line, "HELLO\nHELLO\n")]);
    }
}

/// The key that all the world uses, in a world of its own.
#[test]
fn the_system_v_key_1234() {
    let Some(c) = c_programs("the_system_v_key_1234") else { return };
    if !is_there("unshare", &["-ri", "true"]) {
        return skip("the_system_v_key_1234", "unshare -ri doesn't work here");
    }
    try_lines(
        c,
        &[
            (
                r#"unshare -ri sh -c 'poste send --c-string --create sysv:1234 hello
                                      $c/message_1234 receive'"#,
                "Received: hello (6 bytes)\n",
            ),
            (
                r#"unshare -ri sh -c '$c/message_1234 send
                                      poste send --raw --type 2 sysv:1234 other
                                      poste recv --raw --type 2 --json sysv:1234
                                      poste recv --raw --type 1 --format exact --remove \
                                          sysv:0x4d2 | tr -d "\0"'"#,
                "{\"body\":\"other\",\"size\":5,\"priority\":1,\"redelivered\":false,\"type\":2}\n\
                 Hello from C",
            ),
        ],
    );
}

#[test]
fn lines_and_records_go_to_and_come_from_the_shell() {
    try_lines(
        Path::new(""),
        &[
            ("seq 3 | poste recv --raw --lines -n 2 --format quoted fd:0", "\"1\"\n\"2\"\n"),
            // What was not asked for is left to the next program.
            ("seq 4 | { poste recv --raw --lines -n 2 fd:0; cat; }", "1\n2\n3\n4\n"),
            ("printf 'a b\\0\\0c\\0' | poste recv --raw -0 -n 3 fd:0 | tr '\\0' '|'", "a b||c|"),
            ("seq 3 | poste send --raw --lines fd:1 | cat", "1\n2\n3\n"),
            ("printf 'a\\0b\\0' | poste send --raw -0 fd:1 | tr '\\0' '|'", "a|b|"),
            ("printf 'a\\nb\\n' | poste send --c-string --lines fd:1 | tr '\\0' '|'", "a|b|"),
            (
                "mkfifo x; while read -r line; do echo \"got $line\"; done < x &
                 seq 3 | poste send --raw --lines fifo:x; wait",
                "got 1\ngot 2\ngot 3\n",
            ),
            (
                "mkfifo x; poste recv --raw --lines -n 3 fifo:x > came &
                 for word in one two three; do echo $word > x; done; wait; cat came",
                "one\ntwo\nthree\n",
            ),
            // A queue's messages are the lines, without their ends.
            (
                "poste create sysv:$n; seq 3 | poste send --raw --lines sysv:$n
                 poste recv --raw -n 3 --format quoted --remove sysv:$n",
                "\"1\"\n\"2\"\n\"3\"\n",
            ),
        ],
    );
}

#[test]
fn queues_are_exchanged_with_pythons_modules() {
    let python = std::env::var("POSTE_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    if !is_there(&python, &["-c", "import posix_ipc, sysv_ipc"]) {
        return skip(
            "queues_are_exchanged_with_pythons_modules",
            "Python's posix_ipc and sysv_ipc are missing (POSTE_PYTHON names another Python)",
        );
    }
    let peer = |address, script, name| {
        let line = |way| format!("{python} $py/{script}.py {way} {name}");
        let (sends, receives) = (line("send").leak(), line("receive").leak());
        Peer { address, sends, receives }
    };
    let peers =
        [peer("mq:/poste-$n", "posix_queue", "/poste-$n"), peer("sysv:$n", "sysv_queue", "$n")];
    transfer(&peers, Path::new(""), usize::MAX);
}
