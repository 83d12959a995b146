//! Perl, with what comes with it.

use crate::machine::Need;
use crate::peer::Peer;
use crate::place::{FIFO, SYSV_QUEUE, TCP, UNIX};

const SOCKETS: Peer =
    Peer { name: "perl", needs: &[Need::Perl("IO::Socket::UNIX")], ..Peer::PLAIN };

pub(crate) const PEERS: &[Peer] = &[
    Peer {
        name: "perl",
        over: SYSV_QUEUE,
        needs: &[Need::Perl("IPC::Msg")],
        sends: r#"perl "$pl/message.pl" send "$key""#,
        receives: r#"perl "$pl/message.pl" receive "$key""#,
        ..Peer::PLAIN
    },
    Peer {
        name: "perl",
        over: FIFO,
        needs: &[Need::Program("perl")],
        sends: r#"perl -pe 1 > "$path""#,
        receives: r#"perl -pe 1 < "$path""#,
        ..Peer::PLAIN
    },
    Peer {
        over: UNIX,
        sends: r#"perl "$pl/sockets.pl" send "$path""#,
        receives: r#"perl "$pl/sockets.pl" receive "$path""#,
        ..SOCKETS
    },
    Peer {
        over: TCP,
        sends: r#"perl "$pl/sockets.pl" send "$host" "$port""#,
        receives: r#"perl "$pl/sockets.pl" receive "$host" "$port""#,
        ..SOCKETS
    },
];
