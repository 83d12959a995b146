//! A shell's own words on a FIFO and a pipe.

use std::fs::File;

use poste::Options;

use crate::peer::{Peer, line, text};
use crate::place::{FIFO, PAIR, PIPE, Place};
use crate::stranger::Stranger;
use crate::trial::{LIMIT, Test};

pub(crate) const PEERS: &[Peer] = &[
    Peer { name: "cat", over: PIPE, sends: "cat", receives: "cat", ..Peer::PLAIN },
    Peer { name: "cat", over: PAIR, sends: "cat", receives: "cat", ..Peer::PLAIN },
    Peer {
        name: "cat",
        over: FIFO,
        sends: r#"cat > "$path""#,
        receives: r#"cat "$path""#,
        ..Peer::PLAIN
    },
    // `read` takes one line, a byte at a time; `echo` adds the end of the line.
    Peer {
        name: "echo_and_read",
        over: FIFO,
        sends: r#"line=$(cat); echo "$line" > "$path""#,
        receives: r#"read -r line < "$path"; printf %s "$line""#,
        sizes: &[1, 4095, 4096, 4097, 8192],
        body: text,
        wire: line,
        ..Peer::PLAIN
    },
];

pub(crate) const TESTS: &[Test] = &[
    Test { name: "shell::takes_the_lines_we_leave", needs: &[], run: takes_the_lines_we_leave },
    Test { name: "shell::reads_line_by_line", needs: &[], run: reads_line_by_line },
    Test { name: "shell::echoes_lines_into_a_fifo", needs: &[], run: echoes_lines_into_a_fifo },
];

/// Who wants one line takes one line; the rest is the next program's.
fn takes_the_lines_we_leave() {
    let place = Place::new(PIPE);
    let lines = Options::new().delimited(b'\n').take(1);
    let (sender, mut receiver) = poste::pipe_with(&lines).unwrap();
    let output = sender.into_descriptor().unwrap();
    let shell =
        Stranger::start_on(&place, "seq 1 2000", File::open("/dev/null").unwrap(), Some(output));
    assert_eq!(receiver.recv_timeout(LIMIT).unwrap().text().unwrap(), "1");
    shell.finish();
    let rest = receiver.into_descriptor().unwrap();
    let cat = Stranger::start_on(&place, "cat", rest, None::<File>);
    let numbers: Vec<_> = (2..=2000).map(|number| number.to_string() + "\n").collect();
    assert_eq!(cat.finish_text(), numbers.concat());
}

fn reads_line_by_line() {
    let place = Place::made(FIFO);
    let shell = r#"while read -r line; do echo "got $line"; done < "$path""#;
    let shell = Stranger::start(&place, shell, b"");
    let mut sender = place.sender();
    for line in ["one\n", "two\n", "three\n"] {
        sender.send_timeout(line, LIMIT).unwrap();
    }
    sender.close().unwrap();
    assert_eq!(shell.finish_text(), "got one\ngot two\ngot three\n");
}

/// Each `echo` opens the FIFO, writes and closes it; the receiver waits for the next.
fn echoes_lines_into_a_fifo() {
    let place = Place::made(FIFO);
    let options = Options::new().delimited(b'\n');
    let mut receiver = poste::Receiver::open_with(&place.address, &options).unwrap();
    for word in ["one", "two", ""] {
        let shell = Stranger::start(&place, &format!(r#"echo {word} > "$path""#), b"");
        assert_eq!(receiver.recv_timeout(LIMIT).unwrap().text().unwrap(), word);
        shell.finish();
    }
    let shell = Stranger::start(&place, r#"printf 'a\nb\nno end' > "$path""#, b"");
    for word in ["a", "b", "no end"] {
        assert_eq!(receiver.recv_timeout(LIMIT).unwrap().text().unwrap(), word);
    }
    shell.finish();
}
