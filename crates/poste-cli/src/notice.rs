//! What is worth a line on standard error although nothing failed.

use std::io::{IsTerminal as _, Write as _};
use std::net::IpAddr;

use poste::{Address, Capabilities};

use crate::exit;

/// Says what there is to say about an end that was just opened: `asked` is the address as given,
/// `taken` as the kernel knows it.
pub(crate) fn opened(asked: &Address, taken: &Address, capabilities: &Capabilities) {
    if !capabilities.network {
        return;
    }
    if asked.rest().ends_with(b":0") && asked.rest() != taken.rest() {
        line(&format!("listening on {taken}"));
    }
    if !is_loopback(taken) {
        line(&format!(
            "notice: {taken} is plain: nothing is encrypted, and nobody proves who he is"
        ));
    }
}

/// Says in one line what could not be seen.
pub(crate) fn unseen(words: &[String]) {
    if !words.is_empty() {
        line(&format!("notice: not to be seen here: {}", words.join("; ")));
    }
}

/// Says, to a person, that nothing was done yet.
pub(crate) fn dry_run() {
    if std::io::stderr().is_terminal() {
        line("notice: nothing was taken away yet; that does: poste gc --yes");
    }
}

/// Whether an address HOST:PORT stays on this machine; a name that isn't an address may not.
fn is_loopback(address: &Address) -> bool {
    let host = address.text().and_then(|text| text.rsplit_once(':')).map_or("", |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Says what went wrong without ending anything.
pub(crate) fn say(text: &str) {
    line(&format!("notice: {}", exit::one_line(text)));
}

fn line(text: &str) {
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_told_from_the_world() {
        for (text, expected) in [
            ("tcp:127.0.0.1:1", true),
            ("tcp:127.9.9.9:1", true),
            ("udp:[::1]:1", true),
            ("tcp:localhost:1", true),
            ("tcp:0.0.0.0:1", false),
            ("tcp:[::]:1", false),
            ("tcp:192.0.2.1:1", false),
            ("tcp:example.org:1", false),
        ] {
            assert_eq!(is_loopback(&Address::parse(text).unwrap()), expected, "{text}");
        }
    }
}
