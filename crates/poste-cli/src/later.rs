//! What the command line will have and doesn't have yet: refused in plain words, never stubbed.
//!
//! A name leaves its list here when it is built.

use crate::exit::{Code, Failure};

/// Verbs to come.
const VERBS: &[&str] = &["bench", "doctor", "pick", "top"];

/// Options to come.
const OPTIONS: &[&str] = &["--ack"];

/// Mechanisms to come.
const SCHEMES: &[&str] = &["nats", "signal", "task"];

/// The refusal of a verb, where it is one to come.
pub(crate) fn verb(name: &str) -> Option<Failure> {
    let hint = "what there is: poste --help";
    VERBS.contains(&name).then(|| refusal(&format!("the verb {name}"), hint))
}

/// The refusal of an option, where it is one to come.
pub(crate) fn option(name: &str) -> Option<Failure> {
    let name = name.split_once('=').map_or(name, |(name, _)| name);
    let hint = "leave it out; what there is: poste send --help";
    OPTIONS.contains(&name).then(|| refusal(&format!("the option {name}"), hint))
}

/// The refusal of a mechanism, where it is one to come.
pub(crate) fn mechanism(scheme: &str) -> Option<Failure> {
    let hint = "what there is: poste capabilities; a queue that stays, for one, is mq:/NAME";
    SCHEMES.contains(&scheme).then(|| refusal(&format!("the mechanism {scheme}:"), hint))
}

/// The refusal of calls where there is no way back.
pub(crate) fn calls(scheme: &str) -> Failure {
    let hint = "call over unix:, seqpacket:, dgram:, tcp: or udp:, where answers find their way";
    refusal(&format!("a call over {scheme}:, which has no way back,"), hint)
}

fn refusal(what: &str, hint: &str) -> Failure {
    Failure::new(Code::Usage, format!("{what} is not built yet"), hint)
}
