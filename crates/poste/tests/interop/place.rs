//! A place to meet: a channel's address that nobody else has, and what commands are told of it.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use poste::{Capabilities, Kind, Options, Receiver, Sender, Wait, mechanism};

use crate::machine::{c_programs, folder, python, sources};
use crate::trial::LIMIT;

pub(crate) const FIFO: &str = "fifo:$path";
pub(crate) const POSIX_QUEUE: &str = "mq:$name";
pub(crate) const SYSV_QUEUE: &str = "sysv:$key";
pub(crate) const UNIX: &str = "unix:$path";
pub(crate) const UNIX_ABSTRACT: &str = "unix:@$word";
pub(crate) const UNIX_PACKET: &str = "seqpacket:$path";
pub(crate) const UNIX_DATAGRAM: &str = "dgram:$path";
pub(crate) const TCP: &str = "tcp:$host:$port";
pub(crate) const UDP: &str = "udp:$host:$port";
/// These have no name: the foreign program gets an end as its standard input or output.
pub(crate) const PIPE: &str = "pipe:";
pub(crate) const PAIR: &str = "pair:";

/// The System V keys of this process begin so; others' don't, with high probability.
pub(crate) fn first_key() -> u32 {
    0x6000_0000 | (std::process::id() & 0xf_ffff) << 8
}

/// A place that is this process's own, and goes with everything in it.
pub(crate) struct Place {
    pub(crate) address: String,
    folder: PathBuf,
    variables: Vec<(&'static str, String)>,
}

impl Place {
    /// A place for one of the addresses above. Of the channel there is nothing yet.
    pub(crate) fn new(address: &str) -> Place {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let word = format!("poste-interop-{}-{count}", std::process::id());
        let folder = folder(&count.to_string());
        std::fs::create_dir_all(&folder).unwrap();
        let [_, high, middle, low] = std::process::id().to_be_bytes();
        let variables = vec![
            ("path", folder.join("x").display().to_string()),
            ("name", format!("/{word}")),
            // There are never 256 places at once.
            ("key", format!("{:#x}", first_key() | count & 0xff)),
            // Loopback is a whole network: with the process in the host, ports don't collide.
            ("host", format!("127.{}.{middle}.{low}", 1 + high % 100)),
            ("port", (20_000 + count % 10_000).to_string()),
            ("word", word),
        ];
        let address = variables.iter().fold(address.to_owned(), |address, (name, value)| {
            address.replace(&format!("${name}"), value)
        });
        Place { address, folder, variables }
    }

    /// A place with its object made, where the mechanism has one that is made beforehand.
    pub(crate) fn made(address: &str) -> Place {
        let place = Place::new(address);
        let options = match place.scheme() {
            // A user's queues together have a limit: a small one.
            "mq" => Options::new().capacity(2).message_size(8192),
            _ => Options::new(),
        };
        match poste::create(&place.address, &options) {
            Ok(()) => {}
            // A socket is made by the end that listens, a pipe by us.
            Err(error) if error.kind() == Kind::NotSupported => {}
            Err(error) => panic!("{error}"),
        }
        place
    }

    pub(crate) fn scheme(&self) -> &str {
        self.address.split(':').next().unwrap_or_default()
    }

    pub(crate) fn capabilities(&self) -> &'static Capabilities {
        &mechanism::find(self.scheme()).expect("it is a mechanism").capabilities
    }

    /// Where files of this place lie.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What a variable of this place holds.
    pub(crate) fn value(&self, name: &str) -> &str {
        &self.variables.iter().find(|(known, _)| *known == name).expect("it is known").1
    }

    /// What a command finds in its environment: the variables of the addresses above, which Python
    /// to use, and where its scripts, Perl's, and the C programs are.
    pub(crate) fn environment(&self, command: &str) -> Vec<(&'static str, String)> {
        let mut environment = self.variables.clone();
        environment.push(("python", python().to_owned()));
        environment.push(("py", sources().join("py").display().to_string()));
        environment.push(("pl", sources().join("pl").display().to_string()));
        if command.contains("$c/") {
            environment.push(("c", c_programs().display().to_string()));
        }
        environment
    }

    /// A raw receiver of this place.
    pub(crate) fn receiver(&self) -> Receiver {
        Receiver::open_with(&self.address, &Options::new().raw()).unwrap()
    }

    /// A raw sender to this place, once somebody is there.
    pub(crate) fn sender(&self) -> Sender {
        let wait = match self.scheme() {
            // A FIFO's sender waits when it sends.
            "fifo" => Wait::Not,
            _ => Wait::For(LIMIT),
        };
        self.wait_for_receiver();
        Sender::open_with(&self.address, &Options::new().raw().patience(wait)).unwrap()
    }

    /// Waits until somebody receives at this place's port, where it has one that UDP serves: an
    /// end that opens finds out over all the others.
    pub(crate) fn wait_for_receiver(&self) {
        if self.scheme() != "udp" {
            return;
        }
        let host: Ipv4Addr = self.value("host").parse().unwrap();
        let host = u32::from_ne_bytes(host.octets());
        let bound = format!(" {host:08X}:{:04X} ", self.value("port").parse::<u16>().unwrap());
        wait_until("somebody receives", || {
            std::fs::read_to_string("/proc/net/udp").unwrap().contains(&bound)
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Most ends take their names away themselves; the check for leftovers looks at all.
        let _ = poste::remove(&self.address);
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// What a trial's name says of an address.
pub(crate) fn over_in_words(address: &str) -> String {
    let (scheme, rest) = address.split_once(':').expect("an address has a scheme");
    if rest.starts_with('@') { format!("{scheme}_abstract") } else { scheme.to_owned() }
}

/// Waits for something that nothing but looking tells.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < end, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
