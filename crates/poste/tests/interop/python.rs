//! Python: its sockets, multiprocessing.connection, posix_ipc and sysv_ipc.

use poste::Level;

use crate::machine::Need;
use crate::peer::{Peer, bytes};
use crate::place::{FIFO, PAIR, PIPE, POSIX_QUEUE, Place, SYSV_QUEUE};
use crate::place::{TCP, UDP, UNIX, UNIX_DATAGRAM, UNIX_PACKET};
use crate::stranger::Stranger;
use crate::talk::Talk;
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
    name: "python::a_server_that_speaks_first_gets_all",
    needs: PYTHON.needs,
    run: a_server_that_speaks_first_gets_all,
}];

const TALK: Talk = Talk { name: "python", needs: PYTHON.needs, ..Talk::PLAIN };

pub(crate) const TALKS: &[Talk] = &[
    Talk {
        over: UNIX,
        serves: r#""$python" "$py/sockets.py" serve unix "$path""#,
        asks: r#""$python" "$py/sockets.py" ask unix "$path""#,
        ..TALK
    },
    Talk {
        over: UNIX_PACKET,
        serves: r#""$python" "$py/sockets.py" serve seqpacket "$path""#,
        asks: r#""$python" "$py/sockets.py" ask seqpacket "$path""#,
        ..TALK
    },
    Talk {
        over: UNIX_DATAGRAM,
        serves: r#""$python" "$py/sockets.py" serve dgram "$path""#,
        asks: r#""$python" "$py/sockets.py" ask dgram "$path""#,
        ..TALK
    },
    Talk {
        over: TCP,
        serves: r#""$python" "$py/sockets.py" serve tcp "$host" "$port""#,
        asks: r#""$python" "$py/sockets.py" ask tcp "$host" "$port""#,
        ..TALK
    },
    Talk {
        over: UDP,
        serves: r#""$python" "$py/sockets.py" serve udp "$host" "$port""#,
        asks: r#""$python" "$py/sockets.py" ask udp "$host" "$port""#,
        ..TALK
    },
    Talk {
        name: CONNECTION.name,
        over: UNIX,
        needs: CONNECTION.needs,
        serves: r#""$python" "$py/connection.py" serve "$path""#,
        asks: r#""$python" "$py/connection.py" ask "$path""#,
        wire: with_size,
        ..TALK
    },
];

/// TCP is reset when it is closed with something unread, and what is on its way is lost.
fn a_server_that_speaks_first_gets_all() {
    let place = Place::new(TCP);
    let greet = r#""$python" "$py/sockets.py" greet tcp "$host" "$port""#;
    let server = Stranger::start(&place, greet, b"");
    let mut sender = place.sender();
    let body = bytes(4 << 20);
    assert_eq!(sender.send_timeout(&body, LIMIT).unwrap(), Level::Queued);
    drop(sender);
    let came = server.finish();
    assert!(came == body, "{} bytes were sent, and {} came", body.len(), came.len());
}

/// A message of multiprocessing.connection.
fn with_size(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes()[..], body].concat()
}
