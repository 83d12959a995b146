//! socat and nc: what people type to look at a socket.

use crate::machine::Need;
use crate::peer::Peer;
use crate::place::{FIFO, PIPE, POSIX_QUEUE, TCP, UDP, UNIX, UNIX_ABSTRACT};
use crate::place::{UNIX_DATAGRAM, UNIX_PACKET};

const SOCAT: Peer = Peer { name: "socat", needs: &[Need::Program("socat")], ..Peer::PLAIN };

/// A listening nc ends with its first connection.
const NETCAT: Peer = Peer { name: "nc", needs: &[Need::Netcat("-U")], ..Peer::PLAIN };

/// An empty datagram is nothing to see where it is printed, and to socat nothing to send.
const NOT_EMPTY: &[usize] = &[1, 4095, 4096, 4097, 8192];

pub(crate) const PEERS: &[Peer] = &[
    Peer { over: PIPE, sends: "socat -u - -", receives: "socat -u - -", ..SOCAT },
    Peer {
        over: FIFO,
        sends: r#"socat -u - "PIPE:$path""#,
        receives: r#"socat -u "PIPE:$path" -"#,
        ..SOCAT
    },
    Peer {
        over: UNIX,
        sends: r#"socat -u - "UNIX-CONNECT:$path""#,
        receives: r#"socat -u "UNIX-LISTEN:$path" -"#,
        ..SOCAT
    },
    Peer {
        over: UNIX_ABSTRACT,
        sends: r#"socat -u - "ABSTRACT-CONNECT:$word""#,
        receives: r#"socat -u "ABSTRACT-LISTEN:$word" -"#,
        ..SOCAT
    },
    Peer {
        over: UNIX_PACKET,
        sends: r#"socat -u - "UNIX-CONNECT:$path,type=5""#,
        receives: r#"socat -u "UNIX-LISTEN:$path,type=5" -"#,
        ..SOCAT
    },
    Peer {
        over: UNIX_DATAGRAM,
        sends: r#"socat -u - "UNIX-SENDTO:$path""#,
        receives: r#"socat -u "UNIX-RECV:$path" -"#,
        is_endless: true,
        sizes: NOT_EMPTY,
        ..SOCAT
    },
    Peer {
        over: TCP,
        sends: r#"socat -u - "TCP4:$host:$port""#,
        receives: r#"socat -u "TCP4-LISTEN:$port,bind=$host,reuseaddr" -"#,
        ..SOCAT
    },
    Peer {
        over: UDP,
        sends: r#"socat -u - "UDP4-SENDTO:$host:$port""#,
        receives: r#"socat -u "UDP4-RECV:$port,bind=$host" -"#,
        is_endless: true,
        sizes: NOT_EMPTY,
        ..SOCAT
    },
    Peer {
        over: POSIX_QUEUE,
        needs: &[Need::Socat("POSIXMQ-SEND")],
        sends: r#"socat -u - "POSIXMQ-SEND:$name""#,
        receives: r#"socat -u "POSIXMQ-READ:$name" -"#,
        is_endless: true,
        sizes: NOT_EMPTY,
        ..SOCAT
    },
    Peer { over: UNIX, sends: r#"nc -N -U "$path""#, receives: r#"nc -l -U "$path""#, ..NETCAT },
    Peer {
        over: TCP,
        sends: r#"nc -N "$host" "$port""#,
        receives: r#"nc -l "$host" "$port""#,
        ..NETCAT
    },
];
