//! What is swept: each operation of a mailbox, with who else is there and what must come of it.
//! The acts are those of party.rs; a letter is written as its sender's handle and its number.

use std::collections::BTreeSet;

/// One operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    /// The settings of the mailbox.
    pub(crate) settings: &'static str,
    /// Who is there before.
    pub(crate) cast: &'static [(&'static str, Fate)],
    /// What the stepped process does before.
    pub(crate) ready: &'static str,
    /// What is stepped.
    pub(crate) stepped: &'static str,
    /// The messages that lie there before, and after: what is in both is there all the time, and
    /// what is in one of them comes, or goes, once.
    pub(crate) before: &'static str,
    pub(crate) after: &'static str,
    /// What comes later by itself, where others are alive.
    pub(crate) later: &'static str,
    /// Where the living receiver is while it happens.
    pub(crate) reader: Reader,
}

/// What becomes of one that was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It lives on, and does nothing.
    Lives,
    /// It is killed, before the stepped process is started.
    Dead,
    /// It is killed when the stepped process is about to begin.
    Dies,
    /// It waits in the kernel for room: it stands still for the copies, and goes on for the kills.
    Waits,
    /// It waits in the kernel for a message; for the copies alone, stopped.
    Sleeps,
}

/// The living receiver of the second form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// It is attached, and receives only when the stepped process is dead.
    Idle,
    /// It sleeps in the kernel, and is stopped there until the stepped process is dead.
    Asleep,
    /// There is none: the mailbox itself comes or goes.
    None,
}

/// Letters out of their names: `a1 a2`.
pub(crate) fn set(names: &str, base: u32) -> BTreeSet<(char, u32)> {
    let read = |name: &str| {
        let mut letters = name.chars();
        let sender = letters.next().expect("a sender's handle");
        (sender, base + letters.as_str().parse::<u32>().expect("a number"))
    };
    names.split_whitespace().map(read).collect()
}

pub(crate) const PLAIN: Operation = Operation {
    name: "",
    settings: "",
    cast: &[],
    ready: "",
    stepped: "",
    before: "",
    after: "",
    later: "",
    reader: Reader::Idle,
};

const TWO: (&str, Fate) = ("sender s\nsend s 1\nsend s 2", Fate::Lives);
const FULL: &str = "sender s\nsend s 1\nsend s 2\nsend s 3\nsend s 4\nsend s 5\nsend s 6\nsend s 7\nsend s 8\nsend s 9\nsend s 10\nsend s 11\nsend s 12\nsend s 13\nsend s 14\nsend s 15\nsend s 16";
const FULL_AND_WAITS: &str = "sender s\nsend s 1\nsend s 2\nsend s 3\nsend s 4\nsend s 5\nsend s 6\nsend s 7\nsend s 8\nsend s 9\nsend s 10\nsend s 11\nsend s 12\nsend s 13\nsend s 14\nsend s 15\nsend s 16\nblock s 17";
const LAP: &str = "sender a\nreceiver r\nsend a 1\nreceive r\nsend a 2\nreceive r\nsend a 3\nreceive r\nsend a 4\nreceive r\nsend a 5\nreceive r\nsend a 6\nreceive r\nsend a 7\nreceive r\nsend a 8\nreceive r\nsend a 9\nreceive r\nsend a 10\nreceive r\nsend a 11\nreceive r\nsend a 12\nreceive r\nsend a 13\nreceive r\nsend a 14\nreceive r\nsend a 15\nreceive r\nsend a 16\nreceive r\nclose r";
const SIXTEEN_SET: &str = "s1 s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 s12 s13 s14 s15 s16";

/// All that is swept.
pub(crate) const ALL: &[Operation] = &[
    Operation { name: "create", stepped: "create", reader: Reader::None, ..PLAIN },
    Operation {
        name: "remove",
        cast: &[TWO],
        stepped: "remove",
        before: "s1 s2",
        reader: Reader::None,
        ..PLAIN
    },
    Operation { name: "attach_sender", stepped: "sender a", reader: Reader::Asleep, ..PLAIN },
    Operation {
        name: "attach_receiver",
        cast: &[TWO],
        stepped: "receiver r",
        before: "s1 s2",
        after: "s1 s2",
        ..PLAIN
    },
    Operation {
        name: "send",
        ready: "sender a",
        stepped: "send a 1:200",
        after: "a1",
        reader: Reader::Asleep,
        ..PLAIN
    },
    Operation {
        name: "send_behind_others",
        ready: "sender a\nsend a 1\nsend a 2@7",
        stepped: "send a 3@31",
        before: "a1 a2",
        after: "a1 a2 a3",
        ..PLAIN
    },
    Operation {
        name: "send_in_room_given_back",
        settings: "?capacity=16",
        ready: LAP,
        stepped: "send a 17",
        after: "a17",
        ..PLAIN
    },
    Operation {
        name: "send_to_a_full_lane",
        settings: "?capacity=16",
        ready: FULL,
        stepped: "full s 17",
        before: SIXTEEN_SET,
        after: SIXTEEN_SET,
        ..PLAIN
    },
    Operation {
        name: "send_to_a_sleeper",
        cast: &[("receiver w\nblock w", Fate::Sleeps)],
        ready: "sender a",
        stepped: "send a 1",
        after: "a1",
        reader: Reader::Asleep,
        ..PLAIN
    },
    Operation {
        name: "send_to_who_polls",
        cast: &[("receiver w\npoll w", Fate::Lives)],
        ready: "sender a",
        stepped: "send a 1",
        after: "a1",
        reader: Reader::Asleep,
        ..PLAIN
    },
    Operation {
        name: "feed_and_flush",
        ready: "sender a\nfeed a 1\nfeed a 2@5",
        stepped: "feed a 3\nflush a",
        after: "a1 a2 a3",
        reader: Reader::Asleep,
        ..PLAIN
    },
    Operation {
        name: "loan",
        ready: "sender a",
        stepped: "loan a 1@3:300",
        after: "a1",
        reader: Reader::Asleep,
        ..PLAIN
    },
    Operation {
        name: "loan_for_which_the_lane_grows",
        ready: "sender a\nsend a 1",
        stepped: "narrow a 2",
        before: "a1",
        after: "a1 a2",
        ..PLAIN
    },
    Operation {
        name: "loan_dropped",
        ready: "sender a\nsend a 1",
        stepped: "forget a 2\nsend a 3",
        before: "a1",
        after: "a1 a3",
        ..PLAIN
    },
    Operation {
        name: "receive",
        cast: &[TWO],
        ready: "receiver r",
        stepped: "receive r",
        before: "s1 s2",
        after: "s2",
        ..PLAIN
    },
    Operation {
        name: "receive_lent",
        cast: &[("sender s\nsend s 1:6000\nsend s 2@1:7000", Fate::Lives)],
        ready: "receiver r",
        stepped: "receive r",
        before: "s1 s2",
        after: "s1",
        ..PLAIN
    },
    Operation {
        name: "take",
        cast: &[TWO],
        ready: "manual r",
        stepped: "take r",
        before: "s1 s2",
        after: "s1 s2",
        ..PLAIN
    },
    Operation {
        name: "receive_many",
        cast: &[("sender s\nsend s 1\nsend s 2@6\nsend s 3\nsend s 4", Fate::Lives)],
        ready: "receiver r",
        stepped: "many r",
        before: "s1 s2 s3 s4",
        ..PLAIN
    },
    Operation {
        name: "acknowledge",
        cast: &[TWO],
        ready: "manual r\ntake r",
        stepped: "acknowledge",
        before: "s1 s2",
        after: "s2",
        ..PLAIN
    },
    Operation {
        name: "acknowledge_what_a_sender_waits_for",
        settings: "?capacity=16",
        cast: &[(FULL_AND_WAITS, Fate::Waits)],
        ready: "manual r\ntake r",
        stepped: "acknowledge",
        before: SIXTEEN_SET,
        after: "s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 s12 s13 s14 s15 s16",
        later: "s17",
        ..PLAIN
    },
    Operation {
        name: "reject",
        cast: &[("sender s\nsend s 1", Fate::Lives)],
        ready: "manual r\ntake r",
        stepped: "reject",
        before: "s1",
        after: "s1",
        reader: Reader::Asleep,
        ..PLAIN
    },
    Operation {
        name: "reject_for_the_last_time",
        settings: "?deliveries=1",
        cast: &[("sender s\nsend s 1", Fate::Lives)],
        ready: "manual r\ntake r",
        stepped: "reject",
        before: "s1",
        after: "s1",
        reader: Reader::Asleep,
        ..PLAIN
    },
    Operation {
        name: "bury_a_receiver",
        cast: &[TWO, ("manual v\ntake v\ntake v", Fate::Dies)],
        stepped: "receiver r",
        before: "s1 s2",
        after: "s1 s2",
        reader: Reader::Asleep,
        ..PLAIN
    },
    Operation {
        name: "bury_a_receiver_for_the_last_time",
        settings: "?deliveries=1",
        cast: &[TWO, ("manual v\ntake v\ntake v", Fate::Dies)],
        stepped: "receiver r",
        before: "s1 s2",
        after: "s1 s2",
        reader: Reader::Asleep,
        ..PLAIN
    },
    Operation {
        name: "bury_a_receiver_while_receiving",
        cast: &[TWO, ("manual v\ntake v\ntake v", Fate::Dies)],
        ready: "manual r",
        stepped: "take r",
        before: "s1 s2",
        after: "s1 s2",
        reader: Reader::Asleep,
        ..PLAIN
    },
    Operation {
        name: "hear_of_a_receivers_death",
        cast: &[TWO, ("manual v\ntake v\ntake v", Fate::Dies)],
        ready: "receiver w\nblock w",
        stepped: "the watcher",
        before: "s1 s2",
        after: "s1 s2",
        reader: Reader::Asleep,
        ..PLAIN
    },
    Operation {
        name: "hear_of_a_senders_death",
        cast: &[("sender v", Fate::Dies)],
        ready: "receiver w\nblock w",
        stepped: "the watcher",
        reader: Reader::Asleep,
        ..PLAIN
    },
    Operation {
        name: "bury_a_sender_and_go_on_with_its_lane",
        cast: &[("sender v\nsend v 1\nsend v 2@9", Fate::Dies)],
        stepped: "sender a\nsend a 3@9",
        before: "v1 v2",
        after: "v1 v2 a3",
        ..PLAIN
    },
    Operation {
        name: "detach_a_sender",
        ready: "sender a",
        stepped: "close a",
        reader: Reader::Asleep,
        ..PLAIN
    },
    Operation {
        name: "detach_a_sender_of_what_lies_there",
        ready: "sender a\nsend a 1\nfeed a 2",
        stepped: "close a",
        before: "a1",
        after: "a1 a2",
        ..PLAIN
    },
    Operation {
        name: "detach_a_receiver",
        cast: &[("sender s\nsend s 1", Fate::Lives)],
        ready: "manual r\ntake r",
        stepped: "close r\nreject",
        before: "s1",
        after: "s1",
        reader: Reader::Asleep,
        ..PLAIN
    },
    Operation {
        name: "free_the_lane_of_one_that_is_gone",
        cast: &[("sender v\nsend v 1", Fate::Dead)],
        ready: "receiver r\nreceive r",
        stepped: "nothing r",
        ..PLAIN
    },
    Operation {
        name: "ask_for_a_receivers_descriptor",
        cast: &[TWO],
        ready: "receiver r",
        stepped: "poll r",
        before: "s1 s2",
        after: "s1 s2",
        ..PLAIN
    },
    Operation {
        name: "ask_for_a_senders_descriptor",
        ready: "sender a\nsend a 1",
        stepped: "poll a\nsend a 2",
        before: "a1",
        after: "a1 a2",
        ..PLAIN
    },
];
