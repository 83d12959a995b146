//! socat and nc: what people type to look at a socket.

use crate::machine::Need;
use crate::peer::Peer;
use crate::place::{FIFO, PIPE, POSIX_QUEUE, TCP, UDP, UNIX, UNIX_ABSTRACT};
use crate::place::{UNIX_DATAGRAM, UNIX_PACKET};
use crate::talk::Talk;

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

const SOCAT_TALK: Talk = Talk { name: SOCAT.name, needs: SOCAT.needs, ..Talk::PLAIN };
const NETCAT_TALK: Talk = Talk { name: NETCAT.name, needs: NETCAT.needs, ..Talk::PLAIN };

/// dd reads once and answers; tr reads to the end first. As clients both tell at once that their
/// question is over, and wait for the answer.
pub(crate) const TALKS: &[Talk] = &[
    Talk {
        over: UNIX,
        serves: r#"socat "UNIX-LISTEN:$path" 'EXEC:dd bs=1024 count=1 conv=ucase status=none'"#,
        asks: r#"socat -t30 - "UNIX-CONNECT:$path""#,
        ..SOCAT_TALK
    },
    Talk {
        over: UNIX,
        serves: r#"socat -t30 "UNIX-LISTEN:$path" 'EXEC:tr a-z A-Z'"#,
        wants_end: true,
        ..SOCAT_TALK
    },
    Talk {
        over: UNIX_DATAGRAM,
        serves: r#"socat "UNIX-RECVFROM:$path" 'EXEC:dd bs=1024 count=1 conv=ucase status=none'"#,
        asks: r#"socat -t30 - "UNIX-SENDTO:$path,bind=$path.$$""#,
        is_endless: true,
        ..SOCAT_TALK
    },
    Talk {
        over: TCP,
        serves: r#"socat "TCP4-LISTEN:$port,bind=$host,reuseaddr" \
            'EXEC:dd bs=1024 count=1 conv=ucase status=none'"#,
        asks: r#"socat -t30 - "TCP4:$host:$port""#,
        ..SOCAT_TALK
    },
    Talk {
        over: TCP,
        serves: r#"socat -t30 "TCP4-LISTEN:$port,bind=$host,reuseaddr" 'EXEC:tr a-z A-Z'"#,
        wants_end: true,
        ..SOCAT_TALK
    },
    Talk {
        over: UDP,
        serves: r#"socat "UDP4-RECVFROM:$port,bind=$host" \
            'EXEC:dd bs=1024 count=1 conv=ucase status=none'"#,
        asks: r#"socat -t30 - "UDP4:$host:$port""#,
        is_endless: true,
        ..SOCAT_TALK
    },
    Talk { over: UNIX, asks: r#"nc -N -U "$path""#, ..NETCAT_TALK },
    Talk { over: TCP, asks: r#"nc -N "$host" "$port""#, ..NETCAT_TALK },
];
