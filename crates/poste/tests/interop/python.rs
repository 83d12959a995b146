//! Python: its sockets, multiprocessing.connection, posix_ipc and sysv_ipc.

use std::os::fd::AsRawFd;

use poste::{Options, Receiver};

use crate::machine::Need;
use crate::peer::{Peer, collect};
use crate::place::{FIFO, PAIR, PIPE, POSIX_QUEUE, Place, SYSV_QUEUE};
use crate::place::{TCP, UDP, UNIX, UNIX_DATAGRAM, UNIX_PACKET};
use crate::stranger::Stranger;
use crate::trial::{LIMIT, Test};

const PYTHON: Peer = Peer { name: "python", needs: &[Need::Python("socket")], ..Peer::PLAIN };

/// A message is its size, four bytes with the highest first, and its bytes: also with none.
const CONNECTION: Peer = Peer {
    name: "python_connection",
    needs: &[Need::Python("multiprocessing.connection")],
    sizes: &[0, 1, 4095, 4096, 4097, 8192, 1 << 20],
    wire: with_size,
    ..Peer::PLAIN
};

pub(crate) const PEERS: &[Peer] = &[
    Peer {
        over: PIPE,
        sends: r#""$python" "$py/copy.py""#,
        receives: r#""$python" "$py/copy.py""#,
        ..PYTHON
    },
    Peer {
        over: PAIR,
        sends: r#""$python" "$py/sockets.py" send inherited"#,
        receives: r#""$python" "$py/sockets.py" receive inherited"#,
        ..PYTHON
    },
    Peer {
        over: FIFO,
        sends: r#""$python" "$py/copy.py" > "$path""#,
        receives: r#""$python" "$py/copy.py" < "$path""#,
        ..PYTHON
    },
    Peer {
        over: UNIX,
        sends: r#""$python" "$py/sockets.py" send unix "$path""#,
        receives: r#""$python" "$py/sockets.py" receive unix "$path""#,
        ..PYTHON
    },
    Peer {
        over: UNIX_PACKET,
        sends: r#""$python" "$py/sockets.py" send seqpacket "$path""#,
        receives: r#""$python" "$py/sockets.py" receive seqpacket "$path""#,
        ..PYTHON
    },
    Peer {
        over: UNIX_DATAGRAM,
        sends: r#""$python" "$py/sockets.py" send dgram "$path""#,
        receives: r#""$python" "$py/sockets.py" receive dgram "$path""#,
        ..PYTHON
    },
    Peer {
        over: TCP,
        sends: r#""$python" "$py/sockets.py" send tcp "$host" "$port""#,
        receives: r#""$python" "$py/sockets.py" receive tcp "$host" "$port""#,
        ..PYTHON
    },
    Peer {
        over: UDP,
        sends: r#""$python" "$py/sockets.py" send udp "$host" "$port""#,
        receives: r#""$python" "$py/sockets.py" receive udp "$host" "$port""#,
        ..PYTHON
    },
    Peer {
        over: POSIX_QUEUE,
        needs: &[Need::Python("posix_ipc")],
        sends: r#""$python" "$py/posix_queue.py" send "$name""#,
        receives: r#""$python" "$py/posix_queue.py" receive "$name""#,
        ..PYTHON
    },
    Peer {
        over: SYSV_QUEUE,
        needs: &[Need::Python("sysv_ipc")],
        sends: r#""$python" "$py/sysv_queue.py" send "$key""#,
        receives: r#""$python" "$py/sysv_queue.py" receive "$key""#,
        ..PYTHON
    },
    Peer {
        over: UNIX,
        sends: r#""$python" "$py/connection.py" send "$path""#,
        receives: r#""$python" "$py/connection.py" receive "$path""#,
        ..CONNECTION
    },
    Peer {
        over: TCP,
        sends: r#""$python" "$py/connection.py" send "$host" "$port""#,
        receives: r#""$python" "$py/connection.py" receive "$host" "$port""#,
        ..CONNECTION
    },
];

pub(crate) const TESTS: &[Test] = &[Test {
    name: "python_connection::answers",
    needs: CONNECTION.needs,
    run: a_connection_answers,
}];

/// A message of multiprocessing.connection.
fn with_size(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes()[..], body].concat()
}

fn a_connection_answers() {
    let place = Place::new(UNIX);
    let server = Stranger::start(&place, r#""$python" "$py/connection.py" serve "$path""#, b"");
    let mut sender = place.sender();
    sender.send_timeout(&with_size(b"poste"), LIMIT).unwrap();
    let connection = sender.into_descriptor().unwrap();
    let address = format!("fd:{}", connection.as_raw_fd());
    let mut receiver = Receiver::open_with(address, &Options::new().raw()).unwrap();
    let answer = with_size(b"etsop");
    assert_eq!(collect(&mut receiver, answer.len()), answer);
    assert_eq!(server.finish_text(), "poste");
}
