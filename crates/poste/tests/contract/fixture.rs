//! The mechanisms under test: how a fresh channel of each is made and taken away.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use poste::mechanism::{Mechanism, find};
use poste::{Capabilities, Error, Options, Receiver, Sender};

use crate::cell::Form;

/// One mechanism, in one of its kinds of address.
pub(crate) struct Fixture {
    pub(crate) name: &'static str,
    scheme: &'static str,
    pub(crate) ends: Ends,
    /// What the machine lacks for it.
    pub(crate) lacks: fn() -> Option<String>,
}

/// How the two ends meet.
pub(crate) enum Ends {
    /// At an address, made from a folder and a number that are nobody else's.
    Address(fn(&Path, u32) -> String),
    /// They are made together.
    Together(fn(&Options) -> Result<(Sender, Receiver), Error>),
}

static TABLE: &[Fixture] = &[
    Fixture {
        name: "local",
        scheme: "local",
        ends: Ends::Address(|_, number| format!("local:contract-{number}")),
        lacks: || None,
    },
    Fixture {
        name: "pipe",
        scheme: "pipe",
        ends: Ends::Together(poste::pipe_with),
        lacks: || None,
    },
    Fixture {
        name: "pair",
        scheme: "pair",
        ends: Ends::Together(|options| {
            let (ours, theirs) = poste::pair_with(options)?;
            Ok((ours.split().0, theirs.split().1))
        }),
        lacks: || None,
    },
    Fixture {
        name: "fifo",
        scheme: "fifo",
        ends: Ends::Address(|folder, _| format!("fifo:{}/fifo", folder.display())),
        lacks: || None,
    },
    Fixture {
        name: "mq",
        scheme: "mq",
        ends: Ends::Address(|_, number| format!("mq:/{PREFIX}{}-{number}", std::process::id())),
        lacks: || None,
    },
    Fixture {
        name: "shm",
        scheme: "shm",
        ends: Ends::Address(|_, number| format!("shm:{PREFIX}{}-{number}", std::process::id())),
        lacks: || None,
    },
    Fixture {
        name: "sysv",
        scheme: "sysv",
        ends: Ends::Address(|_, number| format!("sysv:{:#x}", key_base() + number)),
        lacks: || None,
    },
    Fixture {
        name: "unix",
        scheme: "unix",
        ends: Ends::Address(|folder, _| format!("unix:{}/socket", folder.display())),
        lacks: || None,
    },
    Fixture {
        name: "unix-abstract",
        scheme: "unix",
        ends: Ends::Address(|_, number| format!("unix:@{PREFIX}{}-{number}", std::process::id())),
        lacks: || None,
    },
    Fixture {
        name: "seqpacket",
        scheme: "seqpacket",
        ends: Ends::Address(|folder, _| format!("seqpacket:{}/socket", folder.display())),
        lacks: || None,
    },
    Fixture {
        name: "dgram",
        scheme: "dgram",
        ends: Ends::Address(|folder, _| format!("dgram:{}/socket", folder.display())),
        lacks: || None,
    },
    Fixture {
        name: "tcp",
        scheme: "tcp",
        ends: Ends::Address(|_, _| "tcp:127.0.0.1:0".to_owned()),
        lacks: || None,
    },
    Fixture {
        name: "udp",
        scheme: "udp",
        ends: Ends::Address(|_, _| "udp:127.0.0.1:0".to_owned()),
        lacks: || None,
    },
];

/// What every name begins with that a trial makes.
pub(crate) const PREFIX: &str = "poste-contract-";

/// Where this process's System V keys begin: they count up from here.
pub(crate) fn key_base() -> u32 {
    0x4000_0000 | (std::process::id() & 0xffff) << 12
}

/// Those whose mechanism is there.
pub(crate) fn all() -> impl Iterator<Item = &'static Fixture> {
    TABLE.iter().filter(|fixture| find(fixture.scheme).is_some())
}

/// The one of a name.
pub(crate) fn named(name: &str) -> &'static Fixture {
    all().find(|fixture| fixture.name == name).expect("a fixture's name")
}

impl Fixture {
    pub(crate) fn mechanism(&self) -> &'static Mechanism {
        find(self.scheme).expect("only those that are there are used")
    }

    pub(crate) fn capabilities(&self) -> &'static Capabilities {
        &self.mechanism().capabilities
    }
}

/// A channel that is there as long as this value.
pub(crate) struct Channel {
    pub(crate) fixture: &'static Fixture,
    form: Form,
    folder: PathBuf,
    /// The address to make.
    wanted: Option<String>,
    /// The address as the kernel knows it.
    address: OnceLock<String>,
}

impl Channel {
    pub(crate) fn new(fixture: &'static Fixture, form: Form) -> Channel {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("{PREFIX}{}-{number}", std::process::id()));
        // Of a run that was killed, by a process that had this number.
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).expect("a folder for the channel");
        let wanted = match fixture.ends {
            Ends::Address(address) => Some(address(&folder, number)),
            Ends::Together(_) => None,
        };
        Channel { fixture, form, folder, wanted, address: OnceLock::new() }
    }

    /// Both ends.
    pub(crate) fn open(&self) -> (Sender, Receiver) {
        self.open_with(self.options()).expect("both ends open")
    }

    /// Both ends, opened with these options.
    pub(crate) fn open_with(&self, options: Options) -> Result<(Sender, Receiver), Error> {
        match self.fixture.ends {
            Ends::Together(open) => open(&options),
            Ends::Address(_) => {
                let receiver = self.receiver_with(&options)?;
                Ok((Sender::open_with(self.address(), &options)?, receiver))
            }
        }
    }

    /// A receiver at the address.
    pub(crate) fn receiver(&self) -> Receiver {
        self.receiver_with(&self.options()).expect("the receiver opens")
    }

    pub(crate) fn receiver_with(&self, options: &Options) -> Result<Receiver, Error> {
        let wanted = self.address.get().or(self.wanted.as_ref()).expect("it has an address");
        let receiver = Receiver::open_with(wanted, &options.clone().create())?;
        let _ = self.address.set(receiver.address().to_string());
        Ok(receiver)
    }

    /// A further sender.
    pub(crate) fn another(&self, sender: &Sender) -> Sender {
        match self.fixture.ends {
            Ends::Together(_) => sender.try_clone().expect("the sender can be cloned"),
            Ends::Address(_) => self.sender(),
        }
    }

    /// A sender to the address.
    pub(crate) fn sender(&self) -> Sender {
        Sender::open_with(self.address(), &self.options()).expect("the sender opens")
    }

    /// The options of this channel's form.
    pub(crate) fn options(&self) -> Options {
        match self.form {
            Form::Enveloped => Options::new(),
            Form::Raw => Options::new().raw(),
        }
    }

    /// The address to make, where it has one.
    pub(crate) fn wanted(&self) -> Option<&str> {
        self.wanted.as_deref()
    }

    /// The address; of a listening socket only after it was opened.
    pub(crate) fn address(&self) -> &str {
        self.address.get().or(self.wanted.as_ref()).expect("it has an address")
    }

    /// Says where a helper has opened it.
    pub(crate) fn is_at(&self, address: String) {
        let _ = self.address.set(address);
    }

    /// A folder that goes with it.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether both ends find it by themselves.
    pub(crate) fn has_address(&self) -> bool {
        self.wanted.is_some()
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        if let Some(address) = self.address.get() {
            // Most trials close their ends before; some mechanisms leave nothing then.
            let _ = poste::remove(address);
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
